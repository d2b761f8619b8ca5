// Package v1 holds the resources of the control API as they are on the wire, for the server and for its clients.
package v1
