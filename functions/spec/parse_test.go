package spec

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/fault"
	"github.com/tatami-faas/tatami/tests/golden"
)

// Every file in testdata/bad is refused with exactly the text in its golden file.
func TestBadFiles(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil || len(files) < 15 {
		t.Fatal(len(files), err)
	}
	for _, path := range files {
		t.Run(filepath.Base(path), func(t *testing.T) {
			t.Parallel()
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			f, err := Parse(FileName, data)
			if err == nil {
				t.Fatalf("accepted: %+v", f)
			}
			e := fault.From(err)
			var all *Error
			if e == nil || e.Code != fault.CodeInvalidSpec || !errors.As(err, &all) {
				t.Fatalf("not a fault with the code invalid-spec: %v", err)
			}
			if e.Hint == "" {
				t.Error("no next step")
			}
			for _, p := range all.Problems {
				if p.Line < 1 || p.Column < 1 || len(p.Snippet()) != 2 {
					t.Errorf("no position: %+v", p)
				}
			}
			text := e.Error() + "\n" + strings.Join(e.Details, "\n") + "\nhint: " + e.Hint + "\n"
			golden.Check(t, strings.TrimSuffix(strings.TrimPrefix(path, "testdata/"), ".yaml")+".golden", []byte(text))
		})
	}
}

func TestFullFile(t *testing.T) {
	t.Parallel()
	f, err := Parse("dir/tatami.yaml", []byte(`
name: hello
namespace: team-a
source: ./bin/hello
command: ["/function", "-v", 3]
port: 9000
protocol: h2c
env:
  A: b
  VERSION: 1.10
  ON: yes
  EMPTY: ""
memory: 1.5Gi
cpu: 0.25
ephemeral: 32MiB
pids: 64
timeout: 1m30s
idleTimeout: 10m
concurrency: 1
scale: {min: 1, max: 30, keepAlive: 3s, keepAliveMax: 2h, freezeAfter: 4s, initial: 2, reserved: 3, burst: 40, utilization: 50, window: 10m, downDelay: 0s}
readiness:
  path: /healthz
  timeout: 5s
queue:
  retries: 0
  maxAge: 1h
  maxPending: 10
  batch: {size: 20, window: 2s}
  onSuccess: {url: "https://example.com/in?a=b", secret: {file: /etc/key}}
  onFailure: {function: report}
readOnlyRoot: true
labels:
  tier: "1"
placement:
  spread: zone
  require: {disk: "ssd, nvme", gpu: ""}
  avoid: {spot: true}
  prefer:
    generation: 7
`))
	if err != nil {
		t.Fatal(err, fault.From(err).Details)
	}
	zero := 0
	want := &File{
		Path: "dir/tatami.yaml", Name: "hello", Namespace: "team-a", Source: "./bin/hello", Handler: ".",
		Config: functions.Config{
			Command: []string{"/function", "-v", "3"}, Port: 9000, Protocol: "h2c", Env: map[string]string{"A": "b", "VERSION": "1.10", "ON": "yes", "EMPTY": ""},
			Limits:  functions.Limits{CPU: 250, Memory: 1536 * functions.MiB, Ephemeral: 32 * functions.MiB, PIDs: 64},
			Timeout: dur(90 * time.Second), IdleTimeout: dur(10 * time.Minute), Concurrency: 1,
			Scale:        functions.Scale{Min: 1, Max: 30, KeepAlive: dur(3 * time.Second), KeepAliveMax: dur(2 * time.Hour), FreezeAfter: dur(4 * time.Second), Initial: 2, Reserved: 3, Burst: 40, Utilization: 50, Window: dur(10 * time.Minute)},
			Readiness:    functions.Readiness{Path: "/healthz", Timeout: dur(5 * time.Second)},
			Queue:        functions.Queue{Retries: &zero, MaxAge: dur(time.Hour), MaxPending: 10, Batch: functions.Batch{Size: 20, Window: dur(2 * time.Second)}, OnSuccess: functions.Destination{URL: "https://example.com/in?a=b", Secret: functions.SecretRef{File: "/etc/key"}}, OnFailure: functions.Destination{Function: "report"}},
			ReadOnlyRoot: true, Labels: map[string]string{"tier": "1"},
			Placement: functions.Placement{
				Spread: "zone", Require: map[string]string{"disk": "ssd, nvme", "gpu": ""}, Avoid: map[string]string{"spot": "true"},
				Prefer: map[string]string{"generation": "7"},
			},
		},
	}
	if diff := cmp.Diff(want, f); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := f.SourcePath(); got != filepath.Join("dir", "bin", "hello") {
		t.Errorf("SourcePath is %s", got)
	}
}

func dur(d time.Duration) functions.Duration { return functions.Duration(d) }

func TestSmallFiles(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		text  string
		judge func(f *File) bool
	}{
		"defaults": {"name: a", func(f *File) bool {
			return cmp.Equal(f, &File{Path: "t", Name: "a", Source: ".", Handler: ".", Config: New("a").Config})
		}},
		"image": {"name: a\nimage: nginx", func(f *File) bool {
			return f.Image == "nginx" && f.Source == "" && f.Handler == "" && f.SourcePath() == ""
		}},
		"handler cleaned": {"name: a\nhandler: ./cmd/../cmd/x/", func(f *File) bool { return f.Handler == "cmd/x" }},
		"crlf":            {"name: a\r\nport: 81\r\n", func(f *File) bool { return f.Config.Port == 81 }},
		"bom":             {"\uFEFFname: a\n", func(f *File) bool { return f.Name == "a" }},
		"empty sections":  {"name: a\nenv:\n  # A: b\nscale:\ncommand:\n", func(f *File) bool { return f.Config.Env == nil && f.Config.Scale.Max == 100 }},
		"hex":             {"name: a\nport: 0x50", func(f *File) bool { return f.Config.Port == 80 }},
		"whole cpu":       {"name: a\ncpu: 2", func(f *File) bool { return f.Config.Limits.CPU == 2000 }},
		"cpu text":        {`{name: a, cpu: "0.5"}`, func(f *File) bool { return f.Config.Limits.CPU == 500 }},
		"max follows min": {"name: a\nscale: {min: 200}", func(f *File) bool { return f.Config.Scale.Max == 200 }},
		"max follows all": {"name: a\nscale: {min: 1, initial: 150, reserved: 120}", func(f *File) bool { return f.Config.Scale.Max == 150 }},
		"utilization":     {"name: a\nscale: {utilization: 70}", func(f *File) bool { return cmp.Equal(f.Config, New("a").Config) }},
		"protocol":        {"name: a\nprotocol: http1", func(f *File) bool { return cmp.Equal(f.Config, New("a").Config) }},
		"explicit end":    {"---\nname: a\n...\n", func(f *File) bool { return f.Name == "a" }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f, err := Parse("t", []byte(c.text))
			if err != nil {
				t.Fatal(err, fault.From(err).Details)
			}
			if !c.judge(f) {
				t.Errorf("got %+v", f)
			}
		})
	}
}

func TestTooLarge(t *testing.T) {
	t.Parallel()
	data := []byte("name: a\n" + strings.Repeat("# filler\n", MaxSize/9+1))
	if _, err := Parse("t", data); !fault.Is(err, fault.CodeInvalidSpec) || !strings.Contains(err.Error(), "262144") {
		t.Errorf("got %v", err)
	}
	path := filepath.Join(t.TempDir(), FileName)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(path); !fault.Is(err, fault.CodeInvalidSpec) {
		t.Errorf("got %v", err)
	}
}

// A file that would grow without bound when its aliases are followed, and one nested as deep as its size allows, end in an error at once.
func TestBombs(t *testing.T) {
	t.Parallel()
	bomb := "a0: &a0 [x,x,x,x,x,x,x,x,x]\n"
	for i := range 9 {
		prev := string(rune('0' + i))
		next := string(rune('1' + i))
		bomb += "a" + next + ": &a" + next + " [*a" + prev + strings.Repeat(",*a"+prev, 8) + "]\n"
	}
	for name, text := range map[string]string{
		"aliases": "name: a\n" + bomb,
		"deep":    "name: a\nenv: " + strings.Repeat("[", 100_000),
		"merge":   "name: a\nenv:\n  <<: {A: b}\n",
		"digits":  "name: a\nmemory: " + strings.Repeat("9", 200_000) + "Gi\n",
		"many":    "name: a\n" + strings.Repeat("? [a]\n: b\n", 5000),
	} {
		began := time.Now()
		_, err := Parse("t", []byte(text))
		if !fault.Is(err, fault.CodeInvalidSpec) {
			t.Errorf("%s: got %v", name, err)
			continue
		}
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("%s took %s", name, took)
		}
		if n := len(strings.Join(fault.From(err).Details, "\n")); n > 64<<10 {
			t.Errorf("%s: the error has %d bytes", name, n)
		}
	}
}

func TestReadOfWhatIsNotThere(t *testing.T) {
	t.Parallel()
	_, err := Read(t.TempDir())
	if f := fault.From(err); f == nil || f.Code != fault.CodeNotFound || f.Hint == "" {
		t.Errorf("got %v", err)
	}
	dir := filepath.Join(t.TempDir(), FileName)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(filepath.Dir(dir)); !fault.Is(err, fault.CodeInvalidSpec) {
		t.Errorf("got %v", err)
	}
}

func FuzzParse(f *testing.F) {
	files, _ := filepath.Glob("testdata/bad/*.yaml")
	for _, path := range files {
		data, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte("name: a\nscale: {min: 1, max: 2}\nmemory: 1.5Gi\nqueue: {retries: 0}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := Parse(FileName, data)
		if err != nil {
			e := fault.From(err)
			if e == nil || e.Code != fault.CodeInvalidSpec || e.Message == "" || e.Hint == "" {
				t.Fatalf("not a proper fault: %v", err)
			}
			if strings.ContainsAny(strings.ReplaceAll(e.Message+strings.Join(e.Details, ""), "\t", ""), "\x1b\x00\x07\r\n") {
				t.Fatalf("control characters in %q", e)
			}
			return
		}
		if problems := file.Config.Problems(); len(problems) > 0 {
			t.Fatalf("accepted with problems: %v", problems)
		}
		if err := file.Ref().Validate(); err != nil {
			t.Fatal(err)
		}
		out, err := Marshal(file)
		if err != nil {
			t.Fatalf("not written back: %v", err)
		}
		again, err := Parse(FileName, out)
		if err != nil {
			t.Fatalf("not read back: %v\n%s", err, out)
		}
		if diff := cmp.Diff(file, again); diff != "" {
			t.Fatalf("changed on the way (-before +after):\n%s\n%s", diff, out)
		}
	})
}
