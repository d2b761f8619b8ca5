//go:build e2e

package ui_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/gateway/live"
	"github.com/tatami-faas/tatami/internal/bus"
)

const rowOf = `((name) => document.querySelector('.functions tr[data-function="' + name + '"]'))`

// names lists the functions of the table from top to bottom.
const names = `[...document.querySelectorAll('.functions tr[data-function] .name')].map((e) => e.textContent.trim())`

// TestLive follows one page: what changes in the system changes on the page, without a reload.
func TestLive(t *testing.T) {
	t.Parallel()
	b := startBrowser(t)
	w := newWorld(2, busy()...)
	origin, _ := w.serve(t)
	p := b.open(t, view{width: 1440, height: 900})
	p.visit(origin + "/ui")
	p.await("a picture", `document.querySelectorAll('.mat .tile').length > 20 && document.querySelector('.link.live')`)
	eval[bool](p, `(window.sameDocument = true)`)

	// The history came along: the charts have lines before anything was watched.
	if n := eval[int](p, `document.querySelectorAll('.card canvas').length`); n != 7 {
		t.Errorf("%d charts instead of 7", n)
	}
	if text := eval[string](p, `document.querySelector('[data-card=rps] .sub').textContent`); strings.HasPrefix(text, "0 ") {
		t.Errorf("the page knows no past requests: %q", text)
	}

	w.change(func() {
		w.loads = append(w.loads, &load{ref: ref("newcomer"), rps: 50, p50: 3 * time.Millisecond, memory: 128 << 20, cpu: 100, slots: 5, want: 2})
	})
	p.await("the new function's row", rowOf+`('default/newcomer')`)
	p.await("its instances as tiles", `[...document.querySelectorAll('.mat .tile')].filter((e) => e.ariaLabel.startsWith('newcomer, ')).length === 2`)
	p.await("its requests", `parseFloat(`+rowOf+`('default/newcomer').querySelector('.rate').textContent) > 20`)
	p.await("the verdict", `document.querySelector('.verdict.ok').textContent.includes('13 functions')`)

	// A bound that is used shows as a bar, with what is left.
	p.await("the quota of ml", `(() => { const b = [...document.querySelectorAll('[data-namespace=ml] .bound')]; return b.length === 3 &&
		b[0].querySelector('[role=meter]').ariaValueText === '5.5 of 8, 2.5 left' && Math.abs(parseFloat(b[0].querySelector('.used').style.width) - 68.75) < 0.1 &&
		b[2].innerText.includes('15 left'); })()`)

	w.change(func() {
		w.loads[0].pending = "no node fits 128 MiB"
	})
	p.await("the problem, with its command", `document.querySelector('.verdict.bad').textContent.includes('checkout: 14 invocations waiting. No node fits 128 MiB.') &&
		document.querySelector('.verdict .command').textContent.includes('tatami explain checkout')`)
	w.change(func() { w.loads[0].pending = "" })
	p.await("the problem's end", `document.querySelector('.verdict.ok')`)

	w.change(func() {
		w.loads = slices.DeleteFunc(w.loads, func(l *load) bool { return l.ref.Name == "newcomer" })
		kept := w.insts[:0]
		for _, in := range w.insts {
			if in.Function != "newcomer" {
				kept = append(kept, in)
			}
		}
		w.insts = kept
	})
	p.await("the deleted function's end", `!`+rowOf+`('default/newcomer') && ![...document.querySelectorAll('.mat .tile')].some((e) => e.ariaLabel.startsWith('newcomer, '))`)

	w.change(func() {
		n := &w.nodes[0]
		n.Intent, n.IntentReason, n.Drain = functions.NodeDrained, "new kernel", &bus.NodeDrain{From: 9, Left: 4}
	})
	p.await("the drain, with its reason", `document.querySelector('.node.draining h3').textContent.replace(/\s+/g, ' ').includes('draining, 4 left') &&
		document.querySelector('.node.draining h3').textContent.includes('new kernel')`)
	w.change(func() { n := &w.nodes[0]; n.Intent, n.IntentReason, n.Drain = "", "", nil })

	w.change(func() { w.nodes = w.nodes[:1]; w.insts = nil })
	p.await("one mat less", `document.querySelectorAll('.node').length === 1`)

	w.change(func() { w.broken = true })
	p.await("the silent scheduler", `document.querySelector('.verdict.bad').textContent.includes('The scheduler has not answered')`)
	if n := eval[int](p, `document.querySelectorAll('.node').length`); n != 1 {
		t.Errorf("%d nodes are shown while the scheduler is silent, instead of the last known one", n)
	}
	w.change(func() { w.broken = false })
	p.await("the scheduler's return", `document.querySelector('.verdict.ok')`)

	if !eval[bool](p, `window.sameDocument === true`) {
		t.Error("the page was loaded again on the way")
	}
	p.clean(origin)
}

// TestPool shows which pool the nodes are of, how many workers it has and should have, what waits for more, and how that came.
func TestPool(t *testing.T) {
	t.Parallel()
	b := startBrowser(t)
	w := newWorld(3, busy()...)
	w.hire()
	origin, _ := w.serve(t)
	p := b.open(t, view{width: 1440, height: 900})
	p.visit(origin + "/ui")
	const row = `(document.querySelector('.pools .pool')?.textContent.replace(/\s+/g, ' ') ?? '')`
	p.await("the pool", row+`.includes('Nomad job tatami-worker') && `+row+`.includes('2 of 2 workers running (1 to 10)')`)
	p.await("which nodes are of it", `[...document.querySelectorAll('.node h3')].map((e) => e.textContent.includes('Nomad job tatami-worker')).join() === 'true,true,false'`)
	if text := eval[string](p, row); strings.Contains(text, "wanted") || strings.Contains(text, "without room") || strings.Contains(text, "last:") {
		t.Errorf("a pool that lacks nothing says %q", text)
	}
	w.change(w.lack)
	p.await("what it should have and why", row+`.includes('2 of 3 workers running, 4 wanted') && `+row+`.includes('5 instances without room') && `+
		row+`.includes('deployment 0f3c is active') && `+row+`.includes('now: 1 more wanted') && /last: 2 → 3, .* ago: 1 more wanted for 2 instances/.test(`+row+`)`)
	w.change(func() { w.pool = nil })
	p.await("no pool", `!document.querySelector('.pools')`)
	p.clean(origin)
}

// TestServers shows the servers of a cluster: which one leads, which is missing since when, and who does not hear whom.
func TestServers(t *testing.T) {
	t.Parallel()
	b := startBrowser(t)
	w := newWorld(2, busy()...)
	origin, _ := w.serve(t)
	p := b.open(t, view{width: 1440, height: 900})
	p.visit(origin + "/ui")
	p.await("no servers where one stands alone", `document.querySelector('.verdict.ok') && !document.querySelector('.servers')`)
	const rows = `[...document.querySelectorAll('.servers li')].map((e) => e.textContent.replace(/\s+/g, ' ').trim())`
	w.change(func() {
		w.servers = []live.Server{{Name: "s1", Peer: "10.0.0.1:6222", Up: true, Leads: true}, {Name: "s2", Peer: "10.0.0.2:6222", Up: true}, {Name: "s3", Peer: "10.0.0.3:6222", Up: true}}
	})
	p.await("three servers, each with what its gateway does", rows+`.length === 3 && /^s1leads10.0.0.1:6222[1-9][\d.,k]*\/s, \d+ in flight$/.test(`+rows+`[0]) && `+
		rows+`.slice(1).join() === 's2up10.0.0.2:62220/s, 0 in flight,s3up10.0.0.3:62220/s, 0 in flight'`)
	w.change(func() { w.silent = "s2" })
	p.await("one does not tell what its gateway does", rows+`[1] === 's2up10.0.0.2:6222does not tell its traffic' && `+
		`document.querySelector('[data-card=rps] .sub').textContent.endsWith('without s2') && `+
		`document.querySelector('.verdict').textContent.includes('Server s2 does not tell what its gateway does')`)
	w.change(func() { w.silent = "" })
	w.change(func() {
		heard := w.now.Add(-20 * time.Second)
		w.servers[1].Misses = []string{"s4"}
		w.servers[2].Up, w.servers[2].Heard = false, &heard
	})
	p.await("one is missing", rows+`[1].includes('does not hear s4') && /s3missing for \d/.test(`+rows+`[2]) && `+
		`document.querySelector('.verdict').textContent.includes('Server s3 has not been heard')`)
	p.clean(origin)
}

// TestHands uses what can be pointed at, clicked and typed.
func TestHands(t *testing.T) {
	t.Parallel()
	b := startBrowser(t)
	w := newWorld(2, busy()...)
	origin, _ := w.serve(t)
	p := b.open(t, view{width: 1440, height: 900})
	p.visit(origin + "/ui")
	p.await("a picture", `document.querySelectorAll('.mat .tile.idle, .mat .tile.busy').length > 20 && document.querySelector('.link.live')`)

	p.point(".mat .tile")
	p.await("what the tile is", `/Memory.*of.*Revision/s.test(document.querySelector('.tip').textContent)`)
	p.await("the function's tiles and row, lit", `(() => { const hot = document.querySelectorAll('.group.hot'); const row = document.querySelector('tr.hot');
		return hot.length >= 1 && row && document.querySelector('.tip strong').textContent === row.querySelector('.fn').textContent; })()`)
	p.shot("hands-tile")
	p.point("h1")
	p.await("no tip", `!document.querySelector('.tip') && !document.querySelector('.group.hot')`)

	// Keyboard: focus tells the same, arrows walk, Escape ends it.
	eval[bool](p, `(document.querySelector('.mat .tile').focus(), true)`)
	first := eval[string](p, `document.activeElement.dataset.id`)
	p.press("ArrowRight", "")
	p.await("the next tile focused, with its tip", `document.activeElement.matches('.tile') && document.activeElement.dataset.id !== `+quote(first)+` && document.querySelector('.tip code').textContent === document.activeElement.dataset.id`)
	p.press("Escape", "")
	p.await("no tip after Escape", `!document.querySelector('.tip')`)

	// A click chooses a function for as long as one likes.
	p.click(".mat .tile")
	p.point("h1")
	p.await("the choice to stay", `document.querySelector('.group.hot')`)
	p.press("Escape", "")
	p.await("the choice to end", `!document.querySelector('.group.hot')`)

	// Sorting.
	if got := eval[[]string](p, names); !slices.IsSorted(got) {
		t.Errorf("at first the functions are not in the order of their names: %v", got)
	}
	eval[bool](p, `([...document.querySelectorAll('.functions thead button')].find((e) => e.textContent.startsWith('p99')).id = 'by-p99', true)`)
	p.click("#by-p99")
	p.await("the slowest first", `document.querySelector('#by-p99').closest('th').ariaSort === 'descending' && `+names+`[0].startsWith('pdf-render')`)
	p.click("#by-p99")
	p.await("the slowest last", `document.querySelector('#by-p99').closest('th').ariaSort === 'ascending' && `+names+`.at(-1).startsWith('pdf-render')`)

	// The row opens.
	p.click(`tr[data-function="ml/inference"] .name`)
	p.await("details", `document.querySelector('tr.detail').textContent.includes('tatami explain inference.ml') && document.querySelector('tr[data-function="ml/inference"] .name').ariaExpanded === 'true'`)
	p.shot("hands-detail")
	p.click(`tr[data-function="ml/inference"] .name`)
	p.await("no details", `!document.querySelector('tr.detail')`)

	// The filter.
	p.press("/", "/")
	p.await("the filter focused", `document.activeElement.type === 'search' && document.activeElement.value === ''`)
	p.write("ml")
	p.await("two functions", names+`.length === 2 && document.querySelector('.many').textContent === '2 of 12'`)
	p.write("nosuch")
	p.await("none, said so", `document.querySelector('.functions .nothing').textContent.includes('mlnosuch')`)
	p.press("Escape", "")
	p.await("all again", names+`.length === 12`)

	// Pointing at one chart shows the same moment in all.
	p.point("[data-card=rps] .u-over")
	p.await("one moment in all cards", `(() => { const at = [...document.querySelectorAll('.card .sub')].map((e) => e.textContent); return at.every((x) => x === at[0] && / ago$/.test(x)); })()`)
	p.shot("hands-chart")

	// A command is copied or selected.
	p.click(".nodes header .command")
	p.await("a word about the copy", `/copied|selected/.test(document.querySelector('.nodes header .command .note').textContent)`)

	// Everything that can be pressed has a name, every table heads its columns and rows.
	if bad := eval[[]string](p, `[...document.querySelectorAll('button, input, a, summary')].filter((e) => !(e.ariaLabel || e.textContent.trim() || e.labels?.[0]?.textContent)).map((e) => e.outerHTML)`); len(bad) > 0 {
		t.Errorf("without a name: %v", bad)
	}
	if bad := eval[[]string](p, `[...document.querySelectorAll('table')].filter((e) => e.querySelectorAll('thead th[scope=col]').length < 2 || [...e.querySelectorAll('tbody tr:not(.detail)')].some((r) => !r.querySelector('th[scope=row]'))).map((e) => e.outerHTML.slice(0, 200))`); len(bad) > 0 {
		t.Errorf("tables without heads: %v", bad)
	}
	p.clean(origin)
}

// TestOutage breaks the connection: the page says so, keeps what it knows, and goes on by itself.
func TestOutage(t *testing.T) {
	t.Parallel()
	b := startBrowser(t)
	w := newWorld(1, busy()[:4]...)
	origin, outage := w.serve(t)
	p := b.open(t, view{width: 1440, height: 900})
	p.visit(origin + "/ui")
	p.await("a picture", `document.querySelector('.mat .tile') && document.querySelector('.link.live')`)

	w.change(func() { w.absent = true })
	outage(false)
	p.await("the loss, said so", `/connection lost, figures are \d+ s old/.test(document.querySelector('.link.lost').textContent) && document.querySelector('main.old') && document.querySelector('.mat .tile')`)
	p.shot("outage")
	w.change(func() { w.absent = false })
	p.await("the connection's return", `document.querySelector('.link.live') && !document.querySelector('main.old')`)

	// A restart of the server begins the numbering of events anew: the page takes a whole picture then.
	w.change(func() {
		w.loads = append(w.loads, &load{ref: ref("after-restart"), memory: 128 << 20, slots: 1})
	})
	outage(true)
	p.await("what came after the restart", rowOf+`('default/after-restart') && document.querySelector('.link.live')`)
}

// TestSession shows what a page without a session says, and that it goes on when it has one.
func TestSession(t *testing.T) {
	t.Parallel()
	b := startBrowser(t)
	w := newWorld(1, busy()[:2]...)
	w.denied = true
	origin, outage := w.serve(t)
	p := b.open(t, view{width: 1440, height: 900})
	p.visit(origin + "/ui")
	p.await("how to get in", `document.querySelector('.link.denied') && document.querySelector('[role=alert]').textContent.includes('tatami token link')`)
	p.shot("denied")
	w.change(func() { w.denied = false })
	p.await("the picture", `document.querySelector('.mat .tile') && document.querySelector('.link.live')`)
	w.change(func() { w.denied = true })
	outage(false)
	p.await("how to get in again", `document.querySelector('[role=alert]').textContent.includes('tatami token link')`)
}

// TestEmpty sees the page teach.
func TestEmpty(t *testing.T) {
	t.Parallel()
	b := startBrowser(t)
	w := newWorld(1)
	origin, _ := w.serve(t)
	p := b.open(t, view{width: 360, height: 800, touch: true})
	p.visit(origin + "/ui/")
	p.await("the first steps", `['tatami init hello', 'tatami deploy ./hello', 'tatami invoke hello'].every((c) => document.querySelector('.empty').textContent.includes(c)) && document.querySelector('.verdict.idle')`)
	w.change(func() { w.loads = busy()[:1] })
	p.await("the function instead", `!document.querySelector('.empty') && document.querySelector('tr[data-function="default/checkout"]')`)
	p.clean(origin)
}

// TestHostileNames feeds names that try to become markup, attributes, style or properties of objects.
func TestHostileNames(t *testing.T) {
	t.Parallel()
	b := startBrowser(t)
	evil := []string{
		`<img src=x onerror="window.hit=1">`, `"><script>window.hit=2</script>`, `__proto__`, `constructor`, `hasOwnProperty`, "\u202egnp.exe",
		`'; rm -rf / #`, "a\nb\tc", `{{7*7}}`, "`${window.hit=3}`", "javascript:window.hit=4", strings.Repeat("long", 60), `</style><svg onload=window.hit=5>`,
	}
	w := newWorld(1)
	for _, name := range evil {
		w.loads = append(w.loads, &load{ref: functions.Ref{Namespace: name, Name: name}, rps: 1, p50: time.Millisecond, memory: 256 << 20, cpu: 10, slots: 1, want: 1,
			pending: name, dead: 1, queued: 2})
	}
	w.nodes[0].Name = evil[0]
	w.nodes[0].Architecture = evil[12]
	w.notice = evil[1]
	origin, _ := w.serve(t)
	p := b.open(t, view{width: 1440, height: 900})
	p.visit(origin + "/ui")
	p.await("all of them, as text", `document.querySelectorAll('.functions tr[data-function]').length === `+"13"+` && document.querySelectorAll('.mat .tile').length === 13`)
	p.point(".mat .tile")
	p.await("a tip", `document.querySelector('.tip')`)
	for i := range evil {
		eval[bool](p, `(document.querySelectorAll('.functions .name')[`+string(rune('0'+i/10))+string(rune('0'+i%10))+`*1]?.click(), true)`)
	}
	shown := eval[[]string](p, `[...document.querySelectorAll('.functions tr[data-function] .fn')].map((e) => e.textContent)`)
	for _, name := range evil {
		if !slices.Contains(shown, name) {
			t.Errorf("%q is not shown as it is: %q", name, shown)
		}
	}
	if n := eval[int](p, `document.querySelectorAll('img, script:not([src^="/ui/"]), iframe, [onerror], [onload], style').length`); n != 0 {
		t.Errorf("%d elements came out of names", n)
	}
	if eval[bool](p, `'hit' in window`) {
		t.Error("a name ran as a script")
	}
	if over := eval[float64](p, `document.documentElement.scrollWidth - innerWidth`); over > 0 {
		t.Errorf("names make the page %v px too wide", over)
	}
	p.shot("hostile")
	p.clean(origin)
}

// TestStrict checks what the page may do and what it costs.
func TestStrict(t *testing.T) {
	t.Parallel()
	b := startBrowser(t)
	w := newWorld(3, busy()...)
	origin, _ := w.serve(t)
	p := b.open(t, view{width: 1440, height: 900})
	p.visit(origin + "/ui")
	p.await("a picture", `document.querySelector('.mat .tile') && document.querySelector('.link.live')`)
	p.clean(origin)

	if !eval[bool](p, `(() => { try { document.createElement('p').innerHTML = '<b>x</b>'; return false; } catch (e) { return e instanceof TypeError; } })()`) {
		t.Error("text may become markup: the policy's Trusted Types do not hold")
	}
	if !eval[bool](p, `fetch('http://127.0.0.1:9/').then(() => false, () => true)`) {
		t.Error("the page may ask other origins")
	}
	if !eval[bool](p, `new Promise((done) => { addEventListener('securitypolicyviolation', (e) => done(e.effectiveDirective === 'style-src-attr' || e.effectiveDirective === 'style-src-elem' || e.effectiveDirective === 'style-src'));
		const s = document.createElement('style'); s.textContent = 'p {}'; document.head.append(s); setTimeout(() => done(false), 40000); })`) {
		t.Error("inline style is allowed")
	}

	files := eval[[]map[string]any](p, `performance.getEntriesByType('resource').concat(performance.getEntriesByType('navigation')).filter((e) => !e.name.includes('/v1/')).map((e) => ({ name: e.name, size: e.encodedBodySize + 300 }))`)
	var sum float64
	for _, f := range files {
		size, _ := f["size"].(float64)
		sum += size
	}
	t.Logf("%d files, %.1f KB on the wire; first paint after %.0f ms", len(files), sum/1000, eval[float64](p, `performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? -1`))
	if sum > 150_000 || len(files) < 8 {
		t.Errorf("the page costs %.0f bytes in %d files, more than 150000: %v", sum, len(files), files)
	}

	resp, err := http.Get(origin + "/ui")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	for key, want := range map[string]string{
		"Content-Security-Policy": "default-src 'none'; script-src 'self'", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
	} {
		if got := resp.Header.Get(key); !strings.HasPrefix(got, want) || strings.Contains(got, "unsafe") {
			t.Errorf("%s: %q", key, got)
		}
	}
}
