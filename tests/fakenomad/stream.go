package fakenomad

import (
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/nomad/api"
)

// event is one event with what it is filtered by.
type event struct {
	api.Event
	keys []string
}

// tell adds an event at an index. The oldest are forgotten.
func (c *Cluster) tell(index uint64, topic api.Topic, kind, key string, keys []string, payload any) {
	var plain any
	b, err := json.Marshal(payload)
	if err == nil {
		err = json.Unmarshal(b, &plain)
	}
	if err != nil {
		panic(err)
	}
	c.events = append(c.events, event{
		Event: api.Event{Topic: topic, Type: kind, Key: key, FilterKeys: keys, Index: index, Payload: map[string]any{string(topic): plain}}, keys: append(keys, key),
	})
	if over := len(c.events) - c.cfg.Events; over > 0 {
		c.events = slices.Delete(c.events, 0, over)
		c.first += over
	}
}

// wanted reads which events a stream is for.
type wanted map[api.Topic][]string

func topics(r *http.Request) wanted {
	out := wanted{}
	for _, t := range r.URL.Query()["topic"] {
		topic, key, _ := strings.Cut(t, ":")
		if key == "" {
			key = "*"
		}
		out[api.Topic(topic)] = append(out[api.Topic(topic)], key)
	}
	if len(out) == 0 {
		out[api.TopicAll] = []string{"*"}
	}
	return out
}

func (w wanted) has(e *event) bool {
	for _, topic := range []api.Topic{e.Topic, api.TopicAll} {
		for _, key := range w[topic] {
			if key == "*" || slices.Contains(e.keys, key) {
				return true
			}
		}
	}
	return false
}

// stream serves the events from an index on, or from the oldest that is left.
func (c *Cluster) stream(w http.ResponseWriter, r *http.Request) {
	want := topics(r)
	c.mu.Lock()
	var p *problem
	for topic := range want {
		right := "read-job"
		if topic == api.TopicNode || topic == api.TopicAll {
			right = "node:read"
		}
		if p == nil {
			p = c.allowed(r, right)
		}
	}
	if p != nil {
		c.mu.Unlock()
		http.Error(w, p.text, p.status)
		return
	}
	from, _ := strconv.ParseUint(r.URL.Query().Get("index"), 10, 64)
	end := make(chan struct{})
	c.streams[end] = struct{}{}
	next := c.first
	for next < c.first+len(c.events) && c.events[next-c.first].Index < from {
		next++
	}
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.streams, end)
		c.mu.Unlock()
	}()
	w.Header().Set("Content-Type", "application/json")
	enc, flush := json.NewEncoder(w), http.NewResponseController(w)
	beat := time.NewTicker(c.cfg.Heartbeat)
	defer beat.Stop()
	for {
		c.mu.Lock()
		batch, lost := c.since(&next, want)
		changed := c.changed
		c.mu.Unlock()
		if lost {
			return
		}
		for _, b := range batch {
			if enc.Encode(b) != nil {
				return
			}
		}
		if len(batch) > 0 && flush.Flush() != nil {
			return
		}
		select {
		case <-changed:
		case <-beat.C:
			if enc.Encode(struct{}{}) != nil || flush.Flush() != nil {
				return
			}
		case <-end:
			return
		case <-r.Context().Done():
			return
		}
	}
}

// since returns the events from a place on, those of one index together, and moves the place. Lost says that some were forgotten before.
func (c *Cluster) since(next *int, want wanted) (out []*api.Events, lost bool) {
	if *next < c.first {
		return nil, true
	}
	for ; *next < c.first+len(c.events); *next++ {
		e := &c.events[*next-c.first]
		if !want.has(e) {
			continue
		}
		if n := len(out); n == 0 || out[n-1].Index != e.Index {
			out = append(out, &api.Events{Index: e.Index})
		}
		last := out[len(out)-1]
		last.Events = append(last.Events, e.Event)
	}
	return out, false
}
