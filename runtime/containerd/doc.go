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
// There is no tier of containers that are made and only have to be started. The OCI runtime fixes a container's root, command, environment and
// instance id when it makes it, so one can be made ahead only for one revision and one instance. What waits for any function is a sandbox of the
// pool; it is ready sooner than such a container would start (10 ms and more for the start alone: `make bench-cold` has it beside ours as
// containerd-start), even where it has to be waited for. Where the revision
// is known beforehand a frozen instance answers in a tenth of that time, and takes less memory than a container with its shim and the
// runtime's init. What is left are the few functions that no sandbox made ahead can take: gVisor's, and images with a link where a mount has to go;
// to keep one of these at hand is what scale.min and the keep-alive are for.
//
// A root that is read-only keeps nosuid and nodev, which the OCI runtime forgets; a program that the kernel refuses is told by Create, which
// the OCI runtime finds out too late for.
//
// Everything of a sandbox carries its id: container, task, cgroup, mounts, files. So whatever a crash leaves half made is found by the
// next start, which removes what has no container; what has one is listed, and goes with Stop.
package containerd
