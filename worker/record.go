package worker

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
)

// recordSchema is the schema number of Record.
const recordSchema = 1

// Record is what a sandbox carries of its instance: all that a later run of the worker needs to adopt it.
type Record struct {
	Schema    int                  `json:"schema"`
	Instance  functions.InstanceID `json:"instance"`
	Namespace string               `json:"namespace"`
	Function  string               `json:"function"`
	Revision  functions.RevisionID `json:"revision"`
	Slots     int                  `json:"slots"`
	Port      int                  `json:"port"`
	// Protocol is the configuration's: empty for HTTP/1.
	Protocol  string              `json:"protocol,omitempty"`
	Readiness functions.Readiness `json:"readiness"`
	Limits    functions.Limits    `json:"limits"`
	// Timeout is the function's: the default deadline of a drain.
	Timeout functions.Duration `json:"timeout"`
	// FreezeAfter and Awake are the function's.
	FreezeAfter functions.Duration `json:"freezeAfter,omitempty"`
	Awake       bool               `json:"awake,omitempty"`
	// Started is when the worker took the command.
	Started time.Time `json:"started"`
	// Phases holds those that were over when the sandbox was made.
	Phases functions.Phases `json:"phases"`

	// proof asks of a function that was given its socket that it reads from it.
	proof bool
}

// Ref returns the name of the function.
func (r *Record) Ref() functions.Ref { return functions.Ref{Namespace: r.Namespace, Name: r.Function} }

func recordOf(c bus.Command, now time.Time) Record {
	rev := c.Revision
	cfg := rev.Config.WithDefaults()
	r := Record{
		Schema: recordSchema, Instance: c.Instance, Namespace: rev.Namespace, Function: rev.Function, Revision: rev.ID,
		Slots: cfg.Concurrency, Port: cfg.Port, Protocol: cfg.Protocol, Readiness: cfg.Readiness, Limits: cfg.Limits, Timeout: cfg.Timeout, Started: now,
		FreezeAfter: cfg.Scale.FreezeAfter, Awake: cfg.Scale.Awake,
	}
	if !c.Asked.IsZero() {
		r.Phases.Place = functions.Duration(max(0, now.Sub(c.Asked)))
	}
	return r
}

func readRecord(data []byte, id functions.InstanceID) (Record, error) {
	var r Record
	if len(data) == 0 {
		return r, fmt.Errorf("its record is missing")
	}
	if err := json.Unmarshal(data, &r); err != nil {
		return r, fmt.Errorf("its record cannot be read: %w", err)
	}
	switch {
	case r.Schema > recordSchema:
		return r, fmt.Errorf("its record has schema %d, this tatami knows %d", r.Schema, recordSchema)
	case r.Instance != id:
		return r, fmt.Errorf("its record is of %s", r.Instance)
	case r.Ref().ValidateRunning() != nil || r.Slots < 1 || r.Port < 1 || r.Readiness.Timeout <= 0:
		return r, fmt.Errorf("its record is incomplete")
	}
	return r, nil
}
