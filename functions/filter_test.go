package functions_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/fault"
)

func order() functions.Event {
	return functions.Event{
		ID: "1", Source: "/shop/eu", Type: "com.example.order.created", Subject: "order/7.json", Time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		DataContentType: "application/json", DataSchema: "https://example.com/order", Extensions: map[string]string{"tenant": "a", "empty": ""},
	}
}

func TestFilters(t *testing.T) {
	t.Parallel()
	ev := order()
	for text, want := range map[string]bool{
		`[]`: true,
		`[{"exact":{"type":"com.example.order.created"}}]`:                                  true,
		`[{"exact":{"type":"com.example.order"}}]`:                                          false,
		`[{"exact":{"type":"COM.EXAMPLE.ORDER.CREATED"}}]`:                                  false,
		`[{"exact":{"source":"/shop/eu","tenant":"a"}}]`:                                    true,
		`[{"exact":{"source":"/shop/eu","tenant":"b"}}]`:                                    false,
		`[{"exact":{"missing":"a"}}]`:                                                       false,
		`[{"not":{"exact":{"missing":"a"}}}]`:                                               true,
		`[{"exact":{"specversion":"1.0"}}]`:                                                 true,
		`[{"exact":{"time":"2026-01-02T03:04:05Z"}}]`:                                       true,
		`[{"exact":{"datacontenttype":"application/json"}}]`:                                true,
		`[{"prefix":{"dataschema":"https://"}}]`:                                            true,
		`[{"prefix":{"source":"/shop/","type":"com."}}]`:                                    true,
		`[{"prefix":{"source":"/shop/","type":"org."}}]`:                                    false,
		`[{"prefix":{"missing":"a"}}]`:                                                      false,
		`[{"prefix":{"empty":"a"}}]`:                                                        false,
		`[{"suffix":{"subject":".json"}}]`:                                                  true,
		`[{"suffix":{"subject":".png"}}]`:                                                   false,
		`[{"exact":{"tenant":"a"}},{"suffix":{"subject":".png"}}]`:                          false,
		`[{"all":[{"exact":{"tenant":"a"}},{"prefix":{"type":"com."}}]}]`:                   true,
		`[{"all":[{"exact":{"tenant":"a"}},{"prefix":{"type":"org."}}]}]`:                   false,
		`[{"any":[{"exact":{"tenant":"b"}},{"prefix":{"type":"com."}}]}]`:                   true,
		`[{"any":[{"exact":{"tenant":"b"}},{"prefix":{"type":"org."}}]}]`:                   false,
		`[{"not":{"any":[{"exact":{"tenant":"b"}},{"all":[{"prefix":{"type":"org."}}]}]}}]`: true,
	} {
		tr := functions.Trigger{Name: "t", Function: "f", Event: &functions.EventSource{}}.WithDefaults()
		if err := json.Unmarshal([]byte(text), &tr.Filters); err != nil {
			t.Fatal(err)
		}
		if err := tr.Validate(); err != nil {
			t.Errorf("%s: %v", text, err)
		}
		if got := tr.Takes(&ev); got != want {
			t.Errorf("%s takes the event: %v", text, got)
		}
	}
}

func TestTriggersAreChecked(t *testing.T) {
	t.Parallel()
	deep := `{"exact":{"type":"a"}}`
	for range 8 {
		deep = `{"not":` + deep + `}`
	}
	many := strings.TrimSuffix(strings.Repeat(`{"exact":{"type":"a"}},`, 101), ",")
	for text, field := range map[string]string{
		`{"name":"A"}`:      "name",
		`{"namespace":"N"}`: "namespace",
		`{"function":""}`:   "function",
		`{"path":"x"}`:      "path",
		`{"path":"/a b"}`:   "path",
		`{"event":null}`:    "event",
		`{"filters":[{}]}`:  "filters[0]",
		`{"filters":[{"exact":{"type":"a"},"not":{"exact":{"type":"a"}}}]}`:      "filters[0]",
		`{"filters":[{"exact":{"type":"a"}},{"any":[{"prefix":{"Type":"a"}}]}]}`: "filters[1].any[0].prefix.Type",
		`{"filters":[{"all":[{"suffix":{"type":""}}]}]}`:                         "filters[0].all[0].suffix.type",
		`{"filters":[` + deep + `]}`:                                             "filters[0]" + strings.Repeat(".not", 8),
		`{"filters":[` + many + `]}`:                                             "filters[100]",
	} {
		tr := functions.Trigger{Name: "t", Function: "f", Event: &functions.EventSource{}}
		if err := json.Unmarshal([]byte(text), &tr); err != nil {
			t.Fatal(err)
		}
		tr = tr.WithDefaults()
		err := tr.Validate()
		if f := fault.From(err); f == nil || f.Field != field || f.Code.Kind() != fault.Invalid {
			t.Errorf("%.100s: field %q wanted, got %+v", text, field, f)
		}
	}
}

func TestSourcesAreChecked(t *testing.T) {
	t.Parallel()
	const hook, broker = `"secret":{"file":"/s"}`, `"brokers":["k:9092"],"topic":"t"`
	for text, field := range map[string]string{
		`"cron":{"schedule":"@daily"}`:                                     "",
		`"cron":{}`:                                                        "cron.schedule",
		`"cron":{"schedule":"@daily","jitter":"2h"}`:                       "cron.jitter",
		`"cron":{"schedule":"@daily","overlap":"never"}`:                   "cron.overlap",
		`"cron":{"schedule":"@daily","catchUp":"some"}`:                    "cron.catchUp",
		`"cron":{"schedule":"@daily"},"event":{}`:                          "cron",
		`"webhook":{"style":"github",` + hook + `}`:                        "",
		`"webhook":{"style":"other",` + hook + `}`:                         "webhook.style",
		`"webhook":{"style":"stripe",` + hook + `,"tolerance":"2h"}`:       "webhook.tolerance",
		`"webhook":{"style":"github"}`:                                     "webhook.secret",
		`"webhook":{"style":"github","secret":{"file":"/a/../b"}}`:         "webhook.secret.file",
		`"webhook":{"style":"github","secret":{"env":"PATH"}}`:             "webhook.secret.env",
		`"kafka":{` + broker + `}`:                                         "",
		`"kafka":{"topic":"t"}`:                                            "kafka.brokers",
		`"kafka":{"brokers":["k"],"topic":"t"}`:                            "kafka.brokers",
		`"kafka":{"brokers":["k:1"],"topic":"a b"}`:                        "kafka.topic",
		`"kafka":{` + broker + `,"group":"a/b"}`:                           "kafka.group",
		`"kafka":{` + broker + `,"start":"middle"}`:                        "kafka.start",
		`"kafka":{` + broker + `,"ca":"/ca"}`:                              "kafka.ca",
		`"kafka":{` + broker + `,"sasl":{"mechanism":"x"}}`:                "kafka.sasl.mechanism",
		`"kafka":{` + broker + `,"sasl":{"mechanism":"plain"}}`:            "kafka.sasl.user",
		`"kafka":{` + broker + `,"sasl":{"mechanism":"plain","user":"u"}}`: "kafka.sasl.password",
	} {
		tr := functions.Trigger{Name: "t", Function: "f"}
		if err := json.Unmarshal([]byte("{"+text+"}"), &tr); err != nil {
			t.Fatal(err)
		}
		tr = tr.WithDefaults()
		got := ""
		if f := fault.From(tr.Validate()); f != nil {
			got = f.Field
		}
		if got != field {
			t.Errorf("%s: field %q, want %q", text, got, field)
		}
	}
}

func TestEventsAreChecked(t *testing.T) {
	t.Parallel()
	ev := order()
	if err := ev.Validate(); err != nil {
		t.Fatal(err)
	}
	for field, edit := range map[string]func(*functions.Event){
		"id":              func(e *functions.Event) { e.ID = "" },
		"source":          func(e *functions.Event) { e.Source = "" },
		"type":            func(e *functions.Event) { e.Type = "" },
		"subject":         func(e *functions.Event) { e.Subject = "a\x00b" },
		"dataschema":      func(e *functions.Event) { e.DataSchema = "order" },
		"datacontenttype": func(e *functions.Event) { e.DataContentType = "json" },
		"Tenant":          func(e *functions.Event) { e.Extensions["Tenant"] = "a" },
		"data":            func(e *functions.Event) { e.Extensions["data"] = "a" },
		"tenant":          func(e *functions.Event) { e.Extensions["tenant"] = strings.Repeat("a", functions.MaxAttribute+1) },
		"empty":           func(e *functions.Event) { e.Extensions["empty"] = "\xff" },
		"extensions": func(e *functions.Event) {
			for i := range functions.MaxExtensions {
				e.Extensions["x"+strings.Repeat("a", i+1)] = ""
			}
		},
	} {
		ev := order()
		edit(&ev)
		if f := fault.From(ev.Validate()); f == nil || f.Field != field {
			t.Errorf("%s: %+v", field, f)
		}
	}
	for _, source := range []string{"a b", "http://[::1", "%zz"} {
		ev := order()
		ev.Source = source
		if f := fault.From(ev.Validate()); f == nil || f.Field != "source" {
			t.Errorf("%q: %+v", source, f)
		}
	}
}
