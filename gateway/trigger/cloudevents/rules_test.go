package cloudevents_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/gateway/trigger/cloudevents"
	"github.com/tatami-faas/tatami/internal/fault"
)

// header makes a header of lines "Name: value".
func header(lines ...string) http.Header {
	h := http.Header{}
	for _, l := range lines {
		name, value, _ := strings.Cut(l, ": ")
		h.Add(name, value)
	}
	return h
}

var required = []string{"ce-specversion: 1.0", "ce-id: 1", "ce-source: /s", "ce-type: t"}

func with(more ...string) http.Header {
	return header(append(append([]string{}, required...), more...)...)
}

func base() functions.Event { return functions.Event{ID: "1", Source: "/s", Type: "t"} }

// The mode follows from the content type, that of a batch looked for first; anything else with attributes is binary.
func TestModes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		h    http.Header
		want cloudevents.Mode
	}{
		{with("Content-Type: application/cloudevents-batch+json"), cloudevents.Batched},
		{with("Content-Type: application/CloudEvents-Batch+json; charset=utf-8"), cloudevents.Batched},
		{with("Content-Type: application/cloudevents+json"), cloudevents.Structured},
		{with("Content-Type: application/cloudevents+avro"), cloudevents.Structured},
		{with("Content-Type: application/json"), cloudevents.Binary},
		{with("Content-Type: application/x-cloudevents"), cloudevents.Binary},
		{with(), cloudevents.Binary},
		{header("ce-id: 1"), cloudevents.Binary},
		{header("Content-Type: application/json"), cloudevents.None},
		{header(), cloudevents.None},
	} {
		if got := cloudevents.ModeOf(c.h); got != c.want {
			t.Errorf("%v: mode %d, want %d", c.h, got, c.want)
		}
	}
}

func TestBinary(t *testing.T) {
	t.Parallel()
	evs, err := cloudevents.Read(with("Content-Type: text/plain; charset=utf-8", "ce-subject: Euro%20%E2%82%AC%20%F0%9F%98%80", "ce-time: 2026-01-02T03:04:05.5+02:00",
		"ce-dataschema: https://example.com/s", "ce-tenant: a", "CE-UPPER: B", "X-Other: x"), []byte("body"))
	if err != nil {
		t.Fatal(err)
	}
	want := base()
	want.Subject, want.DataSchema, want.DataContentType, want.Data = "Euro € 😀", "https://example.com/s", "text/plain; charset=utf-8", []byte("body")
	want.Time = time.Date(2026, 1, 2, 1, 4, 5, 500_000_000, time.UTC)
	want.Extensions = map[string]string{"tenant": "a", "upper": "B"}
	if d := cmp.Diff([]functions.Event{want}, evs); d != "" {
		t.Error(d)
	}
	for name, c := range map[string]struct {
		h     http.Header
		field string
	}{
		"no version":          {header("ce-id: 1", "ce-source: /s", "ce-type: t"), "specversion"},
		"another version":     {header("ce-specversion: 0.3", "ce-id: 1", "ce-source: /s", "ce-type: t"), "specversion"},
		"no id":               {header("ce-specversion: 1.0", "ce-source: /s", "ce-type: t"), "id"},
		"no source":           {header("ce-specversion: 1.0", "ce-id: 1", "ce-type: t"), "source"},
		"no type":             {header("ce-specversion: 1.0", "ce-id: 1", "ce-source: /s"), "type"},
		"empty id":            {header("ce-specversion: 1.0", "ce-id: ", "ce-source: /s", "ce-type: t"), "id"},
		"empty subject":       {with("ce-subject: "), "subject"},
		"datacontenttype":     {with("ce-datacontenttype: text/plain"), "datacontenttype"},
		"data":                {with("ce-data: x"), "data"},
		"underscore":          {with("ce-foo_bar: x"), "foo_bar"},
		"twice":               {with("ce-tenant: a", "ce-tenant: b"), "tenant"},
		"time":                {with("ce-time: yesterday"), "time"},
		"no schema":           {with("ce-dataschema: relative"), "dataschema"},
		"overlong":            {with("ce-tenant: %C0%A0"), "tenant"},
		"half a character":    {with("ce-tenant: %E2%82"), "tenant"},
		"surrogate":           {with("ce-tenant: %ED%A0%80"), "tenant"},
		"no hex":              {with("ce-tenant: 100%"), "tenant"},
		"control":             {with("ce-tenant: a%0Ab"), "tenant"},
		"open quote":          {with(`ce-tenant: "a`), "tenant"},
		"media type":          {with("Content-Type: what ever"), "datacontenttype"},
		"nothing of an event": {header("Content-Type: application/json"), "ce-specversion"},
	} {
		_, err := cloudevents.Read(c.h, nil)
		if f := fault.From(err); f == nil || f.Field != c.field || f.Code != fault.CodeInvalidRequest {
			t.Errorf("%s: %+v", name, f)
		}
	}
}

// What is encoded: a space, '"', '%' and everything outside U+0021 to U+007E, in UTF-8 and upper-case hexadecimal.
func TestHeaderValues(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]string{
		"plain!#~": "plain!#~",
		"a b":      "a%20b",
		`"x"`:      "%22x%22",
		"100%":     "100%25",
		"€":        "%E2%82%AC",
		"é\u0301":  "%C3%A9%CC%81",
		"Euro € 😀": "Euro%20%E2%82%AC%20%F0%9F%98%80",
	} {
		e := base()
		e.Subject = value
		h := cloudevents.Header(&e)
		if got := h.Get("ce-subject"); got != want {
			t.Errorf("%q is written %q, want %q", value, got, want)
		}
		back, err := cloudevents.Read(h, nil)
		if err != nil || back[0].Subject != value {
			t.Errorf("%q reads back as %+v, %v", value, back, err)
		}
	}
	// What others may write: quotes, one round of decoding only, lower case, and characters that need not be encoded.
	for written, want := range map[string]string{
		`"a \"b\" \\c"`: `a "b" \c`,
		`"%20"`:         " ",
		"%2520":         "%20",
		"%e2%82%ac":     "€",
		"%41%61":        "Aa",
		"a b":           "a b",
		"ä":             "ä",
		`a"b`:           `a"b`,
	} {
		evs, err := cloudevents.Read(with("ce-subject: "+written), nil)
		if err != nil || evs[0].Subject != want {
			t.Errorf("%s is read as %+v, %v; want %q", written, evs, err, want)
		}
	}
}

const head = `{"specversion":"1.0","id":"1","source":"/s","type":"t"`

func TestStructured(t *testing.T) {
	t.Parallel()
	for body, edit := range map[string]func(*functions.Event){
		head + `}`:                func(*functions.Event) {},
		head + `,"data":{"a":1}}`: func(e *functions.Event) { e.DataContentType, e.Data = "application/json", []byte(`{"a":1}`) },
		head + `,"data":"text"}`:  func(e *functions.Event) { e.DataContentType, e.Data = "application/json", []byte(`"text"`) },
		head + `,"datacontenttype":"application/a+json","data":"text"}`: func(e *functions.Event) { e.DataContentType, e.Data = "application/a+json", []byte(`"text"`) },
		head + `,"datacontenttype":"text/xml","data":"<a\n/>"}`:         func(e *functions.Event) { e.DataContentType, e.Data = "text/xml", []byte("<a\n/>") },
		head + `,"datacontenttype":"text/xml","data":[1]}`:              func(e *functions.Event) { e.DataContentType, e.Data = "text/xml", []byte("[1]") },
		head + `,"data_base64":"AAH/"}`:                                 func(e *functions.Event) { e.Data = []byte{0, 1, 255} },
		head + `,"data":null,"subject":null,"x":null}`:                  func(*functions.Event) {},
		head + `,"yes":true,"n":-2147483648,"s":"v","none":""}`: func(e *functions.Event) {
			e.Extensions = map[string]string{"yes": "true", "n": "-2147483648", "s": "v", "none": ""}
		},
		" \n" + head + `,"time":"2026-01-02T03:04:05Z"} `: func(e *functions.Event) { e.Time = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC) },
	} {
		want := base()
		edit(&want)
		evs, err := cloudevents.Read(header("Content-Type: application/cloudevents+json; charset=UTF-8"), []byte(body))
		if err != nil {
			t.Errorf("%s: %v", body, err)
			continue
		}
		if d := cmp.Diff(want, evs[0]); d != "" {
			t.Errorf("%s: %s", body, d)
		}
		// And back: what is written reads as the same event.
		again, err := cloudevents.Encode(&want)
		if err != nil {
			t.Fatal(err)
		}
		back, err := cloudevents.Decode(again)
		if err != nil {
			t.Fatalf("%s: %v", again, err)
		}
		if d := cmp.Diff(want, back); d != "" {
			t.Errorf("%s: %s", again, d)
		}
	}
	for body, field := range map[string]string{
		``:                                    "body",
		`[]`:                                  "body",
		`null`:                                "body",
		head:                                  "body",
		head + `}{}`:                          "body",
		head + ",\"s\":\"\xff\"}":             "body",
		`{"id":"1","source":"/s","type":"t"}`: "specversion",
		`{"specversion":null,"id":"1","source":"/s","type":"t"}`:  "specversion",
		`{"specversion":"0.3","id":"1","source":"/s","type":"t"}`: "specversion",
		`{"specversion":1.0,"id":"1","source":"/s","type":"t"}`:   "specversion",
		`{"specversion":"1.0","id":1,"source":"/s","type":"t"}`:   "id",
		`{"specversion":"1.0","source":"/s","type":"t"}`:          "id",
		`{"specversion":"1.0","id":"1","source":"","type":"t"}`:   "source",
		head + `,"id":"2"}`:                      "id",
		head + `,"Tenant":"a"}`:                  "Tenant",
		head + `,"x":1.5}`:                       "x",
		head + `,"x":2147483648}`:                "x",
		head + `,"x":{}}`:                        "x",
		head + `,"time":"noon"}`:                 "time",
		head + `,"data":1,"data_base64":"AA=="}`: "data_base64",
		head + `,"data_base64":"A"}`:             "data_base64",
		head + `,"data_base64":1}`:               "data_base64",
		head + `,"data":}`:                       "data",
	} {
		_, err := cloudevents.Read(header("Content-Type: application/cloudevents+json"), []byte(body))
		if f := fault.From(err); f == nil || f.Field != field || f.Code != fault.CodeInvalidRequest {
			t.Errorf("%s: field %q wanted, got %+v", body, field, f)
		}
	}
}

// Only JSON is known, in UTF-8.
func TestOtherFormats(t *testing.T) {
	t.Parallel()
	for _, typ := range []string{
		"application/cloudevents", "application/cloudevents+avro", "application/cloudevents+json; charset=latin1", "application/cloudevents-batch+xml",
		"application/cloudevents-batch", "application/cloudeventsx", "application/cloudevents+json; charset",
	} {
		_, err := cloudevents.Read(header("Content-Type: "+typ), []byte(head+"}"))
		if f := fault.From(err); !errors.Is(err, cloudevents.ErrMediaType) || f == nil || f.Field != "Content-Type" {
			t.Errorf("%s: %v", typ, err)
		}
	}
}

func TestBatches(t *testing.T) {
	t.Parallel()
	read := func(body string) ([]functions.Event, error) {
		return cloudevents.Read(header("Content-Type: application/cloudevents-batch+json"), []byte(body))
	}
	if evs, err := read(`[]`); err != nil || len(evs) != 0 {
		t.Errorf("an empty batch: %v, %v", evs, err)
	}
	evs, err := read(`[` + head + `},` + head + `,"data":1}]`)
	if err != nil || len(evs) != 2 || string(evs[1].Data) != "1" {
		t.Errorf("%+v, %v", evs, err)
	}
	again, err := cloudevents.EncodeBatch(evs)
	if err != nil {
		t.Fatal(err)
	}
	back, err := read(string(again))
	if d := cmp.Diff(evs, back); err != nil || d != "" {
		t.Errorf("%v %s", err, d)
	}
	for body, field := range map[string]string{
		head + `}`:                             "body",
		`null`:                                 "body",
		`[1]`:                                  "[0].body",
		`[` + head + `},` + head + `,"x":[]}]`: "[1].x",
		// One version in all.
		`[` + head + `},{"specversion":"0.3","id":"2","source":"/s","type":"t"}]`:              "[1].specversion",
		`[` + strings.TrimSuffix(strings.Repeat(head+`},`, cloudevents.MaxBatch+1), ",") + `]`: "body",
	} {
		_, err := read(body)
		if f := fault.From(err); f == nil || f.Field != field {
			t.Errorf("%.120s: field %q wanted, got %+v", body, field, f)
		}
	}
}
