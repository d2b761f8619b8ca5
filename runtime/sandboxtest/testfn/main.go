// Command testfn is the function that the conformance suite runs in its sandboxes: it tells what it sees, and misbehaves on request.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	switch arg(1) {
	case "eat":
		eat(number(arg(2)))
		return
	case "sleep":
		time.Sleep(time.Hour)
		return
	case "sleepers":
		fmt.Println(sleepers())
		return
	case "files":
		var open, core syscall.Rlimit
		if err := errors.Join(syscall.Getrlimit(syscall.RLIMIT_NOFILE, &open), syscall.Getrlimit(syscall.RLIMIT_CORE, &core)); err != nil {
			log.Fatal(err)
		}
		fmt.Print(open.Max, " ", core.Max)
		return
	case "print":
		fmt.Println(strings.Join(os.Args[2:], " "))
		return
	case "cat":
		_, _ = io.Copy(os.Stdout, os.Stdin)
		return
	case "read":
		b, err := os.ReadFile(arg(2))
		if err != nil {
			log.Fatal(err)
		}
		_, _ = os.Stdout.Write(b)
		return
	case "exit":
		os.Exit(int(number(arg(2))))
	case "env":
		fmt.Println(strings.Join(os.Environ(), "\n"))
		return
	case "id":
		fmt.Printf("%d:%d\n", os.Getuid(), os.Getgid())
		return
	}
	if code := os.Getenv("EXIT"); code != "" {
		fmt.Println("leaving with", code)
		os.Exit(int(number(code)))
	}
	if os.Getenv("IGNORE_TERM") != "" {
		signal.Ignore(syscall.SIGTERM)
	}
	if os.Getenv("SPEW") != "" {
		go spew()
	}
	host := ""
	if os.Getenv("ONLY_IPV6") != "" {
		host = "::1"
	}
	if late := os.Getenv("LATE"); late != "" {
		time.Sleep(time.Duration(number(late)) * time.Millisecond)
	}
	l, err := listen(host)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("listening")
	log.Println("listening, says stderr")
	log.Fatal(http.Serve(l, handler()))
}

// sleepers is how many processes that sleep the process sees.
func sleepers() (n int) {
	all, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		log.Fatal(err)
	}
	for _, file := range all {
		// One that has ended meanwhile does not sleep.
		if line, err := os.ReadFile(file); err == nil && string(line) == "/testfn\x00sleep\x00" {
			n++
		}
	}
	return n
}

// listen takes the socket that it was given, where there is one.
func listen(host string) (net.Listener, error) {
	if os.Getenv("LISTEN_FDS") == "1" && os.Getenv("LISTEN_PID") == strconv.Itoa(os.Getpid()) {
		return net.FileListener(os.NewFile(3, "given"))
	}
	return net.Listen("tcp", net.JoinHostPort(host, os.Getenv("PORT")))
}

func arg(i int) string {
	if i < len(os.Args) {
		return os.Args[i]
	}
	return ""
}

func number(s string) int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		log.Fatalf("%q is no number", s)
	}
	return n
}

// sees is what the process knows of itself.
type sees struct {
	UID, GID, PID int
	Groups        []int
	Hostname, Cwd string
	Env, Args     []string
	Interfaces    []string
}

func handler() http.Handler {
	mux := http.NewServeMux()
	reply := func(w http.ResponseWriter, err error) {
		if err != nil {
			http.Error(w, err.Error(), http.StatusConflict)
			return
		}
		fmt.Fprintln(w, "ok")
	}
	mux.HandleFunc("/sees", func(w http.ResponseWriter, _ *http.Request) {
		s := sees{UID: os.Getuid(), GID: os.Getgid(), PID: os.Getpid(), Env: os.Environ(), Args: os.Args}
		s.Groups, _ = os.Getgroups()
		s.Hostname, _ = os.Hostname()
		s.Cwd, _ = os.Getwd()
		interfaces, _ := net.Interfaces()
		for _, i := range interfaces {
			s.Interfaces = append(s.Interfaces, i.Name)
		}
		_ = json.NewEncoder(w).Encode(s)
	})
	mux.HandleFunc("/read", func(w http.ResponseWriter, r *http.Request) {
		b, err := os.ReadFile(r.FormValue("path"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusConflict)
			return
		}
		_, _ = w.Write(b)
	})
	mux.HandleFunc("/link", func(w http.ResponseWriter, r *http.Request) {
		s, err := os.Readlink(r.FormValue("path"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusConflict)
			return
		}
		fmt.Fprint(w, s)
	})
	mux.HandleFunc("/write", func(w http.ResponseWriter, r *http.Request) {
		reply(w, fill(r.FormValue("path"), number(r.FormValue("bytes"))))
	})
	mux.HandleFunc("/eat", func(w http.ResponseWriter, r *http.Request) {
		eat(number(r.FormValue("bytes")))
		reply(w, nil)
	})
	mux.HandleFunc("/run", func(w http.ResponseWriter, r *http.Request) {
		out, err := exec.Command("/proc/self/exe", r.Form["arg"]...).CombinedOutput()
		if err != nil {
			err = fmt.Errorf("%w: %s", err, out)
		}
		reply(w, err)
	})
	mux.HandleFunc("/children", func(w http.ResponseWriter, r *http.Request) {
		var err error
		n := int64(0)
		for ; n < number(r.FormValue("n")) && err == nil; n++ {
			err = exec.Command("/proc/self/exe", "sleep").Start()
		}
		fmt.Fprintf(w, "%d %v", n, err)
	})
	mux.HandleFunc("/spin", func(w http.ResponseWriter, r *http.Request) {
		until := time.Now().Add(time.Duration(number(r.FormValue("ms"))) * time.Millisecond)
		for range 4 {
			go func() {
				for time.Now().Before(until) {
				}
			}()
		}
		reply(w, nil)
	})
	mux.HandleFunc("/dial", func(w http.ResponseWriter, r *http.Request) {
		c, err := net.DialTimeout("tcp", r.FormValue("addr"), time.Second)
		if err == nil {
			c.Close()
		}
		reply(w, err)
	})
	mux.HandleFunc("/say", func(w http.ResponseWriter, r *http.Request) {
		fmt.Println(r.FormValue("text"))
		reply(w, nil)
	})
	mux.HandleFunc("/exit", func(_ http.ResponseWriter, r *http.Request) { os.Exit(int(number(r.FormValue("code")))) })
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello") })
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		mux.ServeHTTP(w, r)
	})
}

// fill writes a file of n bytes, and removes it when that fails.
func fill(path string, n int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	block := make([]byte, 1<<20)
	for n > 0 && err == nil {
		var w int
		w, err = f.Write(block[:min(n, int64(len(block)))])
		n -= int64(w)
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		_ = os.Remove(path)
	}
	return err
}

// eat takes n bytes of memory and touches every page.
func eat(n int64) {
	b, err := syscall.Mmap(-1, 0, int(n), syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		log.Fatal(err)
	}
	for i := 0; i < len(b); i += 4096 {
		b[i] = 1
	}
}

func spew() {
	line := strings.Repeat("x", 1000)
	for i := 0; ; i++ {
		fmt.Println(i, line)
	}
}
