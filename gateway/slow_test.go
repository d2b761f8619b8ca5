package gateway

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/tatami-faas/tatami/functions"
)

const hello = "/fn/hello"

// dial opens a connection that the test does not outlive.
func dial(t *testing.T, addr string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return c
}

// trickle sends the bytes again and again until the other side has ended the connection. It returns all that was answered.
func trickle(t *testing.T, c net.Conn, bytes string) string {
	t.Helper()
	ended := make(chan string, 1)
	go func() {
		all, err := io.ReadAll(c)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("the connection is still there after %q", all)
		}
		ended <- string(all)
	}()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case all := <-ended:
			return all
		case <-tick.C:
			_, _ = io.WriteString(c, bytes)
		}
	}
}

// A client that sends a byte now and then holds its connection for the time that a header may take, and a function's slot for the
// function's timeout; a client that reads nothing, likewise.
func TestSlowClients(t *testing.T) {
	t.Parallel()
	cfg := Config{HeaderTimeout: 2 * time.Second, IdleTimeout: 2 * time.Second, WriteTimeout: 2 * time.Second}
	fn := functions.Config{Timeout: functions.Duration(3 * time.Second)}
	addr, held := hostileWith(t, cfg, fn, func(c net.Conn, r *http.Request) {
		if r.URL.Path != "/endless" {
			sayOK(c, r)
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n")
		for part := bytes.Repeat([]byte("x"), 64<<10); ; {
			if _, err := c.Write(part); err != nil {
				return
			}
		}
	})
	for name, c := range map[string]struct{ begin, more, want string }{
		"nothing":        {"", "", ""},
		"a request line": {"GET /fn/hello", "o", ""},
		"a header":       {"GET /fn/hello HTTP/1.1\r\nHost: x\r\nX: ", "x", ""},
		"many headers":   {"GET /fn/hello HTTP/1.1\r\nHost: x\r\n", "X: y\r\n", ""},
		"empty lines":    {"", "\r\n", "HTTP/1.1 400"},
		"a preface":      {"PRI * HTTP/2.0\r\n\r\nSM", "", ""},
		"a length's body": {
			"POST /fn/hello HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\nConnection: close\r\n\r\n", "x", "HTTP/1.1 504"},
		"chunks": {
			"POST /fn/hello HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n", "1\r\nx\r\n", "HTTP/1.1 504"},
		"a chunk's extension": {
			"POST /fn/hello HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n1;", "x", "HTTP/1.1 "},
		"a trailer": {
			"POST /fn/hello HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n1\r\nx\r\n0\r\nX: ", "x", "HTTP/1.1 "},
		"after a request": {"GET /fn/hello HTTP/1.1\r\nHost: x\r\n\r\nGET /fn/hello HTTP/1.1\r\nX: ", "x", "HTTP/1.1 200"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c1 := dial(t, addr)
			_, _ = io.WriteString(c1, c.begin)
			if got := trickle(t, c1, c.more); !strings.HasPrefix(got, c.want) {
				t.Errorf("answered %.100q, want %q", got, c.want)
			}
			healthy(t, addr, held)
		})
	}
	t.Run("an answer that nobody reads", func(t *testing.T) {
		t.Parallel()
		c := dial(t, addr)
		_, _ = io.WriteString(c, "GET /fn/hello/endless HTTP/1.1\r\nHost: x\r\n\r\n")
		if _, err := c.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		healthy(t, addr, held)
		if n, err := io.Copy(io.Discard, c); n >= 1_000_000_000_000 {
			t.Errorf("%d bytes and %v: an answer that was cut looks whole", n, err)
		}
	})
}

// two is a client of HTTP/2 that sends what it likes.
type two struct {
	net.Conn
	*http2.Framer
	block bytes.Buffer
	enc   *hpack.Encoder
	// over is closed once the server has ended the connection.
	over chan struct{}
}

func dialTwo(t *testing.T, addr string) *two {
	t.Helper()
	c := &two{Conn: dial(t, addr), over: make(chan struct{})}
	c.Framer = http2.NewFramer(c.Conn, c.Conn)
	c.enc = hpack.NewEncoder(&c.block)
	_, _ = io.WriteString(c.Conn, http2.ClientPreface)
	_ = c.WriteSettings()
	_ = c.WriteWindowUpdate(0, 1<<20)
	go func() {
		defer close(c.over)
		_, _ = io.Copy(io.Discard, c.Conn)
	}()
	return c
}

// fields encodes the headers of a request for a path.
func (c *two) fields(path string, more ...hpack.HeaderField) []byte {
	c.block.Reset()
	for _, h := range append([]hpack.HeaderField{
		{Name: ":method", Value: "GET"}, {Name: ":scheme", Value: "http"}, {Name: ":authority", Value: "x"}, {Name: ":path", Value: path},
	}, more...) {
		_ = c.enc.WriteField(h)
	}
	return c.block.Bytes()
}

// What a client of HTTP/2 may do with headers, frames and windows costs it its connection, and nobody else anything.
func TestHostileStreams(t *testing.T) {
	t.Parallel()
	cfg := Config{HeaderTimeout: 2 * time.Second, IdleTimeout: 2 * time.Second, WriteTimeout: 2 * time.Second}
	fn := functions.Config{Timeout: functions.Duration(3 * time.Second)}
	addr, held := hostileWith(t, cfg, fn, func(c net.Conn, r *http.Request) {
		if r.Header.Get("X-Bomb") != "" {
			t.Error("a header that is too large reached the function")
		}
		if r.URL.Path == "/big" {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"+strings.Repeat("x", 100_000))
			return
		}
		sayOK(c, r)
	})
	for name, attack := range map[string]func(c *two){
		// A table of 4 KiB that a few bytes name over and over: 16 KiB become 60 MiB.
		"a header that is named again and again": func(c *two) {
			big := hpack.HeaderField{Name: "x-bomb", Value: strings.Repeat("x", 3900)}
			block := append([]byte{}, c.fields(hello, big)...)
			const newest = 0x80 | 62
			_ = c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: append(block, bytes.Repeat([]byte{newest}, 12<<10)...), EndStream: true, EndHeaders: true})
			_ = c.WriteGoAway(0, http2.ErrCodeNo, nil)
		},
		"a table larger than allowed": func(c *two) {
			const update = 0x3f // 31 and more follows: 1 MiB
			_ = c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{update, 0xe1, 0xff, 0x3f}, EndStream: true, EndHeaders: true})
		},
		"headers that go on without end": func(c *two) {
			_ = c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: c.fields(hello), EndStream: true})
			for range 100_000 {
				c.block.Reset()
				_ = c.enc.WriteField(hpack.HeaderField{Name: "x-more", Value: strings.Repeat("y", 1000), Sensitive: true})
				_ = c.enc.WriteField(hpack.HeaderField{Name: "x-bomb", Value: "x", Sensitive: true})
				if c.WriteContinuation(1, false, c.block.Bytes()) != nil {
					return
				}
			}
		},
		"headers that never end": func(c *two) {
			_ = c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: c.fields(hello), EndStream: true})
		},
		"half a frame":               func(c *two) { _, _ = c.Write([]byte{0, 40, 0, 1}) },
		"a frame larger than agreed": func(c *two) { _, _ = c.Write([]byte{0xff, 0xff, 0xff, 0, 1, 0, 0, 0, 1}) },
		"nothing":                    func(*two) {},
		"more streams than allowed": func(c *two) {
			for id := uint32(1); id < 4*mostStreams; id += 2 {
				if c.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: c.fields(hello), EndHeaders: true}) != nil {
					return
				}
			}
		},
		"bodies that never come": func(c *two) {
			for id := uint32(1); id < 20; id += 2 {
				_ = c.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: c.fields(hello), EndHeaders: true})
			}
		},
		"pings without end": func(c *two) {
			for i := range 200_000 {
				if c.WritePing(false, [8]byte{byte(i)}) != nil {
					return
				}
			}
			_ = c.WriteGoAway(0, http2.ErrCodeNo, nil)
		},
		"settings without end": func(c *two) {
			for range 100_000 {
				if c.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1}) != nil {
					return
				}
			}
			_ = c.WriteGoAway(0, http2.ErrCodeNo, nil)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := dialTwo(t, addr)
			attack(c)
			select {
			case <-c.over:
			case <-time.After(20 * time.Second):
				t.Error("the connection is still there")
			}
			healthy(t, addr, held)
		})
	}
	t.Run("answers that nobody reads", func(t *testing.T) {
		t.Parallel()
		c := &two{Conn: dial(t, addr)}
		c.Framer, c.enc = http2.NewFramer(c.Conn, nil), hpack.NewEncoder(&c.block)
		_, _ = io.WriteString(c.Conn, http2.ClientPreface)
		_ = c.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 20})
		_ = c.WriteWindowUpdate(0, 1<<30)
		for id := uint32(1); id < 2*mostStreams; id += 2 {
			_ = c.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: c.fields("/fn/hello/big"), EndStream: true, EndHeaders: true})
		}
		// Few, so that it is not for their number that the connection ends.
		for begun := time.Now(); c.WritePing(false, [8]byte{}) == nil; time.Sleep(10 * time.Millisecond) {
			if time.Since(begun) > 15*time.Second {
				t.Fatal("the connection is still there")
			}
		}
		healthy(t, addr, held)
	})
}

// As many connections as the listener may have: idle ones give way, busy ones do not, and who is refused is told.
func TestConnectionsAreBounded(t *testing.T) {
	t.Parallel()
	const most = 4
	release := make(chan struct{})
	addr, held := hostileWith(t, Config{MaxConnections: most}, functions.Config{}, func(c net.Conn, r *http.Request) {
		if r.URL.Path == "/wait" {
			<-release
		}
		sayOK(c, r)
	})
	idle := dial(t, addr)
	fmt.Fprint(idle, "GET /fn/hello HTTP/1.1\r\nHost: x\r\n\r\n")
	if status := readStatus(t, idle); status != 200 {
		t.Fatal(status)
	}
	var busy []net.Conn
	for range most {
		c := dial(t, addr)
		fmt.Fprint(c, "GET /fn/hello/wait HTTP/1.1\r\nHost: x\r\n\r\n")
		busy = append(busy, c)
		awaitHeld(t, held, int64(len(busy)))
	}
	if n, err := idle.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the idle connection did not give way: %d bytes, %v", n, err)
	}
	if status, header := exchange(t, addr, ""); status != 503 || header.Get("Tatami-Error") != "unavailable" || header.Get("Retry-After") != "1" {
		t.Errorf("one too many is answered %d %v", status, header)
	}
	close(release)
	for _, c := range busy {
		if status := readStatus(t, c); status != 200 {
			t.Errorf("a busy connection: %d", status)
		}
	}
	healthy(t, addr, held)
	// One that has asked nothing gives way too, once it has had its time.
	for range most {
		dial(t, addr)
	}
	status := 0
	for deadline := time.Now().Add(20 * courtesy); status != http.StatusOK && time.Now().Before(deadline); time.Sleep(courtesy / 10) {
		status, _ = exchange(t, addr, "GET /fn/hello HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	}
	if status != http.StatusOK {
		t.Errorf("connections that ask nothing keep everybody else away: %d", status)
	}
	healthy(t, addr, held)
}

func readStatus(t *testing.T, c net.Conn) int {
	t.Helper()
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	return resp.StatusCode
}

func awaitHeld(t *testing.T, held *atomic.Int64, want int64) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); held.Load() != want; time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d slots are held, want %d", held.Load(), want)
		}
	}
}
