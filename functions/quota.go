package functions

import "github.com/tatami-faas/tatami/internal/fault"

// Names that stand in a quota's place of a namespace; neither can be a namespace.
const (
	// QuotaDefaults names the bounds that every namespace has where its own quota leaves them out.
	QuotaDefaults = "_defaults"
	// QuotaTotal names the bounds of all namespaces together.
	QuotaTotal = "_total"
)

const (
	// Unbounded as a bound says that there is none, whatever the defaults say.
	Unbounded = -1
	// DefaultWeight is the share of a namespace that has no weight of its own.
	DefaultWeight = 100
	// MaxWeight is the greatest.
	MaxWeight = 10000
)

// Quota is the budget of a namespace. A field that is zero takes its value from the defaults (see Over); where these leave it out too there is
// no bound.
type Quota struct {
	Schema int `json:"schema"`
	// Namespace is a namespace, QuotaDefaults or QuotaTotal.
	Namespace string `json:"namespace"`
	// CPU is in millicores over all instances.
	CPU int64 `json:"cpuMillis,omitempty"`
	// Memory is in bytes over all instances, ephemeral storage included.
	Memory int64 `json:"memoryBytes,omitempty"`
	// Instances bounds the instances in any state.
	Instances int64 `json:"instances,omitempty"`
	// Functions bounds the functions deployed.
	Functions int64 `json:"functions,omitempty"`
	// Concurrent bounds the invocations in flight at a gateway.
	Concurrent int64 `json:"concurrent,omitempty"`
	// Rate bounds the invocations per second at a gateway.
	Rate int64 `json:"rate,omitempty"`
	// Weight is the namespace's share of what is short, beside the weights of the others that wait too: 1 to MaxWeight. QuotaTotal has none.
	Weight int64 `json:"weight,omitempty"`
}

// bounds lists the fields that bound something, by their names.
func (q *Quota) bounds() map[string]*int64 {
	return map[string]*int64{
		"cpuMillis": &q.CPU, "memoryBytes": &q.Memory, "instances": &q.Instances,
		"functions": &q.Functions, "concurrent": &q.Concurrent, "rate": &q.Rate,
	}
}

// Over returns the quota as it holds: what q leaves out is taken from defaults, Unbounded has become zero, and the weight is set.
func (q Quota) Over(defaults Quota) Quota {
	theirs := defaults.bounds()
	for field, own := range q.bounds() {
		if *own == 0 {
			*own = *theirs[field]
		}
		*own = max(*own, 0)
	}
	if q.Weight == 0 {
		q.Weight = defaults.Weight
	}
	if q.Weight == 0 {
		q.Weight = DefaultWeight
	}
	return q
}

// Unbounded reports whether the quota, as Over returned it, bounds nothing.
func (q Quota) Unbounded() bool {
	for _, v := range q.bounds() {
		if *v > 0 {
			return false
		}
	}
	return true
}

// Validate reports whether the namespace is a name or one of the two that stand in its place, and every bound and the weight lie in their ranges.
func (q Quota) Validate() error {
	if q.Namespace != QuotaDefaults && q.Namespace != QuotaTotal {
		if err := ValidateName("namespace", q.Namespace); err != nil {
			return err
		}
	}
	for field, v := range q.bounds() {
		if *v < Unbounded {
			return fault.New(fault.CodeInvalidRequest, "%s: %d is neither a bound nor %d, which is none", field, *v, Unbounded).WithField(field)
		}
	}
	switch {
	case q.Weight < 0 || q.Weight > MaxWeight:
		return fault.New(fault.CodeInvalidRequest, "weight: %d is not between 1 and %d", q.Weight, MaxWeight).WithField("weight")
	case q.Weight != 0 && q.Namespace == QuotaTotal:
		return fault.New(fault.CodeInvalidRequest, "weight: all namespaces together have none").WithField("weight")
	}
	return nil
}

// Exceeded returns the name of the first bound that used + more would break, or "". The quota is one that Over returned.
func (q Quota) Exceeded(used, more Resources) string {
	sum := used.Add(more)
	switch {
	case q.CPU > 0 && sum.CPU > q.CPU:
		return "cpu"
	case q.Memory > 0 && sum.Memory > q.Memory:
		return "memory"
	case q.Instances > 0 && sum.Instances > q.Instances:
		return "instances"
	}
	return ""
}
