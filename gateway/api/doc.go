// Package api serves the control API: functions, revisions, artifacts, instances, nodes, queues, quotas and logs, with OpenAPI 3.1 at
// /openapi.json.
//
// It writes the records of functions, revisions, quotas and what is wanted of nodes; the scheduler and the gateway watch them. An answer of 2xx to a request that
// changes anything comes after the bus's barrier. A deploy's comes when the revision has the traffic and the gateway's routes know it;
// a client that leaves earlier undoes nothing.
//
// A quota is told as what is set for the namespace, what holds with the defaults, what is used, and what that leaves within the total.
package api
