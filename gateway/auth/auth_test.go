package auth_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tatami-faas/tatami/gateway/auth"
	"github.com/tatami-faas/tatami/gateway/problem"
	"github.com/tatami-faas/tatami/internal/fault"
)

const host = "127.0.0.1:8081"

func newAuth(t *testing.T, cfg auth.Config) *auth.Auth {
	t.Helper()
	if cfg.TokenFile == "" {
		cfg.TokenFile = filepath.Join(t.TempDir(), "token")
	}
	a, err := auth.New(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// handler is what auth guards: it tells that a request came through.
func handler(a *auth.Auth) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc(auth.LoginPath, a.Login)
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	return a.Middleware(mux)
}

func request(method, path string, change ...func(*http.Request)) *http.Request {
	r := httptest.NewRequest(method, "http://"+host+path, nil)
	for _, c := range change {
		c(r)
	}
	return r
}

func set(name, value string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set(name, value) }
}

func to(h string) func(*http.Request) { return func(r *http.Request) { r.Host = h } }

func over(network string) func(*http.Request) {
	return func(r *http.Request) {
		var addr net.Addr = &net.TCPAddr{}
		if network == "unix" {
			addr = &net.UnixAddr{Net: "unix"}
		}
		*r = *r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, addr))
	}
}

func do(h http.Handler, r *http.Request) *http.Response {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func TestAdmission(t *testing.T) {
	t.Parallel()
	a := newAuth(t, auth.Config{Hosts: []string{"tatami.example"}, Public: []string{"/healthz"}})
	h := handler(a)
	bearer := set("Authorization", "Bearer "+a.Token())
	for name, c := range map[string]struct {
		r    *http.Request
		want int
		code string
	}{
		"no token":                   {request("GET", "/v1/status"), 401, "unauthenticated"},
		"a token":                    {request("GET", "/v1/status", bearer), 204, ""},
		"the scheme in lower case":   {request("GET", "/v1/status", set("Authorization", "bearer "+a.Token())), 204, ""},
		"a wrong token":              {request("GET", "/v1/status", set("Authorization", "Bearer x"+a.Token()[1:])), 401, "unauthenticated"},
		"a token's beginning":        {request("GET", "/v1/status", set("Authorization", "Bearer "+a.Token()[:10])), 401, "unauthenticated"},
		"an empty token":             {request("GET", "/v1/status", set("Authorization", "Bearer ")), 401, "unauthenticated"},
		"another scheme":             {request("GET", "/v1/status", set("Authorization", "Basic "+a.Token())), 401, "unauthenticated"},
		"the socket":                 {request("DELETE", "/v1/x", over("unix"), to("anything")), 204, ""},
		"TCP is not the socket":      {request("GET", "/v1/status", over("tcp")), 401, "unauthenticated"},
		"a public path":              {request("GET", "/healthz"), 204, ""},
		"below a public path":        {request("GET", "/healthz/x"), 401, "unauthenticated"},
		"a name that was rebound":    {request("GET", "/v1/status", bearer, to("evil.example:8081")), 403, "denied"},
		"rebound, on a public path":  {request("GET", "/healthz", to("evil.example")), 403, "denied"},
		"no host":                    {request("GET", "/v1/status", bearer, to("")), 403, "denied"},
		"a name that was configured": {request("GET", "/v1/status", bearer, to("Tatami.Example:443")), 204, ""},
		"localhost":                  {request("GET", "/v1/status", bearer, to("localhost:8081")), 204, ""},
		"an address":                 {request("GET", "/v1/status", bearer, to("[::1]:8081")), 204, ""},
		"a foreign page":             {request("POST", "/v1/x", bearer, set("Origin", "https://evil.example")), 403, "denied"},
		"a page of another port":     {request("POST", "/v1/x", bearer, set("Origin", "http://127.0.0.1:8080")), 403, "denied"},
		"a page of no origin":        {request("POST", "/v1/x", bearer, set("Origin", "null")), 403, "denied"},
		"our own page":               {request("POST", "/v1/x", bearer, set("Origin", "http://"+host)), 204, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			resp := do(h, c.r)
			if resp.StatusCode != c.want || resp.Header.Get(problem.HeaderError) != c.code {
				t.Errorf("got %d %q, want %d %q", resp.StatusCode, resp.Header.Get(problem.HeaderError), c.want, c.code)
			}
			if c.want == 401 && !strings.HasPrefix(resp.Header.Get("WWW-Authenticate"), "Bearer") {
				t.Error("401 without WWW-Authenticate")
			}
		})
	}
}

func TestTokenFile(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "token")
	a := newAuth(t, auth.Config{TokenFile: file})
	if len(a.Token()) != 64 {
		t.Errorf("a token of %d characters: want 256 bits in hexadecimal", len(a.Token()))
	}
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	again := newAuth(t, auth.Config{TokenFile: file})
	if again.Token() != a.Token() {
		t.Error("a second start made another token")
	}
	if info, _ = os.Stat(file); info.Mode().Perm() != 0o600 {
		t.Errorf("a file open to others stays so: %v", info.Mode())
	}
	if err := os.WriteFile(file, []byte("short\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := auth.New(auth.Config{TokenFile: file}, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("a file without a token is taken for one")
	}
}

func TestRotate(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "token")
	a := newAuth(t, auth.Config{TokenFile: file})
	h := handler(a)
	old := a.Token()
	cookies := login(t, a, h)
	link, _ := a.Link()
	now, err := a.Rotate(t.Context())
	if err != nil || now == old || a.Token() != now {
		t.Fatalf("rotated to %q, %v", now, err)
	}
	if b, _ := os.ReadFile(file); strings.TrimSpace(string(b)) != now {
		t.Error("the file holds another token")
	}
	if resp := do(h, request("GET", "/v1/x", set("Authorization", "Bearer "+old))); resp.StatusCode != 401 {
		t.Errorf("the old token: %d", resp.StatusCode)
	}
	if resp := do(h, request("GET", "/v1/x", cookies)); resp.StatusCode != 401 {
		t.Errorf("a session of the old token: %d", resp.StatusCode)
	}
	if resp := do(h, request("GET", link)); resp.StatusCode != 401 {
		t.Errorf("a link of the old token: %d", resp.StatusCode)
	}
}

// A token that is replaced is shared before it is valid, and not replaced where that fails; one that another server has made is taken over.
func TestTheTokenIsShared(t *testing.T) {
	t.Parallel()
	var shared string
	var refused error
	file := filepath.Join(t.TempDir(), "token")
	a := newAuth(t, auth.Config{TokenFile: file, Share: func(_ context.Context, token string) error {
		shared = token
		return refused
	}})
	now, err := a.Rotate(t.Context())
	if err != nil || shared != now || a.Token() != now {
		t.Fatalf("it has %q and shared %q: %v", now, shared, err)
	}
	refused = errors.New("nobody leads")
	if _, err := a.Rotate(t.Context()); !errors.Is(err, refused) || a.Token() != now {
		t.Errorf("not shared, and now %q: %v", a.Token(), err)
	}
	other := strings.Repeat("ab", 32)
	if err := a.Adopt(other); err != nil || a.Token() != other {
		t.Errorf("it is %q: %v", a.Token(), err)
	}
	if b, _ := os.ReadFile(file); strings.TrimSpace(string(b)) != other {
		t.Error("the file holds another token")
	}
	cookies := login(t, a, handler(a))
	if err := a.Adopt(other); err != nil {
		t.Error(err)
	}
	if resp := do(handler(a), request("GET", "/v1/x", cookies)); resp.StatusCode != http.StatusNoContent {
		t.Errorf("a session ends with a token that is valid already: %d", resp.StatusCode)
	}
	if err := a.Adopt("short"); err == nil || a.Token() != other {
		t.Errorf("it is %q: %v", a.Token(), err)
	}
}

// What the old token let in, such as a log that is followed, ends with it; what came over the socket goes on.
func TestRotateEndsWhatRuns(t *testing.T) {
	t.Parallel()
	a := newAuth(t, auth.Config{})
	entered := make(chan context.Context)
	h := a.Middleware(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		entered <- r.Context()
		<-r.Context().Done()
	}))
	ctx, leave := context.WithCancel(t.Context())
	var running sync.WaitGroup
	serve := func(r *http.Request) context.Context {
		running.Go(func() { do(h, r) })
		return <-entered
	}
	local := serve(request("GET", "/v1/x").WithContext(context.WithValue(ctx, http.LocalAddrContextKey, &net.UnixAddr{Net: "unix"})))
	remote := serve(request("GET", "/v1/x", set("Authorization", "Bearer "+a.Token())))
	if _, err := a.Rotate(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-remote.Done()
	if f := fault.From(context.Cause(remote)); f == nil || f.Code != fault.CodeUnauthenticated {
		t.Errorf("it ended because of %v", context.Cause(remote))
	}
	if local.Err() != nil {
		t.Error("a request over the socket ended")
	}
	leave()
	again := serve(request("GET", "/v1/x", set("Authorization", "Bearer "+a.Token())))
	if again.Err() != nil {
		t.Error("the new token's request ends at once")
	}
	if _, err := a.Rotate(t.Context()); err != nil {
		t.Fatal(err)
	}
	running.Wait()
}

// login opens a link and returns the cookies that it set.
func login(t *testing.T, a *auth.Auth, h http.Handler) func(*http.Request) {
	t.Helper()
	link, _ := a.Link()
	resp := do(h, request("GET", link))
	if resp.StatusCode != 200 {
		t.Fatalf("login: %d", resp.StatusCode)
	}
	cookies := resp.Cookies()
	return func(r *http.Request) {
		for _, c := range cookies {
			if strings.HasPrefix(r.URL.Path, c.Path) {
				r.AddCookie(c)
			}
		}
	}
}

func TestLinkWorksOnce(t *testing.T) {
	t.Parallel()
	a := newAuth(t, auth.Config{})
	h := handler(a)
	link, _ := a.Link()
	if resp := do(h, request("HEAD", link)); resp.StatusCode != 405 {
		t.Errorf("HEAD: %d", resp.StatusCode)
	}
	if resp := do(h, request("GET", link, set("Sec-Purpose", "prefetch;prerender"))); resp.StatusCode != 503 {
		t.Errorf("a browser that fetches ahead: %d", resp.StatusCode)
	}
	resp := do(h, request("GET", link))
	if resp.StatusCode != 200 || len(resp.Cookies()) == 0 {
		t.Fatalf("the first time: %d, %d cookies", resp.StatusCode, len(resp.Cookies()))
	}
	for _, c := range resp.Cookies() {
		if !c.HttpOnly || c.SameSite != http.SameSiteStrictMode || c.Path == "/" || c.Path == "" {
			t.Errorf("cookie %+v", c)
		}
	}
	for what, path := range map[string]string{"the second time": link, "another code": auth.LoginPath + "?code=x", "no code": auth.LoginPath} {
		if resp := do(h, request("GET", path)); resp.StatusCode != 401 || len(resp.Cookies()) != 0 {
			t.Errorf("%s: %d, %d cookies", what, resp.StatusCode, len(resp.Cookies()))
		}
	}
}

func TestSession(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "token")
	a := newAuth(t, auth.Config{TokenFile: file})
	h := handler(a)
	cookies := login(t, a, h)
	for name, c := range map[string]struct {
		r    *http.Request
		want int
	}{
		"the dashboard":               {request("GET", "/ui/", cookies), 204},
		"its script":                  {request("GET", "/v1/overview", cookies, set("Sec-Fetch-Site", "same-origin")), 204},
		"its post":                    {request("POST", "/v1/x", cookies, set("Sec-Fetch-Site", "same-origin"), set("Origin", "http://"+host)), 204},
		"typed into the browser":      {request("GET", "/ui/", cookies, set("Sec-Fetch-Site", "none")), 204},
		"a function's page embeds it": {request("GET", "/v1/overview", cookies, set("Sec-Fetch-Site", "same-site"), set("Sec-Fetch-Mode", "no-cors")), 403},
		"a function's page links it":  {request("GET", "/ui/", cookies, set("Sec-Fetch-Site", "same-site"), set("Sec-Fetch-Mode", "navigate"), set("Sec-Fetch-Dest", "document")), 204},
		"a function's page frames it": {request("GET", "/ui/", cookies, set("Sec-Fetch-Site", "same-site"), set("Sec-Fetch-Mode", "navigate"), set("Sec-Fetch-Dest", "iframe")), 403},
		"a form of another page":      {request("POST", "/v1/x", cookies, set("Sec-Fetch-Site", "cross-site"), set("Sec-Fetch-Mode", "navigate"), set("Sec-Fetch-Dest", "document")), 403},
		"a post that says nothing":    {request("POST", "/v1/x", cookies), 403},
		"another path":                {request("GET", "/fn/hello", cookies), 401},
		"a forged cookie":             {request("GET", "/v1/x", func(r *http.Request) { r.AddCookie(&http.Cookie{Name: auth.CookieName, Value: "9999999999.a.b"}) }), 401},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if resp := do(h, c.r); resp.StatusCode != c.want {
				t.Errorf("got %d, want %d", resp.StatusCode, c.want)
			}
		})
	}
	// The session outlives a restart: it is signed with the token.
	if resp := do(handler(newAuth(t, auth.Config{TokenFile: file})), request("GET", "/v1/x", cookies)); resp.StatusCode != 204 {
		t.Errorf("after a restart: %d", resp.StatusCode)
	}
}

func TestLinksAndSessionsEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAuth(t, auth.Config{LinkTTL: time.Minute, SessionTTL: time.Hour})
		h := handler(a)
		cookies := login(t, a, h)
		link, expires := a.Link()
		if got := time.Until(expires); got != time.Minute {
			t.Errorf("the link ends in %s", got)
		}
		time.Sleep(time.Minute)
		if resp := do(h, request("GET", link)); resp.StatusCode != 401 {
			t.Errorf("a link past its time: %d", resp.StatusCode)
		}
		if resp := do(h, request("GET", "/v1/x", cookies)); resp.StatusCode != 204 {
			t.Errorf("a session within its time: %d", resp.StatusCode)
		}
		time.Sleep(time.Hour)
		if resp := do(h, request("GET", "/v1/x", cookies)); resp.StatusCode != 401 {
			t.Errorf("a session past its time: %d", resp.StatusCode)
		}
	})
}

func TestLinksAreBounded(t *testing.T) {
	t.Parallel()
	a := newAuth(t, auth.Config{})
	h := handler(a)
	first, _ := a.Link()
	var last string
	for range 64 {
		last, _ = a.Link()
	}
	if resp := do(h, request("GET", first)); resp.StatusCode != 401 {
		t.Errorf("the oldest of 65 links: %d", resp.StatusCode)
	}
	if resp := do(h, request("GET", last)); resp.StatusCode != 200 {
		t.Errorf("the newest: %d", resp.StatusCode)
	}
}

func TestDashboardTellsHowToGetIn(t *testing.T) {
	t.Parallel()
	h := handler(newAuth(t, auth.Config{}))
	w := httptest.NewRecorder()
	h.ServeHTTP(w, request("GET", "/ui/", set("Accept", "text/html,*/*")))
	if w.Code != 401 || !strings.Contains(w.Body.String(), "tatami token link") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}
