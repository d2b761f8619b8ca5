//go:build linux && e2e

package containerd

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/contrib/seccomp"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/oci"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/runtime/sandbox"
	"github.com/tatami-faas/tatami/runtime/sandboxtest"
)

// BenchmarkColdStart measures from Create to the first answer, spaced by 100 ms of idle, beside the plain client path of the same
// containerd: a snapshot, a container, a task with the stock shim, its start. Both have limits and seccomp on.
func BenchmarkColdStart(b *testing.B) {
	needRoot(b)
	cfg := testConfig(b)
	blobs := sandboxtest.Blobs(b.TempDir())
	art := blobs.Put(b, sandboxtest.Image(b, v1.Config{Entrypoint: []string{"/testfn"}}, goruntime.GOARCH, sandboxtest.BuildFunction(b)))
	d := open(b, cfg, blobs)
	defer func() { _ = d.Close() }()
	if _, err := d.Prepare(b.Context(), art); err != nil {
		b.Fatal(err)
	}
	spec := func() sandbox.Spec {
		return sandbox.Spec{
			ID: functions.NewInstanceID(), Artifact: art, Env: []string{"PORT=8080"}, Port: 8080,
			Limits: functions.Limits{CPU: 1000, Memory: 128 * functions.MiB, Ephemeral: 16 * functions.MiB, PIDs: 64},
		}
	}
	shim := filepath.Join(b.TempDir(), "containerd-shim-runc-v2")
	build := exec.Command("go", "build", "-ldflags", "-s -w", "-o", shim, "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if msg, err := build.CombinedOutput(); err != nil {
		b.Fatalf("build the stock shim: %v\n%s", err, msg)
	}
	c, err := client.New(cfg.engineSocket(), client.WithDefaultNamespace("plain"))
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	ctx := namespaces.WithNamespace(context.Background(), "plain")

	plain := newPlain(b, d, c, art, shim)
	for _, gap := range []struct {
		name string
		d    time.Duration
	}{{"spaced", 100 * time.Millisecond}, {"backtoback", 0}} {
		b.Run(gap.name, func(b *testing.B) {
			phases := map[string][]time.Duration{}
			add := func(who string, create, start, ready, stop time.Duration) {
				phases[who+"_create"] = append(phases[who+"_create"], create)
				phases[who+"_start"] = append(phases[who+"_start"], start)
				phases[who+"_ready"] = append(phases[who+"_ready"], ready)
				phases[who+"_stop"] = append(phases[who+"_stop"], stop)
				phases[who+"_total"] = append(phases[who+"_total"], create+start+ready)
			}
			// In turns, so that what else runs on the machine meets both alike.
			for b.Loop() {
				time.Sleep(gap.d)
				sb, err := d.Create(b.Context(), spec())
				if err != nil {
					b.Fatal(err)
				}
				made := time.Now()
				firstAnswer(b, sb.Dial)
				ended := time.Now()
				if err := sb.Stop(b.Context(), 0); err != nil {
					b.Fatal(err)
				}
				add("driver", sb.Info().Create, sb.Info().Start, ended.Sub(made), time.Since(ended))
				time.Sleep(gap.d)
				t := plain.once(b, ctx)
				add("client", t[0], t[1], t[2], t[3])
			}
			for name, all := range phases {
				slices.Sort(all)
				b.ReportMetric(float64(all[len(all)/2].Microseconds())/1000, name+"_p50_ms")
			}
			for _, who := range []string{"driver", "client"} {
				all := phases[who+"_total"]
				b.ReportMetric(float64(all[len(all)*99/100].Microseconds())/1000, who+"_total_p99_ms")
			}
		})
	}
}

func firstAnswer(b *testing.B, dial func(context.Context) (net.Conn, error)) {
	b.Helper()
	for {
		conn, err := dial(b.Context())
		if err != nil {
			time.Sleep(500 * time.Microsecond)
			continue
		}
		hc := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(context.Context, string, string) (net.Conn, error) { return conn, nil }}}
		resp, err := hc.Get("http://sandbox/")
		if err != nil {
			b.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		return
	}
}

// plain is the path of a program that uses containerd's client as its documentation shows.
type plain struct {
	d      *Driver
	c      *client.Client
	parent string
	shim   string
}

func newPlain(b *testing.B, d *Driver, c *client.Client, art functions.Artifact, shim string) *plain {
	b.Helper()
	ctx := d.scope(context.Background())
	info, err := d.client.SnapshotService(defaultSnapshotter).Stat(ctx, viewPrefix+art.Digest)
	if err != nil {
		b.Fatal(err)
	}
	return &plain{d, c, info.Parent, shim}
}

func (p *plain) once(b *testing.B, ctx context.Context) [4]time.Duration {
	b.Helper()
	must := func(err error) {
		b.Helper()
		if err != nil {
			b.Fatal(err)
		}
	}
	// The layers lie in the driver's namespace of containerd.
	ctx = namespaces.WithNamespace(ctx, namespace)
	id := "plain-" + string(functions.NewInstanceID())[4:]
	begun := time.Now()
	sn := p.c.SnapshotService(defaultSnapshotter)
	_, err := sn.Prepare(ctx, id, p.parent, snapshots.WithLabels(map[string]string{labelRoot: "true"}))
	must(err)
	limit, quota, period := int64(144<<20), int64(100_000), uint64(100_000)
	container, err := p.c.NewContainer(ctx, id, client.WithSnapshotter(defaultSnapshotter), client.WithSnapshot(id), client.WithNewSpec(
		oci.WithDefaultSpecForPlatform("linux/"+goruntime.GOARCH), oci.WithProcessArgs("/testfn"), oci.WithEnv([]string{"PORT=8080"}), oci.WithRootFSPath("rootfs"),
		oci.WithMemoryLimit(uint64(limit)), oci.WithPidsLimit(64), oci.WithCPUCFS(quota, period), oci.WithUserID(65532), oci.WithCgroup(p.d.cgroup.path(id)),
		seccomp.WithDefaultProfile(),
	))
	must(err)
	task, err := container.NewTask(ctx, cio.NullIO, client.WithRuntimePath(p.shim))
	must(err)
	created := time.Now()
	must(task.Start(ctx))
	started := time.Now()
	holder := p.d.newBox(functions.InstanceID(id), "", 8080)
	must(holder.hold(int(task.Pid())))
	firstAnswer(b, func(ctx context.Context) (net.Conn, error) { return p.d.sockets.dial(ctx, holder.netns, 8080) })
	ready := time.Now()
	holder.release()
	exit, err := task.Wait(ctx)
	must(err)
	must(task.Kill(ctx, 9))
	<-exit
	_, err = task.Delete(ctx)
	must(err)
	must(container.Delete(ctx))
	must(sn.Remove(ctx, id))
	return [4]time.Duration{created.Sub(begun), started.Sub(created), ready.Sub(started), time.Since(ready)}
}
