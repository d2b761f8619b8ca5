package v1

import "github.com/tatami-faas/tatami/functions"

// NamespaceQuota is a namespace's budget and what is used of it. That of the defaults ("_defaults") uses nothing; that of the total ("_total")
// is about all namespaces together.
type NamespaceQuota struct {
	Namespace string `json:"namespace"`
	// Own is what is set for the namespace: a bound that is 0 or left out is the defaults' to set, one that is -1 is none.
	Own functions.Quota `json:"own"`
	// Effective is what holds: a bound that is 0 or left out is none.
	Effective functions.Quota `json:"effective"`
	Used      QuotaUse        `json:"used"`
	// Headroom is what may be used on top, by the namespace's bounds and the total's. What is left out has no bound.
	Headroom QuotaHeadroom `json:"headroom"`
}

// QuotaUse is what is used of a quota. Concurrent and Rate are what this gateway counts, the rate over the last minute.
type QuotaUse struct {
	CPU        int64   `json:"cpuMillis"`
	Memory     int64   `json:"memoryBytes"`
	Instances  int64   `json:"instances"`
	Functions  int64   `json:"functions"`
	Concurrent int64   `json:"concurrent"`
	Rate       float64 `json:"rate"`
}

// QuotaHeadroom is what a quota leaves.
type QuotaHeadroom struct {
	CPU        *int64   `json:"cpuMillis,omitempty"`
	Memory     *int64   `json:"memoryBytes,omitempty"`
	Instances  *int64   `json:"instances,omitempty"`
	Functions  *int64   `json:"functions,omitempty"`
	Concurrent *int64   `json:"concurrent,omitempty"`
	Rate       *float64 `json:"rate,omitempty"`
}

// Plus returns the sum of two uses.
func (u QuotaUse) Plus(v QuotaUse) QuotaUse {
	return QuotaUse{
		CPU: u.CPU + v.CPU, Memory: u.Memory + v.Memory, Instances: u.Instances + v.Instances, Functions: u.Functions + v.Functions,
		Concurrent: u.Concurrent + v.Concurrent, Rate: u.Rate + v.Rate,
	}
}

// Left returns what the quota, as it holds, leaves of a use: never less than nothing.
func (u QuotaUse) Left(q functions.Quota) QuotaHeadroom {
	return QuotaHeadroom{
		CPU: left(q.CPU, u.CPU), Memory: left(q.Memory, u.Memory), Instances: left(q.Instances, u.Instances),
		Functions: left(q.Functions, u.Functions), Concurrent: left(q.Concurrent, u.Concurrent), Rate: left(float64(q.Rate), u.Rate),
	}
}

// Within returns the lesser of two headrooms.
func (h QuotaHeadroom) Within(o QuotaHeadroom) QuotaHeadroom {
	return QuotaHeadroom{
		CPU: lesser(h.CPU, o.CPU), Memory: lesser(h.Memory, o.Memory), Instances: lesser(h.Instances, o.Instances),
		Functions: lesser(h.Functions, o.Functions), Concurrent: lesser(h.Concurrent, o.Concurrent), Rate: lesser(h.Rate, o.Rate),
	}
}

func left[N int64 | float64](bound, used N) *N {
	if bound == 0 {
		return nil
	}
	n := max(bound-used, 0)
	return &n
}

func lesser[N int64 | float64](a, b *N) *N {
	if a == nil || b != nil && *b < *a {
		return b
	}
	return a
}
