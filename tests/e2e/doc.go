// Package e2e tests the whole system on real containers, as a user would.
package e2e
