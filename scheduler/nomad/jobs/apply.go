package jobs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/nomad/api"

	"github.com/tatami-faas/tatami/internal/fault"
	"github.com/tatami-faas/tatami/scheduler/nomad"
)

// Job is a job as Nomad's API takes it.
type Job = api.Job

// Plan is what applying a job would change.
type Plan struct {
	Job string `json:"job"`
	// Change is none, added or edited.
	Change string `json:"change"`
	// Index is the job's as planned: it is applied only if it is still the same.
	Index uint64 `json:"index"`
	// Unplaced says that something would find no node, Why what the nodes lack, and of how many that is so; Warnings are Nomad's own.
	Unplaced bool     `json:"unplaced,omitempty"`
	Why      []string `json:"why,omitempty"`
	Warnings string   `json:"warnings,omitempty"`
	// Lacks says what the job's variable does not hold that its tasks wait for.
	Lacks string `json:"lacks,omitempty"`
}

// PlanJob asks Nomad what a job would change, without changing anything. The number of workers that there are stays.
func PlanJob(ctx context.Context, c *api.Client, j *api.Job) (Plan, error) {
	out := Plan{Job: *j.ID, Change: "added"}
	there, _, err := c.Jobs().Info(*j.ID, (&api.QueryOptions{}).WithContext(ctx))
	switch err = nomad.Explain(err, "reading the job "+*j.ID); {
	case fault.Is(err, fault.CodeNotFound):
	case err != nil:
		return out, err
	default:
		out.Index = *there.JobModifyIndex
		keepCounts(j, there)
	}
	answer, _, err := c.Jobs().Plan(j, true, (&api.WriteOptions{}).WithContext(ctx))
	if err != nil {
		return out, nomad.Explain(err, "planning the job "+*j.ID)
	}
	if answer.JobModifyIndex != out.Index {
		return out, fault.New(fault.CodeConflict, "the job %s changed while it was planned", *j.ID).WithHint("plan it again")
	}
	if answer.Diff != nil {
		out.Change = strings.ToLower(answer.Diff.Type)
	}
	out.Unplaced, out.Why, out.Warnings = len(answer.FailedTGAllocs) > 0, whyUnplaced(answer.FailedTGAllocs), answer.Warnings
	return out, nil
}

// whyUnplaced says what Nomad found lacking, for each group that found no node.
func whyUnplaced(groups map[string]*api.AllocationMetric) (out []string) {
	for _, name := range slices.Sorted(maps.Keys(groups)) {
		m := groups[name]
		if m.NodesEvaluated == 0 {
			out = append(out, name+": no node of the job's datacenters is ready to take something")
		}
		for _, what := range slices.Sorted(maps.Keys(m.ConstraintFiltered)) {
			out = append(out, fmt.Sprintf("%s: %d of %d nodes are left out by the constraint %s", name, m.ConstraintFiltered[what], m.NodesEvaluated, what))
		}
		for _, what := range slices.Sorted(maps.Keys(m.DimensionExhausted)) {
			out = append(out, fmt.Sprintf("%s: %d of %d nodes have too little left of: %s", name, m.DimensionExhausted[what], m.NodesEvaluated, what))
		}
	}
	return out
}

// keepCounts takes over how many of each group there are, within its bounds.
func keepCounts(j, there *api.Job) {
	for _, g := range j.TaskGroups {
		i := slices.IndexFunc(there.TaskGroups, func(o *api.TaskGroup) bool { return *o.Name == *g.Name })
		if i < 0 || g.Scaling == nil || there.TaskGroups[i].Count == nil {
			continue
		}
		n := min(max(int64(*there.TaskGroups[i].Count), *g.Scaling.Min), *g.Scaling.Max)
		g.Count = ptr(int(n))
	}
}

// Apply makes the job what was planned, unless it changed since.
func Apply(ctx context.Context, c *api.Client, j *api.Job, p Plan) error {
	_, _, err := c.Jobs().RegisterOpts(j, &api.RegisterOptions{EnforceIndex: true, ModifyIndex: p.Index}, (&api.WriteOptions{}).WithContext(ctx))
	return nomad.Explain(err, "making the job "+*j.ID)
}

// ApplyPolicy makes the policy of the servers, and attaches it to their job. It needs a management token; where Nomad has no ACLs there is nothing to do.
func ApplyPolicy(ctx context.Context, c *api.Client, namespace, job string) error {
	namespace = cmp.Or(namespace, DefaultNamespace)
	p := &api.ACLPolicy{
		Name: job, Description: "The servers of Tatami resize the job of their workers", Rules: Policy(namespace), JobACL: &api.JobACL{Namespace: namespace, JobID: job},
	}
	_, err := c.ACLPolicies().Upsert(p, (&api.WriteOptions{}).WithContext(ctx))
	var status api.UnexpectedResponseError
	if errors.As(err, &status) && strings.Contains(status.Body(), "ACL support disabled") {
		return nil
	}
	return nomad.Explain(err, "making the policy "+job)
}

// Lacks says whether a job's variable has no such item: its tasks would wait for it for ever, without a word. It is silent where the variable may not be read.
func Lacks(ctx context.Context, c *api.Client, job, item string) bool {
	v, _, err := c.Variables().Peek(Variable(job), (&api.QueryOptions{}).WithContext(ctx))
	return err == nil && (v == nil || v.Items[item] == "")
}

// StoreSecret puts an item into a job's variable, beside what is there. A variable that somebody else changes meanwhile is a conflict.
func StoreSecret(ctx context.Context, c *api.Client, job, item, value string) error {
	v, _, err := c.Variables().Peek(Variable(job), (&api.QueryOptions{}).WithContext(ctx))
	if err != nil {
		return nomad.Explain(err, "reading the variable "+Variable(job))
	}
	if v == nil {
		v = api.NewVariable(Variable(job))
	}
	if v.Items[item] == value {
		return nil
	}
	v.Items[item] = value
	_, _, err = c.Variables().CheckedUpdate(v, (&api.WriteOptions{}).WithContext(ctx))
	var conflict api.ErrCASConflict
	if errors.As(err, &conflict) {
		return fault.Wrap(fault.CodeConflict, err, "nomad: the variable %s was changed meanwhile", Variable(job)).WithHint("apply again")
	}
	return nomad.Explain(err, "writing the variable "+Variable(job))
}
