package main

import (
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	v1 "github.com/tatami-faas/tatami/gateway/api/v1"
	"github.com/tatami-faas/tatami/internal/fault"
)

// version is set by the linker.
var version = "dev"

func buildVersion() v1.Version {
	v := v1.Version{Version: version, Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				v.Commit = s.Value
			}
		}
	}
	return v
}

// versions is what `tatami version` prints.
type versions struct {
	Client v1.Version  `json:"client"`
	Server *v1.Version `json:"server,omitempty"`
}

func newVersionCmd(a *app) *cobra.Command {
	var clientOnly bool
	cmd := &cobra.Command{
		Use: "version", Short: "Print the versions of this program and of the server", Args: argCount(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			out := versions{Client: buildVersion()}
			server := ""
			if !clientOnly {
				c, err := a.connect()
				if err != nil {
					return err
				}
				v, err := c.Version(cmd.Context())
				switch {
				case err == nil:
					out.Server, server = v, describeVersion(*v)
				case fault.KindOf(err) == fault.Unavailable:
					server = "not reached"
				default:
					return err
				}
			}
			return show(a, out, out.Client.Version, []field{{"client", describeVersion(out.Client)}, {"server", server}})
		},
	}
	cmd.Flags().BoolVar(&clientOnly, "client", false, "do not ask the server")
	return cmd
}

func describeVersion(v v1.Version) string {
	s := v.Version
	if len(v.Commit) >= 12 {
		s += " (" + v.Commit[:12] + ")"
	}
	return s + " " + v.OS + "/" + v.Arch + " " + v.Go
}
