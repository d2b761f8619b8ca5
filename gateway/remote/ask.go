package remote

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/fault"
)

// maxLogLine is the longest line of an answer to a query of logs.
const maxLogLine = 1 << 20

// Exec runs a further process in an instance, wherever that is, and returns its exit code. Of stdin at most bus.MaxExecInput is passed
// on, and of the output elsewhere at most bus.MaxExecOutput each comes back.
func (w *Workers) Exec(ctx context.Context, inst functions.InstanceID, args []string, stdin io.Reader, stdout, stderr io.Writer) (int, error) {
	node := w.cfg.Node
	if len(*w.peers.Load()) > 0 || w.cfg.Local == nil {
		var err error
		if node, err = w.cfg.Locate(ctx, inst); err != nil {
			return 0, err
		}
	}
	if w.here(node) {
		return w.cfg.Local.Exec(ctx, inst, args, stdin, stdout, stderr)
	}
	p := w.peer(node)
	if p == nil {
		return 0, unknown(node)
	}
	in, err := io.ReadAll(io.LimitReader(stdin, bus.MaxExecInput+1))
	if err != nil {
		return 0, fault.Wrap(fault.CodeInvalidRequest, err, "reading the standard input")
	}
	if len(in) > bus.MaxExecInput {
		return 0, fault.New(fault.CodeBodyTooLarge, "the standard input has more than %d bytes", bus.MaxExecInput).WithField("stdin")
	}
	resp, err := p.post(ctx, bus.PathExec, bus.ExecRequest{Schema: bus.Schema, Instance: inst, Args: args, Stdin: in})
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	var out bus.ExecResult
	// In JSON the bytes take a third more.
	if err := json.NewDecoder(io.LimitReader(resp.Body, 4*bus.MaxExecOutput)).Decode(&out); err != nil {
		return 0, p.broken(err)
	}
	if _, err := stdout.Write(out.Stdout); err != nil {
		return 0, err
	}
	if _, err := stderr.Write(out.Stderr); err != nil {
		return 0, err
	}
	return out.Code, nil
}

// post asks the worker; the answer's body must be closed.
func (p *peer) post(ctx context.Context, path string, question any) (*http.Response, error) {
	data, err := json.Marshal(question)
	if err != nil {
		return nil, err
	}
	at := p.listener()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+at.Address+path, bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+at.Token)
	resp, err := p.http.Do(req)
	if err != nil {
		return nil, p.broken(err)
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		return nil, bus.FaultOf(resp)
	}
	return resp, nil
}

// logs asks the worker for lines; take gets them, and the word that those behind it are new.
func (p *peer) logs(ctx context.Context, q bus.LogQuery, take func(bus.LogEvent) error) error {
	resp, err := p.post(ctx, bus.PathLogs, q)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, maxLogLine)
	for lines.Scan() {
		var e bus.LogEvent
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return fmt.Errorf("reading the log of node %s: %w", p.node, err)
		}
		if e.Err != "" {
			return fault.New(fault.CodeUnavailable, "%s", e.Err)
		}
		if err := take(e); err != nil {
			return err
		}
	}
	return lines.Err()
}
