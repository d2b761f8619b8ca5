package main

import "slices"

const (
	// diffContext is how many equal lines stand around what differs.
	diffContext = 2
	// mostDiffed is how many lines are compared one by one; longer texts are shown one after the other.
	mostDiffed = 2000
)

// diffLines compares two texts: lines only in the first have '-' before them, those only in the second '+'. Equal ones far from these are left out.
func diffLines(a, b []string) []string {
	head := 0
	for head < len(a) && head < len(b) && a[head] == b[head] {
		head++
	}
	tail := 0
	for tail < len(a)-head && tail < len(b)-head && a[len(a)-1-tail] == b[len(b)-1-tail] {
		tail++
	}
	var all []string
	for _, s := range a[:head] {
		all = append(all, "  "+s)
	}
	all = append(all, diffMiddle(a[head:len(a)-tail], b[head:len(b)-tail])...)
	for _, s := range a[len(a)-tail:] {
		all = append(all, "  "+s)
	}
	return nearChanges(all)
}

// diffMiddle finds the longest common subsequence of two texts.
func diffMiddle(a, b []string) []string {
	var out []string
	if len(a) > mostDiffed || len(b) > mostDiffed {
		for _, s := range a {
			out = append(out, "- "+s)
		}
		for _, s := range b {
			out = append(out, "+ "+s)
		}
		return out
	}
	// length[i][j] is that of a[i:] and b[j:].
	length := make([][]int32, len(a)+1)
	for i := range length {
		length[i] = make([]int32, len(b)+1)
	}
	for i, s := range slices.Backward(a) {
		for j, t := range slices.Backward(b) {
			if s == t {
				length[i][j] = length[i+1][j+1] + 1
			} else {
				length[i][j] = max(length[i+1][j], length[i][j+1])
			}
		}
	}
	i, j := 0, 0
	for i < len(a) || j < len(b) {
		switch {
		case i < len(a) && j < len(b) && a[i] == b[j]:
			out = append(out, "  "+a[i])
			i, j = i+1, j+1
		case j == len(b) || i < len(a) && length[i+1][j] >= length[i][j+1]:
			out = append(out, "- "+a[i])
			i++
		default:
			out = append(out, "+ "+b[j])
			j++
		}
	}
	return out
}

// nearChanges leaves out equal lines that are far from every change.
func nearChanges(lines []string) []string {
	near := make([]bool, len(lines))
	for i, s := range lines {
		if s[0] == ' ' {
			continue
		}
		for k := max(i-diffContext, 0); k <= min(i+diffContext, len(lines)-1); k++ {
			near[k] = true
		}
	}
	var out []string
	for i, s := range lines {
		switch {
		case near[i]:
			out = append(out, s)
		case i == 0 || near[i-1]:
			out = append(out, "...")
		}
	}
	return out
}
