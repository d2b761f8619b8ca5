// Package power takes the power from the queue's store: its directory lies on an ext4 image, whose filesystem is shut down under load without its
// journal, so that what was not synced is gone. It takes the store's space, too, as somebody else does who fills the disk.
package power
