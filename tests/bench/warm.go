package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"time"
)

const warmSpec = "cpu: 1500m\nmemory: 256Mi\nconcurrency: 100\nscale: {min: 1, max: 1, keepAlive: 1h, awake: true}\n"

// warmPhase is how long each load lasts.
var warmPhase = 2 * time.Second

// warmMetrics are measured of each contender, in the order in which they are printed.
var warmMetrics = []struct{ metric, unit string }{
	{"p50_us_c1", "us"}, {"p99_us_c1", "us"}, {"rps_c1", "1/s"}, {"rps_c32", "1/s"}, {"p50_us_c32", "us"}, {"p99_us_c32", "us"},
	{"p99_us_open30", "us"}, {"cpu_us_per_call_c32", "us"},
}

// warmWay is a way to the instance.
type warmWay struct {
	name, addr, path string
	// netns is a process in whose network namespace the client runs; 0 for the machine's own.
	netns int
	// awake says that processors are kept awake meanwhile, brief that it takes half the time.
	awake, brief bool
}

// load runs the load generator on it for a phase.
func (w warmWay) load(ctx context.Context, o loadOptions) (r loadResult, err error) {
	if o.d, o.netns = warmPhase, w.netns; w.brief {
		o.d /= 2
	}
	if !w.awake {
		return load(ctx, w.addr, w.path, o)
	}
	err = whileAwake(func() error {
		r, err = load(ctx, w.addr, w.path, o)
		return err
	})
	return r, err
}

// benchWarm measures calls to one running instance, then the gateway again with many functions deployed.
func benchWarm(ctx context.Context, binary string) (figures []figure, err error) {
	s, err := startServer(ctx, binary)
	if err != nil {
		return nil, err
	}
	defer func() { err = s.stopAfter(err) }()
	if err := s.deploy(ctx, "warm", "plain", warmSpec); err != nil {
		return nil, err
	}
	pid, err := s.instancePID(ctx, "warm")
	if err != nil {
		return nil, err
	}
	tatami := warmWay{name: "tatami", addr: s.Public, path: "/fn/warm"}
	direct := warmWay{name: "direct", addr: "127.0.0.1:8080", path: "/", netns: pid}
	m, ways, err := warmBeside(ctx, binary, tatami, direct)
	if err != nil {
		return nil, err
	}
	for _, w := range warmMetrics {
		for _, base := range ways {
			figures = append(figures, beside("warm", w.metric, w.unit, median(m["tatami"][w.metric]), base, median(m[base][w.metric]), rounds))
		}
	}
	if flatFunctions <= 1 {
		return figures, nil
	}
	if err := s.deployMany(ctx, "warm", flatFunctions-1); err != nil {
		return nil, err
	}
	many := measures{}
	if err := many.rounds(ctx, []warmWay{direct, tatami}); err != nil {
		return nil, err
	}
	for _, w := range warmMetrics {
		if w.metric == "p50_us_c1" || w.metric == "rps_c32" {
			name := fmt.Sprintf("%s_f%d", w.metric, flatFunctions)
			figures = append(figures,
				beside("warm", name, w.unit, median(many["tatami"][w.metric]), "one-function", median(m["tatami"][w.metric]), rounds),
				beside("warm", name, w.unit, median(many["tatami"][w.metric]), "direct", median(many["direct"][w.metric]), rounds))
		}
	}
	return figures, nil
}

// warmBeside measures the gateway beside other ways to the instance: directly and through nginx, both from inside its network namespace, and through the
// standard library's ReverseProxy and a bare hop, which reach it as the gateway does. On an equal footing, too: all but ReverseProxy with the
// processors kept awake, as the gateway has them where that pays, and a gateway that lets them sleep. It returns the names of these ways.
func warmBeside(ctx context.Context, binary string, tatami, direct warmWay) (m measures, names []string, err error) {
	proxy, err := startReverseProxy(direct.netns)
	if err != nil {
		return nil, nil, err
	}
	defer proxy.Close()
	between, err := startHop(direct.netns)
	if err != nil {
		return nil, nil, err
	}
	defer between.stop()
	front, err := startNginx(ctx, direct.netns)
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = front.stopAfter(err) }()
	sleepy, err := startServer(ctx, binary, "--stay-awake=never", "--sandbox-pool=0")
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = sleepy.stopAfter(err) }()
	if err := sleepy.deploy(ctx, "warm", "plain", warmSpec); err != nil {
		return nil, nil, err
	}

	nginx := warmWay{name: "nginx", addr: fmt.Sprintf("127.0.0.1:%d", nginxPort), path: "/", netns: direct.netns}
	bare := warmWay{name: "hop", addr: between.listener.Addr().String(), path: "/"}
	ways := []warmWay{
		direct, nginx, {name: "reverseproxy", addr: proxy.addr, path: "/"}, bare, {name: "stay-awake-never", addr: sleepy.Public, path: tatami.path, brief: true},
	}
	if canBeAwake() {
		for _, w := range []warmWay{direct, nginx, bare} {
			w.name, w.awake, w.brief = w.name+"-awake", true, true
			ways = append(ways, w)
		}
	}
	for _, w := range ways {
		names = append(names, w.name)
	}
	m = measures{}
	return m, names, m.rounds(ctx, append(ways, tatami))
}

// measures holds the samples of each contender's metrics.
type measures map[string]map[string][]float64

func (m measures) add(way, metric string, v float64) {
	if m[way] == nil {
		m[way] = map[string][]float64{}
	}
	m[way][metric] = append(m[way][metric], v)
}

// rounds lets the contenders take turns; the first of them is the direct connection, whose rate the open loop goes by.
func (m measures) rounds(ctx context.Context, contenders []warmWay) error {
	for round := range rounds {
		for i := range contenders {
			if err := m.closed(ctx, contenders[(i+round)%len(contenders)]); err != nil {
				return err
			}
		}
		rate := 0.3 * median(m[contenders[0].name]["rps_c1"])
		for i := range contenders {
			c := contenders[(i+round)%len(contenders)]
			r, err := c.load(ctx, loadOptions{conns: 4, rate: rate})
			if err != nil {
				return err
			}
			m.add(c.name, "p99_us_open30", r.P99us)
		}
	}
	return nil
}

// closed measures one contender, each connection asking again as soon as it is answered.
func (m measures) closed(ctx context.Context, c warmWay) error {
	r, err := c.load(ctx, loadOptions{conns: 1})
	if err != nil {
		return err
	}
	m.add(c.name, "p50_us_c1", r.P50us)
	m.add(c.name, "p99_us_c1", r.P99us)
	m.add(c.name, "rps_c1", r.RPS)
	before, err := cpuBusy()
	if err != nil {
		return err
	}
	if r, err = c.load(ctx, loadOptions{conns: 32}); err != nil {
		return err
	}
	after, err := cpuBusy()
	if err != nil {
		return err
	}
	m.add(c.name, "rps_c32", r.RPS)
	m.add(c.name, "p50_us_c32", r.P50us)
	m.add(c.name, "p99_us_c32", r.P99us)
	m.add(c.name, "cpu_us_per_call_c32", float64((after-before).Microseconds())/float64(r.Requests))
	return nil
}

// cpuBusy is how long the machine's processors have worked: client, proxy and function together.
func cpuBusy() (time.Duration, error) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	// user, nice, system, idle, iowait, irq, softirq, in hundredths of a second.
	var f [7]int64
	if _, err := fmt.Sscanf(string(b), "cpu %d %d %d %d %d %d %d", &f[0], &f[1], &f[2], &f[3], &f[4], &f[5], &f[6]); err != nil {
		return 0, fmt.Errorf("reading /proc/stat: %w", err)
	}
	return time.Duration(f[0]+f[1]+f[2]+f[5]+f[6]) * 10 * time.Millisecond, nil
}

// reverseProxy is the standard library's, on a listener of its own.
type reverseProxy struct {
	*http.Server
	addr string
}

func startReverseProxy(pid int) (*reverseProxy, error) {
	dial, err := dialerInto(pid)
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	target := &url.URL{Scheme: "http", Host: "127.0.0.1:8080"}
	p := &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(target); r.SetXForwarded() },
		Transport: &http.Transport{DialContext: dial, MaxIdleConns: 1000, MaxIdleConnsPerHost: 1000, DisableCompression: true},
	}
	s := &reverseProxy{&http.Server{Handler: p}, l.Addr().String()}
	go func() {
		if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			fmt.Println("reverse proxy:", err)
		}
	}()
	return s, nil
}
