// Package scheduler decides which instances run where: the control loop over the pure packages below it.
//
// The state has one lock. Whoever brings an input decides, unless somebody else does: then the loop takes it. Inputs are the watches of functions,
// revisions and quotas, the gateways' demand, the workers' reports, and ticks for what time alone changes; each is handed to reconcile, and the effects
// are carried out: commands to workers, changes of the records.
// A start from zero follows from the demand message itself and waits for no tick. Nothing about instances is stored: after a restart nothing
// is decided until the records are known, and nothing is placed on a node until its worker has reported in full.
package scheduler
