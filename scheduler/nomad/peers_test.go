package nomad_test

import (
	"context"
	"log/slog"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/tatami-faas/tatami/internal/fault"
	"github.com/tatami-faas/tatami/scheduler/nomad"
	"github.com/tatami-faas/tatami/tests/fakenomad"
)

// registerServers registers a job with so many tasks, each of which is an address of a service.
func registerServers(t *testing.T, admin *api.Client, n int) {
	t.Helper()
	task := api.NewTask("server", "raw_exec")
	task.Config = map[string]any{"command": "/bin/sleep", "args": []string{"600"}}
	task.Resources = &api.Resources{CPU: new(int), MemoryMB: new(int)}
	*task.Resources.CPU, *task.Resources.MemoryMB = 100, 100
	task.Identities = []*api.WorkloadIdentity{{Env: true}}
	g := api.NewTaskGroup("server", n).AddTask(task)
	g.Constrain(&api.Constraint{Operand: api.ConstraintDistinctHosts, RTarget: "true"})
	g.Networks = []*api.NetworkResource{{ReservedPorts: []api.Port{{Label: "cluster", Value: 6222}}}}
	g.Services = []*api.Service{{Name: "servers", PortLabel: "cluster", Provider: "nomad"}}
	if _, _, err := admin.Jobs().Register(api.NewServiceJob("servers", "servers", "", 50).AddTaskGroup(g), nil); err != nil {
		t.Fatal(err)
	}
}

// Whoever looks for its peers waits until all of them are registered, and asks at the socket in its task.
func TestPeersAreDiscovered(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := fakenomad.New(fakenomad.Config{Dir: dir, Run: true})
	t.Cleanup(c.Close)
	admin := client(t, c.URL(), fakenomad.Token)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	type answer struct {
		peers []string
		err   error
	}
	found := make(chan answer, 1)
	seeker := client(t, c.URL(), c.Allow(rights...))
	go func() {
		peers, err := nomad.Peers(ctx, seeker, "servers", 3, slog.New(slog.DiscardHandler))
		found <- answer{peers, err}
	}()
	registerServers(t, admin, 2)
	two, err := nomad.Peers(ctx, seeker, "servers", 2, slog.New(slog.DiscardHandler))
	if err != nil || len(two) != 2 {
		t.Fatalf("%v, %v", two, err)
	}
	select {
	case a := <-found:
		t.Fatalf("two were enough: %v, %v", a.peers, a.err)
	default:
	}
	registerServers(t, admin, 3)
	want := []string{"127.0.0.1:6222", "127.0.0.2:6222", "127.0.0.3:6222"}
	if a := <-found; a.err != nil || !slices.Equal(a.peers, want) {
		t.Fatalf("%v, %v", a.peers, a.err)
	}
	sockets, err := filepath.Glob(filepath.Join(dir, "*", "server", "secrets", "api.sock"))
	if err != nil || len(sockets) < 3 {
		t.Fatalf("the tasks have %v: %v", sockets, err)
	}
	// Without its token a task is nobody.
	inside := client(t, "unix://"+sockets[0], "")
	brief, end := context.WithTimeout(ctx, 100*time.Millisecond)
	defer end()
	if _, err := nomad.Peers(brief, inside, "servers", 3, slog.New(slog.DiscardHandler)); !fault.Is(err, fault.CodeDenied) && !fault.Is(err, fault.CodeWaitTimeout) {
		t.Errorf("without a token: %v", err)
	}
	if a, err := nomad.Peers(ctx, client(t, "unix://"+sockets[0], fakenomad.Token), "servers", 3, slog.New(slog.DiscardHandler)); err != nil || !slices.Equal(a, want) {
		t.Errorf("at the task's socket: %v, %v", a, err)
	}
}
