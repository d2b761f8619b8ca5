package bus_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/fault"
)

// Whoever answers that nobody leads says so in one of several ways: all of them are worth another try, and are no error of the server's own.
func TestNobodyLeads(t *testing.T) {
	t.Parallel()
	for _, err := range []error{
		nats.ErrNoResponders, nats.ErrTimeout, jetstream.ErrNoStreamResponse, &jetstream.APIError{Code: 503, Description: "JetStream system temporarily unavailable"},
		&nats.APIError{Code: 503, Description: "JetStream system temporarily unavailable"},
	} {
		err = fmt.Errorf("watching: %w", err)
		if !bus.Unled(err) || fault.CodeOf(bus.StoreFault(err)) != fault.CodeUnavailable {
			t.Errorf("%v is %v", err, bus.StoreFault(err))
		}
	}
	for _, err := range []error{errors.New("x"), &nats.APIError{Code: 400}, &jetstream.APIError{Code: 404}} {
		if bus.Unled(err) || fault.CodeOf(bus.StoreFault(err)) != fault.CodeInternal {
			t.Errorf("%v is %v", err, bus.StoreFault(err))
		}
	}
}
