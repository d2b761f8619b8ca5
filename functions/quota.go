package functions

import "github.com/tatami-faas/tatami/internal/fault"

// Quota is the budget of a namespace. A zero field is no bound.
type Quota struct {
	Schema    int    `json:"schema"`
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
}

// Validate reports whether the namespace is a name and no bound is negative.
func (q Quota) Validate() error {
	if err := ValidateName("namespace", q.Namespace); err != nil {
		return err
	}
	for field, v := range map[string]int64{
		"cpuMillis": q.CPU, "memoryBytes": q.Memory, "instances": q.Instances,
		"functions": q.Functions, "concurrent": q.Concurrent, "rate": q.Rate,
	} {
		if v < 0 {
			return fault.New(fault.CodeInvalidRequest, "%s: %d is negative", field, v).WithField(field)
		}
	}
	return nil
}

// Exceeded returns the name of the first bound that used + more would break, or "".
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
