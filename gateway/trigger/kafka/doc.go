// Package kafka takes the records of a Kafka topic in, as a member of a consumer group.
//
// Partitions are worked on side by side, the records of each in their order. What was polled is committed when all of it is durable, so a record is
// lost by nobody's crash, and one that comes twice is the same event: its topic, partition and offset name it. The invocations of a partition's records run one after the other, too: one that fails is
// tried again, and dead at the end, before the next one begins.
package kafka
