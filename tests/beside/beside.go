// Package beside has a package's tests run beside each other where they mostly wait: for elections, for time limits, for what comes back.
package beside

import (
	"flag"
	"strconv"
)

// Run has so many tests at once that are parallel, where there are fewer processors and -parallel is not given. TestMain calls it first.
func Run(atOnce int) {
	flag.Parse()
	raise(flag.Lookup("test.parallel"), atOnce)
}

// raise sets the flag to at least so much, where it is as it was.
func raise(f *flag.Flag, least int) {
	if n, err := strconv.Atoi(f.DefValue); err == nil && f.Value.String() == f.DefValue && n < least {
		_ = f.Value.Set(strconv.Itoa(least))
	}
}
