package process

import (
	"net"
	"strconv"
	"testing"
)

func TestQuietPorts(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ first, last, from, to int }{
		"usual":                   {32768, 60999, 10000, 32768},
		"all above the lowest":    {10000, 65535, 10000, 65536},
		"all of them":             {1024, 65535, 10000, 65536},
		"above":                   {1024, 40000, 40001, 65536},
		"not said":                {0, 0, 10000, 65536},
		"little room, both sides": {10050, 65500, 10000, 65536},
	} {
		if from, to := quietPorts(c.first, c.last); from != c.from || to != c.to {
			t.Errorf("%s: %d to %d, want %d to %d", name, from, to, c.from, c.to)
		}
	}
}

func TestFreeAddr(t *testing.T) {
	t.Parallel()
	addr, err := FreeAddr("")
	if err != nil || !nobodyAt(addr) {
		t.Fatalf("FreeAddr: %q, %v", addr, err)
	}
	if got, err := FreeAddr(addr); err != nil || got != addr {
		t.Errorf("FreeAddr of one that is free: %q, %v, want %q", got, err, addr)
	}
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	from, to := quietPorts(outgoingPorts())
	if n, err := strconv.Atoi(port); err != nil || n < from || n >= to {
		t.Errorf("FreeAddr: %q, want a port from %d to before %d", addr, from, to)
	}
	taken, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	if got, err := FreeAddr(addr); err != nil || got == addr {
		t.Errorf("FreeAddr of one that is taken: %q, %v", got, err)
	}
}
