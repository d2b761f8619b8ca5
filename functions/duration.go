package functions

import "time"

// Duration is a time.Duration that reads and writes as text such as "1m30s".
type Duration time.Duration

// Std returns the duration as the standard library's type.
func (d Duration) Std() time.Duration { return time.Duration(d) }

// String writes the duration without trailing zero units: "1m" and not "1m0s".
func (d Duration) String() string {
	s := time.Duration(d).String()
	if n := len(s); n > 2 && s[n-2:] == "0s" && (s[n-3] == 'm') {
		s = s[:n-2]
	}
	if n := len(s); n > 2 && s[n-2:] == "0m" && (s[n-3] == 'h') {
		s = s[:n-2]
	}
	return s
}

// MarshalText writes the duration as text.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads the form of time.ParseDuration.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err != nil {
		return err
	}
	*d = Duration(v)
	return nil
}
