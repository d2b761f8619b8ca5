package queue

import (
	"encoding/base64"
	"time"
	"unicode/utf8"

	"github.com/tatami-faas/tatami/functions"
)

// Record is where an invocation stands, as its caller and its destination see it.
type Record struct {
	ID        functions.InvocationID    `json:"id"`
	Namespace string                    `json:"namespace"`
	Function  string                    `json:"function"`
	State     functions.InvocationState `json:"state"`
	// Reason says why a terminal state is not succeeded.
	Reason string `json:"reason,omitempty"`
	// Attempt is the number of the attempt under way or to come.
	Attempt  int                 `json:"attempt,omitempty"`
	Attempts []functions.Attempt `json:"attempts"`
	Accepted time.Time           `json:"accepted,omitzero"`
	Deadline time.Time           `json:"deadline,omitzero"`
	// Started is when the attempt under way began, Next when the one to come is due.
	Started  time.Time `json:"started,omitzero"`
	Next     time.Time `json:"next,omitzero"`
	Finished time.Time `json:"finished,omitzero"`
	// Revision is the one that made the last attempt.
	Revision functions.RevisionID `json:"revision,omitempty"`
	// Status, Headers and Body are the function's last answer.
	Status  int                 `json:"status,omitempty"`
	Headers map[string][]string `json:"headers,omitempty"`
	// Encoding says how Body is written: "utf-8" as it is, or "base64". It is empty where the body is to be fetched at BodyLocation.
	Encoding     string `json:"encoding,omitempty"`
	Body         string `json:"body,omitempty"`
	BodySize     int64  `json:"bodySize,omitempty"`
	BodyLocation string `json:"bodyLocation,omitempty"`
}

// Describe makes the record of an invocation that stands so, with the whole body where that lies in its result.
func Describe(st *Status) *Record {
	v := &Record{
		ID: st.ID, Namespace: st.Ref.Namespace, Function: st.Ref.Name, State: st.State, Attempt: st.Attempt, Attempts: st.Attempts,
		Accepted: st.Accepted, Deadline: st.Deadline, Started: st.Started, Next: st.Next,
	}
	if v.Attempts == nil {
		v.Attempts = []functions.Attempt{}
	}
	if n := len(v.Attempts); n > 0 {
		v.Revision = v.Attempts[n-1].Revision
	}
	rec := st.Result
	if rec == nil {
		return v
	}
	v.Reason, v.Finished, v.Status, v.Headers = rec.Reason, rec.Finished, rec.Status, rec.Header
	if rec.Status == 0 {
		return v
	}
	v.BodySize, v.BodyLocation = int64(len(rec.Body)), "/invocations/"+string(st.ID)+"/body"
	switch {
	case rec.BodyRef != nil:
		v.BodySize = rec.BodyRef.Size
	case utf8.Valid(rec.Body):
		v.Encoding, v.Body = "utf-8", string(rec.Body)
	default:
		v.Encoding, v.Body = "base64", base64.StdEncoding.EncodeToString(rec.Body)
	}
	return v
}
