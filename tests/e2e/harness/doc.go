// Package harness runs `tatami up` as a process of its own for the end-to-end tests.
package harness
