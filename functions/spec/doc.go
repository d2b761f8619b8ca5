// Package spec reads and writes tatami.yaml, the file that describes a function.
//
// Reading is strict: a field nobody knows, a value of the wrong type or unit, a key given twice and a combination that cannot be are all
// errors, and all of them are reported at once, each with its position, the line it stands on and, where one is near, the name that was
// probably meant. One table of fields (see fields.go) drives reading, writing and the JSON Schema, so the three cannot drift apart.
package spec
