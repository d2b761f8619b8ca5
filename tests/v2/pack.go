//go:build linux

package main

import (
	"bufio"
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

//go:embed guest.sh
var guest []byte

// modules are what the suites need of the kernel that is not built into it, in the order of loading.
var modules = []string{
	"kernel/fs/overlayfs/overlay.ko", "kernel/drivers/net/veth.ko",
	"kernel/lib/crc16.ko", "kernel/crypto/crc32c_generic.ko", "kernel/fs/mbcache.ko", "kernel/fs/jbd2/jbd2.ko", "kernel/fs/ext4/ext4.ko", "kernel/drivers/block/brd.ko",
}

// pack writes the machine's files as the kernel reads them: the format is cpio's "newc".
func pack(path string, k kernel, programs string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	a := &archive{w: bufio.NewWriterSize(f, 1<<20), made: map[string]bool{}}
	a.file("init", guest)
	a.copy("bin/busybox", filepath.Join(k.root, "bin", "busybox"))
	for _, m := range modules {
		a.copy("modules/"+filepath.Base(m), filepath.Join(k.root, "lib", "modules", k.release, m))
	}
	entries, err := os.ReadDir(programs)
	if err != nil {
		return err
	}
	for _, e := range entries {
		a.copy("tests/"+e.Name(), filepath.Join(programs, e.Name()))
	}
	if err := a.withLibraries("runc"); err != nil {
		return err
	}
	a.file("etc/passwd", []byte("root:x:0:0::/:/bin/sh\nsync:x:4:65534::/:/bin/sh\n"))
	for _, dir := range []string{"proc", "sys", "dev", "tmp", "run", "root"} {
		a.dir(dir)
	}
	a.entry("TRAILER!!!", 0, nil)
	if a.err == nil {
		a.err = a.w.Flush()
	}
	return a.err
}

// archive is written one file at a time; the first failure stays.
type archive struct {
	w    *bufio.Writer
	n    int
	made map[string]bool
	err  error
}

// withLibraries packs a program of this machine with the libraries that it loads, at their paths.
func (a *archive) withLibraries(name string) error {
	path, err := exec.LookPath(name)
	if err != nil {
		return fmt.Errorf("%s is not installed: %w", name, err)
	}
	a.copy("usr/sbin/"+name, path)
	out, err := exec.Command("ldd", path).Output()
	if err != nil {
		// A static program has none.
		return nil //nolint:nilerr // said above
	}
	for field := range strings.FieldsSeq(string(out)) {
		if filepath.IsAbs(field) {
			a.copy(strings.TrimPrefix(field, "/"), field)
		}
	}
	return nil
}

func (a *archive) copy(name, path string) {
	body, err := os.ReadFile(path)
	if err != nil && a.err == nil {
		a.err = err
	}
	a.file(name, body)
}

func (a *archive) file(name string, body []byte) {
	a.dir(filepath.Dir(name))
	a.entry(name, 0o100755, body)
}

func (a *archive) dir(name string) {
	if name == "." || a.made[name] {
		return
	}
	a.dir(filepath.Dir(name))
	a.made[name] = true
	a.entry(name, 0o40755, nil)
}

func (a *archive) entry(name string, mode int, body []byte) {
	if a.err != nil {
		return
	}
	a.n++
	header := "070701"
	for _, v := range []int{a.n, mode, 0, 0, 1, 0, len(body), 0, 0, 0, 0, len(name) + 1, 0} {
		header += fmt.Sprintf("%08x", v)
	}
	_, a.err = a.w.WriteString(header + name + "\x00" + padding(len(header)+len(name)+1))
	if a.err == nil {
		_, a.err = a.w.Write(body)
	}
	if a.err == nil {
		_, a.err = a.w.WriteString(padding(len(body)))
	}
}

// padding fills up to the next multiple of four.
func padding(n int) string { return strings.Repeat("\x00", -n&3) }
