package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/go-chi/chi/v5"

	"github.com/tatami-faas/tatami/functions"
	v1 "github.com/tatami-faas/tatami/gateway/api/v1"
	"github.com/tatami-faas/tatami/gateway/problem"
	"github.com/tatami-faas/tatami/internal/fault"
)

const (
	// logHeartbeat is how often a stream without lines shows that it lives, so that a client that is gone is noticed.
	logHeartbeat = 15 * time.Second
	// logPatience is how long a client may take to read.
	logPatience = 30 * time.Second
	ndjson      = "application/x-ndjson"
	eventStream = "text/event-stream"
)

func (a *API) registerLogs(h huma.API, r chi.Router) {
	r.Get(functionPath+"/logs", a.logs)
	str := func(format string) *huma.Schema { return &huma.Schema{Type: huma.TypeString, Format: format} }
	query := func(name, doc string, s *huma.Schema) *huma.Param {
		return &huma.Param{Name: name, In: "query", Description: doc, Schema: s}
	}
	path := func(name string) *huma.Param {
		return &huma.Param{Name: name, In: "path", Required: true, Schema: str("")}
	}
	op := huma.Operation{
		OperationID: "logs", Method: http.MethodGet, Path: functionPath + "/logs", Summary: "Read a function's logs", Tags: []string{"functions"},
		Description: "One JSON object a line, or server-sent events where the client accepts them. Empty lines keep a stream alive.",
		Parameters: []*huma.Param{
			path("namespace"), path("name"),
			query("follow", "Go on with lines as they are written", &huma.Schema{Type: huma.TypeBoolean}),
			query("since", "Leave out older lines", str("date-time")),
			query("tail", "How many lines at most, of those kept", &huma.Schema{Type: huma.TypeInteger}),
			query("instance", "Lines of this instance only", str("")),
		},
		Responses: map[string]*huma.Response{"200": {Description: "Lines", Content: map[string]*huma.MediaType{
			ndjson: {Schema: h.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[v1.LogLine](), true, "LogLine")}, eventStream: {Schema: str("")},
		}}},
	}
	op.Responses = responses(op)
	h.OpenAPI().AddOperation(&op)
}

func logQuery(r *http.Request) (LogQuery, error) {
	q := LogQuery{Ref: functions.Ref{Namespace: chi.URLParam(r, "namespace"), Name: chi.URLParam(r, "name")}}
	if err := q.Ref.Validate(); err != nil {
		return q, err
	}
	v := r.URL.Query()
	for name := range v {
		if !slices.Contains([]string{"follow", "since", "tail", "instance"}, name) {
			return q, fault.New(fault.CodeInvalidRequest, "%s: unknown query parameter", clip(name)).WithField(clip(name)).
				WithHint("there are follow, since, tail and instance")
		}
	}
	bad := func(field, form string) error {
		return fault.New(fault.CodeInvalidRequest, "%s: %q is not %s", field, v.Get(field), form).WithField(field)
	}
	var err error
	if s := v.Get("follow"); s != "" {
		if q.Follow, err = strconv.ParseBool(s); err != nil {
			return q, bad("follow", "true or false")
		}
	}
	if s := v.Get("since"); s != "" {
		if q.Since, err = time.Parse(time.RFC3339Nano, s); err != nil {
			return q, bad("since", "a time such as 2026-01-31T12:00:00Z")
		}
	}
	if s := v.Get("tail"); s != "" {
		if q.Tail, err = strconv.Atoi(s); err != nil || q.Tail < 0 {
			return q, bad("tail", "a number of lines")
		}
	}
	if q.Instance = functions.InstanceID(v.Get("instance")); q.Instance != "" {
		return q, checkInstance(q.Instance)
	}
	return q, nil
}

func (a *API) logs(w http.ResponseWriter, r *http.Request) {
	q, err := logQuery(r)
	if err == nil {
		_, _, err = a.function(r.Context(), q.Ref)
	}
	if err != nil {
		problem.Write(w, r, err)
		return
	}
	s := newLogStream(w, r, q.Follow)
	ctx, cancel := context.WithCancel(r.Context())
	var beat sync.WaitGroup
	if q.Follow {
		s.start() // the client knows that it is connected before there is a line
		beat.Go(func() { s.beat(ctx) })
	}
	err = a.deps.Logs.Logs(ctx, q, s.line)
	cancel()
	beat.Wait()
	if err == nil || r.Context().Err() != nil || errors.Is(err, errSlow) {
		s.end()
		return
	}
	a.log.Warn("logs ended early", "fn", q.Ref.String(), "err", err)
	if !s.begun() {
		problem.Write(w, r, err)
		return
	}
	// The status is gone: an answer that breaks off is the only way left to say that it is not whole.
	panic(http.ErrAbortHandler)
}

var errSlow = errors.New("the client does not read")

// logStream writes lines as JSON, or as server-sent events.
type logStream struct {
	w      http.ResponseWriter
	ctl    *http.ResponseController
	sse    bool
	follow bool

	mu      sync.Mutex
	started bool
}

func newLogStream(w http.ResponseWriter, r *http.Request, follow bool) *logStream {
	return &logStream{
		w: w, ctl: http.NewResponseController(w), follow: follow, sse: strings.Contains(r.Header.Get("Accept"), eventStream),
	}
}

func (s *logStream) line(l v1.LogLine) error {
	b, err := json.Marshal(l)
	if err != nil {
		return err
	}
	if s.sse {
		b = append([]byte("data: "), append(b, '\n')...)
	}
	return s.write(append(b, '\n'))
}

func (s *logStream) start() { _ = s.write(nil) }

func (s *logStream) write(b []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = s.ctl.SetWriteDeadline(time.Now().Add(logPatience))
	if !s.started {
		s.started = true
		h := s.w.Header()
		h.Set("Content-Type", ndjson)
		if s.sse {
			h.Set("Content-Type", eventStream)
		}
		h.Set("Cache-Control", "no-store")
		h.Set("X-Content-Type-Options", "nosniff")
		s.w.WriteHeader(http.StatusOK)
	}
	if _, err := s.w.Write(b); err != nil {
		return errSlow
	}
	if s.follow {
		if err := s.ctl.Flush(); err != nil {
			return errSlow
		}
	}
	return nil
}

// beat writes an empty line from time to time.
func (s *logStream) beat(ctx context.Context) {
	t := time.NewTicker(logHeartbeat)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			empty := "\n"
			if s.sse {
				empty = ":\n\n"
			}
			if s.write([]byte(empty)) != nil {
				return
			}
		}
	}
}

func (s *logStream) begun() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.started
}

// end answers with no line at all where there was none.
func (s *logStream) end() {
	if !s.begun() {
		s.start()
	}
}
