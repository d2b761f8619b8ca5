package ui

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"io/fs"
	"net/http"
	"path"
	"strconv"
	"strings"
)

//go:embed static
var files embed.FS

// Prefix is where the handler must be mounted, with and without a path below it.
const Prefix = "/ui"

const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// asset is a file ready to be sent.
type asset struct {
	mime, etag    string
	plain, packed []byte
}

// New makes the handler of the page and its files: GET and HEAD of /ui and of what lies below it. The files hold nothing secret and may
// be served to whoever asks: without a session the page says how to get one.
func New() (http.Handler, error) {
	assets := map[string]*asset{}
	err := fs.WalkDir(files, "static", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := files.ReadFile(name)
		if err != nil {
			return err
		}
		a, err := pack(name, data)
		if err != nil {
			return err
		}
		assets[strings.TrimPrefix(name, "static/")] = a
		return nil
	})
	if err != nil {
		return nil, err
	}
	page := assets["index.html"]
	if page == nil {
		return nil, errors.New("ui: the page is not embedded")
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a := page
		if name := strings.TrimPrefix(strings.TrimPrefix(r.URL.Path, Prefix), "/"); name != "" {
			a = assets[name]
		}
		a.serve(w, r)
	}), nil
}

func pack(name string, data []byte) (*asset, error) {
	a := &asset{plain: data, mime: mimeOf(name)}
	sum := sha256.Sum256(data)
	a.etag = `"` + hex.EncodeToString(sum[:8]) + `"`
	var buf bytes.Buffer
	zw, err := gzip.NewWriterLevel(&buf, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	if _, err := zw.Write(data); err != nil {
		return nil, err
	}
	if err := zw.Close(); err != nil {
		return nil, err
	}
	if buf.Len() < len(data) {
		a.packed = buf.Bytes()
	}
	return a, nil
}

// mimeOf does not ask the machine's own table of types, which may be missing or differ.
func mimeOf(name string) string {
	switch path.Ext(name) {
	case ".html":
		return "text/html; charset=utf-8"
	case ".js", ".mjs":
		return "text/javascript; charset=utf-8"
	case ".css":
		return "text/css; charset=utf-8"
	case ".svg":
		return "image/svg+xml"
	}
	return "text/plain; charset=utf-8"
}

func (a *asset) serve(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		h.Set("Allow", "GET, HEAD")
		http.Error(w, "only GET and HEAD", http.StatusMethodNotAllowed)
		return
	}
	if a == nil {
		http.Error(w, "there is no such file; the dashboard is at "+Prefix, http.StatusNotFound)
		return
	}
	// no-cache: ask each time, so that a newer binary is never seen through older scripts. The answer is then 304 and short.
	h.Set("Cache-Control", "no-cache")
	h.Set("Etag", a.etag)
	h.Set("Vary", "Accept-Encoding")
	if strings.Contains(r.Header.Get("If-None-Match"), a.etag) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	body := a.plain
	if a.packed != nil && strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		h.Set("Content-Encoding", "gzip")
		body = a.packed
	}
	h.Set("Content-Type", a.mime)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	if r.Method == http.MethodGet {
		// An error means that the client went away.
		_, _ = w.Write(body)
	}
}
