// Package attach starts a function in a sandbox that was made ahead of time: late attach.
//
// The first process of such a sandbox, the init of runtime/attach/init, is started by a keeper, sets its sandbox up as it is told, and waits:
//
//	pid, conn, err := keeper.Spawn(ctx, spawn, cgroup)        // in new namespaces; it has done nothing yet
//	err = attach.SetUp(ctx, conn, setup)               // mounts, devices, masked paths, capabilities, no_new_privs, seccomp
//
// What it lacks then is the function. At a start:
//
//	root, err := attach.NewRoot(lower, upper, work, users) // an overlay that is mounted nowhere yet
//	err = root.Points(dirs, files, owner)             // the places onto which the sandbox's own mounts will be moved
//	err = attach.Enter(place, root, hand, begin)      // it becomes the sandbox's root; the old root is gone
//	  attach.Hand(ctx, conn, request)                 // in hand, meanwhile: the init becomes the function's user
//	  unheard = attach.Begin(conn)                    // in begin: the init becomes the function, as pid 1
//	err = attach.Await(ctx, conn, unheard)            // it has
//
// The init has no privilege but to change its user and to give privileges up: all mounting is done from outside, by a thread that enters
// the sandbox's mount namespace and ends there. No name of the function's image is resolved outside of the image: the places are opened
// with openat2, without following any link, before the root is attached; an image that has a link in one of them is refused with ErrPlace.
//
// A sandbox with a user namespace is set up by the node's root, who may mount what that of the namespace may not, and owns its other namespaces;
// the init then starts anew and makes the user namespace before the Go runtime makes threads. Its users are given to it from outside.
//
// Join starts a further process in a sandbox, by the same init. The keeper is the same program again; it outlives this process.
//
// The connection lives as long as this process. A waiting init whose connection ends exits: it serves nobody else.
package attach
