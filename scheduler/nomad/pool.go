package nomad

import (
	"context"
	"log/slog"
	"time"

	"github.com/hashicorp/nomad/api"
	"golang.org/x/sync/errgroup"

	"github.com/tatami-faas/tatami/internal/fault"
	"github.com/tatami-faas/tatami/scheduler"
)

// answerTimeout bounds one request to Nomad.
const answerTimeout = 10 * time.Second

// Pool is the workers that a Nomad job runs. Make it with New; Run and Resize may run beside each other.
type Pool struct {
	cfg    Config
	log    *slog.Logger
	client *api.Client
	// resized wakes Run: what was asked for is seen without waiting for its event.
	resized chan struct{}
}

// New returns the pool. It asks nothing yet.
func New(cfg Config, log *slog.Logger) (*Pool, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	return &Pool{cfg: cfg, log: log, client: cfg.Client, resized: make(chan struct{}, 1)}, nil
}

// Run follows the job until ctx ends, and returns nil then. What Nomad refuses or does not answer is logged and asked for again.
func (p *Pool) Run(ctx context.Context, heard func(scheduler.PoolState)) error {
	wait := p.cfg.Retry
	for ctx.Err() == nil {
		listed, err := p.follow(ctx, heard)
		if listed {
			wait = p.cfg.Retry
		}
		if err != nil && ctx.Err() == nil {
			p.log.Warn("nomad is asked again", "job", p.cfg.Job, "after", wait.String(), "err", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
		wait = min(2*wait, p.cfg.RetryMost)
	}
	return nil
}

// follow lists once and follows the events from there, until the stream ends or it is time for another list. Listed says that the list was had.
func (p *Pool) follow(ctx context.Context, heard func(scheduler.PoolState)) (listed bool, err error) {
	pic, index, err := p.list(ctx)
	if err != nil {
		return false, err
	}
	heard(pic.state())
	g, ctx := errgroup.WithContext(ctx)
	ctx, cancel := context.WithCancel(ctx)
	events := make(chan *api.Events)
	g.Go(func() error {
		defer cancel()
		return p.stream(ctx, index, events)
	})
	g.Go(func() error {
		defer cancel()
		return p.take(ctx, pic, events, heard)
	})
	return true, g.Wait()
}

// list asks for all there is, and returns the index from which events tell what changed since.
func (p *Pool) list(ctx context.Context) (*picture, uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	q := query(ctx)
	pic := &picture{job: p.cfg.Job, group: p.cfg.Group, allocs: map[string]alloc{}, nodes: map[string]node{}}
	nodes, meta, err := p.client.Nodes().List(q)
	if err != nil {
		return nil, 0, Explain(err, "listing the nodes")
	}
	index := meta.LastIndex
	for _, n := range nodes {
		pic.setNode(node{ID: n.ID, Name: n.Name, Drain: n.Drain, SchedulingEligibility: n.SchedulingEligibility, ModifyIndex: n.ModifyIndex})
	}
	allocs, meta, err := p.client.Jobs().Allocations(p.cfg.Job, false, q)
	if err != nil {
		return nil, 0, Explain(err, "listing the allocations of "+p.cfg.Job)
	}
	// An answer's index may lie before that of another one. The events between are heard twice, and taken in once.
	index = min(index, meta.LastIndex)
	for _, a := range allocs {
		pic.setAlloc(alloc{
			ID: a.ID, Name: a.Name, NodeID: a.NodeID, JobID: a.JobID, TaskGroup: a.TaskGroup, DesiredStatus: a.DesiredStatus, ClientStatus: a.ClientStatus,
			CreateTime: a.CreateTime, ModifyIndex: a.ModifyIndex,
		})
	}
	return pic, index, p.lookAtJob(ctx, pic)
}

// lookAtJob asks for the job and its latest deployment.
func (p *Pool) lookAtJob(ctx context.Context, pic *picture) error {
	q := query(ctx)
	job, _, err := p.client.Jobs().Info(p.cfg.Job, q)
	if err = Explain(err, "reading the job "+p.cfg.Job); fault.Is(err, fault.CodeNotFound) {
		p.log.Warn("there are no workers from nomad", "job", p.cfg.Job, "err", err)
		pic.noJob()
		return nil
	}
	if err != nil {
		return err
	}
	active, _, err := p.client.Jobs().LatestDeployment(p.cfg.Job, q)
	if err != nil {
		return Explain(err, "reading the deployment of "+p.cfg.Job)
	}
	return pic.setJob(job, active)
}

func query(ctx context.Context) *api.QueryOptions { return (&api.QueryOptions{}).WithContext(ctx) }

// stream hands on the events from an index until the stream ends.
func (p *Pool) stream(ctx context.Context, index uint64, to chan<- *api.Events) error {
	topics := map[api.Topic][]string{
		api.TopicNode: {"*"}, api.TopicAllocation: {p.cfg.Job}, api.TopicJob: {p.cfg.Job}, api.TopicDeployment: {p.cfg.Job},
	}
	events, err := p.client.EventStream().Stream(ctx, topics, index, &api.QueryOptions{})
	if err != nil {
		return Explain(err, "following the events")
	}
	for e := range events {
		if e.Err != nil {
			p.log.Debug("the stream of events ended", "err", e.Err)
			break
		}
		select {
		case to <- e:
		case <-ctx.Done():
			return nil
		}
	}
	return nil
}

// take takes in events until ctx ends or it is time for another list.
func (p *Pool) take(ctx context.Context, pic *picture, events <-chan *api.Events, heard func(scheduler.PoolState)) error {
	relist := time.NewTimer(p.cfg.Relist)
	defer relist.Stop()
	for {
		job := false
		select {
		case <-ctx.Done():
			return nil
		case <-relist.C:
			return nil
		case <-p.resized:
			job = true
		case e := <-events:
			for i := range e.Events {
				changed, err := pic.apply(&e.Events[i])
				if err != nil {
					return err
				}
				job = job || changed
			}
		}
		if job {
			ctx, cancel := context.WithTimeout(ctx, answerTimeout)
			err := p.lookAtJob(ctx, pic)
			cancel()
			if err != nil {
				return err
			}
		}
		heard(pic.state())
	}
}

// Resize tells the job's group to have count workers, if the job is still what from says. Nomad refuses while a deployment of the job is active, and what
// is not within the group's scaling block; that is a fault of the kind conflict or invalid.
func (p *Pool) Resize(ctx context.Context, from scheduler.PoolState, count int, why string) error {
	if !from.Elastic {
		return fault.New(fault.CodeConflict, "the group %s of the job %s has no scaling block, or is stopped", p.cfg.Group, p.cfg.Job).WithHint("give it one: scaling { min = 1, max = 10 }")
	}
	n := int64(count)
	req := &api.ScalingRequest{
		Count: &n, Target: map[string]string{"Job": p.cfg.Job, "Group": p.cfg.Group}, Message: "tatami: " + why, JobModifyIndex: from.Version,
	}
	_, _, err := p.client.Jobs().ScaleWithRequest(p.cfg.Job, req, (&api.WriteOptions{}).WithContext(ctx))
	select {
	case p.resized <- struct{}{}:
	default:
	}
	return Explain(err, "scaling "+p.cfg.Job)
}
