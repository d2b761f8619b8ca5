package functions_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/tatami-faas/tatami/functions"
)

// A revision's id follows from its configuration as it is written: the default protocol must not show there, however it was said.
func TestDefaultProtocolIsNotWritten(t *testing.T) {
	t.Parallel()
	for _, said := range []string{"", functions.ProtocolHTTP1} {
		b, err := json.Marshal(functions.Config{Protocol: said}.WithDefaults())
		if err != nil || strings.Contains(string(b), "protocol") {
			t.Errorf("%q: %s, %v", said, b, err)
		}
	}
	if c := (functions.Config{Protocol: functions.ProtocolH2C}).WithDefaults(); !c.H2C() || c.Validate() != nil {
		t.Errorf("%+v", c)
	}
}

// Nor must the default of the egress.
func TestDefaultEgressIsNotWritten(t *testing.T) {
	t.Parallel()
	for _, said := range []string{"", functions.EgressNone} {
		b, err := json.Marshal(functions.Config{Egress: said}.WithDefaults())
		if err != nil || strings.Contains(string(b), "egress") {
			t.Errorf("%q: %s, %v", said, b, err)
		}
	}
	if c := (functions.Config{Egress: functions.EgressInternet}).WithDefaults(); !c.Internet() || c.Validate() != nil {
		t.Errorf("%+v", c)
	}
	if err := (functions.Config{Egress: "everything"}).WithDefaults().Validate(); err == nil {
		t.Error("an egress that there is not was taken")
	}
}

// Nor must the default of the sandbox.
func TestDefaultSandboxIsNotWritten(t *testing.T) {
	t.Parallel()
	for _, said := range []string{"", functions.SandboxContainer} {
		b, err := json.Marshal(functions.Config{Sandbox: said}.WithDefaults())
		if err != nil || strings.Contains(string(b), "sandbox") {
			t.Errorf("%q: %s, %v", said, b, err)
		}
	}
	if c := (functions.Config{Sandbox: functions.SandboxGVisor}).WithDefaults(); !c.GVisor() || c.Validate() != nil {
		t.Errorf("%+v", c)
	}
	if err := (functions.Config{Sandbox: "vm"}).WithDefaults().Validate(); err == nil {
		t.Error("a sandbox that there is not was taken")
	}
}
