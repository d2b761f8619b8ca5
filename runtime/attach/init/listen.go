//go:build linux

package main

import (
	"strconv"
	"syscall"
)

// backlog is cut to what the kernel allows.
const backlog = 4096

// listen makes a socket that listens on the port and puts it where the function's program looks for it. Connections queue in it from now on.
// It returns why it could not.
func listen(port uint32) string {
	fd, err := bound(syscall.AF_INET6, &syscall.SockaddrInet6{Port: int(port)})
	if err != nil {
		// A kernel without IPv6.
		fd, err = bound(syscall.AF_INET, &syscall.SockaddrInet4{Port: int(port)})
	}
	if err == nil {
		err = syscall.Listen(fd, backlog)
	}
	if err != nil {
		return "listen on port " + strconv.Itoa(int(port)) + ": " + err.Error()
	}
	if fd == passed {
		_, _, e := syscall.RawSyscall(syscall.SYS_FCNTL, uintptr(fd), syscall.F_SETFD, 0)
		if e != 0 {
			return "pass the socket: " + e.Error()
		}
		return ""
	}
	// Without the flag: the program inherits it.
	if _, _, e := syscall.RawSyscall(syscall.SYS_DUP3, uintptr(fd), passed, 0); e != 0 {
		return "pass the socket: " + e.Error()
	}
	_ = syscall.Close(fd)
	return ""
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
