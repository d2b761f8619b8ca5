package gateway

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/tatami-faas/tatami/functions"
)

func TestSplitFunction(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]string{
		"/fn/hello": "hello default /", "/fn/hello/": "hello default /", "/fn/hello.prod/a%2Fb//c": "hello prod /a%2Fb//c",
		"/fn/he%6Clo/x": "hello default /x", "/fn/hello%2Eprod": "hello prod /", "/fn/a.b.c": "a b.c /", "/fn/a.": "a  /",
		"/fn/a%2Fb/c": "a/b default /c", "/fn/%20": "  default /",
	} {
		ref, below, ok := splitFunction(path, "/fn/")
		if got := ref.Name + " " + ref.Namespace + " " + below; !ok || got != want {
			t.Errorf("%s: %q, %v", path, got, ok)
		}
	}
	for _, path := range []string{"", "/", "/fn", "/fn/", "/fn//x", "/fnx/hello", "/FN/hello", "/fn/%zz", "/fn/%", "fn/hello"} {
		if ref, _, ok := splitFunction(path, "/fn/"); ok {
			t.Errorf("%q names %v", path, ref)
		}
	}
}

func TestSplitHost(t *testing.T) {
	t.Parallel()
	for host, want := range map[string]string{
		"hello.prod.fn.example": "hello prod", "HELLO.Prod.FN.example:8080": "hello prod", "hello.prod.fn.example.": "hello prod",
		"hello.fn.example": "hello ", ".fn.example": " ", "a.b.c.fn.example": "a b.c",
	} {
		ref, below := splitHost(host, "fn.example")
		if got := ref.Name + " " + ref.Namespace; !below || got != want {
			t.Errorf("%s: %q, %v", host, got, below)
		}
	}
	for _, host := range []string{"", "fn.example", "xfn.example", "fn.example.org", "hello.prod.fn.exampl", "[::1]:80"} {
		if ref, below := splitHost(host, "fn.example"); below {
			t.Errorf("%q names %v", host, ref)
		}
	}
	if _, below := splitHost("hello.prod.fn.example", ""); below {
		t.Error("without a domain")
	}
}

// What is cut is what was there: nothing of the function's path is lost, added or moved into the name.
func FuzzSplitFunction(f *testing.F) {
	for _, s := range []string{"/fn/hello", "/fn/hello.x/a%2Fb?q", "/fn//", "/fn/a/../b", "/fn/%2e%2e/x", "//fn/x", "/fn/a\r\nb"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		ref, below, ok := splitFunction(s, functionPrefix)
		if !ok {
			return
		}
		if !strings.HasPrefix(below, "/") || !strings.HasSuffix(s, below) && below != "/" {
			t.Fatalf("%q gives the path %q", s, below)
		}
		name := strings.TrimPrefix(s, functionPrefix)
		name, _, _ = strings.Cut(name, "/")
		plain, err := url.PathUnescape(name)
		if err != nil {
			t.Fatalf("%q has no name and gives %v", s, ref)
		}
		if plain != ref.Name+"."+ref.Namespace && (plain != ref.Name || ref.Namespace != functions.DefaultNamespace) {
			t.Fatalf("%q gives %+v", s, ref)
		}
		if ref.Validate() == nil && strings.ContainsAny(ref.Name+ref.Namespace, "/%. \r\n") {
			t.Fatalf("%q gives the name %+v", s, ref)
		}
	})
}

func FuzzSplitHost(f *testing.F) {
	for _, s := range []string{"a.b.fn.example", "a.b.fn.example:80", ".fn.example", "fn.example", "[::1]:1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, host string) {
		ref, below := splitHost(host, "fn.example")
		if below && ref.Validate() == nil && !strings.HasPrefix(strings.ToLower(host), ref.Name+"."+ref.Namespace+".fn.example") {
			t.Fatalf("%q gives %+v", host, ref)
		}
	})
}

func TestPrefersAsync(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		method string
		h      http.Header
		want   bool
	}{
		{"POST", http.Header{"Prefer": {"respond-async"}}, true},
		{"GET", http.Header{"Prefer": {"wait=10, Respond-Async; x=y"}}, true},
		{"BREW", http.Header{"Prefer": {"return=minimal", "respond-async"}}, true},
		{"POST", http.Header{"Prefer": {"respond-async=no, respond-asyncx"}}, false},
		{"OPTIONS", http.Header{"Prefer": {"respond-async"}}, false},
		{"TRACE", http.Header{"Prefer": {"respond-async"}}, false},
		{"CONNECT", http.Header{"Prefer": {"respond-async"}}, false},
		{"GET", http.Header{"Prefer": {"respond-async"}, "Connection": {"Upgrade"}, "Upgrade": {"websocket"}}, false},
		{"POST", http.Header{}, false},
	} {
		if got := prefersAsync(&http.Request{Method: c.method, Header: c.h}); got != c.want {
			t.Errorf("%s %v: %v", c.method, c.h, got)
		}
	}
}
