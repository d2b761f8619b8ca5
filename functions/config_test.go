package functions_test

import (
	"strings"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/fault"
)

func TestDefaultsAreValid(t *testing.T) {
	t.Parallel()
	c := functions.Config{}.WithDefaults()
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	if again := c.WithDefaults(); again.Port != 8080 || again.Limits != c.Limits || again.Timeout.Std() != time.Minute {
		t.Errorf("defaults change when filled in twice: %+v", again)
	}
	wide := functions.Config{Scale: functions.Scale{Min: 200}}.WithDefaults()
	if wide.Scale.Max != 200 {
		t.Errorf("max %d for min 200", wide.Scale.Max)
	}
}

func TestProblemsNameTheField(t *testing.T) {
	t.Parallel()
	for field, break_ := range map[string]func(*functions.Config){
		"port":               func(c *functions.Config) { c.Port = 70000 },
		"protocol":           func(c *functions.Config) { c.Protocol = "http2" },
		"cpu":                func(c *functions.Config) { c.Limits.CPU = 1 },
		"memory":             func(c *functions.Config) { c.Limits.Memory = 1 << 20 },
		"ephemeral":          func(c *functions.Config) { c.Limits.Ephemeral = -1 },
		"pids":               func(c *functions.Config) { c.Limits.PIDs = 1 },
		"timeout":            func(c *functions.Config) { c.Timeout = functions.Duration(2 * time.Hour) },
		"idleTimeout":        func(c *functions.Config) { c.IdleTimeout = 1 },
		"concurrency":        func(c *functions.Config) { c.Concurrency = 1001 },
		"scale.min":          func(c *functions.Config) { c.Scale.Min, c.Scale.Max = 3, 2 },
		"scale.max":          func(c *functions.Config) { c.Scale.Max = 20000 },
		"scale.initial":      func(c *functions.Config) { c.Scale.Initial = 101 },
		"scale.reserved":     func(c *functions.Config) { c.Scale.Reserved = -1 },
		"scale.burst":        func(c *functions.Config) { c.Scale.Burst = 10_001 },
		"scale.utilization":  func(c *functions.Config) { c.Scale.Utilization = 101 },
		"scale.window":       func(c *functions.Config) { c.Scale.Window = functions.Duration(5 * time.Second) },
		"scale.downDelay":    func(c *functions.Config) { c.Scale.DownDelay = -1 },
		"scale.keepAliveMax": func(c *functions.Config) { c.Scale.KeepAliveMax = functions.Duration(25 * time.Hour) },
		"scale.freezeAfter":  func(c *functions.Config) { c.Scale.FreezeAfter = 1 },
		"scale.awake": func(c *functions.Config) {
			c.Scale.FreezeAfter, c.Scale.Awake = functions.Duration(time.Second), true
		},
		"scale.keepAlive": func(c *functions.Config) { c.Scale.KeepAlive = 1 },
		"readiness.path":  func(c *functions.Config) { c.Readiness.Path = "ready" },
		"readiness.activation": func(c *functions.Config) {
			c.Readiness = functions.Readiness{Path: "/", Activation: true, Timeout: c.Readiness.Timeout}
		},
		"readiness.timeout":  func(c *functions.Config) { c.Readiness.Timeout = 1 },
		"queue.retries":      func(c *functions.Config) { n := 101; c.Queue.Retries = &n },
		"queue.maxAge":       func(c *functions.Config) { c.Queue.MaxAge = 1 },
		"queue.maxPending":   func(c *functions.Config) { c.Queue.MaxPending = -1 },
		"queue.batch.size":   func(c *functions.Config) { c.Queue.Batch.Size = 1 },
		"queue.batch.window": func(c *functions.Config) { c.Queue.Batch.Window = 1 },
		"queue.onSuccess":    func(c *functions.Config) { c.Queue.OnSuccess = functions.Destination{URL: "http://a", Subject: "b"} },
		"queue.callbacks.allow[1]": func(c *functions.Config) {
			c.Queue.Callbacks.Allow = []string{"https://a/b", "https://a/../b"}
		},
		"queue.batch.format": func(c *functions.Config) {
			c.Queue.Batch = functions.Batch{Size: 2, Format: "xml"}
		},
		"queue.callbacks.allow":    func(c *functions.Config) { c.Queue.Callbacks.Allow = make([]string, 17) },
		"queue.callbacks.secret":   func(c *functions.Config) { c.Queue.Callbacks.Secret.File = "/a" },
		"queue.onSuccess.url":      func(c *functions.Config) { c.Queue.OnSuccess.URL = "ftp://a" },
		"queue.onFailure.url":      func(c *functions.Config) { c.Queue.OnFailure.URL = "http://me:word@a/" },
		"queue.onFailure.function": func(c *functions.Config) { c.Queue.OnFailure.Function = "a.b" },
		"queue.onFailure.subject":  func(c *functions.Config) { c.Queue.OnFailure.Subject = "orders.>" },
		"queue.onFailure.secret": func(c *functions.Config) {
			c.Queue.OnFailure = functions.Destination{Subject: "a", Secret: functions.SecretRef{File: "/s"}}
		},
		"queue.onSuccess.secret.file": func(c *functions.Config) {
			c.Queue.OnSuccess = functions.Destination{URL: "http://a", Secret: functions.SecretRef{File: "s"}}
		},
		"env":                   func(c *functions.Config) { c.Env = map[string]string{"A=B": ""} },
		"env.PORT":              func(c *functions.Config) { c.Env = map[string]string{"PORT": "1"} },
		"command":               func(c *functions.Config) { c.Command = []string{""} },
		"placement.near":        func(c *functions.Config) { c.Placement.Near = []string{"a b"} },
		"placement.apart":       func(c *functions.Config) { c.Placement.Near, c.Placement.Apart = []string{"a"}, []string{"b", "a"} },
		"placement.spread":      func(c *functions.Config) { c.Placement.Spread = "rack" },
		"placement.require.a b": func(c *functions.Config) { c.Placement.Require = map[string]string{"a b": ""} },
		"placement.prefer.zone": func(c *functions.Config) { c.Placement.Prefer = map[string]string{"zone": "a\n"} },
		"placement.avoid.disk": func(c *functions.Config) {
			c.Placement = functions.Placement{Require: map[string]string{"disk": "ssd"}, Avoid: map[string]string{"disk": ""}}
		},
		"placement.require": func(c *functions.Config) {
			c.Placement.Require = map[string]string{}
			for _, k := range "abcdefghijklmnopq" {
				c.Placement.Require[string(k)] = ""
			}
		},
		"labels.": func(c *functions.Config) { c.Labels = map[string]string{"": "x"} },
	} {
		c := functions.Config{}.WithDefaults()
		break_(&c)
		problems := c.Problems()
		if len(problems) == 0 {
			t.Errorf("%s: nothing is wrong", field)
			continue
		}
		if problems[0].Field != field || !strings.HasPrefix(problems[0].Message, field) {
			t.Errorf("%s: %q names %q", field, problems[0].Message, problems[0].Field)
		}
		if err := c.Validate(); fault.CodeOf(err) != fault.CodeInvalidSpec {
			t.Errorf("%s: code %s", field, fault.CodeOf(err))
		}
	}
}

func TestValidateTellsAll(t *testing.T) {
	t.Parallel()
	c := functions.Config{Port: -1, Concurrency: -1}.WithDefaults()
	e := fault.From(c.Validate())
	if e == nil || len(e.Details) != 1 {
		t.Fatalf("%+v", e)
	}
}

func TestResources(t *testing.T) {
	t.Parallel()
	l := functions.Limits{CPU: 250, Memory: 100, Ephemeral: 20}
	r := l.Resources()
	if (r != functions.Resources{CPU: 250, Memory: 120, Instances: 1}) {
		t.Errorf("%+v", r)
	}
	free := functions.Resources{CPU: 300, Memory: 120, Instances: 1}
	if !r.Fits(free) || r.Add(r).Fits(free) || free.Sub(r) != (functions.Resources{CPU: 50}) {
		t.Error("arithmetic")
	}
	q := functions.Quota{CPU: 300}
	if q.Exceeded(functions.Resources{}, r) != "" || q.Exceeded(r, r) != "cpu" {
		t.Error("quota")
	}
	if err := (functions.Quota{Namespace: "x", Rate: -2}).Validate(); fault.CodeOf(err) != fault.CodeInvalidRequest {
		t.Error(err)
	}
}

// A keep-alive that is set alone is a fixed time; without any the scheduler chooses within the defaults.
func TestKeepAliveDefaults(t *testing.T) {
	t.Parallel()
	const second, minute, hour = functions.Duration(time.Second), functions.Duration(time.Minute), functions.Duration(time.Hour)
	for _, c := range []struct{ least, most, wantLeast, wantMost functions.Duration }{
		{0, 0, minute, hour},
		{3 * second, 0, 3 * second, 0},
		{2 * hour, 0, 2 * hour, 0},
		{0, 2 * hour, minute, 2 * hour},
		{0, 30 * second, 30 * second, 30 * second},
		{5 * minute, 10 * hour, 5 * minute, 10 * hour},
	} {
		got := functions.Config{Scale: functions.Scale{KeepAlive: c.least, KeepAliveMax: c.most}}.WithDefaults()
		if got.Scale.KeepAlive != c.wantLeast || got.Scale.KeepAliveMax != c.wantMost {
			t.Errorf("%s to %s becomes %s to %s", c.least, c.most, got.Scale.KeepAlive, got.Scale.KeepAliveMax)
		}
		if again := got.WithDefaults(); again.Scale != got.Scale {
			t.Errorf("%s to %s becomes %+v, then %+v", c.least, c.most, got.Scale, again.Scale)
		}
		if err := got.Validate(); err != nil {
			t.Error(err)
		}
	}
}
