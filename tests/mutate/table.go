package main

import "slices"

// mutation breaks one promise: in file, old (which is there once) becomes new, and the tests of a package must notice: its short ones, or the one of them
// that is named behind the package and a colon, or of its end-to-end tests the one that is named behind the package and a space. Those of ./tests/e2e run
// the program with the mutation in it.
type mutation struct {
	name           string
	file, old, new string
	tests          string
}

// rows are all mutations.
func rows() []mutation {
	return slices.Concat(mutations, clusters, operators, sandboxes, calls, decisions)
}

var mutations = []mutation{
	{
		"a state that waits for ever",
		"worker/outbox.go", "\tmaps.Copy(b.changed, b.ending)\n", "", "./worker:TestAnEndWaitsForItsNews",
	},
	{
		"a worker that beats though it has just reported",
		"worker/outbox.go", "if silent < bus.BeatEvery {", "if silent < 0 {", "./worker",
	},
	{
		"a worker that reports nothing and takes that for a sign of life",
		"worker/outbox.go", "if silent < bus.BeatEvery {", "if silent < 2*bus.BeatEvery {", "./worker",
	},
	{
		"a server's machine that vanished and is waited for",
		"internal/bus/certificate.go", "\tmissVanished(c)\n", "\t_ = missVanished\n", "./internal/bus",
	},
	{
		"a message that takes the one before with it",
		"internal/bus/message.go", "\t\tat = m.end\n", "", "./internal/bus:TestPublisherSendsWhatWasAdded",
	},
	{
		"a queue that rests and starts attempts",
		"gateway/queue/queue.go", "\tdefer q.mu.Unlock()\n\tq.rest()\n", "\tdefer q.mu.Unlock()\n", "./gateway/queue:TestARestingQueueStartsNothing",
	},
	{
		"a view that stays silent when the server is gone that feeds it",
		"internal/bus/feed.go", "if f.behind > f.shown {", "if false {", "./internal/bus:TestASilentViewIsFedAnew",
	},
	{
		"a server of a cluster that cannot listen, and waits for the others",
		"internal/bus/bus.go", "\tif clustered {\n\t\tif err := CheckFree(", "\tif false {\n\t\tif err := CheckFree(", "./internal/bus:TestAServerThatCannotListenDoesNotWait",
	},
	{
		"a server that waits to be ready though it is to stop",
		"internal/bus/server.go", "\t\tif ctx.Err() != nil {\n\t\t\treturn ctx.Err()\n\t\t}\n\t\tif last", "\t\tif last", "./internal/bus:TestAServerThatCannotListenDoesNotWait",
	},
	{
		"a job whose tasks wait for a token, and nobody is told",
		"scheduler/nomad/jobs/apply.go", "return err == nil && (v == nil || v.Items[item] == \"\")", "return err != nil && v == nil", "./scheduler/nomad/jobs:TestSecrets",
	},
	{
		"workers of one node in one directory",
		"scheduler/nomad/jobs/options.go", "case w.Shared && !ofAllocation(w.DataDir):", "case false:", "./scheduler/nomad/jobs:TestBadOptions",
	},
	{
		"a worker refused by a server that does not know it yet",
		"internal/bus/doorman.go", "if fault.KindOf(err) != fault.Unavailable {", "if true {", "./internal/bus:TestAServerThatWaitsForTheOthersRefusesNobody",
	},
	{
		"a worker that needs a token for ever",
		"cmd/tatami/worker_linux.go", "errors.Is(err, fs.ErrNotExist) && bus.HasJoined(c.DataDir)", "errors.Is(err, fs.ErrNotExist) && !bus.HasJoined(c.DataDir)", "./cmd/tatami:TestAWorkerThatHasJoinedNeedsNoToken",
	},
	{
		"a worker refused since another one joined at another server",
		"internal/bus/roster.go", "if !errors.Is(err, errMeanwhile) {", "if true {", "./internal/bus:TestWorkersJoinAtOnce",
	},
	{
		"a server that has just come and counts as parted",
		"internal/bus/servers.go", "return settled && !slices", "return (settled || true) && !slices", "./internal/bus:TestWhichServersAreThere",
	},
	{
		"a server that could not start and is waited for",
		"internal/bus/server.go", "if last := died(); last != nil {", "if last := died(); last != nil && false {", "./internal/bus:TestAServerThatCannotListenDoesNotWait",
	},
	{
		"a server that is gone and counts as there",
		"internal/bus/servers.go", "now.Sub(h.at) < missedFor", "true", "./internal/bus:TestWhichServersAreThere",
	},
	{
		"a missing server of which nobody is told",
		"gateway/live/verdict.go", "\tp.judgeServers(now, add)\n", "", "./gateway/live:TestVerdict",
	},
	{
		"a cluster that goes on although everything is elsewhere",
		"internal/bus/lead.go", "if c.last != nil && err == nil {", "if false {", "./internal/bus:TestAClusterIsTakenBackToOneServer",
	},
	{
		"a server that starts although everything is elsewhere",
		"internal/bus/bus.go", "\tif err := b.checkMoved(ctx); err != nil {\n\t\treturn err\n\t}\n", "", "./internal/bus:TestAClusterIsTakenBackToOneServer",
	},
	{
		"a cluster taken back without its workers",
		"internal/bus/export.go", "b.authority.writeTo, b.roster.writeTo, ", "b.authority.writeTo, ", "./internal/bus:TestAClusterIsTakenBackToOneServer",
	},
	{
		"a request read as its connection was dismissed, and not answered",
		"gateway/http1/conn.go", "\t\t\tc.takeBack()\n\t\t\tcontinue\n", "\t\t\treturn false\n", "./gateway/http1:TestWhatComesAsItsConnectionEnds",
	},
	{
		"a request that has come before its connection is closed, and not looked for",
		"gateway/http1/conn.go", "err != nil && c.recall()", "false", "./gateway/http1:TestWhatComesAsItsConnectionEnds",
	},
	{
		"a worker that has left for good though its instances stay",
		"worker/worker.go", "w.departed = !leave", "w.departed = true", "./worker:TestARestartAdopts",
	},
	{
		"a node that has left and is placed on",
		"scheduler/state/report.go", "if r.State.Departed {", "if false {", "./scheduler/state:TestANodeThatLeaves",
	},
	{
		"a node that has left and is told to be lost",
		"gateway/api/nodes.go", "case n.Departed:", "case false:", "./gateway/api:TestWhatANodeIs",
	},
	{
		"a 202 before it is on disk",
		"internal/bus/store.go", "b.BarrierThen(func(err error) { done <- err }, streams...)", "done <- nil", "./gateway/queue:TestAFailedSyncStopsTheQueue",
	},
	{
		"a result acknowledged before it is on disk",
		"gateway/queue/finish.go", "if !q.sync(h, streams...) {\n\t\treturn\n\t}", "_ = streams", "./gateway/queue:TestWhatIsNotOnDiskIsNotAcknowledged",
	},
	{
		"a plain result acknowledged before it is on disk",
		"gateway/queue/ending.go", "e.q.bus.BarrierThen(e.synced, e.q.bus.Results().Stream())", "e.synced(nil)", "./gateway/queue:TestWhatIsNotOnDiskIsNotAcknowledged",
	},
	{
		"a retry acknowledged before it is on disk",
		"gateway/queue/finish.go", "if !q.sync(h, bus.StreamInvocations) {\n\t\treturn\n\t}", "", "./gateway/queue:TestWhatIsNotOnDiskIsNotAcknowledged",
	},
	{
		"a schedule that a kill left behind another",
		"gateway/queue/restore.go", "if count > 1 {", "if count > 2 {", "./gateway/queue:TestAKillBetweenAScheduleAndTheEndOfTheOneBefore",
	},
	{
		"an attempt that outlives the end of the process's work",
		"gateway/queue/queue.go", "\tq.endSpans()\n", "", "./gateway/queue:TestADirectAttemptIsCut",
	},
	{
		"an attempt of whose end nobody is told",
		"gateway/queue/span.go", "\tif s.by != nil {\n\t\tgo s.by.Gone()\n\t}\n", "", "./gateway/queue:TestADirectAttemptIsCut",
	},
	{
		"a call that its client may still end is used for another one",
		"gateway/invoke/exchange.go", "alone = !x.watched.Unwatch() && alone", "x.watched.Unwatch()", "./gateway/invoke:TestACallIsUsedAgain",
	},
	{
		"a call that its deadline may still end is used for another one",
		"gateway/invoke/exchange.go", "alone := x.fn.deadlines.remove(&x.expiry) && x.timer", "x.fn.deadlines.remove(&x.expiry)\n\talone := x.timer", "./gateway/invoke:TestACallIsUsedAgain",
	},
	{
		"an answer that is taken for the one before",
		"gateway/http1/incoming.go", "string(b[:n]) == in.last", "bytes.HasPrefix(b, []byte(in.last[:9]))", "./gateway/http1:TestAnswersAlike",
	},
	{
		"an attempt that a request's header names",
		"gateway/invoke/wire.go", "o.attempt != 0 && (k == HeaderInvocationID || k == HeaderAttempt)", "false", "./gateway/invoke:TestRoundTripAs",
	},
	{
		"a terminal record that is not looked for",
		"gateway/queue/attempt.go", "if h.fresh {", "if h.fresh || h.msg != nil {", "./gateway/queue:TestALostAcknowledgementOfARetry",
	},
	{
		"a terminal record that overwrites another",
		"internal/bus/table.go", "nats.Header{jetstream.ExpectedLastSubjSeqHeader: {\"0\"}}", "nats.Header{}", "./gateway/queue:TestTheFirstTerminalRecordStands",
	},
	{
		"one retry too many",
		"gateway/queue/finish.go", "if inv.Attempt > retries {", "if inv.Attempt > retries+1 {", "./gateway/queue:TestWhatFailsIsTriedAgainAndThenDies",
	},
	{
		"a dead invocation without its letter",
		"gateway/queue/finish.go", "dead := rec.State == functions.StateDead", "dead := rec.State == functions.StateDead && rec.Status < 0", "./gateway/queue:TestWhatEndedIsNotRunAgain",
	},
	{
		"an end whose record goes nowhere",
		"gateway/queue/finish.go", "onward, ok := q.handRecordOn(h, inv, rec, first)", "onward, ok := []*functions.Invocation(nil), true\n\t_ = first", "./gateway/queue:TestARecordIsHandedOnAfterACrash",
	},
	{
		"a delivery that is not on disk when its cause is acknowledged",
		"gateway/queue/finish.go", "if len(onward) > 0 {\n\t\tstreams", "if len(onward) > 0 && rec.Status < 0 {\n\t\tstreams", "./gateway/queue:TestWhatIsNotOnDiskIsNotAcknowledged",
	},
	{
		"a delivery that is made again after a crash",
		"gateway/queue/destination.go",
		"\tm.Header[bus.HeaderAttempt] = []string{\"1\"}\n\tknown := false\n\tok = q.insist(h, \"handing the record on\", func(ctx context.Context) error {\n\t\tvar err error\n\t\tif !first {",
		"\tknown := false\n\tok = q.insist(h, \"handing the record on\", func(ctx context.Context) error {\n\t\tvar err error\n\t\tif !first && m == nil {", "./gateway/queue:TestARecordIsHandedOnAfterACrash",
	},
	{
		"destinations in a circle without an end",
		"gateway/queue/attempt.go", "case inv.Hops > functions.MaxHops:", "case inv.Hops > 10*functions.MaxHops:", "./gateway/queue:TestDestinationsInACircleEnd",
	},
	{
		"an instance that goes on with what was cancelled",
		"gateway/queue/cancel.go", "if !gaveUp {", "if gaveUp || s.h != nil {", "./gateway/queue:TestACancelledAttemptThatGoesOnIsStopped",
	},
	{
		"a redrive that runs on what is live",
		"gateway/queue/attempt.go", "ref := q.runsOn(inv); ref != l.ref", "ref := inv.Ref(); ref != l.ref", "./gateway/queue:TestARedriveAgainstARevision",
	},
	{
		"a kept request whose body is gone",
		"gateway/queue/finish.go", "!dead && rec.Request == nil {", "!dead {", "./gateway/queue:TestAReplayComparesAndChangesNothing",
	},
	{
		"a batch of which all is done",
		"gateway/queue/batch.go", "if named {", "if named && resp.StatusCode > 299 {", "./gateway/queue:TestABatchOfEvents",
	},
	{
		"an attempt whose message is not held",
		"gateway/queue/held.go", "_ = q.bus.Conn().Publish(r, inProgress)", "_ = r", "./gateway/queue:TestALongAttemptIsNotDeliveredAgain",
	},
	{
		"a key that is no record before its message",
		"gateway/queue/keyed.go", "q.bus.Keys().Put(ctx, hash, &rec, 0)", "uint64(0), error(nil)", "./gateway/queue:TestACallIsMadeOnceUnderItsKey",
	},
	{
		"a call made again whose outcome is unknown",
		"gateway/queue/once.go", "case !again:", "case !again && cur.State == functions.KeyUnknown:", "./gateway/queue:TestACallThatAKillBrokeOffIsUnknown",
	},
	{
		"power loss: a 202 before it is on disk",
		"internal/bus/store.go", "b.BarrierThen(func(err error) { done <- err }, streams...)", "done <- nil", "./tests/power TestPowerLoss",
	},
	{
		"power loss: a barrier that syncs nothing",
		"internal/bus/barrier.go", "err = s.sync(b.sync)\n", "_ = s\n", "./tests/power TestPowerLoss",
	},
	{
		"power loss: a replaced block whose name is not on disk",
		"internal/bus/barrier.go", "which == \"\" || which != s.files[n]", "n > s.newest", "./tests/power (TestACutAfterABlockWasReplaced|TestACutAfterTheServerRewroteABlock)",
	},
	{
		"power loss: a block that was replaced and is not put back",
		"internal/bus/spares.go", "case os.SameFile(now, had):", "case os.SameFile(now, had) || now != nil:", "./tests/power TestACutAfterTheServerRewroteABlock",
	},
	{
		"power loss: a record's block that is gone before what replaced the record is on disk",
		"internal/bus/spares.go", "if !latest[stream] {", "if !latest[stream] || now == nil {", "./tests/power TestACutWhenARecordReplacedTheLastOfABlock",
	},
	{
		"a second name that goes before what followed is on disk",
		"internal/bus/spares.go", "if s.latest[stream] {", "if s.latest[stream] && s.durable == nil {", "./internal/bus:TestABlockThatIsGoneIsPutBack",
	},
	{
		"a letter that goes before what was made of it is on disk",
		"gateway/queue/redrive.go", "if err := q.bus.Barrier(ctx, bus.StreamInvocations, q.bus.Bodies().Stream()); err != nil {", "if err := ctx.Err(); err != nil {", "./gateway/queue:TestALetterStaysUntilWhatTakesItsPlaceIsOnDisk",
	},
	{
		"a schedule that goes before its message is on disk",
		"gateway/queue/ring.go", "	r.q.bus.BarrierThen(func(err error) {\n\t\tif err != nil {", "	func(then func(error), _ string) { then(nil) }(func(err error) {\n\t\tif err != nil {", "./gateway/queue:TestAScheduleStaysUntilWhatItBroughtIsOnDisk",
	},
	{
		"power loss: a call that did not begin and can never be made",
		"internal/bus/keys.go", "if err == nil || errors.Is(err, jetstream.ErrMsgDeleteUnsuccessful) {", "if errors.Is(err, jetstream.ErrMsgDeleteUnsuccessful) {", "./tests/power TestACutAfterACallThatDidNotBegin",
	},
	{
		"power loss: a letter that was purged and comes back",
		"gateway/queue/redrive.go", "q.bus.BarrierRemovals(ctx, bus.StreamDead)", "q.bus.Barrier(ctx, bus.StreamDead)", "./tests/power TestACutAfterALetterWasPurged",
	},
	{
		"power loss: a terminal record that is not looked for",
		"gateway/queue/attempt.go", "if h.fresh {", "if h.fresh || h.msg != nil {", "./tests/power TestPowerLoss",
	},
	{
		"a barrier that syncs nothing",
		"internal/bus/barrier.go", "err = s.sync(b.sync)", "_ = s", "./internal/bus:TestBarrierSyncsWhatMayBeUnsyncedAndNothingElse",
	},
	{
		"a barrier that shares the sync under way",
		"internal/bus/barrier.go", "\t\tb.next = newBatch()\n\t\tb.mu.Unlock()\n\t\tif len(cur.streams) > 0 {\n\t\t\tcur.err = b.commit(cur)\n\t\t}\n",
		"\t\tb.mu.Unlock()\n\t\tif len(cur.streams) > 0 {\n\t\t\tcur.err = b.commit(cur)\n\t\t}\n\t\tb.mu.Lock()\n\t\tb.next = newBatch()\n\t\tb.mu.Unlock()\n", "./internal/bus:TestBarrierSharesASyncAndComesAfterTheCall",
	},
	{
		"a new directory entry that is not synced",
		"internal/bus/barrier.go", "if !entered {", "if !entered && len(found) == 0 {", "./internal/bus:TestBarrierSyncsWhatMayBeUnsyncedAndNothingElse",
	},
	{
		"a replaced block whose name is not on disk",
		"internal/bus/barrier.go", "which == \"\" || which != s.files[n]", "n > s.newest", "./internal/bus:TestBarrierSyncsTheEntryOfAReplacedBlock",
	},
	{
		"a block that was replaced and is not put back",
		"internal/bus/spares.go", "case os.SameFile(now, had):", "case os.SameFile(now, had) || now != nil:", "./internal/bus:TestAReplacedBlockIsPutBack",
	},
	{
		"silence that is taken for an end",
		"internal/bus/stored.go", "return next, false, ctx.Err()", "return next, false, nil", "./internal/bus:TestSilenceIsNoEnd",
	},
	{
		"a newer schema that is read",
		"internal/bus/identity.go", "if id.Schema > Schema {", "if id.Schema > Schema+1 {", "./internal/bus:TestIdentityIsWrittenOnceAndHeld",
	},
	{
		"a worker that admits beyond its slots",
		"worker/slots.go", "if w&slotsOpen == 0 || w&slotsCount >= s.limit {", "if w&slotsOpen == 0 {", "./worker:TestSlots",
	},
	{
		"an instance stopped while it runs something",
		"worker/slots.go", "\t\tif w&slotsCount != 0 {\n\t\t\treturn false\n\t\t}\n\t\tif s.word.CompareAndSwap(w, slotsEnded) {", "\t\tif s.word.CompareAndSwap(w, slotsEnded) {", "./worker:TestAHeldSlotKeepsItsInstance",
	},
	{
		"a command of an earlier scheduler obeyed",
		"worker/command.go", "old := c.Epoch < w.epoch", "old := c.Epoch < 0", "./worker:TestCommandsMayBeRepeatedAndComeLate",
	},
	{
		"ready without listening",
		"worker/ready.go", "if err := sb.AwaitListening(ctx); err != nil {", "if err := ctx.Err(); err != nil {", "./worker:TestFailuresSayWhy",
	},
	{
		"a lease beyond the slots",
		"gateway/invoke/instance.go", "return i.held >= i.ep.Slots", "return i.held > i.ep.Slots", "./gateway/invoke:TestOrderAndSlots",
	},
	{
		"a connection's headers passed on",
		"gateway/invoke/headers.go", "\"Content-Length\", \"Expect\", \"Host\":\n\t\treturn true", "\"Content-Length\", \"Expect\", \"Host\":\n\t\treturn k != \"Keep-Alive\" && k != \"Te\"", "./gateway/invoke:TestRequestHeaders",
	},
	{
		"a function that speaks for the platform",
		"gateway/invoke/headers.go", "\"Trailer\", \"Transfer-Encoding\", \"Upgrade\":\n\t\treturn true\n\t}\n\treturn strings.HasPrefix(k, ownPrefix)", "\"Trailer\", \"Transfer-Encoding\", \"Upgrade\":\n\t\treturn true\n\t}\n\treturn false", "./gateway/invoke:(TestAnswerPasses|TestH2AnswerPasses)",
	},
	{
		"a function that speaks for the platform, in an ordinary answer",
		"gateway/invoke/answer.go", "return dropResponse(f.Name)", "return f.Name == \"Te\"", "./gateway/invoke:TestAnswerPasses",
	},
	{
		"a quota that does not hold",
		"scheduler/placement/quota.go", "if name := s.quota.Exceeded(s.used, more); name != \"\" {", "if name := s.quota.Exceeded(s.used, more); name == \"-\" {", "./scheduler/placement:TestQuotaRefusalIsNamed",
	},
	{
		"a path that escapes from a layer",
		"functions/build/layer.go", "if depth--; depth < 0 {", "if depth--; depth < -9 {", "./functions/build:TestHostileLayers",
	},
	{
		"a control API without its token",
		"gateway/auth/guard.go", "case !a.hasSession(r):", "case !a.hasSession(r) && r.Host == \"\":", "./gateway/auth:TestAdmission",
	},
	{
		"a client that reads nothing holds its connection",
		"gateway/gateway.go", "WriteByteTimeout: g.cfg.WriteTimeout", "WriteByteTimeout: 0", "./gateway:(TestHostileStreams|TestSlowClients)",
	},
	{
		"headers that may take for ever",
		"gateway/gateway.go", "ReadHeaderTimeout: g.cfg.HeaderTimeout, ", "", "./gateway:TestSlowClients",
	},
	{
		"connections without a bound",
		"gateway/guests.go", "if int(g.count.Load())+g.away() >= g.most && !g.makeRoom(time.Now()) {", "if g.most == 0 {", "./gateway:TestConnectionsAreBounded",
	},
	{
		"programs that gain privileges",
		"runtime/containerd/spec.go", "NoNewPrivileges: true,", "NoNewPrivileges: false,", "./runtime/containerd:TestSpecHolds",
	},
	{
		"capabilities for every function",
		"runtime/containerd/spec.go", "Capabilities:    &specs.LinuxCapabilities{},", "Capabilities:    &specs.LinuxCapabilities{Effective: rootCapabilities()},", "./runtime/containerd:TestSpecHolds",
	},
	{
		"a root of a user namespace that may mount",
		"runtime/containerd/userns.go", "\"CAP_CHOWN\", ", "\"CAP_SYS_ADMIN\", \"CAP_CHOWN\", ", "./runtime/containerd:TestSpecHolds",
	},
	{
		"every system call allowed",
		"runtime/containerd/create.go", "spec.Linux.Seccomp = seccomp.DefaultProfile(spec)", "_ = seccomp.DefaultProfile", "./runtime/containerd:TestSpecHolds",
	},
	{
		"the node's processes in sight",
		"runtime/containerd/spec.go", "{Type: specs.PIDNamespace}, ", "", "./runtime/containerd:TestSpecHolds",
	},
	{
		"the kernel's memory to be read",
		"runtime/containerd/spec.go", "\"/proc/kcore\", ", "", "./runtime/containerd:TestSpecHolds",
	},
	{
		"every device to be used, by the OCI runtime",
		"runtime/containerd/spec.go", "{{Allow: false, Access: \"rwm\"}}", "{{Allow: true, Access: \"rwm\"}}", "./runtime/containerd:TestSpecHolds",
	},
	{
		"every device to be used, on cgroup v2",
		"runtime/containerd/cgroupmake.go", "specs.LinuxDeviceCgroup{Type: \"a\", Major: &all", "specs.LinuxDeviceCgroup{Allow: true, Type: \"a\", Major: &all", "./runtime/containerd:TestDeviceRules",
	},
	{
		"files of processors looked for on cgroup v2",
		"runtime/containerd/cgroupmake.go", "\tif c.v2 {\n\t\treturn nil\n\t}\n\tdir := tree", "\tdir := tree", "./runtime/containerd:TestCgroupV2",
	},
	{
		"ephemeral storage beyond the memory's limit",
		"runtime/containerd/spec.go", "r.Memory.Limit = new(l.Memory + l.Ephemeral)", "r.Memory.Limit = new(l.Memory + 2*l.Ephemeral)", "./runtime/containerd:TestSpecHolds",
	},
	{
		"metadata services within reach",
		"runtime/egress/config.go", "[]netip.Prefix{loopback, linkLocal, carrierGrade, c.Range}", "[]netip.Prefix{loopback, carrierGrade, c.Range}", "./runtime/egress:TestClosed",
	},
	{
		"other instances within reach",
		"runtime/egress/config.go", "if p.Overlaps(c.Range) || p.Overlaps(loopback)", "if p.Overlaps(loopback)", "./runtime/egress:TestConfigValidate",
	},
	{
		"a way out for functions without egress",
		"runtime/containerd/poollinks.go", "s.linked == egress }); i >= 0 || !egress {", "s.linked == egress }); i >= 0 {", "./runtime/containerd:TestLinksGoToEgressOnly",
	},
	{
		"calls by another machine's numbers allowed",
		"runtime/seccomp/compile.go", "program = append(program, instruction{give, 0, 0, errno | uint32(syscall.ENOSYS)})\n\tif len(program)", "program = append(program, instruction{give, 0, 0, allow})\n\tif len(program)", "./runtime/seccomp:TestCompile",
	},
	{
		"a gateway that ends without a word",
		"gateway/gateway.go", "\tfront.Leave()\n", "", "./gateway:TestLeavingIsTold",
	},
	{
		"a connection lost that nobody had taken when the server ended",
		"gateway/http1/server.go", "\t\ts.takeWaiting(ctx)\n", "", "./gateway/http1:TestWhoComesAsTheServerEnds",
	},
	{
		"a lead handed over before its requests are answered",
		"gateway/relay/relay.go", "a.retire(within)", "a.retire(0)", "./gateway/relay:TestAServerRetires",
	},
	{
		"a key that a Nomad node lacks as a label",
		"scheduler/nomad/config.go", "ok && line != MetaLine(key)", "ok", "./cmd/tatami:TestAWorkerInNomad",
	},
	{
		"keys of the node's meta that no worker asks for",
		"scheduler/nomad/jobs/worker.go", "if len(w.NodeMeta) > 0 {", "if len(w.NodeMeta) > 1000 {", "./scheduler/nomad/jobs:TestNodeMeta",
	},
	{
		"a plan that does not say what is lacking",
		"scheduler/nomad/jobs/apply.go", "out.Unplaced, out.Why, out.Warnings = len(answer.FailedTGAllocs) > 0, whyUnplaced(answer.FailedTGAllocs), answer.Warnings", "out.Unplaced, out.Warnings = len(answer.FailedTGAllocs) > 0, answer.Warnings", "./scheduler/nomad/jobs:TestAPlanSaysWhatIsLacking",
	},
	{
		"a stream that three of five servers hold",
		"internal/bus/layout.go", "l.replicated(len(c.Cluster.Peers))", "l.replicated(3)", "./internal/bus:TestAllServersHoldEverything",
	},
	{
		"a stream that stays with the servers that held it",
		"internal/bus/cluster.go", "!c.AllowDirect && c.Replicas == l.replicas()", "!c.AllowDirect", "./internal/bus:TestThreeServersAgree",
	},
	{
		"connections that outlive the authority they began under",
		"internal/bus/authority.go", "\t\tr.atOnce.Store(true)\n", "", "./internal/bus:TestAClusterRotatesItsAuthority",
	},
	{
		"bodies kept beyond the room for them",
		"gateway/relay/repeat.go", "r.claimed.Add(size) <= r.cfg.Room", "r.claimed.Add(size) > 0", "./gateway/relay:TestADeathIsNotTold",
	},
	{
		"a gap for which every worker is asked",
		"gateway/invoke/endpoints.go", "e.wantOf(t.Node)", "e.want()", "./gateway/invoke:TestEndpointTables",
	},
	{
		"a worker that answers for another",
		"worker/worker.go", "return len(node) == 0 || string(node)", "return len(node) >= 0 || string(node)", "./worker:TestWhoIsAsked",
	},
	{
		"an endpoint table that no other gateway is told",
		"worker/outbox.go", "if o.w.cfg.Near != nil && o.w.cfg.Near(&t) {", "if o.w.cfg.Near != nil && (o.w.cfg.Near(&t) || true) {", "./worker:TestNear",
	},
	{
		"a command that reaches no other node",
		"scheduler/scheduler.go", "if s.cfg.Near == nil || !s.cfg.Near(c) {", "if s.cfg.Near == nil || !s.cfg.Near(c) && false {", "./scheduler:TestNear",
	},
	{
		"a demand taken by a scheduler that does not work",
		"scheduler/inputs.go", "if !s.running.Load() {", "if s == nil {", "./scheduler:TestNear",
	},
	{
		"a command taken by a worker that does not work",
		"worker/command.go", "if c.Node != w.cfg.Node || !w.hears.Load() {", "if c.Node != w.cfg.Node {", "./worker:TestNear",
	},
	{
		"room for a body that is never given back",
		"gateway/relay/relay.go", "\tdefer r.release(rep)\n", "", "./gateway/relay:TestADeathIsNotTold",
	},
	{
		"a function that is asked though the kernel tells when it listens",
		"runtime/containerd/listening.go", "if began != nil {", "if false {", "./runtime/containerd:TestToldIsNotAsked",
	},
	{
		"a function that listens and of which nobody is told",
		"runtime/listens/watch.go", "asm.FnGetNetnsCookie.Call(),", "asm.Mov.Imm(asm.R0, 0),", "./runtime/listens TestWatch",
	},
	{
		"a function that listens in a loop and of which all is told",
		"runtime/listens/watch.go", `asm.JEq.Imm(asm.R0, 0, "out"),`, "asm.Mov.Imm(asm.R0, 1),", "./runtime/listens TestNobodyHears",
	},
	{
		"a function that goes on to listen after its start and of which all is told",
		"runtime/listens/watch.go", "_ = w.wanted.Delete(cookie)", "", "./runtime/listens TestNobodyHears",
	},
	{
		"output that is forgotten with a process that ends at once",
		"worker/life.go", "\tin.captured()\n\tfor attempt", "\tfor attempt", "./worker:TestFailuresSayWhy",
	},
	{
		"output asked for before it is captured",
		"worker/access.go", "\t\t\tin.captured()\n", "", "./worker:TestOutputThatIsAskedFor",
	},
	{
		"output of which only the first is written down",
		"runtime/attach/init/keeper.go", "\t\tk.listen(syscall.EPOLL_CTL_MOD, o)\n", "", "./runtime/containerd TestConformanceAttach",
	},
	{
		"processors that sleep at a call's beginning",
		"gateway/http1/conn.go", "\tc.s.cfg.Awake.Touch()\n", "", "./gateway/http1:TestRequestsKeepProcessorsAwake",
	},
	{
		"processors that sleep at a new connection",
		"gateway/http1/server.go", "\t\ts.cfg.Awake.Touch()\n", "", "./gateway/http1:TestRequestsKeepProcessorsAwake",
	},
	{
		"a gateway whose front keeps nobody awake",
		"gateway/gateway.go", ", Awake: g.cfg.Awake,", ",", "./gateway:TestCallsKeepProcessorsAwake",
	},
	{
		"a call over HTTP/2 that keeps nobody awake",
		"gateway/gateway.go", "\tg.cfg.Awake.Touch()\n", "", "./gateway:TestCallsKeepProcessorsAwake",
	},
	{
		"an answer that keeps nobody awake",
		"gateway/invoke/exchange.go", "\t\tx.inv.cfg.Awake.Touch()\n", "", "./gateway/invoke:TestPassingBytesKeepProcessorsAwake",
	},
	{
		"an answer over HTTP/2 that keeps nobody awake",
		"gateway/invoke/h2.go", "\tx.inv.cfg.Awake.Touch()\n", "", "./gateway/invoke:TestPassingBytesKeepProcessorsAwake",
	},
	{
		"an answer's body that keeps nobody awake",
		"gateway/invoke/answer.go", "\t\t\tc.inv.cfg.Awake.Touch()\n", "", "./gateway/invoke:TestPassingBytesKeepProcessorsAwake",
	},
	{
		"a stream that keeps nobody awake",
		"gateway/invoke/exchange.go", "\tx.inv.cfg.Awake.Touch()\n}", "}", "./gateway/invoke:TestBodiesAndUpgradesKeepProcessorsAwake",
	},
	{
		"a call from zero that keeps nobody awake before its start",
		"gateway/invoke/lease.go", "\tinv.cfg.Awake.Expect()\n", "", "./gateway/invoke:TestCallsFromZeroKeepProcessorsAwake",
	},
	{
		"a joined worker that sleeps while bytes pass",
		"worker/listener.go", "\th.awake.Touch()\n", "", "./worker:TestGatewaysKeepProcessorsAwake",
	},
	{
		"a joined worker whose processors nobody keeps awake",
		"cmd/tatami/nodeconfig_linux.go", "FreezeAfter: freezeAfter, Awake: c.keeper,", "FreezeAfter: freezeAfter,", "./cmd/tatami:TestOneKeeperOfProcessors",
	},
	{
		"a server whose processors nobody keeps awake",
		"cmd/tatami/system_linux.go", "DrainTimeout: s.cfg.DrainTimeout, Awake: s.cfg.keeper,", "DrainTimeout: s.cfg.DrainTimeout,", "./cmd/tatami:TestOneKeeperOfProcessors",
	},
	{
		"a start that keeps nobody awake",
		"runtime/containerd/pool.go", "\td.cfg.Awake.Count(1)\n", "", "./runtime/containerd:TestAStartKeepsProcessorsAwake",
	},
	{
		"a start that keeps processors awake for ever",
		"runtime/containerd/pool.go", "\t\t\td.cfg.Awake.Count(-1)\n", "", "./runtime/containerd:TestAStartKeepsProcessorsAwake",
	},
	{
		"a call under way that keeps processors awake",
		"internal/awake/spell.go", "s.state.CompareAndSwap(touched, quiet)", "s.state.Load() == touched", "./internal/awake:TestCalls",
	},
	{
		"processors that are kept awake for each call anew",
		"internal/awake/spell.go", "case quiet, over:", "case over:", "./internal/awake:TestCalls",
	},
	{
		"starts that take more than their share of sleep",
		"internal/awake/starts.go", "now.Sub(s.at)/startShare", "now.Sub(s.at)", "./internal/awake:TestStarts",
	},
	{
		"a start that ends the wish of calls",
		"internal/awake/keeper.go", "want := k.calls.on || ", "want := ", "./internal/awake:TestCalls",
	},
	{
		"many processors awake for a call",
		"internal/awake/choose.go", "m.Processors > mostProcessors", "false", "./internal/awake:TestChoose",
	},
	{
		"processors of a machine of its own awake for a call",
		"internal/awake/choose.go", "case !m.Virtual:", "case false:", "./internal/awake:TestChoose",
	},
	{
		"processors awake for a call where the kernel sees to it",
		"internal/awake/choose.go", "case m.Polls():", "case false:", "./internal/awake:TestChoose",
	},
	{
		"an init that waits with threads that it does not need",
		"runtime/attach/init/main.go", "if why := alone(); why != \"\" {", "if why := \"\"; why != \"\" {", "./runtime/containerd TestWaitsAlone",
	},
}
