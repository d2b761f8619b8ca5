package main

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"golang.org/x/term"

	"github.com/tatami-faas/tatami/gateway/client"
	"github.com/tatami-faas/tatami/internal/fault"
)

// Exit codes that are no fault's; see fault.Kind.Exit for the others.
const (
	exitPartial     = 3
	exitInterrupted = 130
)

// app is one run of the CLI: its streams and what the global flags say.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	// out is what stdout is.
	out            *sink
	outTTY, errTTY bool

	// server, socket and tokenFile say which control API is meant; see connect.
	server, socket, tokenFile string
	output                    string
	quiet, noColor            bool

	// ran is the verb that was reached, as it is called; an error before that is one of usage.
	ran string
}

func newApp(stdin io.Reader, stdout, stderr io.Writer) *app {
	out := &sink{w: stdout}
	return &app{stdin: stdin, stdout: out, out: out, stderr: stderr, outTTY: isTerminal(stdout), errTTY: isTerminal(stderr)}
}

// sink remembers that a write failed: a command whose output is lost did not succeed, whatever it did.
type sink struct {
	w   io.Writer
	err error
}

func (s *sink) Write(p []byte) (int, error) {
	n, err := s.w.Write(p)
	if s.err == nil && !errors.Is(err, syscall.EPIPE) { // whoever reads may stop when it has enough
		s.err = err
	}
	return n, err
}

func isTerminal(v any) bool {
	f, ok := v.(*os.File)
	return ok && term.IsTerminal(int(f.Fd())) && os.Getenv("TERM") != "dumb"
}

// errWidth is how many columns the terminal behind stderr has; 80 where it does not tell.
func (a *app) errWidth() int {
	if f, ok := a.stderr.(*os.File); ok {
		if w, _, err := term.GetSize(int(f.Fd())); err == nil && w > 0 {
			return w
		}
	}
	return 80
}

// run executes the command line and returns the exit code.
func (a *app) run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// A second signal ends the program the usual way.
	defer context.AfterFunc(ctx, stop)()
	root := newRootCmd(a)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if a.out.err != nil {
		err = fault.Wrap(fault.CodeInternal, a.out.err, "the output could not be written").WithHint("is the disk full, or the file not writable?")
	}
	return a.exit(ctx, err)
}

// exitError ends with a code; whatever there was to say has been said.
type exitError int

func (e exitError) Error() string { return "failed" }

func (a *app) exit(ctx context.Context, err error) int {
	var code exitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &code):
		return int(code)
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		return exitInterrupted
	case a.ran == "" && fault.From(err) == nil:
		a.printError(usage(err))
		return fault.Invalid.Exit()
	}
	a.printError(err)
	return fault.KindOf(err).Exit()
}

// usage makes a fault of an error of the command line's parser, which may hold suggestions on lines of their own.
func usage(err error) *fault.Error {
	first, rest, _ := strings.Cut(err.Error(), "\n")
	f := fault.New(fault.CodeInvalidRequest, "%s", first).WithHint("tatami --help")
	for line := range strings.SplitSeq(rest, "\n") {
		if s, ok := strings.CutPrefix(line, "\t"); ok {
			return f.WithHint("tatami %s", s)
		}
	}
	return f
}

// printError says what happened, what belongs to it, and what to do next.
func (a *app) printError(err error) {
	f := fault.From(err)
	msg, hint := err.Error(), ""
	if f != nil {
		hint = f.Hint
	}
	if hint == "" {
		hint = a.nextStep(fault.KindOf(err))
	}
	a.say("%s %s\n", a.paint(a.errTTY, red, "error:"), cleanLines(msg))
	if f != nil {
		for _, d := range f.Details {
			if !strings.HasPrefix(d, " ") {
				d = "  " + d
			}
			a.say("%s\n", cleanLines(d))
		}
	}
	label := "hint:"
	if strings.HasPrefix(hint, "tatami ") || strings.HasPrefix(hint, "sudo ") {
		label = "try:"
	}
	a.say("%s %s\n", a.paint(a.errTTY, bold, label), cleanLines(hint))
}

// nextStep stands in where an error brought none.
func (a *app) nextStep(k fault.Kind) string {
	switch k {
	case fault.Invalid:
		return orText(a.ran, "tatami") + " --help"
	case fault.NotFound:
		return "tatami fn ls"
	case fault.FunctionFailed:
		return "tatami logs FUNCTION"
	case fault.Quota:
		return "tatami quota ls"
	default:
		return "tatami doctor"
	}
}

// connect makes a client of the control API that the flags, the environment or the configuration name; else of the local socket.
func (a *app) connect() (*client.Client, error) {
	server := a.server
	if server == "" {
		server = "unix://" + a.socket
	}
	opts := []client.Option{client.WithUserAgent("tatami/" + buildVersion().Version)}
	if t := os.Getenv("TATAMI_TOKEN"); t != "" && a.tokenFile == "" {
		opts = append(opts, client.WithToken(strings.TrimSpace(t)))
	}
	if a.tokenFile != "" {
		b, err := os.ReadFile(a.tokenFile)
		if err != nil {
			return nil, fault.Wrap(fault.CodeInvalidRequest, err, "read the token").WithField("token-file").
				WithHint("on the server's machine, `tatami token show` prints the token")
		}
		opts = append(opts, client.WithToken(strings.TrimSpace(string(b))))
	}
	return client.New(server, opts...)
}
