package bus

import (
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/tatami-faas/tatami/internal/fault"
)

func TestSlotLines(t *testing.T) {
	t.Parallel()
	for want, line := range map[string]SlotLine{
		"A 1 ins_a\n": {SlotAdmit, 1, "ins_a"},
		"P 0 \n":      {SlotPing, 0, ""},
		"N 18446744073709551615 it is full, and drains\n": {SlotRefused, 1<<64 - 1, "it is full, and drains"},
	} {
		got := line.Append([]byte("before"))
		if string(got) != "before"+want {
			t.Errorf("%+v is %q", line, got)
		}
		if back, err := ParseSlotLine([]byte(want)); err != nil || back != line {
			t.Errorf("%q is %+v, %v", want, back, err)
		}
	}
	long := SlotLine{SlotRefused, 7, strings.Repeat("x", 2*MaxSlotLine)}.Append(nil)
	if back, err := ParseSlotLine(long); err != nil || len(long) != MaxSlotLine || back.Sequence != 7 {
		t.Errorf("a long line has %d bytes: %+v, %v", len(long), back, err)
	}
	for _, bad := range []string{"", "\n", "A", "A 1", "A1 x", "B 1 x", "A -1 x", "A x y", "A 1 x\ny", "A 99999999999999999999 x", "A 1 " + strings.Repeat("x", MaxSlotLine)} {
		if l, err := ParseSlotLine([]byte(bad)); fault.KindOf(err) != fault.Invalid {
			t.Errorf("%q is %+v, %v", bad, l, err)
		}
	}
}

func FuzzParseSlotLine(f *testing.F) {
	for _, s := range []string{"A 1 ins_a\n", "P 0 \n", "N 2 no", "A  x", "Y 1 \n\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := ParseSlotLine(b)
		if err != nil {
			return
		}
		if again, err := ParseSlotLine(l.Append(nil)); err != nil || again != l {
			t.Errorf("%q is %+v, then %+v, %v", b, l, again, err)
		}
	})
}

func TestAFaultOverTheListener(t *testing.T) {
	t.Parallel()
	rec := httptest.NewRecorder()
	RespondFault(rec, fault.New(fault.CodeNotFound, "it is not here").WithHint("look elsewhere"))
	got := fault.From(FaultOf(rec.Result()))
	if rec.Code != 404 || got == nil || got.Code != fault.CodeNotFound || got.Message != "it is not here" || got.Hint != "look elsewhere" {
		t.Errorf("%d %+v", rec.Code, got)
	}
	plain := httptest.NewRecorder()
	plain.WriteHeader(502)
	if err := FaultOf(plain.Result()); !fault.Is(err, fault.CodeUnavailable) {
		t.Errorf("an answer of somebody else: %v", err)
	}
}
