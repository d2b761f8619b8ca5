package invoke_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/gateway/invoke"
)

// BenchmarkWarm compares a warm request through the data path with the direct connection to the same backend and with the standard
// library's ReverseProxy, at 1 and at 32 connections, without a body and with one of 1 KiB.
func BenchmarkWarm(b *testing.B) {
	tb := setup(b, invoke.Config{})
	payload := bytes.Repeat([]byte("x"), 1024)
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "text/plain")
		_, _ = w.Write(payload)
	}))
	defer backend.Close()
	rev := tb.deploy("hello", func(c *functions.Config) { c.Concurrency = 100 })
	tb.node.start(b, rev, backend.Listener.Addr().String(), functions.Phases{})
	tb.do("GET", "/fn/hello/", nil)

	target, err := url.Parse(backend.URL)
	if err != nil {
		b.Fatal(err)
	}
	rp := httputil.NewSingleHostReverseProxy(target)
	rp.Transport = &http.Transport{MaxIdleConnsPerHost: 100, DisableCompression: true}
	rp.ErrorLog = log.New(io.Discard, "", 0)
	stdlib := httptest.NewServer(rp)
	defer stdlib.Close()
	defer rp.Transport.(*http.Transport).CloseIdleConnections()

	contenders := []struct{ name, addr, path string }{
		{"direct", backend.Listener.Addr().String(), "/"},
		{"reverseproxy", stdlib.Listener.Addr().String(), "/"},
		{"tatami", tb.front.Listener.Addr().String(), "/fn/hello/"},
	}
	for _, method := range []string{"GET", "POST"} {
		for _, conns := range []int{1, 32} {
			took := map[string]float64{}
			for _, c := range contenders {
				b.Run(fmt.Sprintf("%s/c%d/%s", method, conns, c.name), func(b *testing.B) {
					drive(b, c.addr, rawRequest(method, c.path, payload), conns)
					took[c.name] = float64(b.Elapsed()) / float64(b.N)
					for _, base := range []string{"direct", "reverseproxy"} {
						if took[base] > 0 && base != c.name {
							b.ReportMetric(took[c.name]/took[base], "x-"+base)
						}
					}
				})
			}
		}
	}
}

func rawRequest(method, path string, payload []byte) []byte {
	var r bytes.Buffer
	fmt.Fprintf(&r, "%s %s HTTP/1.1\r\nHost: example.com\r\nUser-Agent: bench/1.0\r\nAccept: */*\r\nAccept-Encoding: gzip\r\n", method, path)
	if method == "POST" {
		fmt.Fprintf(&r, "Content-Type: text/plain\r\nContent-Length: %d\r\n\r\n", len(payload))
		r.Write(payload)
	} else {
		r.WriteString("\r\n")
	}
	return r.Bytes()
}

// drive sends b.N requests over so many connections, each waiting for its answer.
func drive(b *testing.B, addr string, req []byte, conns int) {
	var wg sync.WaitGroup
	work := make(chan struct{}, b.N)
	for range b.N {
		work <- struct{}{}
	}
	close(work)
	clients := make([]net.Conn, conns)
	for i := range clients {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			b.Fatal(err)
		}
		defer c.Close()
		clients[i] = c
	}
	b.ReportAllocs()
	b.ResetTimer()
	for _, c := range clients {
		wg.Go(func() {
			br := bufio.NewReader(c)
			for range work {
				if _, err := c.Write(req); err != nil {
					b.Error(err)
					return
				}
				if err := readAnswer(br); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
}

func readAnswer(br *bufio.Reader) error {
	length := 0
	for first := true; ; first = false {
		line, err := br.ReadSlice('\n')
		if err != nil {
			return err
		}
		if first && !bytes.HasPrefix(line, []byte("HTTP/1.1 200")) {
			return fmt.Errorf("%q", line)
		}
		if len(line) == 2 {
			_, err := br.Discard(length)
			return err
		}
		if k, v, ok := strings.Cut(string(line), ":"); ok && k == "Content-Length" {
			if length, err = strconv.Atoi(strings.TrimSpace(v)); err != nil {
				return err
			}
		}
	}
}
