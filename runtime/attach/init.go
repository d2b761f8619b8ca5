package attach

import (
	"embed"
	"errors"
)

//go:embed all:assets
var assets embed.FS

// ErrNoInit says that this program was built without the init.
var ErrNoInit = errors.New("the init of sandboxes made ahead is not built into this program; 'make build' does that")

// Init is the program of runtime/attach/init, statically linked; ErrNoInit where it was not built in.
func Init() ([]byte, error) {
	b, err := assets.ReadFile("assets/init")
	if err != nil {
		return nil, ErrNoInit
	}
	return b, nil
}
