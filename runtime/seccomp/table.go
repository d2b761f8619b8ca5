package seccomp

import (
	"embed"
	"fmt"
	"strconv"
	"strings"
)

// The tables list every system call's name and number on an architecture, as golang.org/x/sys has them.
//
//go:embed tables/*.txt
var tables embed.FS

// table reads the numbers of an architecture by Go's name for it.
func table(goarch string) (map[string]uint32, error) {
	raw, err := tables.ReadFile("tables/" + goarch + ".txt")
	if err != nil {
		return nil, fmt.Errorf("the system calls of %s are not known", goarch)
	}
	out := map[string]uint32{}
	for line := range strings.Lines(string(raw)) {
		name, number, _ := strings.Cut(strings.TrimSpace(line), " ")
		n, err := strconv.ParseUint(number, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("the table of %s: %w", goarch, err)
		}
		out[name] = uint32(n)
	}
	return out, nil
}
