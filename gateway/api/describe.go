package api

import (
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

// describeExtra adds what other parts serve on the control listener to the description.
func describeExtra(h huma.API) {
	for _, e := range []struct{ id, path, mediaType, summary, description string }{
		{"overview", "/v1/overview", "application/json", "Show everything that the dashboard shows", "For the dashboard; its form may change with any release."},
		{"stream", "/v1/stream", eventStream, "Follow what the dashboard shows", "Events named snapshot and delta. For the dashboard; their form may change with any release."},
		{"metrics", "/metrics", "text/plain", "Read the metrics", "In the text format of Prometheus."},
	} {
		op := huma.Operation{
			OperationID: e.id, Method: http.MethodGet, Path: e.path, Summary: e.summary, Description: e.description, Tags: []string{"system"},
			Responses: map[string]*huma.Response{"200": {Description: "OK", Content: map[string]*huma.MediaType{e.mediaType: {Schema: &huma.Schema{}}}}},
		}
		op.Responses = responses(op)
		h.OpenAPI().AddOperation(&op)
	}
}

// openAnswers lets the objects of answers have members that the description does not know: a client made of it is to read what a later
// server adds. Objects of requests stay closed, those included that are part of answers, too.
func openAnswers(h huma.API) {
	doc := h.OpenAPI()
	sent := map[string]bool{}
	for _, path := range doc.Paths {
		for _, op := range []*huma.Operation{path.Post, path.Put} {
			if op == nil || op.RequestBody == nil {
				continue
			}
			for _, m := range op.RequestBody.Content {
				collect(doc.Components.Schemas, m.Schema, sent)
			}
		}
	}
	for name, s := range doc.Components.Schemas.Map() {
		if closed, ok := s.AdditionalProperties.(bool); ok && !closed && !sent[name] {
			s.AdditionalProperties = nil
		}
	}
}

// collect adds the names of the schemas that s leads to.
func collect(all huma.Registry, s *huma.Schema, found map[string]bool) {
	if s == nil {
		return
	}
	if name, ok := strings.CutPrefix(s.Ref, "#/components/schemas/"); ok && !found[name] {
		found[name] = true
		collect(all, all.Map()[name], found)
	}
	for _, p := range s.Properties {
		collect(all, p, found)
	}
	collect(all, s.Items, found)
}
