package fakenomad

import (
	"net/http"
	"regexp"
	"slices"
	"strings"

	"github.com/hashicorp/nomad/api"
)

// policy is what the tokens that have it may do, and the job whose tasks have it without being told.
type policy struct {
	rights []string
	job    string
}

var (
	spaceRule = regexp.MustCompile(`namespace\s+"([^"]*)"\s*\{\s*capabilities\s*=\s*\[([^\]]*)\]`)
	nodeRule  = regexp.MustCompile(`node\s*\{\s*policy\s*=\s*"read"`)
)

// rightsIn reads what of a policy's rules is known here: capabilities in a namespace, and the reading of nodes.
func rightsIn(rules, namespace string) (rights []string) {
	for _, m := range spaceRule.FindAllStringSubmatch(rules, -1) {
		if m[1] != namespace {
			continue
		}
		for word := range strings.SplitSeq(m[2], ",") {
			rights = append(rights, strings.Trim(strings.TrimSpace(word), `"`))
		}
	}
	if nodeRule.MatchString(rules) {
		rights = append(rights, "node:read")
	}
	return rights
}

func (c *Cluster) writePolicy(r *http.Request) (any, *problem) {
	req, p := read[api.ACLPolicy](r)
	if p != nil {
		return nil, p
	}
	made := policy{rights: rightsIn(req.Rules, c.cfg.Namespace)}
	if req.JobACL != nil && req.JobACL.Namespace == c.cfg.Namespace {
		made.job = req.JobACL.JobID
	}
	c.policies[r.PathValue("name")] = made
	return nil, nil
}

func (c *Cluster) deletePolicy(r *http.Request) (any, *problem) {
	delete(c.policies, r.PathValue("name"))
	return nil, nil
}

// makeToken makes a token with policies. Its accessor is its secret here.
func (c *Cluster) makeToken(r *http.Request) (any, *problem) {
	req, p := read[api.ACLToken](r)
	if p != nil {
		return nil, p
	}
	if req.Type != "client" || len(req.Policies) == 0 {
		return nil, refuse(http.StatusBadRequest, "client token missing policies or roles")
	}
	req.SecretID = c.id("token")
	req.AccessorID = req.SecretID
	var rights []string
	for _, name := range req.Policies {
		made, there := c.policies[name]
		if !there {
			return nil, refuse(http.StatusBadRequest, "cannot find policy %s", name)
		}
		rights = append(rights, made.rights...)
	}
	c.tokens[req.SecretID] = rights
	return &req, nil
}

func (c *Cluster) deleteToken(r *http.Request) (any, *problem) {
	delete(c.tokens, r.PathValue("id"))
	return nil, nil
}

// identity makes the token of a task: it may read services, and do what the policies for its job let it. The lock is held.
func (c *Cluster) identity(job string) string {
	token := c.id("identity")
	rights := []string{readServices}
	for _, p := range c.policies {
		if p.job == job {
			rights = append(rights, p.rights...)
		}
	}
	c.tokens[token] = rights
	return token
}

// readServices is what every task may do; whoever may read jobs may, too.
const readServices = "services:read"

func has(rights []string, right string) bool {
	return slices.Contains(rights, "*") || slices.Contains(rights, right) || right == readServices && slices.Contains(rights, "read-job")
}
