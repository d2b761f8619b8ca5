//go:build e2e

package ui_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// browser is a running chromium.
type browser struct{ address string }

func startBrowser(t *testing.T) *browser {
	t.Helper()
	binary := os.Getenv("TATAMI_CHROMIUM")
	if binary == "" {
		var err error
		if binary, err = exec.LookPath("chromium"); err != nil {
			t.Fatalf("the dashboard's tests need a browser: apt-get install chromium, or name one by TATAMI_CHROMIUM (%v)", err)
		}
	}
	cmd := exec.Command(binary, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
		"--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-default-apps", "--disable-extensions",
		"--disable-dev-shm-usage", "--disable-background-timer-throttling", "--disable-renderer-backgrounding", "--hide-scrollbars", "--force-device-scale-factor=1", "--user-data-dir="+t.TempDir(),
		"--remote-debugging-port=0", "about:blank")
	// Killed, it leaves its temporary files behind.
	cmd.Env = append(os.Environ(), "TMPDIR="+t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", binary, err)
	}
	found, ended := make(chan string, 1), make(chan struct{})
	go func() {
		defer close(ended)
		address := regexp.MustCompile(`DevTools listening on ws://([^/]+)/`)
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			if m := address.FindStringSubmatch(lines.Text()); m != nil {
				found <- m[1]
			}
		}
	}()
	t.Cleanup(func() {
		// The group holds the browser's own children too: nothing stays behind.
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		<-ended
		_ = cmd.Wait()
	})
	select {
	case a := <-found:
		return &browser{a}
	case <-ended:
		t.Fatal("chromium ended before it listened")
	case <-time.After(60 * time.Second):
		t.Fatal("chromium did not begin to listen within a minute")
	}
	return nil
}

// page is a tab of the browser, driven over the debugging protocol.
type page struct {
	t    *testing.T
	conn *websocket.Conn

	mu       sync.Mutex
	next     int
	answers  map[int]chan reply
	problems []string
	requests []string
	received map[string]int
	bytes    int
}

type reply struct {
	ID     int             `json:"id"`
	Method string          `json:"method"`
	Params json.RawMessage `json:"params"`
	Result json.RawMessage `json:"result"`
	Error  *struct {
		Message string `json:"message"`
	} `json:"error"`
}

type view struct {
	width, height int
	dark, touch   bool
}

// open makes a tab of the given size without going anywhere yet.
func (b *browser) open(t *testing.T, v view) *page {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, "http://"+b.address+"/json/new?about:blank", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var target struct {
		ID  string `json:"id"`
		URL string `json:"webSocketDebuggerUrl"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&target); err != nil {
		t.Fatal(err)
	}
	conn, _, err := websocket.Dial(t.Context(), target.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	conn.SetReadLimit(64 << 20)
	p := &page{t: t, conn: conn, answers: map[int]chan reply{}, received: map[string]int{}}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); p.read(ctx) }()
	t.Cleanup(func() {
		cancel()
		_ = conn.CloseNow()
		<-done
		// A tab that stays open works on, and holds the ones behind it back.
		if resp, err := http.Get("http://" + b.address + "/json/close/" + target.ID); err == nil {
			resp.Body.Close()
		}
	})
	for _, domain := range []string{"Page", "Runtime", "Log", "Network"} {
		p.call(domain+".enable", nil)
	}
	p.call("Network.setCacheDisabled", map[string]any{"cacheDisabled": true})
	p.call("Emulation.setDeviceMetricsOverride", map[string]any{"width": v.width, "height": v.height, "deviceScaleFactor": 1, "mobile": v.touch})
	scheme := "light"
	if v.dark {
		scheme = "dark"
	}
	p.call("Emulation.setEmulatedMedia", map[string]any{"features": []map[string]string{{"name": "prefers-color-scheme", "value": scheme}}})
	return p
}

func (p *page) read(ctx context.Context) {
	for {
		_, data, err := p.conn.Read(ctx)
		if err != nil {
			return
		}
		var r reply
		if json.Unmarshal(data, &r) != nil {
			continue
		}
		p.mu.Lock()
		if answer := p.answers[r.ID]; answer != nil {
			delete(p.answers, r.ID)
			answer <- r
		} else {
			p.note(r)
		}
		p.mu.Unlock()
	}
}

// note keeps what a test may ask about later: requests made, errors shown on the console, exceptions.
func (p *page) note(r reply) {
	var e struct {
		Type    string `json:"type"`
		Request struct {
			URL string `json:"url"`
		} `json:"request"`
		Entry struct {
			Level, Text, URL string
		} `json:"entry"`
		Args []struct {
			Value       any    `json:"value"`
			Description string `json:"description"`
		} `json:"args"`
		ExceptionDetails struct {
			Text      string `json:"text"`
			Exception struct {
				Description string `json:"description"`
			} `json:"exception"`
		} `json:"exceptionDetails"`
		RequestID         string `json:"requestId"`
		EncodedDataLength int    `json:"encodedDataLength"`
	}
	_ = json.Unmarshal(r.Params, &e)
	switch r.Method {
	case "Network.requestWillBeSent":
		p.requests = append(p.requests, e.Request.URL)
	case "Network.loadingFinished":
		p.bytes += e.EncodedDataLength
	case "Runtime.consoleAPICalled":
		if e.Type == "error" || e.Type == "warning" || e.Type == "assert" {
			p.problems = append(p.problems, fmt.Sprintf("console %s: %v", e.Type, e.Args))
		}
	case "Runtime.exceptionThrown":
		p.problems = append(p.problems, "exception: "+e.ExceptionDetails.Text+" "+e.ExceptionDetails.Exception.Description)
	case "Log.entryAdded":
		if e.Entry.Level == "error" || e.Entry.Level == "warning" {
			p.problems = append(p.problems, e.Entry.Level+": "+e.Entry.Text+" "+e.Entry.URL)
		}
	}
}

func (p *page) call(method string, params any) json.RawMessage {
	p.t.Helper()
	result, err := p.ask(method, params)
	if err != nil {
		p.t.Fatal(err)
	}
	return result
}

// ask is call that returns the error.
func (p *page) ask(method string, params any) (json.RawMessage, error) {
	p.t.Helper()
	p.mu.Lock()
	p.next++
	id := p.next
	answer := make(chan reply, 1)
	p.answers[id] = answer
	p.mu.Unlock()
	data, err := json.Marshal(map[string]any{"id": id, "method": method, "params": params})
	if err != nil {
		p.t.Fatal(err)
	}
	if err := p.conn.Write(p.t.Context(), websocket.MessageText, data); err != nil {
		return nil, fmt.Errorf("%s: %w", method, err)
	}
	select {
	case r := <-answer:
		if r.Error != nil {
			return nil, fmt.Errorf("%s: %s", method, r.Error.Message)
		}
		return r.Result, nil
	case <-time.After(60 * time.Second):
		return nil, fmt.Errorf("%s: no answer within a minute", method)
	}
}

func (p *page) visit(address string) {
	p.t.Helper()
	p.call("Page.navigate", map[string]any{"url": address})
}

// enter opens a login link and waits until the browser has gone on to the dashboard by itself.
func (p *page) enter(link string) {
	p.t.Helper()
	p.visit(link)
	for end := time.Now().Add(40 * time.Second); ; {
		// While the page changes there is nothing to ask.
		raw, err := p.ask("Runtime.evaluate", map[string]any{"expression": "location.pathname + document.readyState"})
		if err == nil && bytes.Contains(raw, []byte(`"/ui/complete"`)) {
			return
		}
		if time.Now().After(end) {
			p.t.Fatalf("the link did not lead to the dashboard: %s, %v", raw, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// eval runs an expression in the page, awaits it and decodes its value.
func eval[T any](p *page, expression string) T {
	p.t.Helper()
	var r struct {
		Result struct {
			Value T `json:"value"`
		} `json:"result"`
		ExceptionDetails *struct {
			Exception struct {
				Description string `json:"description"`
			} `json:"exception"`
		} `json:"exceptionDetails"`
	}
	raw := p.call("Runtime.evaluate", map[string]any{"expression": expression, "awaitPromise": true, "returnByValue": true})
	if err := json.Unmarshal(raw, &r); err != nil {
		p.t.Fatalf("%s: %v in %s", expression, err, raw)
	}
	if r.ExceptionDetails != nil {
		p.t.Fatalf("%s: %s", expression, r.ExceptionDetails.Exception.Description)
	}
	return r.Result.Value
}

// await looks at each frame until the expression is true.
func (p *page) await(what, expression string) {
	p.t.Helper()
	ok := eval[bool](p, `new Promise((done) => {
		const end = performance.now() + 40000;
		const look = () => {
			let v = false;
			try { v = Boolean(`+expression+`); } catch { v = false; }
			if (v || performance.now() > end) done(v); else setTimeout(look, 20);
		};
		look();
	})`)
	if !ok {
		p.t.Fatalf("the page never got to: %s\n%s\nproblems: %v", what, eval[string](p, "document.body.innerText"), p.seen())
	}
}

func (p *page) click(selector string) {
	p.t.Helper()
	x, y := p.middle(selector)
	for _, kind := range []string{"mouseMoved", "mousePressed", "mouseReleased"} {
		p.call("Input.dispatchMouseEvent", map[string]any{"type": kind, "x": x, "y": y, "button": "left", "clickCount": 1})
	}
}

func (p *page) point(selector string) {
	p.t.Helper()
	x, y := p.middle(selector)
	p.call("Input.dispatchMouseEvent", map[string]any{"type": "mouseMoved", "x": x, "y": y})
}

func (p *page) middle(selector string) (x, y float64) {
	p.t.Helper()
	at := eval[[]float64](p, `(() => { const e = document.querySelector(`+quote(selector)+`); if (!e) return [];
		e.scrollIntoView({block: 'nearest'}); const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; })()`)
	if len(at) != 2 {
		p.t.Fatalf("there is no %s on the page", selector)
	}
	return at[0], at[1]
}

// press types one key; text is what it writes, empty for keys like Escape.
func (p *page) press(key, text string) {
	p.t.Helper()
	codes := map[string]int{"Escape": 27, "Tab": 9, "Enter": 13, "ArrowRight": 39, "/": 191}
	params := map[string]any{"type": "keyDown", "key": key, "text": text, "windowsVirtualKeyCode": codes[key]}
	p.call("Input.dispatchKeyEvent", params)
	p.call("Input.dispatchKeyEvent", map[string]any{"type": "keyUp", "key": key, "windowsVirtualKeyCode": codes[key]})
}

func (p *page) write(text string) {
	p.t.Helper()
	p.call("Input.insertText", map[string]any{"text": text})
}

func (p *page) shot(name string) []byte {
	p.t.Helper()
	var r struct {
		Data string `json:"data"`
	}
	if err := json.Unmarshal(p.call("Page.captureScreenshot", map[string]any{"format": "png"}), &r); err != nil {
		p.t.Fatal(err)
	}
	png, err := base64.StdEncoding.DecodeString(r.Data)
	if err != nil {
		p.t.Fatal(err)
	}
	if dir := os.Getenv("TATAMI_UI_SHOTS"); dir != "" {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			p.t.Fatal(err)
		}
		if err := os.WriteFile(dir+"/"+name+".png", png, 0o644); err != nil {
			p.t.Fatal(err)
		}
	}
	return png
}

func (p *page) seen() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.problems...)
}

// clean asserts that nothing went wrong on the page and that it asked nobody but its origin.
func (p *page) clean(origin string) {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.problems {
		p.t.Errorf("the page's console: %s", s)
	}
	if len(p.requests) == 0 {
		p.t.Error("no request was seen: the check of origins checks nothing")
	}
	for _, r := range p.requests {
		u, err := url.Parse(r)
		if err != nil || r != "about:blank" && u.Scheme+"://"+u.Host != origin {
			p.t.Errorf("the page asked %s, which is not its origin %s", r, origin)
		}
	}
}

func quote(s string) string {
	data, err := json.Marshal(s)
	if err != nil {
		return `""`
	}
	return strings.ReplaceAll(string(data), "<", "\\u003c")
}
