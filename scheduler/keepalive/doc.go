// Package keepalive decides which idle instances are kept, let go or started ahead: for how long a function keeps one, which of those that
// it has more than it needs go, and which make room for another function when nothing else fits.
//
// A Record is what a function's idle times were, as a histogram ("Serverless in the Wild", USENIX ATC 2020) and as the cycle in which it is
// needed. A Plan weighs, at every age of an idle time, the odds that the need comes next against the price of the memory held: what a cold start
// costs × how likely it is ÷ size, as in greedy-dual caching, but looked at ahead instead of at eviction. A Market finds the one price at which
// all functions together keep as much idle as the memory budget allows.
//
// It is pure. What it names is stopped with a command that the worker refuses while a slot is held: a choice on old news harms nobody.
package keepalive
