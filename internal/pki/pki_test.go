package pki_test

import (
	"crypto/tls"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/internal/fault"
	"github.com/tatami-faas/tatami/internal/pki"
)

var (
	server = pki.Subject{Role: pki.RoleServer, Name: "tatami-a"}
	worker = pki.Subject{Role: pki.RoleWorker, Name: "nod_a"}
)

func authority(t *testing.T) *pki.Authority {
	t.Helper()
	a, err := pki.NewAuthority(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// keeper shows a certificate of the authority that has so much of its life left.
func keeper(t *testing.T, a *pki.Authority, s pki.Subject, left time.Duration) *pki.Keeper {
	t.Helper()
	i, err := a.Identify(s, left, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	k := pki.NewKeeper()
	k.Install(i)
	return k
}

// meet connects two ends, and returns what the dialing and the listening one say of that.
func meet(t *testing.T, dials, listens *tls.Config) (dialed, listened error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	heard := make(chan error, 1)
	go func() {
		nc, err := l.Accept()
		if err == nil {
			defer nc.Close()
			c := tls.Server(nc, listens)
			if err = c.Handshake(); err == nil {
				_, err = io.WriteString(c, "x")
			}
		}
		heard <- err
	}()
	c, err := tls.Dial("tcp", l.Addr().String(), dials)
	if err == nil {
		// With TLS 1.3 whoever dials learns by the first read that it is refused.
		_, err = io.ReadFull(c, make([]byte, 1))
		c.Close()
	}
	return err, <-heard
}

func ignore(error) {}

func TestWhoIsLetIn(t *testing.T) {
	t.Parallel()
	own, other := authority(t), authority(t)
	listens := keeper(t, own, worker, time.Hour).Admit(pki.Only(pki.RoleServer), ignore)
	for name, c := range map[string]struct {
		dials *pki.Keeper
		says  string
	}{
		"a server":                      {keeper(t, own, server, time.Hour), ""},
		"a worker":                      {keeper(t, own, pki.Subject{Role: pki.RoleWorker, Name: "nod_b"}, time.Hour), "a server's is wanted"},
		"a server of another authority": {keeper(t, other, server, time.Hour), "another authority"},
		"one whose certificate ended":   {keeper(t, own, server, -time.Second), "ended at"},
	} {
		dials := c.dials.Reach(pki.Just(worker))
		// What it thinks of the listener is not looked at here.
		dials.VerifyConnection = nil
		if _, err := meet(t, dials, listens); c.says == "" && err != nil || c.says != "" && (!fault.Is(err, fault.CodeDenied) || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := meet(t, &tls.Config{InsecureSkipVerify: true}, listens); err == nil {
		t.Error("one without a certificate is let in")
	}
}

func TestWhoIsReached(t *testing.T) {
	t.Parallel()
	own, other := authority(t), authority(t)
	dials := keeper(t, own, server, time.Hour).Reach(pki.Just(worker))
	for name, c := range map[string]struct {
		listens *pki.Keeper
		says    string
	}{
		"the worker":              {keeper(t, own, worker, time.Hour), ""},
		"the worker of a node b":  {keeper(t, own, pki.Subject{Role: pki.RoleWorker, Name: "nod_b"}, time.Hour), "that of tatami://worker/nod_a is wanted"},
		"another authority's":     {keeper(t, other, worker, time.Hour), "another authority"},
		"one that ended":          {keeper(t, own, worker, -time.Second), "ended at"},
		"one that has not begun":  {later(t, own), "begins at"},
		"the worker, once more":   {keeper(t, own, worker, time.Hour), ""},
		"one without certificate": {pki.NewKeeper(), ""},
	} {
		dialed, listened := meet(t, dials, c.listens.Ask())
		switch {
		case strings.HasPrefix(name, "one without"):
			if !fault.Is(listened, fault.CodeUnavailable) {
				t.Errorf("%s: %v", name, listened)
			}
		case c.says == "" && dialed != nil || c.says != "" && (!fault.Is(dialed, fault.CodeDenied) || !strings.Contains(dialed.Error(), c.says)):
			t.Errorf("%s: %v", name, dialed)
		}
	}
}

// later shows a certificate that begins in an hour.
func later(t *testing.T, a *pki.Authority) *pki.Keeper {
	t.Helper()
	i, err := a.Identify(worker, time.Hour, time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	k := pki.NewKeeper()
	k.Install(i)
	return k
}

// Who has never met the authority knows it by its pin, and by nothing else.
func TestTheFirstContact(t *testing.T) {
	t.Parallel()
	own, other := authority(t), authority(t)
	var met *pki.Trust
	learn := func(tr *pki.Trust) { met = tr }
	if dialed, _ := meet(t, pki.Meet(own.Trust().Pin(), learn), keeper(t, own, server, time.Hour).Ask()); dialed != nil || met == nil || met.Pin() != own.Trust().Pin() {
		t.Errorf("%v, met %v", dialed, met)
	}
	for name, listens := range map[string]*pki.Keeper{
		"another authority": keeper(t, other, server, time.Hour), "a worker": keeper(t, own, worker, time.Hour), "one that ended": keeper(t, own, server, -time.Second),
	} {
		met = nil
		if dialed, _ := meet(t, pki.Meet(own.Trust().Pin(), learn), listens.Ask()); !fault.Is(dialed, fault.CodeDenied) || met != nil {
			t.Errorf("%s: %v, met %v", name, dialed, met)
		}
	}
}

// A certificate is replaced while connections go on, and the next ones show the new one.
func TestRotation(t *testing.T) {
	t.Parallel()
	a := authority(t)
	k := keeper(t, a, worker, time.Hour)
	listens, dials := k.Ask(), keeper(t, a, server, time.Hour).Reach(pki.Just(worker))
	l, err := tls.Listen("tcp", "127.0.0.1:0", listens)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(c, c); c.Close() }()
		}
	}()
	say := func(c *tls.Conn, what string) {
		t.Helper()
		buf := make([]byte, len(what))
		if _, err := io.WriteString(c, what); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, buf); err != nil || string(buf) != what {
			t.Fatalf("heard %q, %v", buf, err)
		}
	}
	first, err := tls.Dial("tcp", l.Addr().String(), dials.Clone())
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	say(first, "before")
	next, err := a.Identify(worker, time.Hour, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	k.Install(next)
	say(first, "after")
	dials.ClientSessionCache = nil
	second, err := tls.Dial("tcp", l.Addr().String(), dials)
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	say(second, "anew")
	if got := second.ConnectionState().PeerCertificates[0].SerialNumber.Text(16); got != next.Serial() {
		t.Errorf("the new connection was shown %s, not %s", got, next.Serial())
	}
}

// Who has the authority shows a new certificate before the one before ends.
func TestAnOwnKeeperRenewsItself(t *testing.T) {
	t.Parallel()
	a := authority(t)
	k := pki.NewOwnKeeper(func() *pki.Authority { return a }, server, time.Hour)
	one, err := k.Identity()
	if err != nil {
		t.Fatal(err)
	}
	if two, _ := k.Identity(); two != one {
		t.Error("it is made anew without need")
	}
	short := pki.NewOwnKeeper(func() *pki.Authority { return a }, server, time.Nanosecond)
	one, _ = short.Identity()
	if two, err := short.Identity(); err != nil || two == one {
		t.Errorf("it stays although it has ended: %v", err)
	}
}

func TestWhatIsKeptIsReadAgain(t *testing.T) {
	t.Parallel()
	a := authority(t)
	data, err := a.Encode()
	if err != nil {
		t.Fatal(err)
	}
	again, err := pki.ParseAuthority(data)
	if err != nil || again.Trust().Pin() != a.Trust().Pin() {
		t.Fatalf("%v", err)
	}
	i, err := again.Identify(worker, time.Hour, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if data, err = i.Encode(); err != nil {
		t.Fatal(err)
	}
	if got, err := pki.ParseIdentity(data); err != nil || got.Subject() != worker || got.Serial() != i.Serial() || !got.Until().Equal(i.Until()) {
		t.Errorf("%+v, %v", got, err)
	}
	if left := time.Until(i.RenewAt()); left < 39*time.Minute || left > 41*time.Minute {
		t.Errorf("of an hour it is renewed after %s", left)
	}
	if _, err := pki.ParseAuthority(data); err == nil {
		t.Error("a worker is taken for an authority")
	}
}

func TestRequestsThatAreNone(t *testing.T) {
	t.Parallel()
	a := authority(t)
	r, err := pki.NewRequest()
	if err != nil {
		t.Fatal(err)
	}
	bad := append([]byte(nil), r.DER...)
	bad[len(bad)-1] ^= 1
	for _, der := range [][]byte{nil, []byte("x"), bad} {
		if _, err := a.Sign(der, worker, time.Hour, time.Now()); !fault.Is(err, fault.CodeInvalidRequest) {
			t.Errorf("%d bytes: %v", len(der), err)
		}
	}
	chain, err := a.Sign(r.DER, worker, time.Hour, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	other, err := pki.NewRequest()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Identity(chain); err == nil {
		t.Error("the certificate is taken for another key's")
	}
	stranger, err := authority(t).Sign(r.DER, worker, time.Hour, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Identity([][]byte{chain[0], stranger[1]}); err == nil {
		t.Error("a chain of two authorities is taken")
	}
	if _, err := r.Identity(chain[:1]); err == nil {
		t.Error("half a chain is taken")
	}
}

// Whatever a file or a peer holds is refused with an error.
func FuzzParse(f *testing.F) {
	a, err := pki.NewAuthority(time.Now())
	if err != nil {
		f.Fatal(err)
	}
	if data, err := a.Encode(); err == nil {
		f.Add(data)
	}
	if i, err := a.Identify(worker, time.Hour, time.Now()); err == nil {
		data, _ := i.Encode()
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if a, err := pki.ParseAuthority(data); err == nil {
			if _, err := a.Encode(); err != nil {
				t.Error(err)
			}
		}
		if i, err := pki.ParseIdentity(data); err == nil {
			if _, err := i.Encode(); err != nil {
				t.Error(err)
			}
		}
		if _, err := a.Sign(data, worker, time.Hour, time.Now()); err != nil && fault.From(err) == nil {
			t.Errorf("%v does not say what is wrong", err)
		}
		_, _ = pki.ParseTrust(data)
	})
}
