// Package secret reads what only the server may know, from a file or its environment.
package secret

import (
	"bytes"
	"io"
	"os"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/fault"
)

// maxSecrets is the size of the largest file with secrets.
const maxSecrets = 4 << 10

// Read reads what a reference names; it holds one secret at least.
func Read(ref functions.SecretRef) ([][]byte, error) {
	var data []byte
	if ref.Env != "" {
		data = []byte(os.Getenv(ref.Env))
	} else {
		var err error
		if data, err = readSmall(ref.File); err != nil {
			return nil, err
		}
	}
	var out [][]byte
	for line := range bytes.Lines(data) {
		if line = bytes.TrimSpace(line); len(line) > 0 {
			out = append(out, line)
		}
	}
	if len(out) == 0 {
		return nil, fault.New(fault.CodeUnavailable, "the secret is not set on the server").WithField("secret").
			WithHint("write it to the file, or to the variable of the server's environment, that is named for it")
	}
	return out, nil
}

// readSmall reads a regular file that is small. What is wrong with it is for the server's operator, not for whoever posts.
func readSmall(path string) ([]byte, error) {
	unusable := func() error {
		return fault.New(fault.CodeUnavailable, "the file with the secret cannot be used").WithField("secret").
			WithHint("it must be there, a regular file of at most %d bytes that the server may read", maxSecrets)
	}
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() || info.Size() > maxSecrets {
		return nil, unusable()
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, unusable()
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxSecrets+1))
	if err != nil || len(data) > maxSecrets {
		return nil, unusable()
	}
	return data, nil
}
