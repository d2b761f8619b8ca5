//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/tests/e2e/harness"
)

// counter takes batches, and says that those with the body "bad" failed the first time.
const counter = `package main

import (
	"encoding/json"
	"net/http"
	"os"
)

func main() {
	panic(http.ListenAndServe(":"+os.Getenv("PORT"), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var list []struct {
			ID, Body string
			Attempt  int
		}
		if err := json.NewDecoder(r.Body).Decode(&list); err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		type failure struct {
			ID     string ` + "`json:\"id\"`" + `
			Reason string ` + "`json:\"reason\"`" + `
		}
		out := struct {
			Failed []failure ` + "`json:\"failed\"`" + `
		}{}
		for _, m := range list {
			if m.Body == "bad" && m.Attempt == 1 {
				out.Failed = append(out.Failed, failure{m.ID, "not at first"})
			}
		}
		json.NewEncoder(w).Encode(out)
	})))
}
`

// Invocations that go in one request have one beginning; the one that failed is made again, alone.
func TestBatches(t *testing.T) {
	s := harness.Start(t)
	dir := t.TempDir()
	for name, text := range map[string]string{
		"main.go": counter, "go.mod": "module counter\n\ngo 1.22\n",
		"tatami.yaml": "name: counter\nqueue: {retries: 1, batch: {size: 4, window: 1m}}\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s.Must("deploy", dir)
	var ids []string
	for _, body := range []string{"a", "b", "bad", "c"} {
		ids = append(ids, async(t, s, "counter/x", body))
	}
	// The one that is made again waits for nobody.
	began := map[time.Time]int{}
	for i, id := range ids {
		st := result(t, s, id)
		want := 1
		if i == 2 {
			want = 2
		}
		if st.State != string(functions.StateSucceeded) || st.Status != 200 || len(st.Attempts) != want {
			t.Fatalf("%s: %s", id, fmt.Sprintf("%+v", st))
		}
		began[st.Attempts[0].Started]++
	}
	if len(began) != 1 {
		t.Errorf("four of a batch of four began at %v", began)
	}
}
