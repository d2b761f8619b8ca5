// Package heap says how far the Go heap of this process may grow before garbage is collected.
//
// Go collects when the heap has doubled, whatever the machine has to spare: under load that is several times a second, each time at the cost of the
// requests then under way. A server that may use a good part of a gigabyte is better off to collect seldom while it needs little of that, and to
// work for it only near the bound.
package heap
