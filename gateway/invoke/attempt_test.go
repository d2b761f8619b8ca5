package invoke_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/gateway/http1"
	"github.com/tatami-faas/tatami/gateway/invoke"
	"github.com/tatami-faas/tatami/internal/fault"
)

// told is a context that tells a watcher of its end, and nobody else.
type told struct {
	context.Context
	by chan http1.Watcher
}

func (w *told) Watch(_ context.Context, by http1.Watcher) bool {
	w.by <- by
	return true
}

func (w *told) Unwatch() bool {
	close(w.by)
	return true
}

// An attempt is named to the function once, whatever the request's header says, and the request's context may tell of its end by itself.
func TestRoundTripAs(t *testing.T) {
	t.Parallel()
	for name, edit := range map[string]func(*functions.Config){"http1": nil, "h2c": h2c} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, invoke.Config{})
			began := make(chan struct{}, 1)
			serve := func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/wait" {
					began <- struct{}{}
					<-r.Context().Done()
					return
				}
				_, _ = io.WriteString(w, strings.Join(append(r.Header[invoke.HeaderInvocationID], r.Header[invoke.HeaderAttempt]...), " "))
			}
			if edit == nil {
				b.backend(b.deploy("hello", edit), serve)
			} else {
				b.backendH2(b.deploy("hello", edit), serve)
			}
			trip := func(path string, ctx *told) (*http.Response, error) {
				l, err := b.inv.Lease(t.Context(), hello, invoke.Async)
				if err != nil {
					t.Fatal(err)
				}
				defer l.Release()
				r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://hello"+path, nil)
				if err != nil {
					t.Fatal(err)
				}
				r.Header[invoke.HeaderAttempt], r.Header[invoke.HeaderInvocationID] = []string{"7"}, []string{"inv_other"}
				resp, err := l.RoundTripAs(r, "inv_a", 3)
				if err != nil {
					return nil, err
				}
				body, err := io.ReadAll(resp.Body)
				_ = resp.Body.Close()
				if string(body) != "inv_a 3" || err != nil {
					t.Errorf("the function was told %q, %v", body, err)
				}
				return resp, nil
			}
			ctx := &told{t.Context(), make(chan http1.Watcher, 1)}
			if _, err := trip("/", ctx); err != nil {
				t.Fatal(err)
			}
			<-ctx.by
			if _, open := <-ctx.by; open {
				t.Error("it is watched twice")
			}
			ctx = &told{t.Context(), make(chan http1.Watcher, 1)}
			go func() {
				<-began
				(<-ctx.by).Gone()
			}()
			if _, err := trip("/wait", ctx); fault.CodeOf(err) != fault.CodeDraining {
				t.Errorf("the end of its context leads to %v", err)
			}
		})
	}
}
