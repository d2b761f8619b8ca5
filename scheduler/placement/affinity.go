package placement

import (
	"maps"
	"slices"
)

// Term is a wish about a node's labels.
type Term struct {
	Key string
	// Value is the value wanted; empty means any. Or are others that are as good.
	Value string
	Or    []string
	// Not turns the term round: nodes with the label are avoided.
	Not bool
	// Preferred terms add to a node's cost where they are not met; the others exclude it.
	Preferred bool
}

func (t Term) met(labels map[string]string) bool {
	v, ok := labels[t.Key]
	return (ok && (t.Value == "" || t.Value == v || slices.Contains(t.Or, v))) != t.Not
}

// unmetCost is what all preferred terms together may cost: a quarter of a node. It bounds how much tightness they outweigh.
const unmetCost = one / 4

// Affinity is a set of terms, with what an engine found about the label sets it knows. It belongs to that engine.
type Affinity struct {
	terms     []Term
	preferred int64
	epoch     uint64
	verdicts  []int64
}

// excluded is the verdict on labels that do not meet a required term, unjudged that on labels not yet looked at.
const (
	excluded = -1
	unjudged = -2
)

// Affinity prepares terms for requests.
func (e *Engine) Affinity(terms ...Term) *Affinity {
	a := &Affinity{terms: append([]Term{}, terms...)}
	for _, t := range terms {
		if t.Preferred {
			a.preferred++
		}
	}
	return a
}

// judge returns the cost of labels, or excluded.
func (a *Affinity) judge(labels map[string]string) int64 {
	var unmet int64
	for _, t := range a.terms {
		switch {
		case t.met(labels):
		case !t.Preferred:
			return excluded
		default:
			unmet++
		}
	}
	if unmet == 0 {
		return 0
	}
	return unmetCost / a.preferred * unmet
}

// manyLabels is how many label sets have classes of their own; nodes with others share classes, and are judged one by one.
const manyLabels = 64

// labelSet is a set of labels that nodes have. The first is that of all the sets beyond manyLabels.
type labelSet struct {
	labels map[string]string
	nodes  int
}

// internLabels returns the number of a set of labels, and counts the node in.
func (e *Engine) internLabels(labels map[string]string) int32 {
	free := int32(-1)
	for i := 1; i < len(e.labels); i++ {
		s := &e.labels[i]
		if s.nodes == 0 {
			free = int32(i)
		} else if maps.Equal(s.labels, labels) {
			s.nodes++
			return int32(i)
		}
	}
	if free < 0 {
		if len(e.labels) > manyLabels {
			return 0
		}
		e.labels = append(e.labels, labelSet{})
		free = int32(len(e.labels) - 1)
	}
	e.labels[free] = labelSet{labels: maps.Clone(labels), nodes: 1}
	e.labelEpoch++
	return free
}

func (e *Engine) dropLabels(i int32) {
	if i != 0 {
		e.labels[i].nodes--
	}
}

// verdict returns what the affinity says of a label set that is not the shared one.
func (e *Engine) verdict(a *Affinity, set int32) int64 {
	if a.epoch != e.labelEpoch || len(a.verdicts) != len(e.labels) {
		a.epoch = e.labelEpoch
		if cap(a.verdicts) < len(e.labels) {
			a.verdicts = make([]int64, len(e.labels), manyLabels+1)
		}
		a.verdicts = a.verdicts[:len(e.labels)]
		for i := range a.verdicts {
			a.verdicts[i] = unjudged
		}
	}
	v := &a.verdicts[set]
	if *v == unjudged {
		*v = a.judge(e.labels[set].labels)
	}
	return *v
}
