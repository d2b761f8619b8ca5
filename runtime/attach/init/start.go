//go:build linux

package main

import (
	"syscall"

	"github.com/tatami-faas/tatami/runtime/attach/wire"
	"github.com/tatami-faas/tatami/runtime/signals"
)

// errorOutput is the standard error output.
const errorOutput = 2

// start becomes the function that the words at the path say. It returns only with why it cannot. Neither the words nor this program are found by the
// function: both lie in a directory of the container's, as files of the function's user.
func start(path string) string {
	raw, err := readFile(path)
	if err != nil {
		return "read what to start: " + err.Error()
	}
	w, err := wire.DecodeWords(raw)
	if err != nil {
		return err.Error()
	}
	for _, file := range []string{path, wire.StartProgram} {
		if err := syscall.Unlink(file); err != nil {
			return "unlink " + file + ": " + err.Error()
		}
	}
	if w.Hostname != "" {
		if err := syscall.Sethostname([]byte(w.Hostname)); err != nil {
			return "sethostname: " + err.Error()
		}
	}
	if w.Request.Listen != 0 {
		if why := listen(w.Request.Listen); why != "" {
			return why
		}
	}
	if w.Drop {
		if why := settle(w.Request, allCaps); why != "" {
			return why
		}
	}
	signals.Hear(1)
	return become(w.Request)
}

// readFile reads a whole file of no more than the longest words.
func readFile(path string) ([]byte, error) {
	fd, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer syscall.Close(fd)
	var st syscall.Stat_t
	if err := syscall.Fstat(fd, &st); err != nil {
		return nil, err
	}
	if st.Size > wire.MaxWords {
		return nil, wire.ErrTooLong
	}
	b := make([]byte, st.Size)
	if !readAll(fd, b) {
		return nil, wire.ErrMalformed
	}
	return b, nil
}
