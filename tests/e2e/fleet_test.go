//go:build e2e

package e2e

import (
	"strings"
	"testing"
	"time"
)

// small is an instance of which four fit on a node of the tests below.
const small = "cpu: 50m\nmemory: 64Mi\nephemeral: 16Mi\n"

// Functions run where their labels and their spread want them; a node that is cordoned takes nothing, and one that is drained is empty in the end without
// a request that fails, and so is one whose instances fit on the others.
func TestFleetPlacesAndMoves(t *testing.T) {
	f := newFleetOf(t, nil,
		[]string{"--grant-memory", "320Mi", "--label", "zone=a"},
		[]string{"--grant-memory", "320Mi", "--label", "zone=b"},
		[]string{"--grant-memory", "320Mi", "--label", "zone=b", "--label", "disk=ssd"})
	a, b, ssd := f.workers[0].Name, f.workers[1].Name, f.workers[2].Name
	settled := func(fn, what string, ok func(on map[string]int) bool) {
		t.Helper()
		eventually(t, 30*time.Second, fn+" "+what, func() bool { return ok(f.on(fn)) })
	}

	f.Deploy("zones", "probe", small+"scale: {min: 2, max: 2}\nplacement: {spread: zone}\n")
	settled("zones", "has one instance in each zone", func(on map[string]int) bool { return on[a] == 1 && on[b]+on[ssd] == 1 })
	f.Deploy("disk", "probe", small+"scale: {min: 2, max: 2}\nplacement: {require: {disk: ssd}}\n")
	settled("disk", "is where the disk is", func(on map[string]int) bool { return on[ssd] == 2 })
	f.Deploy("nodes", "probe", small+"scale: {min: 3, max: 3}\nplacement: {spread: node}\n")
	settled("nodes", "is on every node", func(on map[string]int) bool { return on[a] == 1 && on[b] == 1 && on[ssd] == 1 })
	if r := f.TryDeploy("nowhere", "probe", small+"placement: {require: {disk: tape}}\n"); r.Exit == 0 || !strings.Contains(r.Stderr, "disk=tape") {
		t.Errorf("what no node can take ended with %d: %s%s", r.Exit, r.Stdout, r.Stderr)
	}
	f.Must("delete", "nodes", "--yes")

	// Cordoned, the only tight node takes nothing further.
	f.Must("node", "cordon", ssd, "--reason", "it is looked at")
	f.Deploy("elsewhere", "probe", small+"scale: {min: 2, max: 2}\nplacement: {prefer: {disk: ssd}}\n")
	settled("elsewhere", "is not on the cordoned node", func(on map[string]int) bool { return total(on) == 2 && on[ssd] == 0 })
	if n := f.nodes()[ssd]; n.State != "cordoned" || n.Instances < 2 {
		t.Errorf("the cordoned node is %s with %d instances", n.State, n.Instances)
	}
	f.Must("node", "resume", ssd)

	tr := f.load("zones", 4)
	tr.after(t, 50)
	f.Must("node", "drain", a)
	eventually(t, 30*time.Second, "the drained node is empty", func() bool { return f.nodes()[a].Instances == 0 && sandboxes(t, f.workers[0]) == 0 })
	tr.after(t, 50)
	if n := f.nodes()[a]; n.State != "drained" {
		t.Errorf("the empty node is %s", n.State)
	}
	f.Must("node", "resume", a)
	f.Must("delete", "disk", "--yes")
	eventually(t, 30*time.Second, "what was deleted is gone", func() bool { return len(instances(t, f.Server, "disk")) == 0 })

	// Four instances are left, on two nodes at least: one of them is emptied, and stays so.
	f.Must("node", "compact")
	eventually(t, 30*time.Second, "a node is emptied", func() bool {
		for _, n := range f.nodes() {
			if n.State == "drained" && n.Instances == 0 {
				return total(f.on("zones")) == 2 && total(f.on("elsewhere")) == 2
			}
		}
		return false
	})
	tr.after(t, 50)
	for _, x := range tr.end() {
		t.Errorf("failed while nodes were emptied: %s", x.what)
	}
}

// By itself, the server empties a node whose instances do nothing, not one that is in use, and no request fails.
func TestFleetCompactsByItself(t *testing.T) {
	f := newFleetOf(t, []string{"--compact", "idle", "--compact-after", "2s"},
		[]string{"--grant-memory", "320Mi"}, []string{"--grant-memory", "320Mi"})
	f.Deploy("wide", "probe", small+"scale: {min: 3, max: 3}\n")
	f.Deploy("first", "probe", small+"scale: {min: 1, max: 1}\n")
	f.Deploy("second", "probe", small+"scale: {min: 1, max: 1}\n")
	on := func(fn string) string {
		for name, n := range f.on(fn) {
			if n == 1 {
				return name
			}
		}
		return ""
	}
	eventually(t, 30*time.Second, "both nodes are used", func() bool { return total(f.on("wide")) == 3 && on("first") != "" && on("second") != "" })
	busy, idle := on("first"), on("second")
	if busy == idle {
		t.Fatalf("both are on %s", busy)
	}
	// As tight as each other: what is in use stays, whichever that is. In use before there is room to move, or a node might be emptied in between.
	tr := f.load("second", 2)
	used := func() bool {
		in := instances(t, f.Server, "second")
		return len(in) == 1 && in[0].Held > 0
	}
	eventually(t, 30*time.Second, "it is known that one node is in use", used)
	f.Must("delete", "wide", "--yes")
	eventually(t, 60*time.Second, "what does nothing moves to what is in use", func() bool { return on("first") == idle && on("second") == idle && f.nodes()[busy].Instances == 0 })
	tr.after(t, 50)
	for _, x := range tr.end() {
		t.Errorf("failed while a node was emptied: %s", x.what)
	}
	eventually(t, 10*time.Second, "the empty node takes instances again", func() bool { return f.nodes()[busy].State == "ready" })
	if in := instances(t, f.Server, "first"); len(in) != 1 || !in[0].State.Serves() {
		t.Errorf("what moved is %+v", in)
	}
}
