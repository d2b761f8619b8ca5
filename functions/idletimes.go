package functions

import "time"

// IdleTimes is what is stored of how a function was idle and needed, so that the scheduler knows it after a restart.
type IdleTimes struct {
	Schema    int    `json:"schema"`
	Namespace string `json:"namespace"`
	Function  string `json:"function"`
	// Counts is the histogram of the idle times: one unsigned varint for each bin, the shortest times first. What is left out is zero.
	Counts []byte `json:"counts,omitempty"`
	// Logs sums the natural logarithms of the idle times in seconds.
	Logs float64 `json:"logs,omitempty"`
	// Cycle is the time from the beginning of the last need but one to that of the last; of Tries cycles Hits were as long as the one before, the
	// later ones counting more.
	Cycle Duration `json:"cycle,omitempty"`
	Hits  float64  `json:"hits,omitempty"`
	Tries float64  `json:"tries,omitempty"`
	// Begun and Ended are of the last need that was heard of.
	Begun time.Time `json:"begun,omitzero"`
	Ended time.Time `json:"ended,omitzero"`
	// Start is how long a cold start takes; zero where none was seen.
	Start Duration `json:"start,omitempty"`
	// Saved is when this was stored, Price what idle memory cost then, for all functions alike: seconds of waiting for a GiB hour.
	Saved time.Time `json:"saved,omitzero"`
	Price float64   `json:"price,omitempty"`
}

// Ref returns the name of the function.
func (t IdleTimes) Ref() Ref { return Ref{Namespace: t.Namespace, Name: t.Function} }
