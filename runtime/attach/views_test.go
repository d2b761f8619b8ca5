//go:build linux

package attach

import "testing"

func TestTakesDetached(t *testing.T) {
	for release, want := range map[string]bool{
		"5.15.0-101-generic": false, "6.1.0-56-amd64": false, "6.14.9": false, "6.15.0-rc1": true, "6.18.44": true, "7.0": true, "": false, "next": false,
	} {
		if got := takesDetached(release); got != want {
			t.Errorf("%q: %t, want %t", release, got, want)
		}
	}
}
