package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"
)

// nginxPort is where nginx listens inside the instance's network namespace.
const nginxPort = 8099

// A worker a core, kept connections to the instance, no access log, and the header that every proxy says: what nginx's guide to proxying asks for.
const nginxConfig = `worker_processes %d;
error_log stderr error;
pid %[2]s/pid;
events { worker_connections 4096; }
http {
	access_log off;
	client_body_temp_path %[2]s/body;
	proxy_temp_path %[2]s/proxy;
	fastcgi_temp_path %[2]s/fastcgi;
	uwsgi_temp_path %[2]s/uwsgi;
	scgi_temp_path %[2]s/scgi;
	keepalive_requests 100000000;
	upstream instance {
		server 127.0.0.1:8080;
		keepalive 256;
		keepalive_requests 100000000;
	}
	server {
		listen 127.0.0.1:%[3]d backlog=4096;
		location / {
			proxy_pass http://instance;
			proxy_http_version 1.1;
			proxy_set_header Connection "";
			proxy_set_header Host $host;
			proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
		}
	}
}
`

// nginx is Debian's nginx in front of an instance, inside the instance's network namespace.
type nginx struct {
	cmd   *exec.Cmd
	dir   string
	log   bytes.Buffer
	ended chan error
}

func startNginx(ctx context.Context, pid int) (*nginx, error) {
	dir, err := os.MkdirTemp("/tmp", "ttbench-nginx")
	if err != nil {
		return nil, err
	}
	// Its workers are another user.
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(file, fmt.Appendf(nil, nginxConfig, runtime.NumCPU(), dir, nginxPort), 0o644); err != nil {
		return nil, err
	}
	n := &nginx{dir: dir, ended: make(chan error, 1)}
	n.cmd = exec.Command("nsenter", "--net", "--target", strconv.Itoa(pid), "--", "nginx", "-p", dir, "-c", file, "-g", "daemon off;")
	n.cmd.Stderr = &n.log
	n.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := n.cmd.Start(); err != nil {
		return nil, fmt.Errorf("nginx, which make deps-test installs: %w", err)
	}
	go func() { n.ended <- n.cmd.Wait() }()
	dial, err := dialerTo(pid, nginxPort)
	if err != nil {
		return nil, n.stopAfter(err)
	}
	for begun := time.Now(); ; {
		var c net.Conn
		if c, err = dial(ctx, "", ""); err == nil {
			return n, c.Close()
		}
		select {
		case err = <-n.ended:
			n.ended <- err
			return nil, n.stopAfter(fmt.Errorf("nginx ended: %w", err))
		case <-time.After(10 * time.Millisecond):
		}
		if time.Since(begun) > 5*time.Second {
			return nil, n.stopAfter(fmt.Errorf("nginx does not listen: %w", err))
		}
	}
}

// stopAfter ends nginx and returns err with what nginx said, or what went wrong with that.
func (n *nginx) stopAfter(err error) error {
	_ = n.cmd.Process.Signal(syscall.SIGTERM)
	if nerr := <-n.ended; nerr != nil && err == nil {
		err = fmt.Errorf("nginx: %w", nerr)
	}
	if err != nil && n.log.Len() > 0 {
		err = fmt.Errorf("%w\n%s", err, &n.log)
	}
	if rerr := os.RemoveAll(n.dir); err == nil {
		err = rerr
	}
	return err
}
