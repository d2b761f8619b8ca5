//go:build linux

package main

import (
	"net"
	"net/url"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// neighbours leave something that others could find by its name, and look for it.
func neighbours() map[string]attempt {
	const key = 0x7a7a
	return map[string]attempt{
		"offer": func(a url.Values) (string, error) { return "", offer(a.Get("secret"), key) },
		"find-shm": plain(func() error {
			_, err := unix.SysvShmGet(key, 4096, 0)
			return err
		}),
		"find-queue": plain(func() error { return opens(unix.SYS_MQ_OPEN, text("tatami-escape\x00"), unix.O_RDONLY, 0, 0) }),
	}
}

// offer puts the secret where a neighbour could look: in a file, a unix socket without a file, shared memory, a message queue.
func offer(secret string, key int) error {
	for _, path := range []string{"/tmp/secret", "/dev/shm/secret"} {
		if err := os.WriteFile(path, []byte(secret), 0o644); err != nil {
			return err
		}
	}
	for network, addr := range map[string]string{"unix": "@tatami-escape", "tcp": "127.0.0.1:9999"} {
		l, err := net.Listen(network, addr)
		if err != nil {
			return err
		}
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				_, _ = c.Write([]byte(secret))
				c.Close()
			}
		}()
	}
	if _, err := unix.SysvShmGet(key, 4096, unix.IPC_CREAT|0o666); err != nil {
		return err
	}
	attr := struct{ flags, maxmsg, msgsize, cur int64 }{maxmsg: 1, msgsize: 64}
	_, _, errno := unix.Syscall6(unix.SYS_MQ_OPEN, text("tatami-escape\x00"), unix.O_RDWR|unix.O_CREAT, 0o666, uintptr(unsafe.Pointer(&attr)), 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}
