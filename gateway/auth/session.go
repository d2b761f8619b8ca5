package auth

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// LoginPath takes the code of a dashboard link.
const LoginPath = "/login"

// CookieName is the session's cookie. It is set for the paths of the control listener only, and no other part should pass it on.
const CookieName = "tatami_session"

// maxLinks bounds the links that wait to be opened; beyond it the one that ends first goes.
const maxLinks = 64

// cookiePaths are where the session counts. A cookie for "/" would be sent to the public listener, too: cookies do not tell ports apart.
func cookiePaths() []string { return []string{"/ui", "/v1", "/metrics", "/openapi.json"} }

// Link returns the path, below the control listener's address, of a link that opens the dashboard once, and when it ends.
func (a *Auth) Link() (path string, expires time.Time) {
	code, now := newSecret(), time.Now()
	expires = now.Add(a.cfg.LinkTTL)
	a.mu.Lock()
	defer a.mu.Unlock()
	for c, end := range a.links {
		if now.After(end) {
			delete(a.links, c)
		}
	}
	if len(a.links) >= maxLinks {
		var first string
		for c, end := range a.links {
			if first == "" || end.Before(a.links[first]) {
				first = c
			}
		}
		delete(a.links, first)
	}
	a.links[code] = expires
	return LoginPath + "?code=" + code, expires
}

// redeem reports whether the code is valid; from then on it is not.
func (a *Auth) redeem(code string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	end, ok := a.links[code]
	delete(a.links, code)
	return ok && time.Now().Before(end)
}

// session makes a cookie's value: its end, and a signature by the token, so that it outlives a restart and dies with the token.
func (a *Auth) session(end time.Time) string {
	e := strconv.FormatInt(end.Unix(), 10)
	nonce := newSecret()[:32]
	return e + "." + nonce + "." + a.sign(e+"."+nonce)
}

func (a *Auth) sign(s string) string {
	m := hmac.New(sha256.New, []byte(a.Token()))
	m.Write([]byte("dashboard session " + s))
	return hex.EncodeToString(m.Sum(nil))
}

// hasSession reports whether the request carries a session that is valid now.
func (a *Auth) hasSession(r *http.Request) bool {
	for _, c := range r.CookiesNamed(CookieName) {
		body, sig, ok := cutLast(c.Value, ".")
		if !ok || !equal(sig, a.sign(body)) {
			continue
		}
		e, _, _ := strings.Cut(body, ".")
		end, err := strconv.ParseInt(e, 10, 64)
		if err == nil && time.Now().Unix() < end {
			return true
		}
	}
	return false
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// Login redeems a link's code, sets the session and goes on to the dashboard.
//
// It answers with a page that goes on by itself, not with a redirect: a browser that came from another site leaves a strict cookie out of
// every step of a redirect. A browser that fetches ahead does not use the link up.
func (a *Auth) Login(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer")
	if r.Method != http.MethodGet {
		h.Set("Allow", http.MethodGet)
		w.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	if p := r.Header.Get("Sec-Purpose"); strings.Contains(p, "prefetch") || strings.Contains(p, "prerender") {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	if !a.redeem(r.URL.Query().Get("code")) {
		page(w, http.StatusUnauthorized, "This link was used, or it is too old.")
		return
	}
	end := time.Now().Add(a.cfg.SessionTTL)
	value := a.session(end)
	for _, p := range cookiePaths() {
		http.SetCookie(w, &http.Cookie{
			Name: CookieName, Value: value, Path: p, Expires: end, MaxAge: int(a.cfg.SessionTTL.Seconds()),
			HttpOnly: true, SameSite: http.SameSiteStrictMode, Secure: r.TLS != nil,
		})
	}
	a.log.Info("dashboard session opened", "remote", r.RemoteAddr)
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	h.Set("Content-Type", "text/html; charset=utf-8")
	_, _ = w.Write([]byte(`<!doctype html><title>Tatami</title><meta http-equiv="refresh" content="0;url=/ui/"><a href="/ui/">To the dashboard</a>`))
}

// page tells a person at a browser how to get in.
func page(w http.ResponseWriter, status int, why string) {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(`<!doctype html><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Tatami</title>` +
		`<body style="font:16px/1.5 system-ui;margin:15vh auto;max-width:34em;padding:0 1em;color-scheme:light dark">` +
		`<h1 style="font-size:1.3em">Open the dashboard by its link</h1><p>` + why + `</p>` +
		`<p>On the machine where Tatami runs, <code>tatami token link</code> prints a link that opens this page once.</p>`))
}
