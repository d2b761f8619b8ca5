// Package leaks looks for goroutines that a package's tests leave behind.
package leaks

import (
	"fmt"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// patience is how long what the tests have ended may take to be gone: a connection's goroutine hears of its end a moment later, and on a loaded machine
// that is longer than the library waits.
const patience = 20 * time.Second

// VerifyTestMain runs a package's tests and ends the process. It fails where goroutines stay that the tests have begun; the options name those that may.
func VerifyTestMain(m *testing.M, options ...goleak.Option) {
	code := m.Run()
	if code == 0 {
		if err := find(patience, options...); err != nil {
			fmt.Fprintf(os.Stderr, "goroutines stay after the tests: %v\n", err)
			code = 1
		}
	}
	os.Exit(code)
}

// find looks until nothing is left, for so long at most.
func find(within time.Duration, options ...goleak.Option) error {
	for over := time.Now().Add(within); ; {
		err := goleak.Find(options...)
		if err == nil || time.Now().After(over) {
			return err
		}
	}
}
