package bus

import (
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/google/go-cmp/cmp"

	"github.com/tatami-faas/tatami/functions"
)

// fill sets everything in the value to something else than zero.
func fill(v reflect.Value, n *int) {
	*n++
	switch {
	case v.Type() == timeType:
		v.Set(reflect.ValueOf(time.Date(2026, 1, 2, 3, 4, 5, *n, time.UTC)))
		return
	case v.Type() == durationType:
		v.SetInt(int64(*n) * 1001)
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(fmt.Sprintf("text-%d", *n))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(-int64(*n))
	case reflect.Uint64:
		v.SetUint(uint64(*n))
	case reflect.Float64:
		v.SetFloat(float64(*n) + 0.25)
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i), n)
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), n)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fill(v.Index(0), n)
		fill(v.Index(1), n)
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		for range 3 {
			key, item := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
			fill(key, n)
			fill(item, n)
			v.SetMapIndex(key, item)
		}
	default:
		panic("a kind that is not filled: " + v.Type().String())
	}
}

// leanTypes are the messages of which there are many.
var leanTypes = []reflect.Type{reflect.TypeFor[Report](), reflect.TypeFor[EndpointTable](), reflect.TypeFor[Demand](), reflect.TypeFor[Command]()}

// The messages of which there are many are read and written without the generic coders, whatever is in them, and are what those would have made.
func TestMessagesAreReadAndWrittenLean(t *testing.T) {
	t.Parallel()
	for _, typ := range leanTypes {
		full := reflect.New(typ)
		n := 0
		fill(full.Elem(), &n)
		for name, msg := range map[string]reflect.Value{"full": full, "empty": reflect.New(typ)} {
			want, err := json.Marshal(msg.Interface())
			if err != nil {
				t.Fatal(err)
			}
			got, ok := appendLean(nil, msg.Interface())
			if !ok || string(got) != string(want) {
				t.Errorf("%s, %s: written lean %t\n%s\nwant\n%s", typ, name, ok, got, want)
			}
			if name == "empty" {
				// A list that is there and says null is not read lean: nobody sends one.
				continue
			}
			for way, data := range map[string][]byte{"tight": want, "spread": spread(t, want)} {
				back := reflect.New(typ)
				if !readLean(data, back.Interface()) {
					t.Errorf("%s, %s, %s was not read lean:\n%s", typ, name, way, data)
				} else if diff := cmp.Diff(msg.Interface(), back.Interface()); diff != "" {
					t.Errorf("%s, %s, %s (-want +got):\n%s", typ, name, way, diff)
				}
			}
		}
	}
}

func spread(t *testing.T, data []byte) []byte {
	t.Helper()
	var v json.RawMessage = data
	out, err := json.MarshalIndent(v, " ", "\t")
	if err != nil {
		t.Fatal(err)
	}
	return append(out, " \r\n"...)
}

// What takes an escape or an exponent is written as encoding/json writes it, too, and what cannot be written is not.
func TestUnusualMessagesAreWrittenAsEver(t *testing.T) {
	t.Parallel()
	for _, text := range []string{`it "is"`, `a\b`, "<&>", "1.5µs", "\u2028", "\xff", "\x7f", "\x1f", ""} {
		for _, msg := range []any{
			&Command{Reason: text}, &Demand{Gateway: text, Functions: []FunctionDemand{}}, &Report{State: NodeState{Labels: map[string]string{text: text, "b": "", "a": text}}},
		} {
			leanAsGeneric(t, msg)
		}
	}
	for _, f := range []float64{0, math.Copysign(0, -1), 1e-6, 9e-7, 1e21, 9.99e20, -123456.789, math.MaxFloat64, math.NaN(), math.Inf(-1)} {
		leanAsGeneric(t, &Demand{Functions: []FunctionDemand{{Concurrency: f}}})
	}
	zone := time.FixedZone("", 5*3600+30*60)
	for _, at := range []time.Time{{}, time.Date(2026, 1, 2, 3, 4, 5, 0, zone), time.Date(12026, 1, 2, 3, 4, 5, 0, time.UTC), time.Date(2026, 1, 2, 3, 4, 5, 0, time.FixedZone("", 7))} {
		leanAsGeneric(t, &Command{Asked: at, Deadline: at})
	}
	var p Publisher
	if err := p.Add("a", &Demand{Functions: []FunctionDemand{{Concurrency: math.NaN()}}}); err == nil || len(p.room) > 0 || len(p.added) > 0 {
		t.Errorf("what is not a number was added: %v, %q", err, p.room)
	}
}

// leanAsGeneric fails unless the message is written as encoding/json writes it, where it is.
func leanAsGeneric(t *testing.T, msg any) {
	t.Helper()
	want, err := json.Marshal(msg)
	got, ok := appendLean([]byte("before"), msg)
	if ok && (err != nil || string(got) != "before"+string(want)) {
		t.Errorf("%s, want %s, %v", got, want, err)
	}
}

// FuzzLean: a message that is read lean is what the generic decoder makes of it, and is written as encoding/json writes it.
func FuzzLean(f *testing.F) {
	for _, typ := range leanTypes {
		v := reflect.New(typ)
		n := 0
		fill(v.Elem(), &n)
		data, err := json.Marshal(v.Interface())
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	for _, data := range []string{
		`{"functions":[{"concurrency":-0.50,"waiting":-0,"inFlight":01}]}`, `{"functions":[{"concurrency":1e3}]}`, `{"listener":{"address":"a"},"listener":{"token":"b"}}`, ` {"full" : true , "endpoints" : [ ] } `,
		`{"functions":[{"quiet":"1.5µs","concurrency":1.}]}`, `{"asked":"2026-01-02T03:04:05+01:00","deadline":"2026-01-02T24:00:00Z"}`, `{"sequence":999999999999999999999,"schema":-1}`,
		`{"state":{"labels":{"a":"b","a":"c"},"lacks":{}}}`, `{"state":{"labels":{"a":"b"},"labels":{}}}`, `{"action":"start","revision":{"config":{"queue":{"retries":0}}}}`, `{"functions":[{}]}}`, `{"boot":"\u0041"}`,
		`{"instances":[{"exit":{"code":1},"logs":["a","b"]},{"exit":null}],}`, `{"removed":[{"failed":{}},{"state":"é"}]}`, "{\"boot\":\"\x80\"}", "{\"boot\":\"a\tb\"}", `{"state":{"draining":truefalse}}`,
	} {
		f.Add([]byte(data))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, typ := range leanTypes {
			got, want := reflect.New(typ).Interface(), reflect.New(typ).Interface()
			if err := decode(data, want); readLean(data, got) {
				if diff := cmp.Diff(want, got); err != nil || diff != "" {
					t.Errorf("%q was read lean, by the generic decoder %v (-want +got):\n%s", data, err, diff)
				}
				leanAsGeneric(t, got)
			}
		}
	})
}

// A text that was read before is not kept again, and one that is very long is not remembered.
func TestTextsAreKeptOnce(t *testing.T) {
	t.Parallel()
	l := new(lean)
	long := strings.Repeat("a", knownText+1)
	if first, again := l.string([]byte("nod_a")), l.string([]byte("nod_a")); unsafe.StringData(first) != unsafe.StringData(again) {
		t.Error("a known text was kept anew")
	}
	if got := l.string([]byte(long)); got != long {
		t.Errorf("got %q", got)
	}
	for _, s := range l.known {
		if s != "" && s != "nod_a" {
			t.Errorf("%q is remembered", s)
		}
	}
	for i := range 3 * knownTexts {
		if s := fmt.Sprint(i); l.string([]byte(s)) != s {
			t.Fatalf("%s is taken for another text", s)
		}
	}
}

func BenchmarkMessages(b *testing.B) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 678_900_123, time.UTC)
	head := Envelope{Schema: Schema, Boot: "node-0001", Node: functions.NewNodeID(), Sequence: 1234, Epoch: Epoch}
	size := functions.Resources{CPU: 16000, Memory: 64 << 30, Instances: 500}
	phases := functions.Phases{Place: 1234567, Create: functions.Duration(28 * time.Millisecond), Start: functions.Duration(2 * time.Millisecond), Ready: functions.Duration(10 * time.Millisecond)}
	rev := functions.Revision{
		Schema: functions.Schema, ID: "rev_a", Namespace: "team-07", Function: "fn-00007", Created: at, State: functions.RevisionReady,
		Artifact: functions.Artifact{Digest: "sha256:" + strings.Repeat("0", 64), Name: "./fn", Architecture: "amd64", Size: 4 << 20},
		Config: functions.Config{
			Env: map[string]string{"LOG_LEVEL": "info", "DATABASE_URL": "postgres://db.internal/app"}, Labels: map[string]string{"team": "team-07"},
			Scale: functions.Scale{KeepAlive: functions.Duration(2 * time.Second)},
		}.WithDefaults(),
	}
	inst := functions.NewInstanceID()
	command := head
	command.Instance = inst
	benchMessage(b, &Report{
		Envelope: head, State: NodeState{Name: "node-0001", Architecture: "amd64", Capacity: size, Allocatable: size, CPUUsed: 100, MemoryUsed: 1 << 30, ArtifactsKept: true},
		Instances: []InstanceReport{{
			Instance: inst, Namespace: "team-07", Function: "fn-00007", Revision: "rev_abcdefghijklmnopqrstuvwxyz", State: functions.InstanceReady, Since: at, Started: at, Slots: 10,
			LastUsed: at, Reserved: functions.Resources{CPU: 250, Memory: 192 << 20, Instances: 1}, PID: 4711, Phases: phases,
		}},
	})
	benchMessage(b, &EndpointTable{Envelope: head, Endpoints: []Endpoint{{
		Instance: inst, Node: head.Node, Namespace: "team-07", Function: "fn-00007", Revision: "rev_a", Slots: 10, Started: at, Ready: at, Phases: phases,
	}}})
	benchMessage(b, &Demand{Envelope: head, Gateway: "nod_a", Partial: true, Functions: []FunctionDemand{{Namespace: "team-07", Function: "fn-00007", Waiting: 1, Concurrency: 0.25}}})
	benchMessage(b, &Command{Envelope: command, Action: ActionStart, Revision: &rev, Reason: "1 waiting", Asked: at})
	benchMessage(b, &Command{Envelope: command, Action: ActionStop, Reason: "idle", Asked: at, Quiet: functions.Duration(time.Second)})
}

func benchMessage[T any](b *testing.B, msg *T) {
	data, err := json.Marshal(msg)
	if err != nil {
		b.Fatal(err)
	}
	name := strings.TrimPrefix(reflect.TypeFor[T]().String(), "bus.")
	var room []byte
	for _, way := range []struct {
		name string
		do   func() bool
	}{
		{"read", func() bool { _, err := Read[T](data); return err == nil }},
		{"read-any", func() bool { _, err := readAny[T](data); return err == nil }},
		{"write", func() (ok bool) { room, ok = appendLean(room[:0], msg); return ok }},
		{"write-any", func() bool { _, err := json.Marshal(msg); return err == nil }},
	} {
		b.Run(name+"/"+way.name, func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				if !way.do() {
					b.Fatal("not done")
				}
			}
		})
	}
}
