// Package fakenomad stands in for a Nomad cluster in tests: it serves the endpoints of Nomad's API that Tatami uses, and runs a task as a process
// of its own.
//
// It is as strict as Nomad is. Whoever has no token, or one without the right, gets 403; a read may block until its index has passed; the event
// stream keeps the last hundred events only and begins later, without a word, where an index is older; a job cannot be scaled while a deployment of it is
// active (400) nor out of its bounds (400); a conflicting index is refused (500 for jobs, 409 for variables); too many allocations are stopped from the
// highest index down; a task gets its kill signal, the kill timeout, then SIGKILL, and the one instead of it on the same node starts after it; an update goes on when the checks of what is new pass; one that ends by itself is started again in its allocation; and a
// node that is lost is missed only after the grace of its heartbeats, and its allocations are then lost, or unknown and replaced or not, as their group's
// disconnect block says. A token may do what its policies say. What no part of Tatami asks for is not there.
package fakenomad
