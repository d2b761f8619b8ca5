//go:build e2e

package ui_test

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	v1 "github.com/tatami-faas/tatami/gateway/api/v1"
	"github.com/tatami-faas/tatami/tests/e2e/harness"
)

// field reads a cell of a function's row as a number; -1 where there is none.
func field(p *page, function, label string) float64 {
	p.t.Helper()
	return eval[float64](p, `(() => { const row = `+rowOf+`(`+quote(function)+`); const cell = row?.querySelector(`+quote(`td[data-label="`+label+`"]`)+`);
		const n = parseFloat(cell?.textContent); return Number.isNaN(n) ? -1 : n; })()`)
}

// tiles lists the instances on the page, by node's name.
func tiles(p *page) map[string][]string {
	p.t.Helper()
	return eval[map[string][]string](p, `Object.fromEntries([...document.querySelectorAll('.node')].map((n) => [n.querySelector('h3').firstChild.textContent.trim(), [...n.querySelectorAll('.mat .tile')].map((e) => e.dataset.id).sort()]))`)
}

// listed asks the command line for the instances, by node's name.
func listed(t *testing.T, s *harness.Server) map[string][]string {
	t.Helper()
	var nodes []v1.Node
	var insts []v1.Instance
	decode(t, s, &nodes, "node", "ls")
	decode(t, s, &insts, "inst", "ls")
	out := map[string][]string{}
	for _, n := range nodes {
		out[n.Name] = []string{}
		for _, i := range insts {
			if i.Node == n.ID && !i.State.Gone() {
				out[n.Name] = append(out[n.Name], string(i.ID))
			}
		}
		slices.Sort(out[n.Name])
	}
	return out
}

func decode(t *testing.T, s *harness.Server, into any, args ...string) {
	t.Helper()
	r := s.Must(append(args, "-o", "json")...)
	if err := json.Unmarshal([]byte(r.Stdout), into); err != nil {
		t.Fatalf("tatami %s -o json: %v\n%s", strings.Join(args, " "), err, r.Stdout)
	}
}

// eventually waits for a state of two things, of which one is no page.
func eventually(t *testing.T, within time.Duration, what string, look func() (bool, any)) {
	t.Helper()
	for end := time.Now().Add(within); ; {
		ok, seen := look()
		if ok {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("not within %s: %s: %v", within, what, seen)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// traffic is load on a server until it is stopped.
type traffic struct {
	t    *testing.T
	s    *harness.Server
	quit chan struct{}
	wg   sync.WaitGroup
}

// call asks for a path again and again, with a pause in between, in n goroutines. It returns the count of answers with the status that is wanted.
func (l *traffic) call(n int, path string, pause time.Duration) *atomic.Int64 {
	var answers atomic.Int64
	for range n {
		l.wg.Go(func() {
			for {
				select {
				case <-l.quit:
					return
				case <-time.After(pause):
				}
				resp, body, err := l.s.TryDo(http.MethodGet, path, "", nil)
				if err != nil || resp.StatusCode != http.StatusOK {
					l.t.Errorf("%s: %v %v %s", path, err, resp, body)
					return
				}
				answers.Add(1)
			}
		})
	}
	return &answers
}

func (l *traffic) stop() { close(l.quit); l.wg.Wait() }

// metric reads a sample of /metrics.
func metric(t *testing.T, metrics, name string) float64 {
	t.Helper()
	for line := range strings.Lines(metrics) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			v, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
	}
	return math.NaN()
}

func scrape(t *testing.T, s *harness.Server, token string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.Control+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// TestRealSystem follows one page, opened by its link, over the whole life of a system: empty, under load, killed, idle. What it shows is held
// against what was done to the system, what the command line says, and the metrics.
func TestRealSystem(t *testing.T) {
	s := harness.Start(t)
	b := startBrowser(t)
	origin := "http://" + s.Control
	link := strings.TrimSpace(s.Must("token", "link").Stdout)
	p := b.open(t, view{width: 1440, height: 900})
	p.enter(link)
	p.await("the first steps", `document.querySelector('.link.live') && document.querySelector('.empty').textContent.includes('tatami deploy ./hello')`)
	eval[bool](p, `(window.sameDocument = true)`)
	if policy := eval[string](p, `fetch('/ui').then((r) => r.headers.get('content-security-policy'))`); !strings.Contains(policy, "default-src 'none'") || strings.Contains(policy, "unsafe") {
		t.Errorf("the policy of the page is %q", policy)
	}
	if cookies := eval[string](p, `document.cookie`); cookies != "" {
		t.Errorf("scripts can read the session: %q", cookies)
	}
	p.shot("real-empty")
	t.Run("a link opens once", func(t *testing.T) { linkIsSpent(t, s, link) })

	// Greet is fast and takes many at once, thumbs takes one at a time and grows, report has one instance and a queue before it.
	s.Deploy("greet", "hello", "memory: 64Mi\nconcurrency: 20\nscale: {keepAlive: 2s}\n")
	s.Deploy("thumbs", "probe", "memory: 128Mi\nconcurrency: 1\nscale: {max: 3, keepAlive: 2s}\n")
	s.Deploy("report", "probe", "memory: 96Mi\nconcurrency: 1\nqueue: {retries: 0}\nscale: {max: 1, keepAlive: 2s}\n")
	p.await("three functions without a reload", names+`.join() === 'greet,report,thumbs' && !document.querySelector('.empty')`)

	load := &traffic{t: t, s: s, quit: make(chan struct{})}
	stop := sync.OnceFunc(load.stop)
	t.Cleanup(stop)
	greets := load.call(2, "/fn/greet", 15*time.Millisecond)
	thumbs := load.call(3, "/fn/thumbs/sleep?ms=80", time.Millisecond)
	const failures = 4
	for range failures {
		if resp, body := s.Get("/fn/thumbs/status?code=503"); resp.StatusCode != http.StatusServiceUnavailable {
			t.Fatalf("%s: %s", resp.Status, body)
		}
	}
	const queued = 10
	s.Do(http.MethodPost, "/async/report/crash", "", nil)
	for range queued {
		if resp, body := s.Do(http.MethodPost, "/async/report/sleep?ms=1500", "{}", nil); resp.StatusCode != http.StatusAccepted {
			t.Fatalf("%s: %s", resp.Status, body)
		}
	}
	t.Run("under load", func(t *testing.T) { underLoad(t, s, p) })
	rateIsTrue(t, p, "default/greet", greets)
	t.Run("screenshots", func(t *testing.T) { realShots(t, s, b) })
	t.Run("commands", func(t *testing.T) { commandsExist(t, s, p) })
	p.await("an empty queue", `document.querySelector('.queues tbody')?.textContent.includes('pending') === false && document.querySelectorAll('.queues td[data-label=pending]:not(.quiet)').length === 0`)
	stop()

	token := strings.TrimSpace(s.Must("token", "show").Stdout)
	t.Run("metrics", func(t *testing.T) {
		metricsAreTrue(t, s, token, float64(greets.Load()), float64(thumbs.Load()+1), failures, queued)
	})
	t.Run("scaled to zero", func(t *testing.T) {
		p.await("no tile", `document.querySelectorAll('.mat .tile').length === 0`)
		p.await("a verdict that says so", `document.querySelector('.verdict').textContent.includes('dead letter') && `+rowOf+`('default/greet').querySelector('td[data-label=instances]').textContent.trim() === '0'`)
		if got := field(p, "default/thumbs", "errors"); got != failures {
			t.Errorf("%v errors of thumbs instead of %d", got, failures)
		}
		p.click(`tr[data-function="default/greet"] .name`)
		p.await("zero, explained", `document.querySelector('tr.detail').textContent.includes('scaled to zero')`)
		p.shot("real-zero")
	})
	p.clean(origin)
	t.Run("killed and started again", func(t *testing.T) {
		s.Kill()
		p.await("the loss, said so", `document.querySelector('.link.lost')`)
		s.Launch()
		p.await("the system again, by the same session", `document.querySelector('.link.live') && `+names+`.length === 3`)
		if !eval[bool](p, `window.sameDocument === true`) {
			t.Error("the page was loaded again on the way")
		}
	})
}

// linkIsSpent tries a used link, and the page without a session, with a browser of its own.
func linkIsSpent(t *testing.T, s *harness.Server, link string) {
	p := startBrowser(t).open(t, view{width: 1440, height: 900})
	const told = `({ status: performance.getEntriesByType('navigation')[0].responseStatus, text: document.body.innerText })`
	for address, want := range map[string]string{link: "This link was used", "http://" + s.Control + "/ui": "tatami token link"} {
		p.visit(address)
		eventually(t, 40*time.Second, address, func() (bool, any) {
			raw, err := p.ask("Runtime.evaluate", map[string]any{"expression": told, "returnByValue": true})
			return err == nil && strings.Contains(string(raw), `"status":401`) && strings.Contains(string(raw), want), string(raw)
		})
	}
	if got := eval[int](p, `fetch('/v1/overview').then((r) => r.status, () => 0)`); got != 0 {
		t.Errorf("the page that tells how to get in may ask the API: %d", got)
	}
	for _, path := range []string{"/v1/overview", "/v1/stream", "/metrics"} {
		resp, err := http.Get("http://" + s.Control + path)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusUnauthorized {
			t.Errorf("%s without a session: %s", path, resp.Status)
		}
	}
}

// underLoad holds the page against the command line while three functions work.
func underLoad(t *testing.T, s *harness.Server, p *page) {
	p.await("queue depth and its age", `(() => { const row = document.querySelector('.queues tbody tr'); const cell = (l) => row.querySelector('td[data-label=' + l + ']').textContent;
		return row.querySelector('.fn').textContent === 'report' && Number(cell('pending')) >= 3 && Number(cell('running')) >= 1 && /^\d+ s$/.test(cell('oldest')); })()`)
	p.await("the same depth in the function's row and the figures", `Number(`+rowOf+`('default/report').querySelector('td[data-label=queued]').textContent) >= 1 && Number(document.querySelector('[data-card=queue] b').textContent) >= 1`)
	p.await("the dead letter", `[...document.querySelectorAll('.verdict, .more li')].some((e) => e.textContent.includes('report: 1 new dead letter') && e.textContent.includes('tatami queue dead report')) &&
		`+rowOf+`('default/report').querySelector('td[data-label=dead].alarm').textContent === '1'`)
	p.await("three busy instances of thumbs", rowOf+`('default/thumbs').querySelector('td[data-label=instances]').textContent.trim() === '3'`)
	p.await("tiles in every colour of work", `document.querySelectorAll('.mat .tile.busy').length >= 2`)
	eventually(t, 40*time.Second, "the tiles are the instances that there are", func() (bool, any) {
		got, want := tiles(p), listed(t, s)
		same := len(got) == len(want) && len(want) == 1
		for node, ids := range want {
			same = same && len(ids) >= 4 && slices.Equal(got[node], ids)
		}
		return same, fmt.Sprintf("page %v, command line %v", got, want)
	})
	for card, pattern := range map[string]string{
		"rps": `^\d+ ?\/s$`, "latency": `^[\d.]+( ?m?s)? ?\/ [\d.]+ ?m?s$`, "errors": `^[\d.<]+ ?%$`, "cold": `^\d+ ?in 15 min$`,
		"cpu": `^[\d.]+ ?of [\d.]+ cores$`, "memory": `^[\d.]+ ?of [\d.]+ [GM]iB$`,
	} {
		if text := eval[string](p, `document.querySelector('[data-card=`+card+`] .figure').textContent.trim()`); !eval[bool](p, `/`+pattern+`/.test(`+quote(text)+`)`) {
			t.Errorf("the figure of %s is %q", card, text)
		}
	}
	p.await("the node's use of memory and CPU", `/^[\d.]+ of [\d.]+ cores?.*reserved$/.test(document.querySelectorAll('.node .bar .text')[0].textContent) && /^[\d.]+ of [\d.]+ [GM]iB · [\d.]+ [GM]iB reserved$/.test(document.querySelectorAll('.node .bar .text')[1].textContent)`)
	eventually(t, 40*time.Second, "latencies of what was slept", func() (bool, any) {
		p50, p99 := field(p, "default/thumbs", "p50"), field(p, "default/thumbs", "p99")
		return p50 >= 79 && p50 < 1000 && p99 >= p50, []float64{p50, p99}
	})
	for _, f := range []string{"greet", "thumbs", "report"} {
		if got := field(p, "default/"+f, "cold"); got < 0 {
			t.Errorf("%s has no figure of cold starts", f)
		}
	}
	if got := field(p, "default/thumbs", "errors"); got != 4 {
		t.Errorf("%v errors of thumbs instead of 4", got)
	}
}

// rateIsTrue compares a function's rate on the page with the answers that its callers got, and sees both counters move.
func rateIsTrue(t *testing.T, p *page, function string, answers *atomic.Int64) {
	t.Helper()
	// The rate is over ten seconds: wait until the load has lasted for as long.
	from, begun := answers.Load(), time.Now()
	eventually(t, 40*time.Second, "the rate of "+function, func() (bool, any) {
		real := float64(answers.Load()-from) / time.Since(begun).Seconds()
		shown := eval[float64](p, `parseFloat(`+rowOf+`(`+quote(function)+`).querySelector('.rate').textContent)`)
		return time.Since(begun) > 2*time.Second && math.Abs(shown-real) < 0.35*real, []float64{shown, real}
	})
	before := eval[string](p, `document.querySelector('[data-card=rps] .sub').textContent`)
	p.await("more requests", `document.querySelector('[data-card=rps] .sub').textContent !== `+quote(before))
}

// realShots looks at the page in both schemes, wide and narrow.
func realShots(t *testing.T, s *harness.Server, b *browser) {
	for name, v := range map[string]view{
		"real-wide-light": {width: 1440, height: 900}, "real-wide-dark": {width: 1440, height: 900, dark: true},
		"real-narrow-light": {width: 360, height: 800, touch: true}, "real-narrow-dark": {width: 360, height: 800, dark: true, touch: true},
	} {
		p := b.open(t, v)
		p.visit("http://" + s.Control + "/ui")
		p.await("the picture", `document.querySelector('.link.live') && document.querySelectorAll('.mat .tile').length >= 4 && document.querySelectorAll('.card canvas').length === 7`)
		if over := eval[float64](p, `document.documentElement.scrollWidth - innerWidth`); over > 0 {
			t.Errorf("%s: the page is %v px wider than the window", name, over)
		}
		if cut := eval[[]string](p, `[...document.querySelectorAll('.scroll')].filter((e) => e.scrollWidth > e.clientWidth).map((e) => e.getAttribute('aria-labelledby'))`); len(cut) > 0 {
			t.Errorf("%s: tables are cut off: %v", name, cut)
		}
		if small := eval[[]string](p, `[...document.querySelectorAll('.mat .tile')].filter((e) => e.getBoundingClientRect().width < 6 || e.getBoundingClientRect().height < 6).map((e) => e.ariaLabel)`); len(small) > 0 {
			t.Errorf("%s: tiles too small to see: %v", name, small)
		}
		p.shot(name)
		p.clean("http://" + s.Control)
	}
}

// commandsExist runs every command that the page shows, "tatami invoke thumbs" once among them.
func commandsExist(t *testing.T, s *harness.Server, p *page) {
	p.click(`tr[data-function="default/thumbs"] .name`)
	p.await("the function's instances and commands", `document.querySelectorAll('.copies tbody tr').length >= 2 && document.querySelectorAll('.detail .command').length >= 5`)
	shown := eval[[]string](p, `[...new Set([...document.querySelectorAll('.command code')].map((e) => e.textContent))]`)
	p.click(`tr[data-function="default/thumbs"] .name`)
	// What the page shows in states that this system is not in.
	shown = append(shown, "tatami status", "tatami inst ls", "tatami quota ls", "tatami node show "+nodeName(t, s), "tatami queue show report", "tatami token link")
	if len(shown) < 12 {
		t.Errorf("too few commands: %q", shown)
	}
	for _, command := range shown {
		args := strings.Fields(command)
		if args[0] != "tatami" {
			t.Errorf("%q is no command of ours", command)
			continue
		}
		if r := s.CLI(args[1:]...); r.Exit != 0 {
			t.Errorf("%s ended with %d: %s", command, r.Exit, r.Stderr)
		}
	}
}

func nodeName(t *testing.T, s *harness.Server) string {
	t.Helper()
	var nodes []v1.Node
	decode(t, s, &nodes, "node", "ls")
	if len(nodes) != 1 {
		t.Fatalf("%d nodes", len(nodes))
	}
	return nodes[0].Name
}

// metricsAreTrue compares /metrics with what was done.
func metricsAreTrue(t *testing.T, s *harness.Server, token string, greets, thumbs, failures, queued float64) {
	if status, _ := scrape(t, s, ""); status != http.StatusUnauthorized {
		t.Errorf("without a token: %d", status)
	}
	var metrics string
	of := func(name, function, labels string) float64 {
		return metric(t, metrics, "tatami_function_"+name+"{"+labels+`function="`+function+`",namespace="default"}`)
	}
	// The picture behind the metrics is up to a second old.
	eventually(t, 40*time.Second, "the count of what was answered", func() (bool, any) {
		var status int
		if status, metrics = scrape(t, s, token); status != http.StatusOK {
			t.Fatalf("status %d: %s", status, metrics)
		}
		got := []float64{of("requests_total", "greet", `code="2xx",`), of("requests_total", "thumbs", `code="2xx",`), of("requests_total", "report", `code="2xx",`)}
		want := []float64{greets, thumbs, queued}
		return slices.Equal(got, want), fmt.Sprintf("%v instead of %v", got, want)
	})
	for what, c := range map[string]struct{ got, least, most float64 }{
		"5xx of thumbs":             {of("requests_total", "thumbs", `code="5xx",`), failures, failures},
		"errors of thumbs":          {of("errors_total", "thumbs", ""), failures, failures},
		"errors of greet":           {of("errors_total", "greet", ""), 0, 0},
		"cold starts of thumbs":     {of("cold_starts_total", "thumbs", ""), 1, 20},
		"crashes of report":         {of("errors_total", "report", ""), 1, 1},
		"dead letters of report":    {metric(t, metrics, `tatami_queue_dead{function="report",namespace="default"}`), 1, 1},
		"pending of report":         {metric(t, metrics, `tatami_queue_depth{function="report",namespace="default",state="pending"}`), 0, 0},
		"p50 of thumbs in seconds":  {metric(t, metrics, `tatami_function_latency_seconds{function="thumbs",namespace="default",quantile="0.5"}`), 0.079, 1},
		"the scheduler":             {metric(t, metrics, "tatami_scheduler_up"), 1, 1},
		"open pages":                {metric(t, metrics, "tatami_dashboard_streams"), 1, 5},
		"the process's own threads": {metric(t, metrics, "go_threads"), 1, 1000},
	} {
		if !(c.got >= c.least && c.got <= c.most) {
			t.Errorf("%s: %v, want %v to %v", what, c.got, c.least, c.most)
		}
	}
}
