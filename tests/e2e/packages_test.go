//go:build e2e

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tatami-faas/tatami/tests/e2e/harness"
	"github.com/tatami-faas/tatami/tests/process"
)

// machine is what deploy/packages.sh finds: the programs on PATH, who asks, and an apt that knows packages and makes programs of them.
type machine struct {
	programs string
	user     string
	noApt    bool
	// lists are the packages that apt knows, fresh those after an update.
	lists, fresh string
	// broken packages install nothing.
	broken string
}

const fakeApt = `#!/bin/bash
echo "apt-get $*" >>"$DIR/log"
case $1 in
update) cp "$DIR/fresh" "$DIR/lists" ;;
install)
	for p in "${@:2}"; do
		[[ $p == -* || $p == *=* ]] && continue
		[[ " $(<"$DIR/lists") " == *" $p "* ]] || { echo "E: Unable to locate package $p" >&2; exit 100; }
		[[ " $BROKEN " == *" $p "* ]] || ln -s /bin/true "$DIR/bin/${p%-browser}"
	done ;;
esac
`

// deploy/packages.sh installs what is missing and nothing else, says why, and says what to do where it cannot.
func TestPackages(t *testing.T) {
	const debian, ubuntu = "runc wrk chromium", "runc wrk chromium-browser"
	const because = "installing runc: the OCI runtime that makes the containers; containerd itself is inside the binary\n"
	for name, tc := range map[string]struct {
		on      machine
		ask     string
		exit    int
		out     string
		install string
	}{
		"nothing is missing":  {machine{programs: "runc wrk", lists: debian}, "runc wrk", 0, "", ""},
		"one is missing":      {machine{programs: "wrk", lists: debian}, "runc wrk", 0, because, "install runc"},
		"all are missing":     {machine{lists: debian}, "runc wrk chromium", 0, "installing chromium: the browser that tests the dashboard", "install runc wrk chromium"},
		"no package lists":    {machine{fresh: debian}, "runc", 0, because, "install runc, update, install runc"},
		"Ubuntu":              {machine{fresh: ubuntu}, "chromium wrk", 0, "installing wrk", "install chromium wrk, update, install chromium-browser wrk"},
		"not root":            {machine{user: "1000", lists: debian}, "runc wrk", 1, "missing: runc wrk. Run as root, or: sudo apt-get install runc wrk", ""},
		"not root, all there": {machine{user: "1000", programs: "runc"}, "runc", 0, "", ""},
		"not Debian":          {machine{noApt: true}, "runc", 1, "No apt-get here", ""},
		"no such package":     {machine{}, "runc", 100, "E: Unable to locate package runc", "install runc, update, install runc"},
		"not on PATH":         {machine{lists: debian, broken: "runc"}, "runc", 1, "runc was installed but is not found on PATH", "install runc"},
		"unknown name":        {machine{lists: debian}, "runc frobnicate", 2, "unknown package frobnicate", ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			bin := filepath.Join(dir, "bin")
			for _, p := range append(strings.Fields(tc.on.programs), "cp", "ln", "true") {
				target := "/bin/" + p
				if _, err := os.Stat(target); err != nil {
					target = "/bin/true"
				}
				if err := os.MkdirAll(bin, 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.Symlink(target, filepath.Join(bin, p)); err != nil {
					t.Fatal(err)
				}
			}
			script := func(name, text string) {
				if err := process.WriteProgram(filepath.Join(bin, name), []byte(text), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			user := tc.on.user
			if user == "" {
				user = "0"
			}
			script("id", "#!/bin/bash\necho "+user+"\n")
			if !tc.on.noApt {
				script("apt-get", fakeApt)
				script("apt-cache", `#!/bin/bash`+"\n"+`[[ " $(<"$DIR/lists") " == *" $2 "* ]]`+"\n")
			}
			writeFile(t, filepath.Join(dir, "lists"), tc.on.lists)
			writeFile(t, filepath.Join(dir, "fresh"), tc.on.fresh)
			writeFile(t, filepath.Join(dir, "log"), "")

			cmd := exec.CommandContext(t.Context(), "/bin/bash", append([]string{filepath.Join(harness.Root(t), "deploy/packages.sh")}, strings.Fields(tc.ask)...)...)
			cmd.Env = []string{"PATH=" + bin, "DIR=" + dir, "BROKEN=" + tc.on.broken}
			out, err := cmd.CombinedOutput()
			if got := cmd.ProcessState.ExitCode(); got != tc.exit {
				t.Errorf("ended with %d (%v), want %d", got, err, tc.exit)
			}
			if !strings.Contains(string(out), tc.out) || tc.out == "" && len(out) > 0 {
				t.Errorf("wrote %q, want %q", out, tc.out)
			}
			log, err := os.ReadFile(filepath.Join(dir, "log"))
			if err != nil {
				t.Fatal(err)
			}
			if got := aptCalls(string(log)); got != tc.install {
				t.Errorf("apt was asked to %q, want %q", got, tc.install)
			}
		})
	}
}

// aptCalls is what apt was asked to do, without its options.
func aptCalls(log string) string {
	var calls []string
	for line := range strings.Lines(log) {
		var words []string
		for _, w := range strings.Fields(line)[1:] {
			if !strings.HasPrefix(w, "-") && !strings.Contains(w, "=") {
				words = append(words, w)
			}
		}
		calls = append(calls, strings.Join(words, " "))
	}
	return strings.Join(calls, ", ")
}
