package live

import (
	"compress/gzip"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/tatami-faas/tatami/gateway/problem"
	"github.com/tatami-faas/tatami/internal/fault"
	"github.com/tatami-faas/tatami/internal/obs"
)

// ServeOverview answers GET /v1/overview with the Snapshot of now.
func (l *Live) ServeOverview(w http.ResponseWriter, r *http.Request) {
	p, err := l.fresh(r.Context())
	if err != nil {
		problem.Write(w, r, err)
		return
	}
	data, err := p.json()
	if err != nil {
		problem.Write(w, r, err)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	out, finish := compressed(w, r, gzip.DefaultCompression)
	_, err = out.Write(data)
	if err == nil {
		err = finish()
	}
	if err != nil {
		l.log.Debug("an overview was not taken", obs.Err(err))
	}
}

// ServeStream answers GET /v1/stream with an event stream: events named snapshot and delta, whose ids a client gives back in Last-Event-ID
// to go on where it was.
func (l *Live) ServeStream(w http.ResponseWriter, r *http.Request) {
	if err := l.feed.enter(l.cfg.MaxStreams); err != nil {
		problem.Write(w, r, err)
		return
	}
	defer l.feed.leave()
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no")
	out, finish := compressed(w, r, gzip.BestSpeed)
	s := stream{w: out, rc: http.NewResponseController(w), timeout: l.cfg.WriteTimeout}
	defer func() { _ = s.rc.SetWriteDeadline(time.Time{}) }()
	err := s.send([]byte("retry: 1000\n\n"))
	seq := l.feed.resume(r.Header.Get("Last-Event-ID"))
	beat := time.NewTimer(l.cfg.Heartbeat)
	defer beat.Stop()
	// Who comes while nobody looked gets a picture of now, not one of up to IdleEvery ago.
	select {
	case l.wanted <- struct{}{}:
	default:
	}
	for err == nil {
		var events []message
		var changed <-chan struct{}
		if events, seq, changed, err = l.feed.after(seq); err != nil {
			break
		}
		if len(events) > 0 {
			if err = s.events(events); err != nil {
				break
			}
			beat.Reset(l.cfg.Heartbeat)
		}
		select {
		case <-changed:
		case <-beat.C:
			err = s.send([]byte(": still here\n\n"))
			beat.Reset(l.cfg.Heartbeat)
		case <-r.Context().Done():
			return
		}
	}
	if fault.Is(err, fault.CodeDraining) {
		// A regular end: the client sees the connection close, not break.
		err = finish()
	}
	if err != nil {
		l.log.Debug("a stream broke", obs.Err(err))
	}
}

// stream writes to one client.
type stream struct {
	w       io.Writer
	rc      *http.ResponseController
	timeout time.Duration
	buf     []byte
}

func (s *stream) events(events []message) error {
	s.buf = s.buf[:0]
	for _, e := range events {
		s.buf = append(s.buf, "id: "+e.id+"\nevent: "+e.event+"\ndata: "...)
		// JSON as the standard library writes it holds no line break.
		s.buf = append(s.buf, e.data...)
		s.buf = append(s.buf, "\n\n"...)
	}
	err := s.send(s.buf)
	if cap(s.buf) > 1<<20 {
		s.buf = nil
	}
	return err
}

// send writes and flushes. A reader that takes nothing for the timeout ends the stream.
func (s *stream) send(data []byte) error {
	// Not every writer has deadlines; without one the request's own context remains.
	_ = s.rc.SetWriteDeadline(time.Now().Add(s.timeout))
	if _, err := s.w.Write(data); err != nil {
		return err
	}
	if f, ok := s.w.(*gzip.Writer); ok {
		if err := f.Flush(); err != nil {
			return err
		}
	}
	return s.rc.Flush()
}

// compressed is w, or a gzip writer onto it where the client takes that; finish ends the latter.
func compressed(w http.ResponseWriter, r *http.Request, level int) (out io.Writer, finish func() error) {
	w.Header().Add("Vary", "Accept-Encoding")
	if !takesGzip(r.Header.Values("Accept-Encoding")) {
		return w, func() error { return nil }
	}
	zw, err := gzip.NewWriterLevel(w, level)
	if err != nil {
		return w, func() error { return nil }
	}
	w.Header().Set("Content-Encoding", "gzip")
	return zw, zw.Close
}

func takesGzip(accept []string) bool {
	for token := range strings.SplitSeq(strings.Join(accept, ","), ",") {
		name, params, _ := strings.Cut(token, ";")
		if strings.TrimSpace(name) != "gzip" {
			continue
		}
		_, q, found := strings.Cut(params, "q=")
		v, err := strconv.ParseFloat(strings.TrimSpace(q), 64)
		return !found || err == nil && v > 0
	}
	return false
}
