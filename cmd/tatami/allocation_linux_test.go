package main

import (
	"maps"
	"strings"
	"testing"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/fault"
	"github.com/tatami-faas/tatami/scheduler/nomad"
)

func nomadTask(change map[string]string) func(string) string {
	env := map[string]string{
		"NOMAD_ALLOC_ID": "0f3c", "NOMAD_ALLOC_INDEX": "1", "NOMAD_MEMORY_LIMIT": "2048", "NOMAD_CPU_LIMIT": "4000", "NOMAD_CPU_CORES": " ", nomad.EnvCompute: "8000",
	}
	for k, v := range change {
		env[k] = v
	}
	return func(name string) string { return env[name] }
}

func TestTheGrantIsWhatNomadGave(t *testing.T) {
	for name, c := range map[string]struct {
		env map[string]string
		cpu int64
	}{
		"a share":         {nil, 2000},
		"processors":      {map[string]string{"NOMAD_CPU_CORES": "0-1,7", nomad.EnvCompute: ""}, 3000},
		"one processor":   {map[string]string{"NOMAD_CPU_CORES": "5"}, 1000},
		"the smallest":    {map[string]string{"NOMAD_CPU_LIMIT": "1", nomad.EnvCompute: "100000000"}, 1},
		"all there is":    {map[string]string{"NOMAD_CPU_LIMIT": "8000"}, 4000},
		"a core's number": {map[string]string{"NOMAD_CPU_CORES": "4095"}, 1000},
	} {
		a, err := readAllocation(nomadTask(c.env), 4)
		if err != nil || a.id != "0f3c" || a.grant != (functions.Resources{CPU: c.cpu, Memory: 2 << 30}) {
			t.Errorf("%s: %+v, %v", name, a, err)
		}
	}
	if a, err := readAllocation(func(string) string { return "" }, 4); a != nil || err != nil {
		t.Errorf("outside of Nomad: %+v, %v", a, err)
	}
}

func TestAGrantThatSaysNothing(t *testing.T) {
	for name, env := range map[string]map[string]string{
		"NOMAD_MEMORY_LIMIT": {"NOMAD_MEMORY_LIMIT": ""},
		"MiB":                {"NOMAD_MEMORY_LIMIT": "-1"},
		"NOMAD_CPU_LIMIT":    {"NOMAD_CPU_LIMIT": "x"},
		"cores = 2":          {nomad.EnvCompute: ""},
		nomad.EnvCompute:     {nomad.EnvCompute: "3999"},
		"list":               {"NOMAD_CPU_CORES": "3-1"},
		"processors":         {"NOMAD_CPU_CORES": "0-4096"},
		"NOMAD_CPU_CORES":    {"NOMAD_CPU_CORES": "0,,1"},
	} {
		_, err := readAllocation(nomadTask(env), 4)
		if !fault.Is(err, fault.CodeInvalidRequest) || !strings.Contains(err.Error()+fault.From(err).Hint, name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzCountCores(f *testing.F) {
	for _, s := range []string{"0", "0-3,8", "", "-", "1-", ",", "65535-65536", "0-4095,0-4095"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := countCores(s)
		if (err == nil) != (n > 0) || n < 0 || n > mostCores {
			t.Errorf("%q: %d, %v", s, n, err)
		}
	})
}

func TestAWorkerInNomad(t *testing.T) {
	a, err := readAllocation(nomadTask(map[string]string{
		"NOMAD_MEMORY_LIMIT": "4096", nomad.EnvMeta: "zone=a, b=c\nrack=${meta.rack}\ndisk=ssd\nempty=",
	}), 4)
	if err != nil {
		t.Fatal(err)
	}
	cfg := nodeConfig{Labels: map[string]string{"disk": "none"}, MaxInstances: 10}
	cfg.grantOf(a)
	w := cfg.worker(functions.NewNodeID())
	capacity, allocatable, err := w.Resources()
	if err != nil || capacity.CPU != 2000 || capacity.Memory != 4<<30 || allocatable.CPU != 1800 || allocatable.Memory+w.Waiting.Memory != 4<<30-512<<20 {
		t.Errorf("%v of %v, %v", allocatable, capacity, err)
	}
	// A key that the node does not have is no label, and the command line goes before the node.
	if want := map[string]string{"zone": "a, b=c", "disk": "none", "empty": "", functions.LabelMember: "0f3c"}; !maps.Equal(w.Labels, want) || cfg.HeapTarget == 0 {
		t.Errorf("%v, want %v; %d", w.Labels, want, cfg.HeapTarget)
	}
}
