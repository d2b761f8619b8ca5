package api

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tatami-faas/tatami/functions"
	v1 "github.com/tatami-faas/tatami/gateway/api/v1"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/fault"
)

// change is a revision on its way to the traffic.
type change struct {
	ref      functions.Ref
	rev      functions.Revision
	previous functions.RevisionID
	// settled says that the revision has the traffic already; applied is the revision of the record that says so.
	settled bool
	applied uint64
}

type deployInput struct {
	RefInput
	Body v1.DeployRequest
}

func (a *API) deploy(ctx context.Context, in *deployInput) (*body[v1.DeployResult], error) {
	begun := time.Now()
	ref, err := in.ref()
	if err != nil {
		return nil, err
	}
	rev, err := a.newRevision(ctx, ref, in.Body)
	if err != nil {
		return nil, err
	}
	c, err := a.propose(ctx, rev)
	if err != nil {
		return nil, err
	}
	return a.finish(ctx, c, in.Body.NoWait, begun)
}

func (a *API) rollback(ctx context.Context, in *rollbackInput) (*body[v1.DeployResult], error) {
	begun := time.Now()
	ref, err := in.ref()
	if err != nil {
		return nil, err
	}
	fn, _, err := a.function(ctx, ref)
	if err != nil {
		return nil, err
	}
	to := fn.Previous
	if in.Body != nil && in.Body.Revision != "" {
		to = in.Body.Revision
	}
	if to == "" {
		return nil, fault.New(fault.CodeConflict, "no other revision of %s had the traffic before", ref).WithOp("rollback").
			WithHint("tatami rev ls %s", ref)
	}
	if !to.Valid() {
		return nil, noRevision(ref, to)
	}
	rev, _, err := a.deps.Bus.Revisions().Get(ctx, bus.RevisionKey(ref, to))
	if fault.KindOf(err) == fault.NotFound {
		return nil, noRevision(ref, to)
	}
	if err != nil {
		return nil, err
	}
	if rev.State == functions.RevisionFailed {
		return nil, fault.New(fault.CodeConflict, "%s of %s never became ready: %s", to, ref, rev.Reason).WithOp("rollback").
			WithHint("tatami rev ls %s", ref)
	}
	c, err := a.propose(ctx, &rev)
	if err != nil {
		return nil, err
	}
	return a.finish(ctx, c, false, begun)
}

// newRevision checks a deploy as far as it can be without changing anything.
func (a *API) newRevision(ctx context.Context, ref functions.Ref, req v1.DeployRequest) (*functions.Revision, error) {
	if (req.Image == "") == (req.Digest == "") {
		return nil, fault.New(fault.CodeInvalidRequest, "name either an image or the digest of an uploaded one").WithField("image")
	}
	cfg := req.Config.WithDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	over, err := a.overview(ctx)
	if err != nil {
		return nil, err
	}
	if err := fitsSomeNode(ref, cfg, over); err != nil {
		return nil, err
	}
	if err := a.fitsQuota(ctx, ref, cfg); err != nil {
		return nil, err
	}
	if err := a.deps.Bus.Room(); err != nil {
		return nil, err
	}
	rev := &functions.Revision{
		Schema: functions.Schema, Namespace: ref.Namespace, Function: ref.Name, Config: cfg,
		Created: time.Now().UTC(), State: functions.RevisionPending,
	}
	archs := architectures(over)
	if req.Image != "" {
		rev.Artifact, err = a.deps.Images.Resolve(ctx, req.Image, archs[0])
	} else {
		if err := checkDigest(req.Digest); err != nil {
			return nil, err
		}
		rev.Artifact, err = a.uploaded(ctx, req.Digest, archs)
	}
	if err != nil {
		return nil, err
	}
	rev.Artifact.Name = req.Name
	if rev.Artifact.Name == "" {
		rev.Artifact.Name = req.Image
	}
	rev.ID, err = functions.RevisionIDOf(ref, rev.Artifact, cfg)
	return rev, err
}

// fitsSomeNode refuses an instance that no node could ever hold.
func fitsSomeNode(ref functions.Ref, cfg functions.Config, over *bus.Overview) error {
	want := cfg.Limits.Resources()
	if len(over.Nodes) == 0 {
		return fault.New(fault.CodeUnavailable, "no node has reported yet").WithHint("tatami node ls").WithRetryAfter(time.Second)
	}
	var largest *bus.NodeStatus
	for i := range over.Nodes {
		n := &over.Nodes[i]
		if want.Fits(n.Allocatable) {
			return nil
		}
		if largest == nil || n.Allocatable.Memory > largest.Allocatable.Memory {
			largest = n
		}
	}
	has := largest.Allocatable
	field, what, most := "memory", "", ""
	switch {
	case want.Memory > has.Memory:
		what = fmt.Sprintf("%s of memory and %s of ephemeral storage", mebibytes(cfg.Limits.Memory), mebibytes(cfg.Limits.Ephemeral))
		most = mebibytes(has.Memory)
	case want.CPU > has.CPU:
		field, what, most = "cpu", fmt.Sprintf("%dm of cpu", want.CPU), fmt.Sprintf("%dm", has.CPU)
	default:
		field, what, most = "scale", "a place for an instance", fmt.Sprintf("%d", has.Instances)
	}
	return fault.New(fault.CodeInvalidSpec, "%s: an instance of %s needs %s; the largest node, %s, has %s for functions", field, ref, what, largest.Name, most).
		WithField(field).WithHint("lower %s, or add a larger node", field)
}

func mebibytes(n int64) string { return fmt.Sprintf("%d MiB", n/functions.MiB) }

func architectures(over *bus.Overview) []string {
	var out []string
	for _, n := range over.Nodes {
		if !slices.Contains(out, n.Architecture) {
			out = append(out, n.Architecture)
		}
	}
	slices.Sort(out)
	return out
}

// fitsQuota refuses an instance that the namespace's quota, or that of all, never allows. The number of functions is checked when the record is
// made.
func (a *API) fitsQuota(ctx context.Context, ref functions.Ref, cfg functions.Config) error {
	all, err := a.quotas(ctx)
	if err != nil {
		return err
	}
	need := cfg.Limits.Resources()
	if bound := all.effective(ref.Namespace).Exceeded(functions.Resources{}, need); bound != "" {
		return fault.New(fault.CodeQuotaExceeded, "one instance of %s takes more %s than the quota of namespace %s allows", ref, bound, ref.Namespace).
			WithField(bound).WithHint("tatami quota show %s", ref.Namespace)
	}
	if bound := all.effective(functions.QuotaTotal).Exceeded(functions.Resources{}, need); bound != "" {
		return fault.New(fault.CodeQuotaExceeded, "one instance of %s takes more %s than the quota of all namespaces together allows", ref, bound).
			WithField(bound).WithHint("tatami quota show --total")
	}
	return nil
}

// propose writes the revision, and the function with it as the candidate. Once begun it does not stop half way when the client leaves.
func (a *API) propose(ctx context.Context, rev *functions.Revision) (*change, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	ctx = context.WithoutCancel(ctx)
	a.records.Lock()
	defer a.records.Unlock()
	for attempt := 1; ; attempt++ {
		c, err := a.tryPropose(ctx, rev)
		// The scheduler writes the record, too; whoever comes second reads it again.
		if attempt == maxConflicts || !fault.Is(err, fault.CodeConflict) {
			return c, err
		}
	}
}

const maxConflicts = 20

func (a *API) tryPropose(ctx context.Context, rev *functions.Revision) (*change, error) {
	ref := rev.Ref()
	fn, kv, err := a.deps.Bus.Functions().Get(ctx, bus.FunctionKey(ref))
	isNew := fault.KindOf(err) == fault.NotFound
	if err != nil && !isNew {
		return nil, err
	}
	c := &change{ref: ref, rev: *rev, previous: fn.Live}
	now := time.Now().UTC()
	switch {
	case isNew:
		if err := a.fitsFunctionQuota(ctx, ref); err != nil {
			return nil, err
		}
		fn = functions.Function{Schema: functions.Schema, Namespace: ref.Namespace, Name: ref.Name, Created: now}
	case fn.Live == rev.ID && fn.Candidate == "":
		c.settled, c.applied = true, kv
		return c, nil
	case fn.Candidate == rev.ID:
		state, err := a.revisionState(ctx, ref, rev.ID)
		if err != nil || state == functions.RevisionPending {
			return c, err // it is on its way: wait for it as its first deploy does
		}
	}
	if fn.Live == rev.ID {
		fn.Candidate = "" // the live revision is wanted after all: whatever was to replace it is not
	} else {
		fn.Candidate = rev.ID
	}
	dropped := addRevision(&fn, rev.ID)
	fn.Generation++
	fn.Updated = now
	if fn.Candidate != "" {
		if err := a.putRevision(ctx, &c.rev); err != nil {
			return nil, err
		}
	}
	if isNew {
		c.applied, err = a.deps.Bus.Functions().Create(ctx, bus.FunctionKey(ref), fn)
	} else {
		c.applied, err = a.deps.Bus.Functions().Update(ctx, bus.FunctionKey(ref), fn, kv)
	}
	if err != nil {
		return nil, err
	}
	c.settled = fn.Candidate == ""
	for _, id := range dropped {
		if err := a.deps.Bus.Revisions().Delete(ctx, bus.RevisionKey(ref, id)); err != nil {
			return nil, err
		}
		a.sweepSoon()
	}
	a.log.Info("deploy", "fn", ref.String(), "rev", string(rev.ID), "artifact", rev.Artifact.Name)
	return c, nil
}

// addRevision puts the id at the end of the function's revisions and returns those that are too many: the oldest that carry no traffic.
func addRevision(fn *functions.Function, id functions.RevisionID) (dropped []functions.RevisionID) {
	fn.Revisions = append(slices.DeleteFunc(fn.Revisions, func(r functions.RevisionID) bool { return r == id }), id)
	fn.Revisions = slices.DeleteFunc(fn.Revisions, func(r functions.RevisionID) bool {
		if len(fn.Revisions)-len(dropped) <= functions.MaxRevisions || r == fn.Live || r == fn.Candidate || r == fn.Previous {
			return false
		}
		dropped = append(dropped, r)
		return true
	})
	return dropped
}

// putRevision writes the revision's record: as pending, unless it was ready once before. What is there already keeps its age; why an
// earlier try of it failed is forgotten.
func (a *API) putRevision(ctx context.Context, rev *functions.Revision) error {
	key := bus.RevisionKey(rev.Ref(), rev.ID)
	old, _, err := a.deps.Bus.Revisions().Get(ctx, key)
	switch {
	case err == nil && old.State != functions.RevisionFailed && old.Reason == "":
		*rev = old
		return nil
	case err == nil && old.State == functions.RevisionReady:
		*rev = old
	case err == nil:
		rev.Created, rev.State = old.Created, functions.RevisionPending
	case fault.KindOf(err) == fault.NotFound:
		rev.State = functions.RevisionPending
	default:
		return err
	}
	rev.Reason, rev.Logs = "", nil
	_, err = a.deps.Bus.Revisions().Put(ctx, key, *rev)
	return err
}

func (a *API) revisionState(ctx context.Context, ref functions.Ref, id functions.RevisionID) (functions.RevisionState, error) {
	r, _, err := a.deps.Bus.Revisions().Get(ctx, bus.RevisionKey(ref, id))
	if fault.KindOf(err) == fault.NotFound {
		return "", nil
	}
	return r.State, err
}

func (a *API) fitsFunctionQuota(ctx context.Context, ref functions.Ref) error {
	all, err := a.quotas(ctx)
	if err != nil {
		return err
	}
	most, total := all.effective(ref.Namespace).Functions, all.effective(functions.QuotaTotal).Functions
	if most == 0 && total == 0 {
		return nil
	}
	keys, err := a.deps.Bus.Functions().Keys(ctx, "")
	if err != nil {
		return err
	}
	have := 0
	for _, key := range keys {
		if strings.HasPrefix(key, ref.Namespace+".") && !pinned(key) {
			have++
		}
	}
	if most > 0 && int64(have) >= most {
		return fault.New(fault.CodeQuotaExceeded, "namespace %s has %d functions, its quota allows %d", ref.Namespace, have, most).
			WithField("functions").WithHint("delete a function, or raise the quota: tatami quota set %s --functions N", ref.Namespace)
	}
	if total > 0 && int64(len(keys)) >= total {
		return fault.New(fault.CodeQuotaExceeded, "there are %d functions, the quota of all namespaces together allows %d", len(keys), total).
			WithField("functions").WithHint("delete a function, or raise the total: tatami quota set --total --functions N")
	}
	return nil
}

// finish waits until the change took effect and is durable, and says what it was.
func (a *API) finish(ctx context.Context, c *change, noWait bool, begun time.Time) (*body[v1.DeployResult], error) {
	out := v1.DeployResult{
		Namespace: c.ref.Namespace, Function: c.ref.Name, Revision: c.rev.ID, Artifact: c.rev.Artifact,
		Live: c.settled, Changed: c.previous != c.rev.ID, URL: a.functionURL(ctx, c.ref),
	}
	if out.Changed {
		out.Previous = c.previous
	}
	if !c.settled && !noWait {
		applied, err := a.await(ctx, c)
		if err != nil {
			if applied > 0 {
				// Whoever calls the function then is not told that it is being deployed. That the deploy failed counts for more than a wait that does.
				_ = a.deps.Routes.WaitApplied(ctx, applied)
			}
			return nil, err
		}
		c.applied, out.Live = applied, true
	}
	b := a.deps.Bus
	if err := b.Barrier(ctx, b.Functions().Stream(), b.Revisions().Stream(), b.Artifacts().Stream()); err != nil {
		return nil, err
	}
	if out.Live {
		if err := a.deps.Routes.WaitApplied(ctx, c.applied); err != nil {
			return nil, err
		}
	}
	out.Took = functions.Duration(time.Since(begun).Round(time.Millisecond))
	return &body[v1.DeployResult]{out}, nil
}

// notReady is the fault of a revision that failed.
func notReady(c *change, rev functions.Revision) error {
	reason := rev.Reason
	if reason == "" {
		reason = "no instance became ready"
	}
	e := fault.New(fault.CodeFunctionNotReady, "%s of %s did not become ready: %s", c.rev.ID, c.ref, reason).WithOp("deploy")
	if len(rev.Logs) > 0 {
		e.Details = append(e.Details, "its last log lines:")
		for _, l := range rev.Logs {
			e.Details = append(e.Details, "  | "+strings.TrimRight(l, "\r\n"))
		}
	}
	if c.previous != "" {
		return e.WithHint("%s keeps the traffic; correct the function and deploy again", c.previous)
	}
	if len(rev.Logs) == 0 {
		return e.WithHint("tatami explain %s", c.ref)
	}
	return e.WithHint("tatami logs %s", c.ref)
}

// superseded is the fault of a deploy that a later change overtook.
func superseded(c *change) error {
	return fault.New(fault.CodeConflict, "another deploy of %s took the place of %s", c.ref, c.rev.ID).WithOp("deploy").
		WithHint("tatami rev ls %s", c.ref)
}
