package queue

import (
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/gateway/trigger/cloudevents"
	"github.com/tatami-faas/tatami/internal/fault"
)

// batches is a function that takes batches.
type batches struct {
	t  *testing.T
	mu sync.Mutex
	// got are the requests, each with what it held.
	got [][]batched
	// answer makes the answer to a request.
	answer func(w http.ResponseWriter, list []batched)
}

func (b *batches) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	data, err := io.ReadAll(r.Body)
	if err != nil {
		b.t.Error(err)
	}
	var list []batched
	if err := json.Unmarshal(data, &list); err != nil {
		b.t.Errorf("%v: %.200s", err, data)
	}
	b.mu.Lock()
	b.got = append(b.got, list)
	b.mu.Unlock()
	if b.answer != nil {
		b.answer(w, list)
	}
}

// attempts are the attempts of each body, and alone those that a request had no other beside.
func (b *batches) attempts() (of map[string][]int, alone map[string]int, largest int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	of, alone = map[string][]int{}, map[string]int{}
	for _, list := range b.got {
		largest = max(largest, len(list))
		for _, m := range list {
			of[m.Body] = append(of[m.Body], m.Attempt)
			if len(list) == 1 {
				alone[m.Body]++
			}
		}
	}
	return of, alone, largest
}

func inBatches(size int, window time.Duration) func(*functions.Config) {
	return func(c *functions.Config) {
		c.Queue.Batch = functions.Batch{Size: size, Window: functions.Duration(window)}
	}
}

// Those that a batch's answer names are tried again, each alone; the others are done.
func TestABatchFailsInPart(t *testing.T) {
	t.Parallel()
	f := &batches{t: t, answer: func(w http.ResponseWriter, list []batched) {
		var failed []map[string]string
		for _, m := range list {
			if strings.HasPrefix(m.Body, "always") || strings.HasPrefix(m.Body, "once") && m.Attempt == 1 {
				failed = append(failed, map[string]string{"id": string(m.ID), "reason": "no " + m.Body})
			}
		}
		if err := json.NewEncoder(w).Encode(map[string]any{"failed": failed}); err != nil {
			t.Error(err)
		}
	}}
	run := newDataPath(t, 0, f)
	run.deploy(hello, inBatches(4, 0))
	w := start(t, t.TempDir(), run, Config{InlineBody: 64})
	ids := map[string]functions.InvocationID{}
	for _, body := range []string{"a", "b", "once", "c", "always", "d", "e\xff", "f", strings.Repeat("long", 50)} {
		ids[body] = w.accept(Request{Body: []byte(body), Path: "/x", Query: "q", Header: http.Header{"X-A": {"b"}}})
	}
	run.set(func() { run.free = 2 })
	for body, id := range ids {
		st, want, attempts := w.ends(id), functions.StateSucceeded, 1
		switch body {
		case "once":
			attempts = 2
		case "always":
			want, attempts = functions.StateDead, 3
		}
		if st.State != want || len(st.Attempts) != attempts {
			t.Errorf("%.20q: %+v", body, st)
		}
	}
	letter, err := w.q.ShowDead(t.Context(), ids["always"])
	if err != nil || !strings.Contains(letter.Reason, "no always") || letter.Invocation.History[0].Error != string(fault.CodeFunctionBadResponse) {
		t.Errorf("%+v, %v", letter, err)
	}
	of, alone, largest := f.attempts()
	if !slices.Equal(of["once"], []int{1, 2}) || !slices.Equal(of["always"], []int{1, 2, 3}) || !slices.Equal(of["a"], []int{1}) {
		t.Errorf("attempts: %v", of)
	}
	if alone["always"] < 2 || alone["once"] < 1 {
		t.Errorf("alone: %v", alone)
	}
	if largest < 2 || largest > 4 {
		t.Errorf("the largest batch had %d", largest)
	}
	f.mu.Lock()
	for _, list := range f.got {
		for _, m := range list {
			if m.Path != "/x" || m.Query != "q" || m.Method != "POST" || !slices.Equal(m.Headers["X-A"], []string{"b"}) {
				t.Errorf("%+v", m)
			}
		}
	}
	f.mu.Unlock()
	w.empty()
	if d := w.q.Depth(hello); d.Pending+d.Running+d.Scheduled != 0 || d.Dead != 1 {
		t.Errorf("%+v", d)
	}
}

// A batch that fails as a whole, or whose answer cannot be understood, leaves nothing for done.
func TestABatchFailsAsAWhole(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]func(w http.ResponseWriter, list []batched){
		"a status":  func(w http.ResponseWriter, _ []batched) { w.WriteHeader(http.StatusServiceUnavailable) },
		"no report": func(w http.ResponseWriter, _ []batched) { _, _ = io.WriteString(w, "fine") },
		"a stranger": func(w http.ResponseWriter, _ []batched) {
			_, _ = io.WriteString(w, `{"failed":[{"id":"inv_x"}]}`)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := &batches{t: t, answer: answer}
			run := newDataPath(t, 0, f)
			run.deploy(hello, func(c *functions.Config) {
				inBatches(3, 0)(c)
				one := 1
				c.Queue.Retries = &one
			})
			w := start(t, t.TempDir(), run, Config{})
			var ids []functions.InvocationID
			for _, body := range []string{"a", "b", "c"} {
				ids = append(ids, w.accept(Request{Body: []byte(body)}))
			}
			run.set(func() { run.free = 1 })
			for _, id := range ids {
				if st := w.ends(id); st.State != functions.StateDead || len(st.Attempts) != 2 {
					t.Errorf("%+v", st)
				}
			}
			of, alone, _ := f.attempts()
			for _, body := range []string{"a", "b", "c"} {
				if !slices.Equal(of[body], []int{1, 2}) || alone[body] < 1 {
					t.Errorf("%s: %v, alone %v", body, of[body], alone)
				}
			}
			w.empty()
		})
	}
}

// The first of a batch waits for others as long as the window says, and not longer than until the batch is full.
func TestABatchWaitsForItsWindow(t *testing.T) {
	t.Parallel()
	f := &batches{t: t}
	run := newDataPath(t, 1, f)
	run.deploy(hello, inBatches(3, time.Minute))
	w := start(t, t.TempDir(), run, Config{})
	var ids []functions.InvocationID
	for _, body := range []string{"a", "b", "c"} {
		ids = append(ids, w.accept(Request{Body: []byte(body), OrderingKey: body}))
	}
	for _, id := range ids {
		if st := w.ends(id); st.State != functions.StateSucceeded {
			t.Errorf("%+v", st)
		}
	}
	if _, _, largest := f.attempts(); largest != 3 {
		t.Errorf("the largest batch had %d", largest)
	}
	// One that is cancelled in its batch is no result; the others are.
	first := w.accept(Request{Body: []byte("d")})
	w.until("it waits for others", func() bool {
		w.q.mu.Lock()
		l := w.q.lanes[hello.Hash()]
		w.q.mu.Unlock()
		l.mu.Lock()
		defer l.mu.Unlock()
		return len(l.gathers) == 1
	})
	go func() { _, _ = w.q.Cancel(t.Context(), first) }()
	w.until("it is cancelled", func() bool {
		w.q.mu.Lock()
		defer w.q.mu.Unlock()
		return w.q.held[first] != nil && w.q.held[first].cancelled
	})
	second, third := w.accept(Request{Body: []byte("e")}), w.accept(Request{Body: []byte("f")})
	for id, want := range map[functions.InvocationID]functions.InvocationState{first: functions.StateCancelled, second: functions.StateSucceeded, third: functions.StateSucceeded} {
		if st := w.ends(id); st.State != want {
			t.Errorf("%+v, want %s", st, want)
		}
	}
	if of, _, _ := f.attempts(); len(of["d"]) != 0 {
		t.Error("what was cancelled before its attempt is attempted")
	}
	// What waits for a batch's others is not lost with the process.
	last := w.accept(Request{Body: []byte("g")})
	w.until("it waits for others", func() bool { _, ok := w.q.inHand(last); return ok })
	w.stop()
	again := newDataPath(t, 1, f)
	again.deploy(hello, nil)
	f.answer = func(http.ResponseWriter, []batched) {}
	w2 := start(t, w.dir, again, Config{})
	if st, err := w2.q.Lookup(t.Context(), last, 30*time.Second); err != nil || !st.State.Terminal() {
		t.Errorf("%+v, %v", st, err)
	}
}

// In the form of events a batch has the events that the invocations were made of, and one for each request that carries none; the function's report
// names invocations as ever.
func TestABatchOfEvents(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	got := map[string][]functions.Event{}
	run := newDataPath(t, 0, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		if r.Header.Get("Content-Type") != cloudevents.TypeBatch {
			t.Errorf("%v", r.Header)
		}
		events, err := cloudevents.DecodeBatch(body)
		if err != nil {
			t.Errorf("%v: %.300s", err, body)
		}
		var failed []map[string]string
		mu.Lock()
		defer mu.Unlock()
		for _, e := range events {
			id := e.Extensions[extensionID]
			got[id] = append(got[id], e)
			if string(e.Data) == "once" && e.Extensions[extensionAttempt] == "1" {
				failed = append(failed, map[string]string{"id": id})
			}
		}
		if err := json.NewEncoder(w).Encode(map[string]any{"failed": failed}); err != nil {
			t.Error(err)
		}
	}))
	run.deploy(hello, func(c *functions.Config) { c.Queue.Batch = functions.Batch{Size: 10, Format: functions.BatchEvents} })
	w := start(t, t.TempDir(), run, Config{})
	binary := http.Header{"Ce-Specversion": {"1.0"}, "Ce-Id": {"7"}, "Ce-Source": {"/shop"}, "Ce-Type": {"order"}, "Ce-Region": {"eu"}, "Content-Type": {"application/json"}}
	ids := []functions.InvocationID{
		w.accept(Request{Header: binary, Body: []byte(`{"n":1}`)}),
		w.accept(Request{Header: http.Header{"Content-Type": {cloudevents.TypeEvent}}, Body: []byte(`{"specversion":"1.0","id":"8","source":"/shop","type":"order","data_base64":"/w=="}`)}),
		w.accept(Request{Header: http.Header{"Content-Type": {"text/plain"}}, Body: []byte("once")}),
		w.accept(Request{}),
	}
	run.set(func() { run.free = 2 })
	for _, id := range ids {
		if st := w.ends(id); st.State != functions.StateSucceeded {
			t.Errorf("%+v", st)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	for i, want := range []functions.Event{
		{ID: "7", Source: "/shop", Type: "order", DataContentType: "application/json", Data: []byte(`{"n":1}`)},
		{ID: "8", Source: "/shop", Type: "order", Data: []byte{0xff}},
		{ID: string(ids[2]), Source: "/functions/hello", Type: requestType, DataContentType: "text/plain", Data: []byte("once")},
		{ID: string(ids[3]), Source: "/functions/hello", Type: requestType},
	} {
		all := got[string(ids[i])]
		tries := 1
		if string(want.Data) == "once" {
			tries = 2
		}
		if len(all) != tries {
			t.Fatalf("%d: %d times, not %d", i, len(all), tries)
		}
		e := all[0]
		if e.ID != want.ID || e.Source != want.Source || e.Type != want.Type || e.DataContentType != want.DataContentType || string(e.Data) != string(want.Data) {
			t.Errorf("%d: %+v", i, e)
		}
		if n := len(all); all[n-1].Extensions[extensionAttempt] != strconv.Itoa(n) {
			t.Errorf("%d: %v", i, all[n-1].Extensions)
		}
	}
	if r := got[string(ids[0])][0].Extensions["region"]; r != "eu" {
		t.Errorf("an extension: %q", r)
	}
}
