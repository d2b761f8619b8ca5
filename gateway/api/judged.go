package api

import (
	"slices"
	"sync"

	"github.com/tatami-faas/tatami/functions"
)

// mostJudged bounds the images that are remembered.
const mostJudged = 1024

// judged remembers the images that were found good, by the digests of their manifests: what a digest names does not change, and reading every layer
// is most of the work of a deploy. It forgets the oldest. The zero one is ready.
type judged struct {
	mu   sync.Mutex
	list []functions.Artifact
}

// find returns an image that is for one of the architectures.
func (j *judged) find(digest string, architectures []string) (functions.Artifact, bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	i := slices.IndexFunc(j.list, func(a functions.Artifact) bool {
		return a.Digest == digest && slices.Contains(architectures, a.Architecture)
	})
	if i < 0 {
		return functions.Artifact{}, false
	}
	return j.list[i], true
}

func (j *judged) add(a functions.Artifact) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.list) >= mostJudged {
		j.list = slices.Delete(j.list, 0, 1)
	}
	j.list = append(j.list, a)
}
