package pki_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/internal/fault"
	"github.com/tatami-faas/tatami/internal/pki"
)

func succeed(t *testing.T, a *pki.Authority) *pki.Authority {
	t.Helper()
	next, err := a.Succeed(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	data, err := next.Encode()
	if err != nil {
		t.Fatal(err)
	}
	again, err := pki.ParseAuthority(data)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(again.Trust().Pins(), next.Trust().Pins()) || again.Before() == nil || again.Before().Trust().Pin() != a.Trust().Pin() {
		t.Fatalf("read again it is %v after %v", again.Trust().Pins(), again.Before())
	}
	return again
}

// While an authority takes the place of another one, everybody lets everybody in, whichever of them has heard of it; then the old one counts no longer.
func TestAnAuthorityIsReplaced(t *testing.T) {
	t.Parallel()
	before := authority(t)
	both := succeed(t, before)
	after := both.Retire()
	for name, c := range map[string]struct {
		dials, listens *pki.Authority
		// refuses says who of the two refuses the other.
		dialed, listened bool
	}{
		"nobody has heard":           {before, before, false, false},
		"who dials has heard":        {both, before, false, false},
		"who listens has heard":      {before, both, false, false},
		"both have heard":            {both, both, false, false},
		"who dials is through":       {after, both, false, false},
		"who listens is through":     {both, after, false, false},
		"both are through":           {after, after, false, false},
		"who dials has not heard":    {before, after, true, true},
		"who listens has not heard":  {after, before, true, true},
		"somebody else's takes part": {both, succeed(t, authority(t)), true, true},
	} {
		dials := keeper(t, c.dials, server, time.Hour).Reach(pki.Just(worker))
		dialed, _ := meet(t, dials, keeper(t, c.listens, worker, time.Hour).Ask())
		if fault.Is(dialed, fault.CodeDenied) != c.dialed {
			t.Errorf("%s: who dials says %v", name, dialed)
		}
		dials = keeper(t, c.dials, server, time.Hour).Reach(pki.Just(worker))
		dials.VerifyConnection = nil
		_, listened := meet(t, dials, keeper(t, c.listens, worker, time.Hour).Admit(pki.Only(pki.RoleServer), ignore))
		if fault.Is(listened, fault.CodeDenied) != c.listened {
			t.Errorf("%s: who listens says %v", name, listened)
		}
	}
	// A token of before is good until the old one is retired.
	for a, good := range map[*pki.Authority]bool{before: true, both: true, after: false} {
		dialed, _ := meet(t, pki.Meet(before.Trust().Pin(), func(*pki.Trust) {}), keeper(t, a, server, time.Hour).Ask())
		if (dialed == nil) != good {
			t.Errorf("with the old one's pin: %v", dialed)
		}
	}
}

func TestALineageIsKept(t *testing.T) {
	t.Parallel()
	first := authority(t)
	second := succeed(t, first)
	if _, err := second.Succeed(time.Now()); !fault.Is(err, fault.CodeConflict) {
		t.Errorf("a third one, while the first is trusted: %v", err)
	}
	second = second.Retire()
	third := succeed(t, second).Retire()
	data, err := third.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if third, err = pki.ParseAuthority(data); err != nil {
		t.Fatal(err)
	}
	for _, a := range []*pki.Authority{first, second, third} {
		if !third.Descends(a.Trust().Pin()) {
			t.Errorf("%s is forgotten", a.Trust().Pin())
		}
	}
	if first.Descends(third.Trust().Pin()) || third.Trust().Has(first.Trust().Pin()) || third.Descends(authority(t).Trust().Pin()) {
		t.Error("it knows, or believes, too many")
	}
	if third.Before() != nil || time.Since(third.Began()) > time.Minute {
		t.Errorf("it came %v, after %v", third.Began(), third.Before())
	}
	identity := func(a *pki.Authority) *pki.Identity {
		t.Helper()
		i, err := a.Identify(worker, time.Hour, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		return i
	}
	i := identity(third).After(identity(second).After(identity(first)))
	if data, err = i.Encode(); err != nil {
		t.Fatal(err)
	}
	if i, err = pki.ParseIdentity(data); err != nil {
		t.Fatal(err)
	}
	for _, a := range []*pki.Authority{first, second, third} {
		if !i.Descends(a.Trust().Pin()) {
			t.Errorf("the worker has forgotten %s", a.Trust().Pin())
		}
	}
	if i.Descends(authority(t).Trust().Pin()) || i.Trust().Has(first.Trust().Pin()) {
		t.Error("the worker knows, or believes, too many")
	}
}

func TestSuccessionsThatAreNone(t *testing.T) {
	t.Parallel()
	encode := func(a *pki.Authority) []string {
		t.Helper()
		data, err := a.Encode()
		if err != nil {
			t.Fatal(err)
		}
		return strings.SplitAfter(string(data), "-----\n")
	}
	one, other := succeed(t, authority(t)), succeed(t, authority(t))
	a, b := encode(one), encode(other)
	if len(a) != 11 {
		t.Fatalf("an authority with the one before has %d lines of PEM", len(a))
	}
	for name, lines := range map[string][]string{
		"another one's link":       slices.Concat(a[:8], b[8:]),
		"another one before":       slices.Concat(a[:4], b[4:]),
		"no link":                  a[:8],
		"a certificate too many":   slices.Concat(a, b[8:]),
		"a key of somebody else":   slices.Concat(a[:4], b[4:6], a[6:]),
		"a lineage that is no one": {strings.Replace(strings.Join(a, ""), "PRIVATE KEY-----\n", "PRIVATE KEY-----\nPast: x\n\n", 1)},
	} {
		if _, err := pki.ParseAuthority([]byte(strings.Join(lines, ""))); err == nil {
			t.Errorf("taken: %s", name)
		}
	}
}
