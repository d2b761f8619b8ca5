package cloudevents_test

import (
	"net/http"
	"reflect"
	"testing"

	"github.com/tatami-faas/tatami/gateway/trigger/cloudevents"
	"github.com/tatami-faas/tatami/internal/fault"
)

// Whatever comes, reading either names a field or gives events that are valid and, written in either form, read as the same again.
func FuzzRead(f *testing.F) {
	f.Add("application/cloudevents+json", "", "", head+`,"data":{"a":1},"x":true}`)
	f.Add("application/cloudevents-batch+json", "", "", `[`+head+`,"data_base64":"AAE="}]`)
	f.Add("text/plain", "a%20b", `"q"`, "body")
	f.Add("", "%C0%A0", "x", "")
	f.Fuzz(func(t *testing.T, contentType, subject, extension, body string) {
		h := http.Header{"Ce-Specversion": {"1.0"}, "Ce-Id": {"1"}, "Ce-Source": {"/s"}, "Ce-Type": {"t"}, "Ce-X": {extension}}
		if contentType != "" {
			h["Content-Type"] = []string{contentType}
		}
		if subject != "" {
			h["Ce-Subject"] = []string{subject}
		}
		evs, err := cloudevents.Read(h, []byte(body))
		if err != nil {
			if e := fault.From(err); e == nil || e.Field == "" || e.Code.Kind() != fault.Invalid {
				t.Fatalf("no field is named: %+v", err)
			}
			return
		}
		for i := range evs {
			e := &evs[i]
			if err := e.Validate(); err != nil {
				t.Fatalf("an event that is not valid: %v", err)
			}
			back, err := cloudevents.Read(cloudevents.Header(e), e.Data)
			if err != nil {
				t.Fatalf("binary: %v", err)
			}
			data, err := cloudevents.Encode(e)
			if err != nil {
				t.Fatal(err)
			}
			again, err := cloudevents.Decode(data)
			if err != nil {
				t.Fatalf("structured: %v: %s", err, data)
			}
			if len(e.Data) > 0 && string(back[0].Data) != string(e.Data) {
				t.Errorf("binary data: %q", back[0].Data)
			}
			for _, got := range []any{back[0].Extensions, again.Extensions} {
				if !reflect.DeepEqual(got, e.Extensions) {
					t.Errorf("%v and %v", got, e.Extensions)
				}
			}
			if back[0].Subject != e.Subject || again.Subject != e.Subject {
				t.Errorf("subjects %q, %q and %q", back[0].Subject, again.Subject, e.Subject)
			}
		}
	})
}
