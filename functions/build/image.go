package build

import (
	"bytes"
	"io"
	"os"
	"sync"

	"github.com/tatami-faas/tatami/functions"
)

// Image is a built image: its manifest and everything that the manifest refers to, in OCI media types.
type Image struct {
	// Kind is what it was built from.
	Kind Kind
	// Name is what people call it.
	Name string
	// Digest is the manifest's.
	Digest string
	// Architecture is GOARCH's name for it.
	Architecture string
	// Size is the sum of the layers as they are stored, in bytes.
	Size int64
	// Command is the image's entrypoint and command; empty where it has neither.
	Command []string
	// Manifest is the manifest as it is stored.
	Manifest []byte
	// Blobs are the configuration, the layers, and last the manifest: uploaded in this order, a manifest never comes before its parts.
	// No digest appears twice.
	Blobs []Blob

	cleanup []func() error
	once    sync.Once
}

// Blob is one part of an image.
type Blob struct {
	Digest string
	Size   int64
	// Open reads the blob from its beginning. It works until the image is closed, any number of times.
	Open func() (io.ReadCloser, error)
}

// Artifact returns the image as a revision names it.
func (i *Image) Artifact() functions.Artifact {
	return functions.Artifact{Digest: i.Digest, Name: i.Name, Architecture: i.Architecture, Size: i.Size}
}

// Blob returns the blob of a digest.
func (i *Image) Blob(digest string) (Blob, bool) {
	for _, b := range i.Blobs {
		if b.Digest == digest {
			return b, true
		}
	}
	return Blob{}, false
}

// Close removes intermediate files. It may be called more than once.
func (i *Image) Close() error {
	var first error
	i.once.Do(func() {
		for _, f := range i.cleanup {
			if err := f(); err != nil && first == nil {
				first = err
			}
		}
	})
	return first
}

func (i *Image) add(b Blob) {
	if _, there := i.Blob(b.Digest); !there {
		i.Blobs = append(i.Blobs, b)
	}
}

func bytesBlob(data []byte) Blob {
	return Blob{Digest: digestOf(data), Size: int64(len(data)), Open: func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(data)), nil
	}}
}

func fileBlob(digest, path string, size int64) Blob {
	return Blob{Digest: digest, Size: size, Open: func() (io.ReadCloser, error) { return os.Open(path) }}
}
