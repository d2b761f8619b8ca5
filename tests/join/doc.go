// Package join tests the two ends of a joined worker together, in one process and without containers: a gateway on a server's bus, and
// workers on links to it.
package join
