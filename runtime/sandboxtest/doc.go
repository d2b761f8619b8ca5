// Package sandboxtest is the conformance suite of the sandbox contract: every driver passes it.
package sandboxtest
