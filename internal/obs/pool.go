package obs

import "github.com/prometheus/client_golang/prometheus"

// PoolSample is what a pool of sandboxes made ahead holds, and how sandboxes were started.
type PoolSample struct {
	// Waiting is how many sandboxes wait, Wanted how many shall.
	Waiting, Wanted int
	// Linked and LinkedWanted are how many of them have a link to the internet, and shall.
	Linked, LinkedWanted int
	// Precreated is how many containers wait that were made ahead for one function each.
	Precreated int
	Starts     []StartSample
}

// StartSample counts the sandboxes started in one way.
type StartSample struct {
	// Path names the way, Reason why a faster one was not taken.
	Path, Reason string
	Count        uint64
}

type poolCollector struct {
	sample                              func() PoolSample
	starts, waiting, linked, precreated *prometheus.Desc
}

func newPoolCollector(sample func() PoolSample) *poolCollector {
	return &poolCollector{
		sample: sample,
		starts: prometheus.NewDesc("tatami_sandbox_starts_total",
			"Sandboxes started on this machine, by the way taken and why a faster one was not.", []string{"path", "reason"}, nil),
		waiting: prometheus.NewDesc("tatami_sandbox_pool", "Sandboxes made ahead: waiting is how many there are, wanted how many there shall be.", []string{"state"}, nil),
		linked: prometheus.NewDesc("tatami_sandbox_pool_links",
			"Sandboxes made ahead, of those of tatami_sandbox_pool, that have a link to the internet for functions with egress.", []string{"state"}, nil),
		precreated: prometheus.NewDesc("tatami_sandbox_precreated", "Containers made ahead that wait, each for one function that cannot start in a sandbox of the pool.", nil, nil),
	}
}

// Describe sends every description there is.
func (c *poolCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- c.starts
	ch <- c.waiting
	ch <- c.linked
	ch <- c.precreated
}

// Collect reads the pool once.
func (c *poolCollector) Collect(ch chan<- prometheus.Metric) {
	s := c.sample()
	for _, st := range s.Starts {
		send(ch, c.starts, prometheus.CounterValue, float64(st.Count), []string{st.Path, st.Reason})
	}
	send(ch, c.waiting, prometheus.GaugeValue, float64(s.Waiting), []string{"waiting"})
	send(ch, c.waiting, prometheus.GaugeValue, float64(s.Wanted), []string{"wanted"})
	send(ch, c.linked, prometheus.GaugeValue, float64(s.Linked), []string{"waiting"})
	send(ch, c.linked, prometheus.GaugeValue, float64(s.LinkedWanted), []string{"wanted"})
	send(ch, c.precreated, prometheus.GaugeValue, float64(s.Precreated), nil)
}
