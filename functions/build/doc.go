// Package build turns what a user has — a Go source directory, a static binary, an OCI layout, a tar of an image — into an OCI image of
// blobs by digest, ready to be uploaded, and names images in registries.
//
// Building happens on the user's machine: the server never runs a compiler. What comes out is checked the same way on both sides: every
// blob against its digest and size, every layer's entries against paths that escape, and the unpacked size against a bound, so that
// neither a broken archive nor a hostile one reaches a node. Images of other tools are carried over byte for byte where they are OCI
// already; those of `docker save` get an OCI manifest over the same configuration and layers.
package build
