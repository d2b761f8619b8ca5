package beside

import (
	"flag"
	"testing"
)

// What is given stays, and so does what is more.
func TestRaise(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		processors, least int
		given, want       string
	}{
		{2, 8, "", "8"},
		{16, 8, "", "16"},
		{2, 8, "1", "1"},
	} {
		set := flag.NewFlagSet("", flag.ContinueOnError)
		set.Int("test.parallel", c.processors, "")
		if c.given != "" {
			if err := set.Set("test.parallel", c.given); err != nil {
				t.Fatal(err)
			}
		}
		f := set.Lookup("test.parallel")
		if raise(f, c.least); f.Value.String() != c.want {
			t.Errorf("%+v: %s", c, f.Value)
		}
	}
}
