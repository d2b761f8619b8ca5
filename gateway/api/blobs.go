package api

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/go-chi/chi/v5"

	v1 "github.com/tatami-faas/tatami/gateway/api/v1"
	"github.com/tatami-faas/tatami/gateway/problem"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/fault"
)

// blobUse remembers which blobs a deploy under way may count on, and which are being uploaded.
type blobUse struct {
	mu   sync.Mutex
	used map[string]time.Time
	busy map[string]chan struct{}
}

func newBlobUse() blobUse {
	return blobUse{used: map[string]time.Time{}, busy: map[string]chan struct{}{}}
}

// claim returns when nobody else uploads the blob. A second copy of it would stay in the store beside the first, or take the first away
// from a node that reads it.
func (b *blobUse) claim(ctx context.Context, digest string) (release func(), err error) {
	for {
		b.mu.Lock()
		other, taken := b.busy[digest]
		if !taken {
			mine := make(chan struct{})
			b.busy[digest] = mine
			b.mu.Unlock()
			return func() {
				b.mu.Lock()
				defer b.mu.Unlock()
				delete(b.busy, digest)
				close(mine)
			}, nil
		}
		b.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (b *blobUse) touch(digest string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.used[digest] = time.Now()
}

func (b *blobUse) inUse(digest string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, ok := b.used[digest]
	return ok
}

// forget drops what was not asked for since.
func (b *blobUse) forget(since time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for d, at := range b.used {
		if at.Before(since) {
			delete(b.used, d)
		}
	}
}

func (a *API) registerBlobs(h huma.API, r chi.Router) {
	handle(a, h, huma.Operation{
		OperationID: "missing-blobs", Method: http.MethodPost, Path: "/v1/blobs/missing", Summary: "Tell which blobs are not in the store", Tags: []string{"artifacts"},
	}, a.missingBlobs)
	r.Head("/v1/blobs/{digest}", a.headBlob)
	r.Put("/v1/blobs/{digest}", a.putBlob)
	digest := &huma.Param{Name: "digest", In: "path", Required: true, Schema: &huma.Schema{Type: huma.TypeString, Pattern: `^sha256:[0-9a-f]{64}$`}}
	op := huma.Operation{
		OperationID: "has-blob", Method: http.MethodHead, Path: "/v1/blobs/{digest}", Summary: "Tell whether a blob is in the store",
		Tags: []string{"artifacts"}, Parameters: []*huma.Param{digest},
		Responses: map[string]*huma.Response{"200": {Description: "It is"}, "404": {Description: "It is not"}},
	}
	op.Responses = responses(op)
	h.OpenAPI().AddOperation(&op)
	put := huma.Operation{
		OperationID: "put-blob", Method: http.MethodPut, Path: "/v1/blobs/{digest}", Summary: "Upload a blob",
		Description: "The content is verified against the digest. A blob that no revision uses is removed after a time.",
		Tags:        []string{"artifacts"}, Parameters: []*huma.Param{digest},
		RequestBody: &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{
			"application/octet-stream": {Schema: &huma.Schema{Type: huma.TypeString, Format: "binary"}},
		}},
		Responses: map[string]*huma.Response{"204": {Description: "It is stored, durably"}},
	}
	put.Responses = responses(put)
	h.OpenAPI().AddOperation(&put)
}

func (a *API) missingBlobs(ctx context.Context, in *body[v1.BlobsRequest]) (*body[v1.BlobsMissing], error) {
	out := v1.BlobsMissing{Missing: []string{}}
	for _, d := range in.Body.Digests {
		if err := checkDigest(d); err != nil {
			return nil, err
		}
		have, err := a.hasBlob(ctx, d)
		if err != nil {
			return nil, err
		}
		if !have {
			out.Missing = append(out.Missing, d)
		}
	}
	return &body[v1.BlobsMissing]{out}, nil
}

// hasBlob tells whether the store has a blob, which then stays for the grace time: whoever asks means to deploy.
func (a *API) hasBlob(ctx context.Context, digest string) (bool, error) {
	a.records.Lock()
	defer a.records.Unlock()
	have, err := a.deps.Bus.Artifacts().Has(ctx, bus.ArtifactObject(digest))
	if have {
		a.blobs.touch(digest)
	}
	return have, err
}

func (a *API) headBlob(w http.ResponseWriter, r *http.Request) {
	digest := chi.URLParam(r, "digest")
	err := checkDigest(digest)
	if err == nil {
		var have bool
		have, err = a.hasBlob(r.Context(), digest)
		if err == nil && !have {
			err = fault.New(fault.CodeNotFound, "there is no blob %s", digest)
		}
	}
	if err != nil {
		problem.Write(w, r, err)
		return
	}
	w.WriteHeader(http.StatusOK)
}

func (a *API) putBlob(w http.ResponseWriter, r *http.Request) {
	digest := chi.URLParam(r, "digest")
	if err := a.storeBlob(w, r, digest); err != nil {
		if fault.KindOf(err) == fault.Internal {
			a.log.Error("a request failed", "op", "put-blob", "err", err)
		}
		problem.Write(w, r, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (a *API) storeBlob(w http.ResponseWriter, r *http.Request, digest string) error {
	if err := checkDigest(digest); err != nil {
		return err
	}
	if r.ContentLength > a.cfg.MaxBlob {
		return a.tooLarge()
	}
	if err := a.deps.Bus.Room(); err != nil {
		return err
	}
	// An upload may take longer than the listener allows other requests.
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
	release, err := a.blobs.claim(r.Context(), digest)
	if err != nil {
		return err
	}
	defer release()
	have, err := a.hasBlob(r.Context(), digest)
	if err != nil {
		return err
	}
	body := http.MaxBytesReader(w, r.Body, a.cfg.MaxBlob)
	if have {
		// A client that still sends when the connection closes may not see the answer.
		_, err = io.Copy(io.Discard, body)
	} else {
		_, err = a.deps.Bus.Artifacts().Put(r.Context(), bus.ArtifactObject(digest), &verifier{r: body, hash: sha256.New(), want: digest})
	}
	if err != nil {
		return a.uploadFault(err)
	}
	a.blobs.touch(digest)
	return a.deps.Bus.Artifacts().Sync(r.Context())
}

func (a *API) uploadFault(err error) error {
	var size *http.MaxBytesError
	if errors.As(err, &size) {
		return a.tooLarge()
	}
	if fault.From(err) == nil {
		return fault.Wrap(fault.CodeInvalidRequest, err, "the upload ended early")
	}
	return err
}

func (a *API) tooLarge() error {
	return fault.New(fault.CodeBodyTooLarge, "a blob may have at most %d bytes", a.cfg.MaxBlob).WithHint("make the image's layers smaller")
}

// verifier reads what must have the digest; where it has another one the read ends with a fault instead of EOF.
type verifier struct {
	r    io.Reader
	hash hash.Hash
	want string
}

func (v *verifier) Read(p []byte) (int, error) {
	n, err := v.r.Read(p)
	v.hash.Write(p[:n])
	if errors.Is(err, io.EOF) {
		if got := "sha256:" + hex.EncodeToString(v.hash.Sum(nil)); got != v.want {
			return n, fault.New(fault.CodeInvalidArtifact, "the content has the digest %s, not %s", got, v.want).WithField("digest").
				WithHint("upload it again; if it stays so, the file is not what it says")
		}
	}
	return n, err
}
