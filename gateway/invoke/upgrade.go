package invoke

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// switchProtocols joins the two connections after a 101 and passes bytes on until both sides have ended, or nothing moved for the
// idle timeout.
func (c *call) switchProtocols(ctx context.Context, resp *http.Response) error {
	x := c.x
	fail := func(err error) error {
		x.finish(false)
		return err
	}
	if got := UpgradeOf(resp.Header); !hasToken([]string{c.out.upgrade}, got) {
		return fail(c.fn.badResponse(nil, "switched to protocol %.40q, asked for %.40q", got, c.out.upgrade))
	}
	nc, brw, err := http.NewResponseController(c.w).Hijack()
	if err != nil {
		return fail(c.fn.badResponse(err, "switched protocols and the client's connection cannot"))
	}
	defer nc.Close()
	// The connection is ours now: the deadlines of the server do not hold for it.
	_ = nc.SetDeadline(time.Time{})
	if !x.begin() {
		// No answer can be given through the server any more.
		c.written = true
		return fail(x.fault(ctx, errCut))
	}
	c.status, c.written, c.stream = resp.StatusCode, true, true
	x.stream()
	if err := c.writeSwitch(brw.Writer, resp); err != nil {
		return fail(errGone)
	}
	var watched *frames
	if hasToken(resp.Header["Upgrade"], "websocket") {
		watched = &frames{}
	}
	up := x.conn
	// A hijacked connection no longer ends its request's context when the client leaves; the copy sees it. What does end it is the server.
	err = x.pipe(ctx, side{nc, brw.Reader}, side{up.nc, up.br}, watched)
	x.mu.Lock()
	why := x.cause
	x.mu.Unlock()
	if why == cutIdle || why == cutStopping {
		err = x.fault(ctx, err)
	} else {
		err = nil
	}
	return fail(err)
}

// writeSwitch writes the head of the 101.
func (c *call) writeSwitch(w *bufio.Writer, resp *http.Response) error {
	_, _ = w.WriteString("HTTP/1.1 101 Switching Protocols\r\n")
	named := namedByConnection(resp.Header)
	for k, vv := range resp.Header {
		if dropResponse(k) || slices.Contains(named, k) {
			continue
		}
		for _, v := range vv {
			writeLine(w, k, v)
		}
	}
	writeLine(w, "Connection", "Upgrade")
	for _, v := range resp.Header["Upgrade"] {
		writeLine(w, "Upgrade", v)
	}
	writeLine(w, HeaderInvocationID, c.out.id)
	_, _ = w.WriteString("\r\n")
	return w.Flush()
}

// side is one of two joined connections; what was read ahead is in its reader.
type side struct {
	nc net.Conn
	br *bufio.Reader
}

type halfCloser interface{ CloseWrite() error }

// pipe copies both ways until both ended; a cut or an error of either ends both. The client of a WebSocket is told why it ended, where
// the function did not say that itself.
func (x *exchange) pipe(ctx context.Context, client, function side, watched *frames) error {
	var wg sync.WaitGroup
	var first error
	var once sync.Once
	// left says that the client has ended its side: it needs no farewell.
	var left atomic.Bool
	end := func(err error) {
		once.Do(func() { first = err })
		_ = client.nc.Close()
		_ = function.nc.Close()
	}
	wg.Go(func() {
		err := x.copyMoving(function.nc, client.br, nil)
		var we *errWrite
		switch {
		case errors.As(err, &we):
			// The function is gone. What is left of the client's side is for the other direction to end.
			_ = function.nc.Close()
			return
		case err != nil:
			left.Store(true)
			end(err)
			return
		}
		left.Store(true)
		if hc, ok := function.nc.(halfCloser); !ok || hc.CloseWrite() != nil {
			end(nil)
		}
	})
	err := x.copyMoving(client.nc, function.br, watched)
	var we *errWrite
	if watched != nil && !left.Load() && (!errors.As(err, &we) || !x.uncut()) {
		if last := x.farewell(ctx, watched, err); last != nil {
			// A cut has set a deadline that is over.
			_ = client.nc.SetWriteDeadline(time.Now().Add(farewellTimeout))
			_, _ = client.nc.Write(last)
		}
	}
	// A function that has said all ends the stream: nothing that the client says from here on is read by anybody.
	end(err)
	wg.Wait()
	return first
}

// copyMoving copies until src ends and notes that bytes move; watched, where it is given, follows what was sent.
func (x *exchange) copyMoving(dst io.Writer, src io.Reader, watched *frames) error {
	buf := x.inv.bufs.get()
	defer x.inv.bufs.put(buf)
	for {
		n, err := src.Read(*buf)
		if n > 0 {
			x.moved()
			sent, werr := dst.Write((*buf)[:n])
			if watched != nil {
				watched.follow((*buf)[:sent])
			}
			if werr != nil {
				return &errWrite{werr}
			}
			x.moved()
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
