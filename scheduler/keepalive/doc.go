// Package keepalive decides which idle instances are let go: those of a function that has more than it needs, and those that make
// room for another function when nothing else fits.
//
// It is pure. What it names is stopped with a command that the worker refuses while a slot is held: a choice on old news harms nobody.
package keepalive
