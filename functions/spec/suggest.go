package spec

import (
	"strings"
)

// suggest returns the field that was probably meant by an unknown one, as a full path, or "".
func suggest(unknown, prefix string, siblings []field) string {
	plain := normal(unknown)
	if plain == "" || len(plain) > 64 {
		return ""
	}
	best, bestDistance := "", 1+len(plain)/3
	for _, f := range siblings {
		if normal(f.name) == plain {
			return prefix + f.name
		}
		if d := distance(plain, normal(f.name)); d <= bestDistance && d < len(f.name) {
			if d < bestDistance || best == "" {
				best, bestDistance = prefix+f.name, d
			}
		}
	}
	if best != "" {
		return best
	}
	// A longer or shorter form of the name: minimum, keep.
	for _, f := range siblings {
		if n := normal(f.name); len(n) >= 3 && strings.HasPrefix(plain, n) || len(plain) >= 3 && strings.HasPrefix(n, plain) {
			return prefix + f.name
		}
	}
	// The right name on the wrong level.
	for _, f := range table() {
		if prefix != "" && normal(f.name) == plain {
			return f.name + " at the top level"
		}
		for _, g := range f.fields {
			if prefix != f.name+"." && (normal(g.name) == plain || normal(f.name+g.name) == plain || normal(g.name+f.name) == plain) {
				return f.name + "." + g.name
			}
		}
	}
	if prefix == "scale." {
		switch plain {
		case "target", "targetutilization", "targetutilizationpercentage", "utilisation":
			return "scale.utilization"
		case "activationscale", "initialscale", "start":
			return "scale.initial"
		case "targetburstcapacity":
			return "scale.burst"
		case "scaledowndelay", "cooldown", "stabilizationwindow":
			return "scale.downDelay"
		case "stablewindow":
			return "scale.window"
		case "spare", "warm", "provisioned", "buffer":
			return "scale.reserved"
		case "idletimeout", "retention", "scaletozerograceperiod":
			return "scale.keepAlive"
		}
	}
	if prefix != "" {
		return ""
	}
	switch plain {
	case "environment", "environ", "variables", "vars":
		return "env"
	case "entrypoint", "cmd", "args", "run", "exec":
		return "command"
	case "cpus", "cores", "millicpu":
		return "cpu"
	case "mem", "ram", "memorylimit":
		return "memory"
	case "disk", "storage", "tmp", "ephemeralstorage":
		return "ephemeral"
	case "fn", "function", "functionname":
		return "name"
	case "ns", "project":
		return "namespace"
	case "replicas", "instances", "maxreplicas", "maxinstances":
		return "scale.max"
	case "minreplicas", "mininstances":
		return "scale.min"
	case "health", "healthcheck", "healthz", "probe", "readinessprobe":
		return "readiness"
	case "src", "dir", "path", "context", "binary", "build":
		return "source"
	case "main", "package":
		return "handler"
	case "readonlyrootfilesystem", "readonlyrootfs", "readonly":
		return "readOnlyRoot"
	case "processes", "pidslimit":
		return "pids"
	}
	return ""
}

// normal forgets what people write differently: case, underscores and dashes.
func normal(s string) string {
	return strings.ToLower(strings.NewReplacer("_", "", "-", "").Replace(s))
}

// distance is the number of insertions, deletions, substitutions and swaps of neighbours that turn a into b.
func distance(a, b string) int {
	s, t := []rune(a), []rune(b)
	rows := make([][]int, len(s)+1)
	for i := range rows {
		rows[i] = make([]int, len(t)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(s); i++ {
		for j := 1; j <= len(t); j++ {
			cost := 1
			if s[i-1] == t[j-1] {
				cost = 0
			}
			rows[i][j] = min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+cost)
			if i > 1 && j > 1 && s[i-1] == t[j-2] && s[i-2] == t[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return rows[len(s)][len(t)]
}
