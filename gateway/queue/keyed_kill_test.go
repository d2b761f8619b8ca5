package queue

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/fault"
)

// keyedChild hands invocations over under keys and makes calls under keys, until it is killed. It says each key before it uses it, and
// behind it what it was told.
func keyedChild(dir string) error {
	b, err := bus.Open(context.Background(), bus.Config{DataDir: filepath.Join(dir, "data")}, slog.New(slog.NewTextHandler(os.Stderr, nil)))
	if err != nil {
		return err
	}
	log, err := attemptLog(dir)
	if err != nil {
		return err
	}
	q, err := NewOver(Config{}, b, childDataPath(log), slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	go func() { _ = q.Run(context.Background()) }()
	failed := make(chan error)
	for n := range 8 {
		go func() {
			for i := 0; ; i++ {
				key := fmt.Sprintf("%d-%d-%d", os.Getpid(), n, i)
				if n%2 == 0 {
					fmt.Printf("queue %s\n", key)
					receipt, err := q.Submit(context.Background(), Request{Ref: hello, Path: "/ok", Body: []byte(key), Key: key})
					if err != nil {
						failed <- err
						return
					}
					fmt.Printf("queue %s %s\n", key, receipt.ID)
					continue
				}
				fmt.Printf("call %s\n", key)
				a, err := callUnder(q, key, log)
				if err != nil {
					failed <- err
					return
				}
				fmt.Printf("call %s %s\n", key, a.ID)
			}
		}()
	}
	return <-failed
}

// callUnder makes a call that writes itself down.
func callUnder(q *Queue, key string, log io.Writer) (Answer, error) {
	return q.Once(context.Background(), Request{Ref: hello, Key: key}, func(_ context.Context, c Call) (int, http.Header, Outcome) {
		_, _ = fmt.Fprintln(log, c.ID, 1)
		_, _ = io.WriteString(c.Answer, key)
		return 200, nil, OutcomeAnswered
	})
}

// Between any two steps of an acceptance or a call under a key a kill may come: a repetition finds what was promised, and nothing runs twice
// but what was under way.
func TestAKillBetweenAKeyAndItsInvocation(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	// asked are the keys of each kind, with the id that was told or "".
	asked := map[string]map[string]string{"queue": {}, "call": {}}
	const rounds, enough = 4, 400
	for range rounds {
		killChild(t, dir, enough, func(line string) {
			switch f := strings.Fields(line); len(f) {
			case 2:
				asked[f[0]][f[1]] = ""
			case 3:
				asked[f[0]][f[1]] = f[2]
			}
		}, childKeys+"=1")
	}
	log, err := attemptLog(dir)
	if err != nil {
		t.Fatal(err)
	}
	w := start(t, filepath.Join(dir, "data"), childDataPath(log), Config{})
	ids := map[functions.InvocationID]bool{}
	open := 0
	for key, told := range asked["queue"] {
		receipt := w.submit(Request{Path: "/ok", Body: []byte(key), Key: key})
		if told == "" {
			open++
		} else if string(receipt.ID) != told || !receipt.Replayed {
			t.Errorf("%s was told %s and is %+v now", key, told, receipt)
		}
		if ids[receipt.ID] {
			t.Errorf("two keys have %s", receipt.ID)
		}
		ids[receipt.ID] = true
	}
	for id := range ids {
		if st := w.ends(id); st.State != functions.StateSucceeded {
			t.Errorf("%+v", st)
		}
	}
	w.empty()
	unknown := 0
	for key, told := range asked["call"] {
		a, err := callUnder(w.q, key, log)
		switch {
		case told == "" && fault.Is(err, fault.CodeOutcomeUnknown):
			unknown++
		case err != nil || told != "" && (!a.Replayed || string(a.ID) != told || string(a.Body) != key):
			t.Errorf("%s was told %q and is %+v now, error %v", key, told, a, err)
		}
	}
	if unknown > rounds*4 {
		t.Errorf("of %d calls the outcome is unknown, more than were under way", unknown)
	}
	checkRuns(t, dir, ids, rounds)
	t.Logf("%d queued, %d of them without a word, %d called, %d of them unknown", len(asked["queue"]), open, len(asked["call"]), unknown)
}

// checkRuns counts the runs of each id: calls have one at most, queued ones one, but for those under way at a kill.
func checkRuns(t *testing.T, dir string, queued map[functions.InvocationID]bool, kills int) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, "attempts"))
	if err != nil {
		t.Fatal(err)
	}
	runs := map[string]int{}
	for line := range strings.Lines(string(data)) {
		id, _, _ := strings.Cut(line, " ")
		runs[id]++
	}
	again := 0
	for id, n := range runs {
		if queued[functions.InvocationID(id)] {
			again += n - 1
		} else if n > 1 {
			t.Errorf("%s was called %d times, or queued without a key", id, n)
		}
	}
	if most := kills * 200; again > most {
		t.Errorf("%d attempts were made again, more than were under way", again)
	}
}
