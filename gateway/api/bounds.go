package api

import (
	"context"
	"fmt"
	"time"

	"github.com/tatami-faas/tatami/functions"
	v1 "github.com/tatami-faas/tatami/gateway/api/v1"
)

// tellBounds adds to a function's explanation which bounds of its namespace, or of all together, the gateway refuses invocations by now.
func (a *API) tellBounds(ctx context.Context, namespace string, out *v1.Explanation) error {
	all, err := a.quotas(ctx)
	if err != nil || len(all) == 0 {
		return err
	}
	used, err := a.usage(ctx)
	if err != nil {
		return err
	}
	for _, of := range []string{namespace, functions.QuotaTotal} {
		holds, u := all.effective(of), used[of]
		left := u.Left(holds)
		has, begins, command := "namespace "+of+" has", "namespace "+of+" begins", "tatami quota set "+of
		if of == functions.QuotaTotal {
			has, begins, command = "all namespaces together have", "all namespaces together begin", "tatami quota set --total"
		}
		tell := func(text, bound string, more int64) {
			out.Lines = append(out.Lines, v1.Decision{At: time.Now(), Text: text + ", as many as the quota allows: further ones are refused with 429"})
			out.Try = append(out.Try, fmt.Sprintf("%s --%s %d", command, bound, more))
		}
		if left.Concurrent != nil && *left.Concurrent == 0 {
			tell(fmt.Sprintf("%s %d invocations in flight", has, u.Concurrent), "concurrent", 2*holds.Concurrent)
		}
		if left.Rate != nil && *left.Rate < 1 {
			tell(fmt.Sprintf("%s %.4g invocations a second", begins, u.Rate), "rate", 2*holds.Rate)
		}
	}
	return nil
}
