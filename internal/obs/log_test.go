package obs_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/fault"
	"github.com/tatami-faas/tatami/internal/obs"
)

func TestLoggerWritesJSON(t *testing.T) {
	t.Parallel()
	var buf bytes.Buffer
	log, err := obs.NewLogger(&buf, obs.LogConfig{})
	if err != nil {
		t.Fatal(err)
	}
	failed := fault.Wrap(fault.CodeNoCapacity, errors.New("full"), "no node fits")
	log.Debug("not written")
	log.Warn("an instance was not placed", slog.String("fn", functions.Ref{Namespace: "ml", Name: "embed"}.String()), obs.Err(failed), obs.Kind(failed), obs.Err(nil))
	var got map[string]any
	if err := json.Unmarshal(buf.Bytes(), &got); err != nil {
		t.Fatalf("%v in %q", err, buf.String())
	}
	delete(got, "time")
	want := map[string]any{
		"level": "WARN", "msg": "an instance was not placed", "fn": "embed.ml", "err": "no node fits: full", "kind": "overloaded",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestLoggerFormats(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		cfg        obs.LogConfig
		begin, has string
		bad        string
	}{
		{obs.LogConfig{Format: "text", Level: "debug"}, "time=", "level=DEBUG", ""},
		{obs.LogConfig{Format: "json", Level: "DEBUG"}, "{", `"level":"DEBUG"`, ""},
		{obs.LogConfig{Format: "auto", Level: "error"}, "", "", ""},
		{obs.LogConfig{Format: "xml"}, "", "", "log-format"},
		{obs.LogConfig{Level: "loud"}, "", "", "log-level"},
	} {
		file, err := os.Create(filepath.Join(t.TempDir(), "log"))
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		log, err := obs.NewLogger(file, c.cfg)
		if c.bad != "" {
			if e := fault.From(err); e == nil || e.Field != c.bad || e.Hint == "" {
				t.Errorf("%+v: %v, want a fault about %s", c.cfg, err, c.bad)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		log.Debug("hello")
		data, err := os.ReadFile(file.Name())
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(string(data), c.begin) || !strings.Contains(string(data), c.has) || c.begin == "" && len(data) > 0 {
			t.Errorf("%+v wrote %q", c.cfg, data)
		}
	}
}
