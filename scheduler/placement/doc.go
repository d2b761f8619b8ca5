// Package placement decides on which node an instance runs: exact best fit over resource vectors, under the namespace's quota.
//
// It is pure: the same nodes, reservations, quotas and request give the same decision. There are two ways in.
//
// An Engine keeps the nodes, what is reserved on them and the quotas, and finds the tightest node through an index, in a time that does not grow
// with the number of nodes and without allocating. Nodes of one architecture, label set and size form a class; a class is a grid of free CPU by free
// memory with bitmaps that lead to its cells, and a cell is a tree of nodes, tightest first. A search bounds what a class, a row of the grid and a
// cell may hold, and looks only where that beats what it has: its choice is a full scan's. Shares are whole numbers, so that choices are the same on
// every machine.
//
// Place judges every node it is given. Among those that fit it takes the one whose mean of allocated shares, instance slots included, is highest;
// a node that holds the artifact wins a tie, then the smaller id.
//
// The scheduler's state is to hold an Engine instead of its own sums, as follows. Node gets the NodeRef that SetNode returns when a report describes
// it (and on each change of Known, Lost, Draining or Cordoned), and RemoveNode when it is forgotten. Instance gets a Reservation: from Reserve
// when its start is about to be commanded, in one step with the decision, or from Adopt when a report first names it; Adjust where a report states
// another amount, Release in Remove. SetQuota and DeleteQuota follow the records; Budget replaces the map of what namespaces use. Affinity is prepared
// once a revision. Explain answers people, Reserve asks nothing of it; makeRoom looks only at nodes that Explain's kinds do not rule out.
package placement
