//go:build e2e

package power

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/gateway/queue"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/fault"
)

var (
	crashes = flag.Int("power.crashes", len(moments()), "how often the power is lost, each time in another kind of moment")
	seed    = flag.Uint64("power.seed", 0, "seed of the moments; 0 takes one from the clock")
)

// story is what the processes said before the power went.
type story struct {
	t *testing.T
	// accepted are the paths of what was accepted, ended the states of what was said to have ended.
	accepted map[functions.InvocationID]string
	ended    map[functions.InvocationID]functions.InvocationState
	// answered is how long before the cut each was said to be accepted, and in which life.
	answered map[functions.InvocationID]answer
	// during counts the answers that came while a cut was under way, after those that came when it was done; cutting is how long the cuts took.
	during, after int
	cutting       time.Duration
	// attempts is where attempts are written, behind is how long that was when the power came back, by the number of ended then.
	attempts string
	finished map[functions.InvocationID]int
	// between counts what a cut caught with its end written and its message in the queue; letters those of them with a dead letter.
	between, letters int
	// cuts counts the moments, lives the processes.
	cuts  map[moment]int
	lives int
}

// answer is when an acceptance was answered.
type answer struct {
	life   int
	before time.Duration
}

// moment is when the power goes.
type moment string

const (
	// anyTime is after a number of lines, whatever happens then.
	anyTime moment = "any time"
	// onRewrite is when the server begins to write a block of its files anew, without what was acknowledged; onSwap when it has put the new one in
	// the place of the old one.
	onRewrite moment = "a block is being rewritten"
	onSwap    moment = "a block was replaced"
	// onLetter is when a dead letter is stored, before the message that it is of is acknowledged.
	onLetter moment = "a dead letter is stored"
)

func moments() []moment { return []moment{anyTime, onRewrite, onSwap, onLetter} }

// The power goes while work is accepted, run, retried and buried. What was accepted is there when it is back, and comes to its one end;
// what had ended has ended, and is not run again.
func TestPowerLoss(t *testing.T) {
	if *seed == 0 {
		*seed = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d: %d crashes", *seed, *crashes)
	random := rand.New(rand.NewPCG(*seed, 0))
	im := newImage(t, 1024)
	s := &story{t: t, accepted: map[functions.InvocationID]string{}, ended: map[functions.InvocationID]functions.InvocationState{},
		answered: map[functions.InvocationID]answer{}, attempts: filepath.Join(t.TempDir(), "attempts"), finished: map[functions.InvocationID]int{},
		cuts: map[moment]int{}}
	for i := range *crashes {
		s.live(im, moments()[i%len(moments())], 300+random.IntN(1500))
		s.look(im)
	}
	// A cut takes a moment, too: the acknowledgement may have been faster.
	for try := 0; s.letters == 0 && try < 10; try++ {
		s.live(im, onLetter, 300)
		s.look(im)
	}
	if s.letters == 0 {
		t.Error("no cut fell between a dead letter and the acknowledgement")
	}
	s.settle(im)
	t.Logf("cuts: %v", s.cuts)
	t.Logf("%d answers came within the %v that all cuts took, %d after that: these do not count", s.during, s.cutting, s.after)
	t.Logf("%d accepted, %d had ended before a cut, %d were caught between their end and the queue's word, %d of them dead",
		len(s.accepted), len(s.ended), s.between, s.letters)
}

// mostTold is how many of those lost are told one by one.
const mostTold = 50

// mostLines is how much a process says at most before its moment must have come.
const mostLines = 200_000

// live runs a process until it has said so many lines and the moment has come, takes the power and kills it.
func (s *story) live(im *image, when moment, lines int) {
	t := s.t
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childDir+"="+im.dir, childLog+"="+s.attempts)
	var complaints strings.Builder
	cmd.Stderr = &complaints
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	cut := false
	var begun, done atomic.Int64
	end := sync.OnceFunc(func() {
		begun.Store(now())
		err := takePower(im.dir)
		done.Store(now())
		if err := errors.Join(err, cmd.Process.Kill()); err != nil {
			t.Error(err)
		}
		cut = true
	})
	stopWatching := func() {}
	said, n := bufio.NewScanner(out), 0
	var heard []string
	for said.Scan() {
		line := said.Text()
		heard = append(heard, line)
		switch n++; {
		case n < lines:
		case n > mostLines, when == anyTime, when == onLetter && strings.HasPrefix(line, "burying "):
			end()
		case n == lines:
			stopWatching = s.watch(im, when, end)
		}
	}
	_ = cmd.Wait()
	stopWatching()
	switch {
	case !cut:
		t.Fatalf("the process ended by itself after %d lines:\n%s", n, complaints.String())
	case n > mostLines:
		t.Fatalf("within %d lines it never came that %s", n, when)
	}
	s.lives++
	s.cutting += time.Duration(done.Load() - begun.Load())
	before := s.after
	for _, line := range heard {
		s.hear(line, begun.Load(), done.Load())
	}
	if n := s.after - before; n > mostAfter {
		t.Errorf("%d answers came after a cut, at most %d may", n, mostAfter)
	}
	s.cuts[when]++
	im.unmount()
	im.mount()
	so := s.length()
	for id := range s.ended {
		if _, known := s.finished[id]; !known {
			s.finished[id] = so
		}
	}
}

// watch calls end when the server's files are in the moment that is waited for.
func (s *story) watch(im *image, when moment, end func()) (stop func()) {
	kind := map[moment]fsnotify.Op{onRewrite: fsnotify.Create, onSwap: fsnotify.Rename}[when]
	if kind == 0 {
		return func() {}
	}
	w, err := fsnotify.NewWatcher()
	if err == nil {
		err = w.Add(filepath.Join(im.dir, "data", "jetstream", bus.AccountTatami, "streams", bus.StreamInvocations, "msgs"))
	}
	if err != nil {
		s.t.Fatal(err)
	}
	var watching sync.WaitGroup
	watching.Go(func() {
		for e := range w.Events {
			if e.Has(kind) && strings.HasSuffix(e.Name, ".new") {
				end()
			}
		}
	})
	return func() { _ = w.Close(); watching.Wait() }
}

// mostAfter is how many answers may come when a cut is done: of each caller the acceptance and the end that a sync had been waited for.
const mostAfter = 2 * callers

// hear takes what was said before the cut began. A process whose power is gone says nothing; this one lives on while the kernel ends the filesystem, and
// a sync that began before that and returns meanwhile may succeed although its journal is lost. One that returned before the cut began may not, and one
// that begins after it fails.
func (s *story) hear(line string, cut, done int64) {
	f := strings.Fields(line)
	if len(f) != 4 {
		return
	}
	at, err := strconv.ParseInt(f[3], 10, 64)
	if err != nil {
		return
	}
	if at >= cut {
		switch {
		case f[0] == "burying":
		case at < done:
			s.during++
		default:
			s.after++
		}
		return
	}
	switch id := functions.InvocationID(f[1]); f[0] {
	case "accepted":
		s.accepted[id] = f[2]
		s.answered[id] = answer{s.lives, time.Duration(cut - at)}
	case "ended":
		s.ended[id] = functions.InvocationState(f[2])
	}
}

func (s *story) length() int {
	info, err := os.Stat(s.attempts)
	if err != nil {
		s.t.Fatal(err)
	}
	return int(info.Size())
}

// look opens the store without a queue: everything accepted must be there, everything ended have its record.
func (s *story) look(im *image) {
	t := s.t
	b, _, err := open(t.Context(), im.dir, s.attempts)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := b.Close(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	lost := 0
	for id, path := range s.accepted {
		waits := s.waits(b, id)
		rec, _, err := b.Results().Get(t.Context(), bus.ResultKey(id))
		has := err == nil
		if err != nil && !fault.Is(err, fault.CodeInvocationNotFound) {
			t.Fatal(err)
		}
		if state, ended := s.ended[id]; ended && (!has || rec.State != state) {
			t.Errorf("%s %s had ended as %s, its record says %q", id, path, state, rec.State)
		}
		switch {
		case !has && !waits:
			if lost++; lost <= mostTold {
				was := s.answered[id]
				t.Errorf("%s %s is lost: it was accepted %v before cut %d of %d; said to have ended as %q", id, path, was.before, was.life, s.lives, s.ended[id])
			}
		case has && waits:
			s.between++
			if subject, _ := bus.DeadSubject(id); rec.State == functions.StateDead {
				if _, err := b.Dead().GetLastMsgForSubject(t.Context(), subject); err == nil {
					s.letters++
				}
			}
		}
	}
	if lost > 0 {
		t.Errorf("%d of %d accepted invocations are lost", lost, len(s.accepted))
	}
}

// waits reports whether a message of the invocation is in the queue.
func (s *story) waits(b *bus.Bus, id functions.InvocationID) bool {
	waiting, _ := bus.InvocationSubject(id)
	scheduled, _ := bus.ScheduledSubject(id)
	for _, subject := range []string{waiting, scheduled} {
		if _, err := b.Invocations().GetLastMsgForSubject(s.t.Context(), subject); err == nil {
			return true
		}
	}
	return false
}

// settle lets everything come to its end and holds it against what was said.
func (s *story) settle(im *image) {
	t := s.t
	b, q, err := open(t.Context(), im.dir, s.attempts)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- q.Run(ctx) }()
	for id, path := range s.accepted {
		s.end(q, id, path)
		if t.Failed() {
			break
		}
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := b.Close(context.Background()); err != nil {
		t.Error(err)
	}
	log, err := os.Open(s.attempts)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	data, err := io.ReadAll(log)
	if err != nil {
		t.Fatal(err)
	}
	at := 0
	for line := range strings.Lines(string(data)) {
		id, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		if before, ended := s.finished[functions.InvocationID(id)]; ended && at >= before {
			t.Errorf("%s had ended, and an attempt began after the power was back: %s", id, line)
		}
		at += len(line)
	}
}

func (s *story) end(q *queue.Queue, id functions.InvocationID, path string) {
	t := s.t
	wait := 5 * time.Minute
	want := functions.StateSucceeded
	switch path {
	case "/later":
		wait, want = 0, functions.StateScheduled
	case "/dead", "/refused":
		want = functions.StateDead
	}
	var st queue.Status
	for deadline := time.Now().Add(wait); ; {
		var err error
		if st, err = q.Lookup(t.Context(), id, wait); err != nil {
			t.Errorf("%s %s: %v", id, path, err)
			return
		}
		if st.State == want || st.State.Terminal() || time.Now().After(deadline) {
			break
		}
	}
	if st.State != want {
		t.Errorf("%s %s is %+v, want %s", id, path, st, want)
	}
	if want != functions.StateDead {
		return
	}
	// The record is written first: where the power went in between, the letter follows when the message comes again.
	for deadline := time.Now().Add(wait); ; time.Sleep(10 * time.Millisecond) {
		_, err := q.ShowDead(t.Context(), id)
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("%s %s is dead without a letter: %v", id, path, err)
			return
		}
	}
}
