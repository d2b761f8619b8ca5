package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// stuck is a standard input at which nobody types.
type stuck struct{}

func (stuck) Read([]byte) (int, error) { select {} }

// Whoever waits for input ends when the person at the terminal wants to.
func TestWaitingForInputEnds(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(10*time.Millisecond, cancel)
	if _, err := await(ctx, func() ([]byte, error) { return io.ReadAll(stuck{}) }); !errors.Is(err, context.Canceled) {
		t.Errorf("await: %v", err)
	}
	if _, err := io.ReadAll(endsWith(ctx, stuck{})); !errors.Is(err, context.Canceled) {
		t.Errorf("endsWith: %v", err)
	}
	if b, err := io.ReadAll(endsWith(t.Context(), strings.NewReader("whole"))); err != nil || string(b) != "whole" {
		t.Errorf("%q, %v", b, err)
	}
}

func TestEscape(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]string{
		"/a/b?c=d&e": "/a/b?c=d&e", "/a b?c d": "/a%20b?c%20d", "/%20%zz": "/%20%zz", "/ü#x\n": "/%C3%BC%23x%0A", `/{"a"}`: `/{"a"}`,
	} {
		if got := escape(path); got != want {
			t.Errorf("%q is %q, want %q", path, got, want)
		}
	}
}

// A server that ends during a deploy leaves the deploy open, and the CLI says so.
func TestServerThatEndsDuringADeploy(t *testing.T) {
	t.Parallel()
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	t.Cleanup(s.Close)
	var out, talk bytes.Buffer
	code := newApp(stuck{}, &out, &talk).run([]string{"--server", s.URL, "deploy", "--image", "team/app", "--name", "app"})
	if code != 8 || !strings.Contains(talk.String(), "went away while app was being deployed") || !strings.Contains(talk.String(), "tatami rev ls app") {
		t.Errorf("ended with %d: %s", code, &talk)
	}
}

// The help names a flag's value by one word: what stands between backquotes in a flag's text is taken for it.
func TestFlagsNameTheirValues(t *testing.T) {
	t.Parallel()
	seen := 0
	var visit func(*cobra.Command)
	visit = func(c *cobra.Command) {
		c.LocalFlags().VisitAll(func(f *pflag.Flag) {
			seen++
			if value, usage := pflag.UnquoteUsage(f); strings.Contains(value, " ") || strings.Contains(usage, "`") {
				t.Errorf("%s --%s %s", c.CommandPath(), f.Name, value)
			}
		})
		for _, sub := range c.Commands() {
			visit(sub)
		}
	}
	visit(newRootCmd(newApp(stuck{}, io.Discard, io.Discard)))
	if seen < 100 {
		t.Errorf("only %d flags were looked at", seen)
	}
}
