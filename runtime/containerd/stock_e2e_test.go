//go:build linux && e2e

package containerd

import (
	"bytes"
	"debug/elf"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/runtime/sandbox"
	"github.com/tatami-faas/tatami/runtime/sandboxtest"
)

// entrypoint is what stock images do before they serve: read a file that only root may, give files away, make directories where they like,
// and serve on port 80 as another user.
const entrypoint = `#!/bin/sh
set -e
[ "$(cat /etc/secret)" = sesame ]
mkdir -p /var/lib/site /run/lock
chown -R www:www /var/lib/site /etc/owned
chmod 700 /var/lib/site
echo served > /var/lib/site/index.html
chown www /var/lib/site/index.html
exec httpd -f -p 80 -u www:www -h /var/lib/site
`

// stockImage is an image made of Debian's busybox.
func stockImage(t *testing.T, user string, args ...string) v1.Image {
	t.Helper()
	path, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal("this test needs busybox: apt-get install busybox-static")
	}
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if libs, err := f.ImportedLibraries(); err != nil || len(libs) > 0 {
		t.Fatalf("busybox needs the libraries %v, %v: apt-get install busybox-static", libs, err)
	}
	body, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	entries := []sandboxtest.Entry{
		{Name: "bin/", Mode: 0o755}, {Name: "etc/", Mode: 0o755}, {Name: "root/", Mode: 0o700},
		{Name: "bin/busybox", Body: body, Mode: 0o755},
		{Name: "sbin/", Mode: 0o755}, {Name: "sbin/busybox", Body: body, Mode: 0o4755},
		{Name: "etc/passwd", Body: []byte("root:x:0:0:root:/root:/bin/sh\nwww:x:101:101::/:/bin/sh\n"), Mode: 0o644},
		{Name: "etc/group", Body: []byte("root:x:0:\nwww:x:101:\n"), Mode: 0o644},
		{Name: "etc/secret", Body: []byte("sesame\n"), Mode: 0o600},
		{Name: "etc/owned", Body: []byte("owned\n"), Mode: 0o600},
		{Name: "entrypoint", Body: []byte(entrypoint), Mode: 0o755},
	}
	for _, name := range []string{"sh", "cat", "chown", "chmod", "mkdir", "httpd", "stat", "id", "mount", "umount", "unshare", "chroot", "mknod", "su", "touch", "wget", "grep"} {
		entries = append(entries, sandboxtest.Entry{Name: "bin/" + name, Link: "/bin/busybox"})
	}
	return sandboxtest.Image(t, v1.Config{Entrypoint: args, User: user}, runtime.GOARCH, sandboxtest.Layer(t, entries...))
}

func stockSpec(t *testing.T, d *Driver, blobs sandboxtest.Blobs, img v1.Image) sandbox.Spec {
	t.Helper()
	art := blobs.Put(t, img)
	if _, err := d.Prepare(t.Context(), art); err != nil {
		t.Fatal(err)
	}
	return sandbox.Spec{
		ID: functions.NewInstanceID(), Artifact: art, Port: 80, Env: []string{"PORT=80"},
		Limits: functions.Limits{CPU: 1000, Memory: 64 * functions.MiB, Ephemeral: 16 * functions.MiB, PIDs: 64},
	}
}

// shell runs a command in the sandbox and returns what it wrote.
func shell(t *testing.T, sb sandbox.Sandbox, command string) (string, int) {
	t.Helper()
	var out, errs bytes.Buffer
	code, err := sb.Exec(t.Context(), []string{"/bin/sh", "-c", command}, nil, &out, &errs)
	if err != nil {
		t.Fatalf("%s: %v", command, err)
	}
	return strings.TrimSpace(out.String() + errs.String()), code
}

// Stock images that ask for root, in any way of saying so, run unmodified.
func TestStockImages(t *testing.T) {
	needRoot(t)
	cfg := mappedConfig(t)
	blobs := sandboxtest.Blobs(t.TempDir())
	d := open(t, cfg, blobs)
	defer d.Close()
	for _, user := range []string{"", "root", "0", "root:root"} {
		sb, err := d.Create(t.Context(), stockSpec(t, d, blobs, stockImage(t, user, "/entrypoint")))
		if err != nil {
			t.Fatalf("user %q: %v", user, err)
		}
		awaitServing(t, sb)
		if got, _ := shell(t, sb, "wget -O- http://127.0.0.1/ 2>/tmp/err || cat /tmp/err"); got != "served" {
			t.Errorf("user %q: it serves %q", user, got)
		}
		// Its own copy of the layer's file was given away, and the layer itself is as it was: the next one finds it root's.
		if got, _ := shell(t, sb, "stat -c %U:%a /etc/owned /var/lib/site /etc/secret; echo $HOME"); got != "www:600\nwww:700\nroot:600\n/root" {
			t.Errorf("user %q: %q", user, got)
		}
		if info := sb.Info(); !strings.Contains(info.RunsAs, "root of a user namespace") || info.NotRoot != "" {
			t.Errorf("user %q: %+v", user, info)
		}
		if err := sb.Stop(t.Context(), 0); err != nil {
			t.Error(err)
		}
	}
	// A user by name needs no namespace, and may serve on port 80, too.
	sb, err := d.Create(t.Context(), stockSpec(t, d, blobs, stockImage(t, "www", "/bin/httpd", "-f", "-p", "80", "-h", "/")))
	if err != nil {
		t.Fatal(err)
	}
	awaitServing(t, sb)
	if got, _ := shell(t, sb, "id -u"); got != "101" || sb.Info().RunsAs != "101:101, as the image says" {
		t.Errorf("it runs as %q, %+v", got, sb.Info())
	}
	if err := sb.Stop(t.Context(), 0); err != nil {
		t.Error(err)
	}
	if left := settled(t, cfg); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

// What the root of a user namespace must not be able to do, as itself and by programs with the setuid bit.
func TestMappedRootHolds(t *testing.T) {
	needRoot(t)
	cfg := mappedConfig(t)
	blobs := sandboxtest.Blobs(t.TempDir())
	d := open(t, cfg, blobs)
	defer d.Close()
	spec := stockSpec(t, d, blobs, stockImage(t, "", "/entrypoint"))
	sb, err := d.Create(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sb.Stop(t.Context(), 0) }()
	awaitServing(t, sb)
	for _, command := range []string{
		"mount -t tmpfs none /root", "mount -t proc none /root", "mount --bind / /root", "mount -o remount,rw /proc/sys", "mount -o remount,suid /",
		"umount /etc/hosts", "umount /proc/kcore", "unshare -r true", "unshare -m true", "unshare -n true", "chroot / true",
		"mknod /tmp/null c 1 3", "mknod /tmp/disk b 254 0", "echo 1 > /proc/sys/net/ipv4/ip_forward", "echo x > /proc/sys/kernel/hostname",
		"echo x > /proc/sysrq-trigger", "echo -1000 > /proc/self/oom_score_adj", "cat /proc/kcore", "echo x > /etc/hosts", "chown root /etc/hosts",
		"echo 0 > /proc/self/uid_map", "chown 70000 /etc/owned",
	} {
		if out, code := shell(t, sb, command); code == 0 {
			t.Errorf("%s succeeded: %q", command, out)
		}
	}
	// As another user, a program with the setuid bit stays that user's.
	if out, _ := shell(t, sb, "stat -c %a:%u /sbin/busybox; su www -c '/sbin/busybox id -u'"); out != "4755:0\n101" {
		t.Errorf("a setuid program runs as %q", out)
	}
}

// Without user namespaces an image that needs root ends, and what it is described as says why.
func TestNoUserNamespaces(t *testing.T) {
	needRoot(t)
	cfg := testConfig(t)
	blobs := sandboxtest.Blobs(t.TempDir())
	d := open(t, cfg, blobs)
	defer d.Close()
	sb, err := d.Create(t.Context(), stockSpec(t, d, blobs, stockImage(t, "", "/entrypoint")))
	if err != nil {
		t.Fatal(err)
	}
	<-sb.Done()
	if info := sb.Info(); sb.Exit().Code == 0 || !strings.Contains(info.NotRoot, "--user-namespaces") || !strings.HasPrefix(info.RunsAs, "65532,") {
		t.Errorf("%+v %+v", sb.Exit(), info)
	}
	if err := sb.Stop(t.Context(), 0); err != nil {
		t.Error(err)
	}
}

// Each sandbox has a range of ids of its own, over a restart too.
func TestIDRanges(t *testing.T) {
	t.Parallel()
	var r idRanges
	seen := map[uint32]bool{}
	for range idsRanges {
		base, err := r.take()
		if err != nil || seen[base] || base < firstIDs || base > 0x7ffe_0000-idsEach {
			t.Fatalf("%d, %v", base, err)
		}
		seen[base] = true
	}
	if base, err := r.take(); err == nil {
		t.Errorf("%d was given twice", base)
	}
	r.give(firstIDs)
	if base, err := r.take(); err != nil || base != firstIDs {
		t.Errorf("%d, %v", base, err)
	}
	if base := r.claim(os.Getpid()); base != 0 {
		t.Errorf("this process is said to have the range %d", base)
	}
}
