// Package webhook checks the signatures of web hooks and makes events of them.
//
// An event's id follows from the signed body alone: a request that is sent again, by its sender or by somebody who recorded it, is the same event.
package webhook
