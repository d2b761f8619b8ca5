package placement

import (
	"fmt"

	"github.com/tatami-faas/tatami/functions"
)

// namespace is what a namespace may hold, and does.
type namespace struct {
	name string
	// own is its own quota, quota the one that holds: its own over the defaults.
	own, quota functions.Quota
	used       functions.Resources
	count      int
}

// Bound is a bound of a quota.
type Bound struct {
	// Name is "cpu", "memory" or "instances".
	Name string
	// Of is where the bound is set: a namespace, functions.QuotaDefaults or functions.QuotaTotal.
	Of string
}

// SetQuota sets the quota of a namespace, that of functions.QuotaDefaults, which holds for every namespace where its own leaves a bound out, or that
// of functions.QuotaTotal, which bounds all namespaces together. What is already held beyond a bound stays.
func (e *Engine) SetQuota(q functions.Quota) {
	switch q.Namespace {
	case functions.QuotaDefaults:
		e.setDefaults(q)
	case functions.QuotaTotal:
		e.total.quota = q.Over(functions.Quota{})
	default:
		s := &e.namespaces[e.internNamespace(q.Namespace)]
		s.own, s.quota = q, q.Over(e.defaults)
	}
}

// DeleteQuota removes what SetQuota set.
func (e *Engine) DeleteQuota(name string) {
	switch name {
	case functions.QuotaDefaults:
		e.setDefaults(functions.Quota{})
	case functions.QuotaTotal:
		e.total.quota = functions.Quota{}
	default:
		if i := e.byName[name]; i != 0 {
			s := &e.namespaces[i]
			s.own, s.quota = functions.Quota{}, functions.Quota{}.Over(e.defaults)
			e.forgetNamespace(i)
		}
	}
}

func (e *Engine) setDefaults(q functions.Quota) {
	e.defaults = q
	for i := range e.namespaces {
		s := &e.namespaces[i]
		s.quota = s.own.Over(q)
	}
}

// Budget returns a namespace's quota as it holds, and its use; those of all namespaces together for functions.QuotaTotal.
func (e *Engine) Budget(name string) Budget {
	s := &e.namespaces[e.byName[name]]
	if name == functions.QuotaTotal {
		s = &e.total
	}
	return Budget{Namespace: name, Quota: s.quota, Used: s.used}
}

// exceeds returns the bound that a namespace would break with so much more.
func (e *Engine) exceeds(namespace int32, more functions.Resources) Bound {
	s := &e.namespaces[namespace]
	if name := s.quota.Exceeded(s.used, more); name != "" {
		if s.own.Exceeded(s.used, more) == name {
			return Bound{name, s.name}
		}
		return Bound{name, functions.QuotaDefaults}
	}
	if name := e.total.quota.Exceeded(e.total.used, more); name != "" {
		return Bound{name, functions.QuotaTotal}
	}
	return Bound{}
}

func (e *Engine) internNamespace(name string) int32 {
	if i, ok := e.byName[name]; ok {
		return i
	}
	var i int32
	if last := len(e.noNamespaces) - 1; last >= 0 {
		i, e.noNamespaces = e.noNamespaces[last], e.noNamespaces[:last]
	} else {
		e.namespaces = append(e.namespaces, namespace{})
		i = int32(len(e.namespaces) - 1)
	}
	e.namespaces[i] = namespace{name: name, quota: functions.Quota{}.Over(e.defaults)}
	e.byName[name] = i
	return i
}

// forgetNamespace drops a namespace that has no quota and holds nothing.
func (e *Engine) forgetNamespace(i int32) {
	s := &e.namespaces[i]
	if s.count > 0 || s.own != (functions.Quota{}) {
		return
	}
	delete(e.byName, s.name)
	*s = namespace{}
	e.noNamespaces = append(e.noNamespaces, i)
}

// QuotaRefusal says which bound of which quota refuses an instance.
type QuotaRefusal struct {
	Bound
	budget Budget
	// all is the use and the quota of all namespaces together.
	all  Budget
	need functions.Resources
}

func (e *Engine) quotaRefusal(b Bound, r *Request) *QuotaRefusal {
	return &QuotaRefusal{Bound: b, budget: e.Budget(r.Namespace), all: e.Budget(functions.QuotaTotal), need: demand(r)}
}

// refusing is the budget whose quota refuses.
func (q *QuotaRefusal) refusing() *Budget {
	if q.Of == functions.QuotaTotal {
		return &q.all
	}
	return &q.budget
}

// never reports whether the quota refuses even where nothing is used of it.
func (q *QuotaRefusal) never() bool {
	return q.refusing().Quota.Exceeded(functions.Resources{}, q.need) != ""
}

// Reason writes the refusal for people.
func (q *QuotaRefusal) Reason() string {
	whose := "quota of namespace " + q.budget.Namespace
	switch q.Of {
	case functions.QuotaTotal:
		whose = "quota of all namespaces together"
	case functions.QuotaDefaults:
		whose += ", by default"
	}
	b := q.refusing()
	switch q.Name {
	case "cpu":
		return fmt.Sprintf("%s: cpu: %s needed, %s of %s used", whose, millicores(q.need.CPU), millicores(b.Used.CPU), millicores(b.Quota.CPU))
	case "memory":
		return fmt.Sprintf("%s: memory: %s needed, %s of %s used", whose, mebibytes(q.need.Memory), mebibytes(b.Used.Memory), mebibytes(b.Quota.Memory))
	}
	return fmt.Sprintf("%s: instances: %d of %d used", whose, b.Used.Instances, b.Quota.Instances)
}

// Help returns the command that sets the bound so that the instance is within it. Another bound may refuse then.
func (q *QuotaRefusal) Help() string {
	whose := q.budget.Namespace
	if q.Of == functions.QuotaTotal {
		whose = functions.QuotaTotal
	}
	sum := q.refusing().Used.Add(q.need)
	var value string
	switch q.Name {
	case "cpu":
		value = millicores(sum.CPU)
	case "memory":
		value = fmt.Sprintf("%dMi", (sum.Memory+functions.MiB-1)/functions.MiB)
	default:
		value = fmt.Sprint(sum.Instances)
	}
	return fmt.Sprintf("tatami quota set %s --%s %s", whose, q.Name, value)
}
