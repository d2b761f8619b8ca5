package problem

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/tatami-faas/tatami/internal/fault"
)

// isGRPC reports whether a gRPC client waits for the answer: such a client shows nothing of an answer in another form but its status.
func isGRPC(r *http.Request) bool {
	ct := r.Header["Content-Type"]
	return r.ProtoMajor == 2 && len(ct) > 0 && strings.HasPrefix(ct[0], "application/grpc") && !strings.HasPrefix(ct[0], "application/grpc-web")
}

// respondGRPC writes the problem as a gRPC answer that has a status and no message.
func respondGRPC(w http.ResponseWriter, p Problem) {
	text := p.Detail
	if p.Hint != "" {
		text += " (" + p.Hint + ")"
	}
	h := w.Header()
	h.Set("Content-Type", "application/grpc")
	h.Set(HeaderError, string(p.Code))
	h.Set("Grpc-Status", strconv.Itoa(grpcStatus(p.Code)))
	h.Set("Grpc-Message", grpcEscape(text))
	if p.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(p.RetryAfter))
	}
	w.WriteHeader(http.StatusOK)
}

// grpcStatus is the code of gRPC that is nearest to the fault's.
func grpcStatus(c fault.Code) int {
	const (
		invalidArgument, deadlineExceeded, permissionDenied, resourceExhausted = 3, 4, 7, 8
		aborted, unimplemented, internal, unavailable, unauthenticated         = 10, 12, 13, 14, 16
	)
	if c == fault.CodeBodyTooLarge || c == fault.CodeHeaderTooLarge {
		return resourceExhausted
	}
	switch c.Kind() {
	case fault.Invalid:
		return invalidArgument
	case fault.Unauthenticated:
		return unauthenticated
	case fault.Denied:
		return permissionDenied
	case fault.NotFound:
		// As gRPC reads 404: nobody serves the method here.
		return unimplemented
	case fault.Conflict:
		return aborted
	case fault.Quota, fault.StorageFull:
		return resourceExhausted
	case fault.Overloaded, fault.Unavailable:
		return unavailable
	case fault.Timeout:
		return deadlineExceeded
	default:
		return internal
	}
}

// grpcEscape writes a message as gRPC wants it: printable ASCII, all else and the sign itself with a percent sign.
func grpcEscape(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '%' {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}
