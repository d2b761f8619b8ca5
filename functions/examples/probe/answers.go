package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"strings"
	"time"
)

func (p *probe) echo(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, 8<<20))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Add("Probe-Twice", "one")
	w.Header().Add("Probe-Twice", "two")
	reply(w, http.StatusOK, map[string]any{
		"method": r.Method, "path": r.URL.Path, "uri": r.RequestURI, "query": r.URL.RawQuery, "host": r.Host, "proto": r.Proto,
		"headers": r.Header, "trailers": r.Trailer, "contentLength": r.ContentLength, "transferEncoding": r.TransferEncoding,
		"body": string(body), "pid": os.Getpid(), "remote": r.RemoteAddr,
	})
}

func (p *probe) cat(w http.ResponseWriter, r *http.Request) {
	c := http.NewResponseController(w)
	_ = c.EnableFullDuplex()
	w.Header().Set("Content-Type", "application/octet-stream")
	w.WriteHeader(http.StatusOK)
	_ = c.Flush()
	buf := make([]byte, 32<<10)
	for {
		n, err := r.Body.Read(buf)
		if n > 0 {
			if _, err := w.Write(buf[:n]); err != nil {
				return
			}
			_ = c.Flush()
		}
		if err != nil {
			return
		}
	}
}

func (p *probe) upload(w http.ResponseWriter, r *http.Request) {
	sum := sha256.New()
	n, err := io.Copy(sum, r.Body)
	if err != nil {
		p.vanished.Add(1)
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	reply(w, http.StatusOK, map[string]any{"bytes": n, "sha256": hex.EncodeToString(sum.Sum(nil))})
}

func (p *probe) download(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/octet-stream")
	block := make([]byte, 64<<10)
	for range number(r, "mb", 1) * 16 {
		if _, err := w.Write(block); err != nil {
			p.vanished.Add(1)
			return
		}
	}
}

func (p *probe) status(w http.ResponseWriter, r *http.Request) {
	code := number(r, "code", 200)
	if code < 200 || code > 999 {
		http.Error(w, "code is not between 200 and 999", http.StatusBadRequest)
		return
	}
	if after := r.URL.Query().Get("retry-after"); after != "" {
		w.Header().Set("Retry-After", after)
	}
	w.WriteHeader(code)
	if code != http.StatusNoContent && code != http.StatusNotModified {
		fmt.Fprintf(w, "status %d\n", code)
	}
}

// note logs that a request has come, where it asks for that.
func note(r *http.Request) {
	if text := r.URL.Query().Get("log"); text != "" {
		log.Printf("%s %s %d", text, r.Header.Get("Tatami-Invocation-Id"), time.Now().UnixNano())
	}
}

func (p *probe) sleep(w http.ResponseWriter, r *http.Request) {
	note(r)
	select {
	case <-time.After(time.Duration(number(r, "ms", 1000)) * time.Millisecond):
		fmt.Fprintln(w, "slept")
	case <-r.Context().Done():
		p.vanished.Add(1)
	}
}

func (p *probe) trailers(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Trailer", "Probe-Bytes, Probe-End")
	n, _ := io.Copy(io.Discard, r.Body)
	reply(w, http.StatusOK, r.Trailer)
	w.Header().Set("Probe-Bytes", fmt.Sprint(n))
	w.Header().Set("Probe-End", "yes")
}

func (p *probe) stream(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	c := http.NewResponseController(w)
	pause := time.Duration(number(r, "ms", 100)) * time.Millisecond
	for i := range number(r, "n", 10) {
		if _, err := fmt.Fprintf(w, "id: %d\ndata: {\"n\":%d}\n\n", i, i); err != nil {
			p.vanished.Add(1)
			return
		}
		if err := c.Flush(); err != nil {
			p.vanished.Add(1)
			return
		}
		select {
		case <-time.After(pause):
		case <-r.Context().Done():
			p.vanished.Add(1)
			return
		}
	}
}

func (p *probe) endless(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/plain")
	line := []byte(strings.Repeat("without end ", 340) + "\n")
	for {
		if _, err := w.Write(line); err != nil {
			p.vanished.Add(1)
			return
		}
	}
}

// broken takes the connection over and misbehaves on it.
func (p *probe) broken(w http.ResponseWriter, r *http.Request) {
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer conn.Close()
	switch r.URL.Query().Get("mode") {
	case "garbage":
		fmt.Fprint(rw, "this is not HTTP at all\r\n\r\n")
	case "reset":
	case "header":
		fmt.Fprint(rw, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\nbad header line\r\n\r\n0123456789")
	case "silent":
		// Never answers; ends when the other side does.
		_, _ = io.Copy(io.Discard, conn)
	default:
		fmt.Fprint(rw, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 1000\r\n\r\nonly this")
	}
	_ = rw.Flush()
}
