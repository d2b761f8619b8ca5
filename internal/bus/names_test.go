package bus

import (
	"strings"
	"testing"

	"github.com/tatami-faas/tatami/functions"
)

func TestParseCall(t *testing.T) {
	t.Parallel()
	shop := functions.Ref{Namespace: "shop", Name: "pay"}
	for subject, caller := range map[string]string{"fn.shop.pay": "", "fn.shop.pay.tok_a": "tok_a"} {
		if ref, who, ok := ParseCall(subject); !ok || ref != shop || who != caller {
			t.Errorf("%s: %s, %q, %v", subject, ref, who, ok)
		}
	}
	for _, subject := range []string{"", "fn", "fn.shop", "fn.shop.pay.tok_a.b", "result.shop.pay", "fnx.shop.pay"} {
		if _, _, ok := ParseCall(subject); ok {
			t.Errorf("%q is a call", subject)
		}
	}
}

func FuzzParseCall(f *testing.F) {
	for _, s := range []string{"fn.a.b", "fn.a.b.tok_c", "fn...", "fn", "result.a.b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, subject string) {
		ref, caller, ok := ParseCall(subject)
		if !ok {
			return
		}
		back := "fn." + ref.Namespace + "." + ref.Name
		if caller != "" {
			back += "." + caller
		}
		if back != strings.TrimSuffix(subject, ".") && back != subject {
			t.Errorf("%q reads as %q", subject, back)
		}
	})
}

// A worker speaks on its own subject for its own node, and for none whose id would go on before that.
func TestOfNode(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		subject string
		node    functions.NodeID
		own     bool
	}{
		{ReportSubject("nod_a"), "nod_a", true},
		{ReportSubject("nod_a"), "nod_b", false},
		{ReportSubject("nod_a"), "od_a", false},
		{ReportSubject("nod_a"), "report.nod_a", false},
		{ReportSubject("nod_a"), "", false},
		{EndpointsSubject("nod_abc"), "nod_abc", false},
		{"tatami.resort.nod_a", "nod_a", false},
		{"", "", false},
		{"", "nod_a", false},
	} {
		if got := OfNode(c.subject, SubjectReports, c.node); got != c.own {
			t.Errorf("%q of %q: %t", c.subject, c.node, got)
		}
	}
}
