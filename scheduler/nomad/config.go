package nomad

import (
	"cmp"
	"strings"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/tatami-faas/tatami/internal/fault"
)

// Config says which job is the pool. A zero field stands for its default.
type Config struct {
	// Job is the job that runs the workers, Group its task group. Job is required; Group defaults to "worker".
	Job, Group string
	// Client is how Nomad's API is reached, as FromEnvironment makes it. Required.
	Client *api.Client
	// Relist is the time between two lists while the events say that nothing changes. Default 1m.
	Relist time.Duration
	// Retry is the time before Nomad is asked again after an error, doubled up to RetryMost. Default 500ms and 15s.
	Retry, RetryMost time.Duration
}

// The environment in which the jobs that `tatami nomad` makes tell a worker of its node. Nomad puts in what it knows; a key of the meta that the node does
// not have it leaves as it stands. In a task's arguments, such a key would keep the task from starting.
const (
	// EnvCompute is what all processors of the node have together, in Nomad's MHz.
	EnvCompute = "TATAMI_NODE_COMPUTE"
	// EnvMeta has a line KEY=VALUE for each key of the node's meta that is to be a label of the worker.
	EnvMeta = "TATAMI_NODE_META"

	metaBegins, metaEnds = "${meta.", "}"
)

// MetaLine asks Nomad for a line of EnvMeta.
func MetaLine(key string) string { return key + "=" + metaBegins + key + metaEnds }

// ReadMeta reads EnvMeta, without what the node does not have.
func ReadMeta(text string) map[string]string {
	out := map[string]string{}
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if key, value, ok := strings.Cut(line, "="); ok && line != MetaLine(key) {
			out[key] = value
		}
	}
	return out
}

// DefaultGroup is the task group of the workers in the jobs that `tatami nomad` makes.
const DefaultGroup = "worker"

func (c Config) withDefaults() Config {
	c.Group = cmp.Or(c.Group, DefaultGroup)
	c.Relist = cmp.Or(c.Relist, time.Minute)
	c.Retry = cmp.Or(c.Retry, 500*time.Millisecond)
	c.RetryMost = cmp.Or(c.RetryMost, 15*time.Second)
	return c
}

func (c Config) validate() error {
	switch {
	case c.Job == "":
		return fault.New(fault.CodeInvalidRequest, "nomad-job: no job is named").WithField("nomad-job")
	case c.Client == nil:
		return fault.New(fault.CodeInvalidRequest, "nomad-job: there is no way to Nomad").WithField("nomad-job")
	case c.Relist < 0 || c.Retry < 0 || c.RetryMost < 0:
		return fault.New(fault.CodeInvalidRequest, "nomad: a time is negative")
	}
	return nil
}

// Client reaches Nomad's API.
type Client = api.Client

// FromEnvironment returns a client for the Nomad that the environment names, as Nomad's own command takes it: NOMAD_ADDR (unix:// too), NOMAD_TOKEN,
// NOMAD_NAMESPACE, NOMAD_REGION, NOMAD_CACERT and their like.
func FromEnvironment() (*api.Client, error) { return clientOf(api.DefaultConfig()) }

// At returns a client for the Nomad at an address.
func At(address, token string) (*api.Client, error) {
	return clientOf(&api.Config{Address: address, SecretID: token})
}

func clientOf(cfg *api.Config) (*api.Client, error) {
	c, err := api.NewClient(cfg)
	if err != nil {
		return nil, fault.Wrap(fault.CodeInvalidRequest, err, "there is no way to Nomad").WithHint("set NOMAD_ADDR, and NOMAD_TOKEN where Nomad asks for one")
	}
	return c, nil
}
