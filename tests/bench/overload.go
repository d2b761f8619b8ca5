package main

import (
	"context"
	"fmt"
	"time"
)

const (
	overloadSlots   = 20
	overloadService = 50 * time.Millisecond
	overloadRate    = 2000
	overloadSpec    = "cpu: 1000m\nmemory: 128Mi\nconcurrency: 20\nscale: {min: 1, max: 1, keepAlive: 1h}\n"
	overloadPath    = "/fn/busy/sleep?ms=50"
	// Four fifths of what the slots can serve.
	overloadCalm = 0.8 * overloadSlots * float64(time.Second) / float64(overloadService)
)

// benchOverload asks a function for five times what its slots can serve, for a minute, between two times at 80 % of it.
// A recovery within one request is told as the time between two.
func benchOverload(ctx context.Context, binary string) (figures []figure, err error) {
	s, err := startServer(ctx, binary)
	if err != nil {
		return nil, err
	}
	defer func() { err = s.stopAfter(err) }()
	if err := s.deploy(ctx, "busy", "plain", overloadSpec); err != nil {
		return nil, err
	}
	peak, err := load(ctx, s.Public, overloadPath, loadOptions{conns: overloadSlots, d: overloadFor / 12})
	if err != nil {
		return nil, err
	}
	phases := []phase{{"calm", overloadCalm, overloadFor / 3}, {"overload", overloadRate, overloadFor}, {"after", overloadCalm, overloadFor / 6}}
	// Twice an undisturbed call is what the admitted may take.
	r, err := openLoad(ctx, s.Public, overloadPath, 2*overloadService, phases)
	if err != nil {
		return nil, err
	}
	for i, p := range phases {
		fmt.Printf("overload: %-8s %6.0f/s for %v: %d asked, %d answered (p50 %.1f ms, p99 %.1f ms), %d refused (p50 %.2f ms, p99 %.2f ms, at most %.0f ms), generator late by p99 %.2f ms\n",
			p.Name, p.Rate, p.For, r[i].Offered, r[i].Answered, r[i].P50, r[i].P99, r[i].Refused, r[i].RefusalP50, r[i].RefusalP99, r[i].RefusalMost, r[i].LagP99)
		if r[i].LagP99 > 2 {
			fmt.Println("overload: warning: the generator could not keep its own time; latencies hold its delay too")
		}
	}
	calm, over, after := r[0], r[1], r[2]
	if over.Refused == 0 || over.Told != over.Refused {
		return nil, fmt.Errorf("%d requests were refused, %d of them with Retry-After", over.Refused, over.Told)
	}
	goodput := float64(over.Answered) / phases[1].For.Seconds()
	ratio := func(metric string, v, base float64) figure {
		return figure{Bench: "overload", Metric: metric, Value: v / base, Unit: "x", samples: over.Offered}
	}
	return []figure{
		ratio("goodput_ratio", goodput, peak.RPS),
		ratio("admitted_p99_ratio", over.P99, calm.P99),
		{Bench: "overload", Metric: "refusal_p99_ms", Value: over.RefusalP99, Unit: "ms", samples: over.Refused},
		{Bench: "overload", Metric: "recovery_s", Value: max(after.LastBad, 1/overloadCalm), Unit: "s", samples: after.Offered},
		beside("overload", "goodput_per_s", "1/s", goodput, "peak", peak.RPS, over.Answered),
		beside("overload", "admitted_p99_ms", "ms", over.P99, "calm", calm.P99, over.Answered),
	}, nil
}
