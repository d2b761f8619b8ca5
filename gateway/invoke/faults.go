package invoke

import (
	"fmt"
	"strings"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/fault"
)

// noLive is the answer of a function that no revision serves.
func (f *function) noLive(rt *route) error {
	if rt.serving != "" {
		return fault.New(fault.CodeUnavailable, "the live revision %s of %s cannot be read", rt.serving, f.ref).
			WithHint("look for the cause: tatami doctor").WithRetryAfter(time.Second)
	}
	if rt.coming != "" {
		return fault.New(fault.CodeUnavailable, "%s is being deployed: no instance is ready yet", f.ref).WithRetryAfter(time.Second).
			WithHint("watch it: tatami explain %s", f.ref)
	}
	return fault.New(fault.CodeFunctionNotReady, "no revision of %s ever became ready", f.ref).WithHint("see why: tatami rev ls %s", f.ref)
}

func (f *function) tooMany(n int) error {
	return fault.New(fault.CodeWaitingListFull, "%d requests wait for %s already", n, f.ref).WithRetryAfter(time.Second).
		WithHint("see why it does not keep up: tatami explain %s", f.ref)
}

func (f *function) overloaded(slots int) error {
	return fault.New(fault.CodeWaitingListFull, "%s is asked for more than its %d slots can serve", f.ref, slots).WithRetryAfter(time.Second).
		WithHint("send less, or let more of it run: scale.max and concurrency in tatami.yaml")
}

func (f *function) notReady(reason string, logs []string) error {
	if reason == "" {
		reason = "the instance ended before it was ready"
	}
	return fault.New(fault.CodeFunctionNotReady, "%s did not start: %s", f.ref, reason).WithDetails(logs...).
		WithHint("read what it wrote: tatami logs %s", f.ref)
}

// noSlot is the end of a wait: why tells what the scheduler knows.
func (f *function) noSlot(limit functions.Duration, slots int, why string) error {
	what := "no instance became ready"
	if slots > 0 {
		what = fmt.Sprintf("all %d slots of its instances were busy", slots)
	}
	if why != "" {
		what += ": " + why
	}
	return fault.New(fault.CodeStartTimeout, "%s: %s within the function's timeout of %s", f.ref, what, limit).
		WithHint("see what it waits for: tatami explain %s", f.ref)
}

func (f *function) timedOut(limit functions.Duration, half bool) error {
	if half {
		return fault.New(fault.CodeFunctionTimeout, "%s did not end its answer within its timeout of %s: the request's body had not passed whole", f.ref, limit).
			WithHint("send the body faster, or raise timeout in tatami.yaml")
	}
	return fault.New(fault.CodeFunctionTimeout, "%s did not end its answer within its timeout of %s", f.ref, limit).
		WithHint("raise timeout in tatami.yaml, or hand the work to the queue: POST /async/%s", f.ref)
}

func (f *function) idled(limit functions.Duration) error {
	return fault.New(fault.CodeIdleTimeout, "no byte moved on the stream of %s for its idle timeout of %s", f.ref, limit).
		WithHint("raise idleTimeout in tatami.yaml, or send something now and then")
}

func (f *function) crashed(d bus.Departure) error {
	reason := d.Reason
	if !d.State.Gone() || d.State == functions.InstanceStopped {
		if reason == "" {
			reason = "it was stopped"
		}
		return fault.New(fault.CodeDraining, "the instance of %s ended before the answer: %s", f.ref, reason).WithRetryAfter(time.Second).
			WithHint("try again; if it happens often: tatami explain %s", f.ref)
	}
	if reason == "" {
		reason = "the process ended"
	}
	return fault.New(fault.CodeFunctionCrashed, "%s crashed: %s", f.ref, reason).WithHint("read what it wrote: tatami logs %s", f.ref)
}

// outOfReach is the end of a request whose worker vanished.
func (f *function) outOfReach(err error) error {
	return fault.Wrap(fault.CodeUnavailable, err, "%s was cut off before its answer came", f.ref).WithHint("whether it did what was asked is not known")
}

func (f *function) badResponse(err error, format string, args ...any) error {
	return fault.Wrap(fault.CodeFunctionBadResponse, err, "%s %s", f.ref, fmt.Sprintf(format, args...)).
		WithHint("read what it wrote: tatami logs %s", f.ref)
}

// notSpoken is an answer that is none in the protocol that the function is said to speak.
func (f *function) notSpoken(err error, h2 bool) error {
	text := err.Error()
	switch {
	case h2 && strings.Contains(text, "HTTP/1"):
		return fault.Wrap(fault.CodeFunctionBadResponse, err, "%s does not answer in HTTP/2", f.ref).
			WithHint("it seems to speak HTTP/1: leave protocol: h2c out of tatami.yaml")
	case h2:
		return f.badResponse(err, "sent no complete HTTP/2 answer")
	case strings.Contains(text, `"\x00\x00`):
		// The first bytes of HTTP/2 are the length of a frame.
		return fault.Wrap(fault.CodeFunctionBadResponse, err, "%s does not answer in HTTP/1", f.ref).
			WithHint("it seems to speak HTTP/2: write protocol: h2c into tatami.yaml")
	}
	return f.badResponse(err, "sent no valid HTTP answer")
}

func tooLarge(limit int64) error {
	return fault.New(fault.CodeBodyTooLarge, "the body is larger than %d bytes", limit).
		WithHint("send less, or start the server with a larger --max-body")
}

func headerTooLarge(limit int) error {
	return fault.New(fault.CodeHeaderTooLarge, "the request's header is larger than %d bytes", limit).WithHint("send fewer or shorter headers")
}

func badBody(err error) error {
	return fault.Wrap(fault.CodeInvalidRequest, err, "the request's body cannot be read")
}
