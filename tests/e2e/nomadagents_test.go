//go:build e2e

package e2e

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"text/template"
	"time"

	"github.com/hashicorp/nomad/api"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tatami-faas/tatami/scheduler/nomad"
	"github.com/tatami-faas/tatami/tests/process"
)

// agentClients is how many clients a Nomad of the test's own has.
const agentClients = 3

// agentConfig is the configuration of an agent. It asks nobody outside this machine for anything.
var agentConfig = template.Must(template.New("").Parse(`
name                        = "{{ .Name }}"
data_dir                    = "{{ .Dir }}"
bind_addr                   = "{{ .Addr }}"
disable_update_check        = true
disable_anonymous_signature = true
advertise {
  http = "{{ .Addr }}"
  rpc  = "{{ .Addr }}"
  serf = "{{ .Addr }}"
}
ports {
  http = {{ .HTTP }}
  rpc  = {{ .RPC }}
  serf = {{ .Serf }}
}
consul {
  auto_advertise   = false
  server_auto_join = false
  client_auto_join = false
}
acl {
  enabled = true
}
{{ if .Link }}
client {
  enabled           = true
  servers           = ["{{ .Server }}"]
  network_interface = "{{ .Link }}"
  options = {
    "fingerprint.denylist" = "env_aws,env_gce,env_azure,env_digitalocean,consul,vault,bridge,cni"
    "driver.allowlist"     = "raw_exec"
  }
  meta {
    zone          = "{{ .Name }}"
    tatami_server = "true"
  }
}
plugin "raw_exec" {
  config {
    enabled = true
  }
}
{{ else }}
server {
  enabled          = true
  bootstrap_expect = 1
}
{{ end }}
`))

// agentsIn is where agents keep what they have, below a test's directory.
func agentsIn(dir string) string { return filepath.Join(dir, "n") }

// agent is one agent of a Nomad of the test's own.
type agent struct {
	Name, Dir, Addr, Link, Server string
	HTTP, RPC, Serf               int
	cmd                           *exec.Cmd
}

// agents are a Nomad of real agents on this machine: a server and clients, each of which has an address of its own.
type agents struct {
	t       *testing.T
	binary  string
	dir     string
	network string
	links   []string
	server  *agent
	clients []*agent
	admin   *api.Client
	token   string
}

// startAgents starts them, with ACLs, and ends them with the test. Their token may do everything.
func startAgents(t *testing.T, binary, dir string) *agents {
	t.Helper()
	a := &agents{t: t, binary: binary, dir: dir, network: fmt.Sprintf("10.78.%d.", 1+rand.IntN(254))}
	t.Cleanup(a.end)
	a.server = &agent{Name: "server", Addr: "127.0.0.1", HTTP: freePort(t), RPC: freePort(t), Serf: freePort(t)}
	a.start(a.server)
	a.bootstrap()
	for i := range agentClients {
		c := &agent{
			Name: fmt.Sprintf("client-%d", i), Addr: fmt.Sprint(a.network, i+1), Link: fmt.Sprintf("tn%d-%d", os.Getpid()%100_000, i),
			Server: fmt.Sprintf("127.0.0.1:%d", a.server.RPC), HTTP: a.server.HTTP, RPC: a.server.RPC, Serf: a.server.Serf,
		}
		a.link(c)
		a.clients = append(a.clients, c)
		a.start(c)
	}
	eventually(t, time.Minute, "nomad's clients are ready", func() bool { return len(readyNodes(t, a.admin)) == agentClients })
	return a
}

func freePort(t *testing.T) int {
	t.Helper()
	addr, err := process.FreeAddr("")
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// link makes an interface with the agent's address, which only this machine reaches.
func (a *agents) link(c *agent) {
	a.t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = c.Link
	l := &netlink.Veth{LinkAttrs: attrs, PeerName: c.Link + "p"}
	if err := netlink.LinkAdd(l); err != nil {
		a.t.Fatal(err)
	}
	a.links = append(a.links, c.Link)
	if err := netlink.AddrAdd(l, &netlink.Addr{IPNet: &net.IPNet{IP: net.ParseIP(c.Addr), Mask: net.CIDRMask(32, 32)}}); err != nil {
		a.t.Fatal(err)
	}
	for _, name := range []string{c.Link, c.Link + "p"} {
		l, err := netlink.LinkByName(name)
		if err == nil {
			err = netlink.LinkSetUp(l)
		}
		if err != nil {
			a.t.Fatal(err)
		}
	}
}

// start starts an agent, the first time or again.
func (a *agents) start(c *agent) {
	a.t.Helper()
	c.Dir = filepath.Join(a.dir, c.Name)
	if err := os.MkdirAll(c.Dir, 0o755); err != nil {
		a.t.Fatal(err)
	}
	var config bytes.Buffer
	if err := agentConfig.Execute(&config, c); err != nil {
		a.t.Fatal(err)
	}
	file := c.Dir + ".hcl"
	if err := os.WriteFile(file, config.Bytes(), 0o600); err != nil {
		a.t.Fatal(err)
	}
	log, err := os.OpenFile(c.Dir+".log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		a.t.Fatal(err)
	}
	defer log.Close()
	c.cmd = exec.Command(a.binary, "agent", "-config", file)
	c.cmd.Stdout, c.cmd.Stderr = log, log
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := c.cmd.Start(); err != nil {
		a.t.Fatal(err)
	}
}

func (a *agents) url() string { return fmt.Sprintf("http://127.0.0.1:%d", a.server.HTTP) }

// bootstrap makes the token, once there is a leader and it can sign what clients need.
func (a *agents) bootstrap() {
	a.t.Helper()
	c, err := nomad.At(a.url(), "")
	if err != nil {
		a.t.Fatal(err)
	}
	eventually(a.t, time.Minute, "nomad makes a token", func() bool {
		made, _, err := c.ACLTokens().Bootstrap(nil)
		if err == nil {
			a.token = made.SecretID
		}
		return err == nil
	})
	if a.admin, err = nomad.At(a.url(), a.token); err != nil {
		a.t.Fatal(err)
	}
	// A client that registers before the server has a key tries again a quarter of a minute later.
	eventually(a.t, time.Minute, "nomad has a key", func() bool {
		keys, _, err := a.admin.Keyring().List(nil)
		return err == nil && len(keys) > 0
	})
}

// lose has the machine of a node go, with all that Nomad has there. What it runs in cgroups of its own goes on.
func (a *agents) lose(id string) {
	a.t.Helper()
	n, _, err := a.admin.Nodes().Info(id, nil)
	if err != nil {
		a.t.Fatal(err)
	}
	i := slices.IndexFunc(a.clients, func(c *agent) bool { return c.Name == n.Name })
	killTree(a.clients[i].cmd)
}

// killTree kills a process that was started here and all that come from it, those that wait for others first: nobody is left that starts one again.
func killTree(cmd *exec.Cmd) {
	for tree := descendants(cmd.Process.Pid); len(tree) > 0; tree = slices.DeleteFunc(tree, gone) {
		for _, pid := range tree {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		// The agent itself is waited for; the others are init's.
		if slices.Contains(tree, cmd.Process.Pid) {
			_ = cmd.Wait()
		}
	}
}

// descendants are a process, first, and what it has started, as far as that did not change its parent.
func descendants(pid int) []int {
	out := []int{pid}
	for i := 0; i < len(out); i++ {
		children, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", out[i]))
		for _, f := range children {
			text, _ := os.ReadFile(f)
			for word := range strings.FieldsSeq(string(text)) {
				if child, err := strconv.Atoi(word); err == nil {
					out = append(out, child)
				}
			}
		}
	}
	return out
}

// gone reports whether a process has ended, reaped or not.
func gone(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, after, _ := strings.Cut(string(stat), ") ")
	return err != nil || strings.HasPrefix(after, "Z")
}

// end kills the agents and takes away what they leave. The tests' jobs are over then.
func (a *agents) end() {
	for _, c := range append(slices.Clone(a.clients), a.server) {
		if c != nil && c.cmd != nil && c.cmd.ProcessState == nil {
			killTree(c.cmd)
		}
	}
	// A task's secrets lie in a file system of their own.
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[4], a.dir+"/") {
			if err := unix.Unmount(f[4], unix.MNT_DETACH); err != nil {
				a.t.Errorf("%s stays: %v", f[4], err)
			}
		}
	}
	for _, name := range a.links {
		l, err := netlink.LinkByName(name)
		if err == nil {
			err = netlink.LinkDel(l)
		}
		if err != nil {
			a.t.Errorf("the interface %s stays: %v", name, err)
		}
	}
}

// tellAgents shows the end of what the tasks and the agents wrote that were started with a directory.
func tellAgents(t *testing.T, dir string) {
	t.Helper()
	logs, _ := filepath.Glob(dir + "/*/alloc/*/alloc/logs/*.std*.[0-9]*")
	agents, _ := filepath.Glob(dir + "/*.log")
	for _, f := range append(logs, agents...) {
		if text, err := os.ReadFile(f); err == nil && len(text) > 0 {
			t.Logf("%s ends with:\n%s", f, text[max(0, len(text)-8_000):])
		}
	}
}
