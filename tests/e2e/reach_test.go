//go:build e2e

package e2e

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/tests/e2e/harness"
)

// Whatever the platform listens on and keeps, no function gets at it, with egress or without; and one that says too much fills no disk.
func TestPlatformOutOfReach(t *testing.T) {
	w := outsideWorld(t)
	s := harness.Start(t, harness.WithNetwork(w.host), harness.WithFlags("--egress-dns", internetAddr,
		"--public-addr", hostAddr+":8080", "--control-addr", hostAddr+":8081", "--nats-listen", "127.0.0.1:4222", "--sandbox-pool", "4"))
	s.Public = hostAddr + ":8080"
	program := filepath.Join("..", "..", "tests", "escape", "hostile")
	s.Deploy("closed", program, "scale: {min: 1, max: 1}\nenv: {SECRET: of-another}\n")
	s.Deploy("open", program, "scale: {min: 1, max: 1}\negress: internet\n")
	try := func(fn, name string, args url.Values) (errno string) {
		t.Helper()
		resp, body := s.Get("/fn/" + fn + "/try/" + name + "?" + args.Encode())
		var out struct{ Errno string }
		if err := json.Unmarshal([]byte(body), &out); err != nil {
			t.Fatalf("%s %v: %s %s", name, args, resp.Status, body)
		}
		return out.Errno
	}
	if got := try("open", "connect", url.Values{"network": {"tcp"}, "addr": {internetAddr + ":80"}}); got != "" {
		t.Errorf("with egress the internet is not reached: %s", got)
	}

	addrs := listening(t, w)
	if len(addrs) < 3 {
		t.Errorf("the platform listens on no more than %v", addrs)
	}
	for _, addr := range addrs {
		eventually(t, 20*time.Second, addr+" is reached from the node", func() bool { return reaches(w.host, addr) })
		for _, fn := range []string{"closed", "open"} {
			if got := try(fn, "connect", url.Values{"network": {"tcp"}, "addr": {addr}}); !slices.Contains([]string{"ECONNREFUSED", "ENETUNREACH", "EHOSTUNREACH"}, got) {
				t.Errorf("%s: %s: %q", fn, addr, got)
			}
		}
	}

	files, sockets := kept(t, s.DataDir), kept(t, s.RunDir)
	if len(files) < 10 || len(sockets) < 2 {
		t.Errorf("%d files and %d in the directory of what runs", len(files), len(sockets))
	}
	socket := 0
	for _, path := range slices.Concat(files, sockets) {
		attempt, args := "read", url.Values{"path": {path}}
		if info, err := os.Lstat(path); err == nil && info.Mode()&fs.ModeSocket != 0 {
			attempt, args = "connect", url.Values{"network": {"unix"}, "addr": {path}}
			socket++
		}
		for _, fn := range []string{"closed", "open"} {
			if got := try(fn, attempt, args); got != "ENOENT" {
				t.Errorf("%s: %s %s: %q", fn, attempt, path, got)
			}
		}
	}
	if socket == 0 {
		t.Error("no unix socket of the platform was tried")
	}

	const said, most = 200_000_000, 64 << 20
	before := taken(t, s)
	if got := try("closed", "say", url.Values{"n": {strconv.Itoa(said)}}); got != "" {
		t.Errorf("its output is refused: %s", got)
	}
	if grown := taken(t, s) - before; grown > most {
		t.Errorf("%d bytes of output took %d on disk", said, grown)
	}
	if got := try("open", "processes", nil); got != "" {
		t.Errorf("afterwards another function fails: %s", got)
	}
}

// listening are the TCP addresses of the server's network on which somebody listens, as the kernel lists them.
func listening(t *testing.T, w *world) (out []string) {
	t.Helper()
	w.host.Must(func() error {
		f, err := os.Open(fmt.Sprintf("/proc/self/task/%d/net/tcp", syscall.Gettid()))
		if err != nil {
			return err
		}
		defer f.Close()
		const listen = "0A"
		for lines := bufio.NewScanner(f); lines.Scan(); {
			fields := strings.Fields(lines.Text())
			if len(fields) < 4 || fields[3] != listen {
				continue
			}
			addr, port, _ := strings.Cut(fields[1], ":")
			raw, err := hex.DecodeString(addr)
			if err != nil {
				return err
			}
			ip := netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, binary.NativeEndian.Uint32(raw))))
			n, err := strconv.ParseUint(port, 16, 16)
			if err != nil {
				return err
			}
			if ip.IsUnspecified() {
				ip = netip.MustParseAddr(hostAddr)
			}
			out = append(out, net.JoinHostPort(ip.String(), strconv.FormatUint(n, 10)))
		}
		return nil
	})
	return out
}

// kept are the files and sockets of a directory of the server's, but those of the functions' own roots.
func kept(t *testing.T, dir string) (out []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			// What runs comes and goes.
			return nil //nolint:nilerr // said above
		case d.IsDir() && (d.Name() == "snapshots" || d.Name() == "rootfs"):
			return fs.SkipDir
		case d.Type().IsRegular() || d.Type()&fs.ModeSocket != 0:
			out = append(out, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// taken is what the server's directories take on disk.
func taken(t *testing.T, s *harness.Server) (sum int64) {
	t.Helper()
	for _, path := range slices.Concat(kept(t, s.DataDir), kept(t, s.RunDir)) {
		var st syscall.Stat_t
		if syscall.Stat(path, &st) == nil {
			sum += st.Blocks * 512
		}
	}
	return sum
}
