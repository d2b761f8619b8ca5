package ui_test

import (
	"bufio"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"regexp"
	"strings"
	"testing"

	"github.com/tatami-faas/tatami/gateway/ui"
)

func get(t *testing.T, h http.Handler, method, target string, header ...string) *http.Response {
	t.Helper()
	r := httptest.NewRequest(method, target, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func handler(t *testing.T) http.Handler {
	t.Helper()
	h, err := ui.New()
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestHandler(t *testing.T) {
	t.Parallel()
	h := handler(t)
	for _, c := range []struct {
		method, target string
		status         int
		mime           string
	}{
		{"GET", "/ui", 200, "text/html; charset=utf-8"},
		{"GET", "/ui/", 200, "text/html; charset=utf-8"},
		{"HEAD", "/ui/app.js", 200, "text/javascript; charset=utf-8"},
		{"GET", "/ui/lib/preact.mjs", 200, "text/javascript; charset=utf-8"},
		{"GET", "/ui/style.css", 200, "text/css; charset=utf-8"},
		{"GET", "/ui/favicon.svg", 200, "image/svg+xml"},
		{"GET", "/ui/lib/uPlot.LICENSE", 200, "text/plain; charset=utf-8"},
		{"GET", "/ui/nosuch.js", 404, "text/plain; charset=utf-8"},
		{"GET", "/ui/../ui.go", 404, "text/plain; charset=utf-8"},
		{"GET", "/ui/lib", 404, "text/plain; charset=utf-8"},
		{"POST", "/ui", 405, "text/plain; charset=utf-8"},
	} {
		resp := get(t, h, c.method, c.target)
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != c.status || resp.Header.Get("Content-Type") != c.mime || (c.method == "HEAD") != (len(body) == 0) {
			t.Errorf("%s %s: status %d, type %q, %d bytes", c.method, c.target, resp.StatusCode, resp.Header.Get("Content-Type"), len(body))
		}
		csp := resp.Header.Get("Content-Security-Policy")
		if !strings.HasPrefix(csp, "default-src 'none'; script-src 'self'; style-src 'self'; ") || strings.Contains(csp, "unsafe") || resp.Header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s %s: headers %v", c.method, c.target, resp.Header)
		}
	}
}

func TestCaching(t *testing.T) {
	t.Parallel()
	h := handler(t)
	plain := get(t, h, "GET", "/ui/app.js")
	want, err := io.ReadAll(plain.Body)
	if err != nil {
		t.Fatal(err)
	}
	packed := get(t, h, "GET", "/ui/app.js", "Accept-Encoding", "gzip, br")
	if packed.Header.Get("Content-Encoding") != "gzip" || packed.Header.Get("Vary") != "Accept-Encoding" {
		t.Fatalf("headers %v", packed.Header)
	}
	zr, err := gzip.NewReader(packed.Body)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(zr)
	if err != nil || string(got) != string(want) {
		t.Errorf("the packed file is another (%v)", err)
	}
	if again := get(t, h, "GET", "/ui/app.js", "If-None-Match", plain.Header.Get("Etag")); again.StatusCode != http.StatusNotModified {
		t.Errorf("status %d for a file that the browser has", again.StatusCode)
	}
}

// TestLibrariesAreAsPublished compares every file of lib with its recorded checksum.
func TestLibrariesAreAsPublished(t *testing.T) {
	t.Parallel()
	file, err := os.Open("static/lib/SHA256SUMS")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	sums := map[string]string{"SHA256SUMS": "", "README.md": ""}
	for lines := bufio.NewScanner(file); lines.Scan(); {
		sum, name, ok := strings.Cut(lines.Text(), "  ")
		if !ok {
			t.Fatalf("no checksum line: %q", lines.Text())
		}
		sums[name] = sum
	}
	entries, err := os.ReadDir("static/lib")
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != len(sums) {
		t.Errorf("%d files and %d checksums", len(entries), len(sums))
	}
	for _, e := range entries {
		want, known := sums[e.Name()]
		if !known {
			t.Errorf("%s has no checksum", e.Name())
			continue
		}
		data, err := os.ReadFile("static/lib/" + e.Name())
		if err != nil {
			t.Fatal(err)
		}
		if sum := sha256.Sum256(data); want != "" && hex.EncodeToString(sum[:]) != want {
			t.Errorf("%s is not as published", e.Name())
		}
	}
}

var (
	imports = regexp.MustCompile(`(?m)^import .* from '([^']+)'`)
	remote  = regexp.MustCompile(`https?://|(?:src|href|url\()=?["'(]?//`)
	raw     = regexp.MustCompile(`innerHTML|dangerouslySetInnerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function`)
)

// TestSources holds what the policy would refuse at run time, and that the page names every module, so that none is found late.
func TestSources(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("static/index.html")
	if err != nil {
		t.Fatal(err)
	}
	modules := 0
	err = fs.WalkDir(os.DirFS("static"), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasPrefix(name, "lib/") {
			return err
		}
		data, err := os.ReadFile("static/" + name)
		if err != nil {
			return err
		}
		text := strings.ReplaceAll(string(data), `xmlns="http://www.w3.org/2000/svg"`, "")
		if m := remote.FindString(text); m != "" {
			t.Errorf("%s names another origin: %q", name, m)
		}
		if m := raw.FindString(text); m != "" {
			t.Errorf("%s makes markup or code of text: %q", name, m)
		}
		for _, m := range imports.FindAllStringSubmatch(text, -1) {
			modules++
			file := path.Join(path.Dir(name), m[1])
			if _, err := os.Stat("static/" + file); err != nil {
				t.Errorf("%s imports %s, which is not there", name, m[1])
			}
			if !strings.Contains(string(page), `href="/ui/`+file+`"`) {
				t.Errorf("the page does not preload %s", file)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if modules < 10 {
		t.Errorf("only %d imports were found: the check checks nothing", modules)
	}
}
