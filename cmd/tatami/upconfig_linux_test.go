package main

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/fault"
)

// load parses a command line of `up` with an environment and a config file, without running anything.
func loadUp(t *testing.T, args []string, env map[string]string, file string) (upConfig, error) {
	t.Helper()
	for k, v := range env {
		t.Setenv(k, v)
	}
	path := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	var cfg upConfig
	cmd := &cobra.Command{Use: "up"}
	cfg.flags(cmd.Flags())
	if err := cmd.ParseFlags(args); err != nil {
		return cfg, err
	}
	if err := applySettings(cmd.Flags(), path, true); err != nil {
		return cfg, err
	}
	return cfg, cfg.validate()
}

func TestPrecedence(t *testing.T) {
	cfg, err := loadUp(t, []string{"--public-addr", "127.0.0.1:1"},
		map[string]string{"TATAMI_PUBLIC_ADDR": "127.0.0.1:2", "TATAMI_DOMAIN": "env.test", "TATAMI_RESERVE_CPU": "0.5"},
		"public-addr: 127.0.0.1:3\ndomain: file.test\nmax-body: 2Mi\nreserve-memory: 1Gi\nkeep-instances: true\n")
	if err != nil {
		t.Fatal(err)
	}
	if cfg.PublicAddr != "127.0.0.1:1" || cfg.Domain != "env.test" || cfg.MaxBody != 2<<20 || cfg.ReserveMemory != 1<<30 || !cfg.KeepInstances || cfg.ReserveCPU != 500 {
		t.Errorf("%+v", cfg)
	}
	if cfg.ControlAddr != "127.0.0.1:8081" || cfg.DataDir != "/var/lib/tatami" {
		t.Errorf("defaults: %+v", cfg)
	}
}

func TestBadSettings(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		file string
		says string
	}{
		"unknown key":         {file: "public-adr: x\n", says: "public-adr"},
		"twice":               {file: "domain: a\ndomain: b\n", says: "domain"},
		"no mapping":          {file: "- a\n", says: "keys and values"},
		"a list of mappings":  {file: "domain: {a: b}\n", says: "plain value"},
		"a size without unit": {file: "max-body: lots\n", says: "max-body"},
		"a name of two lines": {args: []string{"--node-name", "a\nb"}, says: "node-name: \"a\\nb\" is no name of a node"},
		"too much cpu":        {args: []string{"--reserve-cpu", "1000"}, says: "reserve-cpu"},
		"no instances":        {args: []string{"--max-instances", "0"}, says: "max-instances"},
		"a tiny heap":         {args: []string{"--heap-target", "1Mi"}, says: "heap-target"},
		"a negative pool":     {file: "sandbox-pool: -1\n", says: "sandbox-pool"},
		"no data directory":   {args: []string{"--data-dir", ""}, says: "data-dir"},
		"nobody to run it":    {args: []string{"--no-worker"}, says: "no-worker"},
		"nowhere to join":     {args: []string{"--nomad-job", "workers"}, says: "nomad-job"},
		"in no time":          {args: []string{"--nomad-up-after", "1ms"}, says: "nomad-up-after"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := loadUp(t, c.args, nil, c.file)
			if fault.KindOf(err) != fault.Invalid || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestSizeFlags(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]int64{"512": 512, "1Ki": 1 << 10, "64Mi": 64 << 20, "2Gi": 2 << 30} {
		var b bytesValue
		if err := b.Set(in); err != nil || int64(b) != want {
			t.Errorf("%s: %d, %v", in, b, err)
		}
		var again bytesValue
		if err := again.Set(b.String()); err != nil || again != b {
			t.Errorf("%s writes as %q", in, b.String())
		}
	}
	for _, bad := range []string{"", "-1", "1.5Gi", "9999999999Gi", "1G"} {
		if err := new(bytesValue).Set(bad); err == nil {
			t.Errorf("%q is a size", bad)
		}
	}
	for in, want := range map[string]int64{"250m": 250, "0.5": 500, "2": 2000} {
		var m milliValue
		if err := m.Set(in); err != nil || int64(m) != want {
			t.Errorf("%s: %d, %v", in, m, err)
		}
	}
}

func TestWorkerSettings(t *testing.T) {
	t.Parallel()
	good := []string{"--join", "nats://127.0.0.1:4222", "--token-file", "/token"}
	for name, c := range map[string]struct {
		args []string
		says string
	}{
		"good":              {args: good},
		"no server":         {args: good[2:], says: "join"},
		"no token":          {args: good[:2], says: "token-file"},
		"a network":         {args: append([]string{"--join", "nats://192.0.2.1:4222"}, good[2:]...)},
		"another scheme":    {args: append([]string{"--join", "tls://127.0.0.1:4222"}, good[2:]...), says: "join"},
		"nowhere to listen": {args: append([]string{"--listen", ""}, good...), says: "listen"},
		"no instances":      {args: append([]string{"--max-instances", "0"}, good...), says: "max-instances"},
	} {
		var cfg workerConfig
		cmd := &cobra.Command{Use: "worker"}
		cfg.flags(cmd.Flags())
		if err := cmd.ParseFlags(c.args); err != nil {
			t.Fatal(err)
		}
		err := cfg.validate()
		if c.says == "" && err != nil || c.says != "" && (fault.KindOf(err) != fault.Invalid || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%s: %v", name, err)
		}
		if cfg.DataDir == upPlaces.data || cfg.RunDir == upPlaces.run {
			t.Errorf("a worker's directories are the server's: %s, %s", cfg.DataDir, cfg.RunDir)
		}
	}
}

// A worker that only its own machine reaches is told so where a server is on another one.
func TestWorkersThatServersDoNotReach(t *testing.T) {
	t.Parallel()
	own := []net.Addr{&net.IPNet{IP: net.IPv4(10, 0, 0, 2), Mask: net.CIDRMask(24, 32)}}
	for _, c := range []struct{ join, listen, want string }{
		{"nats://127.0.0.1:4222", "127.0.0.1:0", ""},
		{"nats://10.0.0.2:4222", "127.0.0.1:0", ""},
		{"nats://10.0.0.1:4222", "127.0.0.1:0", "10.0.0.1:4222"},
		{"nats://10.0.0.2:4222,10.0.0.3:4222", "localhost:7000", "10.0.0.3:4222"},
		{"nats://10.0.0.1:4222", "10.0.0.2:7000", ""},
		{"nats://10.0.0.1:4222", "0.0.0.0:7000", ""},
		{"nats://server:4222", "127.0.0.1:0", ""},
	} {
		cfg := workerConfig{Join: c.join, Listen: c.listen}
		if got := cfg.unreachable(own); got != c.want {
			t.Errorf("%+v: %q", c, got)
		}
	}
	if listenText("nats://127.0.0.1:4222") != "" || listenText("nats://127.0.0.1:4222,nats://10.0.0.1:4222") == "" {
		t.Error("a worker is told to listen where it need not, or not where it must")
	}
}

// A server says what it lacks in the order in which it is asked for, each with an example.
func TestServerSettings(t *testing.T) {
	t.Parallel()
	var args []string
	for _, next := range [][]string{
		{"cluster", "prod"}, {"peers", "127.0.0.1:6222,127.0.0.2:6222,127.0.0.3:6222"}, {"cluster-listen", "127.0.0.1:6222"}, {"relay-listen", "127.0.0.1:6223"},
		{"nats-listen", "127.0.0.1:4222"}, {},
	} {
		var cfg serverConfig
		cmd := &cobra.Command{Use: "server"}
		if err := cfg.flags(cmd.Flags()); err != nil {
			t.Fatal(err)
		}
		if err := cmd.ParseFlags(args); err != nil {
			t.Fatal(err)
		}
		err := cfg.validate()
		if len(next) == 0 {
			if err != nil {
				t.Errorf("with all of it: %v", err)
			}
			break
		}
		if f := fault.From(err); f == nil || f.Code != fault.CodeInvalidRequest || f.Field != next[0] || !strings.Contains(f.Hint, "--"+next[0]+" ") {
			t.Errorf("without --%s: %+v", next[0], f)
		}
		args = append(args, "--"+next[0], next[1])
	}
}

// Workers of one machine that have one name have cgroups of their own.
func TestCgroupsOfOneMachine(t *testing.T) {
	t.Parallel()
	a, b := functions.NewNodeID(), functions.NewNodeID()
	names := map[string]bool{cgroupName("h.example"): true, workerCgroup("h.example", a): true, workerCgroup("h.example", b): true}
	if len(names) != 3 || !names["tatami-h-example"] {
		t.Errorf("%v", names)
	}
}
