// Package bus is the one place that knows the embedded NATS server, and how streams, buckets, keys, subjects and messages are named.
package bus
