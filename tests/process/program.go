package process

import (
	"os"
	"syscall"
)

// WriteProgram writes a file that can be run at once. No process begins meanwhile: it would have the file open for writing, too, until it runs a
// program itself, and what is open for writing cannot be run.
func WriteProgram(path string, body []byte, mode os.FileMode) error {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	if err := os.WriteFile(path, body, mode); err != nil {
		return err
	}
	return os.Chmod(path, mode)
}
