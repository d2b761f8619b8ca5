package main

import (
	"os"
)

func main() {
	// A shim is this binary, started again by the embedded containerd: it must not see anything of the CLI.
	runShimIfAsked()
	os.Exit(newApp(os.Stdin, os.Stdout, os.Stderr).run(os.Args[1:]))
}
