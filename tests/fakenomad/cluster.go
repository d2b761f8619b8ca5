package fakenomad

import (
	"cmp"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"sync"
	"time"

	"github.com/hashicorp/nomad/api"
)

// Config is how the cluster is. A zero field stands for its default.
type Config struct {
	// Dir is where tasks get their directories. Required where tasks are run.
	Dir string
	// Nodes is how many nodes there are. Default 3.
	Nodes int
	// Network begins the nodes' addresses, which end with the node's number. Default "127.0.0.".
	Network string
	// Namespace is the one that there is. Default "default".
	Namespace string
	// Run runs tasks as processes; without it an allocation counts as running as soon as it is placed.
	Run bool
	// Grace is how long a lost node is not missed. Nomad: 20 s. Default 1s.
	Grace time.Duration
	// Heartbeat is the time between the empty objects in a quiet event stream. Nomad: 30 s. Default 1s.
	Heartbeat time.Duration
	// Events is how many events are kept. Default 100, as in Nomad.
	Events int
	// Log takes what tasks write. Default none.
	Log *os.File
}

// Cluster is a Nomad cluster with one server. Make it with New, end it with Close.
type Cluster struct {
	cfg    Config
	server *httptest.Server
	tasks  sync.WaitGroup
	stop   chan struct{}

	mu      sync.Mutex
	index   uint64
	changed chan struct{}
	// tables holds the index at which each table changed last.
	tables map[string]uint64
	tokens map[string][]string
	// policies are by their name.
	policies map[string]policy

	jobs        map[string]*job
	allocs      map[string]*alloc
	nodes       []*node
	deployments []*api.Deployment
	variables   map[string]*api.Variable
	// held keeps deployments from coming to their end.
	held bool
	// sockets serve the API in tasks.
	sockets []*http.Server

	events  []event
	first   int
	streams map[chan struct{}]struct{}
	ids     int
	closed  bool
}

// New starts a cluster. Its management token is Token.
func New(cfg Config) *Cluster {
	set := func(v *int, to int) {
		if *v == 0 {
			*v = to
		}
	}
	set(&cfg.Nodes, 3)
	cfg.Namespace = cmp.Or(cfg.Namespace, "default")
	set(&cfg.Events, 100)
	if cfg.Grace == 0 {
		cfg.Grace = time.Second
	}
	if cfg.Heartbeat == 0 {
		cfg.Heartbeat = time.Second
	}
	c := &Cluster{
		cfg: cfg, stop: make(chan struct{}), index: 10, changed: make(chan struct{}), tables: map[string]uint64{}, tokens: map[string][]string{Token: {"*"}}, policies: map[string]policy{},
		jobs: map[string]*job{}, allocs: map[string]*alloc{}, variables: map[string]*api.Variable{}, streams: map[chan struct{}]struct{}{},
	}
	for i := range cfg.Nodes {
		c.nodes = append(c.nodes, newNode(c.id("node"), i, cmp.Or(cfg.Network, "127.0.0.")))
	}
	c.server = httptest.NewServer(c.handler())
	return c
}

// Token is the secret of the token that may do everything.
const Token = "5f4dcc3b-0000-4000-8000-000000000001"

// URL is where the API is.
func (c *Cluster) URL() string { return c.server.URL }

// Allow makes a token that may do what is named only, such as read-job, scale-job and node:read.
func (c *Cluster) Allow(rights ...string) (token string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	token = c.id("token")
	c.tokens[token] = rights
	return token
}

// HoldDeployments keeps deployments active until they are let go again.
func (c *Cluster) HoldDeployments(hold bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held = hold
	c.settle()
}

// CloseStreams ends every event stream, as a server does whose streams are too slow or whose tokens changed.
func (c *Cluster) CloseStreams() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for s := range c.streams {
		close(s)
		delete(c.streams, s)
	}
}

// Streams is how many event streams are open.
func (c *Cluster) Streams() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.streams)
}

// Close stops every task and the server, and returns when all have ended. A second call does nothing.
func (c *Cluster) Close() {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return
	}
	c.closed = true
	for _, a := range c.allocs {
		a.DesiredStatus = api.AllocDesiredStatusStop
		a.end()
	}
	sockets := c.sockets
	c.mu.Unlock()
	close(c.stop)
	for _, s := range sockets {
		_ = s.Close()
	}
	c.tasks.Wait()
	c.CloseStreams()
	c.server.CloseClientConnections()
	c.server.Close()
}

// id makes an id that looks like Nomad's.
func (c *Cluster) id(kind string) string {
	c.ids++
	return fmt.Sprintf("%08x-%04x-4000-8000-%012x", 0xf00d0000+c.ids, len(kind), c.ids)
}

// touch says that a table changed, and returns the index of that. Whoever waits looks again.
func (c *Cluster) touch(tables ...string) uint64 {
	c.index++
	for _, t := range tables {
		c.tables[t] = c.index
	}
	close(c.changed)
	c.changed = make(chan struct{})
	return c.index
}
