//go:build linux

package containerd

import (
	"testing"

	"github.com/tatami-faas/tatami/internal/awake"
	"github.com/tatami-faas/tatami/tests/wishes"
)

// A start keeps the processors awake until its function has had time to become ready.
func TestAStartKeepsProcessorsAwake(t *testing.T) {
	t.Parallel()
	keeper, w := wishes.New(t, awake.Starts)
	d := aheadOf(1).d
	d.cfg.Awake, d.mapped = keeper, newPool(d, poolBounds{})
	d.precreated = newPrecreated(d, 0)
	for range 2 {
		made := d.startBegins(&box{}, aheadSpec("one"), &artifact{})
		w.Begins("a start")
		made()
		w.Ends("a function that had time to become ready")
	}
}
