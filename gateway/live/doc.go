// Package live merges what the scheduler, the data path and the queue know into one picture of the system, once a second, and gives it to
// the dashboard, to the command line and to the metrics.
//
// A picture is a Snapshot: verdict, totals, nodes, instances, functions, and 15 minutes of history, so that a page that is opened now shows
// what happened before. GET /v1/overview answers with a Snapshot. GET /v1/stream sends one Snapshot and then, once a second, a Delta with what
// changed. Deltas lie in one bounded ring that all streams read; a stream that comes back (Last-Event-ID) or falls behind gets
// the deltas that it missed if the ring still holds them, else a fresh Snapshot. So a slow reader costs nobody else anything.
package live
