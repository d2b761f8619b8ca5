package heap

import (
	"io/fs"
	"math"
	"path"
	"strconv"
	"strings"
)

// Memory is what this process may have, in bytes: the machine's, or the least that a cgroup allows it. The file system is the machine's, from its
// root. It is 0 where nothing can be read.
func Memory(root fs.FS) int64 {
	least := machine(root)
	for _, file := range limitFiles(root) {
		// An absent file and "max" bound nothing.
		if n := number(read(root, file)); n > 0 {
			least = min(least, n)
		}
	}
	if least == math.MaxInt64 {
		return 0
	}
	return least
}

func machine(root fs.FS) int64 {
	for line := range strings.Lines(read(root, "proc/meminfo")) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "MemTotal:" {
			if n := number(f[1]); n > 0 && n < math.MaxInt64>>10 {
				return n << 10
			}
		}
	}
	return math.MaxInt64
}

// limitFiles are the files that may bound the memory of the process: of its cgroups and those above. In a container whose view of the tree begins at
// its own cgroup the path may lead nowhere, and the tree's root has the bound.
func limitFiles(root fs.FS) (out []string) {
	for line := range strings.Lines(read(root, "proc/self/cgroup")) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) != 3 {
			continue
		}
		var trees []string
		name := "memory.max"
		switch {
		case f[1] == "":
			trees = []string{"sys/fs/cgroup", "sys/fs/cgroup/unified"}
		case strings.Contains(","+f[1]+",", ",memory,"):
			trees, name = []string{"sys/fs/cgroup/memory"}, "memory.limit_in_bytes"
		}
		for _, tree := range trees {
			for at := path.Clean("/" + f[2]); ; at = path.Dir(at) {
				out = append(out, path.Join(tree, at, name))
				if at == "/" {
					break
				}
			}
		}
	}
	return out
}

func read(root fs.FS, name string) string {
	b, err := fs.ReadFile(root, name)
	if err != nil {
		return ""
	}
	return string(b)
}

// number reads a positive number; 0 stands for anything else.
func number(s string) int64 {
	n, err := strconv.ParseInt(strings.TrimSpace(s), 10, 64)
	if err != nil || n < 0 {
		return 0
	}
	return n
}
