package invoke

import (
	"context"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/gateway/http1"
)

// teller watches an exchange's client; it has told of the client's end or not.
type teller bool

func (w teller) Watch(context.Context, http1.Watcher) bool { return true }
func (w teller) Unwatch() bool                             { return bool(w) }

// A call is used again for another one unless somebody may still be about to end its exchange.
func TestACallIsUsedAgain(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		before func(x *exchange)
		again  bool
	}{
		"ended":                      {func(*exchange) {}, true},
		"unwatched":                  {func(x *exchange) { x.watched = teller(false) }, true},
		"the context has not ended":  {func(x *exchange) { x.stopCtx = func() bool { return true } }, true},
		"its deadline rings":         {func(x *exchange) { x.fn.deadlines.ring(x.expiry.at) }, false},
		"its client has left":        {func(x *exchange) { x.watched = teller(true) }, false},
		"the context has ended":      {func(x *exchange) { x.stopCtx = func() bool { return false } }, false},
		"a stream":                   {func(x *exchange) { x.stream() }, false},
		"a body of its own":          {func(x *exchange) { x.sent = &bodySend{} }, false},
		"over HTTP/2":                {func(x *exchange) { x.h2 = &h2call{} }, false},
		"tried again somewhere else": {func(*exchange) {}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			one := &call{id: "inv_one", inv: &Invoker{}, fn: &function{deadlines: deadlines{alarms: &alarms{}}}}
			x := &one.first
			one.x = x
			x.inv, x.fn, x.idle = one.inv, one.fn, functions.Duration(time.Hour)
			// Its deadline is over, and rings when it is asked.
			x.expiry.at = time.Now().Add(-time.Hour)
			one.fn.deadlines.next = x.expiry.at
			one.fn.deadlines.add(&x.expiry, x)
			c.before(x)
			x.alone = x.letGo()
			if name == "tried again somewhere else" {
				one.x = &exchange{alone: true}
			}
			var p callPool
			p.put(one)
			if again := one.id == ""; again != c.again {
				t.Errorf("used again: %t, want %t", again, c.again)
			}
			if c.again && (one.x != nil || one.fn != nil || one.first.fn != nil) {
				t.Errorf("the next call gets what the one before had: %+v", one.id)
			}
			if other := p.get(); other.id != "" {
				t.Errorf("a call comes back that was not to be used again: %q", other.id)
			}
			if x.timer != nil {
				x.timer.Stop()
			}
		})
	}
}
