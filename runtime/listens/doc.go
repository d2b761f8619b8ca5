// Package listens tells at once that a process of a network namespace has begun to listen for TCP connections. To ask for that again and
// again takes a function time that it needs to get there; the kernel knows the moment: a small BPF program, attached to the cgroup that
// functions run below, hands each over. It changes nothing about any socket. Where a kernel lacks what that takes, Open says so, and one has to ask.
package listens
