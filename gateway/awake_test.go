package gateway

import (
	"net/http"
	"testing"

	"github.com/tatami-faas/tatami/internal/awake"
	"github.com/tatami-faas/tatami/tests/wishes"
)

// Both servers of the public listener keep the processors awake, whatever a client speaks.
func TestCallsKeepProcessorsAwake(t *testing.T) {
	t.Parallel()
	keeper, w := wishes.New(t, awake.Calls)
	const first = "/fn/first"
	g, stop := run(t, Config{PublicAddr: "127.0.0.1:0", Awake: keeper}, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path != first {
			w.Begins(r.Proto)
			w.Ends("a handler at work")
		}
	}), say("control"))
	over2 := &http.Transport{Protocols: new(http.Protocols)}
	over2.Protocols.SetUnencryptedHTTP2(true)
	for proto, tr := range map[string]*http.Transport{"HTTP/1.1": {}, "HTTP/2.0": over2} {
		// What is told while a connection is made depends on how it comes.
		for _, path := range []string{first, "/fn/a", "/fn/b"} {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+g.Addrs().Public+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := tr.RoundTrip(r)
			if err != nil {
				t.Fatal(err)
			}
			if resp.Body.Close(); resp.Proto != proto {
				t.Errorf("%s, not %s", resp.Proto, proto)
			}
			w.Settle()
		}
		tr.CloseIdleConnections()
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}
