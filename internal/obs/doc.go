// Package obs is how Tatami is observed: the logger with its fixed keys, and the Prometheus metrics of the control listener.
//
// Nothing here is global: the logger is made once and handed down, the registry belongs to the Metrics that made it.
package obs
