// Package fleet decides how many workers a pool should have, and which one leaves.
//
// What has no room is packed, the largest first, into what workers have left, those that are still to come counted in; what is left over says
// how many more are wanted. One is given up at a time: the last one, by its index, because the pool takes that one away; only if everything on it
// fits elsewhere with room to spare, nothing has lacked room for a while and the number has stood as long. It is drained first, and taken away once it
// is empty; the drain is called off when something lacks room, or when it takes too long.
//
// Why it does not go to and fro: who comes is counted from the moment it is wanted, so that demand is answered once; and a worker leaves only where the
// rest keeps Spare of its room free after that, so that the demand that let it go does not call it back. Everything is pure: the time is an argument,
// and what a decision remembers (Memory) is handed to the next one.
package fleet
