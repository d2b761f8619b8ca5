//go:build linux && e2e

package containerd

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	goruntime "runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/fault"
	"github.com/tatami-faas/tatami/runtime/sandbox"
	"github.com/tatami-faas/tatami/runtime/sandboxtest"
)

// TestAttachViews: a function cannot tell, nor anybody who looks at it, whether its sandbox was made ahead.
func TestAttachViews(t *testing.T) {
	attachViews(t, testConfig(t), "plain", "user", "read-only")
}

// TestAttachViewsMapped: nor the root of a user namespace.
func TestAttachViewsMapped(t *testing.T) {
	attachViews(t, mappedConfig(t), "plain", "root")
}

func attachViews(t *testing.T, cfg Config, names ...string) {
	cfg.SandboxPool = 1
	views(t, cfg, names, func(t *testing.T, d *Driver, spec sandbox.Spec) {
		d.poolFor(spec).await(t, 1)
		attached := view(t, d, spec, pathAttach)
		defer emptied(d)()
		alike(t, view(t, d, spec, pathContainerd), attached)
	})
}

// alike compares what is seen of a sandbox that the OCI runtime made at the start with what is seen of one made ahead.
func alike(t *testing.T, made, ahead map[string]string) {
	t.Helper()
	if diff := cmp.Diff(made, ahead); diff != "" {
		t.Errorf("made at the start (-), ahead (+):\n%s", diff)
	}
}

func precreatedViews(t *testing.T, cfg Config, names ...string) {
	cfg.Precreated = 1
	views(t, cfg, names, func(t *testing.T, d *Driver, spec sandbox.Spec) {
		d.precreated.drain()
		made := view(t, d, spec, pathContainerd)
		d.precreated.open()
		d.precreated.expect(t, instanced(spec))
		alike(t, made, view(t, d, spec, pathPrecreated))
	})
}

// views has several sandboxes compared.
func views(t *testing.T, cfg Config, names []string, compare func(*testing.T, *Driver, sandbox.Spec)) {
	needInit(t)
	blobs := sandboxtest.Blobs(t.TempDir())
	// What whoever started this process has left open.
	stray, err := unix.Open(strayFile(t, cfg), unix.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(stray)
	d := open(t, cfg, blobs)
	defer func() { _ = d.Close() }()

	fn := sandboxtest.BuildFunction(t)
	image := func(c v1.Config, entries ...sandboxtest.Entry) functions.Artifact {
		return blobs.Put(t, sandboxtest.Image(t, c, goruntime.GOARCH, fn, sandboxtest.Layer(t, entries...)))
	}
	full := []sandboxtest.Entry{
		{Name: "etc/", Mode: 0o750}, {Name: "etc/hosts", Body: []byte("of the image"), Mode: 0o600}, {Name: "etc/passwd", Mode: 0o644,
			Body: []byte("root:x:0:0::/:/bin/sh\nworker:x:1234:1235::/home/worker:/bin/sh\n")},
		{Name: "etc/group", Body: []byte("staff:x:77:worker\nmore:x:78:worker\n"), Mode: 0o644},
		{Name: "tmp/", Mode: 0o700}, {Name: "proc/", Mode: 0o500}, {Name: "dev/", Mode: 0o755}, {Name: "sys/", Mode: 0o700}, {Name: "sys/file", Mode: 0o644},
		{Name: "bin/", Mode: 0o755}, {Name: "bin/fn", Link: "/testfn", Mode: 0o777},
		{Name: "loop", Link: "..", Mode: 0o777},
	}
	plainSpec := testSpec(image(v1.Config{Entrypoint: []string{"/testfn"}}, sandboxtest.Entry{Name: "x", Mode: 0o644}))
	user := testSpec(image(v1.Config{Entrypoint: []string{"fn"}, User: "worker", WorkingDir: "/loop/made/here", Env: []string{"PATH=/nowhere:/bin"}}, full...))
	root := testSpec(image(v1.Config{Entrypoint: []string{"fn"}, WorkingDir: "/loop/made/here", Env: []string{"PATH=/nowhere:/bin"}}, full...))
	readOnly := testSpec(image(v1.Config{Entrypoint: []string{"/testfn"}, User: "4321:5", WorkingDir: "/srv/made"}, full...))
	readOnly.ReadOnlyRoot = true
	readOnly.Hostname = "other"
	readOnly.Limits.CPU, readOnly.Limits.PIDs = 250, 1000

	guarded := user
	guarded.GVisor = true

	all := map[string]sandbox.Spec{"plain": plainSpec, "user": user, "root": root, "read-only": readOnly, "gvisor": guarded}
	for _, name := range names {
		spec := all[name]
		t.Run(name, func(t *testing.T) {
			if _, err := d.Prepare(t.Context(), spec.Artifact); err != nil {
				t.Fatal(err)
			}
			compare(t, d, spec)
		})
	}
}

// view is all that can be seen of a sandbox, with what two sandboxes always differ in left out.
func view(t *testing.T, d *Driver, spec sandbox.Spec, path string) map[string]string {
	t.Helper()
	spec = instanced(spec)
	sb, err := d.Create(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := sb.Stop(context.Background(), 0); err != nil {
			t.Error(err)
		}
	}()
	if got := sb.Info().StartPath; got != path {
		t.Fatalf("started by the path %s: %s", got, sb.Info().PathReason)
	}
	awaitServing(t, sb)
	b, ok := sb.(*box)
	if !ok {
		t.Fatalf("%T", sb)
	}
	// What the start had more of the processors than the limit is no difference of the two paths.
	b.endBoost()
	clean := cleaner(b)
	out := map[string]string{}
	for _, file := range []string{
		"/proc/self/status", "/proc/self/mountinfo", "/proc/self/limits", "/proc/self/cgroup", "/proc/self/oom_score_adj", "/proc/self/uid_map",
		"/proc/self/coredump_filter", "/proc/1/cmdline", "/proc/1/comm", "/proc/sys/net/ipv4/ip_unprivileged_port_start", "/proc/sys/kernel/hostname",
		"/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/proc/self/attr/current",
	} {
		out[file] = clean(file, ask(t, sb, "/read", "path", file))
	}
	out["sees"] = clean("sees", ask(t, sb, "/sees"))
	for fd := range 3 {
		out[fmt.Sprint("fd ", fd)] = clean("fd", ask(t, sb, "/link", "path", "/proc/self/fd/"+strconv.Itoa(fd)))
	}
	// The output can be opened again.
	out["stdout again"] = ask(t, sb, "/write", "path", "/dev/stdout", "bytes", "10")
	for _, file := range []string{"/proc/self/status", "/proc/self/limits", "/proc/self/environ", "/proc/self/cgroup", "/proc/self/mountinfo"} {
		if spec.GVisor && file == "/proc/self/limits" {
			// Its kernel has none to show.
			continue
		}
		var stdout, stderr bytes.Buffer
		if code, err := sb.Exec(t.Context(), []string{"/testfn", "read", file}, nil, &stdout, &stderr); err != nil || code != 0 {
			t.Errorf("exec: %d, %v, %s", code, err, &stderr)
		}
		out["exec "+file] = clean("exec "+file, stdout.String())
	}
	outside(t, b, out)
	if spec.GVisor {
		unordered(t, out)
	}
	return out
}

// unordered takes out of a view of a sandbox of gVisor's what its runtime does in no order: it numbers its own files, and sorts the environment.
func unordered(t *testing.T, out map[string]string) {
	t.Helper()
	numbers := regexp.MustCompile(`host:\[\d+\]`)
	for fd := range 3 {
		name := fmt.Sprint("fd ", fd)
		out[name] = numbers.ReplaceAllString(out[name], "host")
	}
	var sees map[string]any
	if err := json.Unmarshal([]byte(out["sees"]), &sees); err != nil {
		t.Fatal(err)
	}
	env := strings.Fields(strings.Trim(fmt.Sprint(sees["Env"]), "[]"))
	slices.Sort(env)
	sees["Env"] = env
	out["sees"] = fmt.Sprint(sees)
	env = strings.Split(out["exec /proc/self/environ"], "\x00")
	slices.Sort(env)
	out["exec /proc/self/environ"] = strings.Join(env, "\n")
}

// instanced is the specification of a new instance, which its environment names.
func instanced(spec sandbox.Spec) sandbox.Spec {
	spec.ID = functions.NewInstanceID()
	spec.Env = append(slices.Clip(spec.Env), "INSTANCE="+string(spec.ID))
	return spec
}

// strayFile is a file that no function is to have.
func strayFile(t *testing.T, cfg Config) string {
	t.Helper()
	path := filepath.Join(filepath.Dir(cfg.RunDir), "stray")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// outside is what the node sees of the sandbox.
func outside(t *testing.T, b *box, out map[string]string) {
	t.Helper()
	for file, controller := range map[string]string{
		"memory.limit_in_bytes": "memory", "memory.memsw.limit_in_bytes": "memory", "cpu.shares": "cpu", "cpu.cfs_quota_us": "cpu",
		"cpu.cfs_period_us": "cpu", "pids.max": "pids", "devices.list": "devices", "memory.max": "", "memory.swap.max": "", "cpu.max": "", "cpu.weight": "",
	} {
		raw, err := os.ReadFile(filepath.Join(b.d.cgroup.dir(controller, b.sid), file))
		if err == nil {
			// The order is no matter, and older OCI runtimes allow a network device that nobody can make.
			rules := slices.Sorted(strings.Lines(strings.Replace(string(raw), "c 10:200 rwm\n", "", 1)))
			out["cgroup "+file] = strings.Join(rules, "")
		}
	}
	root := filepath.Join("/proc", strconv.Itoa(b.info.PID), "root") + "/"
	err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := os.Lstat(path)
		if err != nil {
			return err
		}
		name := "/" + strings.TrimPrefix(path, root)
		sys, ok := st.Sys().(*syscall.Stat_t)
		if !ok {
			return fmt.Errorf("%T", st.Sys())
		}
		out["file "+name] = fmt.Sprint(st.Mode(), b.inside(sys.Uid), b.inside(sys.Gid), sys.Rdev)
		if name == "/proc" || name == "/sys" {
			return fs.SkipDir
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	fds := filepath.Join("/proc", strconv.Itoa(b.info.PID), "fd")
	all, err := os.ReadDir(fds)
	if err != nil {
		t.Error(err)
	}
	for _, fd := range all {
		if to, err := os.Readlink(filepath.Join(fds, fd.Name())); err == nil && filepath.Base(to) == "stray" {
			t.Errorf("the function has the file %s", to)
		}
	}
	for fd := range 3 {
		st, err := os.Stat(filepath.Join("/proc", strconv.Itoa(b.info.PID), "fd", strconv.Itoa(fd)))
		if err != nil {
			t.Fatal(err)
		}
		if sys, ok := st.Sys().(*syscall.Stat_t); ok {
			out[fmt.Sprint("owner of fd ", fd)] = fmt.Sprint(st.Mode(), b.inside(sys.Uid), b.inside(sys.Gid))
		}
	}
}

// inside is the number of a user or a group as the sandbox's own user namespace has it; as the node has it for one that is not in it.
func (b *box) inside(id uint32) string {
	if b.ids != 0 && id >= b.ids && id-b.ids < idsEach {
		return fmt.Sprint("inside ", id-b.ids)
	}
	return fmt.Sprint(id)
}

// cleaner takes out of a text what differs between any two sandboxes.
func cleaner(b *box) func(file, text string) string {
	replaced := []string{b.sid, "ID", string(b.info.ID), "ID"}
	if b.ids != 0 {
		replaced = append(replaced, strconv.Itoa(int(b.ids)), "FIRST", strconv.Itoa(int(b.ids+terminals)), "TERMINALS")
	}
	ids := strings.NewReplacer(replaced...)
	pipes := regexp.MustCompile(`pipe:\[\d+\]`)
	// Layers with mapped owners are mounts without a place: overlay shows by which descriptors it was given them.
	layers := regexp.MustCompile(`/proc/self/fd/\d+`)
	peers := regexp.MustCompile(`(master|shared):\d+`)
	return func(file, text string) string {
		if strings.HasSuffix(file, "mountinfo") {
			text = layers.ReplaceAllString(text, "layer")
		}
		text = peers.ReplaceAllString(pipes.ReplaceAllString(ids.Replace(text), "pipe"), "$1")
		var lines []string
		for line := range strings.Lines(text) {
			name, _, _ := strings.Cut(line, ":")
			switch {
			case strings.HasSuffix(file, "mountinfo"):
				f := strings.Fields(line)
				line = strings.Join(f[3:], " ") + "\n"
				// The OCI runtime forgets the two when it makes the root read-only.
				line = strings.Replace(line, "/ / ro,nosuid,nodev,", "/ / ro,", 1)
			case !strings.HasSuffix(file, "status"):
			case strings.HasPrefix(name, "Vm"), strings.HasPrefix(name, "Rss"), strings.Contains(name, "ctxt_switches"),
				name == "Threads", name == "SigQ", name == "Pid", name == "Tgid", name == "NSpid", name == "NStgid", name == "PPid", name == "FDSize", name == "State", strings.HasSuffix(name, "Pnd"),
				// A process started by Exec has what number is free.
				strings.HasPrefix(file, "exec ") && (name == "NSpgid" || name == "NSsid"):
				continue
			}
			lines = append(lines, line)
		}
		if strings.HasSuffix(file, "mountinfo") {
			slices.Sort(lines)
		}
		return strings.Join(lines, "")
	}
}

// ask asks the test function.
func ask(t *testing.T, sb sandbox.Sandbox, path string, args ...string) string {
	t.Helper()
	q := url.Values{}
	for i := 0; i+1 < len(args); i += 2 {
		q.Add(args[i], args[i+1])
	}
	hc := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return sb.Dial(ctx) },
	}}
	resp, err := hc.Get("http://sandbox" + path + "?" + q.Encode())
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// TestAttachRefusals: a command that cannot be run is told in the same words on both paths.
func TestAttachRefusals(t *testing.T) {
	needInit(t)
	cfg := testConfig(t)
	cfg.SandboxPool = 2
	blobs := sandboxtest.Blobs(t.TempDir())
	d := open(t, cfg, blobs)
	defer func() { _ = d.Close() }()
	art := blobs.Put(t, sandboxtest.Image(t, v1.Config{Entrypoint: []string{"/testfn"}, WorkingDir: "/w"}, goruntime.GOARCH, sandboxtest.BuildFunction(t), sandboxtest.Layer(t,
		sandboxtest.Entry{Name: "text", Body: []byte("no program"), Mode: 0o755}, sandboxtest.Entry{Name: "plain", Body: []byte("x"), Mode: 0o644},
		sandboxtest.Entry{Name: "script", Body: []byte("#!/no/shell\n"), Mode: 0o755}, sandboxtest.Entry{Name: "private", Body: []byte("x"), Mode: 0o700},
		sandboxtest.Entry{Name: "loop", Link: "loop", Mode: 0o777}, sandboxtest.Entry{Name: "w/", Mode: 0o755},
	)))
	if _, err := d.Prepare(t.Context(), art); err != nil {
		t.Fatal(err)
	}
	create := func(command string) (sandbox.Sandbox, error) {
		spec := testSpec(art)
		spec.Command = []string{command}
		return d.Create(t.Context(), spec)
	}
	refuse := func(command string) string {
		sb, err := create(command)
		if err == nil {
			t.Errorf("%q runs", command)
			_ = sb.Stop(t.Context(), 0)
			return ""
		}
		return err.Error()
	}
	commands := []string{"/missing", "missing", "/plain", "/private", "/loop", "./missing", "/testfn/below"}
	// The OCI runtime finds out about these too late to tell, and its words for the last depend on its version.
	for command, why := range map[string]string{
		"/text": "exec /text: exec format error", "/script": "exec /script: no such file or directory", "/": `exec: "/": is a directory`,
	} {
		awaitPool(t, d, 1)
		if _, err := create(command); !fault.Is(err, fault.CodeFunctionNotReady) || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: %v", command, err)
		}
	}
	attached := map[string]string{}
	for _, c := range commands {
		awaitPool(t, d, 1)
		before := d.pool.waiting()
		attached[c] = refuse(c)
		if before == 0 {
			t.Error("the pool was empty")
		}
	}
	d.pool.drain()
	made := map[string]string{}
	for _, c := range commands {
		made[c] = refuse(c)
	}
	if diff := cmp.Diff(made, attached); diff != "" {
		t.Errorf("by the OCI runtime (-), attached (+):\n%s", diff)
	}
	if l := settled(t, cfg); len(l) > 0 {
		t.Errorf("left behind: %q", l)
	}
}
