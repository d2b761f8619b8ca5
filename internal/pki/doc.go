// Package pki is Tatami's own small certificate authority: it certifies who is a server and who is the worker of which node, and checks what
// a peer shows.
//
// Whom a certificate is for stands in a URI (tatami://worker/nod_…); host names and addresses play no part, so that a machine may have any.
// Certificates live for a short time and are replaced while they are in use: connections that exist go on, new ones show the new certificate.
// Whoever meets an authority for the first time knows it by its pin, a hash of its public key. Nothing here touches files or the network.
package pki
