// Package escape is the suite that a hostile function runs against its sandbox: every attempt must be refused, by the very refusal that is
// expected, and must be shown to succeed, or to get further, where there is no sandbox. Every class of sandbox passes it.
package escape
