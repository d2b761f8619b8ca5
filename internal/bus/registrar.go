package bus

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/fault"
	"github.com/tatami-faas/tatami/internal/pki"
)

// CertificateRequest is a worker's question to the registrar: to certify a key for its node.
type CertificateRequest struct {
	Schema int `json:"schema"`
	// Request is in the form of PKCS #10.
	Request []byte `json:"request"`
}

// CertificateAnswer is the certificate, followed by what Authority.Sign of package pki has behind it.
type CertificateAnswer struct {
	Schema int      `json:"schema"`
	Chain  [][]byte `json:"chain"`
}

// registrar gives workers that were let in their certificates.
type registrar struct {
	authority func() *pki.Authority
	life      time.Duration
	audit     *audit
	nc        *nats.Conn
	log       *slog.Logger
}

// listen answers until the connection ends.
func (r *registrar) listen() error {
	if _, err := r.nc.QueueSubscribe(subjectCertify, queueDesk, r.answer); err != nil {
		return fmt.Errorf("subscribing to %s: %w", subjectCertify, err)
	}
	return nil
}

func (r *registrar) answer(m *nats.Msg) {
	node := functions.NodeID(m.Subject[strings.LastIndexByte(m.Subject, '.')+1:])
	if !strings.HasPrefix(m.Reply, inboxOf(node)+".") {
		r.log.Warn("a worker's question wants its answer elsewhere", "node", node, "subject", m.Reply)
		return
	}
	out := nats.NewMsg(m.Reply)
	a, err := r.certify(node, m.Data, time.Now())
	if err == nil {
		out.Data, err = json.Marshal(a)
	}
	if err != nil {
		r.audit.refused(slogNode(node), "", err)
		refuse(out, err)
	}
	if err := r.nc.PublishMsg(out); err != nil {
		r.log.Warn("a worker's question was not answered", "node", node, "err", err)
	}
}

// certify certifies a key for the node on whose subject it was asked: the server lets nobody else speak there.
func (r *registrar) certify(node functions.NodeID, data []byte, now time.Time) (CertificateAnswer, error) {
	req, err := Decode[CertificateRequest](data)
	if err != nil {
		return CertificateAnswer{}, err
	}
	chain, err := r.authority().Sign(req.Request, workerSubject(node), r.life, now)
	if err != nil {
		return CertificateAnswer{}, err
	}
	r.audit.say("certificate-issued", slogNode(node), "until", now.Add(r.life).UTC())
	return CertificateAnswer{Schema: Schema, Chain: chain}, nil
}

// workerSubject is whom the certificate of a node's worker is for.
func workerSubject(node functions.NodeID) pki.Subject {
	return pki.Subject{Role: pki.RoleWorker, Name: string(node)}
}

// refuse puts an error in the place of an answer.
func refuse(out *nats.Msg, err error) {
	out.Data = []byte(err.Error())
	out.Header.Set(headerError, string(fault.CodeOf(err)))
	if f := fault.From(err); f != nil && f.Hint != "" {
		out.Header.Set(headerHint, f.Hint)
	}
}

// refusalIn is the error in the place of an answer; nil where there is none.
func refusalIn(m *nats.Msg) error {
	code := m.Header.Get(headerError)
	if code == "" {
		return nil
	}
	f := fault.New(fault.Code(code), "%s", m.Data)
	f.Hint = m.Header.Get(headerHint)
	return f
}
