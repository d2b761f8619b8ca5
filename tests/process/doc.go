// Package process runs the tatami binary as tests, the demo and the benchmarks do: as a process of its own, on directories of its own.
package process
