package spec

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/tatami-faas/tatami/functions"
)

func TestMarshalLeavesDefaultsOut(t *testing.T) {
	t.Parallel()
	f := New("hello")
	out, err := Marshal(f)
	if err != nil || string(out) != "name: hello\n" {
		t.Errorf("got %q, %v", out, err)
	}
	f.Config.Limits.Memory = 256 * functions.MiB
	f.Config.Scale.KeepAlive, f.Config.Scale.KeepAliveMax = functions.Duration(3*time.Second), 0
	out, err = Marshal(f)
	if err != nil || string(out) != "name: hello\nmemory: 256Mi\nscale:\n  keepAlive: 3s\n" {
		t.Errorf("got %q, %v", out, err)
	}
}

// What is written is read back as it was, whatever the values.
func TestMarshalRoundTrip(t *testing.T) {
	t.Parallel()
	name := rapid.StringMatching(`[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?`)
	word := rapid.StringMatching(`[\x20-\x7eäß漢:#'"\\\n\t{}\[\],&*!|>%@-]{0,12}`)
	span := func(t *rapid.T, label string, lo, hi time.Duration) functions.Duration {
		return functions.Duration(rapid.Int64Range(int64(lo/time.Millisecond), int64(hi/time.Millisecond)).Draw(t, label)) * functions.Duration(time.Millisecond)
	}
	rapid.Check(t, func(t *rapid.T) {
		f := New(name.Draw(t, "name"))
		f.Path = "t"
		if rapid.Bool().Draw(t, "namespaced") {
			f.Namespace = name.Draw(t, "namespace")
		}
		if rapid.Bool().Draw(t, "image") {
			f.Image, f.Source, f.Handler = "registry.example/x:1", "", ""
		} else if rapid.Bool().Draw(t, "sourced") {
			f.Source, f.Handler = "./src", "cmd/x"
		}
		c := &f.Config
		c.Env = rapid.MapOfN(rapid.StringMatching(`[A-Z_]{1,6}x`), word, 1, 5).Draw(t, "env")
		c.Labels = rapid.MapOfN(rapid.StringMatching(`[a-z./:? -]{0,8}x`), word, 1, 5).Draw(t, "labels")
		c.Placement.Spread = rapid.SampledFrom([]string{"", "zone", "node"}).Draw(t, "spread")
		c.Placement.Require = rapid.MapOfN(rapid.StringMatching(`[a-z./-]{0,8}x`), rapid.StringMatching(`[ -~]{0,9}`), 1, 5).Draw(t, "require")
		c.Placement.Near = []string{"cache"}
		c.Placement.Apart = rapid.SampledFrom([][]string{{"batch"}, {"batch", "noise"}, {"tier=batch: a", "noise"}}).Draw(t, "apart")
		c.Command = append([]string{"/x"}, rapid.SliceOfN(word, 0, 3).Draw(t, "command")...)
		c.Port = rapid.IntRange(1, 65535).Draw(t, "port")
		c.Limits = functions.Limits{
			CPU: rapid.Int64Range(10, 1_000_000).Draw(t, "cpu"), Memory: rapid.Int64Range(16<<20, 1<<50).Draw(t, "memory"),
			Ephemeral: rapid.Int64Range(1<<20, 1<<50).Draw(t, "ephemeral"), PIDs: rapid.Int64Range(8, 32768).Draw(t, "pids"),
		}
		c.Timeout = span(t, "timeout", time.Millisecond, time.Hour)
		c.Scale.Min = rapid.IntRange(0, 10000).Draw(t, "min")
		c.Scale.Max = rapid.IntRange(max(1, c.Scale.Min), 10000).Draw(t, "max")
		c.Scale.KeepAlive = functions.Duration(rapid.SampledFrom([]time.Duration{time.Second, time.Minute, 24 * time.Hour}).Draw(t, "keepAlive"))
		c.Scale.KeepAliveMax = functions.Duration(rapid.SampledFrom([]time.Duration{0, time.Hour, 24 * time.Hour}).Draw(t, "keepAliveMax"))
		if c.Scale.KeepAliveMax > 0 {
			c.Scale.KeepAlive = min(c.Scale.KeepAlive, c.Scale.KeepAliveMax)
		}
		c.Scale.Initial = rapid.IntRange(0, c.Scale.Max).Draw(t, "initial")
		c.Scale.Reserved = rapid.IntRange(0, c.Scale.Max).Draw(t, "reserved")
		c.Scale.Burst = rapid.IntRange(0, 10000).Draw(t, "burst")
		// 70 is the default, which is kept as 0.
		c.Scale.Utilization = rapid.IntRange(0, 100).Filter(func(n int) bool { return n != 70 }).Draw(t, "utilization")
		c.Scale.Window = rapid.SampledFrom([]functions.Duration{0, functions.Duration(6 * time.Second), functions.Duration(time.Hour)}).Draw(t, "window")
		c.Scale.DownDelay = span(t, "downDelay", 0, time.Hour)
		retries := rapid.IntRange(0, 100).Draw(t, "retries")
		c.Queue.Retries = &retries
		c.Queue.OnSuccess = rapid.SampledFrom([]functions.Destination{
			{}, {Function: "report"}, {Subject: "a.b"}, {URL: "http://a:1/b", Secret: functions.SecretRef{Env: "TATAMI_SECRET_X"}},
		}).Draw(t, "onSuccess")
		c.Queue.KeepRequests = rapid.Bool().Draw(t, "keepRequests")
		c.ReadOnlyRoot = rapid.Bool().Draw(t, "readOnlyRoot")
		if rapid.Bool().Draw(t, "path") {
			c.Readiness.Path = "/healthz?x=1"
		}
		out, err := Marshal(f)
		if err != nil {
			t.Fatal(err)
		}
		again, err := Parse("t", out)
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		if diff := cmp.Diff(f, again); diff != "" {
			t.Fatalf("(-before +after):\n%s\n%s", diff, out)
		}
	})
}
