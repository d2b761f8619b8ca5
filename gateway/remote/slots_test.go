package remote

import (
	"bufio"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/fault"
)

const inst = functions.InstanceID("ins_a")

// counterpart answers a session as a worker does, by a word that the test may change.
type counterpart struct {
	conn net.Conn

	mu sync.Mutex
	// word is what it says of a slot that it gives.
	word string
	// said is what it was asked since the last look, held how many slots the session has.
	said []string
	held int
}

func (d *counterpart) serve() {
	br := bufio.NewReader(d.conn)
	for {
		b, err := br.ReadBytes('\n')
		if err != nil {
			return
		}
		line, err := bus.ParseSlotLine(b)
		if err != nil {
			return
		}
		d.mu.Lock()
		answer := bus.SlotLine{Op: bus.SlotGranted, Sequence: line.Sequence}
		switch line.Op {
		case bus.SlotAdmit:
			d.said = append(d.said, "ask")
			d.held++
			answer.Text = d.word
		case bus.SlotRelease:
			d.said = append(d.said, "back")
			d.held--
		}
		d.mu.Unlock()
		if line.Op != bus.SlotRelease {
			_, _ = d.conn.Write(answer.Append(nil))
		}
	}
}

// heard is what the worker was told since the last look, when all is quiet.
func (d *counterpart) heard() string {
	synctest.Wait()
	d.mu.Lock()
	defer d.mu.Unlock()
	said := strings.Join(d.said, " ")
	d.said = nil
	return said
}

// recall asks for what is kept.
func (d *counterpart) recall() {
	_, _ = d.conn.Write(bus.SlotLine{Op: bus.SlotRelease, Text: string(inst)}.Append(nil))
}

// withSession runs a test on a peer that has a session with a worker.
func withSession(t *testing.T, word string, test func(t *testing.T, p *peer, d *counterpart)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		here, there := net.Pipe()
		w := New(Config{}, slog.New(slog.DiscardHandler))
		p := &peer{w: w, node: "nod_a", stale: map[functions.InstanceID]int{}}
		s := newSession("s", here, bus.Listener{})
		p.now = s
		d := &counterpart{conn: there, word: word}
		var both sync.WaitGroup
		both.Go(d.serve)
		both.Go(func() { _ = p.serve(t.Context(), s, bufio.NewReader(here)) })
		test(t, p, d)
		_ = there.Close()
		both.Wait()
	})
}

func take(t *testing.T, p *peer, n int) {
	t.Helper()
	for range n {
		if err := p.admit(inst); err != nil {
			t.Fatal(err)
		}
	}
}

// A slot that a call gave back serves the next one without a question, and goes back when none comes.
func TestASlotIsKept(t *testing.T) {
	t.Parallel()
	withSession(t, bus.SlotKeep, func(t *testing.T, p *peer, d *counterpart) {
		for range 5 {
			take(t, p, 1)
			p.release(inst)
		}
		if said := d.heard(); said != "ask" {
			t.Errorf("five calls, one after the other, said %q", said)
		}
		take(t, p, 3)
		for range 3 {
			p.release(inst)
		}
		if said := d.heard(); said != "ask ask" {
			t.Errorf("three at once, of which one has a slot, said %q", said)
		}
		// One is needed again and again, the others are not.
		for range 4 {
			time.Sleep(lookEvery * 3 / 4)
			p.now.life.sign()
			take(t, p, 1)
			p.release(inst)
		}
		if said := d.heard(); said != "back back" {
			t.Errorf("one of three needed, said %q", said)
		}
		time.Sleep(2 * lookEvery)
		if said := d.heard(); said != "back" || d.held != 0 || len(p.now.held) != 0 || p.now.looking {
			t.Errorf("none needed, said %q; %d are held", said, d.held)
		}
	})
}

// A worker that was silent for a moment may be dead: the next call asks it, with the slot that was kept, for that may be the last one.
func TestASilentWorkerIsAsked(t *testing.T) {
	t.Parallel()
	withSession(t, bus.SlotKeep, func(t *testing.T, p *peer, d *counterpart) {
		take(t, p, 1)
		p.release(inst)
		d.heard()
		time.Sleep(sureFor - time.Nanosecond)
		take(t, p, 1)
		p.release(inst)
		if said := d.heard(); said != "" {
			t.Errorf("a moment after a sign of life a call said %q", said)
		}
		time.Sleep(time.Nanosecond)
		take(t, p, 1)
		if said := d.heard(); said != "back ask" || d.held != 1 {
			t.Errorf("a moment later a call said %q; %d are held", said, d.held)
		}
		p.release(inst)
		// The answer was another sign.
		take(t, p, 1)
		p.release(inst)
		if said := d.heard(); said != "" {
			t.Errorf("after the answer a call said %q", said)
		}
	})
}

// Where the worker does not say that it may be kept, every slot goes back at once.
func TestASlotIsNotKept(t *testing.T) {
	t.Parallel()
	withSession(t, "", func(t *testing.T, p *peer, d *counterpart) {
		for range 2 {
			take(t, p, 1)
			p.release(inst)
			if said := d.heard(); said != "ask back" || len(p.now.held) != 0 {
				t.Errorf("a call said %q", said)
			}
		}
	})
}

// The worker's word grows old: it is asked again, however many calls there are.
func TestTheWordIsAskedForAgain(t *testing.T) {
	t.Parallel()
	withSession(t, bus.SlotKeep, func(t *testing.T, p *peer, d *counterpart) {
		for begun := time.Now(); time.Since(begun) < 3*wordLooks*lookEvery; time.Sleep(lookEvery / 5) {
			p.now.life.sign()
			take(t, p, 1)
			p.release(inst)
		}
		if said := d.heard(); said != "ask back ask back ask" && said != "ask back ask back ask back" {
			t.Errorf("calls without end said %q", said)
		}
		d.mu.Lock()
		d.word = ""
		d.mu.Unlock()
		time.Sleep(2 * lookEvery)
		d.heard()
		take(t, p, 1)
		p.release(inst)
		if said := d.heard(); said != "ask back" {
			t.Errorf("a call after another word said %q", said)
		}
	})
}

// What the worker asks for goes back at once, and what is in use as soon as it is not.
func TestKeptSlotsAreRecalled(t *testing.T) {
	t.Parallel()
	withSession(t, bus.SlotKeep, func(t *testing.T, p *peer, d *counterpart) {
		take(t, p, 3)
		p.release(inst)
		p.release(inst)
		if said := d.heard(); said != "ask ask ask" {
			t.Errorf("before the recall: %q", said)
		}
		begun := time.Now()
		d.recall()
		if said := d.heard(); said != "back back" {
			t.Errorf("after the recall: %q", said)
		}
		p.release(inst)
		if said := d.heard(); said != "back" || d.held != 0 || len(p.now.held) != 0 {
			t.Errorf("the last one: %q", said)
		}
		if waited := time.Since(begun); waited > 0 {
			t.Errorf("that took %s", waited)
		}
		// Nothing is kept: nothing is to be said.
		d.recall()
		if said := d.heard(); said != "" {
			t.Errorf("of nothing: %q", said)
		}
	})
}

// Of a session that broke, slots that were kept are nobody's, and those in use are still to be given back.
func TestKeptSlotsEndWithTheirSession(t *testing.T) {
	t.Parallel()
	withSession(t, bus.SlotKeep, func(t *testing.T, p *peer, d *counterpart) {
		take(t, p, 3)
		p.release(inst)
		_ = d.conn.Close()
		synctest.Wait()
		if got := p.stale[inst]; got != 2 {
			t.Errorf("%d slots are to be given back", got)
		}
		if err := p.admit(inst); !fault.Is(err, fault.CodeUnavailable) {
			t.Errorf("a slot without a session: %v", err)
		}
		p.release(inst)
		p.release(inst)
		if len(p.stale) != 0 {
			t.Errorf("left are %v", p.stale)
		}
		time.Sleep(2 * lookEvery)
	})
}

// However calls come and go, and whatever the worker says meanwhile: what it takes for held is what is held, and in the end that is nothing.
func TestSlotsAreKeptInNumber(t *testing.T) {
	t.Parallel()
	withSession(t, bus.SlotKeep, func(t *testing.T, p *peer, d *counterpart) {
		var calls sync.WaitGroup
		for i := range 16 {
			calls.Go(func() {
				for n := range 200 {
					if err := p.admit(inst); err != nil {
						t.Error(err)
						return
					}
					time.Sleep(time.Duration(1+(7*i+3*n)%23) * time.Millisecond)
					p.release(inst)
					time.Sleep(time.Duration((5*i+11*n)%61) * time.Millisecond)
					if n%3 > 0 {
						p.now.life.sign()
					}
				}
			})
		}
		calls.Go(func() {
			for n := range 50 {
				time.Sleep(97 * time.Millisecond)
				d.mu.Lock()
				d.word = []string{bus.SlotKeep, "", bus.SlotKeep}[n%3]
				d.mu.Unlock()
				d.recall()
				p.mu.Lock()
				h := p.now.held[inst]
				if h != nil && (h.lent < 0 || h.kept < 0 || h.lent > 16) {
					t.Errorf("%+v", h)
				}
				p.mu.Unlock()
			}
		})
		calls.Wait()
		time.Sleep(3 * lookEvery)
		d.heard()
		if d.held != 0 || len(p.now.held) != 0 {
			t.Errorf("%d are held, and %v", d.held, p.now.held)
		}
	})
}
