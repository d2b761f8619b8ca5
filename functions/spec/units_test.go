package spec

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestParseSize(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]int64{
		"128Mi": 128 << 20, "128MiB": 128 << 20, "128 Mi": 128 << 20, "1.5Gi": 3 << 29, "0.5Ki": 512, "500M": 500_000_000, "500MB": 500_000_000,
		"2Ti": 2 << 40, "1k": 1000, "1kB": 1000, "0Mi": 0,
	} {
		if got, err := parseSize(s); err != nil || got != want {
			t.Errorf("%q: got %d, %v", s, got, err)
		}
	}
	for s, meant := range map[string]string{
		"128": "128Mi", "134217728": "128Mi", "128m": "128Mi", "128mb": "128Mi", "64MIB": "64Mi", "1g": "1Gi", "5kib": "5Ki",
		"": "", "Mi": "", "-1Mi": "", "1e3Mi": "", "1.2.3Mi": "", ".Mi": "", "0.0001Ki": "", "128Xi": "", "99999999999999Ti": "",
		"0x10Mi": "", "∞": "", "1_000Mi": "", strings.Repeat("1", 100): "",
	} {
		got, err := parseSize(s)
		if err == nil {
			t.Errorf("%q: accepted as %d", s, got)
			continue
		}
		if has := strings.Contains(err.Error(), "did you mean "+meant+"?"); has != (meant != "") {
			t.Errorf("%q: %v", s, err)
		}
	}
}

func TestParseCPU(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]int64{"250m": 250, "0.25": 250, ".5": 500, "1": 1000, "1.": 1000, "2.001": 2001, "16": 16000} {
		if got, err := parseCPU(s); err != nil || got != want {
			t.Errorf("%q: got %d, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "m", "250M", "0.0001", "1.5m", "-1", "1e3", ".inf", "250 cores", "99999999999999999999", "0.1.2"} {
		if got, err := parseCPU(s); err == nil {
			t.Errorf("%q: accepted as %d", s, got)
		}
	}
}

func TestParseDuration(t *testing.T) {
	t.Parallel()
	if got, err := parseDuration("1h30m"); err != nil || got != 90*time.Minute {
		t.Errorf("got %v, %v", got, err)
	}
	for s, meant := range map[string]string{
		"30": "30s", "0": "0s", "5min": "5m", "10 seconds": "10s", "2d": "48h", "1.5d": "36h", "3hours": "3h", "100millis": "100ms",
		"": "", "s": "", "soon": "", "1:30": "", "9999999d": "", "5y": "", strings.Repeat("1s", 100): "",
	} {
		got, err := parseDuration(s)
		if err == nil {
			t.Errorf("%q: accepted as %v", s, got)
			continue
		}
		if has := strings.Contains(err.Error(), "did you mean "+meant+"?"); has != (meant != "") {
			t.Errorf("%q: %v", s, err)
		}
	}
}

func TestUnitsRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.Int64Range(0, 1<<50).Draw(t, "bytes")
		if got, err := parseSize(formatSize(n)); err != nil || got != n {
			t.Fatalf("%d is written %s and read as %d, %v", n, formatSize(n), got, err)
		}
		m := rapid.Int64Range(0, 1_000_000).Draw(t, "millicores")
		if got, err := parseCPU(formatCPU(m)); err != nil || got != m {
			t.Fatalf("%d is written %s and read as %d, %v", m, formatCPU(m), got, err)
		}
	})
}

func TestDistance(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"a", "", 1}, {"memory", "memry", 1}, {"memroy", "memory", 1}, {"cpu", "gpu", 1}, {"kitten", "sitting", 3}, {"äö", "äu", 1}} {
		if got := distance(c.a, c.b); got != c.want {
			t.Errorf("%q to %q: %d instead of %d", c.a, c.b, got, c.want)
		}
	}
}
