package main

import (
	"context"
	"io"
	"net/http"
	"time"

	"github.com/tatami-faas/tatami/tests/process"
)

// server is the `tatami up` that is shown.
type server struct {
	*process.Up
	dashboard string
}

func startServer(ctx context.Context, binary string) (*server, error) {
	public, err := process.FreeAddr("127.0.0.1:8080")
	if err != nil {
		return nil, err
	}
	control, err := process.FreeAddr("127.0.0.1:8081")
	if err != nil {
		return nil, err
	}
	up, err := process.StartUp(ctx, binary, "tatami-demo", public, "--control-addr", control, "--log-format", "text")
	if err != nil {
		return nil, err
	}
	return &server{up, up.Said("dashboard")}, nil
}

// answer is what came back for one request, read to its end.
type answer struct {
	code   int
	status string
	header http.Header
	body   string
}

// do sends one request to the public listener.
func (s *server) do(ctx context.Context, method, path string) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "http://"+s.Public+path, nil)
	if err != nil {
		return answer{}, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Status, resp.Header, string(body)}, err
}
