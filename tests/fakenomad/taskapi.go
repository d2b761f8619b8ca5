package fakenomad

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
)

// serveTask serves the API at a socket in a task's directory, as an agent does. The lock is held.
func (c *Cluster) serveTask(path string) error {
	if err := os.RemoveAll(path); err != nil {
		return err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	srv := &http.Server{Handler: c.handler()}
	c.sockets = append(c.sockets, srv)
	c.tasks.Go(func() {
		if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			fmt.Fprintf(c.log(), "the API in a task: %v\n", err)
		}
	})
	return nil
}
