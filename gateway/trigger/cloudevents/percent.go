package cloudevents

import (
	"errors"
	"strings"
	"unicode/utf8"
)

const upperHex = "0123456789ABCDEF"

// encodeValue writes an attribute's value as a header field carries it: percent-encoded where it is not visible ASCII, and so are '"' and '%'.
func encodeValue(s string) string {
	plain := true
	for i := range len(s) {
		plain = plain && !mustEncode(s[i])
	}
	if plain {
		return s
	}
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; mustEncode(c) {
			b.WriteByte('%')
			b.WriteByte(upperHex[c>>4])
			b.WriteByte(upperHex[c&15])
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

func mustEncode(c byte) bool { return c <= ' ' || c > '~' || c == '"' || c == '%' }

var (
	errQuotes = errors.New("the quotes do not fit together")
	errHex    = errors.New("a % is not followed by two hexadecimal digits")
	errUTF8   = errors.New("it is not UTF-8")
)

// decodeValue reads what encodeValue wrote, and what others may write: quotes around the value are taken off first, then one round of
// percent-decoding is made.
func decodeValue(s string) (string, error) {
	s, err := unquote(s)
	if err != nil {
		return "", err
	}
	if strings.IndexByte(s, '%') >= 0 {
		out := make([]byte, 0, len(s))
		for i := 0; i < len(s); i++ {
			if s[i] != '%' {
				out = append(out, s[i])
				continue
			}
			if i+2 >= len(s) || hexDigit(s[i+1]) < 0 || hexDigit(s[i+2]) < 0 {
				return "", errHex
			}
			out = append(out, byte(hexDigit(s[i+1])<<4|hexDigit(s[i+2])))
			i += 2
		}
		s = string(out)
	}
	if !utf8.ValidString(s) {
		return "", errUTF8
	}
	return s, nil
}

// unquote takes the quotes off a quoted string of RFC 9110, and leaves any other text as it is.
func unquote(s string) (string, error) {
	if s == "" || s[0] != '"' {
		return s, nil
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '"':
			if i != len(s)-1 {
				return "", errQuotes
			}
			return b.String(), nil
		case '\\':
			if i++; i == len(s) {
				return "", errQuotes
			}
		}
		b.WriteByte(s[i])
	}
	return "", errQuotes
}

func hexDigit(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	}
	return -1
}
