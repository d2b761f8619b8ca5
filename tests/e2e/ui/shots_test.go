//go:build e2e

package ui_test

import (
	"bytes"
	"image/png"
	"testing"
)

// TestScreenshots renders the page at the sizes and in the colours that it promises. That nothing lies outside the window's width is asserted; how it
// looks is for eyes: set TATAMI_UI_SHOTS.
func TestScreenshots(t *testing.T) {
	t.Parallel()
	b := startBrowser(t)
	w := newWorld(3, busy()...)
	origin, _ := w.serve(t)
	sick := newWorld(2, busy()...)
	sick.notice = "Power loss may lose accepted work: the data directory is on overlay, which does not order a rename after the data."
	sick.loads[0].errors = 0.3
	sick.loads[10].pending, sick.loads[10].want = "no node fits 2 GiB: rack-1 has 0.9 GiB free, rack-2 has 1.1 GiB free", 9
	sickOrigin, _ := sick.serve(t)
	emptyOrigin, _ := newWorld(1).serve(t)
	one := newWorld(1, &load{ref: ref("hello"), rps: 3, p50: 2000000, memory: 192 << 20, cpu: 250, slots: 10, want: 2})
	oneOrigin, _ := one.serve(t)
	large := newWorld(14)
	for i := range 60 {
		l := *busy()[i%12]
		l.ref = ref(l.ref.Name + "-" + string(rune('a'+i/12)) + "." + l.ref.Namespace)
		l.want *= 3
		large.loads = append(large.loads, &l)
	}
	largeOrigin, _ := large.serve(t)
	hired := newWorld(3, busy()...)
	hired.hire()
	hired.lack()
	hiredOrigin, _ := hired.serve(t)
	for _, c := range []struct {
		name, origin, ready string
		v                   view
	}{
		{"narrow-dark", origin, ".tile", view{width: 360, height: 800, dark: true, touch: true}},
		{"sick-narrow-dark", sickOrigin, ".verdict.bad", view{width: 360, height: 800, dark: true, touch: true}},
		{"empty-narrow", emptyOrigin, ".empty", view{width: 360, height: 800, dark: true}},
		{"one-node", oneOrigin, ".tile", view{width: 1440, height: 900}},
		{"large", largeOrigin, ".tile", view{width: 1440, height: 900}},
		{"pool", hiredOrigin, ".pools", view{width: 1440, height: 900}},
		{"pool-narrow-dark", hiredOrigin, ".pools", view{width: 360, height: 800, dark: true, touch: true}},
		{"pool-tablet-dark", hiredOrigin, ".pools", view{width: 820, height: 1180, dark: true}},
		{"tablet", origin, ".tile", view{width: 820, height: 1180}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := b.open(t, c.v)
			p.visit(c.origin + "/ui")
			p.await("the picture", `document.querySelector(`+quote(c.ready)+`) && document.querySelector('.link.live') && document.querySelector('.card canvas')`)
			eval[bool](p, `new Promise((done) => setTimeout(() => done(true), 500))`)
			img, err := png.Decode(bytes.NewReader(p.shot(c.name)))
			if err != nil {
				t.Fatal(err)
			}
			if img.Bounds().Dx() != c.v.width || img.Bounds().Dy() != c.v.height {
				t.Errorf("the picture is %v", img.Bounds())
			}
			if over := eval[float64](p, `document.documentElement.scrollWidth - innerWidth`); over > 0 {
				t.Errorf("the page is %v px wider than the window: %v", over, eval[[]string](p, `[...document.querySelectorAll('body *')].filter((e) => e.getBoundingClientRect().right > innerWidth + 1 && !e.closest('.scroll, .sr')).slice(0, 8).map((e) => e.className || e.tagName)`))
			}
			if c.v.width >= 1440 {
				if cut := eval[[]string](p, `[...document.querySelectorAll('.scroll')].filter((e) => e.scrollWidth > e.clientWidth).map((e) => e.getAttribute('aria-labelledby') + ' ' + e.scrollWidth + '>' + e.clientWidth)`); len(cut) > 0 {
					t.Errorf("tables are cut off: %v", cut)
				}
			}
			p.clean(c.origin)
		})
	}
}
