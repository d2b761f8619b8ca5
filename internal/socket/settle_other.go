//go:build unix && !linux

package socket

import "syscall"

// Settle does nothing: who connects while a socket is closed may be cut off.
func Settle(syscall.RawConn) error { return nil }
