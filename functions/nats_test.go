package functions_test

import (
	"strings"
	"testing"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/fault"
)

func TestNATSSources(t *testing.T) {
	t.Parallel()
	good := func() *functions.NATSSource {
		return &functions.NATSSource{Servers: []string{"nats://nats:4222", "tls://10.0.0.1:4222"}, Stream: "MAIL", Subject: "mail.*.in.>", Group: "g", Start: "earliest",
			TLS: true, CA: "/ca.pem", User: "u", Password: functions.SecretRef{File: "/password"}}
	}
	check := func(n *functions.NATSSource) *fault.Error {
		tr := functions.Trigger{Name: "t", Function: "f", NATS: n}.WithDefaults()
		return fault.From(tr.Validate())
	}
	for name, change := range map[string]func(*functions.NATSSource){
		"as it is":   func(*functions.NATSSource) {},
		"no subject": func(n *functions.NATSSource) { n.Subject = "" },
		"a subject":  func(n *functions.NATSSource) { n.Stream, n.Start = "", "" },
		"everything": func(n *functions.NATSSource) { n.Stream, n.Start, n.Subject = "", "", ">" },
		"credentials": func(n *functions.NATSSource) {
			n.User, n.Password, n.Credentials = "", functions.SecretRef{}, "/x.creds"
		},
		"nobody":       func(n *functions.NATSSource) { n.User, n.Password = "", functions.SecretRef{} },
		"no certs":     func(n *functions.NATSSource) { n.CA = "" },
		"other secret": func(n *functions.NATSSource) { n.Password = functions.SecretRef{Env: "TATAMI_SECRET_X"} },
	} {
		n := good()
		if change(n); check(n) != nil {
			t.Errorf("%s: %v", name, check(n))
		}
	}
	for field, changes := range map[string][]func(*functions.NATSSource){
		"nats.servers": {
			func(n *functions.NATSSource) { n.Servers = nil },
			func(n *functions.NATSSource) { n.Servers = make([]string, 17) },
			func(n *functions.NATSSource) { n.Servers = []string{"nats:4222"} },
			func(n *functions.NATSSource) { n.Servers = []string{"http://nats:4222"} },
			func(n *functions.NATSSource) { n.Servers = []string{"nats://user:secret@nats:4222"} },
			func(n *functions.NATSSource) { n.Servers = []string{"nats://nats:4222/x"} },
		},
		"nats.subject": {
			func(n *functions.NATSSource) { n.Stream, n.Start, n.Subject = "", "", "" },
			func(n *functions.NATSSource) { n.Subject = "a..b" },
			func(n *functions.NATSSource) { n.Subject = "a.>.b" },
			func(n *functions.NATSSource) { n.Subject = "a b" },
			func(n *functions.NATSSource) { n.Subject = "a*" },
			func(n *functions.NATSSource) { n.Subject = strings.Repeat("a", 513) },
		},
		"nats.stream": {func(n *functions.NATSSource) { n.Stream = "a.b" }, func(n *functions.NATSSource) { n.Stream = strings.Repeat("a", 129) }},
		"nats.group":  {func(n *functions.NATSSource) { n.Group = "a>" }},
		"nats.start": {
			func(n *functions.NATSSource) { n.Start = "yesterday" },
			func(n *functions.NATSSource) { n.Stream = "" },
		},
		"nats.ca":          {func(n *functions.NATSSource) { n.TLS = false }, func(n *functions.NATSSource) { n.CA = "ca.pem" }},
		"nats.credentials": {func(n *functions.NATSSource) { n.User, n.Credentials = "", "x.creds" }},
		"nats.user": {
			func(n *functions.NATSSource) { n.Credentials = "/x.creds" },
			func(n *functions.NATSSource) { n.User = "" },
			func(n *functions.NATSSource) { n.User = strings.Repeat("u", 256) },
		},
		"nats.password":      {func(n *functions.NATSSource) { n.Password = functions.SecretRef{} }},
		"nats.password.file": {func(n *functions.NATSSource) { n.Password.File = "password" }},
	} {
		for i, change := range changes {
			n := good()
			change(n)
			if f := check(n); f == nil || f.Field != field || f.Code != fault.CodeInvalidSpec {
				t.Errorf("%s %d: %+v", field, i, f)
			}
		}
	}
}
