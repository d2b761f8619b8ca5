package placement

import (
	"strings"

	"github.com/tatami-faas/tatami/functions"
)

// features is a set of features that nodes may lack.
type features uint8

const (
	gVisor features = 1 << iota
	egress
)

func bit(f functions.Feature) features {
	switch f {
	case functions.FeatureGVisor:
		return gVisor
	case functions.FeatureEgress:
		return egress
	}
	return 0
}

// needed is the set of what a request needs, lacked of what a node lacks. What this program does not know of, no function of its asks for.
func needed(list []functions.Feature) (s features) {
	for _, f := range list {
		s |= bit(f)
	}
	return s
}

func lacked(why map[functions.Feature]string) (s features) {
	for f := range why {
		s |= bit(f)
	}
	return s
}

// missing lists what of the needs a node lacks, each with the reason.
func missing(needs []functions.Feature, lacks map[functions.Feature]string) []string {
	var out []string
	for _, f := range needs {
		if why, ok := lacks[f]; ok {
			out = append(out, string(f)+": "+why)
		}
	}
	return out
}

func writeFeatures(list []functions.Feature) string {
	var names []string
	for _, f := range list {
		names = append(names, string(f))
	}
	return strings.Join(names, " or ")
}
