//go:build linux && e2e

package containerd

import (
	"testing"

	"github.com/tatami-faas/tatami/runtime/sandbox"
	"github.com/tatami-faas/tatami/runtime/sandboxtest"
	"github.com/tatami-faas/tatami/tests/escape"
)

// TestEscape: a hostile function does not get out of a sandbox that the OCI runtime makes.
func TestEscape(t *testing.T) {
	needRoot(t)
	escaping(t, testConfig, 0, nil)
}

// TestEscapeAttach: nor out of one that was made ahead.
func TestEscapeAttach(t *testing.T) {
	needInit(t)
	escaping(t, testConfig, 2, nil)
}

// TestEscapeEgress: nor, where it may reach the internet, to anything else by the same way.
func TestEscapeEgress(t *testing.T) {
	needRoot(t)
	escaping(t, testConfig, 0, withEgress)
}

// TestEscapeAttachEgress: nor out of one with egress that was made ahead.
func TestEscapeAttachEgress(t *testing.T) {
	needInit(t)
	escaping(t, testConfig, 2, withEgress)
}

// TestEscapeMapped: nor as root of a user namespace.
func TestEscapeMapped(t *testing.T) {
	needRoot(t)
	escaping(t, mappedConfig, 0, asRoot)
}

// TestEscapeAttachMapped: nor as root of one that was made ahead.
func TestEscapeAttachMapped(t *testing.T) {
	needInit(t)
	escaping(t, mappedConfig, 2, asRoot)
}

func asRoot(_ *testing.T, _ *Config, s *escape.Setup) {
	s.Refused = map[string]string{
		// It is root, of no more than its own files and processes.
		"become-root": "", "join-root": "", "setgroups": "",
		"fill path=/f&n=20000000": "ENOSPC",
		// Its copy of the image's file is its own. This one runs.
		"write path=/hostile": "ETXTBSY", "write path=/proc/self/exe": "ETXTBSY", "write path=/proc/1/exe": "ETXTBSY",
	}
}

func withEgress(t *testing.T, cfg *Config, s *escape.Setup) {
	s.Internet = escape.NewInternet(t)
	cfg.Egress.DNS = append(cfg.Egress.DNS, s.Internet.Open)
	s.Class = func(spec *sandbox.Spec) { spec.Egress = true }
	// The files are the same with egress and without.
	s.Parts = []string{"Calls", "Processes", "Neighbours", "Network", "Resources", "Entering"}
}

// TestEscapePrecreated: nor out of a container that was made ahead.
func TestEscapePrecreated(t *testing.T) {
	escapingPrecreated(t, testConfig, nil, "Calls", "Processes", "Files", "Neighbours")
}

// TestEscapePrecreatedMapped: nor as root of one.
func TestEscapePrecreatedMapped(t *testing.T) {
	escapingPrecreated(t, mappedConfig, asRoot, "Calls")
}

// TestEscapePrecreatedEgress: nor, where it may reach the internet, out of one by the same way.
func TestEscapePrecreatedEgress(t *testing.T) {
	escapingPrecreated(t, testConfig, withEgress, "Neighbours")
}

// TestEscapePrecreatedGVisor: nor out of gVisor's that was made ahead.
func TestEscapePrecreatedGVisor(t *testing.T) {
	escapingPrecreated(t, testConfig, onGVisor, "Neighbours")
}

// escapingPrecreated runs the suite, or its short form's parts, on containers that were made ahead.
func escapingPrecreated(t *testing.T, config func(testing.TB) Config, class func(*testing.T, *Config, *escape.Setup), short ...string) {
	needInit(t)
	escaping(t, config, 0, func(t *testing.T, cfg *Config, s *escape.Setup) {
		if class != nil {
			class(t, cfg, s)
		}
		if cfg.Precreated = 4; !*precreatedWhole {
			s.Parts = short
		}
	})
}

// escaping runs the suite on one class of sandboxes, with a pool or without, in a network of its own.
func escaping(t *testing.T, config func(testing.TB) Config, pool int, class func(*testing.T, *Config, *escape.Setup)) {
	if !escape.OwnNetwork(t) {
		return
	}
	cfg := config(t)
	cfg.SandboxPool = pool
	blobs := sandboxtest.Blobs(t.TempDir())
	setup := escape.Setup{Blobs: blobs, Dirs: []string{cfg.DataDir, cfg.RunDir}, Sockets: []string{cfg.engineSocket()}}
	if class != nil {
		class(t, &cfg, &setup)
	}
	d := open(t, cfg, blobs)
	defer func() { _ = d.Close() }()
	switch setup.Driver = d; {
	case cfg.Precreated > 0:
		setup.Driver = &precreating{Driver: d, t: t, class: func(*sandbox.Spec) {}}
	case pool > 0:
		setup.Driver = &attaching{Driver: d, t: t, odd: true}
	}
	escape.Run(t, setup)
	d.precreated.drain()
	d.drainPools()
	if l := settled(t, cfg); len(l) > 0 {
		t.Errorf("left behind: %q", l)
	}
}

// TestEscapeGVisor: nor out of gVisor's. What its kernel says to calls is its own matter, for none of them reaches the node's.
func TestEscapeGVisor(t *testing.T) {
	needRoot(t)
	escaping(t, testConfig, 0, onGVisor)
}

func onGVisor(_ *testing.T, _ *Config, s *escape.Setup) {
	s.Class = func(spec *sandbox.Spec) { spec.GVisor = true }
	s.Parts = []string{"Neighbours", "Network", "Places"}
}
