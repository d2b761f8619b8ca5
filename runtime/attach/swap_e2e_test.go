//go:build linux && e2e

package attach

import (
	"errors"
	"os"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// TestLinkSwapped: a directory that becomes a link out of the root, and again a directory, while mount points are looked for in it, leads
// none of them out.
func TestLinkSwapped(t *testing.T) {
	path, must := ground(t)
	for _, name := range []string{"lower", "upper", "work", "outside"} {
		must(os.Mkdir(path(name), 0o755))
	}
	root, err := NewRoot([]string{path("lower")}, path("upper"), path("work"), nil)
	must(err)
	defer root.Close()
	must(unix.Mkdirat(root.mount, "place", 0o755))
	must(unix.Symlinkat(path("outside"), root.mount, "other"))
	var own unix.Stat_t
	must(unix.Fstat(root.mount, &own))

	stop, swapped := make(chan struct{}), make(chan error)
	go func() {
		for {
			select {
			case <-stop:
				swapped <- nil
				return
			default:
				if err := unix.Renameat2(root.mount, "place", root.mount, "other", unix.RENAME_EXCHANGE); err != nil {
					swapped <- err
					return
				}
			}
		}
	}()
	found, refused := 0, 0
	for i := 0; i < 200_000 && (found < 1000 || refused < 1000); i++ {
		points := &Root{mount: root.mount}
		err := points.Points([]string{"/place", "/place/" + strconv.Itoa(i%8)}, nil, 0)
		for _, p := range points.points {
			var st unix.Stat_t
			must(unix.Fstat(p.fd, &st))
			if st.Dev != own.Dev {
				t.Errorf("%s is a place outside of the root", p.path)
			}
			must(unix.Close(p.fd))
		}
		switch {
		case err == nil:
			found++
		case errors.Is(err, ErrPlace), errors.Is(err, unix.ENOENT):
			refused++
		default:
			t.Fatal(err)
		}
	}
	close(stop)
	must(<-swapped)
	if found == 0 || refused == 0 {
		t.Errorf("found %d times, refused %d times: the link was never met, or always", found, refused)
	}
	if entries, err := os.ReadDir(path("outside")); err != nil || len(entries) > 0 {
		t.Errorf("outside of the root: %v, %v", entries, err)
	}
}
