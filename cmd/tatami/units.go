package main

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/tatami-faas/tatami/functions"
)

// size writes bytes for people, in binary units.
func size(n int64) string {
	switch {
	case n >= functions.GiB:
		return trimZero(float64(n)/float64(functions.GiB)) + " GiB"
	case n >= functions.MiB:
		return trimZero(float64(n)/float64(functions.MiB)) + " MiB"
	case n >= functions.KiB:
		return trimZero(float64(n)/float64(functions.KiB)) + " KiB"
	}
	return fmt.Sprintf("%d B", n)
}

func trimZero(f float64) string { return strings.TrimSuffix(strconv.FormatFloat(f, 'f', 1, 64), ".0") }

// cores writes millicores as tatami.yaml does.
func cores(milli int64) string {
	if milli%1000 == 0 {
		return strconv.FormatInt(milli/1000, 10)
	}
	return fmt.Sprintf("%dm", milli)
}

// bound writes a bound of a quota.
func bound(n int64, format func(int64) string) string {
	if n == 0 {
		return "–"
	}
	return format(n)
}

func count(n int64) string { return strconv.FormatInt(n, 10) }

// many writes a number of things.
func many[N int | int64](n N, thing string) string {
	if n != 1 {
		thing += "s"
	}
	return fmt.Sprintf("%d %s", n, thing)
}

// age writes how long ago a time was.
func age(now, t time.Time) string {
	if t.IsZero() {
		return "–"
	}
	d := max(now.Sub(t), 0)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

// brief writes a duration with three digits at most.
func brief(d time.Duration) string {
	switch {
	case d == 0:
		return "–"
	case d >= 100*time.Second:
		return d.Round(time.Second).String()
	case d >= time.Second:
		return trimZero(d.Seconds()) + "s"
	case d >= 10*time.Millisecond:
		return fmt.Sprintf("%dms", d.Round(time.Millisecond).Milliseconds())
	case d >= time.Millisecond:
		return trimZero(float64(d.Microseconds())/1000) + "ms"
	}
	return fmt.Sprintf("%dµs", d.Microseconds())
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Local().Format("2006-01-02 15:04:05 MST")
}

func rate(f float64) string {
	if f == 0 {
		return "0"
	}
	if f < 10 {
		return trimZero(math.Round(f*10) / 10)
	}
	return strconv.FormatFloat(f, 'f', 0, 64)
}

func percent(part, whole uint64) string {
	if whole == 0 {
		return "–"
	}
	return strconv.FormatFloat(100*float64(part)/float64(whole), 'f', 1, 64) + "%"
}

var errSize = errors.New("want bytes in Ki, Mi, Gi or Ti, such as 512Mi")

// readSize reads 512Mi, 1.5Gi.
func readSize(v string) (int64, error) {
	digits, factor := "", 0.0
	for unit, f := range map[string]int64{"Ki": functions.KiB, "Mi": functions.MiB, "Gi": functions.GiB, "Ti": 1024 * functions.GiB} {
		if d, ok := strings.CutSuffix(strings.TrimSuffix(v, "B"), unit); ok {
			digits, factor = d, float64(f)
		}
	}
	n, err := strconv.ParseFloat(digits, 64)
	if err != nil || !(n >= 0 && n*factor <= 1<<60) { // NaN is neither
		return 0, errSize
	}
	return int64(n * factor), nil
}

var errCPU = errors.New("want cores or millicores, such as 1.5 or 1500m")

// readCPU reads 250m, 0.25, 4.
func readCPU(v string) (int64, error) {
	digits, factor := v, 1000.0
	if d, ok := strings.CutSuffix(v, "m"); ok {
		digits, factor = d, 1
	}
	n, err := strconv.ParseFloat(digits, 64)
	if err != nil || !(n >= 0 && n <= 1e9) {
		return 0, errCPU
	}
	return int64(math.Round(n * factor)), nil
}
