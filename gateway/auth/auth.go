package auth

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tatami-faas/tatami/internal/fault"
)

// Config is how the control API is guarded.
type Config struct {
	// TokenFile holds the token; it is made at the first start. Required.
	TokenFile string
	// Hosts are names by which the control listener may be called, besides localhost and addresses.
	Hosts []string
	// Public are paths that need no credential, matched whole. The dashboard's login is one always.
	Public []string
	// LinkTTL is how long a dashboard link may wait to be opened. Defaults to 15 minutes.
	LinkTTL time.Duration
	// SessionTTL is how long a dashboard session lasts. Defaults to 12 hours.
	SessionTTL time.Duration
	// Share has the other servers take a new token, where there are any; where it fails the token stays. Defaults to none.
	Share func(ctx context.Context, token string) error
}

func (c Config) withDefaults() Config {
	if c.LinkTTL == 0 {
		c.LinkTTL = 15 * time.Minute
	}
	if c.SessionTTL == 0 {
		c.SessionTTL = 12 * time.Hour
	}
	return c
}

func (c Config) validate() error {
	if c.TokenFile == "" {
		return errors.New("auth: Config needs TokenFile")
	}
	return nil
}

// Auth holds the token and the links that were handed out. Its methods may be called at the same time from many goroutines.
type Auth struct {
	cfg Config
	log *slog.Logger

	// replacing is held while the token is replaced, mu only while what follows changes.
	replacing sync.Mutex

	mu    sync.RWMutex
	token string
	links map[string]time.Time // by code: when it ends
	// valid ends when the token does, and with it what the token let in; expire ends it.
	valid  context.Context
	expire context.CancelCauseFunc
}

// New reads the token, or makes one.
func New(cfg Config, log *slog.Logger) (*Auth, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	token, err := loadToken(cfg.TokenFile)
	if err != nil {
		return nil, err
	}
	a := &Auth{cfg: cfg, log: log, token: token, links: map[string]time.Time{}}
	a.valid, a.expire = context.WithCancelCause(context.Background())
	return a, nil
}

// Token returns the token that is valid now.
func (a *Auth) Token() string {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.token
}

// Rotate makes a new token, durably, at every server. The old one, every session, every link and every request that they let in end with it.
func (a *Auth) Rotate(ctx context.Context) (string, error) {
	a.replacing.Lock()
	defer a.replacing.Unlock()
	t := newSecret()
	if a.cfg.Share != nil {
		if err := a.cfg.Share(ctx, t); err != nil {
			return "", err
		}
	}
	return t, a.replace(t)
}

// Adopt takes over the token that another server has made; one that is valid already changes nothing.
func (a *Auth) Adopt(token string) error {
	a.replacing.Lock()
	defer a.replacing.Unlock()
	if !isToken(token) {
		return fault.New(fault.CodeInternal, "what another server has made is no token")
	}
	if equal(token, a.Token()) {
		return nil
	}
	a.log.Info("another server has replaced the token")
	return a.replace(token)
}

// replace has another token be valid; a.replacing is held.
func (a *Auth) replace(t string) error {
	if err := storeToken(a.cfg.TokenFile, t); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.token = t
	clear(a.links)
	a.expire(fault.New(fault.CodeUnauthenticated, "the token was replaced").
		WithHint("on the server's machine, `tatami token show` prints the one that is valid"))
	a.valid, a.expire = context.WithCancelCause(context.Background())
	return nil
}

// life returns a context that ends when the token of now does.
func (a *Auth) life() context.Context {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.valid
}

// bearer reports whether the request carries the token, and whether it carries any.
func (a *Auth) bearer(r *http.Request) (valid, present bool) {
	scheme, given, ok := strings.Cut(r.Header.Get("Authorization"), " ")
	if !ok || !strings.EqualFold(scheme, "bearer") {
		return false, r.Header.Get("Authorization") != ""
	}
	return equal(strings.TrimSpace(given), a.Token()), true
}

// equal compares in a time that tells nothing of where two secrets differ, nor of their lengths.
func equal(a, b string) bool {
	x, y := sha256.Sum256([]byte(a)), sha256.Sum256([]byte(b))
	return subtle.ConstantTimeCompare(x[:], y[:]) == 1
}

func (a *Auth) public(path string) bool {
	return path == LoginPath || slices.Contains(a.cfg.Public, path)
}
