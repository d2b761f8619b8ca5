package main

import (
	"context"
	"crypto/sha256"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"sync"
	"time"
)

// idlerVerb is the bench's own command that takes a share of the processors.
const idlerVerb = "control-idler"

const (
	// idlerTurns are how many take turns, each about idlerEvery: together 12,500 a second, five for each cold start, as workers have.
	idlerTurns = 500
	idlerEvery = 40 * time.Millisecond
)

// idler is a process that takes a share of the processors, and does nothing with it.
type idler struct {
	cmd *exec.Cmd
	end io.Closer
}

func newIdler(share float64) (*idler, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	i := &idler{cmd: exec.Command(self, idlerVerb, "-share", strconv.FormatFloat(share, 'f', 3, 64))}
	i.cmd.Stderr = os.Stderr
	if i.end, err = i.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	return i, i.cmd.Start()
}

func (i *idler) close() {
	_ = i.end.Close()
	_ = i.cmd.Wait()
}

// idlerMain is that process: it works until its input ends.
func idlerMain(args []string) int {
	flags := flag.NewFlagSet("bench "+idlerVerb, flag.ContinueOnError)
	share := flags.Float64("share", 0, "processors to take")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	work := time.Duration(*share * float64(idlerEvery) / idlerTurns)
	count := max(int(work/hashTime()), 1)
	ctx, stop := context.WithCancel(context.Background())
	var turns sync.WaitGroup
	for range idlerTurns {
		turns.Go(func() {
			for ctx.Err() == nil {
				time.Sleep(time.Duration(rand.ExpFloat64() * float64(idlerEvery)))
				hash(count)
			}
		})
	}
	_, err := io.Copy(io.Discard, os.Stdin)
	stop()
	turns.Wait()
	if err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		return 1
	}
	return 0
}

// hash does work that is the same each time.
func hash(count int) {
	var b [sha256.Size]byte
	for range count {
		b = sha256.Sum256(b[:])
	}
	runtime.KeepAlive(b)
}

// hashTime is what one takes, on a processor that nobody else has.
func hashTime() time.Duration {
	const count = 10_000
	best := time.Hour
	for range 20 {
		begun := time.Now()
		hash(count)
		best = min(best, time.Since(begun))
	}
	return max(best/count, 1)
}
