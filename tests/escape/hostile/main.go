//go:build linux

// Command hostile is the function that tries to get out of its sandbox, or to harm what is beside it: each attempt is an endpoint of its
// own, and can be made from the command line too, for the control outside of any sandbox.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// outcome is how an attempt went.
type outcome struct {
	// Errno is the refusal's name; empty where nothing was refused.
	Errno string
	// Error is the refusal in words, Detail what the attempt got.
	Error, Detail string
}

// attempt tries one thing; what it says is what it got.
type attempt func(a url.Values) (string, error)

func attempts() map[string]attempt {
	all := map[string]attempt{}
	for _, group := range []map[string]attempt{mounting(), powers(), devices(), processes(), files(), network(), neighbours(), resources()} {
		maps.Copy(all, group)
	}
	return all
}

// plain is an attempt that takes no arguments and gets nothing but success.
func plain(f func() error) attempt {
	return func(url.Values) (string, error) { return "", f() }
}

func main() {
	all := attempts()
	if len(os.Args) > 1 {
		command(all, os.Args[1:])
		return
	}
	fmt.Println("listening")
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, os.Getenv("IDENTITY")) })
	for name, f := range all {
		mux.HandleFunc("GET /try/"+name, func(w http.ResponseWriter, r *http.Request) {
			_ = json.NewEncoder(w).Encode(try(f, r.URL.Query()))
		})
	}
	l, err := net.Listen("tcp", ":"+os.Getenv("PORT"))
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(http.Serve(l, mux))
}

// command is what the program does when it starts itself, or is started by hand.
func command(all map[string]attempt, args []string) {
	switch args[0] {
	case "sleep":
		time.Sleep(time.Hour)
	case "ids":
		fmt.Printf("%d %d", os.Geteuid(), os.Getegid())
	case "eat":
		n, err := strconv.Atoi(args[1])
		if err != nil {
			log.Fatal(err)
		}
		eat(n)
	case "try":
		f, ok := all[args[1]]
		if !ok {
			log.Fatalf("there is no attempt %q", args[1])
		}
		query, err := url.ParseQuery(strings.Join(args[2:], "&"))
		if err != nil {
			log.Fatal(err)
		}
		if err := json.NewEncoder(os.Stdout).Encode(try(f, query)); err != nil {
			log.Fatal(err)
		}
	default:
		log.Fatalf("unknown command %q", args[0])
	}
}

func try(f attempt, a url.Values) outcome {
	detail, err := f(a)
	if err == nil {
		return outcome{Detail: detail}
	}
	out := outcome{Errno: "unknown", Error: err.Error(), Detail: detail}
	var errno syscall.Errno
	if errors.As(err, &errno) {
		out.Errno = unix.ErrnoName(errno)
	}
	return out
}

// call makes a system call that the library has no function for.
//
//go:uintptrescapes
func call(number uintptr, args ...uintptr) error {
	var a [6]uintptr
	copy(a[:], args)
	_, _, errno := unix.Syscall6(number, a[0], a[1], a[2], a[3], a[4], a[5])
	if errno != 0 {
		return errno
	}
	return nil
}

// opens is call where success is a descriptor.
//
//go:uintptrescapes
func opens(number uintptr, args ...uintptr) error {
	var a [6]uintptr
	copy(a[:], args)
	fd, _, errno := unix.Syscall6(number, a[0], a[1], a[2], a[3], a[4], a[5])
	if errno != 0 {
		return errno
	}
	return unix.Close(int(fd))
}
