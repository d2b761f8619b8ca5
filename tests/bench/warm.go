package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"time"
)

const warmSpec = "cpu: 1500m\nmemory: 256Mi\nconcurrency: 100\nscale: {min: 1, max: 1, keepAlive: 1h}\n"

// benchWarm measures calls to one running instance: directly from inside its network namespace, through the standard library's
// ReverseProxy that reaches the instance as the gateway does, and through the gateway.
func benchWarm(ctx context.Context, binary string) (figures []figure, err error) {
	s, err := startServer(ctx, binary)
	if err != nil {
		return nil, err
	}
	defer func() { err = s.stopAfter(err) }()
	if err := s.deploy(ctx, "warm", "hello", warmSpec); err != nil {
		return nil, err
	}
	pid, err := s.instancePID(ctx, "warm")
	if err != nil {
		return nil, err
	}
	proxy, err := startReverseProxy(pid)
	if err != nil {
		return nil, err
	}
	defer proxy.Close()

	type contender struct {
		name, addr, path string
		netns            int
	}
	contenders := []contender{
		{"direct", "127.0.0.1:8080", "/", pid},
		{"reverseproxy", proxy.addr, "/", 0},
		{"tatami", s.Public, "/fn/warm", 0},
	}
	got := map[string]map[string][]float64{}
	add := func(name, metric string, v float64) {
		if got[metric] == nil {
			got[metric] = map[string][]float64{}
		}
		got[metric][name] = append(got[metric][name], v)
	}
	requests := map[string]int{}
	var openRate float64
	for round := range rounds {
		for i := range contenders {
			c := contenders[(i+round)%len(contenders)]
			r, err := load(ctx, c.addr, c.path, loadOptions{conns: 1, d: 2 * time.Second, netns: c.netns})
			if err != nil {
				return nil, err
			}
			add(c.name, "p50_us_c1", r.P50us)
			add(c.name, "p99_us_c1", r.P99us)
			add(c.name, "rps_c1", r.RPS)
			requests["c1"] += r.Requests
			if r, err = load(ctx, c.addr, c.path, loadOptions{conns: 32, d: 2 * time.Second, netns: c.netns}); err != nil {
				return nil, err
			}
			add(c.name, "rps_c32", r.RPS)
			add(c.name, "p50_us_c32", r.P50us)
			add(c.name, "p99_us_c32", r.P99us)
			requests["c32"] += r.Requests
		}
		if openRate == 0 {
			openRate = 0.3 * median(got["rps_c1"]["direct"])
		}
		for i := range contenders {
			c := contenders[(i+round)%len(contenders)]
			r, err := load(ctx, c.addr, c.path, loadOptions{conns: 4, d: 2 * time.Second, rate: openRate, netns: c.netns})
			if err != nil {
				return nil, err
			}
			add(c.name, "p99_us_open30", r.P99us)
		}
	}
	for _, m := range []struct{ metric, unit string }{
		{"p50_us_c1", "us"}, {"p99_us_c1", "us"}, {"rps_c1", "1/s"}, {"rps_c32", "1/s"}, {"p50_us_c32", "us"}, {"p99_us_c32", "us"}, {"p99_us_open30", "us"},
	} {
		for _, base := range []string{"direct", "reverseproxy"} {
			figures = append(figures, beside("warm", m.metric, m.unit, median(got[m.metric]["tatami"]), base, median(got[m.metric][base]), len(got[m.metric]["tatami"])))
		}
	}
	return figures, nil
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
