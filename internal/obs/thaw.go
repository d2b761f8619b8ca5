package obs

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// ThawSample is how often requests found an instance of this machine frozen, and how long they waited together until it ran again.
type ThawSample struct {
	Count uint64
	Took  time.Duration
}

type thawCollector struct {
	sample func() ThawSample
	thaws  *prometheus.Desc
}

func newThawCollector(sample func() ThawSample) *thawCollector {
	return &thawCollector{sample, prometheus.NewDesc("tatami_instance_thaw_seconds",
		"Requests that found an instance of this machine frozen, and how long they waited until it ran again.", nil, nil)}
}

// Describe sends the description.
func (c *thawCollector) Describe(ch chan<- *prometheus.Desc) { ch <- c.thaws }

// Collect reads the sample once.
func (c *thawCollector) Collect(ch chan<- prometheus.Metric) {
	s := c.sample()
	if m, err := prometheus.NewConstSummary(c.thaws, s.Count, s.Took.Seconds(), nil); err == nil {
		ch <- m
	}
}
