package api

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/nats-io/nats.go"

	"github.com/tatami-faas/tatami/functions"
	v1 "github.com/tatami-faas/tatami/gateway/api/v1"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/fault"
)

// askTimeout bounds a question to the scheduler.
const askTimeout = 3 * time.Second

// maxExecOutput bounds what is kept of an exec's stdout and stderr, each.
const maxExecOutput = 4 << 20

func (a *API) registerSystem(h huma.API) {
	handle(a, h, huma.Operation{
		OperationID: "version", Method: http.MethodGet, Path: "/v1/version", Summary: "Say what the server is", Tags: []string{"system"},
	}, func(context.Context, *none) (*body[v1.Version], error) { return &body[v1.Version]{a.cfg.Version}, nil })
	handle(a, h, huma.Operation{
		OperationID: "status", Method: http.MethodGet, Path: "/v1/status", Summary: "Show the system at a glance", Tags: []string{"system"},
	}, a.status)
	handle(a, h, huma.Operation{
		OperationID: "list-servers", Method: http.MethodGet, Path: ServersPath, Summary: "List the servers of the cluster, as the one that is asked sees them; none where it stands alone",
		Tags: []string{"system"},
	}, func(ctx context.Context, _ *none) (*body[[]v1.Server], error) {
		return &body[[]v1.Server]{Servers(a.deps.Bus.Servers(), a.deps.Bus.Identity().ServerName, a.deps.Traffic(ctx))}, nil
	})
	handle(a, h, huma.Operation{
		OperationID: "doctor", Method: http.MethodGet, Path: "/v1/doctor", Summary: "Run the server's own checks", Tags: []string{"system"},
	}, func(ctx context.Context, _ *none) (*body[[]v1.Check], error) {
		out := []v1.Check{}
		if a.deps.Doctor != nil {
			out = append(out, a.deps.Doctor(ctx)...)
		}
		return &body[[]v1.Check]{out}, nil
	})
	handle(a, h, huma.Operation{
		OperationID: "list-instances", Method: http.MethodGet, Path: "/v1/instances", Summary: "List instances", Tags: []string{"instances"},
	}, a.listInstances)
	handle(a, h, huma.Operation{
		OperationID: "get-instance", Method: http.MethodGet, Path: "/v1/instances/{instance}", Summary: "Show an instance", Tags: []string{"instances"},
	}, a.getInstance)
	handle(a, h, huma.Operation{
		OperationID: "explain-instance", Method: http.MethodGet, Path: "/v1/instances/{instance}/explain", Summary: "Say why an instance is where it is", Tags: []string{"instances"},
	}, func(ctx context.Context, in *InstanceInput) (*body[v1.Explanation], error) {
		if err := checkInstance(in.Instance); err != nil {
			return nil, err
		}
		return a.explain(ctx, bus.ExplainRequest{Schema: bus.Schema, Instance: in.Instance})
	})
	handle(a, h, huma.Operation{
		OperationID: "exec", Method: http.MethodPost, Path: "/v1/instances/{instance}/exec", Summary: "Run a process in an instance", Tags: []string{"instances"},
		MaxBodyBytes: 8 << 20,
	}, a.exec)
}

// ask puts a question to the scheduler.
func ask[T any](ctx context.Context, a *API, subject string, question any) (*T, error) {
	var data []byte
	if question != nil {
		var err error
		if data, err = json.Marshal(question); err != nil {
			return nil, err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	msg, err := a.deps.Bus.Conn().RequestWithContext(ctx, subject, data)
	if errors.Is(err, nats.ErrNoResponders) || errors.Is(err, context.DeadlineExceeded) {
		return nil, fault.Wrap(fault.CodeUnavailable, err, "the scheduler does not answer").WithHint("tatami doctor").WithRetryAfter(time.Second)
	}
	if err != nil {
		return nil, fault.Wrap(fault.CodeUnavailable, err, "asking the scheduler")
	}
	out, err := bus.Decode[T](msg.Data)
	return &out, err
}

func (a *API) overview(ctx context.Context) (*bus.Overview, error) {
	return ask[bus.Overview](ctx, a, bus.SubjectOverview, nil)
}

func (a *API) explain(ctx context.Context, q bus.ExplainRequest) (*body[v1.Explanation], error) {
	e, err := ask[bus.Explanation](ctx, a, bus.SubjectExplain, q)
	if err != nil {
		return nil, err
	}
	if !e.Found {
		what := string(q.Instance)
		if q.Function != nil {
			what = q.Function.String()
		}
		return nil, fault.New(fault.CodeNotFound, "the scheduler knows nothing of %s", what).WithHint("tatami inst ls --gone")
	}
	out := v1.Explanation{Subject: e.Subject, Lines: []v1.Decision{}, Try: e.Try}
	for _, l := range e.Lines {
		out.Lines = append(out.Lines, v1.Decision(l))
	}
	for _, k := range e.Kinds {
		out.Kinds = append(out.Kinds, v1.KindVerdict(k))
	}
	for _, n := range e.Nodes {
		out.Nodes = append(out.Nodes, v1.NodeVerdict(n))
	}
	return &body[v1.Explanation]{out}, nil
}

func (a *API) status(ctx context.Context, _ *none) (*body[v1.Status], error) {
	info, id := a.info(ctx), a.deps.Bus.Identity()
	out := v1.Status{
		Version: a.cfg.Version, Mode: id.Mode, Node: id.Node, Started: info.Started, PublicURL: info.PublicURL, ControlURL: info.ControlURL,
		Domain: info.Domain, DataDir: info.DataDir, Architectures: []string{}, Warnings: append([]string{}, info.Warnings...),
	}
	traffic := a.deps.Traffic(ctx)
	if id.Cluster != "" {
		out.Cluster, out.Servers = id.Cluster, Servers(a.deps.Bus.Servers(), id.ServerName, traffic)
		out.Warnings = append(out.Warnings, serverWarnings(out.Servers, time.Now())...)
	}
	if d := a.deps.Bus.Durability(); d != "" && !slices.Contains(out.Warnings, d) {
		out.Warnings = append(out.Warnings, d)
	}
	if err := a.deps.Bus.Room(); err != nil {
		out.Warnings = append(out.Warnings, err.Error())
	}
	fns, err := a.deps.Bus.Functions().List(ctx, "")
	if err != nil {
		return nil, err
	}
	for _, f := range fns {
		if !pinned(f.Key) {
			out.Functions++
		}
	}
	for _, d := range a.deps.Queue.Depths() {
		out.Queue.Pending += d.Pending
		out.Queue.Scheduled += d.Scheduled
		out.Queue.Running += d.Running
		out.Queue.Dead += d.Dead
		if !d.Oldest.IsZero() && (out.Queue.Oldest.IsZero() || d.Oldest.Before(out.Queue.Oldest)) {
			out.Queue.Oldest = d.Oldest
		}
	}
	for _, t := range traffic.Functions {
		out.RPS += t.RPS
		out.InFlight += t.InFlight
		out.Waiting += t.Waiting
	}
	over, err := a.overview(ctx)
	if err != nil {
		out.Warnings = append(out.Warnings, err.Error())
		return &body[v1.Status]{out}, nil
	}
	out.Architectures = append(out.Architectures, architectures(over)...)
	for _, n := range present(over.Nodes) {
		out.Nodes++
		out.Capacity, out.Reserved = out.Capacity.Add(n.Allocatable), out.Reserved.Add(n.Reserved)
	}
	for _, f := range over.Functions {
		out.Instances.Desired += f.Desired
		out.Instances.Starting += f.Starting
		out.Instances.Ready += f.Ready
		out.Instances.Frozen += f.Frozen
		out.Instances.Draining += f.Draining
	}
	return &body[v1.Status]{out}, nil
}

type instancesInput struct {
	Namespace string `query:"namespace" doc:"Instances of this namespace only"`
	Function  string `query:"function" doc:"Instances of functions of this name only"`
	Node      string `query:"node" doc:"Instances on the node of this id or name only"`
	Gone      bool   `query:"gone" doc:"Those that ended lately, too"`
}

func (a *API) listInstances(ctx context.Context, in *instancesInput) (*body[[]v1.Instance], error) {
	if err := cmp.Or(checkFilter("namespace", in.Namespace), checkFilter("function", in.Function)); err != nil {
		return nil, err
	}
	all, err := a.instances(ctx)
	if err != nil {
		return nil, err
	}
	return &body[[]v1.Instance]{slices.DeleteFunc(all, func(i v1.Instance) bool {
		return in.Namespace != "" && i.Namespace != in.Namespace || in.Function != "" && i.Function != in.Function ||
			in.Node != "" && string(i.Node) != in.Node && i.NodeName != in.Node || !in.Gone && i.State.Gone()
	})}, nil
}

// checkFilter refuses a name that nothing can have; an empty one picks everything.
func checkFilter(field, name string) error {
	if name == "" {
		return nil
	}
	return functions.ValidateName(field, name)
}

// instances lists every instance that the scheduler knows, in the order of functions and starts.
func (a *API) instances(ctx context.Context) ([]v1.Instance, error) {
	over, err := a.overview(ctx)
	if err != nil {
		return nil, err
	}
	names := map[functions.NodeID]string{}
	for _, n := range over.Nodes {
		names[n.ID] = n.Name
	}
	out := make([]v1.Instance, 0, len(over.Instances))
	for _, i := range over.Instances {
		out = append(out, v1.Instance{
			ID: i.Instance, Namespace: i.Namespace, Function: i.Function, Revision: i.Revision, Node: i.Node, NodeName: names[i.Node],
			State: i.State, Reason: i.Reason, Placement: i.Placement, Exit: i.Exit, Logs: i.Logs, Since: i.Since, Started: i.Started,
			LastUsed: i.LastUsed, Slots: i.Slots, Held: i.Held, Reserved: i.Reserved, Usage: i.Usage, Phases: i.Phases, Adopted: i.Adopted, PID: i.PID,
		})
	}
	slices.SortFunc(out, func(x, y v1.Instance) int {
		return cmp.Or(cmp.Compare(x.Namespace, y.Namespace), cmp.Compare(x.Function, y.Function), x.Started.Compare(y.Started), cmp.Compare(x.ID, y.ID))
	})
	return out, nil
}

// InstanceInput names an instance in a path.
type InstanceInput struct {
	Instance functions.InstanceID `path:"instance" doc:"Id of the instance"`
}

func checkInstance(id functions.InstanceID) error {
	if id.Valid() {
		return nil
	}
	return fault.New(fault.CodeInvalidRequest, "%q is no instance's id", clip(string(id))).WithField("instance").WithHint("tatami inst ls")
}

func (a *API) getInstance(ctx context.Context, in *InstanceInput) (*body[v1.Instance], error) {
	if err := checkInstance(in.Instance); err != nil {
		return nil, err
	}
	all, err := a.instances(ctx)
	if err != nil {
		return nil, err
	}
	for _, i := range all {
		if i.ID == in.Instance {
			return &body[v1.Instance]{i}, nil
		}
	}
	return nil, fault.New(fault.CodeNotFound, "there is no instance %s", in.Instance).WithHint("tatami inst ls --gone")
}

type execInput struct {
	InstanceInput
	Body v1.ExecRequest
}

func (a *API) exec(ctx context.Context, in *execInput) (*body[v1.ExecResult], error) {
	if err := checkInstance(in.Instance); err != nil {
		return nil, err
	}
	stdout, stderr := bounded{left: maxExecOutput}, bounded{left: maxExecOutput}
	code, err := a.deps.Exec.Exec(ctx, in.Instance, in.Body.Args, bytes.NewReader(in.Body.Stdin), &stdout, &stderr)
	if err != nil {
		return nil, err
	}
	return &body[v1.ExecResult]{v1.ExecResult{ExitCode: code, Stdout: stdout.Bytes(), Stderr: stderr.Bytes()}}, nil
}

// bounded keeps the first bytes and drops the rest.
type bounded struct {
	bytes.Buffer
	left int
}

func (b *bounded) Write(p []byte) (int, error) {
	n := min(len(p), b.left)
	b.left -= n
	_, _ = b.Buffer.Write(p[:n])
	return len(p), nil
}
