package functions

import (
	"fmt"
	"strings"
	"time"

	"github.com/tatami-faas/tatami/internal/fault"
)

// MaxTriggers is how many triggers a namespace has at most.
const MaxTriggers = 1000

// Trigger causes invocations of a function: each event of its source that its filters take becomes one queued invocation. Exactly one source is
// set.
type Trigger struct {
	Schema    int    `json:"schema,omitempty"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
	// Function is the name of a function in the same namespace.
	Function string `json:"function,omitempty"`
	// Path is the path below the function at which it gets the events. Default "/".
	Path string `json:"path,omitempty"`
	// Paused says that it takes nothing in.
	Paused bool `json:"paused,omitempty"`
	// Declared says that it comes from the function's tatami.yaml, and goes when it is no longer there.
	Declared bool `json:"declared,omitempty"`
	// Filters must all take an event; none takes every event.
	Filters []Filter `json:"filters,omitempty"`
	// Reply says that the function may answer with an event, which is given to the triggers of the namespace as if it had been posted.
	Reply bool `json:"reply,omitempty"`

	// Event takes in what is posted to /events.
	Event *EventSource `json:"event,omitempty"`
	// Cron fires at the times of a schedule.
	Cron *CronSource `json:"cron,omitempty"`
	// Webhook takes signed requests in.
	Webhook *WebhookSource `json:"webhook,omitempty"`
	// Kafka takes the records of a topic in.
	Kafka *KafkaSource `json:"kafka,omitempty"`
	// NATS takes the messages of an external NATS server in.
	NATS *NATSSource `json:"nats,omitempty"`

	Created time.Time `json:"created,omitzero"`
	Updated time.Time `json:"updated,omitzero"`
}

// EventSource is the events that are posted to the namespace: to /events for the default one, to /events/{namespace} for each. It has no settings.
type EventSource struct{}

// Kinds of triggers, by the source that is set.
const (
	KindEvent   = "event"
	KindCron    = "cron"
	KindWebhook = "webhook"
	KindKafka   = "kafka"
	KindNATS    = "nats"
)

// Ref returns the name of the trigger's function.
func (t *Trigger) Ref() Ref { return Ref{Namespace: t.Namespace, Name: t.Function} }

// ID returns the trigger's own name.
func (t *Trigger) ID() Ref { return Ref{Namespace: t.Namespace, Name: t.Name} }

// sources lists the kinds of the sources that are set.
func (t *Trigger) sources() []string {
	var out []string
	for _, s := range []struct {
		kind string
		set  bool
	}{{KindEvent, t.Event != nil}, {KindCron, t.Cron != nil}, {KindWebhook, t.Webhook != nil}, {KindKafka, t.Kafka != nil}, {KindNATS, t.NATS != nil}} {
		if s.set {
			out = append(out, s.kind)
		}
	}
	return out
}

// Kind returns the kind of the source that is set, or "".
func (t *Trigger) Kind() string {
	if s := t.sources(); len(s) == 1 {
		return s[0]
	}
	return ""
}

// WithDefaults returns the trigger with every empty field replaced by its default.
func (t Trigger) WithDefaults() Trigger {
	if t.Namespace == "" {
		t.Namespace = DefaultNamespace
	}
	if t.Path == "" {
		t.Path = "/"
	}
	t.Schema = Schema
	return t
}

// Takes reports whether the filters take the event.
func (t *Trigger) Takes(e *Event) bool { return MatchesAll(t.Filters, e) }

// Validate reports what is wrong with a trigger whose defaults are filled in; the error's field says where.
func (t *Trigger) Validate() error {
	if p := t.problem(); p != nil {
		return p
	}
	return nil
}

func (t *Trigger) problem() *fault.Error {
	for _, n := range []struct{ field, value string }{{"namespace", t.Namespace}, {"name", t.Name}, {"function", t.Function}} {
		if err := ValidateName(n.field, n.value); err != nil {
			return fault.From(err)
		}
	}
	if !strings.HasPrefix(t.Path, "/") || len(t.Path) > 4096 || strings.ContainsFunc(t.Path, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '#' || r == '?' }) {
		return badTrigger("path", "%.80q is no path, escaped, that begins with '/'", t.Path)
	}
	switch s := t.sources(); len(s) {
	case 0:
		return badTrigger("event", "the trigger has no source").WithHint("set one of event, cron, webhook, kafka and nats")
	case 1:
	default:
		return badTrigger(s[1], "a trigger has one source; this one has %s", strings.Join(s, " and "))
	}
	if t.Cron != nil {
		if p := t.Cron.problem(); p != nil {
			return p
		}
	}
	if t.Webhook != nil {
		if p := t.Webhook.problem(); p != nil {
			return p
		}
	}
	if t.Kafka != nil {
		if p := t.Kafka.problem(); p != nil {
			return p
		}
	}
	if t.NATS != nil {
		if p := t.NATS.problem(); p != nil {
			return p
		}
	}
	return filterProblem(t.Filters)
}

func badTrigger(field, format string, args ...any) *fault.Error {
	return fault.New(fault.CodeInvalidSpec, "%s: %s", field, fmt.Sprintf(format, args...)).WithField(field)
}
