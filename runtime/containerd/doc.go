// Package containerd is the sandbox driver that runs functions as OCI containers through containerd and runc.
//
// By default containerd runs inside this process: its plugins are loaded by us, its client calls them without a socket, and its shim is
// this program again (IsShim, RunShim). What must survive this process (the containers, their shims, their output) is held by the shims,
// whose sockets and state lie at stable paths under Config.RunDir; the next start finds and adopts them there. With Config.Address an
// existing containerd is used instead; nothing else changes.
//
// How a sandbox is made. Prepare brings an artifact's blobs into the content store, unpacks its layers, and keeps one read-only view of
// them for the artifact. Create mounts a tmpfs of the size of the function's ephemeral storage, which holds the overlay's upper layer,
// /tmp and /dev/shm, and hands the overlay to the task as its root: no snapshot is made for a sandbox, and containerd's database is
// written once. The network namespace has a loopback device only; Dial makes its socket inside it and connects from outside.
//
// With Config.SandboxPool a start takes milliseconds: sandboxes made ahead, with an init that waits (runtime/attach), get the function's
// limits, names and root, and the init becomes the function. They are no containers: starting an OCI runtime and a shim for each takes
// twenty times the processor time and ten times the memory. Instead a keeper, one process for all, clones the init into new namespaces; this
// process puts it into its cgroup (cgroupmake.go); and it carries out what the OCI runtime would for the same specification (setup.go),
// the seccomp filter compiled by runtime/seccomp. Tests hold both against each other. Such a sandbox carries an id of its own; a file under
// RunDir, written before anything of the function enters it, says whose it is, so that a later run adopts it as the instance. It is used once.
// One that waits ends with this process. The keeper outlives it, takes the output and notes how processes ended; where the keeper ends, so
// do its sandboxes. Where none is left a start waits for the next one (poolwait.go): to make one takes a tenth of what the way above takes. Where
// none can be made, or the function cannot be put into one, it is made as above. Info says why.
// Part of the pool has links to the internet ready (poollinks.go).
//
// What no sandbox of the pool can take (gVisor's functions, images with a link where a mount has to go, every function of a node without a pool) is
// made by the OCI runtime at its first start, and then ahead of the next ones: a container that only has to be started (precreated.go). The OCI
// runtime fixes a container's root, command, environment and instance id when it makes it. So each is made for one kind of sandbox, which is all of
// a specification but the instance it is for, and its program is the pool's init, which finds in a file what to become when the container is
// started (precreate.go). What waits is the OCI runtime's own process: nothing of the function has run. A container is used once, goes an hour after the last
// start of its kind, with its artifact, or with this process, and none is made while functions start. For a function that the pool can take there
// is none: such a container has to be there for its very revision and takes ten times the memory, and to wait for the next sandbox of an empty pool is
// quicker than to start it.
//
// A root that is read-only keeps nosuid and nodev, which the OCI runtime forgets; a program that the kernel refuses is told by Create, which
// the OCI runtime finds out too late for.
//
// Everything of a sandbox carries its id: container, task, cgroup, mounts, files. So whatever a crash leaves half made is found by the
// next start, which removes what has no container; what has one is listed, and goes with Stop.
package containerd
