package main

import (
	"encoding/json"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/functions/spec"
	"github.com/tatami-faas/tatami/internal/fault"
)

// addition is what the flags of `tatami trigger add` say.
type addition struct {
	trigger functions.Trigger
	file    string
	filters []string
	event   bool
	cron    functions.CronSource
	jitter  time.Duration
	webhook functions.WebhookSource
	secret  functions.SecretRef
	brokers brokers
}

func newTriggerAddCmd(a *app) *cobra.Command {
	var ad addition
	cmd := &cobra.Command{
		Use: "add TRIGGER FUNCTION", Short: "Make a trigger, or replace it", Args: argCount(2, 2, "TRIGGER FUNCTION"),
		ValidArgsFunction: a.completeFunctions,
		Long: "Makes a trigger of a function in the same namespace, or replaces it as a whole. Each event of its source that all filters take becomes one queued\n" +
			"invocation. A filter is ATTRIBUTE=VALUE, ATTRIBUTE^=PREFIX, ATTRIBUTE$=SUFFIX or ATTRIBUTE!=VALUE; a file can hold all that there is (--file).",
		Example: "  tatami trigger add mail send --nats nats://nats:4222 --stream MAIL --start earliest\n" +
			"  tatami trigger add orders ship --kafka kafka:9092 --topic orders --tls --sasl scram-sha-256 --user tatami --secret-file /etc/tatami/kafka.secret\n" +
			"  tatami trigger add nightly report --cron '30 3 * * 1-5' --zone Europe/Berlin --overlap forbid\n" +
			"  tatami trigger add orders greet --event --filter type=com.example.order --filter 'source^=/shop/'\n" +
			"  tatami trigger add orders greet --file trigger.yaml",
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := ad.read(args[0], args[1])
			if err != nil {
				return err
			}
			c, err := a.connect()
			if err != nil {
				return err
			}
			set, err := c.SetTrigger(cmd.Context(), t)
			if err != nil {
				return err
			}
			return show(a, set, triggerName(*set), triggerFields(set))
		},
	}
	f := cmd.Flags()
	f.StringVarP(&ad.file, "file", "f", "", "the trigger in YAML, as in the list triggers of tatami.yaml")
	f.BoolVar(&ad.event, "event", false, "take what is posted to /events")
	f.StringVar(&ad.cron.Schedule, "cron", "", "fire by this schedule, such as '30 3 * * 1-5' or @hourly")
	f.StringVar(&ad.cron.Zone, "zone", "", "time zone of the schedule, such as Europe/Berlin (default UTC)")
	f.DurationVar(&ad.jitter, "jitter", 0, "put each firing off by up to this, such as 5m")
	f.StringVar(&ad.cron.Overlap, "overlap", "", "where the invocation before has not ended: allow, forbid or replace (default allow)")
	f.StringVar(&ad.cron.CatchUp, "catch-up", "", "make up for firings that were missed: last, none or all (default last)")
	f.StringVar(&ad.webhook.Style, "webhook", "", "take requests to /hooks/TRIGGER that are signed in this style: github or stripe")
	f.StringVar(&ad.secret.File, "secret-file", "", "file on the server that holds the secret of the web hook, or the password of the user at NATS or Kafka")
	f.StringVar(&ad.secret.Env, "secret-env", "", "environment variable of the server that holds it, TATAMI_SECRET_...")
	ad.brokers.register(f)
	f.StringArrayVar(&ad.filters, "filter", nil, "take only events that fit, such as type=com.example.order; may be repeated")
	f.StringVar(&ad.trigger.Path, "path", "", "path below the function at which it gets the events (default /)")
	f.BoolVar(&ad.trigger.Reply, "reply", false, "publish the event that the function answers with")
	f.BoolVar(&ad.trigger.Paused, "paused", false, "make it paused")
	return cmd
}

// read makes the trigger of the file, if there is one, and of the flags.
func (ad *addition) read(name, function string) (functions.Trigger, error) {
	t := ad.trigger
	if ad.file != "" {
		data, err := os.ReadFile(ad.file)
		if err != nil {
			return t, pathFault(ad.file, err).WithField("file")
		}
		if t, err = spec.ParseTrigger(data); err != nil {
			return t, err
		}
		ad.override(&t)
	}
	id, err := parseTriggerName(name)
	if err != nil {
		return t, err
	}
	ref, err := functions.ParseRef(function)
	if err != nil {
		return t, err
	}
	if ref.Namespace != id.Namespace {
		return t, fault.New(fault.CodeInvalidRequest, "the trigger is in the namespace %s, the function in %s", id.Namespace, ref.Namespace).
			WithHint("a trigger is in the namespace of its function: %s.%s", id.Name, ref.Namespace)
	}
	if t.Name != "" && t.Name != id.Name {
		return t, fault.New(fault.CodeInvalidRequest, "the file describes %s, the command line %s", t.Name, id.Name).WithField("name")
	}
	t.Namespace, t.Name, t.Function = id.Namespace, id.Name, ref.Name
	if ad.event {
		t.Event = &functions.EventSource{}
	}
	if ad.cron.Jitter = functions.Duration(ad.jitter); ad.cron != (functions.CronSource{}) {
		t.Cron = &ad.cron
	}
	ad.secretSources(&t)
	for _, s := range ad.filters {
		f, err := readFilter(s)
		if err != nil {
			return t, err
		}
		t.Filters = append(t.Filters, f)
	}
	t = t.WithDefaults()
	return t, t.Validate()
}

// secretSources sets the sources that may need a secret: there is one secret, and it is a web hook's first.
func (ad *addition) secretSources(t *functions.Trigger) {
	password := ad.secret
	if ad.webhook.Style != "" {
		password = functions.SecretRef{}
	}
	if ad.brokers.set(t, password) && ad.webhook.Style == "" {
		return
	}
	if ad.webhook.Secret = ad.secret; ad.webhook != (functions.WebhookSource{}) {
		t.Webhook = &ad.webhook
	}
}

// override sets what the command line says besides the file.
func (ad *addition) override(t *functions.Trigger) {
	if ad.trigger.Path != "" {
		t.Path = ad.trigger.Path
	}
	t.Reply = t.Reply || ad.trigger.Reply
	t.Paused = t.Paused || ad.trigger.Paused
}

// readFilter reads ATTRIBUTE=VALUE and its kin.
func readFilter(s string) (functions.Filter, error) {
	at := strings.IndexByte(s, '=')
	if at < 1 {
		return functions.Filter{}, fault.New(fault.CodeInvalidRequest, "--filter: %.80q is no filter", s).WithField("filter").
			WithHint("write ATTRIBUTE=VALUE, ATTRIBUTE^=PREFIX, ATTRIBUTE$=SUFFIX or ATTRIBUTE!=VALUE")
	}
	name, value := s[:at], s[at+1:]
	want := func(n string) map[string]string { return map[string]string{n: value} }
	switch short := name[:len(name)-1]; name[len(name)-1] {
	case '^':
		return functions.Filter{Prefix: want(short)}, nil
	case '$':
		return functions.Filter{Suffix: want(short)}, nil
	case '!':
		return functions.Filter{Not: &functions.Filter{Exact: want(short)}}, nil
	}
	return functions.Filter{Exact: want(name)}, nil
}

// filterText writes a filter as readFilter reads it, or in JSON where that cannot be.
func filterText(f *functions.Filter) string {
	one := func(op string, m map[string]string) string {
		var parts []string
		for k, v := range m {
			parts = append(parts, k+op+v)
		}
		slices.Sort(parts)
		return strings.Join(parts, " and ")
	}
	switch {
	case len(f.Exact) > 0:
		return one("=", f.Exact)
	case len(f.Prefix) > 0:
		return one("^=", f.Prefix)
	case len(f.Suffix) > 0:
		return one("$=", f.Suffix)
	case f.Not != nil && len(f.Not.Exact) == 1:
		return one("!=", f.Not.Exact)
	}
	b, err := json.Marshal(f)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// payload reads what --data says as a whole.
func (a *app) payload(data string) ([]byte, error) {
	name, isFile := strings.CutPrefix(data, "@")
	switch {
	case data == "-", data == "@-":
		b, err := io.ReadAll(a.stdin)
		if err != nil {
			return nil, fault.Wrap(fault.CodeInvalidRequest, err, "read standard input").WithField("data")
		}
		return b, nil
	case isFile:
		b, err := os.ReadFile(name)
		if err != nil {
			return nil, pathFault(name, err).WithField("data")
		}
		return b, nil
	case data == "":
		return nil, nil
	}
	return []byte(data), nil
}
