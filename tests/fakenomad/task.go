package fakenomad

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"text/template"
	"time"

	"github.com/hashicorp/nomad/api"
)

// run runs an allocation's task, again and again while it is to run, and says how it is.
func (c *Cluster) run(a *alloc, on *node) {
	main := a.group.Tasks[0]
	if !c.cfg.Run {
		c.mu.Lock()
		a.healthy = true
		c.mu.Unlock()
		c.report(a, api.AllocClientStatusRunning)
		c.mu.Lock()
		killing := a.killing
		c.mu.Unlock()
		select {
		case <-a.stopping:
		case <-killing:
		case <-c.stop:
		}
		c.report(a, api.AllocClientStatusComplete)
		return
	}
	c.tasks.Go(func() { c.check(a, on) })
	for {
		cmd, err := c.prepare(a, main, on)
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			fmt.Fprintf(c.log(), "allocation %s: %v\n", a.ID, err)
			c.fail(a)
			return
		}
		c.report(a, api.AllocClientStatusRunning)
		if c.wait(a, cmd) {
			c.after(a, on)
			c.report(a, api.AllocClientStatusComplete)
			return
		}
		delay := 100 * time.Millisecond
		if r := a.group.RestartPolicy; r != nil && r.Delay != nil {
			delay = *r.Delay
		}
		select {
		case <-a.stopping:
			c.after(a, on)
			c.report(a, api.AllocClientStatusComplete)
			return
		case <-time.After(delay):
		}
	}
}

// after runs the tasks that come after the others, unless the machine is gone.
func (c *Cluster) after(a *alloc, on *node) {
	c.mu.Lock()
	dead := on.dead
	c.mu.Unlock()
	for _, t := range a.group.Tasks {
		if dead || t.Lifecycle == nil || t.Lifecycle.Hook != api.TaskLifecycleHookPoststop {
			continue
		}
		cmd, err := c.prepare(a, t, on)
		if err == nil {
			err = cmd.Run()
		}
		if err != nil {
			fmt.Fprintf(c.log(), "task %s of allocation %s: %v\n", t.Name, a.ID, err)
		}
	}
}

// wait waits for the end of a process, which it brings about when the allocation is to end. Over says that it is not to be started again.
func (c *Cluster) wait(a *alloc, cmd *exec.Cmd) (over bool) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = cmd.Wait()
	}()
	c.mu.Lock()
	killing := a.killing
	c.mu.Unlock()
	select {
	case <-done:
	case <-killing:
		killAll(a.ID)
		<-done
	case <-a.stopping:
		patience := 5 * time.Second
		if t := a.group.Tasks[0].KillTimeout; t != nil {
			patience = *t
		}
		if d := a.group.ShutdownDelay; d != nil {
			select {
			case <-time.After(*d):
			case <-killing:
			}
		}
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-done:
		case <-time.After(patience):
		case <-killing:
		}
		killAll(a.ID)
		<-done
		return true
	}
	killAll(a.ID)
	c.mu.Lock()
	defer c.mu.Unlock()
	return a.ended || c.findNode(a.NodeID).dead
}

// killAll kills the processes of an allocation, those among them that their parent did not wait for, as Nomad kills the task's cgroup. They are known
// by what they were given; what a container runs has an environment of its own, as it has a cgroup of its own, and lives on.
func killAll(id string) {
	mark := []byte("NOMAD_ALLOC_ID=" + id + "\x00")
	for again := true; again; {
		again = false
		files, _ := filepath.Glob("/proc/[0-9]*/environ")
		for _, f := range files {
			env, err := os.ReadFile(f)
			pid, bad := strconv.Atoi(filepath.Base(filepath.Dir(f)))
			if err == nil && bad == nil && pid > 1 && bytes.Contains(env, mark) && syscall.Kill(pid, syscall.SIGKILL) == nil {
				again = true
			}
		}
	}
}

func (c *Cluster) report(a *alloc, status string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := c.findNode(a.NodeID); n.dead {
		// Nobody is left there to tell.
		return
	}
	c.setStatus(a, status)
	c.settle()
}

func (c *Cluster) log() io.Writer {
	if c.cfg.Log == nil {
		return io.Discard
	}
	return c.cfg.Log
}

// prepare makes a task's directories, its files and its command.
func (c *Cluster) prepare(a *alloc, task *api.Task, on *node) (*exec.Cmd, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	dir := filepath.Join(c.cfg.Dir, a.ID[len(a.ID)-6:])
	taskDir := filepath.Join(dir, task.Name)
	for _, d := range []string{"alloc", filepath.Join(task.Name, "local"), filepath.Join(task.Name, "secrets")} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			return nil, err
		}
	}
	env := map[string]string{
		"NOMAD_ALLOC_ID": a.ID, "NOMAD_SHORT_ALLOC_ID": a.ID[:8], "NOMAD_ALLOC_INDEX": fmt.Sprint(a.index), "NOMAD_ALLOC_NAME": a.Name, "NOMAD_JOB_ID": a.JobID, "NOMAD_JOB_NAME": a.JobID,
		"NOMAD_GROUP_NAME": a.TaskGroup, "NOMAD_TASK_NAME": task.Name, "NOMAD_NAMESPACE": c.cfg.Namespace, "NOMAD_DC": "dc1", "NOMAD_REGION": "global",
		"NOMAD_ALLOC_DIR": filepath.Join(dir, "alloc"), "NOMAD_TASK_DIR": filepath.Join(taskDir, "local"), "NOMAD_SECRETS_DIR": filepath.Join(taskDir, "secrets"),
		"NOMAD_MEMORY_LIMIT": fmt.Sprint(*task.Resources.MemoryMB), "NOMAD_CPU_LIMIT": fmt.Sprint(*task.Resources.CPU), "NOMAD_CPU_CORES": " ",
	}
	if task.Resources.MemoryMaxMB != nil && *task.Resources.MemoryMaxMB > 0 {
		env["NOMAD_MEMORY_MAX_LIMIT"] = fmt.Sprint(*task.Resources.MemoryMaxMB)
	}
	if cores := task.Resources.Cores; cores != nil && *cores > 0 {
		env["NOMAD_CPU_CORES"] = fmt.Sprintf("0-%d", *cores-1)
		env["NOMAD_CPU_LIMIT"] = fmt.Sprint(*cores * nodeCompute / nodeCores)
	}
	expand := func(s string) string {
		return os.Expand(s, func(name string) string {
			if attr, ok := strings.CutPrefix(name, "attr."); ok {
				return on.Attributes[attr]
			}
			if key, ok := strings.CutPrefix(name, "meta."); ok {
				if v, there := on.Meta[key]; there {
					return v
				}
				return "${" + name + "}" // as Nomad leaves in the environment what a node does not have; in arguments it is an error
			}
			if name == "node.unique.name" {
				return on.Name
			}
			return env[strings.TrimPrefix(name, "env.")]
		})
	}
	if len(task.Identities) > 0 {
		if err := c.serveTask(filepath.Join(taskDir, "secrets", "api.sock")); err != nil {
			return nil, err
		}
		env["NOMAD_TOKEN"] = c.identity(a.JobID)
	}
	var extra []string
	for _, t := range task.Templates {
		text, err := c.render(t, taskDir, expand)
		if err != nil {
			return nil, err
		}
		if t.Envvars != nil && *t.Envvars {
			extra = append(extra, strings.Fields(text)...)
		}
	}
	command, _ := task.Config["command"].(string)
	args, _ := task.Config["args"].([]any)
	cmd := exec.Command(expand(command))
	for _, arg := range args {
		text := expand(fmt.Sprint(arg))
		if _, key, missing := strings.Cut(text, "${meta."); missing {
			return nil, fmt.Errorf("failed to parse config: this object does not have an attribute named %q", strings.TrimSuffix(key, "}"))
		}
		cmd.Args = append(cmd.Args, text)
	}
	cmd.Env = append(extra, "PATH="+os.Getenv("PATH"), "HOME="+os.Getenv("HOME"))
	for k, v := range task.Env {
		cmd.Env = append(cmd.Env, k+"="+expand(v))
	}
	for k, v := range env {
		cmd.Env = append(cmd.Env, k+"="+v)
	}
	cmd.Dir, cmd.Stdout, cmd.Stderr = taskDir, c.cfg.Log, c.cfg.Log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd, nil
}

// render writes a template's file, and returns its text. Of what templates can do it knows variables and services.
func (c *Cluster) render(t *api.Template, taskDir string, expand func(string) string) (string, error) {
	parsed, err := template.New("").Funcs(template.FuncMap{
		"nomadVar": func(path string) (map[string]string, error) {
			v := c.variables[path]
			if v == nil {
				return nil, fmt.Errorf("the variable %s is missing", path)
			}
			return v.Items, nil
		},
		"nomadService": func(name string) []*api.ServiceRegistration { return c.services(name) },
	}).Parse(*t.EmbeddedTmpl)
	if err != nil {
		return "", err
	}
	var out bytes.Buffer
	if err := parsed.Execute(&out, nil); err != nil {
		return "", err
	}
	mode := os.FileMode(0o644)
	if t.Perms != nil && *t.Perms != "" {
		if _, err := fmt.Sscanf(*t.Perms, "%o", &mode); err != nil {
			return "", err
		}
	}
	return out.String(), os.WriteFile(filepath.Join(taskDir, expand(*t.DestPath)), out.Bytes(), mode)
}
