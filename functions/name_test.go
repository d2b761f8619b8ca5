package functions_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/fault"
)

var nameRule = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

func TestValidateName(t *testing.T) {
	t.Parallel()
	for name, ok := range map[string]bool{
		"a": true, "0": true, "hello": true, "a-b": true, "a--b": true, strings.Repeat("a", 63): true,
		"": false, "-a": false, "a-": false, "-": false, "A": false, "a_b": false, "a.b": false, "ä": false, "a b": false, "a\n": false,
		strings.Repeat("a", 64): false, "../x": false, "a/b": false,
	} {
		err := functions.ValidateName("function", name)
		if (err == nil) != ok {
			t.Errorf("%q: %v", name, err)
		}
		if err != nil && (fault.CodeOf(err) != fault.CodeInvalidRequest || fault.From(err).Hint == "") {
			t.Errorf("%q: code %s without a hint", name, fault.CodeOf(err))
		}
	}
}

func TestValidateNodeName(t *testing.T) {
	t.Parallel()
	for name, ok := range map[string]bool{
		"a": true, "0": true, "Rack1": true, "rack1.example.com": true, "ip-10-0-0-1": true, "my_host": true, "a..b": true, strings.Repeat("a", 253): true,
		"": false, "-a": false, "a-": false, "a.": false, ".a": false, "_": false, "a b": false, "a/b": false, "a\n": false, "a\x1b[2J": false, "ä": false, "a'b": false, "*": false,
		strings.Repeat("a", 254): false,
	} {
		err := functions.ValidateNodeName("node-name", name)
		if (err == nil) != ok {
			t.Errorf("%q: %v", name, err)
		}
		if f := fault.From(err); err != nil && (f.Code != fault.CodeInvalidRequest || f.Field != "node-name" || f.Hint == "") {
			t.Errorf("%q: %+v", name, f)
		}
	}
}

func FuzzParseRef(f *testing.F) {
	for _, s := range []string{"hello", "hello.prod", "a.b.c", ".", "", "x.", "-.-"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		ref, err := functions.ParseRef(s)
		if err != nil {
			return
		}
		if !nameRule.MatchString(ref.Name) || !nameRule.MatchString(ref.Namespace) {
			t.Fatalf("%q gave %+v", s, ref)
		}
		again, err := functions.ParseRef(ref.String())
		if err != nil || again != ref {
			t.Fatalf("%q: %+v reads back as %+v, %v", s, ref, again, err)
		}
	})
}

func TestIDs(t *testing.T) {
	t.Parallel()
	ref := functions.Ref{Namespace: "default", Name: "hello"}
	a, b := functions.NewInvocationID(ref), functions.NewInvocationID(ref)
	if a == b {
		t.Fatal("two invocations have one id")
	}
	if h, ok := a.FunctionHash(); !ok || h != ref.Hash() || len(h) != 10 {
		t.Errorf("hash %q, %v", h, ok)
	}
	for _, bad := range []functions.InvocationID{"", "inv_", "inv_" + "x", a + "a", "INV" + a[3:], a[:len(a)-1] + "1", "inv_*.>"} {
		if h, ok := bad.FunctionHash(); ok {
			t.Errorf("%q has the hash %q", bad, h)
		}
	}
	if !functions.NewInstanceID().Valid() || !functions.NewNodeID().Valid() || functions.InstanceID("ins_../../x").Valid() {
		t.Error("validity of instance and node ids")
	}
	// What is stored under a hash must be found by later releases.
	golden(t, "hash.txt", ref.Hash())
}

func TestRevisionIDFollowsContent(t *testing.T) {
	t.Parallel()
	ref := functions.Ref{Namespace: "default", Name: "hello"}
	art := functions.Artifact{Digest: "sha256:" + strings.Repeat("a", 64), Architecture: "amd64", Name: "./hello"}
	cfg := functions.Config{}.WithDefaults()
	id := func(r functions.Ref, a functions.Artifact, c functions.Config) functions.RevisionID {
		v, err := functions.RevisionIDOf(r, a, c)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	first := id(ref, art, cfg)
	renamed := art
	renamed.Name = "/elsewhere"
	if id(ref, renamed, cfg) != first {
		t.Error("what people call the artifact changes the id")
	}
	other := cfg
	other.Env = map[string]string{"A": "1"}
	if id(ref, art, other) == first || id(functions.Ref{Namespace: "x", Name: "hello"}, art, cfg) == first {
		t.Error("other content has the same id")
	}
	// An unchanged function keeps its revision across releases: a field that is new must not show where it is not set.
	golden(t, "revision-id.txt", string(first))
}

// The names of queues and of what runs are wider than those of functions, each by one form.
func TestNamesBesideFunctions(t *testing.T) {
	t.Parallel()
	hello := functions.Ref{Namespace: "default", Name: "hello"}
	for s, want := range map[string]functions.Ref{
		"hello": hello, "hello@success": hello.Deliveries("success"), "hello@failure.team": functions.Ref{Namespace: "team", Name: "hello"}.Deliveries("failure"),
	} {
		if got, err := functions.ParseQueue(s); err != nil || got != want || got.ValidateQueue() != nil {
			t.Errorf("%s: %v, %v", s, got, err)
		}
	}
	for _, s := range []string{"hello@", "hello@end", "@success", "he llo@success", "hello@success.a.b", "hello=rev_x"} {
		if got, err := functions.ParseQueue(s); err == nil {
			t.Errorf("%s: %v", s, got)
		}
	}
	const rev = functions.RevisionID("rev_abcdefghijklmnop")
	p := hello.Pinned(rev)
	if of, id, ok := p.PinnedTo(); !ok || of != hello || id != rev || p.ValidateRunning() != nil || p.Validate() == nil {
		t.Errorf("%v", p)
	}
	for _, bad := range []functions.Ref{hello.Pinned("rev_x"), {Namespace: "a b", Name: "x"}, hello.Deliveries("success")} {
		if bad.ValidateRunning() == nil {
			t.Errorf("%v runs", bad)
		}
	}
	inv := functions.NewInvocationID(hello)
	to := hello.Deliveries("success")
	if id := functions.DeliveryID(to, inv); id != functions.DeliveryID(to, inv) || id == functions.DeliveryID(hello.Deliveries("failure"), inv) || id == inv {
		t.Errorf("%s", id)
	} else if hash, ok := id.FunctionHash(); !ok || hash != to.Hash() {
		t.Errorf("%s", id)
	}
}
