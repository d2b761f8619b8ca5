package nomad

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/hashicorp/nomad/api"

	"github.com/tatami-faas/tatami/internal/fault"
)

// Explain makes an error of this product out of one of Nomad's client; nil stays nil. What was done is for people.
func Explain(err error, what string) error {
	if err == nil {
		return nil
	}
	var status api.UnexpectedResponseError
	if !errors.As(err, &status) {
		if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
			return fault.Wrap(fault.CodeWaitTimeout, err, "nomad: %s", what)
		}
		return fault.Wrap(fault.CodeUnavailable, err, "nomad: %s", what).WithHint("is NOMAD_ADDR right, and does the agent run?")
	}
	switch body := status.Body(); {
	case status.StatusCode() == http.StatusForbidden || status.StatusCode() == http.StatusUnauthorized:
		return fault.Wrap(fault.CodeDenied, err, "nomad: %s", what).WithHint("NOMAD_TOKEN must allow that: servers need the policy that `tatami nomad render policy` prints, and whoever plans and applies jobs may submit them")
	case status.StatusCode() == http.StatusNotFound:
		return fault.Wrap(fault.CodeNotFound, err, "nomad: %s", what).WithHint("make the job: tatami nomad apply")
	case status.StatusCode() == http.StatusConflict || strings.Contains(body, api.RegisterEnforceIndexErrPrefix) || strings.Contains(body, "active deployment"):
		return fault.Wrap(fault.CodeConflict, err, "nomad: %s", what).WithHint("look at it again: it has changed, or is changing")
	case status.StatusCode() == http.StatusBadRequest:
		return fault.Wrap(fault.CodeInvalidRequest, err, "nomad: %s", what)
	}
	return fault.Wrap(fault.CodeUnavailable, err, "nomad: %s", what)
}
