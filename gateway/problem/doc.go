// Package problem turns a fault into an HTTP answer: the one place where a fault becomes a status.
package problem
