//go:build e2e

package e2e

import (
	"encoding/pem"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/tests/e2e/harness"
)

// Workers on machines of their own: functions answer from each, streams pass, certificates are replaced under load without a failed request.
// A worker whose network is cut is replaced with no harm to what it was not serving, and stops what is too much when it is back.
func TestWorkersOnOtherMachines(t *testing.T) {
	sw := harness.NewSwitch(t)
	here := sw.Machine(1)
	public, joinAt := harness.MachineAddr(1)+":8080", harness.MachineAddr(1)+":4222"
	s := harness.Start(t, harness.WithNetwork(here), harness.WithFlags("--no-worker", "--nats-listen", joinAt, "--certificate-life", "20s",
		"--public-addr", public, "--control-addr", harness.MachineAddr(1)+":8081"))
	s.Public = public
	f := &fleet{Server: s, t: t, addr: joinAt}
	machines := map[*harness.Worker]*harness.Network{}
	for i := range 3 {
		m := sw.Machine(2 + i)
		w := harness.JoinFrom(t, s, m, joinAt, "--listen", harness.MachineAddr(2+i)+":0", "--grant-cpu", "1", "--grant-memory", "512Mi", "--sandbox-pool", "0")
		f.workers = append(f.workers, w)
		machines[w] = m
	}
	eventually(t, 30*time.Second, "every worker shows", func() bool { return len(f.nodes()) == 3 })
	const want = 6
	f.Deploy("wide", "probe", "cpu: 50m\nmemory: 64Mi\nconcurrency: 1\nscale: {min: 6, max: 6}\nplacement: {spread: node}\n")
	settled := func(what string) {
		t.Helper()
		eventually(t, 60*time.Second, what, func() bool { return total(f.on("wide")) == want && len(instances(t, s, "wide")) == want })
	}
	settled("all instances are ready")
	if on := f.on("wide"); len(on) != 3 {
		t.Fatalf("they are not spread: %v", on)
	}
	f.callAll("wide", want)
	if resp, body := s.Get("/fn/wide/stream?n=3&ms=20"); resp.StatusCode != http.StatusOK || strings.Count(body, "data:") != 3 {
		t.Errorf("%s %q", resp.Status, body)
	}

	first := certificates(t, f.workers)
	tr := f.load("wide", 4)
	tr.after(t, 50)
	eventually(t, 60*time.Second, "every worker's certificate is replaced", func() bool {
		for w, cert := range certificates(t, f.workers) {
			if cert == first[w] {
				return false
			}
		}
		return true
	})
	tr.after(t, 50)
	for _, x := range tr.end() {
		t.Errorf("failed while certificates were replaced: %s", x.what)
	}

	victim, before := f.workers[0], f.on("wide")
	tr = f.load("wide", 4)
	tr.after(t, 50)
	sw.Cut(machines[victim])
	cut := time.Now()
	eventually(t, 60*time.Second, "what was cut off is replaced elsewhere", func() bool {
		on := f.on("wide")
		return on[victim.Name] == 0 && total(on) == want
	})
	t.Logf("%d instances of the worker that was cut off were replaced after %s", before[victim.Name], time.Since(cut).Round(100*time.Millisecond))
	tr.after(t, 50)
	sw.Heal(machines[victim])
	settled("what is too much goes")
	eventually(t, 60*time.Second, "the worker is back", func() bool { return f.nodes()[victim.Name].State == "ready" })
	tr.after(t, 50)
	lost := tr.end()
	for _, x := range lost {
		if x.began.After(cut) {
			t.Errorf("failed although it began after the cut: %s", x.what)
		}
	}
	if len(lost) > before[victim.Name] {
		t.Errorf("%d requests failed, but only %d could run on the worker that was cut off", len(lost), before[victim.Name])
	}
}

// certificates reads what each worker shows now.
func certificates(t *testing.T, workers []*harness.Worker) map[*harness.Worker]string {
	t.Helper()
	out := map[*harness.Worker]string{}
	for _, w := range workers {
		data, err := os.ReadFile(filepath.Join(w.DataDir, "node.pem"))
		if err != nil {
			t.Fatal(err)
		}
		for b, rest := pem.Decode(data); b != nil && out[w] == ""; b, rest = pem.Decode(rest) {
			if b.Type == "CERTIFICATE" {
				out[w] = string(b.Bytes)
			}
		}
	}
	return out
}
