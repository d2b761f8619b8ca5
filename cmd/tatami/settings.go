package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"

	"github.com/tatami-faas/tatami/internal/fault"
)

// applySettings completes flags that the command line does not set: from TATAMI_<FLAG>, else from a YAML file whose keys are flag names.
// The file is strict: an unknown key is an error. It may be absent unless it must exist.
func applySettings(flags *pflag.FlagSet, file string, mustExist bool) error {
	values, err := readSettings(flags, file, mustExist)
	if err != nil {
		return err
	}
	var bad error
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Changed || bad != nil {
			return
		}
		from := settingEnv(f.Name)
		value, ok := os.LookupEnv(from)
		if !ok || value == "" {
			from = file
			if value, ok = values[f.Name]; !ok {
				return
			}
		}
		if err := flags.Set(f.Name, value); err != nil {
			bad = fault.New(fault.CodeInvalidRequest, "%s: %s: %v", from, f.Name, err).WithField(f.Name).WithHint("tatami --help")
		}
	})
	return bad
}

// settingEnv is the environment variable of a flag.
func settingEnv(flag string) string {
	return "TATAMI_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

func readSettings(flags *pflag.FlagSet, file string, mustExist bool) (map[string]string, error) {
	if file == "" {
		return nil, nil
	}
	b, err := os.ReadFile(file)
	if err != nil {
		// A configuration that may not exist, or not be read, is none.
		if !mustExist && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission)) {
			return nil, nil
		}
		return nil, fault.Wrap(fault.CodeInvalidRequest, err, "read the configuration").WithHint("name a file that exists with --config")
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(b, &doc); err != nil {
		return nil, fault.New(fault.CodeInvalidSpec, "%s: %s", file, strings.TrimPrefix(err.Error(), "yaml: ")).WithHint("correct the file")
	}
	if doc.Kind == 0 {
		return nil, nil
	}
	top := doc.Content[0]
	if top.Kind != yaml.MappingNode {
		return nil, settingsError(file, top, "it must hold keys and values, such as `server: http://127.0.0.1:8081`")
	}
	out := map[string]string{}
	for i := 0; i+1 < len(top.Content); i += 2 {
		k, v := top.Content[i], top.Content[i+1]
		if _, twice := out[k.Value]; twice {
			return nil, settingsError(file, k, fmt.Sprintf("%q is there twice", k.Value))
		}
		if flags.Lookup(k.Value) == nil {
			return nil, settingsError(file, k, fmt.Sprintf("unknown key %q", k.Value))
		}
		switch v.Kind {
		case yaml.ScalarNode:
			out[k.Value] = v.Value
		case yaml.SequenceNode:
			var items []string
			if err := v.Decode(&items); err != nil {
				return nil, settingsError(file, v, "a list of plain values is meant")
			}
			out[k.Value] = strings.Join(items, ",")
		default:
			return nil, settingsError(file, v, "a plain value is meant")
		}
	}
	return out, nil
}

func settingsError(file string, at *yaml.Node, what string) error {
	return fault.New(fault.CodeInvalidSpec, "%s:%d:%d: %s", file, at.Line, at.Column, what).
		WithHint("keys are the names of flags: tatami --help")
}
