package sim_test

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/scheduler/sim"
)

func read(files ...string) (*sim.Trace, error) {
	var readers []io.Reader
	for _, f := range files {
		readers = append(readers, strings.NewReader(f))
	}
	return sim.Read(readers, []string{"one.csv", "two.csv", "three.csv"}[:len(files)])
}

func TestReadJoinsBothFormats(t *testing.T) {
	t.Parallel()
	got, err := read("app,at_ms,run_ms,memory_mib\nb,70000,5,128\na,1,2,64\nb,10,20,256\n", "HashOwner,HashApp,HashFunction,Trigger,1,2\no,x,f,http,2,0\no,x,g,timer,0,1\n")
	if err != nil {
		t.Fatal(err)
	}
	want := &sim.Trace{Length: 4 * time.Minute, Apps: []sim.App{
		{Name: "a", Memory: 64 * functions.MiB, Calls: []sim.Call{{At: 1, Run: 2}}},
		{Name: "b", Memory: 256 * functions.MiB, Calls: []sim.Call{{At: 10, Run: 20}, {At: 70_000, Run: 5}}},
		{Name: "o/x", Memory: 170 * functions.MiB, Calls: []sim.Call{{At: 135_000, Run: 1000}, {At: 165_000, Run: 1000}, {At: 210_000, Run: 1000}}},
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestReadNamesWhatIsWrong(t *testing.T) {
	t.Parallel()
	const own, azure = "app,at_ms,run_ms,memory_mib\n", "HashOwner,HashApp,HashFunction,Trigger,1,2\n"
	for text, want := range map[string]string{
		"":                               "one.csv: no first line",
		"app,at\n":                       "line 1: the columns are neither",
		own:                              "holds no calls",
		own + "a,1,2,64\nb,x,2,64\n":     `line 3: at_ms: "x"`,
		own + "a,-1,2,64\n":              `at_ms: "-1"`,
		own + "a,9999999999999,2,64\n":   "at_ms",
		own + "a,1,99999999999,64\n":     "run_ms",
		own + "a,1,2,0\n":                "memory_mib",
		own + ",1,2,64\n":                "app: the name",
		own + "a,1,2\n":                  "wrong number of fields",
		azure + "o,a,f,http,1,many\n":    `minute 2: "many"`,
		azure + "o,a,f,http,1,900000000": "minute 2",
	} {
		if _, err := read(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, not %q", text, err, want)
		}
	}
}

func TestWriteIsReadAgain(t *testing.T) {
	t.Parallel()
	a := every(10*time.Minute, time.Second, 2*time.Hour)
	var out bytes.Buffer
	if err := sim.Write(&out, &sim.Trace{Length: 2 * time.Hour, Apps: []sim.App{a}}); err != nil {
		t.Fatal(err)
	}
	got, err := read(out.String())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]sim.App{a}, got.Apps); diff != "" {
		t.Errorf("(-written +read):\n%s", diff)
	}
}

func FuzzRead(f *testing.F) {
	f.Add("app,at_ms,run_ms,memory_mib\na,1,2,64\n")
	f.Add("app,at_ms,run_ms,memory_mib\n\"a\nb\",0,0,1\n")
	f.Add("HashOwner,HashApp,HashFunction,Trigger,1,2\no,a,f,http,1,3\n")
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Count(text, "9") > 4 {
			t.Skip("a huge count takes long, and nothing else")
		}
		trace, err := read(text)
		if err != nil {
			return
		}
		for i := range trace.Apps {
			a := &trace.Apps[i]
			for k, c := range a.Calls {
				if time.Duration(c.At)*time.Millisecond > trace.Length || k > 0 && c.At < a.Calls[k-1].At || a.Memory <= 0 {
					t.Fatalf("%q gives %+v of %s", text, a, trace.Length)
				}
			}
		}
	})
}
