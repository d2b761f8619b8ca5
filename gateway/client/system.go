package client

import (
	"context"
	"net/http"
	"net/url"

	"github.com/tatami-faas/tatami/functions"
	v1 "github.com/tatami-faas/tatami/gateway/api/v1"
)

// Version returns the server's.
func (c *Client) Version(ctx context.Context) (*v1.Version, error) {
	return fetchOne[v1.Version](ctx, c, http.MethodGet, "/v1/version", nil)
}

// Status returns the system at a glance.
func (c *Client) Status(ctx context.Context) (*v1.Status, error) {
	return fetchOne[v1.Status](ctx, c, http.MethodGet, "/v1/status", nil)
}

// Servers lists the servers of the cluster; none where the server stands alone.
func (c *Client) Servers(ctx context.Context) ([]v1.Server, error) {
	return fetch[[]v1.Server](ctx, c, http.MethodGet, "/v1/servers", nil)
}

// Doctor returns the server's own checks.
func (c *Client) Doctor(ctx context.Context) ([]v1.Check, error) {
	return fetch[[]v1.Check](ctx, c, http.MethodGet, "/v1/doctor", nil)
}

// Nodes lists the nodes.
func (c *Client) Nodes(ctx context.Context) ([]v1.Node, error) {
	return fetch[[]v1.Node](ctx, c, http.MethodGet, "/v1/nodes", nil)
}

// Node returns a node, by id or name.
func (c *Client) Node(ctx context.Context, node string) (*v1.Node, error) {
	return fetchOne[v1.Node](ctx, c, http.MethodGet, "/v1/nodes/"+url.PathEscape(node), nil)
}

// SetNodeIntent says what is wanted of a node, by id or name.
func (c *Client) SetNodeIntent(ctx context.Context, node string, intent functions.NodeIntent, reason string) (*v1.Node, error) {
	return fetchOne[v1.Node](ctx, c, http.MethodPut, "/v1/nodes/"+url.PathEscape(node)+"/intent", v1.NodeIntent{Intent: intent, Reason: reason})
}

// RemoveNode removes a node for good, by id or name; one with instances only with force.
func (c *Client) RemoveNode(ctx context.Context, node string, force bool) error {
	q := ""
	if force {
		q = "?force=true"
	}
	return c.call(ctx, http.MethodDelete, "/v1/nodes/"+url.PathEscape(node)+q, nil, nil)
}

// CreateCallerToken lets somebody call functions over NATS.
func (c *Client) CreateCallerToken(ctx context.Context, req v1.CallerTokenRequest) (*v1.CallerToken, error) {
	return fetchOne[v1.CallerToken](ctx, c, http.MethodPost, "/v1/caller-tokens", req)
}

// CallerTokens lists who may call functions over NATS, oldest first.
func (c *Client) CallerTokens(ctx context.Context) ([]v1.CallerToken, error) {
	return fetch[[]v1.CallerToken](ctx, c, http.MethodGet, "/v1/caller-tokens", nil)
}

// RevokeCallerToken shuts a caller out.
func (c *Client) RevokeCallerToken(ctx context.Context, id string) (*v1.CallerToken, error) {
	return fetchOne[v1.CallerToken](ctx, c, http.MethodDelete, "/v1/caller-tokens/"+url.PathEscape(id), nil)
}

// CreateNodeToken makes a token with which one worker may join.
func (c *Client) CreateNodeToken(ctx context.Context, req v1.NodeTokenRequest) (*v1.NodeToken, error) {
	return fetchOne[v1.NodeToken](ctx, c, http.MethodPost, "/v1/node-tokens", req)
}

// NodeTokens lists the tokens of workers, oldest first.
func (c *Client) NodeTokens(ctx context.Context) ([]v1.NodeToken, error) {
	return fetch[[]v1.NodeToken](ctx, c, http.MethodGet, "/v1/node-tokens", nil)
}

// RevokeNodeToken revokes a token; a worker that joined with it is cut off at once.
func (c *Client) RevokeNodeToken(ctx context.Context, id string) (*v1.NodeToken, error) {
	return fetchOne[v1.NodeToken](ctx, c, http.MethodDelete, "/v1/node-tokens/"+url.PathEscape(id), nil)
}

// Pool tells where workers come from.
func (c *Client) Pool(ctx context.Context) (*v1.Pool, error) {
	return fetchOne[v1.Pool](ctx, c, http.MethodGet, "/v1/pool", nil)
}

// Certificates lists the certificates of servers and workers.
func (c *Client) Certificates(ctx context.Context) (*v1.Certificates, error) {
	return fetchOne[v1.Certificates](ctx, c, http.MethodGet, "/v1/certificates", nil)
}

// RotateAuthority replaces the certificate authority; with now nobody is waited for.
func (c *Client) RotateAuthority(ctx context.Context, now bool) (*v1.Certificates, error) {
	return fetchOne[v1.Certificates](ctx, c, http.MethodPost, "/v1/certificates/rotate", v1.RotateRequest{Now: now})
}

// Compact empties up to so many nodes whose instances fit elsewhere; with dryRun it only says which.
func (c *Client) Compact(ctx context.Context, nodes int, dryRun bool) (*v1.CompactPlan, error) {
	return fetchOne[v1.CompactPlan](ctx, c, http.MethodPost, "/v1/nodes/compact", v1.CompactRequest{Nodes: nodes, DryRun: dryRun})
}

// InstanceFilter picks instances; empty fields pick all.
type InstanceFilter struct {
	Namespace string
	Function  string
	// Node is the id or the name of a node.
	Node string
	// Gone picks those that ended lately, too.
	Gone bool
}

// Instances lists instances.
func (c *Client) Instances(ctx context.Context, f InstanceFilter) ([]v1.Instance, error) {
	gone := ""
	if f.Gone {
		gone = "true"
	}
	q := query("namespace", f.Namespace, "function", f.Function, "node", f.Node, "gone", gone)
	return fetch[[]v1.Instance](ctx, c, http.MethodGet, "/v1/instances"+q, nil)
}

func instancePath(id functions.InstanceID) string {
	return "/v1/instances/" + url.PathEscape(string(id))
}

// Instance returns an instance.
func (c *Client) Instance(ctx context.Context, id functions.InstanceID) (*v1.Instance, error) {
	return fetchOne[v1.Instance](ctx, c, http.MethodGet, instancePath(id), nil)
}

// ExplainInstance says why an instance is where it is, as it is.
func (c *Client) ExplainInstance(ctx context.Context, id functions.InstanceID) (*v1.Explanation, error) {
	return fetchOne[v1.Explanation](ctx, c, http.MethodGet, instancePath(id)+"/explain", nil)
}

// Exec runs a further process in an instance's sandbox.
func (c *Client) Exec(ctx context.Context, id functions.InstanceID, args []string, stdin []byte) (*v1.ExecResult, error) {
	return fetchOne[v1.ExecResult](ctx, c, http.MethodPost, instancePath(id)+"/exec", v1.ExecRequest{Args: args, Stdin: stdin})
}

// Quotas lists the namespaces that have a quota or use anything; the defaults and the total where they are set.
func (c *Client) Quotas(ctx context.Context) ([]v1.NamespaceQuota, error) {
	return fetch[[]v1.NamespaceQuota](ctx, c, http.MethodGet, "/v1/quotas", nil)
}

func quotaPath(namespace string) string { return "/v1/quotas/" + url.PathEscape(namespace) }

// Quota returns the quota of a namespace, of functions.QuotaDefaults or of functions.QuotaTotal.
func (c *Client) Quota(ctx context.Context, namespace string) (*v1.NamespaceQuota, error) {
	return fetchOne[v1.NamespaceQuota](ctx, c, http.MethodGet, quotaPath(namespace), nil)
}

// SetQuota replaces a quota.
func (c *Client) SetQuota(ctx context.Context, q functions.Quota) (*v1.NamespaceQuota, error) {
	return fetchOne[v1.NamespaceQuota](ctx, c, http.MethodPut, quotaPath(q.Namespace), q)
}

// DeleteQuota takes a quota back: the defaults hold.
func (c *Client) DeleteQuota(ctx context.Context, namespace string) error {
	return c.call(ctx, http.MethodDelete, quotaPath(namespace), nil, nil)
}

// Token returns the token of the control API.
func (c *Client) Token(ctx context.Context) (string, error) {
	out, err := fetch[v1.Token](ctx, c, http.MethodGet, "/v1/token", nil)
	return out.Token, err
}

// RotateToken replaces the token; the old one and every dashboard session end at once.
func (c *Client) RotateToken(ctx context.Context) (string, error) {
	out, err := fetch[v1.Token](ctx, c, http.MethodPost, "/v1/token/rotate", nil)
	return out.Token, err
}

// DashboardLink makes a link that opens the dashboard once.
func (c *Client) DashboardLink(ctx context.Context) (*v1.Link, error) {
	return fetchOne[v1.Link](ctx, c, http.MethodPost, "/v1/token/link", nil)
}
