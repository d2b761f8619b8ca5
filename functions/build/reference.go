package build

import (
	"strings"

	"github.com/google/go-containerregistry/pkg/name"

	"github.com/tatami-faas/tatami/internal/fault"
)

// Reference is the name of an image in a registry.
type Reference struct {
	// Repository is the full name without tag and digest, such as docker.io/library/nginx.
	Repository string
	// Tag is set unless Digest is; default "latest".
	Tag string
	// Digest is what the name pins, or "".
	Digest string

	ref name.Reference
}

// String writes the reference in full.
func (r Reference) String() string {
	if r.Digest != "" {
		return r.Repository + "@" + r.Digest
	}
	return r.Repository + ":" + r.Tag
}

// ParseReference reads an image reference the way Docker does: nginx is docker.io/library/nginx:latest.
func ParseReference(s string) (Reference, error) {
	ref, err := name.ParseReference(s)
	if err != nil || isPath(s) {
		e := fault.New(fault.CodeInvalidSpec, "%s is no image reference", quote(s)).WithField("image").
			WithHint("write it as registry.example/team/app:1.2, in lower case")
		if strings.Contains(s, "://") {
			e.Hint = "leave out " + s[:strings.Index(s, "://")+3] + ": a reference begins with the registry's host name"
		}
		if isPath(s) {
			e.Hint = "this is a path: set source instead of image"
		}
		return Reference{}, e
	}
	out := Reference{Repository: ref.Context().Name(), ref: ref}
	// The registry's own name for what everybody writes as docker.io.
	if rest, ok := strings.CutPrefix(out.Repository, name.DefaultRegistry+"/"); ok {
		out.Repository = "docker.io/" + rest
	}
	switch r := ref.(type) {
	case name.Digest:
		out.Digest = r.DigestStr()
		if !ValidDigest(out.Digest) {
			return Reference{}, fault.New(fault.CodeInvalidSpec, "%s pins a digest that is not sha256", quote(s)).WithField("image")
		}
	case name.Tag:
		out.Tag = r.TagStr()
	}
	return out, nil
}

// isPath reports whether s can only be a file's name: a registry's host does not begin so.
func isPath(s string) bool { return strings.HasPrefix(s, ".") || strings.HasPrefix(s, "/") }
