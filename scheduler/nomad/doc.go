// Package nomad is the pool of workers that a Nomad job runs.
//
// It lists the job, its allocations and the nodes, then follows Nomad's events from that index on, and lists again when the stream ends and once in a
// while: a stream whose index the servers do not hold any more begins later without a word. The worker of an allocation is known by its label
// functions.LabelMember. Whether a worker lives is not asked here: Nomad takes half a minute to miss a node, the scheduler misses reports after seconds.
// It knows the plain API only; this package and those below it are the one place that imports its client.
package nomad
