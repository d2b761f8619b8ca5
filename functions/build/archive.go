package build

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/tatami-faas/tatami/internal/fault"
)

// maxMembers bounds the files of an archive of an image: blobs and a few lists, not the files of its layers.
const maxMembers = 100_000

// files gives the members of a layout directory or of an archive by their path.
type files interface {
	// open fails with fs.ErrNotExist for what is not there.
	open(name string) (io.ReadCloser, int64, error)
}

// directory is a layout on disk.
type directory string

func (d directory) open(name string) (io.ReadCloser, int64, error) {
	f, err := os.Open(filepath.Join(string(d), filepath.FromSlash(name)))
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s: %w", name, fs.ErrNotExist)
	}
	if err != nil {
		_ = f.Close()
		return nil, 0, err
	}
	return f, info.Size(), nil
}

// archive is a plain tar on disk with the places of its members. Nothing of it is unpacked.
type archive struct {
	path    string
	members map[string]member
}

type member struct {
	offset, size int64
	// link is where a link leads, cleaned; empty for a file.
	link string
}

func (a *archive) open(name string) (io.ReadCloser, int64, error) {
	m, ok := a.members[name]
	for range 4 {
		if !ok || m.link == "" {
			break
		}
		m, ok = a.members[m.link]
	}
	if !ok || m.link != "" {
		return nil, 0, fmt.Errorf("%s: %w", name, fs.ErrNotExist)
	}
	f, err := os.Open(a.path)
	if err != nil {
		return nil, 0, err
	}
	return &part{SectionReader: io.NewSectionReader(f, m.offset, m.size), file: f}, m.size, nil
}

type part struct {
	*io.SectionReader
	file *os.File
}

func (p *part) Close() error { return p.file.Close() }

// openArchive lists the members of a tar. A compressed one is unpacked to a temporary file first, which cleanup removes.
func openArchive(ctx context.Context, file string, o Options) (a *archive, cleanup func() error, err error) {
	plain, cleanup, err := plainFile(ctx, file, o)
	if err != nil {
		return nil, nil, err
	}
	a = &archive{path: plain, members: map[string]member{}}
	if err := a.index(ctx, file); err != nil {
		_ = cleanup()
		return nil, nil, err
	}
	return a, cleanup, nil
}

func plainFile(ctx context.Context, file string, o Options) (string, func() error, error) {
	in, err := os.Open(file)
	if err != nil {
		return "", nil, fault.Wrap(fault.CodeInvalidArtifact, err, "open %s", file)
	}
	defer in.Close()
	head := make([]byte, 4)
	n, _ := io.ReadFull(in, head)
	c := compressionOf(head[:n])
	if c == plainTar {
		// The path is opened again for each blob, from wherever the process stands by then.
		abs, err := filepath.Abs(file)
		if err != nil {
			return "", nil, fmt.Errorf("find %s: %w", file, err)
		}
		return abs, func() error { return nil }, nil
	}
	if _, err := in.Seek(0, io.SeekStart); err != nil {
		return "", nil, fault.Wrap(fault.CodeInvalidArtifact, err, "read %s", file)
	}
	o.progress(Progress{Step: "unpack", Name: file})
	out, err := os.CreateTemp(o.TempDir, "tatami-archive-")
	if err != nil {
		return "", nil, fmt.Errorf("make a temporary file: %w", err)
	}
	remove := func() error { return os.Remove(out.Name()) }
	err = expand(ctx, out, in, c, o.MaxUnpacked)
	if e := out.Close(); err == nil {
		err = e
	}
	if err != nil {
		_ = remove()
		if f := fault.From(err); f != nil || ctx.Err() != nil {
			return "", nil, err
		}
		return "", nil, fault.Wrap(fault.CodeInvalidArtifact, err, "unpack %s", file)
	}
	return out.Name(), remove, nil
}

func expand(ctx context.Context, out io.Writer, in io.Reader, c compression, most int64) error {
	r, done, err := decompress(in, c)
	if err != nil {
		return err
	}
	defer done()
	_, err = io.Copy(out, &meter{ctx: ctx, r: r, left: most, over: func() error {
		return invalid("the archive unpacks to more than %d bytes", most)
	}})
	return err
}

// index notes where each member lies.
func (a *archive) index(ctx context.Context, shown string) error {
	f, err := os.Open(a.path)
	if err != nil {
		return fault.Wrap(fault.CodeInvalidArtifact, err, "open %s", shown)
	}
	defer f.Close()
	t := tar.NewReader(f)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fault.Wrap(fault.CodeInvalidArtifact, err, "%s is not a readable tar", shown).
				WithHint("write it again: docker save -o image.tar NAME, or an OCI layout")
		}
		name, ok := inside(h.Name)
		if !ok {
			return escape(h.Name, "")
		}
		if len(a.members) >= maxMembers {
			return invalid("%s holds more than %d files: it is a file system, not an image", shown, maxMembers)
		}
		switch h.Typeflag {
		case tar.TypeReg:
			if sparse(h) {
				return invalid("%s holds the sparse file %s", shown, quote(h.Name))
			}
			// The tar reader reads whole blocks only, so the file stands at the member's first byte.
			at, err := f.Seek(0, io.SeekCurrent)
			if err != nil {
				return fault.Wrap(fault.CodeInvalidArtifact, err, "read %s", shown)
			}
			a.members[name] = member{offset: at, size: h.Size}
		case tar.TypeSymlink, tar.TypeLink:
			target := h.Linkname
			if h.Typeflag == tar.TypeSymlink && !path.IsAbs(target) {
				target = path.Join(path.Dir(name), target)
				if climbs(path.Dir(name), h.Linkname) {
					return escape(h.Linkname, " (link "+quote(h.Name)+")")
				}
			}
			target, ok := inside(target)
			if !ok {
				return escape(h.Linkname, " (link "+quote(h.Name)+")")
			}
			a.members[name] = member{link: target}
		case tar.TypeDir, tar.TypeXGlobalHeader:
		default:
			return invalid("%s holds %s of the type %q: it is no image", shown, quote(h.Name), h.Typeflag)
		}
	}
}

func sparse(h *tar.Header) bool {
	for k := range h.PAXRecords {
		if strings.HasPrefix(k, "GNU.sparse.") {
			return true
		}
	}
	return false
}
