// Package awake keeps the machine's processors from sleeping while something is about to happen on them.
//
// A call, and more so the start of a function, goes from process to process, and where the next one's processor sleeps it waits until that is awake: in a
// virtual machine that gives an idle processor back to its host at once, 25 to 40 us each time, which is more than the work itself takes. The kernel of
// such a machine can look for work for a while before it lets a processor sleep (halt polling); where it does not, this package asks it to. It takes such
// a wish for all processors at once, as long as a file is open.
package awake
