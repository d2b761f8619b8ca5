package sandboxtest

import (
	"strings"
	"testing"
)

// activation: a process that is given its socket finds requests in it that came before it began. A driver that cannot says so, and the process
// listens by itself.
func (s *suite) activation(t *testing.T) {
	for name, port := range map[string]int{"port 8080": 8080, "port 80": 80} {
		t.Run(name, func(t *testing.T) {
			spec := s.spec()
			spec.Port, spec.Activate = port, true
			// Long after whoever does not queue has been refused.
			spec.Env = []string{"PORT=80", "LATE=300"}
			if port != 80 {
				spec.Env[0] = "PORT=8080"
			}
			sb := s.start(t, spec)
			given := sb.Info().Activated
			if given {
				conn, err := sb.Dial(t.Context())
				if err != nil {
					t.Fatalf("nothing listens when the process begins: %v", err)
				}
				conn.Close()
			}
			c := serving(t, sb)
			if got := c.get("/"); got != "hello" {
				t.Errorf("%q", got)
			}
			if v := c.sees(); v.has("LISTEN_FDS=1") != given || v.has("LISTEN_PID=1") != given {
				t.Errorf("given %v, and told %q", given, v.Env)
			}
			// What is started later has no such socket.
			var out strings.Builder
			if code, err := sb.Exec(t.Context(), []string{"/testfn", "env"}, nil, &out, nil); err != nil || code != 0 || strings.Contains(out.String(), "LISTEN_") {
				t.Errorf("exec: %d, %v\n%s", code, err, out.String())
			}
		})
	}
	t.Run("by an adopted one", func(t *testing.T) {
		spec := s.spec()
		spec.Activate = true
		c := s.create(t, spec)
		before := c.Info()
		s.reopen(t)
		s.adopted(t, before)
	})
	t.Run("not asked for", func(t *testing.T) {
		c := s.create(t, s.spec())
		if c.Info().Activated || c.sees().has("LISTEN_FDS=1") {
			t.Error("it was given a socket")
		}
	})
}
