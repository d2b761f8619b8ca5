package fakenomad

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/nomad/api"
)

// problem is an answer that is no success.
type problem struct {
	status int
	text   string
}

func (p *problem) Error() string { return p.text }

func refuse(status int, format string, args ...any) *problem {
	return &problem{status, fmt.Sprintf(format, args...)}
}

// endpoint is what one path and method does. It is called with the lock held.
type endpoint struct {
	// right is what the token must be allowed.
	right string
	// table is the one whose index a read may wait for.
	table string
	serve func(r *http.Request) (any, *problem)
}

func (c *Cluster) handler() http.Handler {
	mux := http.NewServeMux()
	for pattern, e := range map[string]endpoint{
		"GET /v1/agent/self":                    {"agent:read", "", c.self},
		"GET /v1/nodes":                         {"node:read", "nodes", c.listNodes},
		"GET /v1/node/{id}":                     {"node:read", "nodes", c.readNode},
		"PUT /v1/node/{id}/drain":               {"node:write", "", c.drainNode},
		"PUT /v1/node/{id}/eligibility":         {"node:write", "", c.markNode},
		"PUT /v1/jobs":                          {"submit-job", "", c.register},
		"GET /v1/job/{id}":                      {"read-job", "jobs", c.readJob},
		"DELETE /v1/job/{id}":                   {"submit-job", "", c.deregister},
		"PUT /v1/job/{id}/plan":                 {"submit-job", "", c.plan},
		"PUT /v1/job/{id}/scale":                {"scale-job", "", c.scale},
		"GET /v1/job/{id}/allocations":          {"read-job", "allocs", c.listAllocs},
		"GET /v1/job/{id}/deployment":           {"read-job", "deployments", c.latestDeployment},
		"GET /v1/allocation/{id}":               {"read-job", "allocs", c.readAlloc},
		"PUT /v1/client/allocation/{id}/signal": {"alloc-lifecycle", "", c.signal},
		"GET /v1/service/{name}":                {readServices, "services", c.readService},
		"GET /v1/var/{path...}":                 {"variables:read", "variables", c.readVariable},
		"PUT /v1/var/{path...}":                 {"variables:write", "", c.writeVariable},
		"DELETE /v1/var/{path...}":              {"variables:write", "", c.deleteVariable},
		"PUT /v1/acl/policy/{name}":             {"management", "", c.writePolicy},
		"DELETE /v1/acl/policy/{name}":          {"management", "", c.deletePolicy},
		"PUT /v1/acl/token":                     {"management", "", c.makeToken},
		"DELETE /v1/acl/token/{id}":             {"management", "", c.deleteToken},
	} {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) { c.answer(w, r, e) })
	}
	mux.HandleFunc("GET /v1/event/stream", c.stream)
	return mux
}

// spaced reports whether what a path names lies in a namespace.
func spaced(path string) bool {
	return !strings.HasPrefix(path, "/v1/node") && !strings.HasPrefix(path, "/v1/acl/") && !strings.HasPrefix(path, "/v1/agent/")
}

// allowed reports whether a request's token has a right. Without a token nothing is allowed.
func (c *Cluster) allowed(r *http.Request, right string) *problem {
	if ns := cmp.Or(r.URL.Query().Get("namespace"), "default"); ns != c.cfg.Namespace && ns != "*" && spaced(r.URL.Path) {
		return refuse(http.StatusForbidden, "Permission denied")
	}
	token := r.Header.Get("X-Nomad-Token")
	if bearer, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok && token == "" {
		token = bearer
	}
	rights, known := c.tokens[token]
	switch {
	case token != "" && !known:
		return refuse(http.StatusForbidden, "ACL token not found")
	case !has(rights, right):
		return refuse(http.StatusForbidden, "Permission denied")
	}
	return nil
}

func (c *Cluster) answer(w http.ResponseWriter, r *http.Request, e endpoint) {
	c.mu.Lock()
	p := c.allowed(r, e.right)
	if p == nil && e.table != "" {
		c.await(r, e.table)
	}
	var body any
	if p == nil {
		body, p = e.serve(r)
	}
	index := c.index
	if e.table != "" {
		index = max(c.tables[e.table], 1)
	}
	var data []byte
	if p == nil || body != nil {
		data, _ = json.Marshal(body)
	}
	c.mu.Unlock()
	w.Header().Set("X-Nomad-Index", strconv.FormatUint(index, 10))
	w.Header().Set("X-Nomad-KnownLeader", "true")
	w.Header().Set("X-Nomad-LastContact", "0")
	switch {
	case p != nil && data == nil:
		http.Error(w, p.text, p.status)
		return
	case p != nil:
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(p.status)
	default:
		w.Header().Set("Content-Type", "application/json")
	}
	_, _ = w.Write(data)
}

// await blocks a read until its table's index has passed the one that it names, or its time is over. The lock is given up meanwhile.
func (c *Cluster) await(r *http.Request, table string) {
	index, err := strconv.ParseUint(r.URL.Query().Get("index"), 10, 64)
	if err != nil || index == 0 {
		return
	}
	wait, err := time.ParseDuration(r.URL.Query().Get("wait"))
	if err != nil {
		wait = 5 * time.Minute
	}
	over := time.NewTimer(wait)
	defer over.Stop()
	for c.tables[table] <= index {
		changed := c.changed
		c.mu.Unlock()
		timeout := false
		select {
		case <-changed:
		case <-over.C:
			timeout = true
		case <-r.Context().Done():
			timeout = true
		case <-c.stop:
			timeout = true
		}
		c.mu.Lock()
		if timeout {
			return
		}
	}
}

func read[T any](r *http.Request) (T, *problem) {
	var v T
	if err := json.NewDecoder(r.Body).Decode(&v); err != nil {
		return v, refuse(http.StatusBadRequest, "%v", err)
	}
	return v, nil
}

func (c *Cluster) self(*http.Request) (any, *problem) {
	return &api.AgentSelf{Config: map[string]any{"Version": map[string]any{"Version": "2.0.0"}}}, nil
}

func (c *Cluster) readVariable(r *http.Request) (any, *problem) {
	v := c.variables[r.PathValue("path")]
	if v == nil {
		return nil, refuse(http.StatusNotFound, "variable not found")
	}
	return v, nil
}

func (c *Cluster) writeVariable(r *http.Request) (any, *problem) {
	v, p := read[api.Variable](r)
	if p != nil {
		return nil, p
	}
	v.Path, v.Namespace = r.PathValue("path"), c.cfg.Namespace
	old := c.variables[v.Path]
	if cas := r.URL.Query().Get("cas"); cas != "" {
		have := uint64(0)
		if old != nil {
			have = old.ModifyIndex
		}
		if cas != strconv.FormatUint(have, 10) {
			if old == nil {
				old = &api.Variable{Namespace: v.Namespace, Path: v.Path}
			}
			return old, refuse(http.StatusConflict, "cas conflict: expected ModifyIndex %d", have)
		}
	}
	v.ModifyIndex, v.ModifyTime = c.touch("variables"), time.Now().UnixNano()
	v.CreateIndex, v.CreateTime = v.ModifyIndex, v.ModifyTime
	if old != nil {
		v.CreateIndex, v.CreateTime = old.CreateIndex, old.CreateTime
	}
	c.variables[v.Path] = &v
	return &v, nil
}

func (c *Cluster) deleteVariable(r *http.Request) (any, *problem) {
	delete(c.variables, r.PathValue("path"))
	c.touch("variables")
	return nil, nil
}
