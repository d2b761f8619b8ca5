package fault_test

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/internal/fault"
	"github.com/tatami-faas/tatami/tests/golden"
)

// The table is an interface: callers match on statuses, codes and exit codes.
func TestTable(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	seen := map[fault.Code]bool{}
	for _, c := range fault.Codes() {
		if seen[c] {
			t.Errorf("%s is listed twice", c)
		}
		seen[c] = true
		fmt.Fprintf(&b, "%-24s %-16s %d exit %d\n", c, c.Kind(), c.Status(), c.Kind().Exit())
	}
	golden.Check(t, "table.txt", b.Bytes())
}

func TestErrorChain(t *testing.T) {
	t.Parallel()
	cause := errors.New("connection refused")
	e := fault.Wrap(fault.CodeUnavailable, cause, "the registry does not answer").WithOp("deploy").WithHint("check the address").WithRetryAfter(time.Second)
	err := fmt.Errorf("outer: %w", e)
	if got := e.Error(); got != "deploy: the registry does not answer: connection refused" {
		t.Errorf("message %q", got)
	}
	if !errors.Is(err, cause) {
		t.Error("the cause is lost")
	}
	if fault.CodeOf(err) != fault.CodeUnavailable || fault.KindOf(err) != fault.Unavailable || !fault.Is(err, fault.CodeUnavailable) {
		t.Errorf("code %s, kind %s", fault.CodeOf(err), fault.KindOf(err))
	}
	if fault.From(err) != e {
		t.Error("From does not find the error")
	}
}

func TestUnclassified(t *testing.T) {
	t.Parallel()
	if fault.CodeOf(nil) != "" || fault.Is(nil, fault.CodeInternal) {
		t.Error("nil has a code")
	}
	plain := errors.New("x")
	if fault.CodeOf(plain) != fault.CodeInternal || fault.KindOf(plain).Exit() != 1 || fault.CodeOf(plain).Status() != 500 {
		t.Error("a plain error is not internal")
	}
	if fault.Code("no-such").Status() != 500 {
		t.Error("an unknown code is not internal")
	}
}
