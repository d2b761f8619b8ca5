package spec

import (
	"fmt"
	"math/big"
	"strings"
	"time"
)

// longest is the longest number that is looked at; it keeps the exact arithmetic below small.
const longest = 40

// unitError says what is wrong with a number and what was probably meant.
type unitError struct{ message, meant string }

func (e *unitError) Error() string {
	if e.meant == "" {
		return e.message
	}
	return fmt.Sprintf("%s; did you mean %s?", e.message, e.meant)
}

// split cuts the unit off a number: digits with at most one dot, then anything.
func split(s string) (num *big.Rat, digits, unit string, ok bool) {
	if len(s) > longest {
		return nil, "", "", false
	}
	end := strings.IndexFunc(s, func(r rune) bool { return (r < '0' || r > '9') && r != '.' })
	if end < 0 {
		end = len(s)
	}
	digits = s[:end]
	if strings.Count(digits, ".") > 1 || strings.Trim(digits, ".") == "" {
		return nil, "", "", false
	}
	num, ok = new(big.Rat).SetString(digits)
	return num, digits, strings.TrimSpace(s[end:]), ok
}

var binaryUnits = [...]string{"Ki", "Mi", "Gi", "Ti"}

// parseSize reads 128Mi, 128MiB, 1.5Gi, 500M (decimal). A number without a unit and 128m, 128mb are refused: they mean bytes to some,
// milli-bytes to others.
func parseSize(s string) (int64, error) {
	num, digits, unit, ok := split(s)
	if !ok {
		return 0, &unitError{message: fmt.Sprintf("%q is not a size such as 128Mi", clip(s))}
	}
	if unit == "" {
		return 0, &unitError{fmt.Sprintf("%s has no unit", digits), meantSize(num, digits)}
	}
	factor := int64(1)
	known := false
	for _, u := range binaryUnits {
		factor *= 1024
		if unit == u || unit == u+"B" {
			known = true
			break
		}
	}
	if !known {
		factor = 1
		for _, u := range [...]string{"k", "M", "G", "T"} {
			factor *= 1000
			if unit == u || unit == u+"B" {
				known = true
				break
			}
		}
	}
	if !known {
		meant := ""
		for _, u := range binaryUnits {
			if strings.EqualFold(unit[:1], u[:1]) {
				meant = digits + u
			}
		}
		return 0, &unitError{fmt.Sprintf("%q is no unit of size (Ki, Mi, Gi, Ti, or the decimal k, M, G, T)", clip(unit)), meant}
	}
	num.Mul(num, new(big.Rat).SetInt64(factor))
	if !num.IsInt() {
		return 0, &unitError{message: fmt.Sprintf("%s is not a whole number of bytes", s)}
	}
	if !num.Num().IsInt64() {
		return 0, &unitError{message: fmt.Sprintf("%s is more than any machine has", s)}
	}
	return num.Num().Int64(), nil
}

// meantSize guesses what a size without unit stood for: bytes where the number is large, mebibytes otherwise.
func meantSize(num *big.Rat, digits string) string {
	if num.IsInt() && num.Num().IsInt64() && num.Num().Int64() >= 1<<20 {
		return formatSize(num.Num().Int64())
	}
	return digits + "Mi"
}

// formatSize writes a size so that parseSize reads the same number.
func formatSize(n int64) string {
	for i := len(binaryUnits) - 1; i >= 0; i-- {
		if f := int64(1) << (10 * (i + 1)); n >= f && n%f == 0 {
			return fmt.Sprintf("%d%s", n/f, binaryUnits[i])
		}
	}
	// A number of bytes that no unit divides: a decimal fraction of Ki is exact, 1024 being a power of two.
	return new(big.Rat).SetFrac64(n, 1024).FloatString(10) + "Ki"
}

// parseCPU reads 250m, 0.25 and 1 as millicores.
func parseCPU(s string) (int64, error) {
	num, digits, unit, ok := split(s)
	if !ok {
		return 0, &unitError{message: fmt.Sprintf("%q is not a share of CPUs such as 250m, 0.25 or 1", clip(s))}
	}
	switch {
	case unit == "":
		num.Mul(num, new(big.Rat).SetInt64(1000))
	case unit == "m":
	case strings.EqualFold(unit, "m") || strings.EqualFold(unit, "milli") || strings.EqualFold(unit, "millicores"):
		return 0, &unitError{fmt.Sprintf("%q is no unit of CPU", clip(unit)), digits + "m"}
	default:
		return 0, &unitError{message: fmt.Sprintf("%q is no unit of CPU (write 250m, 0.25 or 1)", clip(unit))}
	}
	if !num.IsInt() {
		return 0, &unitError{message: fmt.Sprintf("%s is finer than a thousandth of a CPU", s)}
	}
	if !num.Num().IsInt64() {
		return 0, &unitError{message: fmt.Sprintf("%s is more than any machine has", s)}
	}
	return num.Num().Int64(), nil
}

func formatCPU(milli int64) string {
	if milli%1000 == 0 {
		return fmt.Sprint(milli / 1000)
	}
	return fmt.Sprintf("%dm", milli)
}

// parseDuration reads what time.ParseDuration reads; a number without a unit is refused.
func parseDuration(s string) (time.Duration, error) {
	if len(s) > longest {
		return 0, &unitError{message: fmt.Sprintf("%q is not a duration such as 30s, 5m or 1h30m", clip(s))}
	}
	d, err := time.ParseDuration(s)
	if err == nil && s != "0" {
		return d, nil
	}
	_, digits, unit, ok := split(s)
	if !ok {
		return 0, &unitError{message: fmt.Sprintf("%q is not a duration such as 30s, 5m or 1h30m", clip(s))}
	}
	meant := ""
	switch strings.ToLower(unit) {
	case "":
		return 0, &unitError{fmt.Sprintf("%s has no unit", digits), digits + "s"}
	case "sec", "secs", "second", "seconds":
		meant = digits + "s"
	case "min", "mins", "minute", "minutes":
		meant = digits + "m"
	case "hour", "hours", "hr", "hrs":
		meant = digits + "h"
	case "msec", "millis", "milliseconds":
		meant = digits + "ms"
	case "d", "day", "days":
		if n, err := time.ParseDuration(digits + "h"); err == nil && n < 1000*time.Hour {
			meant = strings.TrimSuffix(strings.TrimSuffix((n*24).String(), "0s"), "0m")
		}
	}
	return 0, &unitError{fmt.Sprintf("%q is not a duration: the units are ms, s, m and h", clip(s)), meant}
}

func clip(s string) string {
	const most = 60
	if r := []rune(s); len(r) > most {
		return string(r[:most]) + "…"
	}
	return s
}
