package functions_test

import (
	"strings"
	"testing"

	"github.com/tatami-faas/tatami/functions"
)

func TestNearAndApartTakeNamesAndLabels(t *testing.T) {
	t.Parallel()
	for selector, ok := range map[string]bool{
		"cache": true, "tier=cache": true, "app.kubernetes.io/part-of=a b": true, "a=b=c": true,
		"": false, "a b": false, "tier=": false, "=cache": false, "cache.team": false,
		strings.Repeat("k", 64) + "=v": false, "k=" + strings.Repeat("v", 256): false,
	} {
		for field, place := range map[string]functions.Placement{"placement.near": {Near: []string{selector}}, "placement.apart": {Apart: []string{selector}}} {
			c := functions.Config{Placement: place}.WithDefaults()
			problems := c.Problems()
			if (len(problems) == 0) != ok {
				t.Errorf("%s: %q: %v", field, selector, problems)
			}
			for _, p := range problems {
				if p.Field != field {
					t.Errorf("%q: the field is %s, want %s", selector, p.Field, field)
				}
			}
		}
	}
}
