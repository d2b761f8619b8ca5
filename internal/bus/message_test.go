package bus

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// FuzzDecode: a message is read as encoding/json reads it, or refused as by it.
func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"schema":1,"node":"nod_a","sequence":7,"full":true,"state":{"labels":{"a":"b"}},"instances":[{"instance":"ins_a","since":"2026-01-02T03:04:05Z"}]}`))
	f.Add([]byte(`{"Schema":1,"NODE":"nod_a","node":"nod_b","instances":null,"state":{"artifacts":["` + "\xff" + `"]}}`))
	f.Add([]byte(`{"instances":[{"phases":{"place":"1ms"},"usage":{"cpu":3}}]}`))
	f.Add([]byte(`{"schema":99}`))
	f.Add([]byte(`{"sequence":-1} `))
	f.Fuzz(func(t *testing.T, data []byte) {
		var want Report
		wrong := json.Unmarshal(data, &want)
		got, err := Decode[Report](data)
		if want.Schema > Schema && wrong == nil {
			wrong = newer(want.Schema)
		}
		switch {
		case (err != nil) != (wrong != nil):
			t.Errorf("%q: %v, by encoding/json %v", data, err, wrong)
		case err == nil:
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%q (-encoding/json +got):\n%s", data, diff)
			}
		}
	})
}
