package gateway

import (
	"net/http/httptest"
	"testing"

	"github.com/tatami-faas/tatami/functions"
)

// A request that is to become an invocation, and has no key, gets an id of its function; no other request does.
func TestWhatIsNamed(t *testing.T) {
	t.Parallel()
	names := Names("fn.example")
	hello := functions.Ref{Namespace: "default", Name: "hello"}
	for _, c := range []struct {
		method, target, host string
		set                  []string
		want                 functions.Ref
	}{
		{"POST", "/async/hello/x?q=1", "", nil, hello},
		{"POST", "/async/hello.other", "", nil, functions.Ref{Namespace: "other", Name: "hello"}},
		{"PUT", "/fn/hello", "", []string{"Prefer", "respond-async"}, hello},
		{"PUT", "/x", "hello.default.fn.example", []string{"Prefer", "respond-async"}, hello},
		{"POST", "/async/hello", "", []string{"Idempotency-Key", "k"}, functions.Ref{}},
		{"POST", "/x", "hello.default.fn.example", nil, functions.Ref{}},
		{"POST", "/fn/hello", "", []string{"Prefer", "wait=1"}, functions.Ref{}},
		{"GET", "/async/hello", "", nil, functions.Ref{}},
		{"POST", "/async/", "", nil, functions.Ref{}},
		{"POST", "/events", "", nil, functions.Ref{}},
		{"GET", "/invocations/inv_x", "", nil, functions.Ref{}},
	} {
		r := httptest.NewRequest(c.method, c.target, nil)
		if c.host != "" {
			r.Host = c.host
		}
		for i := 0; i+1 < len(c.set); i += 2 {
			r.Header.Add(c.set[i], c.set[i+1])
		}
		hash, ok := functions.InvocationID(names(r)).FunctionHash()
		if named := c.want != (functions.Ref{}); ok != named || named && hash != c.want.Hash() {
			t.Errorf("%s %s has the name %q", c.method, c.target, names(r))
		}
	}
}

// The name that a request has goes to the queue with it.
func TestANameIsHandedOver(t *testing.T) {
	t.Parallel()
	f := &front{ready: make(chan struct{})}
	h := Public(f, f, Config{})
	r := httptest.NewRequest("POST", "/async/hello", nil)
	h.ServeHTTP(httptest.NewRecorder(), r)
	h.ServeHTTP(httptest.NewRecorder(), r.WithContext(Named(r.Context(), "inv_y", true)))
	if len(f.accepted) != 2 || f.accepted[0].ID != "" || f.accepted[0].Again || f.accepted[1].ID != "inv_y" || !f.accepted[1].Again {
		t.Errorf("%+v", f.accepted)
	}
}
