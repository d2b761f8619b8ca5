//go:build e2e

package e2e

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/tests/e2e/harness"
	"github.com/tatami-faas/tatami/tests/fakenomad"
	"github.com/tatami-faas/tatami/tests/process"
)

// Servers that Nomad starts find each other as a service of it, by the socket in their tasks; and so do the workers find them.
func TestServersInNomad(t *testing.T) {
	harness.Require(t)
	dir, err := os.MkdirTemp("/tmp", "tn") //nolint:usetesting // the test's own directory would be too long for sockets
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Base(dir)
	log, err := os.Create(filepath.Join(dir, "tasks.log"))
	if err != nil {
		t.Fatal(err)
	}
	network := fmt.Sprintf("127.%d.%d.", 1+rand.IntN(254), rand.IntN(255))
	fake := fakenomad.New(fakenomad.Config{Dir: filepath.Join(dir, "nomad"), Run: true, Log: log, Network: network})
	t.Cleanup(func() {
		fake.Close()
		for _, l := range process.AwaitNothingLeft(func() []string {
			return process.Leftovers(dir, "", func(cgroup string) bool { return strings.HasPrefix(cgroup, "tatami-"+name+"-") })
		}) {
			t.Errorf("left behind: %s", l)
		}
		if data, err := os.ReadFile(log.Name()); err == nil && t.Failed() {
			t.Logf("last output of the tasks:\n%s", data[max(0, len(data)-20_000):])
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	t.Setenv("NOMAD_ADDR", fake.URL())
	t.Setenv("NOMAD_TOKEN", fakenomad.Token)
	run := func(runDir string, args ...string) process.Result {
		t.Helper()
		r, err := process.CLI(t.Context(), harness.Binary(t), runDir, "", args...)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	must := func(runDir string, args ...string) {
		t.Helper()
		if r := run(runDir, args...); r.Exit != 0 {
			t.Fatalf("tatami %s ended with %d: %s", args[0], r.Exit, r.Stderr)
		}
	}
	const address = "${attr.unique.network.ip-address}"
	secret := filepath.Join(dir, "secret")
	must(dir, "cluster", "secret", "--out", secret)
	must(dir, "nomad", "apply", "servers", "--cluster-secret", secret, "--binary", harness.Binary(t), "--server-public", address,
		"--server-data-dir", dir+"/s"+address+"/data", "--server-run-dir", dir+"/s"+address+"/run")
	at := func(n int) string { return fmt.Sprintf("%s/s%s%d", dir, network, n) }
	get := func(n int, path string) bool {
		resp, err := http.Get(fmt.Sprintf("http://%s%d:8080%s", network, n, path))
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	}
	for n := 1; n <= 3; n++ {
		eventually(t, time.Minute, fmt.Sprintf("server %d is ready", n), func() bool { return get(n, "/readyz") })
	}
	must(dir, "nomad", "apply", "workers", "--join-token", at(1)+"/data/worker.token", "--binary", harness.Binary(t), "--worker-data-dir", dir+"/w/data",
		"--worker-run-dir", dir+"/w/run", "--worker-listen", address+":0", "--cpu-mhz", "3000", "--memory", "1024", "--max", "1",
		"--worker-flag=--node-name="+name+"-worker", "--worker-flag=--sandbox-pool=0")
	eventually(t, 30*time.Second, "the worker is there", func() bool {
		return strings.Contains(run(at(2)+"/run", "node", "ls").Stdout, "ready")
	})
	must(at(2)+"/run", "deploy", "--name", "found", filepath.Join(harness.Root(t), "functions", "examples", "probe"))
	for n := 1; n <= 3; n++ {
		eventually(t, 30*time.Second, fmt.Sprintf("server %d calls it", n), func() bool { return get(n, "/fn/found/pid") })
	}
}
