package functions_test

import (
	"strings"
	"testing"

	"github.com/tatami-faas/tatami/functions"
)

func TestAQuotaTakesWhatItLeavesOutFromTheDefaults(t *testing.T) {
	t.Parallel()
	defaults := functions.Quota{CPU: 4000, Memory: 1 << 30, Instances: 10, Rate: functions.Unbounded, Weight: 50}
	own := functions.Quota{Namespace: "ns", CPU: 8000, Memory: functions.Unbounded}
	want := functions.Quota{Namespace: "ns", CPU: 8000, Instances: 10, Weight: 50}
	if got := own.Over(defaults); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got := own.Over(functions.Quota{}); got.Weight != functions.DefaultWeight || got.Instances != 0 {
		t.Errorf("without defaults: %+v", got)
	}
	if own.Memory != functions.Unbounded || defaults.Rate != functions.Unbounded {
		t.Error("the arguments were changed")
	}
	if held := own.Over(defaults); held.Over(defaults).CPU != held.CPU {
		t.Error("taken twice it is another")
	}
}

func TestQuotasAreValidated(t *testing.T) {
	t.Parallel()
	for _, q := range []functions.Quota{
		{Namespace: "ns", CPU: functions.Unbounded, Weight: 1},
		{Namespace: functions.QuotaDefaults, Weight: functions.MaxWeight},
		{Namespace: functions.QuotaTotal, Memory: 1},
	} {
		if err := q.Validate(); err != nil {
			t.Errorf("%+v: %v", q, err)
		}
	}
	for field, q := range map[string]functions.Quota{
		"namespace":   {Namespace: "_other"},
		"cpuMillis":   {Namespace: "ns", CPU: -2},
		"rate":        {Namespace: functions.QuotaTotal, Rate: -9},
		"weight":      {Namespace: "ns", Weight: -1},
		"weight:":     {Namespace: "ns", Weight: functions.MaxWeight + 1},
		"weight: all": {Namespace: functions.QuotaTotal, Weight: 3},
	} {
		if err := q.Validate(); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%+v: %v, want one that names %s", q, err, field)
		}
	}
}

func TestNodeSettingsAreValidated(t *testing.T) {
	t.Parallel()
	good := functions.NodeSettings{Node: functions.NewNodeID(), Intent: functions.NodeDrained, Reason: "a disk is to be changed"}
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
	for field, change := range map[string]func(*functions.NodeSettings){
		"node":   func(n *functions.NodeSettings) { n.Node = "nod_x" },
		"intent": func(n *functions.NodeSettings) { n.Intent = "gone" },
		"reason": func(n *functions.NodeSettings) { n.Reason = strings.Repeat("x", 513) },
	} {
		bad := good
		change(&bad)
		if err := bad.Validate(); err == nil || !strings.HasPrefix(err.Error(), field) {
			t.Errorf("%s: %v", field, err)
		}
	}
}
