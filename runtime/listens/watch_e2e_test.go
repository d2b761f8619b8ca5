//go:build linux && e2e

package listens

import (
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// tree is a cgroup of version 2 that this process is below.
func tree(t *testing.T) string {
	t.Helper()
	for _, dir := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		var st unix.Statfs_t
		if unix.Statfs(dir, &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC {
			return dir
		}
	}
	t.Fatal("this machine has no cgroup of version 2")
	return ""
}

func socket(t *testing.T) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	return fd
}

// patience is how long a moment may take on a machine that is busy.
const patience = 20 * time.Second

func await(t *testing.T, moments <-chan struct{}) {
	t.Helper()
	select {
	case <-moments:
	case <-time.After(patience):
		t.Fatal("nobody is told")
	}
}

// TestWatch: who hears of a namespace is told of each that begins to listen there, over either family, and who has ended that is not.
func TestWatch(t *testing.T) {
	w, err := Open(tree(t))
	if err != nil {
		t.Fatal(err)
	}
	ran := make(chan error, 1)
	go func() { ran <- w.Run() }()
	moments, end, err := w.Hear(socket(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []string{"127.0.0.1:0", "[::1]:0", ":0"} {
		l, err := net.Listen("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		await(t, moments)
		if c, err := net.Dial("tcp", l.Addr().String()); err != nil {
			t.Error(err)
		} else {
			c.Close()
		}
		l.Close()
	}
	end()
	// Others listen on this machine, too.
	for len(moments) > 0 {
		<-moments
	}
	second, end, err := w.Hear(socket(t))
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	await(t, second)
	l.Close()
	end()
	if len(moments) != 0 || len(w.heard) != 0 {
		t.Errorf("what has ended is told %d moments; %d are kept", len(moments), len(w.heard))
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	if err := <-ran; err != nil {
		t.Error(err)
	}
}

// TestNobodyHears: what begins to listen where nobody hears of it gives the reader nothing to do, however often it does.
func TestNobodyHears(t *testing.T) {
	w, err := Open(tree(t))
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	told := func() int {
		before := w.reader.AvailableBytes()
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
		return w.reader.AvailableBytes() - before
	}
	if n := told(); n != 0 {
		t.Errorf("%d bytes are told of a namespace that nobody hears of", n)
	}
	_, end, err := w.Hear(socket(t))
	if err != nil {
		t.Fatal(err)
	}
	if told() == 0 {
		t.Error("nothing is told of one that somebody hears of")
	}
	end()
	if n := told(); n != 0 {
		t.Errorf("%d bytes are told of one that nobody hears of any more", n)
	}
}

func TestNoWatch(t *testing.T) {
	if _, err := Open(os.DevNull); err == nil {
		t.Error("a watch over no cgroup")
	}
}
