//go:build linux && !amd64

package main

import "golang.org/x/sys/unix"

// iopl is a call of one architecture only.
func iopl() error { return unix.ENOSYS }
