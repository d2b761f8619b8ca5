package trigger_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	sdk "github.com/cloudevents/sdk-go/v2"
	sdkhttp "github.com/cloudevents/sdk-go/v2/protocol/http"

	"github.com/tatami-faas/tatami/functions"
	v1 "github.com/tatami-faas/tatami/gateway/api/v1"
)

// receiver runs a function of the official SDK: it hands each event on and answers as told. The handler is the way to it.
func receiver(t *testing.T, got chan<- sdk.Event, answer func(sdk.Event) (*sdk.Event, sdk.Result)) http.Handler {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c, err := sdk.NewClientHTTP(sdkhttp.WithListener(l))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- c.StartReceiver(ctx, func(_ context.Context, e sdk.Event) (*sdk.Event, sdk.Result) {
			got <- e
			if answer == nil {
				return nil, nil
			}
			return answer(e)
		})
	}()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("the receiver: %v", err)
		}
	})
	return httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: l.Addr().String()})
}

func sdkClient(t *testing.T, url string) sdk.Client {
	t.Helper()
	c, err := sdk.NewClientHTTP(sdk.WithTarget(url))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func sdkEvent(id string) sdk.Event {
	e := sdk.NewEvent()
	e.SetID(id)
	e.SetSource("/shop/eu")
	e.SetType("com.example.order")
	e.SetSubject("order/7")
	e.SetExtension("tenant", "a")
	_ = e.SetData("application/json", map[string]int{"total": 7})
	return e
}

func named(name string) functions.Ref {
	return functions.Ref{Namespace: functions.DefaultNamespace, Name: name}
}

func eventTrigger(name, function string) functions.Trigger {
	return functions.Trigger{Name: name, Function: function, Event: &functions.EventSource{}}
}

// The official SDK as the sender, in both modes, and as the function: what is sent is what arrives.
func TestSDKAtBothEnds(t *testing.T) {
	t.Parallel()
	w := start(t)
	got := make(chan sdk.Event, 10)
	w.path.deploy("orders", receiver(t, got, nil))
	w.set(eventTrigger("orders", "orders"))
	c := sdkClient(t, w.url+"/events")
	for name, ctx := range map[string]context.Context{"binary": sdk.WithEncodingBinary(t.Context()), "structured": sdk.WithEncodingStructured(t.Context())} {
		sent := sdkEvent(name)
		if res := c.Send(ctx, sent); !sdk.IsACK(res) {
			t.Fatalf("%s: %v", name, res)
		}
		e := mustGet(t, got)
		if e.ID() != name || e.Source() != "/shop/eu" || e.Type() != "com.example.order" || e.Subject() != "order/7" ||
			e.Extensions()["tenant"] != "a" || e.DataContentType() != "application/json" || string(e.Data()) != `{"total":7}` {
			t.Errorf("%s: %s", name, e)
		}
	}
	// What is no event is refused, and the SDK says so.
	bad := sdkEvent("bad")
	bad.SetExtension("tenant", strings.Repeat("a", functions.MaxAttribute+1))
	if res := c.Send(t.Context(), bad); sdk.IsACK(res) {
		t.Error("an event that breaks a bound is accepted")
	}
}

// Each trigger whose filters take the event makes one invocation, of its own function, in its own namespace.
func TestFiltersChooseTheFunctions(t *testing.T) {
	t.Parallel()
	w := start(t)
	all, eu := make(chan sdk.Event, 10), make(chan sdk.Event, 10)
	w.path.deploy("all", receiver(t, all, nil))
	w.path.deploy("eu", receiver(t, eu, nil))
	w.set(eventTrigger("all", "all"))
	one := eventTrigger("eu", "eu")
	one.Filters = []functions.Filter{{Prefix: map[string]string{"source": "/shop/eu"}}, {Not: &functions.Filter{Exact: map[string]string{"tenant": "b"}}}}
	w.set(one)
	paused := eventTrigger("paused", "all")
	paused.Paused = true
	w.set(paused)
	nobody := eventTrigger("nobody", "nobody")
	nobody.Filters = []functions.Filter{{Exact: map[string]string{"id": "lost"}}}
	w.set(nobody)

	send := func(path, body string) []v1.Emitted {
		t.Helper()
		resp, text := w.post(path, http.Header{"Content-Type": {"application/cloudevents-batch+json"}}, strings.NewReader(body))
		var out struct {
			Events      int          `json:"events"`
			Invocations []v1.Emitted `json:"invocations"`
		}
		if err := json.Unmarshal([]byte(text), &out); err != nil || resp.StatusCode != http.StatusAccepted {
			t.Fatalf("%s %s: %v", resp.Status, text, err)
		}
		return out.Invocations
	}
	event := func(id, source, tenant string) string {
		return fmt.Sprintf(`{"specversion":"1.0","id":%q,"source":%q,"type":"t","tenant":%q}`, id, source, tenant)
	}
	out := send("/events", "["+event("1", "/shop/eu/1", "a")+","+event("2", "/shop/eu/1", "b")+","+event("3", "/shop/us", "a")+"]")
	if len(out) != 4 {
		t.Fatalf("%+v", out)
	}
	for _, em := range out {
		if st := w.ended(em.ID); st.State != functions.StateSucceeded || st.Ref.Name != em.Trigger || em.Location != "/invocations/"+string(em.ID) {
			t.Errorf("%+v became %+v", em, st)
		}
	}
	if len(all) != 3 || len(eu) != 1 {
		t.Errorf("%d and %d events", len(all), len(eu))
	}
	if s, _ := w.hub.Status(named("eu")); s.Accepted != 1 || s.Filtered != 2 || s.State != "active" || s.Last.IsZero() {
		t.Errorf("%+v", s)
	}
	// Another namespace has its own triggers: none here. An empty batch is nothing to do.
	if out := send("/events/other", "["+event("1", "/", "a")+"]"); len(out) != 0 {
		t.Errorf("%+v", out)
	}
	if out := send("/events", "[]"); len(out) != 0 {
		t.Errorf("%+v", out)
	}
	// A trigger whose function is gone does not keep the event from the others.
	out = send("/events", "["+event("lost", "/", "a")+"]")
	if len(out) != 2 || out[0].ID == "" || out[1].Error != "function-not-found" || out[1].ID != "" {
		t.Errorf("%+v", out)
	}
	if s, _ := w.hub.Status(named("nobody")); s.State != "failing" || s.Refused != 1 || s.Reason == "" {
		t.Errorf("%+v", s)
	}
}

// Which answers are tried again: 404 is final, 408 and 425 are not.
func TestRetriesOfAnEvent(t *testing.T) {
	t.Parallel()
	w := start(t)
	w.path.deploy("codes", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		code, err := strconv.Atoi(r.Header.Get("Ce-Code"))
		if err != nil {
			t.Error(err)
		}
		rw.WriteHeader(code)
	}))
	w.set(eventTrigger("codes", "codes"))
	for code, tries := range map[int]int{200: 1, 202: 1, 204: 1, 302: 1, 400: 1, 404: 1, 410: 1, 415: 1, 408: 3, 409: 3, 425: 3, 429: 3, 500: 3, 503: 3} {
		h := http.Header{"ce-specversion": {"1.0"}, "ce-id": {strconv.Itoa(code)}, "ce-source": {"/"}, "ce-type": {"t"}, "ce-code": {strconv.Itoa(code)}}
		resp, body := w.post("/events", h, nil)
		var out struct{ Invocations []v1.Emitted }
		if err := json.Unmarshal([]byte(body), &out); err != nil || len(out.Invocations) != 1 {
			t.Fatalf("%s %s", resp.Status, body)
		}
		st := w.ended(out.Invocations[0].ID)
		want := functions.StateSucceeded
		if code >= 400 {
			want = functions.StateDead
		}
		if st.State != want || len(st.Attempts) != tries {
			t.Errorf("%d: %s after %d attempts, want %s after %d", code, st.State, len(st.Attempts), want, tries)
		}
	}
}

// An event that a function answers with is published in its turn, where the trigger wants it and the answer is a 200.
func TestReplies(t *testing.T) {
	t.Parallel()
	w := start(t)
	asked, replies := make(chan sdk.Event, 10), make(chan sdk.Event, 10)
	reply := func(e sdk.Event) (*sdk.Event, sdk.Result) {
		r := sdk.NewEvent()
		r.SetID("re-" + e.ID())
		r.SetSource("/answers")
		r.SetType("answer")
		_ = r.SetData("text/plain", "seen "+e.ID())
		return &r, nil
	}
	w.path.deploy("asked", receiver(t, asked, reply))
	w.path.deploy("replies", receiver(t, replies, nil))
	for name, prefer := range map[string]bool{"with": true, "without": false} {
		tr := eventTrigger(name, "asked")
		tr.Reply, tr.Filters = prefer, []functions.Filter{{Exact: map[string]string{"id": name}}}
		w.set(tr)
	}
	tr := eventTrigger("replies", "replies")
	tr.Filters = []functions.Filter{{Exact: map[string]string{"type": "answer"}}}
	w.set(tr)
	c := sdkClient(t, w.url+"/events")
	for _, id := range []string{"without", "with"} {
		if res := c.Send(t.Context(), sdkEvent(id)); !sdk.IsACK(res) {
			t.Fatal(res)
		}
		mustGet(t, asked)
	}
	e := mustGet(t, replies)
	if e.ID() != "re-with" || e.Type() != "answer" || string(e.Data()) != "seen with" || e.Extensions()["tatamihops"] != "1" {
		t.Errorf("%s", e)
	}
}

// What is not to be taken for a reply: an answer that is no 200, no event, no whole event, or a batch.
func TestAnswersThatAreNoReplies(t *testing.T) {
	t.Parallel()
	w := start(t)
	replies := make(chan sdk.Event, 10)
	w.path.deploy("replies", receiver(t, replies, nil))
	catch := eventTrigger("replies", "replies")
	catch.Filters = []functions.Filter{{Exact: map[string]string{"type": "answer"}}}
	w.set(catch)
	event := map[string]string{"Ce-Specversion": "1.0", "Ce-Id": "r", "Ce-Source": "/", "Ce-Type": "answer"}
	whole := `{"specversion":"1.0","id":"r","source":"/","type":"answer"}`
	answers := []struct {
		status int
		header map[string]string
		body   string
	}{
		{202, event, ""},
		{201, event, ""},
		{200, nil, "plain"},
		{200, map[string]string{"Ce-Id": "r", "Ce-Type": "answer"}, ""},
		{200, map[string]string{"Content-Type": "application/cloudevents+json"}, "{"},
		{200, map[string]string{"Content-Type": "application/cloudevents-batch+json"}, "[" + whole + "]"},
	}
	w.path.deploy("answers", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Prefer") != "reply" || r.Header.Get("Tatami-Trigger") != "answers" {
			t.Errorf("%v", r.Header)
		}
		n, _ := strconv.Atoi(r.Header.Get("Ce-Id"))
		a := answers[n]
		for k, v := range a.header {
			rw.Header().Set(k, v)
		}
		rw.WriteHeader(a.status)
		fmt.Fprint(rw, a.body)
	}))
	tr := eventTrigger("answers", "answers")
	tr.Reply, tr.Filters = true, []functions.Filter{{Exact: map[string]string{"type": "question"}}}
	w.set(tr)
	for n := range answers {
		h := http.Header{"ce-specversion": {"1.0"}, "ce-id": {strconv.Itoa(n)}, "ce-source": {"/"}, "ce-type": {"question"}}
		_, body := w.post("/events", h, nil)
		var out struct{ Invocations []v1.Emitted }
		if err := json.Unmarshal([]byte(body), &out); err != nil || len(out.Invocations) != 1 {
			t.Fatal(body)
		}
		if st := w.ended(out.Invocations[0].ID); st.State != functions.StateSucceeded {
			t.Errorf("%d: %+v", n, st)
		}
	}
	if len(replies) > 0 {
		t.Errorf("%s was taken for a reply", <-replies)
	}
}

// Functions that answer each other without end come to one.
func TestRepliesEnd(t *testing.T) {
	t.Parallel()
	w := start(t)
	var calls atomic.Int64
	type call struct{ hops, inv string }
	last := make(chan call, 100)
	w.path.deploy("echo", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		n := calls.Add(1)
		for k, v := range r.Header {
			if strings.HasPrefix(k, "Ce-") {
				rw.Header()[k] = v
			}
		}
		rw.Header().Set("Ce-Id", fmt.Sprint(n))
		last <- call{r.Header.Get("Ce-Tatamihops"), r.Header.Get("Tatami-Invocation-Id")}
	}))
	tr := eventTrigger("echo", "echo")
	tr.Reply = true
	w.set(tr)
	w.post("/events", http.Header{"ce-specversion": {"1.0"}, "ce-id": {"0"}, "ce-source": {"/"}, "ce-type": {"t"}}, nil)
	for want := range 17 {
		c := mustGet(t, last)
		if n, _ := strconv.Atoi(c.hops); n != want {
			t.Errorf("%q replies led to the event, want %d", c.hops, want)
		}
		// An invocation is over when its answer was looked at.
		w.ended(functions.InvocationID(c.inv))
	}
	if n := calls.Load(); n != 17 {
		t.Errorf("%d calls", n)
	}
}

// The same event, by its source and id, is one invocation at each trigger, whoever sends it again and in whatever form.
func TestEventsAgain(t *testing.T) {
	t.Parallel()
	w := start(t)
	got := make(chan sdk.Event, 10)
	w.path.deploy("orders", receiver(t, got, nil))
	w.set(eventTrigger("one", "orders"))
	w.set(eventTrigger("two", "orders"))
	send := func(body string) []v1.Emitted {
		t.Helper()
		_, text := w.post("/events", http.Header{"Content-Type": {"application/cloudevents+json"}}, strings.NewReader(body))
		var out struct{ Invocations []v1.Emitted }
		if err := json.Unmarshal([]byte(text), &out); err != nil || len(out.Invocations) != 2 {
			t.Fatalf("%s: %v", text, err)
		}
		return out.Invocations
	}
	event := func(id, source, data string) string {
		return fmt.Sprintf(`{"specversion":"1.0","id":%q,"source":%q,"type":"t","data":%s}`, id, source, data)
	}
	first, again := send(event("1", "/a", "1")), send(event("1", "/a", "1"))
	for i := range first {
		if first[i].ID == "" || first[i].ID != again[i].ID {
			t.Errorf("%+v, and again %+v", first[i], again[i])
		}
		w.ended(first[i].ID)
	}
	// Other data under the same name is no other event.
	for _, em := range send(event("1", "/a", "2")) {
		if em.ID != "" || em.Error != "key-mismatch" {
			t.Errorf("%+v", em)
		}
	}
	for _, em := range send(event("1", "/b", "1")) {
		w.ended(em.ID)
	}
	if len(got) != 4 {
		t.Errorf("%d events arrived", len(got))
	}
}

// Triggers are there after a restart.
func TestTriggersOutliveARestart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	w := startIn(t, dir)
	w.set(eventTrigger("orders", "orders"))
	w.stop()
	w = startIn(t, dir)
	got := make(chan sdk.Event, 1)
	w.path.deploy("orders", receiver(t, got, nil))
	if res := sdkClient(t, w.url+"/events").Send(t.Context(), sdkEvent("1")); !sdk.IsACK(res) {
		t.Fatal(res)
	}
	mustGet(t, got)
}
