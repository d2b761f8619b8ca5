package logs

import (
	"os"
	"syscall"
)

// punch gives the blocks of [from, to) back to the filesystem; the file keeps its size, so a writer at its end is not disturbed.
func punch(f *os.File, from, to int64) error {
	const keepSize, punchHole = 0x1, 0x2 // FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE
	return syscall.Fallocate(int(f.Fd()), keepSize|punchHole, from, to-from)
}
