// Package autoscale decides how many instances a function should have.
//
// It follows the model of Knative's autoscaler (KPA). The load is the concurrency: slots held and callers without a slot, summed over the
// gateways and averaged over one-second buckets (History). An instance should carry Utilization of its concurrency. The mean over the
// stable window says what steady load needs; the mean over a tenth of it (the panic window) notices a surge. A surge (panic) begins when
// the load needs PanicThreshold times what is ready and ends when it has not for a stable window; in it the number never falls. A decision
// wants at most UpRate times what is ready. It falls to no less than one DownRate-th, and only to what was enough for DownDelay.
// Everything is pure: the time is an argument, and what a decision remembers (Memory) is handed to the next one.
//
// Where it differs from KPA, and why:
//
//   - A level counts at once, besides the means: who waits or runs now must find slots. KPA looks every two seconds and its activator has to
//     poke it from zero; here each demand message is a decision, so a start from zero or a step waits for neither a tick nor a mean. A fall
//     is then slowed in its place: what was wanted within DownDelay (KPA: none, here a stable window) still counts, and there is at most one fall in Step.
//     That keeps no instance that would not stay anyway: an instance is stopped only after its keep-alive, which is rarely shorter.
//   - A mean is over six seconds at least, also while less is known: what lasts shorter is met by the level. KPA averages over the one or
//     two seconds it knows and starts a second instance for a single slow request.
//   - The queue's backlog counts in the level up to what is in flight already: a long queue doubles what is in use with each message
//     rather than taking all there may be at once. KPA knows no queue.
//   - A surge must need PanicThreshold times what is ready before it is rounded up to whole instances. KPA rounds first, so that with one
//     instance any load just above its target is a panic.
//   - On the way down the steady need is taken for a load higher by Hysteresis. KPA goes to and fro by one where the mean lies on the edge.
//   - Gateways hold every request until it has a slot, so no burst needs a detour and KPA's excess burst capacity has nothing to switch.
//     Burst is what users take it for: so many more invocations than now find a free slot at once.
//   - Scale to zero follows the keep-alive alone and then takes all instances at once: nothing ran for that long. KPA's grace covers the
//     time in which its network may still route to the last instance; here a worker refuses to stop an instance that holds a slot.
//   - KPA begins in panic after a restart, since it has forgotten the load. Here an instance is stopped only when it was idle for its
//     keep-alive or that long not needed, which a restart begins anew: there is nothing to protect.
//   - The stable window is no longer than the keep-alive where the function does not set it: a mean must not hold what may go.
//   - Initial is KPA's activation scale; its initial scale has no counterpart, since a deploy waits for one ready instance, or for as
//     many as carry what the revision before carries.
package autoscale
