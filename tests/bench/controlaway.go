package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime/pprof"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
)

// awayVerb is the bench's own command that is the workers' process.
const awayVerb = "control-workers"

// awayWorkers are workers in a process of their own, as those of other machines are: neither their connections nor their garbage are the server's.
type awayWorkers struct {
	*ledger
	cmd *exec.Cmd
	// end has the process end; the first line written into it has it begin its profile.
	end io.WriteCloser
}

// newAwayWorkers has the plan's workers join the bus from another process.
func newAwayWorkers(b *bus.Bus, p controlPlan, dir string) (_ *awayWorkers, err error) {
	w := &awayWorkers{}
	file := filepath.Join(dir, "ledger")
	if w.ledger, err = shareLedger(file, p.functions); err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	w.cmd = exec.Command(self, awayVerb, "-url", b.ListenURL(), "-token-file", filepath.Join(b.DataDir(), bus.WorkerTokenFile), "-dir", dir, "-ledger", file,
		"-nodes", strconv.Itoa(p.nodes), "-functions", strconv.Itoa(p.functions))
	w.cmd.Stderr = os.Stderr
	// Workers on machines of their own would not collect the garbage of a thousand on the server's processors.
	w.cmd.Env = append(os.Environ(), "GOGC=off", "GOMEMLIMIT=4GiB")
	if w.end, err = w.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := w.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := w.cmd.Start(); err != nil {
		return nil, err
	}
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		w.close()
		return nil, fmt.Errorf("the workers did not join: %w", err)
	}
	return w, nil
}

// run waits until ctx ends.
func (w *awayWorkers) run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

func (w *awayWorkers) close() {
	_ = w.end.Close()
	_ = w.cmd.Wait()
	_ = w.ledger.close()
}

// noted is the ledger.
func (w *awayWorkers) noted() *ledger { return w.ledger }

// profile has the process write a CPU profile of what is left of its time.
func (w *awayWorkers) profile(file string) error {
	_, err := fmt.Fprintln(w.end, file)
	return err
}

// cpu is the time that the process took of processors.
func (w *awayWorkers) cpu() time.Duration {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", w.cmd.Process.Pid))
	_, rest, ok := strings.Cut(string(data), ") ")
	fields := strings.Fields(rest)
	if err != nil || !ok || len(fields) < 13 {
		return 0
	}
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	return time.Duration(user+system) * 10 * time.Millisecond
}

// Admit takes every request: each function is called once at a time.
func (*awayWorkers) Admit(functions.NodeID, functions.InstanceID) error { return nil }

// Release does nothing: a worker counts an instance as used when it was ready.
func (*awayWorkers) Release(functions.NodeID, functions.InstanceID) {}

// Dial connects to an instance that answers every request with ok.
func (*awayWorkers) Dial(context.Context, functions.NodeID, functions.InstanceID) (net.Conn, error) {
	return &okConn{}, nil
}

// awayMain is the workers' process: it joins, says so, and works until its input ends.
func awayMain(args []string) int {
	flags := flag.NewFlagSet("bench "+awayVerb, flag.ContinueOnError)
	url := flags.String("url", "", "where the server lets workers join")
	token := flags.String("token-file", "", "file with the token for joining")
	dir := flags.String("dir", "", "directory for the workers' directories")
	file := flags.String("ledger", "", "file whose memory the server's process shares")
	nodes := flags.Int("nodes", 0, "workers")
	count := flags.Int("functions", 0, "functions")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	if err := workAway(*url, *token, *dir, *file, *nodes, *count); err != nil {
		fmt.Fprintf(os.Stderr, "bench: the workers failed: %v\n", err)
		return 1
	}
	return 0
}

func workAway(url, tokenFile, dir, file string, nodes, count int) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	l, err := shareLedger(file, count)
	if err != nil {
		return err
	}
	w := &fakeWorkers{ledger: l, nodes: map[functions.NodeID]*fakeNode{}, away: true}
	for i := range count {
		_, rev, err := deployedAs(i)
		if err != nil {
			return err
		}
		w.revisions = append(w.revisions, newFakeRevision(&rev))
	}
	token, err := bus.ReadToken(tokenFile)
	if err != nil {
		return err
	}
	defer w.close()
	for i := range nodes {
		link, err := bus.Join(bus.JoinConfig{DataDir: filepath.Join(dir, fmt.Sprintf("worker-%04d", i)), URL: url, Token: token}, slog.New(slog.DiscardHandler))
		if err != nil {
			return err
		}
		w.hangUp = append(w.hangUp, func() { link.Close(context.Background()) })
		w.add(link.Identity().Node, i, link.Conn())
	}
	fmt.Println("joined")
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return w.run(ctx) })
	g.Go(func() error { return errors.Join(errEnd, profileFrom(os.Stdin)) })
	if err := g.Wait(); !errors.Is(err, errEnd) {
		return err
	}
	return nil
}

// profileFrom writes a CPU profile into the file that the input names, if it does, until the input ends.
func profileFrom(in io.Reader) error {
	said := bufio.NewScanner(in)
	if !said.Scan() {
		return said.Err()
	}
	f, err := os.Create(said.Text())
	if err != nil {
		return err
	}
	defer f.Close()
	if err := pprof.StartCPUProfile(f); err != nil {
		return err
	}
	defer pprof.StopCPUProfile()
	_, err = io.Copy(io.Discard, in)
	return err
}

// errEnd says that the server's process wants no more.
var errEnd = errors.New("the input has ended")
