// Package invoke is the data path: it finds the route of a request, admits it, leases a slot of an instance and carries request and answer.
//
// A warm request takes no lock that functions share, sends no message and starts no goroutine of its own, except for a request body that
// is long or of unknown length. What a request needs to know lies in memory: routes and quotas come from watches of the bus's tables, instances
// from the endpoint tables that workers push. A request that finds no free slot waits in its function's list; the need is told to the scheduler.
//
// What a namespace may have in flight and begin per second are its own bounds, the defaults' where it has none, and the total's over all namespaces.
// A caller beyond them is refused at once; the queue waits.
package invoke
