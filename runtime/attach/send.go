//go:build linux

package attach

import (
	"context"
	"errors"
	"io"
	"net"
	"time"

	"github.com/tatami-faas/tatami/runtime/attach/wire"
)

// RefusedError says why the init could not do its setup, or not become the function: then it is a fault of the image or the command.
type RefusedError struct{ Why string }

func (e *RefusedError) Error() string { return e.Why }

// maxRefusal bounds what is read of an answer.
const maxRefusal = 16 << 10

// SetUp has the init do its setup, and returns when it waits for its request.
func SetUp(ctx context.Context, conn *net.UnixConn, setup []byte) error {
	return setUp(ctx, conn, setup, wire.Hello)
}

// EnterUsers has the init do a setup that ends with wire.OpUsers, and returns when it has a user namespace and waits for another setup.
func EnterUsers(ctx context.Context, conn *net.UnixConn, setup []byte) error {
	return setUp(ctx, conn, setup, wire.Entered)
}

func setUp(ctx context.Context, conn *net.UnixConn, setup []byte, done byte) error {
	defer unblock(ctx, conn)()
	if _, err := conn.Write(setup); err != nil {
		return errors.Join(ctx.Err(), err)
	}
	b := make([]byte, maxRefusal)
	n, err := conn.Read(b)
	switch {
	case err != nil:
		return errors.Join(ctx.Err(), err)
	case n == 1 && b[0] == done:
		return nil
	case b[0] < ' ':
		return errors.New("the sandbox's init is of another version; build this program with 'make build'")
	}
	return &RefusedError{string(b[:n])}
}

// Send has the init become the process, and returns when it has; a RefusedError where it could not.
func Send(ctx context.Context, conn *net.UnixConn, request []byte) error {
	if err := Hand(ctx, conn, request); err != nil {
		return err
	}
	return Await(ctx, conn, Begin(conn))
}

// Hand tells the init which process it will be. It gets ready for that, and runs nothing of it before Begin.
func Hand(ctx context.Context, conn *net.UnixConn, request []byte) error {
	defer unblock(ctx, conn)()
	if _, err := conn.Write(request); err != nil {
		return errors.Join(ctx.Err(), err)
	}
	return nil
}

// Begin has the init become the process that it was handed. It does not wait for that; its error is for Await: an init that could not get ready has
// ended, and has said why before.
func Begin(conn *net.UnixConn) (unheard error) {
	_, unheard = conn.Write([]byte{wire.Begin})
	return unheard
}

// Await returns when the init has become the process that it was handed; a RefusedError where it could not. unheard is what Begin said.
func Await(ctx context.Context, conn *net.UnixConn, unheard error) error {
	defer unblock(ctx, conn)()
	// The program that takes the init's place does not inherit the connection.
	why, err := io.ReadAll(io.LimitReader(conn, maxRefusal))
	switch {
	case len(why) > 0:
		return &RefusedError{string(why)}
	case err != nil || unheard != nil:
		return errors.Join(ctx.Err(), unheard, err)
	}
	return nil
}

// unblock ends what waits on the connection when ctx ends, until the function that it returns is called.
func unblock(ctx context.Context, conn *net.UnixConn) func() {
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	return func() { stop() }
}
