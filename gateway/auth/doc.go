// Package auth guards the control API: a bearer token, a dashboard session opened by a link that works once, and checks of Host and
// Origin against other web pages.
//
// A request that came over the unix socket needs nothing: the socket's file mode says who may connect. One over TCP needs the token in
// an Authorization header, or the session cookie. Where a cookie is the credential, nothing but the dashboard's own page may make the
// request: cookies do not tell ports apart, and a function's page may live on the same machine's other port.
package auth
