package main

import (
	"encoding/binary"
	"fmt"
	"os"

	"github.com/tatami-faas/tatami/internal/awake"
)

// canBeAwake reports whether the kernel can be asked for processors that do not sleep.
func canBeAwake() bool {
	_, err := os.Stat(awake.LatencyFile)
	if err != nil {
		fmt.Println("nothing is measured with the processors kept awake:", err)
	}
	return err == nil
}

// whileAwake keeps the processors from sleeping while f runs.
func whileAwake(f func() error) error {
	wish, err := os.OpenFile(awake.LatencyFile, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	// It ends when the file is closed.
	defer wish.Close()
	if _, err := wish.Write(binary.NativeEndian.AppendUint32(nil, 0)); err != nil {
		return err
	}
	return f()
}
