package awake

import (
	"strings"
	"testing"
	"testing/fstest"
)

// tree is the files of a machine: the one that is meant by auto's choice of calls, with what is given in place of its own. "" takes a file away.
func tree(changed map[string]string) fstest.MapFS {
	all := map[string]string{
		cpuinfoFile:  "processor\t: 0\nflags\t\t: fpu hypervisor lahf_lm\n\nprocessor\t: 1\nflags\t\t: fpu hypervisor lahf_lm\n",
		onlineFile:   "0-1\n",
		driverFile:   "haltpoll\n",
		governorFile: "haltpoll\n",
		pollingFile:  "0\n",
	}
	for name, text := range changed {
		all[name] = text
	}
	root := fstest.MapFS{}
	for name, text := range all {
		if text != "" {
			root[name] = &fstest.MapFile{Data: []byte(text)}
		}
	}
	return root
}

func TestChoose(t *testing.T) {
	t.Parallel()
	const bare = "flags\t\t: fpu lahf_lm\n"
	for name, c := range map[string]struct {
		word  string
		files map[string]string
		want  Policy
		why   string
	}{
		"a small virtual machine":        {"auto", nil, Calls, "virtual"},
		"with another driver":            {"auto", map[string]string{driverFile: "intel_idle", governorFile: "menu", pollingFile: ""}, Calls, "virtual"},
		"with another governor":          {"auto", map[string]string{governorFile: "menu", pollingFile: "200000"}, Calls, "virtual"},
		"whose kernel polls":             {"auto", map[string]string{pollingFile: "200000"}, Starts, "200 us"},
		"whose kernel has no driver":     {"auto", map[string]string{driverFile: "none", governorFile: "menu"}, Starts, "no driver"},
		"whose kernel tells nothing":     {"auto", map[string]string{driverFile: "", governorFile: ""}, Starts, "no driver"},
		"of eight processors":            {"auto", map[string]string{onlineFile: "0-3,8-11"}, Calls, "virtual"},
		"of nine":                        {"auto", map[string]string{onlineFile: "0-7,9"}, Starts, "more than 8"},
		"of many":                        {"auto", map[string]string{onlineFile: "0-63"}, Starts, "more than 8"},
		"that does not say of how many":  {"auto", map[string]string{onlineFile: ""}, Starts, "how many"},
		"that says it in no way we know": {"auto", map[string]string{onlineFile: "3-0"}, Starts, "how many"},
		"a machine of its own":           {"auto", map[string]string{cpuinfoFile: bare}, Starts, "no virtual machine"},
		"that nothing is told of":        {"auto", map[string]string{cpuinfoFile: ""}, Starts, "no virtual machine"},
		"a flag that only looks like it": {"auto", map[string]string{cpuinfoFile: "model name\t: hypervisor\nflags\t\t: nohypervisor hypervisors\n"}, Starts, "no virtual machine"},
		"another processor, its tree":    {"auto", map[string]string{cpuinfoFile: "processor: 0\n", "proc/device-tree/hypervisor/compatible": "linux,kvm"}, Calls, "virtual"},
		"another processor, Xen":         {"auto", map[string]string{cpuinfoFile: "", "sys/hypervisor/type": "xen\n"}, Calls, "virtual"},
		"calls wherever it is":           {"calls", map[string]string{onlineFile: "0-63", cpuinfoFile: bare}, Calls, "--stay-awake"},
		"starts":                         {"starts", nil, Starts, "--stay-awake"},
		"never":                          {"never", nil, Never, "--stay-awake"},
	} {
		p, why, err := Choose(c.word, Look(tree(c.files)))
		if err != nil || p != c.want || !strings.Contains(why, c.why) {
			t.Errorf("%s: %v because %q, %v; want %v because %q", name, p, why, err, c.want, c.why)
		}
	}
	for _, word := range []string{"", "true", "Auto", "always"} {
		if p, _, err := Choose(word, Look(tree(nil))); err == nil || p != Never {
			t.Errorf("%q is %v", word, p)
		}
	}
}
