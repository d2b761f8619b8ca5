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
// Everything of a sandbox carries its id: container, task, cgroup, mounts, files. So whatever a crash leaves half made is found by the
// next start, which removes what has no container; what has one is listed, and goes with Stop.
package containerd
