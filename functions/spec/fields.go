package spec

import (
	"time"

	"github.com/tatami-faas/tatami/functions"
)

// kind is the type of a field's value as the file writes it.
type kind uint8

const (
	text        kind = iota // *string
	words                   // *[]string
	number                  // *int, *int64 or **int
	size                    // *int64, bytes, written 128Mi
	cpu                     // *int64, millicores, written 250m or 0.25
	duration                // *functions.Duration
	boolean                 // *bool
	pairs                   // *map[string]string
	section                 // fields below
	triggerList             // *[]functions.Trigger
)

// field is one row of the table.
type field struct {
	name string
	kind kind
	// doc is a sentence for the schema.
	doc string
	// at returns a pointer to the value in f; its type follows from kind.
	at func(f *File) any
	// lo and hi bound a number; they repeat what functions.Config.Problems checks, and a test holds them together.
	lo, hi int64
	// unset says that functions.Config keeps a zero for the default. The file may spell it out only where it is in bounds.
	unset bool
	// pattern is a regular expression for the schema.
	pattern string
	// fields are those of a section.
	fields []field
}

const namePattern = `^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`

// table lists every field of tatami.yaml, in the order in which they are written.
func table() []field {
	return []field{
		{name: "name", kind: text, pattern: namePattern, doc: "The function's name.", at: func(f *File) any { return &f.Name }},
		{name: "namespace", kind: text, pattern: namePattern, doc: "The namespace; default: the caller's, else `default`.", at: func(f *File) any { return &f.Namespace }},
		{name: "image", kind: text, doc: "An OCI image reference to run instead of a source.", at: func(f *File) any { return &f.Image }},
		{name: "source", kind: text, doc: "What is deployed, relative to this file: a Go source directory, a static Linux binary, an OCI layout directory, or a tar of an image.", at: func(f *File) any { return &f.Source }},
		{name: "handler", kind: text, doc: "The Go main package to build, relative to source.", at: func(f *File) any { return &f.Handler }},
		{name: "command", kind: words, doc: "Replaces the image's entrypoint and command.", at: func(f *File) any { return &f.Config.Command }},
		{name: "port", kind: number, lo: 1, hi: 65535, doc: "Where the function listens for HTTP; it is told as $PORT.", at: func(f *File) any { return &f.Config.Port }},
		{name: "protocol", kind: text, pattern: "^(http1|h2c)$", doc: "What the function speaks on its port: http1, or h2c, which is HTTP/2 in clear text as gRPC needs it. Default http1.", at: func(f *File) any { return &f.Config.Protocol }},
		{name: "env", kind: pairs, doc: "Environment variables.", at: func(f *File) any { return &f.Config.Env }},
		{name: "egress", kind: text, pattern: "^(none|internet)$", doc: "What an instance may connect to: none, which is nothing but itself, or internet: not its neighbours, the node or private networks. Default none.", at: func(f *File) any { return &f.Config.Egress }},
		{name: "sandbox", kind: text, pattern: "^(container|gvisor)$", doc: "What holds an instance: container, or gvisor, whose own kernel answers its system calls; that takes runsc on the node. Default container.", at: func(f *File) any { return &f.Config.Sandbox }},
		{name: "memory", kind: size, doc: "Memory of one instance, such as 128Mi.", at: func(f *File) any { return &f.Config.Limits.Memory }},
		{name: "cpu", kind: cpu, doc: "CPU of one instance: 250m, 0.25 or 1.", at: func(f *File) any { return &f.Config.Limits.CPU }},
		{name: "ephemeral", kind: size, doc: "Size of the writable layer and /tmp together, held in memory beside `memory`.", at: func(f *File) any { return &f.Config.Limits.Ephemeral }},
		{name: "pids", kind: number, lo: 8, hi: 32768, doc: "Processes and threads of one instance.", at: func(f *File) any { return &f.Config.Limits.PIDs }},
		{name: "timeout", kind: duration, doc: "How long an attempt may take, waiting for an instance included.", at: func(f *File) any { return &f.Config.Timeout }},
		{name: "idleTimeout", kind: duration, doc: "Ends a stream on which no byte moved for so long.", at: func(f *File) any { return &f.Config.IdleTimeout }},
		{name: "concurrency", kind: number, lo: 1, hi: 1000, doc: "Invocations that one instance runs at once.", at: func(f *File) any { return &f.Config.Concurrency }},
		{name: "scale", kind: section, doc: "Bounds of the number of instances, and how it follows the load.", fields: []field{
			{name: "min", kind: number, lo: 0, hi: 10000, doc: "Instances kept running without demand.", at: func(f *File) any { return &f.Config.Scale.Min }},
			{name: "max", kind: number, lo: 1, hi: 10000, doc: "Instances never exceeded.", at: func(f *File) any { return &f.Config.Scale.Max }},
			{name: "keepAlive", kind: duration, doc: "How long an instance stays idle before it is stopped: always, or at least where keepAliveMax is set.", at: func(f *File) any { return &f.Config.Scale.KeepAlive }},
			{name: "keepAliveMax", kind: duration, doc: "Lets the scheduler choose from the function's own idle times: from keepAlive up to this, at most 24h, and an instance is started ahead of a need that comes regularly. Not set where keepAlive alone is: always that.", at: func(f *File) any { return &f.Config.Scale.KeepAliveMax }},
			{name: "freezeAfter", kind: duration, lo: int64(100 * time.Millisecond), hi: int64(24 * time.Hour), unset: true, doc: "How long an instance stays idle before it is frozen, 100ms to 24h: nothing of it runs then until the next request. Default: the node's, 30s.", at: func(f *File) any { return &f.Config.Scale.FreezeAfter }},
			{name: "awake", kind: boolean, doc: "Never freezes idle instances: for a function that works between invocations.", at: func(f *File) any { return &f.Config.Scale.Awake }},
			{name: "initial", kind: number, lo: 0, hi: 10000, doc: "Instances there are at least while the function is in use; it starts from zero with so many.", at: func(f *File) any { return &f.Config.Scale.Initial }},
			{name: "reserved", kind: number, lo: 0, hi: 10000, doc: "Instances kept ready beyond what the load needs, without demand too.", at: func(f *File) any { return &f.Config.Scale.Reserved }},
			{name: "burst", kind: number, lo: 0, hi: 10000, doc: "Invocations more than now that find a free slot at once, while the function is in use.", at: func(f *File) any { return &f.Config.Scale.Burst }},
			{name: "utilization", kind: number, lo: 1, hi: 100, unset: true, doc: "Share of its concurrency, in percent, that steady load puts on an instance. Default 70.", at: func(f *File) any { return &f.Config.Scale.Utilization }},
			{name: "window", kind: duration, lo: int64(6 * time.Second), hi: int64(time.Hour), unset: true, doc: "Time over which the steady load is averaged, 6s to 1h; a tenth of it notices a surge. Default 1m, or keepAlive where that is shorter.", at: func(f *File) any { return &f.Config.Scale.Window }},
			{name: "downDelay", kind: duration, hi: int64(time.Hour), unset: true, doc: "How long fewer instances must have been enough before there are fewer, at most 1h. Default: window, and none to zero.", at: func(f *File) any { return &f.Config.Scale.DownDelay }},
		}},
		{name: "readiness", kind: section, doc: "How an instance is found ready.", fields: []field{
			{name: "path", kind: text, pattern: "^/[^ #]*$", doc: "Fetched with GET until it answers 2xx or 3xx; without it a TCP connection is enough.", at: func(f *File) any { return &f.Config.Readiness.Path }},
			{name: "activation", kind: boolean, doc: "The function takes a listening socket from whoever starts it, by systemd's protocol (LISTEN_FDS), and listens on $PORT itself where it is given none; requests wait in that socket from before its start on. Not with path.", at: func(f *File) any { return &f.Config.Readiness.Activation }},
			{name: "timeout", kind: duration, doc: "How long an instance may take to become ready.", at: func(f *File) any { return &f.Config.Readiness.Timeout }},
		}},
		{name: "queue", kind: section, doc: "How invocations handed over asynchronously are run.", fields: []field{
			{name: "retries", kind: number, lo: 0, hi: 100, doc: "Attempts that follow a failed first one.", at: func(f *File) any { return &f.Config.Queue.Retries }},
			{name: "maxAge", kind: duration, doc: "How long after its acceptance an invocation may still start an attempt.", at: func(f *File) any { return &f.Config.Queue.MaxAge }},
			{name: "maxPending", kind: number, lo: 1, hi: 10_000_000, doc: "How many invocations may wait.", at: func(f *File) any { return &f.Config.Queue.MaxPending }},
			{name: "durability", kind: text, pattern: "^(disk|fast)$", doc: "When an invocation is accepted: disk, when it is on disk, or fast, when the server has it: power loss may then lose what was accepted in the last seconds. Default disk.", at: func(f *File) any { return &f.Config.Queue.Durability }},
			{name: "batch", kind: section, doc: "Hands several invocations to the function in one request.", fields: []field{
				{name: "size", kind: number, lo: 2, hi: 1000, unset: true, doc: "How many at most.", at: func(f *File) any { return &f.Config.Queue.Batch.Size }},
				{name: "format", kind: text, pattern: "^(json|cloudevents)$", doc: "json: an array of requests; cloudevents: a batch of events, application/cloudevents-batch+json. Default json.", at: func(f *File) any { return &f.Config.Queue.Batch.Format }},
				{name: "window", kind: duration, hi: int64(time.Minute), doc: "How long the first one waits for others, at most 1m; without it those are taken that wait already.", at: func(f *File) any { return &f.Config.Queue.Batch.Window }},
			}},
			{name: "keepRequests", kind: boolean, doc: "Keeps the request of an invocation as long as its result, so that it can be replayed.", at: func(f *File) any { return &f.Config.Queue.KeepRequests }},
			destination("onSuccess", "Where the record of an invocation goes that succeeded: one of url, function and subject.", func(f *File) *functions.Destination { return &f.Config.Queue.OnSuccess }),
			destination("onFailure", "Where the record of an invocation goes that is dead or expired: one of url, function and subject.", func(f *File) *functions.Destination { return &f.Config.Queue.OnFailure }),
			{name: "callbacks", kind: section, doc: "Where the record goes, too, if whoever hands the invocation over asks for it with the header Tatami-Callback.", fields: []field{
				{name: "allow", kind: words, doc: "URLs of http or https that may be asked for, and all below their paths; without any, none may.", at: func(f *File) any { return &f.Config.Queue.Callbacks.Allow }},
				secret("Where the server finds the secret that signs what goes there.", func(f *File) *functions.SecretRef { return &f.Config.Queue.Callbacks.Secret }),
			}},
		}},
		{name: "placement", kind: section, doc: "Which nodes the instances run on.", fields: []field{
			{name: "spread", kind: text, pattern: "^(zone|node)$", doc: "Keeps the instances apart: zone, by the nodes' label of that name, or node. Without it they are packed.", at: func(f *File) any { return &f.Config.Placement.Spread }},
			{name: "require", kind: pairs, doc: "Labels that a node must have; several values with commas are alternatives, \"\" is any.", at: func(f *File) any { return &f.Config.Placement.Require }},
			{name: "avoid", kind: pairs, doc: "Labels that a node must not have.", at: func(f *File) any { return &f.Config.Placement.Avoid }},
			{name: "near", kind: words, doc: "Functions of the namespace to be near, by name, or by label as KEY=VALUE: a node that hosts one is preferred where that costs not too much room.", at: func(f *File) any { return &f.Config.Placement.Near }},
			{name: "apart", kind: words, doc: "Functions of the namespace to be apart from, by name, or by label as KEY=VALUE: a node that hosts one is avoided where another has room.", at: func(f *File) any { return &f.Config.Placement.Apart }},
			{name: "prefer", kind: pairs, doc: "Labels that a node should have, where that costs not too much room.", at: func(f *File) any { return &f.Config.Placement.Prefer }},
		}},
		{name: "retrySafe", kind: boolean, doc: "An invocation may be run again, under the same id, when it is not known what came of it: a call with an idempotency key whose answer was lost is made again then.", at: func(f *File) any { return &f.Config.RetrySafe }},
		{name: "triggers", kind: triggerList, doc: "What causes invocations besides calls: each has a name, one source and filters.", at: func(f *File) any { return &f.Triggers }},
		{name: "readOnlyRoot", kind: boolean, doc: "Makes the root filesystem read-only; /tmp stays writable.", at: func(f *File) any { return &f.Config.ReadOnlyRoot }},
		{name: "labels", kind: pairs, doc: "Labels for people and tools, and by which other functions may ask to be near or apart.", at: func(f *File) any { return &f.Config.Labels }},
	}
}

// destination is the section of a destination.
func destination(name, doc string, at func(f *File) *functions.Destination) field {
	return field{name: name, kind: section, doc: doc, fields: []field{
		{name: "url", kind: text, pattern: "^https?://[^@#]+$", doc: "Takes the record with POST.", at: func(f *File) any { return &at(f).URL }},
		secret("Where the server finds the secret that signs what goes to url.", func(f *File) *functions.SecretRef { return &at(f).Secret }),
		{name: "function", kind: text, pattern: namePattern, doc: "A function of the same namespace, invoked with the record through its queue.", at: func(f *File) any { return &at(f).Function }},
		{name: "subject", kind: text, doc: "Where the record is published on the server's NATS, behind dest.NAMESPACE.", at: func(f *File) any { return &at(f).Subject }},
	}}
}

// secret is the section of a secret that signs.
func secret(doc string, at func(f *File) *functions.SecretRef) field {
	return field{name: "secret", kind: section, doc: doc, fields: []field{
		{name: "file", kind: text, doc: "Absolute path of a file with one secret a line; all of them sign.", at: func(f *File) any { return &at(f).File }},
		{name: "env", kind: text, pattern: "^TATAMI_SECRET_", doc: "Environment variable of the server.", at: func(f *File) any { return &at(f).Env }},
	}}
}

// wants says what a value of the kind looks like.
func (k kind) wants() string {
	switch k {
	case text:
		return "a text"
	case words:
		return `a list of words such as ["/app/server", "-v"]`
	case number:
		return "a whole number"
	case size:
		return "a size such as 128Mi"
	case cpu:
		return "a share of CPUs such as 250m, 0.25 or 1"
	case duration:
		return "a duration such as 30s, 5m or 1h30m"
	case boolean:
		return "true or false"
	case triggerList:
		return "a list of triggers such as [{name: orders, event: {}}]"
	case pairs:
		return "a section of names and values"
	default:
		return "a section of fields"
	}
}

// integer reads and writes the three Go types that hold a number.
func integer(at any) (int64, bool) {
	switch p := at.(type) {
	case *int:
		return int64(*p), true
	case *int64:
		return *p, true
	case **int:
		if *p == nil {
			return 0, false
		}
		return int64(**p), true
	case *functions.Duration:
		return int64(*p), true
	}
	return 0, false
}

func setInteger(at any, v int64) {
	switch p := at.(type) {
	case *int:
		*p = int(v)
	case *int64:
		*p = v
	case **int:
		n := int(v)
		*p = &n
	case *functions.Duration:
		*p = functions.Duration(v)
	}
}
