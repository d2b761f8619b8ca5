package invoke

import (
	"sync"
	"sync/atomic"

	"github.com/tatami-faas/tatami/functions"
)

// function is what the gateway holds for a function: its route, its instances, who waits, and its figures. It is made when a
// record, an endpoint or a backlog first names the function.
type function struct {
	ref functions.Ref
	ns  *namespace
	// idPrefix begins the ids of the function's invocations.
	idPrefix string
	// route is nil while there is no record of the function.
	route atomic.Pointer[route]
	// active says that the demand loop looks at the function.
	active    atomic.Bool
	pool      pool
	deadlines deadlines
	stats     stats
}

// route is where a function's traffic goes. It never changes once it is published.
type route struct {
	// serving is the id of the revision that takes the traffic, and coming of the one that will when an instance of it is ready; empty where there is none.
	serving, coming functions.RevisionID
	// live is nil while no revision takes the traffic, or its record cannot be read.
	live *functions.Revision
}

// registry finds functions by name. Reading takes no lock; the map is copied when a function comes or goes.
type registry struct {
	byRef atomic.Pointer[map[functions.Ref]*function]
	mu    sync.Mutex
	// batch holds the map while many functions are added at once; see begin.
	batch  map[functions.Ref]*function
	names  map[string]*namespace
	total  account
	alarms alarms
	// quotas holds the records, of the defaults and the total too.
	quotas map[string]functions.Quota
}

func newRegistry() *registry {
	r := &registry{names: map[string]*namespace{}, quotas: map[string]functions.Quota{}}
	r.total.freed = make(chan struct{}, 1)
	r.byRef.Store(&map[functions.Ref]*function{})
	return r
}

// find returns nil for a function that nothing named yet.
func (r *registry) find(ref functions.Ref) *function { return (*r.byRef.Load())[ref] }

// all is a snapshot; it must not be changed.
func (r *registry) all() map[functions.Ref]*function { return *r.byRef.Load() }

// get makes the function where it is missing.
func (r *registry) get(ref functions.Ref) *function {
	if f := r.find(ref); f != nil {
		return f
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.batch != nil {
		if f := r.batch[ref]; f != nil {
			return f
		}
	} else if f := r.find(ref); f != nil {
		return f
	}
	f := &function{ref: ref, ns: r.namespaceLocked(ref.Namespace), idPrefix: "inv_" + ref.Hash()}
	f.pool.init(f)
	f.deadlines.alarms = &r.alarms
	if r.batch != nil {
		r.batch[ref] = f
		return f
	}
	next := r.copyLocked(1)
	next[ref] = f
	r.byRef.Store(&next)
	return f
}

// drop forgets a function that has no record, no instance and nobody waiting.
func (r *registry) drop(f *function) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.batch != nil || r.find(f.ref) != f || f.route.Load() != nil || f.active.Load() || !f.pool.drop() {
		return
	}
	next := r.copyLocked(0)
	delete(next, f.ref)
	r.byRef.Store(&next)
}

// begin collects additions until end, so that many functions cost one copy.
func (r *registry) begin() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.batch = r.copyLocked(0)
}

func (r *registry) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.batch != nil {
		next := r.batch
		r.batch = nil
		r.byRef.Store(&next)
	}
}

func (r *registry) copyLocked(more int) map[functions.Ref]*function {
	old := *r.byRef.Load()
	next := make(map[functions.Ref]*function, len(old)+more)
	for k, v := range old {
		next[k] = v
	}
	return next
}

func (r *registry) namespaceLocked(name string) *namespace {
	n := r.names[name]
	if n == nil {
		n = newNamespace(name, &r.total)
		n.apply(r.quotaLocked(name))
		r.names[name] = n
	}
	return n
}

// quotaLocked returns the quota of a namespace as it holds.
func (r *registry) quotaLocked(name string) functions.Quota {
	return r.quotas[name].Over(r.quotas[functions.QuotaDefaults])
}

// setQuota takes over the record of a namespace's quota, of the defaults or of the total; the zero one is none.
func (r *registry) setQuota(key string, q functions.Quota) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.quotas[key] = q; q == (functions.Quota{}) {
		delete(r.quotas, key)
	}
	switch key {
	case functions.QuotaTotal:
		r.total.apply(q.Over(functions.Quota{}))
	case functions.QuotaDefaults:
		for name, n := range r.names {
			n.apply(r.quotaLocked(name))
		}
	default:
		if n := r.names[key]; n != nil {
			n.apply(r.quotaLocked(key))
		}
	}
}
