package live

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
)

const (
	// maxProblems bounds the list of problems: whoever has more reads the tables.
	maxProblems = 20
	// failingShare and failingLeast are from when on a function counts as failing.
	failingShare = 0.05
	failingLeast = 5
	oldQueue     = time.Minute
)

// judge fills Verdict and Problems: what is wrong, the worst first, each with the command that tells more.
func (p *picture) judge(now time.Time) {
	add := func(level Level, command, format string, args ...any) {
		p.Problems = append(p.Problems, Verdict{level, fmt.Sprintf(format, args...), command})
	}
	if p.Stale != nil {
		add(LevelBad, "tatami status", "The scheduler has not answered for %s; nodes and instances are as they were then.", ago(now, *p.Stale))
	}
	if p.Totals.Nodes == 0 && p.Stale == nil {
		add(LevelBad, "tatami doctor", "No node has reported.")
	}
	p.judgeServers(now, add)
	p.judgeGateways(add)
	for _, n := range p.Nodes {
		switch {
		case n.State == NodeLeft:
		case n.State == NodeLost:
			add(LevelBad, "tatami node show "+word(n.Name), "Node %s has not reported for %s.", n.Name, ago(now, n.LastSeen))
		case n.Memory.Capacity > 0 && float64(n.Memory.Used) > 0.95*float64(n.Memory.Capacity):
			add(LevelWarn, "tatami inst ls", "Node %s uses %.0f %% of its memory.", n.Name, 100*float64(n.Memory.Used)/float64(n.Memory.Capacity))
		}
	}
	for _, f := range p.Functions {
		p.judgeFunction(now, f, add)
	}
	slices.SortStableFunc(p.Problems, func(a, b Verdict) int { return cmp.Compare(rank(b.Level), rank(a.Level)) })
	if more := len(p.Problems) - maxProblems; more > 0 {
		p.Problems = p.Problems[:maxProblems]
		add(LevelWarn, "tatami fn ls", "And %d more.", more)
	}
	if len(p.Problems) > 0 {
		p.Verdict = p.Problems[0]
		return
	}
	t := p.Totals
	if t.Functions == 0 {
		p.Verdict = Verdict{LevelIdle, fmt.Sprintf("Ready. %s, nothing deployed yet.", plural(t.Nodes, "node")), "tatami init hello"}
		return
	}
	var parts []string
	if len(p.Servers) > 0 {
		parts = append(parts, plural(len(p.Servers), "server"))
	}
	parts = append(parts, plural(t.Nodes, "node"), plural(t.Functions, "function"), plural(t.Instances, "instance"))
	switch {
	case t.RPS >= 0.05:
		parts = append(parts, number(t.RPS)+" requests/s")
	default:
		parts = append(parts, "no traffic")
	}
	if t.P99 > 0 {
		parts = append(parts, "p99 "+milliText(t.P99))
	}
	p.Verdict = Verdict{LevelOK, "Healthy. " + strings.Join(parts, ", ") + ".", "tatami status"}
}

// judgeServers tells of servers that are missing, and of those that do not hear each other.
func (p *picture) judgeServers(now time.Time, add func(level Level, command, format string, args ...any)) {
	missing := 0
	for _, s := range p.Servers {
		if !s.Up {
			missing++
		}
	}
	spare := (len(p.Servers)-1)/2 - missing
	for _, s := range p.Servers {
		switch {
		case !s.Up:
			since := "since this one leads"
			if s.Heard != nil {
				since = "for " + ago(now, *s.Heard)
			}
			then := "when one more fails nothing is stored any longer"
			if spare > 0 {
				then = plural(spare, "more server") + " may fail"
			}
			add(LevelWarn, "tatami cluster ls", "Server %s has not been heard %s; %s.", s.Name, since, then)
		case len(s.Misses) > 0:
			add(LevelWarn, "tatami cluster ls", "Server %s does not hear %s.", s.Name, strings.Join(s.Misses, ", "))
		}
	}
}

// judgeGateways tells of servers that are there and do not say what their gateways do.
func (p *picture) judgeGateways(add func(level Level, command, format string, args ...any)) {
	for _, s := range p.Servers {
		if s.Up && s.Gateway == nil && slices.Contains(p.Totals.Without, s.Name) {
			add(LevelWarn, "tatami cluster ls", "Server %s does not tell what its gateway does: the figures are without it.", s.Name)
		}
	}
}

func (p *picture) judgeFunction(now time.Time, f Function, add func(level Level, command, format string, args ...any)) {
	ref := f.ref()
	name := ref.String()
	switch {
	case f.Pending != "" && f.Waiting > 0:
		add(LevelBad, "tatami explain "+word(name), "%s: %s waiting. %s", name, plural(f.Waiting, "invocation"), sentence(f.Pending))
	case f.Pending != "":
		add(LevelWarn, "tatami explain "+word(name), "%s waits: %s", name, strings.TrimSuffix(f.Pending, ".")+".")
	}
	more := p.more[ref]
	if f.ErrorShare >= failingShare && more.lastMinute.errors >= failingLeast {
		level := LevelWarn
		if f.ErrorShare >= 0.5 {
			level = LevelBad
		}
		add(level, "tatami logs "+word(name), "%s fails: %.0f %% of its requests in the last minute.", name, 100*f.ErrorShare)
	}
	if n := more.failedGrown; n > 0 {
		add(LevelWarn, "tatami logs "+word(name), "%s: %s did not get ready within the last 15 minutes.", name, plural(int(n), "instance"))
	}
	if n := more.deadGrown; n > 0 {
		add(LevelWarn, "tatami queue dead "+word(name), "%s: %s within the last 15 minutes.", name, plural(n, "new dead letter"))
	}
	if o := f.Queue.Oldest; o != nil && f.Queue.Pending > 0 && now.Sub(*o) > oldQueue {
		add(LevelWarn, "tatami queue show "+word(name), "%s: the oldest of %s has waited for %s.", name, plural(f.Queue.Pending, "queued invocation"), ago(now, *o))
	}
}

func rank(l Level) int { return slices.Index([]Level{LevelIdle, LevelOK, LevelWarn, LevelBad}, l) }

// word keeps a name from becoming more than one word of a command that people paste into a shell.
func word(name string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-._", r)
	}
	if name != "" && !strings.HasPrefix(name, "-") && strings.IndexFunc(name, func(r rune) bool { return !plain(r) }) < 0 {
		return name
	}
	return "'" + strings.ReplaceAll(name, "'", `'\''`) + "'"
}

func sentence(s string) string {
	s = strings.TrimSpace(s)
	if s != "" && s[0] >= 'a' && s[0] <= 'z' {
		s = strings.ToUpper(s[:1]) + s[1:]
	}
	if s == "" || strings.ContainsAny(s[len(s)-1:], ".!?") {
		return s
	}
	return s + "."
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return humanize.Comma(int64(n)) + " " + noun + "s"
}

func number(v float64) string {
	switch {
	case v >= 10_000:
		return strconv.FormatFloat(v/1000, 'f', 1, 64) + "k"
	case v >= 10:
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
	return strconv.FormatFloat(v, 'f', 1, 64)
}

func milliText(ms float64) string {
	switch {
	case ms >= 10_000:
		return strconv.FormatFloat(ms/1000, 'f', 0, 64) + " s"
	case ms >= 1000:
		return strconv.FormatFloat(ms/1000, 'f', 1, 64) + " s"
	case ms >= 10:
		return strconv.FormatFloat(ms, 'f', 0, 64) + " ms"
	}
	return strconv.FormatFloat(ms, 'f', 1, 64) + " ms"
}

// ago is a time that passed, in the one or two units that matter.
func ago(now, then time.Time) string {
	d := max(0, now.Sub(then))
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", int(d.Hours()))
	}
	return fmt.Sprintf("%d days", int(d.Hours()/24))
}
