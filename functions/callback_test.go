package functions

import (
	"strings"
	"testing"

	"github.com/tatami-faas/tatami/internal/fault"
)

func TestCallbacksCheck(t *testing.T) {
	t.Parallel()
	c := Callbacks{Allow: []string{"https://example.com/hooks", "http://10.0.0.1:8080/", "https://Shop.example"}}
	for url, want := range map[string]fault.Code{
		"https://example.com/hooks":                                "",
		"https://example.com/hooks/":                               "",
		"https://example.com/hooks/a/b?job=1":                      "",
		"https://EXAMPLE.com:443/hooks/a":                          "",
		"http://10.0.0.1:8080":                                     "",
		"http://10.0.0.1:8080/any":                                 "",
		"https://shop.example/x":                                   "",
		"https://example.com/hooks2":                               fault.CodeDenied,
		"https://example.com/":                                     fault.CodeDenied,
		"http://example.com/hooks":                                 fault.CodeDenied,
		"https://example.com:8443/hooks":                           fault.CodeDenied,
		"https://example.com.evil/hooks":                           fault.CodeDenied,
		"http://10.0.0.1/":                                         fault.CodeDenied,
		"http://169.254.169.254/latest":                            fault.CodeDenied,
		"http://[::1]:8081/v1":                                     fault.CodeDenied,
		"https://example.com/hooks/../admin":                       fault.CodeInvalidRequest,
		"https://example.com/hooks/%2e%2e/admin":                   fault.CodeInvalidRequest,
		"https://example.com/hooks/./a":                            fault.CodeInvalidRequest,
		"https://example.com//hooks":                               fault.CodeInvalidRequest,
		"https://example.com/hooks#x":                              fault.CodeInvalidRequest,
		"https://me:pw@example.com/hooks":                          fault.CodeInvalidRequest,
		`https://example.com\@evil/hooks`:                          fault.CodeInvalidRequest,
		"https:///hooks":                                           fault.CodeInvalidRequest,
		"ftp://example.com/hooks":                                  fault.CodeInvalidRequest,
		"example.com/hooks":                                        fault.CodeInvalidRequest,
		"https://example.com/ho oks":                               fault.CodeInvalidRequest,
		"https://example.com/hooks/" + strings.Repeat("x", maxURL): fault.CodeInvalidRequest,
		"": fault.CodeInvalidRequest,
	} {
		if err := c.Check(url); fault.CodeOf(err) != want || want != "" && fault.From(err).Field != HeaderCallback {
			t.Errorf("%.80q: %v, want %q", url, err, want)
		}
	}
	if err := (Callbacks{}).Check("https://example.com/hooks"); !fault.Is(err, fault.CodeDenied) {
		t.Errorf("where none is allowed: %v", err)
	}
}

// Whatever is asked for, what is allowed is of an origin that is allowed.
func FuzzCallbacksCheck(f *testing.F) {
	for _, s := range []string{"https://example.com/hooks/a", "https://example.com@evil/hooks", "https://example.com/hooks/..;/x", "//example.com/hooks", "https://example.com:/hooks"} {
		f.Add(s)
	}
	c := Callbacks{Allow: []string{"https://example.com/hooks"}}
	f.Fuzz(func(t *testing.T, s string) {
		if c.Check(s) != nil {
			return
		}
		rest, ok := strings.CutPrefix(strings.ToLower(s), "https://example.com")
		rest = strings.TrimPrefix(strings.TrimPrefix(rest, ":443"), ":")
		if !ok || !strings.HasPrefix(rest, "/hooks") || strings.Contains(rest, "/../") {
			t.Errorf("%q is allowed", s)
		}
	})
}
