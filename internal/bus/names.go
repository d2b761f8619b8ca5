package bus

import (
	"strings"
	"time"

	"github.com/tatami-faas/tatami/functions"
)

// Schema is the schema number of the messages in this package.
const Schema = 1

// Epoch is the scheduler's epoch where there is a single scheduler.
const Epoch uint64 = 1

// Accounts of the embedded server. Every stream and bucket lies in AccountTatami.
const (
	AccountSystem = "SYS"
	AccountTatami = "TATAMI"
)

// Streams.
const (
	// StreamInvocations is the work queue: invocations that wait, and scheduled ones.
	StreamInvocations = "INV"
	// StreamDead holds dead letters.
	StreamDead = "DEAD"
	// StreamKeys holds the records of idempotency keys.
	StreamKeys = "KEYS"
)

// Key-value buckets.
const (
	// BucketFunctions: {namespace}.{name} -> functions.Function.
	BucketFunctions = "functions"
	// BucketRevisions: {namespace}.{name}.{revision} -> functions.Revision.
	BucketRevisions = "revisions"
	// BucketQuotas: {namespace}, functions.QuotaDefaults or functions.QuotaTotal -> functions.Quota.
	BucketQuotas = "quotas"
	// BucketNodes: {node} -> functions.NodeSettings.
	BucketNodes = "nodes"
	// BucketIdleTimes: {namespace}.{name} -> functions.IdleTimes.
	BucketIdleTimes = "idletimes"
	// BucketTriggers: {namespace}.{name} -> functions.Trigger.
	BucketTriggers = "triggers"
	// BucketTriggerStates: {namespace}.{name} -> functions.TriggerState.
	BucketTriggerStates = "triggerstates"
	// BucketLead holds the record of which server of a cluster leads.
	BucketLead = "lead"
	// BucketMembers holds the roster of a cluster's workers.
	BucketMembers = "members"
	// BucketResults: {invocation} -> functions.Result; entries expire.
	BucketResults = "results"
)

// Object-store buckets.
const (
	// ObjectsArtifacts holds OCI blobs by digest.
	ObjectsArtifacts = "artifacts"
	// ObjectsBodies holds bodies of invocations and results that are too large for a message.
	ObjectsBodies = "bodies"
)

// Subjects of the messages between the parts.
const (
	// SubjectDemand: gateway -> scheduler, Demand.
	SubjectDemand = "tatami.demand"
	// SubjectReports matches every worker's reports.
	SubjectReports = "tatami.report.*"
	// SubjectEndpoints matches every worker's endpoint tables.
	SubjectEndpoints = "tatami.endpoints.*"
	// SubjectEndpointsWanted asks the worker whose node the payload names, or every worker where there is none, for its whole endpoint table; the
	// table comes on the worker's own subject.
	SubjectEndpointsWanted = "tatami.wanted.endpoints"
	// SubjectReportsWanted asks every worker for a full report on its own subject. No payload.
	SubjectReportsWanted = "tatami.wanted.reports"
	// SubjectOverview is a request to the scheduler, answered with an Overview.
	SubjectOverview = "tatami.scheduler.overview"
	// SubjectExplain is a request to the scheduler (payload: ExplainRequest), answered with an Explanation.
	SubjectExplain = "tatami.scheduler.explain"
	// SubjectCompact is a request to the scheduler (payload: CompactRequest), answered with a CompactPlan.
	SubjectCompact = "tatami.scheduler.compact"
)

// SubjectCalls matches what NATS clients hand over. Gateways take it as members of the queue group GroupGateways; no stream holds it.
const (
	SubjectCalls  = subjectCall + ".>"
	GroupGateways = "gateways"
)

const (
	subjectCall   = "fn"
	subjectResult = "result"
)

// ParseCall reads whose invocation a message on a subject of SubjectCalls asks for, and which caller does: fn.{namespace}.{name} where a part of
// this process does, with the caller's id behind it where a client does. Whether the names are any is for others to say.
func ParseCall(subject string) (ref functions.Ref, caller string, ok bool) {
	t := strings.Split(subject, ".")
	if len(t) < 3 || len(t) > 4 || t[0] != subjectCall {
		return functions.Ref{}, "", false
	}
	if len(t) == 4 {
		caller = t[3]
	}
	return functions.Ref{Namespace: t[1], Name: t[2]}, caller, true
}

// ResultSubject is where a caller is told the end of an invocation of its; the caller itself hears it on result.{id}.
func ResultSubject(id functions.InvocationID, caller string) string {
	return subjectResult + "." + string(id) + "." + caller
}

// CommandSubject is where the worker of a node takes commands.
func CommandSubject(node functions.NodeID) string { return "tatami.command." + string(node) }

// ReportSubject is where the worker of a node reports.
func ReportSubject(node functions.NodeID) string { return "tatami.report." + string(node) }

// OfNode reports whether a subject that a pattern matches is a node's own: the node's id stands where the pattern ends with a star.
func OfNode(subject, pattern string, node functions.NodeID) bool {
	head, rest := pattern[:len(pattern)-1], len(subject)-len(node)
	return rest == len(head) && subject[:rest] == head && subject[rest:] == string(node)
}

// ListenSubject is where the scheduler of a run of a server tells itself that it listens to the reports. No payload.
func ListenSubject(boot string) string { return "tatami.report." + boot }

// BeatEvery is the longest time between two signs of life of a worker, which are its reports, and the time between two of the scheduler's own on its
// ListenSubject.
const BeatEvery = 400 * time.Millisecond

// EndpointsSubject is where the worker of a node publishes its endpoint table.
func EndpointsSubject(node functions.NodeID) string { return "tatami.endpoints." + string(node) }

// SupplySubject is where the worker of a node asks for what it needs of the store: a SupplyRequest. The answer goes to its own inbox only.
func SupplySubject(node functions.NodeID) string { return "tatami.supply." + string(node) }

// CertifySubject is where the worker of a node asks for its certificate: a CertificateRequest. The answer goes to its own inbox only.
func CertifySubject(node functions.NodeID) string { return "tatami.certify." + string(node) }

// SubjectCertificatesWanted asks every worker and server for its Standing. Payload: CertificatesWanted.
const SubjectCertificatesWanted = "tatami.wanted.certificates"

// StandingSubject is where the worker of a node, or the server of a name, says which certificate it has: a Standing.
func StandingSubject(who string) string { return "tatami.standing." + who }

// subjectStanding matches what everybody says of its certificate.
const subjectStanding = "tatami.standing.*"

// subjectCertify matches every worker's requests for certificates.
const subjectCertify = "tatami.certify.*"

// queueDesk has one of the servers of a cluster answer a worker's question.
const queueDesk = "desk"

// subjectSupply matches every worker's questions.
const subjectSupply = "tatami.supply.*"

// inboxOf is the first part of the subjects on which the worker of a node gets answers.
func inboxOf(node functions.NodeID) string { return "_INBOX_" + string(node) }

// Subjects of StreamInvocations, StreamDead and StreamKeys.
const (
	subjectInvocations = "inv"
	subjectScheduled   = "sched"
	subjectDead        = "dead"
	subjectKeys        = "key"
)

// InvocationSubject is where a waiting invocation lies; it follows from the id. False where id is no invocation's id.
func InvocationSubject(id functions.InvocationID) (string, bool) {
	return subjectOf(subjectInvocations, id)
}

// ScheduledSubject is where the schedule of an invocation that waits for its time lies.
func ScheduledSubject(id functions.InvocationID) (string, bool) {
	return subjectOf(subjectScheduled, id)
}

// DeadSubject is where the dead letter of an invocation lies.
func DeadSubject(id functions.InvocationID) (string, bool) { return subjectOf(subjectDead, id) }

// KeySubject is where the record of an idempotency key lies; hash is the key's.
func KeySubject(hash string) string { return subjectKeys + "." + hash }

// FunctionInvocations matches the waiting invocations of a function, FunctionScheduled those that wait for their time,
// FunctionDead its dead letters.
func FunctionInvocations(r functions.Ref) string { return subjectInvocations + "." + r.Hash() + ".*" }

// FunctionScheduled matches the scheduled invocations of a function.
func FunctionScheduled(r functions.Ref) string { return subjectScheduled + "." + r.Hash() + ".*" }

// FunctionDead matches the dead letters of a function.
func FunctionDead(r functions.Ref) string { return subjectDead + "." + r.Hash() + ".*" }

// ConsumerName is the durable consumer of a function's waiting invocations.
func ConsumerName(r functions.Ref) string { return "fn_" + r.Hash() }

func subjectOf(class string, id functions.InvocationID) (string, bool) {
	hash, ok := id.FunctionHash()
	if !ok {
		return "", false
	}
	return class + "." + hash + "." + string(id), true
}

// DestinationSubject is where the records of ended invocations of a namespace are published whose destination is a subject.
func DestinationSubject(namespace, subject string) string {
	return subjectDestination + "." + namespace + "." + subject
}

const subjectDestination = "dest"

// FunctionKey is a function's key in BucketFunctions.
func FunctionKey(r functions.Ref) string { return r.Namespace + "." + r.Name }

// RevisionKey is a revision's key in BucketRevisions.
func RevisionKey(r functions.Ref, id functions.RevisionID) string {
	return r.Namespace + "." + r.Name + "." + string(id)
}

// RevisionsOf matches the keys of a function's revisions.
func RevisionsOf(r functions.Ref) string { return r.Namespace + "." + r.Name + ".*" }

// QuotaKey is a namespace's key in BucketQuotas.
func QuotaKey(namespace string) string { return namespace }

// TriggerKey is a trigger's key in BucketTriggers and BucketTriggerStates, by its own name.
func TriggerKey(id functions.Ref) string { return id.Namespace + "." + id.Name }

// TriggersIn matches the keys of a namespace's triggers.
func TriggersIn(namespace string) string { return namespace + ".*" }

// NodeKey is a node's key in BucketNodes.
func NodeKey(node functions.NodeID) string { return string(node) }

// ResultKey is an invocation's key in BucketResults.
func ResultKey(id functions.InvocationID) string { return string(id) }

// ArtifactObject is the name of a blob in ObjectsArtifacts: its digest.
func ArtifactObject(digest string) string { return digest }

// BodyObject is the name of an invocation's body in ObjectsBodies; kind is "request" or "response".
func BodyObject(id functions.InvocationID, kind string) string { return string(id) + "/" + kind }

// Headers of stored messages.
const (
	// HeaderAttempt carries the number of the attempt to be made, as in the record.
	HeaderAttempt = "Tatami-Attempt"
	// HeaderOrder carries a hash of the ordering key, where the invocation has one.
	HeaderOrder = "Tatami-Order"
	// HeaderSchedule and HeaderScheduleTarget are the server's own names for a message published at a time.
	// HeaderDue carries when a scheduled message is due: the server is told a later time, in case nobody else delivers it.
	HeaderDue            = "Tatami-Due"
	HeaderSchedule       = "Nats-Schedule"
	HeaderScheduleTarget = "Nats-Schedule-Target"
)
