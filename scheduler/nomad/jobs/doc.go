// Package jobs makes the Nomad jobs that run Tatami: one of the servers, one of the workers, and the policy that lets the servers resize the workers'. It
// writes them as people read them, plans them, and applies them.
package jobs
