package functions

// Feature is something that a function may need of a node and that not every node has.
type Feature string

// The features.
const (
	// FeatureGVisor is gVisor's runtime, for functions with sandbox: gvisor.
	FeatureGVisor Feature = "gvisor"
	// FeatureEgress is a way to the internet, for functions with egress: internet.
	FeatureEgress Feature = "egress"
)

// Features lists what instances need of their node.
func (c Config) Features() []Feature {
	var out []Feature
	if c.GVisor() {
		out = append(out, FeatureGVisor)
	}
	if c.Internet() {
		out = append(out, FeatureEgress)
	}
	return out
}
