//go:build linux

package main

import (
	"strconv"
	"syscall"
)

const (
	// firstPassed is the descriptor at which a program looks for the socket that it is given.
	firstPassed = 3
	// moved is where the way to the worker goes out of its way.
	moved = 64
	// backlog is cut to what the kernel allows.
	backlog = 4096
)

// listen makes a socket that listens on the port and puts it where the function's program looks for it. Connections queue in it from now on. It
// returns the descriptor of the connection to the worker, which it may have moved out of the way.
func listen(port uint32, conn int) (at int, why string) {
	if _, _, e := syscall.RawSyscall(syscall.SYS_DUP3, uintptr(conn), moved, syscall.O_CLOEXEC); e != 0 {
		return conn, "keep the connection: " + e.Error()
	}
	if err := syscall.Close(conn); err != nil {
		return moved, "keep the connection: " + err.Error()
	}
	fd, err := bound(syscall.AF_INET6, &syscall.SockaddrInet6{Port: int(port)})
	if err != nil {
		// A kernel without IPv6.
		fd, err = bound(syscall.AF_INET, &syscall.SockaddrInet4{Port: int(port)})
	}
	if err == nil {
		err = syscall.Listen(fd, backlog)
	}
	if err != nil {
		return moved, "listen on port " + strconv.Itoa(int(port)) + ": " + err.Error()
	}
	if fd == firstPassed {
		_, _, e := syscall.RawSyscall(syscall.SYS_FCNTL, uintptr(fd), syscall.F_SETFD, 0)
		if e != 0 {
			return moved, "pass the socket: " + e.Error()
		}
		return moved, ""
	}
	// Without the flag: the program inherits it.
	if _, _, e := syscall.RawSyscall(syscall.SYS_DUP3, uintptr(fd), firstPassed, 0); e != 0 {
		return moved, "pass the socket: " + e.Error()
	}
	_ = syscall.Close(fd)
	return moved, ""
}

// bound is a socket bound to the address, for IPv4 too where it is of IPv6.
func bound(family int, to syscall.Sockaddr) (int, error) {
	fd, err := syscall.Socket(family, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if family == syscall.AF_INET6 {
		err = syscall.SetsockoptInt(fd, syscall.IPPROTO_IPV6, syscall.IPV6_V6ONLY, 0)
	}
	if err == nil {
		err = syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1)
	}
	if err == nil {
		err = syscall.Bind(fd, to)
	}
	if err != nil {
		_ = syscall.Close(fd)
		return -1, err
	}
	return fd, nil
}
