// Package cloudevents reads and writes events as CloudEvents 1.0.2 has them over HTTP: binary, structured in JSON, and batched in JSON.
//
// Reading is strict: an event that breaks a rule is refused with the attribute named. Formats other than JSON are not known.
package cloudevents
