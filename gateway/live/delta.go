package live

import (
	"bytes"
	"encoding/json"
	"slices"

	"github.com/tatami-faas/tatami/functions"
)

// differ finds out what changed from one picture to the next by comparing what would be written.
type differ struct {
	primed     bool
	nodes      map[functions.NodeID][]byte
	instances  map[functions.InstanceID][]byte
	functions  map[string][]byte
	sparks     map[string][]float64
	verdict    Verdict
	problems   []byte
	notices    []byte
	namespaces []byte
	pools      []byte
	servers    []byte
}

// reset forgets the picture before.
func (d *differ) reset() { *d = differ{} }

// next writes the Delta that leads to s. It returns nil when there is no picture before s to compare with.
func (d *differ) next(s *Snapshot, points []Point) ([]byte, error) {
	delta := Delta{At: s.At, Stale: s.Stale, Totals: s.Totals, Points: points}
	var gone Gone
	var err error
	fail := func(e error) {
		if err == nil {
			err = e
		}
	}
	next := differ{primed: true, verdict: s.Verdict, sparks: make(map[string][]float64, len(s.Functions))}
	var e error
	delta.Nodes, gone.Nodes, next.nodes, e = compare(d.nodes, s.Nodes, func(n *Node) functions.NodeID { return n.ID })
	fail(e)
	delta.Instances, gone.Instances, next.instances, e = compare(d.instances, s.Instances, func(i *Instance) functions.InstanceID { return i.ID })
	fail(e)
	// The spark line changes once in 30 seconds and is long: it goes along only then.
	lean := slices.Clone(s.Functions)
	for i := range lean {
		f := &lean[i]
		next.sparks[f.key()] = f.Spark
		if slices.Equal(f.Spark, d.sparks[f.key()]) {
			f.Spark = nil
		}
	}
	delta.Functions, gone.Functions, next.functions, e = compare(d.functions, lean, (*Function).key)
	fail(e)
	next.problems, e = json.Marshal(s.Problems)
	fail(e)
	next.notices, e = json.Marshal(s.Notices)
	fail(e)
	next.namespaces, e = json.Marshal(s.Namespaces)
	fail(e)
	next.pools, e = json.Marshal(s.Pools)
	fail(e)
	next.servers, e = json.Marshal(s.Servers)
	fail(e)
	before := *d
	*d = next
	if err != nil {
		d.reset()
		return nil, err
	}
	if !before.primed {
		return nil, nil
	}
	if next.verdict != before.verdict {
		delta.Verdict = &s.Verdict
	}
	if !bytes.Equal(next.problems, before.problems) {
		delta.Problems = &s.Problems
	}
	if !bytes.Equal(next.notices, before.notices) {
		delta.Notices = &s.Notices
	}
	if !bytes.Equal(next.namespaces, before.namespaces) {
		delta.Namespaces = &s.Namespaces
	}
	if !bytes.Equal(next.pools, before.pools) {
		delta.Pools = &s.Pools
	}
	if !bytes.Equal(next.servers, before.servers) {
		delta.Servers = &s.Servers
	}
	if len(gone.Nodes)+len(gone.Instances)+len(gone.Functions) > 0 {
		delta.Gone = &gone
	}
	return json.Marshal(delta)
}

func (f *Function) key() string { return f.Namespace + "/" + f.Function }

// compare returns the items that are not as before, the keys that are no longer there, and what to compare with next time.
func compare[K comparable, T any](before map[K][]byte, items []T, key func(*T) K) (changed []T, gone []K, after map[K][]byte, err error) {
	after = make(map[K][]byte, len(items))
	for i := range items {
		data, err := json.Marshal(&items[i])
		if err != nil {
			return nil, nil, nil, err
		}
		k := key(&items[i])
		after[k] = data
		if !bytes.Equal(data, before[k]) {
			changed = append(changed, items[i])
		}
	}
	for k := range before {
		if _, there := after[k]; !there {
			gone = append(gone, k)
		}
	}
	return changed, gone, after, nil
}
