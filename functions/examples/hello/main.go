// Command hello is a function that greets, and gives back what was posted to it.
package main

import (
	"context"
	"encoding/json"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"
)

// answer is what a caller gets.
type answer struct {
	Message    string    `json:"message"`
	Name       string    `json:"name"`
	Time       time.Time `json:"time"`
	PID        int       `json:"pid"`
	Count      int64     `json:"count"`
	Invocation string    `json:"invocation,omitempty"`
	Body       string    `json:"body,omitempty"`
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	listener, err := listen()
	if err != nil {
		log.Fatal(err)
	}
	log.Printf("hello listens on port %d", listener.Addr().(*net.TCPAddr).Port)
	server := &http.Server{Handler: handler(), ReadHeaderTimeout: 10 * time.Second}
	stopped := make(chan error, 1)
	go func() {
		// Requests under way are finished before the process ends.
		<-ctx.Done()
		grace, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		stopped <- server.Shutdown(grace)
	}()
	if err := server.Serve(listener); err != http.ErrServerClosed {
		log.Fatal(err)
	}
	if err := <-stopped; err != nil {
		log.Fatal(err)
	}
	log.Print("hello is done")
}

// listen returns the socket that was opened for this process before it began, where there is one: requests may wait in it already. Else it
// opens one on $PORT.
func listen() (net.Listener, error) {
	if os.Getenv("LISTEN_FDS") == "1" && os.Getenv("LISTEN_PID") == strconv.Itoa(os.Getpid()) {
		given := os.NewFile(3, "socket")
		defer given.Close()
		return net.FileListener(given)
	}
	port := os.Getenv("PORT")
	if port == "" {
		port = "8080"
	}
	return net.Listen("tcp", ":"+port)
}

func handler() http.Handler {
	var count atomic.Int64
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
		if err != nil {
			http.Error(w, err.Error(), http.StatusRequestEntityTooLarge)
			return
		}
		name := r.URL.Query().Get("name")
		if name == "" {
			name = "world"
		}
		a := answer{
			Message: "Hello, " + name + "!", Name: name, Time: time.Now().UTC(), PID: os.Getpid(), Count: count.Add(1),
			Invocation: r.Header.Get("Tatami-Invocation-Id"), Body: string(body),
		}
		log.Printf("%s %s for %s", r.Method, r.URL.Path, name)
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(a); err != nil {
			log.Print(err)
		}
	})
}
