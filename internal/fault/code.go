package fault

// Kind is a class of errors: the rows of the one table that gives a status and an exit code.
type Kind uint8

// The kinds. Internal is the zero value: an error nobody classified.
const (
	Internal Kind = iota
	Invalid
	Unauthenticated
	Denied
	NotFound
	Conflict
	Quota
	Overloaded
	Unavailable
	StorageFull
	FunctionFailed
	Timeout
)

// Code names one way to fail. Codes are part of the interface: they appear in the Tatami-Error header and in problem details.
type Code string

// Every code there is. Each has a row in the table below.
const (
	CodeInternal Code = "internal"

	CodeInvalidRequest  Code = "invalid-request"
	CodeInvalidSpec     Code = "invalid-spec"
	CodeInvalidArtifact Code = "invalid-artifact"
	CodeBodyTooLarge    Code = "body-too-large"
	CodeHeaderTooLarge  Code = "header-too-large"
	CodeKeyMismatch     Code = "key-mismatch"

	CodeUnauthenticated Code = "unauthenticated"
	CodeDenied          Code = "denied"

	CodeNotFound           Code = "not-found"
	CodeFunctionNotFound   Code = "function-not-found"
	CodeInvocationNotFound Code = "invocation-not-found"

	CodeConflict       Code = "conflict"
	CodeOutcomeUnknown Code = "outcome-unknown"

	CodeQuotaExceeded Code = "quota-exceeded"
	CodeRateLimited   Code = "rate-limited"
	CodeQueueFull     Code = "queue-full"

	CodeWaitingListFull Code = "waiting-list-full"
	CodeNoCapacity      Code = "no-capacity"
	CodeUnavailable     Code = "unavailable"
	CodeDraining        Code = "draining"
	CodeStorageFull     Code = "storage-full"

	CodeFunctionCrashed     Code = "function-crashed"
	CodeFunctionNotReady    Code = "function-not-ready"
	CodeFunctionBadResponse Code = "function-bad-response"

	CodeDestinationFailed Code = "destination-failed"

	CodeFunctionTimeout Code = "function-timeout"
	CodeIdleTimeout     Code = "idle-timeout"
	CodeStartTimeout    Code = "start-timeout"
	CodeWaitTimeout     Code = "wait-timeout"
)

type row struct {
	kind   Kind
	status int
}

func rowOf(c Code) row {
	switch c {
	case CodeInvalidRequest:
		return row{Invalid, 400}
	case CodeInvalidSpec, CodeInvalidArtifact, CodeKeyMismatch:
		return row{Invalid, 422}
	case CodeBodyTooLarge:
		return row{Invalid, 413}
	case CodeHeaderTooLarge:
		return row{Invalid, 431}
	case CodeUnauthenticated:
		return row{Unauthenticated, 401}
	case CodeDenied:
		return row{Denied, 403}
	case CodeNotFound, CodeFunctionNotFound, CodeInvocationNotFound:
		return row{NotFound, 404}
	case CodeConflict, CodeOutcomeUnknown:
		return row{Conflict, 409}
	case CodeQuotaExceeded, CodeRateLimited, CodeQueueFull:
		return row{Quota, 429}
	case CodeWaitingListFull, CodeNoCapacity:
		return row{Overloaded, 503}
	case CodeUnavailable, CodeDraining:
		return row{Unavailable, 503}
	case CodeStorageFull:
		return row{StorageFull, 507}
	case CodeFunctionCrashed, CodeFunctionNotReady, CodeFunctionBadResponse, CodeDestinationFailed:
		return row{FunctionFailed, 502}
	case CodeFunctionTimeout, CodeIdleTimeout, CodeStartTimeout, CodeWaitTimeout:
		return row{Timeout, 504}
	default:
		return row{Internal, 500}
	}
}

// Kind returns the class of the code; Internal for an unknown one.
func (c Code) Kind() Kind { return rowOf(c).kind }

// Status returns the HTTP status of the code; 500 for an unknown one.
func (c Code) Status() int { return rowOf(c).status }

// Codes lists every code, in the order of the table.
func Codes() []Code {
	return []Code{
		CodeInternal,
		CodeInvalidRequest, CodeInvalidSpec, CodeInvalidArtifact, CodeBodyTooLarge, CodeHeaderTooLarge, CodeKeyMismatch,
		CodeUnauthenticated, CodeDenied,
		CodeNotFound, CodeFunctionNotFound, CodeInvocationNotFound,
		CodeConflict, CodeOutcomeUnknown,
		CodeQuotaExceeded, CodeRateLimited, CodeQueueFull,
		CodeWaitingListFull, CodeNoCapacity, CodeUnavailable, CodeDraining, CodeStorageFull,
		CodeFunctionCrashed, CodeFunctionNotReady, CodeFunctionBadResponse, CodeDestinationFailed,
		CodeFunctionTimeout, CodeIdleTimeout, CodeStartTimeout, CodeWaitTimeout,
	}
}

// Exit returns the CLI's exit code for the kind.
func (k Kind) Exit() int {
	switch k {
	case Invalid:
		return 2
	case NotFound:
		return 4
	case Unauthenticated, Denied:
		return 5
	case Quota:
		return 6
	case Timeout:
		return 7
	case Overloaded, Unavailable, StorageFull:
		return 8
	case FunctionFailed:
		return 9
	default:
		return 1
	}
}

// String returns the kind's name as it appears in problem details.
func (k Kind) String() string {
	switch k {
	case Invalid:
		return "invalid"
	case Unauthenticated:
		return "unauthenticated"
	case Denied:
		return "denied"
	case NotFound:
		return "not-found"
	case Conflict:
		return "conflict"
	case Quota:
		return "quota"
	case Overloaded:
		return "overloaded"
	case Unavailable:
		return "unavailable"
	case StorageFull:
		return "storage-full"
	case FunctionFailed:
		return "function-failed"
	case Timeout:
		return "timeout"
	default:
		return "internal"
	}
}
