// Package functions holds the domain of Tatami: functions, revisions, invocations, quotas, their identifiers and their validation.
//
// It imports the standard library and internal/fault only. Every type that is stored or sent carries a schema number where it is the
// root of a record; a reader refuses a number greater than the one it knows.
package functions
