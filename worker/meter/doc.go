// Package meter reads what the machine has and uses, and what each instance uses.
package meter
