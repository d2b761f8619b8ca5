// Package templates holds the starters that `tatami init` writes.
package templates
