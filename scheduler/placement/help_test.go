package placement_test

import (
	"slices"
	"testing"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/scheduler/placement"
)

// Every kind of refusal comes with what would help.
func TestEveryRefusalSaysWhatWouldHelp(t *testing.T) {
	t.Parallel()
	const wait = "wait for instances to end, or add a node"
	const never = "ask for less or other labels, or add a node that is large enough: no node could take it even if empty"
	for name, tc := range map[string]struct {
		change func(*placement.Node)
		taken  functions.Resources
		quota  functions.Quota
		want   []string
	}{
		"cpu":       {taken: res(900, 0, 1), want: []string{"lower cpu of the function to 100m, which are free", wait}},
		"memory":    {taken: res(0, 1000, 1), want: []string{"lower memory and ephemeral of the function to 24 MiB together, which are free", wait}},
		"instances": {taken: res(0, 0, 10), want: []string{"start a node's worker with a larger --max-instances: it has cpu and memory for another one", wait}},
		"small":     {change: func(n *placement.Node) { n.Allocatable = res(100, 64, 10) }, want: []string{never}},
		"cordoned":  {change: func(n *placement.Node) { n.Cordoned = true }, want: []string{"tatami node resume n: it is cordoned and has room"}},
		"draining":  {change: func(n *placement.Node) { n.Draining = true }, want: []string{"tatami node resume n: it is being emptied and would have room", wait}},
		"lost": {change: func(n *placement.Node) { n.Lost = true }, want: []string{
			"tatami node show n: it is not heard of and would have room; on it: systemctl status tatami-worker", wait}},
		"unknown": {change: func(n *placement.Node) { n.Known = false }, want: []string{wait}},
		"architecture": {change: func(n *placement.Node) { n.Architecture = "arm64" }, want: []string{
			never, "add a node of architecture amd64, or deploy it built for arm64"}},
		"feature": {change: func(n *placement.Node) {
			n.Lacks = map[functions.Feature]string{functions.FeatureEgress: "no nftables"}
		}, want: []string{
			never, "tatami doctor on a node that lacks it says what to install; or deploy it with sandbox: container and egress: none"}},
		"label wanted": {change: func(n *placement.Node) { n.Labels = map[string]string{"noisy": "no"} }, want: []string{
			never, "start the worker of a node with --label disk=ssd, or take disk out of placement.require"}},
		"label unwanted": {change: func(n *placement.Node) { n.Labels["noisy"] = "yes" }, want: []string{
			never, "add a node without the label noisy, or take it out of placement.avoid"}},
		"quota": {quota: functions.Quota{Namespace: "team", CPU: 100}, want: []string{"tatami quota set team --cpu 200m", "tatami quota show team"}},
	} {
		n := node("n", func(n *placement.Node) {
			n.Labels = map[string]string{"disk": "ssd"}
			if tc.change != nil {
				tc.change(n)
			}
		})
		e := engineOf(n)
		if tc.taken != (functions.Resources{}) {
			take(e, "n", tc.taken)
		}
		e.SetQuota(tc.quota)
		r := placement.Request{
			Resources: res(200, 128, 1), Architecture: "amd64", Namespace: "team", Needs: []functions.Feature{functions.FeatureGVisor, functions.FeatureEgress},
			Affinity: e.Affinity(placement.Term{Key: "disk", Value: "ssd"}, placement.Term{Key: "noisy", Value: "yes", Not: true}),
		}
		x := e.Explain(&r)
		if got := x.Tries(); x.Choice.Placed() || !slices.Equal(got, tc.want) {
			t.Errorf("%s: placed %t, help %q, want %q", name, x.Choice.Placed(), got, tc.want)
		}
	}
}
