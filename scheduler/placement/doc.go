// Package placement decides on which node an instance runs: exact best fit over resource vectors, under the namespace's quota.
//
// It is pure: the same nodes, reservations, quotas and requests give the same decisions. An Engine keeps the nodes, what is reserved on them and the
// quotas, and finds the tightest node through an index, in a time that does not grow with the number of nodes and without allocating. A decision and
// its reservation are one step.
//
// Nodes of one architecture, label set and size form a class; a class is a grid of free CPU by free memory with bitmaps that lead to its cells, and
// a cell is a tree of pages, tightest nodes first. A search bounds what a class, a row of the grid, a cell and a page may hold, and looks only where
// that beats what it has: its choice is a full scan's. Nodes with less free than anybody has asked for yet are kept out of the index until somebody does:
// on a full site those are most, and they fill and empty without a change to it. Shares are whole numbers, so that choices are the same on every machine.
//
// Instance slots bound what a node takes and have no part in its score: how many slots a node has is a setting and says nothing of what is scarce, so
// counting them would draw instances to nodes with few of them.
//
// Why a request found no place, Refusal says from the kinds of nodes alone; Explain judges every node, for people who ask.
package placement
