// Package ui is the operator's dashboard: one static page, embedded, that lives on the control listener and shows what /v1/stream sends.
//
// It is plain ES modules and one style sheet without a build step. Nothing is loaded from elsewhere, no script or style is inline, and names
// reach the page as text only: the content security policy demands Trusted Types and allows no policy to make them.
package ui
