// Package client calls the control API of Tatami.
//
//	c, err := client.New("unix:///run/tatami/control.sock")
//	fns, err := c.Functions(ctx, "")
//
// Every error is a *fault.Error, whether the server answered with a problem or could not be reached.
package client
