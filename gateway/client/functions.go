package client

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"github.com/tatami-faas/tatami/functions"
	v1 "github.com/tatami-faas/tatami/gateway/api/v1"
)

func functionPath(r functions.Ref) string {
	return "/v1/namespaces/" + url.PathEscape(r.Namespace) + "/functions/" + url.PathEscape(r.Name)
}

// Functions lists the functions of a namespace, or of all when it is empty.
func (c *Client) Functions(ctx context.Context, namespace string) ([]v1.Function, error) {
	path := "/v1/functions"
	if namespace != "" {
		path = "/v1/namespaces/" + url.PathEscape(namespace) + "/functions"
	}
	return fetch[[]v1.Function](ctx, c, http.MethodGet, path, nil)
}

// Function returns a function.
func (c *Client) Function(ctx context.Context, r functions.Ref) (*v1.Function, error) {
	return fetchOne[v1.Function](ctx, c, http.MethodGet, functionPath(r), nil)
}

// Deploy makes a revision of the function and, unless NoWait is set, returns when it has the traffic. Leaving early undoes nothing.
func (c *Client) Deploy(ctx context.Context, r functions.Ref, req v1.DeployRequest) (*v1.DeployResult, error) {
	return fetchOne[v1.DeployResult](ctx, c, http.MethodPut, functionPath(r), req)
}

// Rollback moves the traffic to an earlier revision; an empty one stands for the one that had it before.
func (c *Client) Rollback(ctx context.Context, r functions.Ref, rev functions.RevisionID) (*v1.DeployResult, error) {
	return fetchOne[v1.DeployResult](ctx, c, http.MethodPost, functionPath(r)+"/rollback", v1.RollbackRequest{Revision: rev})
}

// Delete removes the function and its revisions. It returns when no gateway routes to it any more.
func (c *Client) Delete(ctx context.Context, r functions.Ref) error {
	return c.call(ctx, http.MethodDelete, functionPath(r), nil, nil)
}

// Revisions lists the revisions of a function, the newest first.
func (c *Client) Revisions(ctx context.Context, r functions.Ref) ([]v1.Revision, error) {
	return fetch[[]v1.Revision](ctx, c, http.MethodGet, functionPath(r)+"/revisions", nil)
}

// Revision returns a revision of a function.
func (c *Client) Revision(ctx context.Context, r functions.Ref, id functions.RevisionID) (*v1.Revision, error) {
	return fetchOne[v1.Revision](ctx, c, http.MethodGet, functionPath(r)+"/revisions/"+url.PathEscape(string(id)), nil)
}

// MissingBlobs returns those of the digests that the server does not hold.
func (c *Client) MissingBlobs(ctx context.Context, digests []string) ([]string, error) {
	out, err := fetch[v1.BlobsMissing](ctx, c, http.MethodPost, "/v1/blobs/missing", v1.BlobsRequest{Digests: digests})
	return out.Missing, err
}

// PutBlob uploads a blob. Size is its length in bytes.
func (c *Client) PutBlob(ctx context.Context, digest string, body io.Reader, size int64) error {
	resp, err := c.request(ctx, http.MethodPut, "/v1/blobs/"+url.PathEscape(digest), body, func(r *http.Request) {
		r.ContentLength = size
		r.Header.Set("Content-Type", "application/octet-stream")
	})
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// HasBlob reports whether the server holds a blob.
func (c *Client) HasBlob(ctx context.Context, digest string) (bool, error) {
	missing, err := c.MissingBlobs(ctx, []string{digest})
	return err == nil && len(missing) == 0, err
}

// ExplainFunction says why a function has the instances that it has.
func (c *Client) ExplainFunction(ctx context.Context, r functions.Ref) (*v1.Explanation, error) {
	return fetchOne[v1.Explanation](ctx, c, http.MethodGet, functionPath(r)+"/explain", nil)
}

func number(n int) string {
	if n == 0 {
		return ""
	}
	return strconv.Itoa(n)
}

// query makes the query of pairs of name and value; empty values are left out.
func query(pairs ...string) string {
	v := url.Values{}
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			v.Set(pairs[i], pairs[i+1])
		}
	}
	if len(v) == 0 {
		return ""
	}
	return "?" + v.Encode()
}
