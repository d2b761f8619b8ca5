package api

import (
	"context"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tatami-faas/tatami/gateway/problem"
	"github.com/tatami-faas/tatami/internal/fault"
)

// failure is a problem in the form that huma answers with.
type failure struct{ problem.Problem }

var (
	_ huma.StatusError       = (*failure)(nil)
	_ huma.HeadersError      = (*failure)(nil)
	_ huma.ContentTypeFilter = (*failure)(nil)
)

// failure makes the answer of an error; one without a code goes to the log, too.
func (a *API) failure(ctx context.Context, op string, err error) *failure {
	if f := fault.From(context.Cause(ctx)); f != nil {
		err = f // the server stops: that is why
	}
	if fault.KindOf(err) == fault.Internal && ctx.Err() == nil {
		a.log.Error("a request failed", "op", op, "err", err)
	}
	return &failure{problem.Of(err)}
}

func (f *failure) Error() string             { return f.Detail }
func (f *failure) GetStatus() int            { return f.Status }
func (f *failure) ContentType(string) string { return problem.ContentType }

// GetHeaders returns the headers that every problem has.
func (f *failure) GetHeaders() http.Header {
	h := http.Header{problem.HeaderError: {string(f.Code)}, "Cache-Control": {"no-store"}}
	if f.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(f.RetryAfter))
	}
	return h
}

// humaConfig is huma without what it would fetch from elsewhere, and with its own errors turned into ours.
func humaConfig() huma.Config {
	c := huma.DefaultConfig("Tatami control API", "v1")
	c.Info.Description = "Deploy, look at and operate functions. Errors are RFC 9457 problem details with the members code, kind, field, hint and details."
	c.CreateHooks = nil
	c.DocsPath, c.SchemasPath = "", ""
	c.FieldsOptionalByDefault = true
	c.RejectUnknownQueryParameters = true
	c.Transformers = []huma.Transformer{ownErrors}
	c.Components.SecuritySchemes = map[string]*huma.SecurityScheme{
		"token": {Type: "http", Scheme: "bearer", Description: "The token, over TCP. The unix socket needs none."},
	}
	c.Security = []map[string][]string{{"token": {}}}
	c.Components.Schemas.Schema(reflect.TypeFor[problem.Problem](), true, "Problem")
	return c
}

// ownErrors turns an error that huma made, of a request that does not fit its schema, into a problem.
func ownErrors(ctx huma.Context, _ string, v any) (any, error) {
	e, ok := v.(*huma.ErrorModel)
	if !ok {
		return v, nil
	}
	code := fault.CodeInvalidRequest
	switch e.Status {
	case http.StatusRequestEntityTooLarge:
		code = fault.CodeBodyTooLarge
	case http.StatusInternalServerError:
		code = fault.CodeInternal
	}
	msg := e.Detail
	f := fault.New(code, "")
	for i, d := range e.Errors {
		at := d.Location
		for _, where := range []string{"body", "query", "path"} {
			at = strings.TrimPrefix(strings.TrimPrefix(at, where), ".")
		}
		line := strings.TrimPrefix(at+": "+d.Message, ": ")
		if i == 0 {
			msg, f.Field = line, at
		} else {
			f.Details = append(f.Details, line)
		}
	}
	slices.Sort(f.Details)
	f.Message = msg
	f.Hint = "/openapi.json says what is possible"
	if e.Status == http.StatusUnsupportedMediaType {
		f.Hint = "send JSON, with the header Content-Type: application/json"
	}
	p := problem.Of(f)
	p.Status, p.Title = e.Status, http.StatusText(e.Status)
	ctx.SetHeader(problem.HeaderError, string(p.Code))
	return &p, nil
}

// responses describes the errors of an operation; huma adds the success.
func responses(op huma.Operation) map[string]*huma.Response {
	out := op.Responses
	if out == nil {
		out = map[string]*huma.Response{}
	}
	out["default"] = &huma.Response{
		Description: "A problem",
		Content:     map[string]*huma.MediaType{problem.ContentType: {Schema: &huma.Schema{Ref: "#/components/schemas/Problem"}}},
		Headers: map[string]*huma.Param{
			problem.HeaderError: {Description: "The problem's code", Schema: &huma.Schema{Type: huma.TypeString}},
		},
	}
	return out
}
