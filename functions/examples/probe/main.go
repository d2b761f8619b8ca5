// Command probe is a function that behaves in every way a function can, well or badly, as the request asks. Tests and benchmarks deploy it.
// It speaks HTTP/1 and HTTP/2 on one port, so it can be deployed with and without `protocol: h2c`.
//
// PROBE_START changes how it starts; several are separated by commas:
//
//	exit            prints a line and exits with code 3
//	never-listen    runs without listening
//	listen-late:2s  listens after a while
//	unready:2s      listens at once; GET /ready answers 503 for a while
//	crash-each      exits with code 1 at each request except GET /ready
//	ignore-sigterm  goes on after SIGTERM
//
// Each path is described where its handler is registered.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// childEnv marks a copy of the process that /fork started: it only sleeps.
const childEnv = "PROBE_CHILD"

func main() {
	if os.Getenv(childEnv) != "" {
		time.Sleep(10 * time.Minute)
		return
	}
	log.SetFlags(0)
	p := &probe{start: starts(os.Getenv("PROBE_START")), began: time.Now()}
	if _, ok := p.start["exit"]; ok {
		log.Print("probe exits as it was told")
		os.Exit(3)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if _, ok := p.start["ignore-sigterm"]; ok {
		stop()
		signal.Ignore(syscall.SIGTERM)
		ctx = context.Background()
	}
	if _, ok := p.start["never-listen"]; ok {
		log.Print("probe does not listen")
		<-ctx.Done()
		return
	}
	if wait, ok := p.start["listen-late"]; ok {
		log.Printf("probe listens in %s", wait)
		time.Sleep(wait)
	}
	if err := p.serve(ctx); err != nil {
		log.Fatal(err)
	}
	log.Print("probe is done")
}

// starts reads PROBE_START.
func starts(s string) map[string]time.Duration {
	out := map[string]time.Duration{}
	for _, word := range strings.Split(s, ",") {
		if word == "" {
			continue
		}
		name, value, _ := strings.Cut(word, ":")
		d, err := time.ParseDuration(value)
		if value != "" && err != nil {
			log.Fatalf("PROBE_START: %v", err)
		}
		out[name] = d
	}
	return out
}

// probe is the function's state.
type probe struct {
	start                            map[string]time.Duration
	began                            time.Time
	requests, active, peak, vanished atomic.Int64
	children                         atomic.Int64
}

func (p *probe) serve(ctx context.Context) error {
	port := os.Getenv("PORT")
	if port == "" {
		port = "8080"
	}
	listener, err := net.Listen("tcp", ":"+port)
	if err != nil {
		return err
	}
	log.Printf("probe listens on port %s as pid %d", port, os.Getpid())
	server := &http.Server{Handler: p.handler(), ReadHeaderTimeout: 30 * time.Second, Protocols: new(http.Protocols)}
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetUnencryptedHTTP2(true)
	stopped := make(chan error, 1)
	go func() {
		<-ctx.Done()
		log.Print("probe was told to stop")
		grace, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		stopped <- server.Shutdown(grace)
	}()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return <-stopped
}

func (p *probe) handler() http.Handler {
	mux := http.NewServeMux()
	// Requests and answers.
	mux.HandleFunc("/", p.echo)             // any method: JSON of the request, body included
	mux.HandleFunc("/echo", p.echo)         // the same; below it every path too
	mux.HandleFunc("/cat", p.cat)           // the body back as it comes, both ways at once
	mux.HandleFunc("/upload", p.upload)     // reads the body to its end: how many bytes, their SHA-256
	mux.HandleFunc("/download", p.download) // ?mb=: so many zero bytes
	mux.HandleFunc("/status", p.status)     // ?code=
	mux.HandleFunc("/sleep", p.sleep)       // ?ms=&log=: answers later, and logs at once; counts callers that vanished
	mux.HandleFunc("/trailers", p.trailers) // request trailers back as JSON, and two trailers of its own
	mux.HandleFunc("/stream", p.stream)     // ?n=&ms=: server-sent events
	mux.HandleFunc("/ws", p.websocket)      // WebSocket echo
	mux.HandleFunc("/endless", p.endless)   // a body without end
	mux.HandleFunc("/broken", p.broken)     // ?mode=short|garbage|reset|header|silent
	// The process.
	mux.HandleFunc("/ready", p.ready)
	mux.HandleFunc("/pid", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, os.Getpid()) })
	mux.HandleFunc("/count", p.count)            // requests, active, peak, vanished callers
	mux.HandleFunc("/env", p.env)                // the environment
	mux.HandleFunc("/whoami", p.whoami)          // user, capabilities, namespaces, interfaces
	mux.HandleFunc("/file", p.file)              // ?path=: GET reads or lists, PUT writes, DELETE removes
	mux.HandleFunc("/dial", p.dial)              // ?addr=&ms=: whether a TCP connection can be made within so long
	mux.HandleFunc("/effect", p.effect)          // ?store=&how=&fail=&after=: tells a store outside of the attempt, after so many ms whoever has left; fail=first or always answers 503
	mux.HandleFunc("/log", p.log)                // ?lines=&bytes=&to=stderr
	mux.HandleFunc("/endless-log", p.endlessLog) // logs without end, from now on
	// Resources.
	mux.HandleFunc("/spin", p.spin)   // ?ms= or ?steps=, &log=: uses CPU, for a time or for some work, and logs at once
	mux.HandleFunc("/oom", p.oom)     // ?mb=: takes memory, without end by default
	mux.HandleFunc("/write", p.write) // ?mb=&dir=/tmp: writes a file; 507 when the disk is full
	mux.HandleFunc("/fork", p.fork)   // ?max=: starts processes until it cannot
	// Ends.
	mux.HandleFunc("/crash", func(http.ResponseWriter, *http.Request) { log.Print("probe crashes"); os.Exit(1) })
	mux.HandleFunc("/exit0", func(http.ResponseWriter, *http.Request) { os.Exit(0) })
	mux.HandleFunc("/panic", func(http.ResponseWriter, *http.Request) {
		go panic("probe panics")
		select {}
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, ok := p.start["crash-each"]; ok && r.URL.Path != "/ready" {
			log.Print("probe crashes at each request")
			os.Exit(1)
		}
		p.requests.Add(1)
		now := p.active.Add(1)
		defer p.active.Add(-1)
		for {
			seen := p.peak.Load()
			if now <= seen || p.peak.CompareAndSwap(seen, now) {
				break
			}
		}
		mux.ServeHTTP(w, r)
	})
}

// number reads a query parameter.
func number(r *http.Request, name string, otherwise int) int {
	s := r.URL.Query().Get(name)
	if s == "" {
		return otherwise
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		return otherwise
	}
	return n
}

func reply(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if err := json.NewEncoder(w).Encode(v); err != nil {
		log.Print(err)
	}
}
