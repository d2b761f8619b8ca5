package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/fault"
)

// Headers that hold signatures.
const (
	headerGitHub = "X-Hub-Signature-256"
	headerStripe = "Stripe-Signature"
)

// maxSignatures bounds how many signatures of one request are looked at.
const maxSignatures = 16

// Verify reports whether one of the secrets signed the request: nil, or unauthenticated.
func Verify(src *functions.WebhookSource, secrets [][]byte, h http.Header, body []byte, now time.Time) error {
	if src.Style == functions.StyleStripe {
		return verifyStripe(src, secrets, h, body, now)
	}
	sum, ok := strings.CutPrefix(h.Get(headerGitHub), "sha256=")
	if !ok {
		return denied(headerGitHub, "it is missing, or not of the form sha256=HEX")
	}
	return signedBy(headerGitHub, secrets, []string{sum}, body)
}

func verifyStripe(src *functions.WebhookSource, secrets [][]byte, h http.Header, body []byte, now time.Time) error {
	at, sums, err := parseStripe(h.Get(headerStripe))
	if err != nil {
		return err
	}
	tolerance := src.Tolerance
	if tolerance == 0 {
		tolerance = functions.DefaultTolerance
	}
	if off := now.Sub(time.Unix(at, 0)).Abs(); off > tolerance.Std() {
		return denied(headerStripe, "it was signed %s from now, at most %s may be", functions.Duration(off.Round(time.Second)), tolerance)
	}
	return signedBy(headerStripe, secrets, sums, []byte(strconv.FormatInt(at, 10)+"."), body)
}

// maxTime is the latest time of a signature that is believed to be one: the year 9999.
const maxTime = 253402300799

// parseStripe reads t=SECONDS,v1=HEX with any number of signatures; schemes other than v1 are left alone.
func parseStripe(s string) (at int64, sums []string, err error) {
	timed := false
	for part := range strings.SplitSeq(s, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		switch name {
		case "t":
			n, perr := strconv.ParseInt(value, 10, 64)
			if perr != nil || n < 0 || n > maxTime || timed {
				return 0, nil, denied(headerStripe, "its time is none, or there twice")
			}
			at, timed = n, true
		case "v1":
			if sums = append(sums, value); len(sums) > maxSignatures {
				return 0, nil, denied(headerStripe, "it holds more than %d signatures", maxSignatures)
			}
		}
	}
	if !timed || len(sums) == 0 {
		return 0, nil, denied(headerStripe, "it is missing, or not of the form t=SECONDS,v1=HEX")
	}
	return at, sums, nil
}

// signedBy reports whether one of the sums is the HMAC-SHA256 of the parts under one of the secrets.
func signedBy(header string, secrets [][]byte, sums []string, parts ...[]byte) error {
	for _, secret := range secrets {
		mac := hmac.New(sha256.New, secret)
		for _, p := range parts {
			mac.Write(p)
		}
		want := mac.Sum(nil)
		for _, s := range sums {
			if got, err := hex.DecodeString(s); err == nil && hmac.Equal(got, want) {
				return nil
			}
		}
	}
	return denied(header, "the signature is not that of the secret")
}

func denied(header, format string, args ...any) *fault.Error {
	f := fault.New(fault.CodeUnauthenticated, header+": "+format, args...).WithField(header)
	return f.WithHint("sign the body with the secret that the trigger names")
}
