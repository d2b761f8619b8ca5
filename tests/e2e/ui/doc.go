// Package ui drives the dashboard in a real browser against a real system, and against the real handlers on a simulated one: what is asserted is what an operator sees.
//
// The tests need root and runc, a built binary (see package harness), Debian's package chromium (or the binary named by TATAMI_CHROMIUM) and the build tag e2e. TATAMI_UI_SHOTS names a directory
// that keeps the screenshots.
package ui
