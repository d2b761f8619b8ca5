package main

import (
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/functions/templates"
)

// initResult is what `tatami init` prints.
type initResult struct {
	Name      string   `json:"name"`
	Directory string   `json:"directory"`
	Files     []string `json:"files"`
}

func newInitCmd(a *app) *cobra.Command {
	var lang, dir string
	cmd := &cobra.Command{
		Use: "init NAME", Short: "Make the files of a new function", Args: argCount(1, 1, "NAME"),
		Example: "  tatami init hello\n  tatami init resize --lang go --dir services/resize",
		RunE: func(_ *cobra.Command, args []string) error {
			ref, err := functions.ParseRef(args[0])
			if err != nil {
				return err
			}
			if dir == "" {
				dir = ref.Name
			}
			files, err := templates.Write(dir, args[0], lang)
			if err != nil {
				return err
			}
			out := initResult{Name: args[0], Directory: dir, Files: files}
			if a.machine() {
				return a.encode(out)
			}
			for _, f := range files {
				a.print("%s\n", filepath.Join(dir, f))
			}
			a.talk("next:  tatami deploy %s\n", dir)
			return nil
		},
	}
	cmd.Flags().StringVar(&lang, "lang", "go", "starter: "+strings.Join(templates.Langs(), ", "))
	cmd.Flags().StringVar(&dir, "dir", "", "directory to write to (default NAME)")
	_ = cmd.RegisterFlagCompletionFunc("lang", cobra.FixedCompletions(templates.Langs(), cobra.ShellCompDirectiveNoFileComp))
	return cmd
}
