package problem_test

import (
	"net/http/httptest"
	"testing"

	"github.com/tatami-faas/tatami/internal/fault"
)

// A gRPC client is answered in gRPC's form; anybody else, one of gRPC-Web included, is not.
func TestGRPC(t *testing.T) {
	t.Parallel()
	r := httptest.NewRequest("POST", "/x.Y/Z", nil)
	r.ProtoMajor = 2
	r.Header.Set("Content-Type", "application/grpc+proto")
	for code, want := range map[fault.Code]string{
		fault.CodeInvalidRequest: "3", fault.CodeBodyTooLarge: "8", fault.CodeUnauthenticated: "16", fault.CodeDenied: "7",
		fault.CodeFunctionNotFound: "12", fault.CodeConflict: "10", fault.CodeRateLimited: "8", fault.CodeWaitingListFull: "14",
		fault.CodeDraining: "14", fault.CodeStorageFull: "8", fault.CodeFunctionCrashed: "13", fault.CodeFunctionTimeout: "4", fault.CodeInternal: "13",
	} {
		w := write(r, fault.New(code, "100 %% ü").WithHint("go on"))
		h := w.Header()
		if w.Code != 200 || h.Get("Grpc-Status") != want || h.Get("Tatami-Error") != string(code) || h.Get("Content-Type") != "application/grpc" || w.Body.Len() > 0 {
			t.Errorf("%s: %d %v %s", code, w.Code, h, w.Body)
		}
		if got := h.Get("Grpc-Message"); got != "100 %25 %C3%BC (go on)" {
			t.Errorf("%s: message %q", code, got)
		}
	}
	r.Header.Set("Content-Type", "application/grpc-web")
	if w := write(r, fault.New(fault.CodeDenied, "no")); w.Code != 403 {
		t.Errorf("gRPC-Web: %d", w.Code)
	}
	r.Header.Set("Content-Type", "application/grpc")
	r.ProtoMajor = 1
	if w := write(r, fault.New(fault.CodeDenied, "no")); w.Code != 403 {
		t.Errorf("HTTP/1: %d", w.Code)
	}
}
