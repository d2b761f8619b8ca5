package build

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/gzip"
)

const (
	// entrypoint is where a built function lies in its image.
	entrypoint = "/function"
	// userID is the user that a built function runs as.
	userID = 65532
)

// single makes an image of one layer on an empty base: the binary, the directories that a runtime mounts on, and a user's name for 65532.
// The same binary gives the same digest.
func single(ctx context.Context, binary string, kind Kind, o Options) (*Image, error) {
	o.progress(Progress{Step: "pack", Name: o.Name})
	dir, err := os.MkdirTemp(o.TempDir, "tatami-build-")
	if err != nil {
		return nil, fmt.Errorf("make a directory for the image: %w", err)
	}
	image, err := packed(ctx, binary, dir, kind, o)
	if err != nil {
		_ = os.RemoveAll(dir)
		return nil, err
	}
	image.cleanup = append(image.cleanup, func() error { return os.RemoveAll(dir) })
	return image, nil
}

func packed(ctx context.Context, binary, dir string, kind Kind, o Options) (*Image, error) {
	path := filepath.Join(dir, "layer.tar.gz")
	layer, diffID, err := writeLayer(ctx, binary, path)
	if err != nil {
		return nil, fmt.Errorf("pack %s: %w", binary, err)
	}
	digest, err := v1.NewHash(layer.Digest)
	if err != nil {
		return nil, err
	}
	diff, err := v1.NewHash(diffID)
	if err != nil {
		return nil, err
	}
	epoch := v1.Time{Time: time.Unix(0, 0).UTC()}
	config, err := json.Marshal(v1.ConfigFile{
		Architecture: o.Architecture, OS: "linux", Created: epoch,
		History: []v1.History{{Created: epoch, CreatedBy: "tatami"}},
		RootFS:  v1.RootFS{Type: "layers", DiffIDs: []v1.Hash{diff}},
		Config: v1.Config{
			Entrypoint: []string{entrypoint}, User: fmt.Sprint(userID), WorkingDir: "/",
			Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/tmp"},
		},
	})
	if err != nil {
		return nil, err
	}
	about := bytesBlob(config)
	configDigest, err := v1.NewHash(about.Digest)
	if err != nil {
		return nil, err
	}
	manifest, err := json.Marshal(v1.Manifest{
		SchemaVersion: 2, MediaType: types.OCIManifestSchema1,
		Config: v1.Descriptor{MediaType: types.OCIConfigJSON, Size: about.Size, Digest: configDigest},
		Layers: []v1.Descriptor{{MediaType: types.OCILayer, Size: layer.Size, Digest: digest}},
	})
	if err != nil {
		return nil, err
	}
	image := &Image{
		Kind: kind, Name: o.Name, Digest: digestOf(manifest), Architecture: o.Architecture, Size: layer.Size,
		Command: []string{entrypoint}, Manifest: manifest,
	}
	for _, b := range []Blob{about, layer, bytesBlob(manifest)} {
		image.add(b)
	}
	return image, nil
}

// writeLayer writes the compressed layer and returns it with the digest of its tar.
func writeLayer(ctx context.Context, binary, path string) (Blob, string, error) {
	in, err := os.Open(binary)
	if err != nil {
		return Blob{}, "", err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return Blob{}, "", err
	}
	out, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return Blob{}, "", err
	}
	defer out.Close()
	sum, diff := sha256.New(), sha256.New()
	z, err := gzip.NewWriterLevel(io.MultiWriter(out, sum), gzip.DefaultCompression)
	if err != nil {
		return Blob{}, "", err
	}
	t := tar.NewWriter(io.MultiWriter(z, diff))
	if err := writeEntries(ctx, t, in, info.Size()); err != nil {
		return Blob{}, "", err
	}
	if err := t.Close(); err != nil {
		return Blob{}, "", err
	}
	if err := z.Close(); err != nil {
		return Blob{}, "", err
	}
	if err := out.Close(); err != nil {
		return Blob{}, "", err
	}
	written, err := os.Stat(path)
	if err != nil {
		return Blob{}, "", err
	}
	digest := "sha256:" + hex.EncodeToString(sum.Sum(nil))
	return fileBlob(digest, path, written.Size()), "sha256:" + hex.EncodeToString(diff.Sum(nil)), nil
}

func writeEntries(ctx context.Context, t *tar.Writer, binary io.Reader, size int64) error {
	entry := func(name string, kind byte, mode int64, owner int, size int64, body io.Reader) error {
		h := &tar.Header{Name: name, Typeflag: kind, Mode: mode, Size: size, Uid: owner, Gid: owner, ModTime: time.Unix(0, 0), Format: tar.FormatUSTAR}
		if err := t.WriteHeader(h); err != nil {
			return err
		}
		if body == nil {
			return nil
		}
		_, err := io.Copy(t, &meter{ctx: ctx, r: body, left: size, over: func() error {
			return invalid("the binary grew while it was packed")
		}})
		return err
	}
	for _, d := range []string{"dev/", "etc/", "proc/", "sys/"} {
		if err := entry(d, tar.TypeDir, 0o755, 0, 0, nil); err != nil {
			return err
		}
	}
	if err := entry("tmp/", tar.TypeDir, 0o1777, 0, 0, nil); err != nil {
		return err
	}
	for _, f := range []struct{ name, text string }{
		{"etc/group", "root:x:0:\nfunction:x:65532:\n"},
		{"etc/passwd", "root:x:0:0::/:/sbin/nologin\nfunction:x:65532:65532::/tmp:/sbin/nologin\n"},
	} {
		if err := entry(f.name, tar.TypeReg, 0o644, 0, int64(len(f.text)), strings.NewReader(f.text)); err != nil {
			return err
		}
	}
	return entry(entrypoint[1:], tar.TypeReg, 0o555, userID, size, binary)
}
