package obs

import (
	"context"
	"log/slog"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// collector turns one Sample into metrics at each scrape: nothing is counted twice and a function that is gone leaves no series.
type collector struct {
	src     Source
	timeout time.Duration
	log     *slog.Logger

	schedulerUp, streams                               *prometheus.Desc
	requests, errors, cold, inFlight, waiting, latency *prometheus.Desc
	instances, desired, startFailures                  *prometheus.Desc
	queueDepth, queueDead, queueOldest                 *prometheus.Desc
	nodeUp, nodeCPU, nodeMemory                        *prometheus.Desc
	serverUp, serverLeads                              *prometheus.Desc
}

func newCollector(src Source, timeout time.Duration, log *slog.Logger) *collector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("tatami_"+name, help, labels, nil)
	}
	fn := func(name, help string, more ...string) *prometheus.Desc {
		return desc(name, help, append([]string{"namespace", "function"}, more...)...)
	}
	return &collector{
		src: src, timeout: timeout, log: log,
		schedulerUp:   desc("scheduler_up", "Whether the scheduler answers."),
		streams:       desc("dashboard_streams", "Open streams of the dashboard."),
		requests:      fn("function_requests_total", "Invocations answered, by class of the function's HTTP status or by the code of the fault.", "code"),
		errors:        fn("function_errors_total", "Invocations that failed: the platform's faults and the function's 5xx."),
		cold:          fn("function_cold_starts_total", "Invocations that waited for an instance to start."),
		inFlight:      fn("function_in_flight", "Invocations that run now."),
		waiting:       fn("function_waiting", "Invocations that wait for a free slot."),
		latency:       fn("function_latency_seconds", "Time to the end of the answer over the last minute.", "quantile"),
		instances:     fn("function_instances", "Instances by state.", "state"),
		desired:       fn("function_instances_desired", "Instances that autoscaling wants."),
		startFailures: fn("function_start_failures_total", "Instances that never became ready."),
		queueDepth:    fn("queue_depth", "Queued invocations: pending wait for a slot, scheduled for their time, running are in an attempt.", "state"),
		queueDead:     fn("queue_dead", "Dead letters."),
		queueOldest:   fn("queue_oldest_seconds", "Age of the oldest queued invocation that waits."),
		serverUp:      desc("server_up", "Whether the server of the cluster is heard by the one that tells this.", "peer", "name"),
		serverLeads:   desc("server_leads", "Whether the server of the cluster leads.", "peer", "name"),
		nodeUp:        desc("node_up", "Whether the node reports.", "node", "name"),
		nodeCPU:       desc("node_cpu_cores", "Processors of the node: capacity, allocatable, reserved by placements, used.", "node", "name", "kind"),
		nodeMemory:    desc("node_memory_bytes", "Memory of the node: capacity, allocatable, reserved by placements, used.", "node", "name", "kind"),
	}
}

// Describe sends every description there is.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		c.schedulerUp, c.streams, c.requests, c.errors, c.cold, c.inFlight, c.waiting, c.latency, c.instances, c.desired,
		c.startFailures, c.queueDepth, c.queueDead, c.queueOldest, c.nodeUp, c.nodeCPU, c.nodeMemory, c.serverUp, c.serverLeads,
	} {
		ch <- d
	}
}

// Collect reads the source once.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), c.timeout)
	defer cancel()
	s, err := c.src.Sample(ctx)
	if err != nil {
		c.log.Warn("metrics are not complete", Err(err), Kind(err))
		ch <- prometheus.NewInvalidMetric(c.schedulerUp, err)
		return
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		send(ch, d, prometheus.GaugeValue, v, labels)
	}
	gauge(c.schedulerUp, boolean(s.SchedulerUp))
	gauge(c.streams, float64(s.StreamClients))
	for i := range s.Functions {
		c.function(ch, &s.Functions[i])
	}
	for _, v := range s.Servers {
		gauge(c.serverUp, boolean(v.Up), v.Peer, v.Name)
		gauge(c.serverLeads, boolean(v.Leads), v.Peer, v.Name)
	}
	for _, n := range s.Nodes {
		gauge(c.nodeUp, boolean(n.Up), n.ID, n.Name)
		for _, k := range []struct {
			kind        string
			cpu, memory int64
		}{
			{"capacity", n.CPU.Capacity, n.Memory.Capacity},
			{"allocatable", n.CPU.Allocatable, n.Memory.Allocatable},
			{"reserved", n.CPU.Reserved, n.Memory.Reserved},
			{"used", n.CPU.Used, n.Memory.Used},
		} {
			gauge(c.nodeCPU, float64(k.cpu)/1000, n.ID, n.Name, k.kind)
			gauge(c.nodeMemory, float64(k.memory), n.ID, n.Name, k.kind)
		}
	}
}

func (c *collector) function(ch chan<- prometheus.Metric, f *FunctionSample) {
	gauge := func(d *prometheus.Desc, v float64, more ...string) {
		send(ch, d, prometheus.GaugeValue, v, append([]string{f.Namespace, f.Function}, more...))
	}
	counter := func(d *prometheus.Desc, v uint64, more ...string) {
		send(ch, d, prometheus.CounterValue, float64(v), append([]string{f.Namespace, f.Function}, more...))
	}
	for class, n := range classes(f.Codes) {
		counter(c.requests, n, class)
	}
	counter(c.errors, f.Errors)
	counter(c.cold, f.ColdStarts)
	gauge(c.inFlight, float64(f.InFlight))
	gauge(c.waiting, float64(f.Waiting))
	if f.P50 >= 0 && f.P99 >= 0 {
		gauge(c.latency, f.P50.Seconds(), "0.5")
		gauge(c.latency, f.P99.Seconds(), "0.99")
	}
	for state, n := range f.Instances {
		gauge(c.instances, float64(n), state)
	}
	gauge(c.desired, float64(f.Desired))
	counter(c.startFailures, f.StartFailures)
	gauge(c.queueDepth, float64(f.Pending), "pending")
	gauge(c.queueDepth, float64(f.Scheduled), "scheduled")
	gauge(c.queueDepth, float64(f.Running), "running")
	gauge(c.queueDead, float64(f.Dead))
	gauge(c.queueOldest, f.OldestAge.Seconds())
}

// send makes the metric; a label that is not UTF-8 is mended, because one bad name must not spoil the scrape.
func send(ch chan<- prometheus.Metric, d *prometheus.Desc, t prometheus.ValueType, v float64, labels []string) {
	for i, l := range labels {
		labels[i] = strings.ToValidUTF8(l, "\uFFFD")
	}
	m, err := prometheus.NewConstMetric(d, t, v, labels...)
	if err != nil {
		m = prometheus.NewInvalidMetric(d, err)
	}
	ch <- m
}

// classes sums the counts of statuses by class: "404" counts as "4xx". Anything else keeps its name.
func classes(codes map[string]uint64) map[string]uint64 {
	out := make(map[string]uint64, 5)
	for code, n := range codes {
		if len(code) == 3 && code[0] >= '1' && code[0] <= '5' {
			code = code[:1] + "xx"
		}
		out[code] += n
	}
	return out
}

func boolean(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
