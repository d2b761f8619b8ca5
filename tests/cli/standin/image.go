package standin

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"testing"
)

// Image is an OCI image in memory: its blobs by digest, and the digest of its manifest.
type Image struct {
	Digest string
	Blobs  map[string][]byte
}

// File is a file of an image's only layer.
type File struct{ Name, Content string }

// NewImage makes an image for an architecture with one layer.
func NewImage(t testing.TB, arch string, files ...File) Image {
	t.Helper()
	img, err := MakeImage(arch, files...)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// MakeImage is NewImage outside a test.
func MakeImage(arch string, files ...File) (Image, error) {
	img := Image{Blobs: map[string][]byte{}}
	var plain, packed bytes.Buffer
	tw := tar.NewWriter(&plain)
	for _, f := range files {
		if err := tw.WriteHeader(&tar.Header{Name: f.Name, Mode: 0o755, Size: int64(len(f.Content)), Typeflag: tar.TypeReg}); err != nil {
			return img, err
		}
		if _, err := tw.Write([]byte(f.Content)); err != nil {
			return img, err
		}
	}
	zw := gzip.NewWriter(&packed)
	if err := tw.Close(); err != nil {
		return img, err
	}
	if _, err := zw.Write(plain.Bytes()); err != nil {
		return img, err
	}
	if err := zw.Close(); err != nil {
		return img, err
	}
	layer := img.add("application/vnd.oci.image.layer.v1.tar+gzip", packed.Bytes())
	config, err := json.Marshal(map[string]any{
		"architecture": arch, "os": "linux", "config": map[string]any{"Entrypoint": []string{"/function"}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{digestOf(plain.Bytes())}},
	})
	if err != nil {
		return img, err
	}
	manifest, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "layers": []any{layer},
		"config": img.add("application/vnd.oci.image.config.v1+json", config),
	})
	if err != nil {
		return img, err
	}
	img.add("application/vnd.oci.image.manifest.v1+json", manifest)
	img.Digest = digestOf(manifest)
	return img, nil
}

func (i *Image) add(mediaType string, content []byte) map[string]any {
	d := digestOf(content)
	i.Blobs[d] = content
	return map[string]any{"mediaType": mediaType, "digest": d, "size": len(content)}
}

func digestOf(b []byte) string {
	h := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(h[:])
}
