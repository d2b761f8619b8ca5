package queue

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
)

// anyText draws what may stand in a record, odd characters included.
func anyText(t *rapid.T, name string) string {
	return rapid.OneOf(rapid.StringMatching(`[ -~]{0,20}`), rapid.String()).Draw(t, name)
}

func anyTime(t *rapid.T, name string) time.Time {
	at := time.Unix(rapid.Int64Range(-1<<33, 1<<34).Draw(t, name), rapid.Int64Range(0, 999_999_999).Draw(t, name+"-ns")).UTC()
	if rapid.IntRange(0, 9).Draw(t, name+"-zone") == 0 {
		return at.In(time.FixedZone("", 3600))
	}
	return at
}

func anyHeader(t *rapid.T) map[string][]string {
	return rapid.MapOfN(rapid.StringMatching(`[A-Z][a-z<"é]{0,8}`), rapid.SliceOfN(rapid.String(), 0, 2), 0, 4).Draw(t, "header")
}

// What is written by hand is read by encoding/json as what encoding/json itself writes, and the other way round.
func TestRecordsAreThoseOfEncodingJSON(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		inv := functions.Invocation{
			Schema: functions.Schema, ID: functions.InvocationID(anyText(t, "id")), Namespace: anyText(t, "namespace"), Function: anyText(t, "function"), Trigger: anyText(t, "trigger"),
			Method: anyText(t, "method"), Path: anyText(t, "path"), Query: anyText(t, "query"), Header: anyHeader(t), Body: rapid.SliceOf(rapid.Byte()).Draw(t, "body"),
			Accepted: anyTime(t, "accepted"), Deadline: anyTime(t, "deadline"), Attempt: rapid.IntRange(0, 1<<40).Draw(t, "attempt"), OrderingKey: anyText(t, "key"),
		}
		switch rapid.IntRange(0, 8).Draw(t, "odd") {
		case 0:
			inv.History = []functions.Attempt{{Number: 1}}
		case 1:
			inv.Of, inv.Hops = "inv_x", 2
		case 2:
			inv.Revision = "rev_x"
		case 3:
			inv.NotBefore = inv.Accepted
		case 4:
			inv.BodyRef = &functions.BodyRef{Object: "o"}
		case 5:
			inv.RedriveOf = "inv_y"
		case 6:
			inv.Callback = "https://example.com/a"
		}
		mine, err := encodeInvocation(&inv)
		if err != nil {
			t.Fatal(err)
		}
		theirs, err := json.Marshal(&inv)
		if err != nil {
			t.Fatal(err)
		}
		var want, got functions.Invocation
		if err := json.Unmarshal(theirs, &want); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(mine, &got); err != nil {
			t.Fatalf("%v: %s", err, mine)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Fatalf("written (-want +got):\n%s", d)
		}
		for _, data := range [][]byte{mine, theirs} {
			got, err := decodeInvocation(data)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Fatalf("read (-want +got):\n%s", d)
			}
		}
		rec := functions.Result{
			Schema: functions.Schema, ID: inv.ID, Namespace: inv.Namespace, Function: inv.Function, State: functions.StateDead, Reason: anyText(t, "reason"),
			Attempts: []functions.Attempt{{
				Number: 1, Revision: "rev_a", Instance: functions.InstanceID(anyText(t, "instance")), Started: inv.Accepted, Ended: inv.Deadline,
				Status: rapid.SampledFrom([]int{0, 200}).Draw(t, "code"), Error: anyText(t, "error"), Message: anyText(t, "message"), Cold: rapid.Bool().Draw(t, "cold"),
			}},
			Status: rapid.SampledFrom([]int{0, 503}).Draw(t, "status"), Header: inv.Header, Body: inv.Body, Accepted: inv.Accepted, Finished: inv.Deadline,
		}
		if rapid.Bool().Draw(t, "no attempt") {
			rec.Attempts = []functions.Attempt{}
		}
		if mine, err = encodeResult(&rec); err != nil {
			t.Fatal(err)
		}
		if theirs, err = json.Marshal(&rec); err != nil {
			t.Fatal(err)
		}
		var wantRec, gotRec functions.Result
		if err := json.Unmarshal(theirs, &wantRec); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(mine, &gotRec); err != nil {
			t.Fatalf("%v: %s", err, mine)
		}
		if d := cmp.Diff(wantRec, gotRec); d != "" {
			t.Fatalf("result (-want +got):\n%s", d)
		}
	})
}

// What the gateway itself says of where a request came from has quotes, and is read by hand all the same.
func TestUsualRecordsAreReadByHand(t *testing.T) {
	t.Parallel()
	want := functions.Invocation{
		Schema: functions.Schema, ID: "inv_a", Namespace: "default", Function: "hello", Trigger: "http", Method: "POST", Path: "/", Header: map[string][]string{
			"Forwarded": {`for="127.0.0.1:4711";host="a\"`, `"`, `\"\\`}, "If-Match": {`"x"`},
		}, Accepted: time.Unix(1, 5).UTC(), Deadline: time.Unix(2, 0).UTC(), Attempt: 1,
	}
	data, err := encodeInvocation(&want)
	if err != nil {
		t.Fatal(err)
	}
	got, ok := readInvocation(data)
	if d := cmp.Diff(want, got); !ok || d != "" {
		t.Errorf("%v (-want +got):\n%s", ok, d)
	}
	if theirs, err := json.Marshal(&want); err != nil || string(theirs) != string(data) {
		t.Errorf("%v\n%s\n%s", err, theirs, data)
	}
}

// Whatever is read here is what encoding/json reads.
func FuzzReadInvocation(f *testing.F) {
	inv := functions.Invocation{
		Schema: 1, ID: "inv_a", Namespace: "default", Function: "hello", Trigger: "http", Method: "POST", Path: "/", Query: "a=b", Header: map[string][]string{"A": {"b", "c"}},
		Body: []byte("hi"), Accepted: time.Unix(1, 5).UTC(), Deadline: time.Unix(2, 0).UTC(), Attempt: 1, OrderingKey: "k",
	}
	data, err := encodeInvocation(&inv)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(`{"schema":1,"id":"a","id":"b"}`))
	f.Add([]byte(`{"schema":1,"header":{"a":[]},"attempt":007}`))
	f.Add([]byte(`{"schema":1,"body":"aGk"}`))
	f.Add([]byte(`{"schema":1,"id":"a\"\\b","path":"\\u0041"}`))
	f.Add([]byte(`{"schema":2}`))
	f.Add([]byte(`{"schema":1,"accepted":"2026-01-01T00:00:00+00:00"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		got, ok := readInvocation(data)
		if !ok {
			return
		}
		want, err := bus.Decode[functions.Invocation](data)
		if err != nil {
			t.Fatalf("%v: %q", err, data)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Fatalf("%q (-want +got):\n%s", data, d)
		}
	})
}
