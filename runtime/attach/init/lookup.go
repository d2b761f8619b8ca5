//go:build linux

package main

import (
	"strconv"
	"syscall"
)

// lookup finds the program as the OCI runtime does: a name without a slash along PATH.
func lookup(name string, env []string) (path, why string) {
	if hasSlash(name) {
		if err := executable(name); err != "" {
			return "", "exec: " + quote(name) + ": " + err
		}
		return name, ""
	}
	search := ""
	for _, e := range env {
		if len(e) >= 5 && e[:5] == "PATH=" {
			search = e[5:]
		}
	}
	for _, dir := range split(search) {
		if dir == "" {
			dir = "."
		}
		if path := dir + "/" + name; executable(path) == "" {
			return path, ""
		}
	}
	return "", "exec: " + quote(name) + ": executable file not found in $PATH"
}

// executable says why the file cannot be run; empty where it can.
func executable(path string) string {
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil {
		return "stat " + path + ": " + err.Error()
	}
	switch {
	case st.Mode&syscall.S_IFMT == syscall.S_IFDIR:
		return syscall.EISDIR.Error()
	case st.Mode&0o111 == 0:
		return syscall.EACCES.Error()
	}
	return ""
}

func quote(s string) string { return strconv.Quote(s) }

func hasSlash(s string) bool {
	for i := range len(s) {
		if s[i] == '/' {
			return true
		}
	}
	return false
}

func split(list string) []string {
	if list == "" {
		return nil
	}
	var out []string
	from := 0
	for i := range len(list) {
		if list[i] == ':' {
			out = append(out, list[from:i])
			from = i + 1
		}
	}
	return append(out, list[from:])
}
