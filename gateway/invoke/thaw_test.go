package invoke_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/gateway/invoke"
	"github.com/tatami-faas/tatami/internal/bus"
)

// TestThawPhase: the time that a frozen instance took until it ran again is told, and told of no other.
func TestThawPhase(t *testing.T) {
	t.Parallel()
	b := setup(t, invoke.Config{})
	s := httptest.NewServer(http.HandlerFunc(seen))
	defer s.Close()
	rev := b.deploy("hello", nil)
	id := b.node.start(t, rev, s.Listener.Addr().String(), functions.Phases{})
	for _, frozen := range []bool{true, false} {
		var ep bus.Endpoint
		b.node.change(id, func(i *inst) {
			i.ep.Frozen = frozen
			ep = i.ep
		})
		b.node.publish(t, bus.EndpointTable{Endpoints: []bus.Endpoint{ep}})
		for {
			resp, _ := b.do("GET", "/fn/hello", nil)
			if resp.StatusCode != 200 {
				t.Fatal(resp.Status)
			}
			// The table may come after the call.
			if strings.Contains(resp.Header.Get("Server-Timing"), "thaw;dur=") == frozen {
				break
			}
		}
	}
}
