// Package egress connects sandboxes to the internet, and to nothing else.
//
//	n, err := egress.New(cfg, log)       // touches nothing
//	err = n.Adopt(known)                 // takes over the links of an earlier run
//	err = n.Plug(owner, netns)           // the sandbox gets eth0, an address and a default route
//	text, err := n.ResolvConf()          // for the sandbox's /etc/resolv.conf
//	err = n.Unplug(owner)                // the link and its address are free again
//	n.Close()
//
// A link is a pair of virtual Ethernet devices with a network of two addresses. It is made with its inner end in the sandbox's network
// namespace already: that takes a millisecond, where moving a device made ahead into it waits 13 ms for the kernel. Deleting one waits
// as long, so it belongs to the sandbox's removal.
//
// What may pass is said by one nftables table of our own, which matches our devices by their names: a sandbox opens connections to
// addresses of the internet, to the nameservers at port 53 and to what Config.Allow names. It reaches no other sandbox, no address of the
// host, no private network and no link-local address, where clouds keep their metadata. Nothing opens a connection to it. There is no IPv6.
//
// Of the host's own settings one is changed, and only where the host does not forward packets already: forwarding is switched on for the
// devices that lead to the internet, while the table drops there whatever is not a sandbox's. Nothing is set up before the first Plug, and
// when the last link is gone Close puts everything back. The kernel is the only registry: a link's owner is its alias, its address is in its
// name, and a block of addresses is held by an abstract socket, so after a kill nothing has to be repaired but what Adopt finds unowned.
package egress
