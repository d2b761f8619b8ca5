package main

// clusters are the mutations of what holds beyond one machine: who leads, who may join and say what, how calls reach workers, and how many of those there are.
var clusters = []mutation{
	{
		"an epoch that a worker forgets",
		"worker/command.go", "w.epoch = max(w.epoch, c.Epoch)", "w.epoch = max(w.epoch, 0*c.Epoch)", "./worker:TestCommandsMayBeRepeatedAndComeLate",
	},
	{
		"commands without the epoch of who leads",
		"scheduler/scheduler.go", "s.sequence[node], s.cfg.Epoch", "s.sequence[node], bus.Epoch", "./scheduler:TestNear",
	},
	{
		"a lead that is taken from who has it",
		"internal/bus/lead.go", "rev, err := c.kv.Create(ctx, leadKey, c.value, jetstream.KeyTTL(leadTTL))", "rev, err := c.kv.Put(ctx, leadKey, c.value)", "./internal/bus:TestOneServerLeads",
	},
	{
		"a lead that is kept though another one has it",
		"internal/bus/export.go", "\t\tjetstream.ExpectedLastSubjSeqHeader: {strconv.FormatUint(rev, 10)},\n", "\t\t\"X-Before\": {strconv.FormatUint(rev, 10)},\n", "./internal/bus:TestALeadThatIsLostEnds",
	},
	{
		"a lead that outlives its server",
		"internal/bus/export.go", "\t\tjetstream.MsgTTLHeader:              {strconv.Itoa(int(leadTTL / time.Second))},\n", "", "./internal/bus:TestALeadIsRenewedAndGivenBack",
	},
	{
		"a lead that is not given back",
		"internal/bus/lead.go", "if derr := c.kv.Delete(release, leadKey, jetstream.LastRevision(rev)); derr != nil {", "if derr := release.Err(); derr != nil {", "./internal/bus:TestALeadIsRenewedAndGivenBack",
	},
	{
		"a store that stood alone without its way into a cluster",
		"internal/bus/identity.go", "if id.Mode == ModeStandalone && mode == ModeCluster {", "if id.Mode == ModeStandalone && mode == \"\" {", "./internal/bus:TestAClustersDirectoryIsItsOwn",
	},
	{
		"a store that is opened as another kind of server's",
		"internal/bus/identity.go", "if id.Mode != mode {", "if id.Mode != mode && id.Mode == \"\" {", "./internal/bus:TestIdentityIsWrittenOnceAndHeld",
	},
	{
		"a store without a marker that is taken for a new one",
		"internal/bus/identity.go", "filepath.Join(dir, storeDir)); err == nil {", "filepath.Join(dir, storeDir)); err != nil && mode == \"\" {", "./internal/bus:TestIdentityIsWrittenOnceAndHeld",
	},
	{
		"a worker with a wrong token",
		"internal/bus/roster.go", "func(secret string) bool { return equal(a.token, secret) })", "func(string) bool { return a.token != \"\" })", "./internal/bus:TestWhoMayJoin",
	},
	{
		"a token for many workers",
		"internal/bus/token.go", "case !t.Used.IsZero():", "case !t.Used.IsZero() && t.By == \"\":", "./internal/bus:TestATokenIsForOneWorker",
	},
	{
		"a token without an end",
		"internal/bus/token.go", "case !now.Before(t.Expires):", "case !now.Before(t.Expires) && t.Expires.IsZero():", "./internal/bus:TestTokensThatAreGoodForNothing",
	},
	{
		"a token that was revoked, and whose worker is not",
		"internal/bus/token.go", "if out.By != \"\" {", "if out.By == \"-\" {", "./internal/bus:TestARevokedTokenCutsItsWorkerOff",
	},
	{
		"a worker that was removed and comes back by its key",
		"internal/bus/roster.go", "case !m.Removed.IsZero():", "case !m.Removed.IsZero() && m.Key == \"\":", "./internal/bus:TestARemovedWorkerThatStartsFirst",
	},
	{
		"a worker without the key of its node",
		"internal/bus/roster.go", "case m.Key != \"\" && equal(m.Key, a.key):", "case m.Key != \"\":", "./internal/bus:TestANodeIsOneWorker",
	},
	{
		"a worker that reports for another",
		"internal/bus/doorman.go", "Allow: []string{ReportSubject(node), ", "Allow: []string{ReportSubject(\"*\"), ", "./internal/bus:TestAWorkerSaysAndHearsOnlyWhatIsItsOwn",
	},
	{
		"a worker that hears another's commands",
		"internal/bus/doorman.go", "\t\t\tCommandSubject(node), SubjectReportsWanted,", "\t\t\tCommandSubject(\"*\"), SubjectReportsWanted,", "./internal/bus:TestAWorkerSaysAndHearsOnlyWhatIsItsOwn",
	},
	{
		"a worker without a certificate that reports",
		"internal/bus/doorman.go", "if !certified {", "if !certified && node == \"\" {", "./internal/bus:TestCertificatesThatAreRefused",
	},
	{
		"a question whose answer goes to somebody else",
		"internal/bus/desk.go", "if !strings.HasPrefix(m.Reply, inboxOf(node)+\".\") {", "if m.Reply == \"\" {", "./internal/bus:TestAWorkerSaysAndHearsOnlyWhatIsItsOwn",
	},
	{
		"a certificate that has ended, at the door",
		"internal/bus/doorman.go", "own.Trust().Check(s.PeerCertificates, now)", "own.Trust().Check(s.PeerCertificates, s.PeerCertificates[0].NotBefore)", "./internal/bus:TestCertificatesThatAreRefused",
	},
	{
		"a certificate of another worker, at the door",
		"internal/bus/doorman.go", "err = pki.Just(workerSubject(node))(peer)", "err = pki.Only(pki.RoleWorker)(peer)", "./internal/bus:TestCertificatesThatAreRefused",
	},
	{
		"a certificate that has ended, between servers and workers",
		"internal/pki/keeper.go", "\tpeer, err := i.Trust().Check(s.PeerCertificates, time.Now())\n\tif err != nil {", "\tnow := time.Now()\n\tif len(s.PeerCertificates) > 0 {\n\t\tnow = s.PeerCertificates[0].NotBefore\n\t}\n\tpeer, err := i.Trust().Check(s.PeerCertificates, now)\n\tif err != nil {",
		"./internal/pki:TestWhoIsLetIn",
	},
	{
		"a certificate of another authority",
		"internal/pki/trust.go", "err != nil && !t.linked(chain, now) {", "err != nil && now.IsZero() {", "./internal/pki:TestWhoIsLetIn",
	},
	{
		"a worker that is taken for a server",
		"internal/pki/keeper.go", "if s.Role != r {", "if s.Role != r && s.Role == \"\" {", "./internal/pki:TestWhoIsLetIn",
	},
	{
		"a worker that is taken for a server of the cluster",
		"internal/bus/cluster.go", "door.keeper.Mutual(pki.Only(pki.RoleServer), ", "door.keeper.Mutual(func(pki.Subject) error { return nil }, ", "./internal/bus:TestWhoIsNoServerIsRefused",
	},
	{
		"a worker whose refusal is not in the audit log",
		"internal/bus/doorman.go", "\t\td.audit.refused(slogNode(node), remoteOf(c), err)\n\t\treturn false", "\t\treturn false", "./internal/bus:TestATokenIsForOneWorker",
	},
	{
		"a worker whose overreach is not in the audit log",
		"internal/bus/doorman.go", "if node != \"\" {", "if node == \"\" {", "./internal/bus:TestOverreachIsAudited",
	},
	{
		"who is no server, and is not in the audit log",
		"internal/bus/audit.go", "func (a *audit) refusedServer(err error) { a.refused(", "func (a *audit) refusedServer(err error) { (*audit)(nil).refused(", "./internal/bus:TestWhoIsNoServerIsRefused",
	},
	{
		"a node that is not heard of and not lost",
		"scheduler/state/report.go", "n.Missed >= MissedBeats {", "n.Missed >= 100*MissedBeats {", "./scheduler/state:TestASilentNodeLosesItsInstances",
	},
	{
		"an instance that a worker names for another one",
		"scheduler/state/report.go", "if in != nil && in.Node != n.ID {", "if in != nil && in.Node == \"\" {", "./scheduler/state:TestAReportSpeaksForItsOwnNode",
	},
	{
		"a worker that came back and keeps what is too much",
		"scheduler/reconcile/scale.go", "Scale.Max; beyond > 0; beyond--", "Scale.Max; beyond > 1000; beyond--", "./scheduler:TestScripts",
	},
	{
		"requests that go on at a worker that is lost",
		"gateway/invoke/endpoints.go", "\t\te.depart(n, bus.Departure{Instance: id, State: functions.InstanceStopped, Reason: \"its node is out of reach\"}, now)\n", "\t\t_, _ = id, now\n",
		"./gateway/invoke:TestAWorkerIsLost",
	},
	{
		"a worker that leaves before it is empty",
		"scheduler/fleet/fleet.go", "case w.Instances == 0:", "case w.Instances >= 0:", "./scheduler/fleet:TestDecide",
	},
	{
		"a worker that is to leave and is not emptied",
		"scheduler/pool.go", "out[d.Drain] = reconcile.Withdrawal{Empty: true, Why", "out[d.Drain] = reconcile.Withdrawal{Why", "./scheduler:TestThePoolGrowsAndShrinksWithDemand",
	},
	{
		"another worker emptied than the one that Nomad takes away",
		"scheduler/fleet/fleet.go", "workers[i].Index > last.Index {", "workers[i].Index < last.Index {", "./scheduler/fleet:TestDecide",
	},
	{
		"a job scaled that has changed",
		"scheduler/nomad/pool.go", "JobModifyIndex: from.Version,", "JobModifyIndex: 0 * from.Version,", "./scheduler/nomad:TestResize",
	},
	{
		"a token that Nomad refuses, taken for Nomad that is away",
		"scheduler/nomad/errors.go", "case status.StatusCode() == http.StatusForbidden || ", "case ", "./scheduler/nomad:TestWhoMayNot",
	},
	{
		"a deployment that goes on, taken for a bad request",
		"scheduler/nomad/errors.go", " || strings.Contains(body, \"active deployment\"):", ":", "./scheduler/nomad:TestResize",
	},
	{
		"a stream of Nomad's that was closed and is not followed again",
		"scheduler/nomad/pool.go", "\t\tdefer cancel()\n\t\treturn p.stream(", "\t\treturn p.stream(", "./scheduler/nomad:TestWhatTheStreamMissesIsListed",
	},
	{
		"a stand-in for Nomad that lets anybody in",
		"tests/fakenomad/server.go", "case !has(rights, right):", "case token != \"\" && !has(rights, right):", "./tests/fakenomad:TestWhoMayNot",
	},
	{
		"a stand-in for Nomad whose streams begin anew",
		"tests/fakenomad/stream.go", "c.events[next-c.first].Index < from {", "c.events[next-c.first].Index < 0*from {", "./tests/fakenomad:TestStreamsResume",
	},
	{
		"a stand-in for Nomad that scales what is being deployed",
		"tests/fakenomad/job.go", "case c.active(id) != nil:", "case c.active(id) != nil && *req.Count < 0:", "./scheduler/nomad:TestResize",
	},
	{
		"a worker that was removed and is not cut off",
		"internal/bus/roster.go", "\tr.kick(node, key)\n\treturn nil", "\t_ = key\n\treturn nil", "./tests/e2e TestWhoIsNotLetIn",
	},
	{
		"a worker's listener that lets other workers in",
		"internal/bus/certificate.go", "return l.keeper.Admit(pki.Only(pki.RoleServer), refused)", "return l.keeper.Admit(func(pki.Subject) error { return nil }, refused)", "./tests/e2e TestWhoIsNotLetIn",
	},
	{
		"epochs that begin anew with their stream",
		"internal/bus/leadstream.go", "FirstSeq: uint64(now.UnixMilli())", "FirstSeq: 1", "./internal/bus:TestEpochsGrowThroughAnOutage",
	},
	{
		"a server that ends and is to lead",
		"internal/bus/sight.go", "return !s.Parted && !s.Leaving", "return !s.Parted", "./internal/bus:TestAServerThatEndsIsNotToLead",
	},
	{
		"a server that is missed and nobody doubts",
		"internal/bus/sight.go", "\t\tclose(s.doubt)\n", "", "./internal/bus:TestAServerThatIsMissedIsDoubted",
	},
	{
		"a server that ends and waits for what nobody answers",
		"internal/bus/patience.go", "\tw.end()\n\treturn nil", "\tdefer w.end()\n\treturn w.KeyWatcher.Stop()", "./internal/bus:TestAWatchEndsWithoutItsServer",
	},
	{
		"a record of one's own taken for another's while it is on its way",
		"internal/bus/patience.go", "busy(err) || errors.Is(err, errUnderWay) || ", "busy(err) || ", "./internal/bus:TestATryMeetsTheOneBefore",
	},
	{
		"a worker that leaves without a word",
		"worker/worker.go", "\tw.departed = !leave\n", "", "./worker:TestTheEndOfTheWorkerDrains",
	},
	{
		"a worker taken for lost because the gateway stood still",
		"gateway/remote/listening.go", "missed == bus.SessionMissed ||", "true ||", "./gateway/remote:TestListening",
	},
	{
		"a worker of which nothing is heard that is not missed",
		"gateway/remote/listening.go", "missed == bus.SessionMissed ||", "", "./gateway/remote:TestListening",
	},
	{
		"a slot that is kept though the worker did not say that it may be",
		"gateway/remote/holding.go", "h.keep, h.looks = keep, 0", "h.keep, h.looks = true, 0", "./gateway/remote",
	},
	{
		"a slot that is kept and needed by nobody",
		"gateway/remote/holding.go", "n := h.least", "n := 0", "./gateway/remote",
	},
	{
		"a word on keeping slots that never grows old",
		"gateway/remote/holding.go", "h.looks >= wordLooks", "false", "./gateway/remote",
	},
	{
		"a gateway that keeps slots which its worker wants back",
		"gateway/remote/slots.go", "h.recalled()", "_ = h", "./gateway/remote",
	},
	{
		"a call sent to a worker that may be dead",
		"gateway/remote/slots.go", "if s.life.sure() {", "if true {", "./gateway/remote:TestASilentWorkerIsAsked",
	},
	{
		"a tunnel whose answers are no signs of life",
		"gateway/remote/tunnel.go", "\t\tt.life.sign()\n", "", "./gateway/remote:TestAnswersAreSignsOfLife",
	},
	{
		"kept slots of a broken session taken for a caller's",
		"gateway/remote/peer.go", "p.stale[inst] += h.lent", "p.stale[inst] += h.lent + h.kept", "./gateway/remote",
	},
	{
		"an instance that drains and does not ask for the slots that are kept of it",
		"worker/keeping.go", "\tin.slots.close()\n\tw.recall(in)\n", "\tin.slots.close()\n", "./worker:TestKeptSlotsAreRecalled",
	},
	{
		"a full instance that does not ask for the slots that are kept of it",
		"worker/keeping.go", "time.Since(in.born))))\n\tw.recall(in)\n", "time.Since(in.born))))\n", "./worker:TestWhatGatewaysMayKeep",
	},
	{
		"one gateway of several that keeps what others need",
		"worker/keeping.go", "!alone && !in.slots.roomy()", "false", "./worker:TestNoSlotIsKeptThatIsWanted",
	},
	{
		"slots kept of an instance that drains",
		"worker/keeping.go", "in.slots.isOpen() &&", "", "./worker:TestNoSlotIsKeptThatIsWanted",
	},
	{
		"a joined worker that sleeps while it is asked for slots",
		"worker/session.go", "\t\tl.w.cfg.Awake.Touch()\n", "", "./worker:TestGatewaysKeepProcessorsAwake",
	},
	{
		"a joined worker that signs of life keep awake",
		"worker/session.go", "\tcase bus.SlotPing:\n", "\tcase bus.SlotPing:\n\t\tl.w.cfg.Awake.Touch()\n", "./worker:TestGatewaysKeepProcessorsAwake",
	},
	{
		"an epoch that begins anew on one machine",
		"internal/bus/export.go", "id.Epoch = x.epoch + 1", "id.Epoch = 0", "./internal/bus:TestAClusterIsTakenBackToOneServer",
	},
	{
		"a message whose field is there twice and read as if it were not",
		"internal/bus/lean.go", "|| seen&(1<<next) != 0", "|| seen&(1<<next) == 1<<63", "./internal/bus:FuzzLean",
	},
	{
		"a message that goes on behind its end and is read",
		"internal/bus/lean.go", "if l.space(); l.at < len(data) {", "if l.space(); l.at < 0 {", "./internal/bus:FuzzLean",
	},
	{
		"a text of a message that is not UTF-8 and is taken as it is",
		"internal/bus/lean.go", "all < utf8.RuneSelf || utf8.Valid(b)", "all < utf8.RuneSelf || len(b) > 0", "./internal/bus:FuzzLean",
	},
	{
		"a text that is taken for another one",
		"internal/bus/lean.go", "if *place != string(b) {", "if *place == \"\" {", "./internal/bus:TestTextsAreKeptOnce",
	},
	{
		"a message of which every field is written, empty or not",
		"internal/bus/leanwrite.go", "if f.left != nil && f.left(in) {", "if f.left != nil && f.left == nil {", "./internal/bus:TestMessagesAreReadAndWrittenLean",
	},
	{
		"a text that takes an escape and is written without",
		"internal/bus/leanwrite.go", "|| c == '\\\\' || c == '<'", "|| c == '<'", "./internal/bus:TestUnusualMessagesAreWrittenAsEver",
	},
	{
		"messages that are all left to the generic decoder",
		"internal/bus/lean.go", "case t == durationType:\n\t\treturn readDuration", "case t == durationType:\n\t\treturn nil", "./internal/bus:TestMessagesAreReadAndWrittenLean",
	},
	{
		"a worker that speaks for a node by the end of its own name",
		"internal/bus/names.go", "rest == len(head) && subject[:rest] == head", "rest > 0 && len(head) > 0", "./internal/bus:TestOfNode",
	},
}
