package main

// sandboxes are the mutations of what holds a function in its sandbox, and of what starts, freezes and watches it.
var sandboxes = []mutation{
	{
		"a sandbox that is used twice",
		"runtime/containerd/pool.go", "\tp.idle = slices.Delete(p.idle, i, i+1)\n\tp.mu.Unlock()\n\t// One that has ended", "\tp.mu.Unlock()\n\t// One that has ended", "./runtime/containerd:TestLinksGoToEgressOnly",
	},
	{
		"a container made ahead that is used twice",
		"runtime/containerd/precreated.go", "k.waits, k.wanted = nil, time.Now()", "k.wanted = time.Now()", "./runtime/containerd:TestContainersMadeAheadAreBounded",
	},
	{
		"a container made ahead for another environment",
		"runtime/containerd/precreated.go", "s.Env[i] = strings.ReplaceAll(e, id, \"\")", "s.Env[i] = strings.ReplaceAll(\"\", e, id)", "./runtime/containerd:TestKindsOfContainersMadeAhead",
	},
	{
		"containers made ahead without a bound",
		"runtime/containerd/precreated.go", "old := len(kept) == p.most ||", "old := len(kept) < 0 ||", "./runtime/containerd:TestContainersMadeAheadAreBounded",
	},
	{
		"a container that waits for a function that is deleted",
		"worker/artifacts.go", "\t\t\ta.driver.Release(digest)\n", "", "./worker:TestArtifactsThatNobodyNeedsGo",
	},
	{
		"made ahead: a container's words left for the function",
		"runtime/attach/init/start.go", "[]string{path, wire.StartProgram}", "[]string{wire.StartProgram}", "./runtime/containerd TestPrecreatedViews$",
	},
	{
		"made ahead: a container that survives a crash",
		"runtime/containerd/adopt.go", "if c.Labels[labelPrecreated] != \"\" {", "if c.Labels[labelPrecreated] == \"-\" {", "./runtime/containerd TestPrecreatedKilled",
	},
	{
		"made ahead: a container that gives way for good",
		"runtime/containerd/precreate.go", "share := &specs.LinuxCPU{Shares: spec.Linux.Resources.CPU.Shares}", "share := &specs.LinuxCPU{}", "./runtime/containerd TestPrecreatedGivesWay",
	},
	{
		"made ahead: a container's shim that gives way for good",
		"runtime/containerd/create.go", "if p.low && shim != 0 {", "if p.low && shim < 0 {", "./runtime/containerd TestPrecreatedGivesWay",
	},
	{
		"made ahead: a container that does not give way",
		"runtime/containerd/create.go", "d.startShim(id, p.low)", "d.startShim(id, false)", "./runtime/containerd TestPrecreatedGivesWay",
	},
	{
		"made ahead: a container without its socket",
		"runtime/attach/init/start.go", "if w.Request.Listen != 0 {", "if w.Request.Listen > 1<<16 {", "./runtime/containerd TestConformancePrecreated$/^Activation",
	},
	{
		"a process of gVisor's that goes on when it is given up",
		"runtime/containerd/exec.go", "b.killGuest(ctx, execID) == nil", "ctx.Err() == nil", "./runtime/containerd TestConformancePrecreatedGVisor$/^Exec",
	},
	{
		"a file of the node read for an image's users",
		"runtime/containerd/user.go", "Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS", "Resolve: 0", "./runtime/containerd:TestReadInRoot",
	},
	{
		"the node's root for an image that names root by another name",
		"runtime/containerd/user.go", "if u.Uid == 0 && d.noRoot != \"\" {", "if u.Uid == 0 && d.noRoot == \"-\" {", "./runtime/containerd:TestResolveUser",
	},
	{
		"a layer's file beside the layer",
		"runtime/containerd/unpack.go", "if h.Typeflag == tar.TypeLink {", "if h.Typeflag == tar.TypeLink && h.Name == \"\" {", "./runtime/containerd:TestContained",
	},
	{
		"more of the processors than the limit for good",
		"runtime/containerd/boost.go", "err := b.d.cgroup.limit(b.sid, &specs.LinuxResources{CPU: b.limit})", "err := b.d.ctx.Err()", "./runtime/containerd:TestBoostEnds",
	},
	{
		"frozen before it stands still, on cgroup v2",
		"runtime/containerd/freezer.go", "err != nil || now[\"frozen\"] == 1", "err != nil || now[\"frozen\"] < 2", "./runtime/containerd:TestFreezeV2",
	},
	{
		"memory that is not asked back",
		"runtime/containerd/freezer.go", "strconv.FormatInt(before, 10)", "strconv.FormatInt(0*before, 10)", "./runtime/containerd:TestFreezeV2",
	},
	{
		"an instance frozen while it runs something",
		"worker/slots.go", "return s.word.CompareAndSwap(slotsOpen, slotsOpen|slotsFrozen)", "return s.word.Load()&slotsOpen != 0 && s.word.Or(slotsFrozen)&slotsFrozen == 0", "./worker:TestSlotsOfAFrozenInstance",
	},
	{
		"a request for an instance that stays frozen",
		"worker/slots.go", "return true, w&slotsFrozen != 0", "return true, false", "./worker:TestSlotsOfAFrozenInstance",
	},
	{
		"an instance frozen under whoever looks into it",
		"worker/frost.go", "if f.pins > 0 || !in.slots.freeze() {", "if !in.slots.freeze() {", "./worker:TestNotFrozenUnderAProcess",
	},
	{
		"a socket that nobody reads from taken for a server",
		"worker/ready.go", "if in.revision.State == functions.RevisionReady {", "if in.revision.State != \"\" {", "./worker:TestActivation",
	},
	{
		"ready while the readiness path says no",
		"worker/ready.go", "resp.StatusCode < 200 || resp.StatusCode >= 400", "resp.StatusCode < 200", "./worker:TestFailuresSayWhy",
	},
	{
		"an artifact forgotten that an instance is made of",
		"worker/artifacts.go", "slices.Contains(named, digest) || a.held[digest] > 0", "slices.Contains(named, digest)", "./worker:TestArtifactsThatNobodyNeedsGo",
	},
	{
		"an artifact made ready nowhere ahead",
		"scheduler/reconcile/prefetch.go", "const prefetched = 2", "const prefetched = 0", "./scheduler/reconcile:TestPrefetchOnDeploy",
	},
	{
		"logs without a bound",
		"worker/logs/store.go", "if s.f != nil && s.size+int64(s.buf.Len()) > s.bound {", "if s.f != nil && s.bound < 0 {", "./worker/logs:TestRotationKeepsTheNewest",
	},
	{
		"made ahead: every system call allowed",
		"runtime/attach/init/privileges.go", "if len(s.Filter) == 0 {", "if len(s.Filter) >= 0 {", "./runtime/containerd TestAttachViews",
	},
	{
		"made ahead: a capability that can be had again",
		"runtime/attach/init/privileges.go", "if gone&(1<<c) == 0 {", "if gone&(1<<c) == 0 || c == 21 {", "./runtime/containerd TestAttachViews",
	},
	{
		"made ahead: a name looked up while the old root lies on the new one",
		"runtime/attach/init/main.go", "if r.Cwd != \"/\" {", "if r.Cwd == \"\" {", "./runtime/containerd TestAttachViews",
	},
	{
		"made ahead: one that waits taken for a function after a crash",
		"runtime/attach/program.go", "strings.HasPrefix(file, \"/memfd:\"+programName)", "strings.HasPrefix(file, \"/memfd:/\"+programName)", "./runtime/attach:TestIsInit",
	},
	{
		"made ahead: begun without a word",
		"runtime/attach/send.go", "\t_, unheard = conn.Write([]byte{wire.Begin})\n", "", "./runtime/attach:TestBegin",
	},
	{
		"made ahead: the platform's open files",
		"runtime/attach/init/main.go", "\tcloseFrom(control+1, lastFile)\n", "", "./runtime/containerd TestStrayDirectory",
	},
	{
		"made ahead: the kernel's memory to be read",
		"runtime/containerd/setup.go", "for _, p := range spec.Linux.MaskedPaths {", "for _, p := range spec.Linux.MaskedPaths[1:] {", "./runtime/containerd TestAttachViews",
	},
	{
		"made ahead: the kernel's settings to be written",
		"runtime/containerd/setup.go", "for _, p := range spec.Linux.ReadonlyPaths {", "for _, p := range spec.Linux.ReadonlyPaths[1:] {", "./runtime/containerd TestAttachViews",
	},
	{
		"made ahead: the node's cgroups in sight",
		"runtime/containerd/setup.go", "\t\t{Op: wire.OpUnshare, Number: unix.CLONE_NEWCGROUP},\n", "", "./runtime/containerd TestAttachViews",
	},
	{
		"made ahead: limits of a process that are not set",
		"runtime/containerd/setup.go", "for _, l := range p.Rlimits {", "for _, l := range p.Rlimits[:1] {", "./runtime/containerd TestAttachViews",
	},
	{
		"made ahead: devices in the function's root",
		"runtime/attach/root.go", "unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV", "unix.MOUNT_ATTR_NOSUID", "./runtime/containerd TestAttachViews",
	},
	{
		"made ahead: limits of the node that are not written",
		"runtime/containerd/attach.go", "if err := d.cgroup.limit(b.sid, resources); err != nil {", "if err := d.cgroup.limit(b.sid, &specs.LinuxResources{CPU: resources.CPU}); err != nil {", "./runtime/containerd TestAttachViews",
	},
	{
		"made ahead: a root that can be written after all",
		"runtime/attach/enter.go", "if s.ReadOnly {", "if s.ReadOnly && s.Cwd == \"\" {", "./runtime/containerd TestAttachViews",
	},
	{
		"made ahead: a mount that follows the image's link",
		"runtime/attach/root.go", "Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_SYMLINKS,", "Flags: unix.O_PATH | unix.O_CLOEXEC,", "./runtime/containerd TestEscapeAttach",
	},
}
