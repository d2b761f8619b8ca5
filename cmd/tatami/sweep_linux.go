package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/fault"
)

// sweepGrace is how long an instance may take to end when nobody is left who knows what it does.
const sweepGrace = 2 * time.Second

// sweep ends what a worker that was killed left running, and returns when nothing is left. It asks no server.
func sweep(ctx context.Context, cfg workerConfig, log *slog.Logger, stdout io.Writer) error {
	node, release, err := bus.StoppedWorker(cfg.DataDir)
	if fault.Is(err, fault.CodeNotFound) {
		fmt.Fprintln(stdout, "swept      no worker was here")
		return nil
	}
	if err != nil {
		return err
	}
	defer release()
	cfg.SandboxPool = 0
	cfg.setRuntime(log)
	defer cfg.keepAwake(log)()
	if err := cfg.makeDirs(); err != nil {
		return err
	}
	driver, err := cfg.driver(cfg.worker(node), workerCgroup(cfg.NodeName, node), noBlobs{}, log)
	if err != nil {
		return err
	}
	defer closeDriver(driver, log)
	ctx, done := context.WithCancel(ctx)
	defer done()
	ended, swept := 0, errors.New("the sweep was interrupted")
	err = supervise(ctx, log, []part{{name: "containerd", run: driver.Run, ready: driver.Ready}}, func() {
		defer done()
		boxes, err := driver.List(ctx)
		for _, b := range boxes {
			err = errors.Join(err, b.Stop(ctx, sweepGrace))
			ended++
		}
		swept = err
	})
	if err = errors.Join(err, swept); err != nil {
		return err
	}
	fmt.Fprintf(stdout, "swept      %s ended\n", many(ended, "instance"))
	return nil
}

// noBlobs is where nothing is fetched from.
type noBlobs struct{}

// Open refuses.
func (noBlobs) Open(_ context.Context, d string) (io.ReadCloser, int64, error) {
	return nil, 0, fault.New(fault.CodeUnavailable, "%s is not fetched: the worker is gone", d)
}
