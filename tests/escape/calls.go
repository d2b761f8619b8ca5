//go:build linux

package escape

import (
	"path/filepath"
	"slices"
	"testing"
)

// trial is a system call that a function must not be able to make.
type trial struct {
	name, refused string
	// control are the outcomes outside of a sandbox; none: it succeeds. ENOSYS is that of a kernel which lacks the call.
	control []string
}

// trials are those of a process without any capability under the default seccomp profile.
func trials() []trial {
	noSystem := []string{"", "ENOSYS"}
	all := []trial{
		{"clone3", "ENOSYS", []string{"EINVAL"}},
		{"init-module", "EPERM", []string{"ENOEXEC", "ENOSYS"}},
		{"finit-module", "EPERM", []string{"ENOEXEC", "EINVAL", "EBADF", "ENOSYS"}},
		{"delete-module", "EPERM", []string{"ENOENT", "ENOSYS"}},
		{"kexec", "EPERM", []string{"EINVAL", "ENOSYS"}},
		{"reboot", "EPERM", []string{"EINVAL"}},
		{"swapon", "EPERM", []string{"ENOENT", "ENOSYS"}},
		{"acct", "EPERM", []string{"ENOENT", "ENOSYS"}},
		{"clock-settime", "EPERM", []string{"EINVAL"}},
		{"adjtimex", "EPERM", []string{"EINVAL"}},
		{"open-by-handle", "EPERM", []string{"EINVAL", "EOVERFLOW", "ESTALE"}},
		{"request-key", "EPERM", []string{"ENOKEY", "ENOSYS"}},
		{"pivot-root", "EPERM", []string{"EINVAL", "EBUSY"}},
		{"move-mount", "EPERM", []string{"", "EINVAL", "ELOOP"}},
		{"mount-cgroup", "EPERM", []string{"", "EBUSY"}},
		{"socket-alg", "EPERM", []string{"", "EAFNOSUPPORT"}},
		{"socket-vsock", "EPERM", []string{"", "EAFNOSUPPORT"}},
		{"unshare-pid", "EPERM", []string{"", "EINVAL"}},
		// A process of many threads may not, whoever it is.
		{"unshare-user", "EPERM", []string{"EINVAL"}},
		{"nice", "EACCES", nil},
		{"realtime", "EPERM", []string{""}},
		{"iopl", "EPERM", noSystem},
	}
	for _, name := range []string{
		"mount", "mount-proc", "bind-mount", "remount", "propagation", "umount", "fsopen", "fspick", "open-tree", "mount-setattr", "chroot",
		"unshare-mount", "unshare-net", "unshare-ipc", "unshare-uts", "unshare-time", "clone-user", "clone-all", "setns",
		"sethostname", "setdomainname", "syslog", "quotactl", "vhangup", "keyctl", "add-key", "io-uring", "bpf", "userfaultfd", "perf-event",
		"fanotify", "kcmp", "personality", "set-mempolicy", "become-root", "join-root", "setgroups", "capset", "raise-limit", "socket-raw",
		"socket-raw6", "socket-packet", "new-link",
	} {
		all = append(all, trial{name, "EPERM", noSystem})
	}
	return all
}

func (s *suite) calls(t *testing.T) {
	p := s.hold(t, s.spec())
	for _, c := range trials() {
		t.Run(c.name, func(t *testing.T) {
			s.refused(t, p, c.name, "", c.refused)
			got := s.control(t, c.name, "")
			if want := c.control; len(want) == 0 && got.Errno != "" || len(want) > 0 && !slices.Contains(want, got.Errno) || got.Errno == c.refused {
				t.Errorf("outside of a sandbox: %q, not %q: %s", got.Errno, want, got.Error)
			}
		})
	}
	node := filepath.Join(t.TempDir(), "node")
	for _, name := range []string{"mknod-memory", "mknod-disk"} {
		s.refused(t, p, name, "path=/tmp/node", "EPERM")
		s.succeeds(t, name, "path="+node)
	}
	// The image's own device, which the node has too.
	s.refused(t, p, "open-node", "path=/null", "EACCES")
	s.succeeds(t, "open-node", "path=/dev/null")
	s.setuid(t, p)
}

// setuid: a program of root's in the image does not make anybody root.
func (s *suite) setuid(t *testing.T, p *prisoner) {
	t.Helper()
	mine, theirs := p.try(t, "setuid-file", "path=/hostile"), p.try(t, "setuid-file", "path=/setuid")
	if mine.Detail == "" || mine != theirs {
		t.Errorf("the program runs as %q, with the bits of set-user-id and set-group-id as %q", mine.Detail, theirs.Detail)
	}
	if got := s.asNobody(t); got != "0 0" {
		t.Errorf("outside of a sandbox the bits have no effect either: %q", got)
	}
}
