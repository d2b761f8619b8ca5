package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	v1 "github.com/tatami-faas/tatami/gateway/api/v1"
)

const (
	v2Mount     = "cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid,nsdelegate 0 0\n"
	hybridMount = "tmpfs /sys/fs/cgroup tmpfs ro 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n" +
		"cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\ncgroup /sys/fs/cgroup/freezer cgroup rw,freezer 0 0\n"
)

// fast is a machine on which nothing slows cold starts.
func fast(t *testing.T, files map[string]string) speed {
	t.Helper()
	all := map[string]string{
		"proc/self/mounts":                     strings.Replace(v2Mount, "nsdelegate", "nsdelegate,favordynmods", 1),
		"proc/filesystems":                     "nodev\ttmpfs\n\text4\nnodev\toverlay\n",
		"proc/sys/kernel/random/entropy_avail": "256\n",
		"proc/meminfo":                         "MemTotal: 9000000 kB\nMemAvailable: 8000000 kB\n",
		"sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "performance\n",
		"sys/dev/block/8:1/../queue/rotational":                "0\n",
	}
	for name, text := range files {
		all[name] = text
	}
	s := speed{root: t.TempDir(), release: "6.1.0-18-amd64", fstype: "ext4", device: unix.Mkdev(8, 1), has: func(string) bool { return true }}
	for name, text := range all {
		path := filepath.Join(s.root, name)
		// The kernel has links there: the partition lies below its disk.
		if strings.Contains(name, "/../") {
			if err := os.MkdirAll(filepath.Join(s.root, "sys/dev/block/8:1"), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// idle is what a machine of two processors tells of them, and further files that are there.
func idle(governor, driver, flag, polling string, more ...string) map[string]string {
	files := map[string]string{
		"sys/devices/system/cpu/cpuidle/current_governor":   governor + "\n",
		"sys/devices/system/cpu/cpuidle/current_driver":     driver + "\n",
		"sys/module/haltpoll/parameters/guest_halt_poll_ns": polling + "\n",
		"sys/devices/system/cpu/online":                     "0-1\n",
		"proc/cpuinfo":                                      "flags\t\t: fpu " + flag + " lahf_lm\n",
	}
	for _, name := range more {
		files[name] = ""
	}
	return files
}

func with(files map[string]string, name, text string) map[string]string {
	files[name] = text
	return files
}

func TestSpeedChecks(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		files  map[string]string
		change func(*speed)
		// warned maps the names of the checks that must warn to what they say, with their fix.
		warned map[string]string
		said   map[string]string
	}{
		"nothing slows it": {said: map[string]string{"cgroups": "v2 alone", "favordynmods": "set:", "freezer": "give memory back", "overlay": "id-mapped"}},
		"hybrid": {
			files:  map[string]string{"proc/self/mounts": hybridMount},
			warned: map[string]string{"cgroups": "mounted at /sys/fs/cgroup/unified", "favordynmods": "remount,favordynmods /sys/fs/cgroup/unified"},
			said:   map[string]string{"freezer": "v1"},
		},
		"v1 alone, without a freezer": {
			files:  map[string]string{"proc/self/mounts": "cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n"},
			warned: map[string]string{"cgroups": "v1 alone", "favordynmods": "no v2 hierarchy", "freezer": "go on running"},
		},
		"no control groups": {
			files:  map[string]string{"proc/self/mounts": "proc /proc proc rw 0 0\n"},
			warned: map[string]string{"cgroups": "mount -t cgroup2", "favordynmods": "no v2 hierarchy", "freezer": "none"},
		},
		"plain v2": {files: map[string]string{"proc/self/mounts": v2Mount}, warned: map[string]string{"favordynmods": "6 to 14 ms"}},
		"an old kernel": {
			files: map[string]string{"proc/self/mounts": v2Mount},
			change: func(s *speed) {
				s.release, s.has = "5.4.0", func(call string) bool { return call != "openat2" && call != "pidfd_open" }
			},
			warned: map[string]string{"favordynmods": "no such option", "kernel": "lacks openat2, pidfd_open", "overlay": "5.19"},
			said:   map[string]string{"freezer": "not asked back"},
		},
		"no overlay":        {files: map[string]string{"proc/filesystems": "\text4\n"}, warned: map[string]string{"overlay": "modprobe overlay"}},
		"tmpfs before 6.3":  {change: func(s *speed) { s.fstype = "tmpfs" }, warned: map[string]string{"overlay": "cannot be id-mapped"}},
		"a network's files": {change: func(s *speed) { s.fstype = "nfs" }, warned: map[string]string{"overlay": "nfs", "data directory": "local ext4"}},
		"a disk that rotates": {
			files: map[string]string{"sys/dev/block/8:1/queue/rotational": "1\n"}, warned: map[string]string{"data directory": "rotates"},
		},
		"little entropy": {files: map[string]string{"proc/sys/kernel/random/entropy_avail": "12\n"}, warned: map[string]string{"entropy": "12 bits"}},
		"a sleepy processor": {
			files: map[string]string{
				"sys/devices/system/cpu/cpu1/cpufreq/scaling_governor": "powersave\n", "sys/devices/system/cpu/cpu2/cpufreq/scaling_governor": "powersave\n",
			},
			warned: map[string]string{"processor": "powersave on 2 processors"},
		},
		"processors that may sleep": {
			files:  idle("menu", "intel_idle", "", ""),
			warned: map[string]string{"idle processors": "--device /dev/cpu_dma_latency"},
		},
		"processors that are kept awake while functions start": {
			files: idle("menu", "intel_idle", "", "", "dev/cpu_dma_latency"),
			said:  map[string]string{"idle processors": "while functions start (--stay-awake=auto is starts here): this is no virtual machine"},
		},
		"processors that are kept awake while calls go through": {
			files: idle("menu", "intel_idle", "hypervisor", "", "dev/cpu_dma_latency"),
			said:  map[string]string{"idle processors": "calls go through (--stay-awake=auto is calls here): in this virtual machine"},
		},
		"a kernel that could keep them awake itself": {
			files: idle("haltpoll", "haltpoll", "hypervisor", "0", "dev/cpu_dma_latency"),
			said:  map[string]string{"idle processors": "is off, and goes on with: echo 200000"},
		},
		"a kernel that could, and nobody else does": {
			files:  with(idle("haltpoll", "haltpoll", "hypervisor", "0", "dev/cpu_dma_latency"), "sys/devices/system/cpu/online", "0-31"),
			warned: map[string]string{"idle processors": "haltpoll.guest_halt_poll_ns=200000"},
		},
		"a kernel that keeps them awake itself": {
			files: idle("haltpoll", "haltpoll", "hypervisor", "200000", "dev/cpu_dma_latency"),
			said:  map[string]string{"idle processors": "the kernel looks for work for 200 us"},
		},
		"a virtual machine without a driver for them": {
			files:  idle("menu", "none", "hypervisor", "", "dev/cpu_dma_latency"),
			warned: map[string]string{"idle processors": "modprobe cpuidle_haltpoll"},
		},
		"a machine without a driver for them": {
			files: idle("menu", "none", "", "", "dev/cpu_dma_latency"),
			said:  map[string]string{"idle processors": "no driver"},
		},
		"little memory": {files: map[string]string{"proc/meminfo": "MemAvailable: 4000 kB\n"}, warned: map[string]string{"memory": "--sandbox-pool"}},
		"nothing can be read": {
			change: func(s *speed) { s.root, s.release = filepath.Join(s.root, "none"), "" },
			warned: map[string]string{"cgroups": "", "favordynmods": "", "freezer": "", "overlay": "", "memory": ""},
		},
	} {
		s := fast(t, c.files)
		if c.change != nil {
			c.change(&s)
		}
		for _, got := range s.checks() {
			short := strings.TrimPrefix(got.Name, "cold starts: ")
			text, warned := c.warned[short]
			if state := map[bool]v1.CheckState{true: v1.CheckWarn, false: v1.CheckOK}[warned]; got.State != state {
				t.Errorf("%s: %s is %s: %s", name, short, got.State, got.Detail)
			}
			if warned && (got.Fix == "" || !strings.Contains(got.Detail+" "+got.Fix, text)) {
				t.Errorf("%s: %s says %q, fix %q, want %q", name, short, got.Detail, got.Fix, text)
			}
			if !strings.Contains(got.Detail, c.said[short]) {
				t.Errorf("%s: %s says %q, want %q", name, short, got.Detail, c.said[short])
			}
		}
	}
}

// What is asked of this very machine must be answered, whatever it is.
func TestSpeedOfThisMachine(t *testing.T) {
	t.Parallel()
	s := thisMachine(t.TempDir())
	if s.release == "" || s.fstype == "unknown" || s.device == 0 {
		t.Errorf("%+v", s)
	}
	for _, c := range s.checks() {
		if c.Detail == "" || c.State == v1.CheckFail || (c.State == v1.CheckWarn) != (c.Fix != "") {
			t.Errorf("%+v", c)
		}
	}
	if !hasCall("pidfd_open") {
		t.Error("pidfd_open has been there since 5.3")
	}
}
