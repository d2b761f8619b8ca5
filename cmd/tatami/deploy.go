package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/functions/build"
	"github.com/tatami-faas/tatami/functions/spec"
	v1 "github.com/tatami-faas/tatami/gateway/api/v1"
	"github.com/tatami-faas/tatami/gateway/client"
	"github.com/tatami-faas/tatami/internal/fault"
)

// uploads is how many blobs are uploaded at once.
const uploads = 3

// deployment is one run of `tatami deploy`.
type deployment struct {
	path, image, name, file, arch string
	noWait                        bool
}

func newDeployCmd(a *app) *cobra.Command {
	var d deployment
	cmd := &cobra.Command{
		Use: "deploy [PATH]", Short: "Build, upload and run a function", Args: argCount(0, 1, "[PATH]"),
		Long: "Deploys a function from PATH (default the working directory): a directory of Go source, a static Linux binary, an OCI layout\n" +
			"(directory or tar) or what `docker save` wrote; or from an image in a registry with --image. A tatami.yaml in the directory says\n" +
			"how it is run; without one, everything has its default. The new revision takes the traffic when an instance of it is ready.",
		Example: "  tatami deploy ./hello\n  tatami deploy ./bin/resize --name resize\n  tatami deploy --image docker.io/library/nginx:1.29 --name web --file web.yaml",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				d.path = args[0]
			}
			return a.deploy(cmd.Context(), d)
		},
	}
	f := cmd.Flags()
	f.StringVar(&d.image, "image", "", "image reference, pulled by the server")
	f.StringVar(&d.name, "name", "", "name of the function, NAME or NAME.NAMESPACE (default: of the file, else of the path)")
	f.StringVarP(&d.file, "file", "f", "", "the function's tatami.yaml (default: the one in PATH)")
	f.StringVar(&d.arch, "arch", "", "architecture to build for (default: the nodes')")
	f.BoolVar(&d.noWait, "no-wait", false, "do not wait until the revision takes the traffic")
	return cmd
}

func (a *app) deploy(ctx context.Context, d deployment) error {
	file, path, err := d.describe()
	if err != nil {
		return err
	}
	c, err := a.connect()
	if err != nil {
		return err
	}
	defer c.Close()
	req := v1.DeployRequest{Config: file.Config, NoWait: d.noWait, Image: file.Image, Name: file.Image}
	p := a.newProgress()
	if file.Image == "" {
		if d.arch, err = nodeArchitecture(ctx, c, d.arch); err != nil {
			return err
		}
		img, err := a.build(ctx, p, file, path, d.arch)
		if err != nil {
			return err
		}
		defer img.Close()
		if err := a.upload(ctx, p, c, img); err != nil {
			return err
		}
		req.Digest, req.Name = img.Digest, img.Name
	}
	p.start("start")
	res, err := c.Deploy(ctx, file.Ref(), req)
	if err != nil {
		p.fail()
		switch {
		case ctx.Err() != nil:
			a.talk("the deploy goes on without this program; see: tatami rev ls %s\n", file.Ref())
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
			return fault.Wrap(fault.CodeUnavailable, err, "the server went away while %s was being deployed", file.Ref()).
				WithHint("when it is back, it goes on with the deploy where it knew of it: tatami rev ls %s", file.Ref())
		}
		return err
	}
	p.end("%s", res.Revision)
	if file.Path != "" {
		if _, err := c.DeclareTriggers(ctx, file.Ref(), file.Triggers); err != nil {
			return fmt.Errorf("%s is deployed, its triggers are as they were: %w", file.Ref(), err)
		}
	}
	return a.printDeployed(res)
}

// describe finds out what is deployed: from a tatami.yaml where there is one, else from the flags.
func (d deployment) describe() (file *spec.File, path string, err error) {
	read := d.file
	if read == "" && d.image == "" {
		read, path, err = findSpec(d.path)
		if err != nil {
			return nil, "", err
		}
	} else if d.path != "" {
		if _, err := os.Stat(d.path); err != nil {
			return nil, "", pathFault(d.path, err)
		}
		path = d.path
	}
	if read != "" {
		file, err = spec.Read(read)
	} else {
		name := d.name
		if name == "" && d.image == "" {
			name = nameOf(path)
		}
		if name == "" {
			return nil, "", fault.New(fault.CodeInvalidRequest, "the function has no name").WithField("name").WithHint("give --name NAME")
		}
		var ref functions.Ref
		if ref, err = functions.ParseRef(name); err == nil {
			file = spec.New(ref.Name)
			file.Namespace = ref.Namespace
		}
	}
	if err != nil {
		return nil, "", err
	}
	if d.name != "" {
		ref, err := functions.ParseRef(d.name)
		if err != nil {
			return nil, "", err
		}
		file.Name, file.Namespace = ref.Name, ref.Namespace
	}
	switch {
	case d.image != "" && path != "":
		return nil, "", fault.New(fault.CodeInvalidRequest, "a path and --image are both given").WithField("image").WithHint("give one of the two")
	case d.image != "":
		file.Image = d.image
	case path != "":
		file.Image = ""
	}
	return file, path, nil
}

// findSpec looks for the tatami.yaml of a path; where there is none the path itself is what is built.
func findSpec(path string) (file, artifact string, err error) {
	if path == "" {
		path = "."
	}
	info, err := os.Stat(path)
	if err != nil {
		return "", "", pathFault(path, err)
	}
	if !info.IsDir() {
		if ext := filepath.Ext(path); ext == ".yaml" || ext == ".yml" {
			return path, "", nil
		}
		return "", path, nil
	}
	name := filepath.Join(path, spec.FileName)
	if _, err := os.Stat(name); err == nil {
		return name, "", nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return "", "", pathFault(name, err)
	}
	return "", path, nil
}

func pathFault(path string, err error) *fault.Error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	return fault.Wrap(fault.CodeInvalidRequest, err, "%s", path).WithField("path").WithHint("name a directory or a file that exists: tatami deploy PATH")
}

var notName = regexp.MustCompile(`[^a-z0-9]+`)

// nameOf makes a function's name of a path: hello of ./hello, of Hello.tar.gz, of the directory's name for ".".
func nameOf(path string) string {
	abs, err := filepath.Abs(path)
	if err != nil {
		return ""
	}
	base, _, _ := strings.Cut(strings.ToLower(filepath.Base(abs)), ".")
	name := strings.Trim(notName.ReplaceAllString(base, "-"), "-")
	return strings.TrimRight(name[:min(len(name), functions.MaxName)], "-")
}

// nodeArchitecture asks the server what to build for. What the user wants is refused before it is built, where no node can run it.
func nodeArchitecture(ctx context.Context, c *client.Client, want string) (string, error) {
	s, err := c.Status(ctx)
	if err != nil {
		return "", err
	}
	if len(s.Architectures) == 0 {
		return "", fault.New(fault.CodeUnavailable, "no node has reported yet").WithHint("tatami node ls")
	}
	if want != "" && !slices.Contains(s.Architectures, want) {
		return "", fault.New(fault.CodeInvalidArtifact, "no node is of the architecture %s; the nodes are %s", want, strings.Join(s.Architectures, ", ")).
			WithField("arch").WithHint("leave out --arch, or build for one of them")
	}
	return orText(want, s.Architectures[0]), nil
}

func (a *app) build(ctx context.Context, p *progress, file *spec.File, path, arch string) (*build.Image, error) {
	p.start("build")
	img, err := build.Build(ctx, build.Request{
		File: file, Path: path,
		Options: build.Options{Architecture: arch, Progress: func(pr build.Progress) {
			if pr.Total > 0 {
				p.say("%s %s, %d%%", pr.Step, pr.Name, 100*pr.Done/pr.Total)
			} else {
				p.say("%s %s", pr.Step, pr.Name)
			}
		}},
	})
	if err != nil {
		p.fail()
		return nil, err
	}
	p.end("%s, %s for %s", img.Kind, size(img.Size), img.Architecture)
	return img, nil
}

// upload sends what the server lacks. The manifest comes last: it is never there before its parts.
func (a *app) upload(ctx context.Context, p *progress, c *client.Client, img *build.Image) error {
	p.start("upload")
	sent, bytes, err := uploadMissing(ctx, p, c, img)
	if err != nil {
		p.fail()
		return err
	}
	p.end("%d of %d parts new, %s", sent, len(img.Blobs), size(bytes))
	return nil
}

func uploadMissing(ctx context.Context, p *progress, c *client.Client, img *build.Image) (sent int, bytes int64, err error) {
	digests := make([]string, 0, len(img.Blobs))
	for _, b := range img.Blobs {
		digests = append(digests, b.Digest)
	}
	missing, err := c.MissingBlobs(ctx, digests)
	if err != nil {
		return 0, 0, err
	}
	var todo []build.Blob
	for _, b := range img.Blobs {
		if slices.Contains(missing, b.Digest) {
			todo = append(todo, b)
			bytes += b.Size
		}
	}
	parts := todo
	if n := len(todo); n > 0 && todo[n-1].Digest == img.Digest {
		parts = todo[:n-1]
	}
	p.say("%d parts, %s", len(todo), size(bytes))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(uploads)
	for _, b := range parts {
		g.Go(func() error { return putBlob(gctx, c, b) })
	}
	if err := g.Wait(); err != nil {
		return 0, 0, err
	}
	for _, b := range todo[len(parts):] {
		if err := putBlob(ctx, c, b); err != nil {
			return 0, 0, err
		}
	}
	return len(todo), bytes, nil
}

func putBlob(ctx context.Context, c *client.Client, b build.Blob) error {
	r, err := b.Open()
	if err != nil {
		return fmt.Errorf("read the image: %w", err)
	}
	defer r.Close()
	return c.PutBlob(ctx, b.Digest, r, b.Size)
}

// printDeployed says where the function is now, and what to do next.
func (a *app) printDeployed(res *v1.DeployResult) error {
	ref := res.Ref()
	if a.machine() {
		return a.encode(res)
	}
	if a.output == formatName {
		a.print("%s\n", res.Revision)
		return nil
	}
	at := ""
	if res.URL != "" {
		at = " at " + a.paint(a.outTTY, bold, res.URL)
	}
	switch {
	case !res.Live:
		a.print("%s: %s is on its way\n", ref, res.Revision)
	case !res.Changed:
		a.print("%s is live%s (%s; nothing changed)\n", ref, at, res.Revision)
	case res.Previous != "":
		a.print("%s is live%s (%s; was %s, kept for rollback)\n", ref, at, res.Revision, res.Previous)
	default:
		a.print("%s is live%s (%s)\n", ref, at, res.Revision)
	}
	if a.errTTY {
		a.talk("next:  tatami invoke %s   ·   tatami logs %s -f   ·   tatami fn show %s\n", ref, ref, ref)
	}
	return nil
}
