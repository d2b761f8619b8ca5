package standin

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/gateway/api"
	v1 "github.com/tatami-faas/tatami/gateway/api/v1"
	"github.com/tatami-faas/tatami/gateway/problem"
	"github.com/tatami-faas/tatami/gateway/queue"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/fault"
)

// Fixed ids of the stand-in's invocations, of the function hello in the default namespace.
var (
	InvocationID = functions.InvocationID("inv_" + hello().Hash() + strings.Repeat("c", 26))
	DeadID       = functions.InvocationID("inv_" + hello().Hash() + strings.Repeat("d", 26))
)

func hello() functions.Ref {
	return functions.Ref{Namespace: functions.DefaultNamespace, Name: "hello"}
}

// at is the one time that fixed content names.
func at() time.Time { return time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC) }

// Queue has one waiting invocation of hello and one dead letter.
type Queue struct{}

func newQueue() *Queue { return &Queue{} }

// Depths tells of the two.
func (*Queue) Depths() map[functions.Ref]v1.QueueDepth {
	return map[functions.Ref]v1.QueueDepth{hello(): {Pending: 1, Dead: 1, Oldest: at()}}
}

func waiting() v1.InvocationStatus {
	return v1.InvocationStatus{
		ID: InvocationID, Namespace: "default", Function: "hello", State: functions.StateAccepted, Method: "POST", Path: "/", Accepted: at(),
		Attempts: []functions.Attempt{},
	}
}

// List tells of the one that waits.
func (*Queue) List(_ context.Context, ref functions.Ref, state functions.InvocationState, _ int) ([]v1.InvocationStatus, error) {
	if ref != hello() || state != "" && state != functions.StateAccepted {
		return nil, nil
	}
	return []v1.InvocationStatus{waiting()}, nil
}

func letter() functions.DeadLetter {
	return functions.DeadLetter{
		Schema: functions.Schema, Reason: "3 attempts failed", Died: at(),
		Invocation: functions.Invocation{
			Schema: functions.Schema, ID: DeadID, Namespace: "default", Function: "hello", Trigger: "http", Method: "POST", Path: "/",
			Body: []byte("payload"), Accepted: at(), Deadline: at().Add(time.Hour), Attempt: 3,
			History: []functions.Attempt{{Number: 1, Started: at(), Ended: at().Add(time.Second), Status: 500}},
		},
	}
}

// Dead tells of the one that died.
func (*Queue) Dead(_ context.Context, ref functions.Ref, _ int) ([]functions.DeadLetter, error) {
	if ref != hello() {
		return nil, nil
	}
	return []functions.DeadLetter{letter()}, nil
}

// ShowDead shows it.
func (*Queue) ShowDead(_ context.Context, id functions.InvocationID) (functions.DeadLetter, error) {
	if id != DeadID {
		return functions.DeadLetter{}, fault.New(fault.CodeInvocationNotFound, "there is no dead letter %s", id)
	}
	return letter(), nil
}

// Redrive takes the one that died.
func (q *Queue) Redrive(ctx context.Context, id functions.InvocationID, _ functions.RevisionID) (functions.InvocationID, error) {
	_, err := q.ShowDead(ctx, id)
	return InvocationID, err
}

// Replay gives the one that died an answer that differs in each way.
func (q *Queue) Replay(ctx context.Context, id functions.InvocationID, rev functions.RevisionID) (v1.Replayed, error) {
	_, err := q.ShowDead(ctx, id)
	return v1.Replayed{
		Invocation: id, Namespace: "default", Function: "hello", Revision: rev, Differences: []string{"state", "status", "body", "X-Kind"},
		Before: v1.Output{State: functions.StateDead, Status: 500, Reason: "the function answered 500", Body: []byte("one\ntwo\nthree\n")},
		Now:    v1.Output{State: functions.StateSucceeded, Status: 200, Headers: map[string][]string{"X-Kind": {"new"}}, Body: []byte("one\n2\nthree\n")},
	}, err
}

// Ended tells of the one that died.
func (*Queue) Ended(_ context.Context, ref functions.Ref, from, to time.Time, _ int) ([]v1.InvocationStatus, error) {
	if ref != hello() || at().Before(from) || !at().Before(to) {
		return nil, nil
	}
	return []v1.InvocationStatus{{ID: DeadID, Namespace: "default", Function: "hello", State: functions.StateDead, Status: 500, Accepted: at(), Attempts: []functions.Attempt{}}}, nil
}

// PurgeDead says that there was one of hello.
func (*Queue) PurgeDead(_ context.Context, ref functions.Ref, _ int) (int, error) {
	if ref != hello() {
		return 0, nil
	}
	return 1, nil
}

// Cancel cancels the one that waits.
func (q *Queue) Cancel(ctx context.Context, id functions.InvocationID) (v1.InvocationStatus, error) {
	st, err := q.Lookup(ctx, id)
	if err == nil {
		st.State, st.Reason, st.Finished = functions.StateCancelled, "the invocation was cancelled", at()
	}
	return st, err
}

// Lookup knows the one that waits.
func (*Queue) Lookup(_ context.Context, id functions.InvocationID) (v1.InvocationStatus, error) {
	if id != InvocationID {
		return v1.InvocationStatus{}, fault.New(fault.CodeInvocationNotFound, "there is no invocation %s", id)
	}
	return waiting(), nil
}

// logs has three lines; with follow a fourth comes.
type logs struct{}

func (logs) Logs(ctx context.Context, q api.LogQuery, fn func(v1.LogLine) error) error {
	lines := []v1.LogLine{
		{Time: at(), Instance: InstanceID, Stream: "stdout", Text: "listening"},
		{Time: at().Add(time.Second), Instance: InstanceID, Stream: "stderr", Text: "a warning"},
		{Time: at().Add(2 * time.Second), Instance: InstanceID, Stream: "stdout", Text: "GET /"},
	}
	if q.Tail > 0 {
		lines = lines[max(0, len(lines)-q.Tail):]
	}
	for _, l := range lines {
		if l.Time.Before(q.Since) {
			continue
		}
		if err := fn(l); err != nil {
			return err
		}
	}
	if !q.Follow {
		return nil
	}
	if err := fn(v1.LogLine{Time: at().Add(3 * time.Second), Instance: InstanceID, Stream: "stdout", Text: "later"}); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// executor echoes.
type executor struct{}

func (executor) Exec(_ context.Context, id functions.InstanceID, args []string, stdin io.Reader, stdout, stderr io.Writer) (int, error) {
	if id != InstanceID {
		return 0, fault.New(fault.CodeNotFound, "there is no instance %s", id)
	}
	fmt.Fprintln(stdout, strings.Join(args, " "))
	_, _ = io.Copy(stdout, stdin)
	if args[0] == "false" {
		fmt.Fprintln(stderr, "no")
		return 1, nil
	}
	return 0, nil
}

// publicHandler is a public listener. What a function does is told by the first segment of the path below it.
func publicHandler(b *bus.Bus) http.Handler {
	r := chi.NewRouter()
	r.HandleFunc("/fn/{ref}/*", func(w http.ResponseWriter, r *http.Request) {
		ref, err := functions.ParseRef(chi.URLParam(r, "ref"))
		if err == nil {
			_, _, err = b.Functions().Get(r.Context(), bus.FunctionKey(ref))
			if fault.KindOf(err) == fault.NotFound {
				err = fault.New(fault.CodeFunctionNotFound, "there is no function %s", ref).WithHint("tatami fn ls")
			}
		}
		if err != nil {
			problem.Write(w, r, err)
			return
		}
		if r.Header.Get("Prefer") == "respond-async" {
			w.Header().Set("Location", "/invocations/"+string(InvocationID))
			w.WriteHeader(http.StatusAccepted)
			_ = json.NewEncoder(w).Encode(map[string]any{"id": InvocationID})
			return
		}
		call(w, r, ref, chi.URLParam(r, "*"))
	})
	r.Get("/invocations/{id}", func(w http.ResponseWriter, r *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{
			"id": chi.URLParam(r, "id"), "state": "succeeded", "status": 200, "encoding": "utf-8", "body": "queued and done\n",
			"attempts": []functions.Attempt{{Number: 1, Status: 200}},
		})
	})
	return r
}

func call(w http.ResponseWriter, r *http.Request, ref functions.Ref, path string) {
	switch path {
	case "crash":
		problem.Write(w, r, fault.New(fault.CodeFunctionCrashed, "%s exited with code 1", ref).WithHint("tatami logs %s", ref))
	case "slow":
		problem.Write(w, r, fault.New(fault.CodeFunctionTimeout, "%s gave no answer within its timeout of 1s", ref))
	case "full":
		problem.Write(w, r, fault.New(fault.CodeWaitingListFull, "the waiting list of %s is full", ref))
	case "teapot":
		http.Error(w, "short and stout", http.StatusTeapot)
	case "broken":
		w.Header().Set("Content-Length", "100")
		_, _ = io.WriteString(w, "half")
	case "hang":
		<-r.Context().Done()
	default:
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("Server-Timing", "queue;dur=0.1, create;dur=9.5, ready;dur=3.0, run;dur=1.0")
		w.Header().Set("X-Echo", r.Header.Get("X-Echo"))
		fmt.Fprintf(w, "%s /%s?%s %s %s\n", r.Method, path, r.URL.RawQuery, r.Header.Get("Content-Type"), body)
	}
}

// acceptor takes every event of a trigger for the one invocation that waits.
type acceptor struct{}

func (acceptor) AllowQueued(context.Context, functions.Ref) (*functions.Revision, error) {
	return &functions.Revision{}, nil
}

func (acceptor) Lookup(context.Context, functions.InvocationID, time.Duration) (queue.Status, error) {
	return queue.Status{ID: InvocationID, State: functions.StateAccepted}, nil
}

func (acceptor) Cancel(context.Context, functions.InvocationID) (queue.Status, error) {
	return queue.Status{ID: InvocationID, State: functions.StateCancelled}, nil
}

func (acceptor) Accept(context.Context, queue.Request) (functions.InvocationID, error) {
	return InvocationID, nil
}
