//go:build linux

package egress

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// rules is what the table holds for one state of the host.
type rules struct {
	// prefix begins the names of our devices.
	prefix string
	cfg    Config
	dns    []netip.Addr
	// opened are the devices on which forwarding was off before us.
	opened []string
}

// The chains, each with what its packets have in common.
const (
	chainForward  = "forward"
	chainInput    = "input"
	chainFrom     = "from_sandbox"
	chainTo       = "to_sandbox"
	chainNATs     = "masquerade"
	dnsPort       = 53
	ipv4Source    = 12
	ipv4Target    = 16
	portTarget    = 2
	adminProhibit = unix.NFT_REJECT_ICMPX_ADMIN_PROHIBITED
)

// chains lists every chain's rules, in order.
func (r rules) chains() map[string][][]expr.Any {
	from := [][]expr.Any{
		// IPv4 only, and no address but the one that the link has.
		join(notIPv4(), drop()),
		join(foreignSource(), drop()),
		join(established(), accept()),
		join(outputTo(r.prefix), reject()),
	}
	input := [][]expr.Any{}
	for _, a := range r.dns {
		for _, proto := range []byte{unix.IPPROTO_UDP, unix.IPPROTO_TCP} {
			query := join(target(netip.PrefixFrom(a, 32)), protocol(proto), port(dnsPort), accept())
			from = append(from, query)
			// A nameserver on an address of the host itself.
			input = append(input, join(inputFrom(r.prefix), notForeignSource(), query))
		}
	}
	for _, p := range r.cfg.Allow {
		from = append(from, join(target(p), accept()))
	}
	for _, p := range r.cfg.closed() {
		from = append(from, join(target(p), reject()))
	}
	forward := [][]expr.Any{
		join(inputFrom(r.prefix), jump(chainFrom)),
		join(outputTo(r.prefix), jump(chainTo)),
	}
	for _, name := range r.opened {
		// The host forwarded nothing from there before.
		forward = append(forward, join(inputFrom(name+"\x00"), notFrom(r.prefix), notTo(r.prefix), drop()))
	}
	return map[string][][]expr.Any{
		chainForward: forward,
		chainFrom:    from,
		chainTo:      {join(established(), accept()), drop()},
		chainInput:   append(input, join(inputFrom(r.prefix), reject())),
		chainNATs:    {join(source(r.cfg.Range), notTo(r.prefix), []expr.Any{&expr.Masq{}})},
	}
}

// tableName is the table's, in the family inet.
func (r rules) tableName() string { return "tatami_" + r.prefix[len(namePrefix):] }

// write puts the table in place of the one that may be there, all at once.
func (r rules) write() error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("speak with nftables: %w", err)
	}
	t := &nftables.Table{Name: r.tableName(), Family: nftables.TableFamilyINet}
	c.AddTable(t)
	c.DelTable(t)
	c.AddTable(t)
	made := map[string]*nftables.Chain{}
	for name := range r.chains() {
		ch := &nftables.Chain{Name: name, Table: t}
		switch name {
		case chainForward:
			ch.Type, ch.Hooknum, ch.Priority = nftables.ChainTypeFilter, nftables.ChainHookForward, nftables.ChainPriorityFilter
		case chainInput:
			ch.Type, ch.Hooknum, ch.Priority = nftables.ChainTypeFilter, nftables.ChainHookInput, nftables.ChainPriorityFilter
		case chainNATs:
			ch.Type, ch.Hooknum, ch.Priority = nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource
		}
		made[name] = c.AddChain(ch)
	}
	for name, list := range r.chains() {
		for _, exprs := range list {
			c.AddRule(&nftables.Rule{Table: t, Chain: made[name], Exprs: exprs})
		}
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("write the nftables table %s: %w", t.Name, err)
	}
	return nil
}

// intact reports whether the table has all its rules. Another program may have flushed them.
func (r rules) intact() (bool, error) {
	c, err := nftables.New()
	if err != nil {
		return false, err
	}
	t := &nftables.Table{Name: r.tableName(), Family: nftables.TableFamilyINet}
	for name, want := range r.chains() {
		have, err := c.GetRules(t, &nftables.Chain{Name: name, Table: t})
		if errors.Is(err, unix.ENOENT) {
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("read the nftables table %s: %w", t.Name, err)
		}
		if len(have) != len(want) {
			return false, nil
		}
	}
	return true, nil
}

// remove takes the table away; none is no error.
func (r rules) remove() error {
	c, err := nftables.New()
	if err != nil {
		return err
	}
	t := &nftables.Table{Name: r.tableName(), Family: nftables.TableFamilyINet}
	c.AddTable(t)
	c.DelTable(t)
	if err := c.Flush(); err != nil {
		return fmt.Errorf("remove the nftables table %s: %w", t.Name, err)
	}
	return nil
}

func join(parts ...[]expr.Any) []expr.Any {
	var out []expr.Any
	for _, p := range parts {
		out = append(out, p...)
	}
	return out
}

func compare(op expr.CmpOp, with []byte) expr.Any { return &expr.Cmp{Op: op, Register: 1, Data: with} }

// device compares the beginning of a device's name; with a NUL at its end that is the whole name.
func device(key expr.MetaKey, op expr.CmpOp, name string) []expr.Any {
	return []expr.Any{&expr.Meta{Key: key, Register: 1}, compare(op, []byte(name))}
}

func inputFrom(name string) []expr.Any { return device(expr.MetaKeyIIFNAME, expr.CmpOpEq, name) }
func notFrom(name string) []expr.Any   { return device(expr.MetaKeyIIFNAME, expr.CmpOpNeq, name) }
func outputTo(name string) []expr.Any  { return device(expr.MetaKeyOIFNAME, expr.CmpOpEq, name) }
func notTo(name string) []expr.Any     { return device(expr.MetaKeyOIFNAME, expr.CmpOpNeq, name) }

func notIPv4() []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1}, compare(expr.CmpOpNeq, []byte{unix.NFPROTO_IPV4})}
}

func protocol(p byte) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, compare(expr.CmpOpEq, []byte{p})}
}

func port(n uint16) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: portTarget, Len: 2},
		compare(expr.CmpOpEq, binary.BigEndian.AppendUint16(nil, n)),
	}
}

// routeBack looks up the device to which an answer would go; a rule about it compares with none.
func routeBack(op expr.CmpOp) []expr.Any {
	return []expr.Any{&expr.Fib{Register: 1, FlagSADDR: true, FlagIIF: true, ResultOIF: true}, compare(op, make([]byte, 4))}
}

func foreignSource() []expr.Any    { return routeBack(expr.CmpOpEq) }
func notForeignSource() []expr.Any { return join(ipv4(), routeBack(expr.CmpOpNeq)) }

func ipv4() []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1}, compare(expr.CmpOpEq, []byte{unix.NFPROTO_IPV4})}
}

func established() []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATE, Register: 1},
		&expr.Bitwise{
			SourceRegister: 1, DestRegister: 1, Len: 4,
			Mask: binaryutil.NativeEndian.PutUint32(expr.CtStateBitESTABLISHED | expr.CtStateBitRELATED), Xor: make([]byte, 4),
		},
		compare(expr.CmpOpNeq, make([]byte, 4)),
	}
}

func address(offset uint32, p netip.Prefix) []expr.Any {
	mask := binary.BigEndian.AppendUint32(nil, ^uint32(0)<<(32-p.Bits()))
	return join(ipv4(), []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 4},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: mask, Xor: make([]byte, 4)},
		compare(expr.CmpOpEq, p.Masked().Addr().AsSlice()),
	})
}

func target(p netip.Prefix) []expr.Any { return address(ipv4Target, p) }
func source(p netip.Prefix) []expr.Any { return address(ipv4Source, p) }

func accept() []expr.Any { return []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}} }
func drop() []expr.Any   { return []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}} }

func jump(chain string) []expr.Any {
	return []expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: chain}}
}

// reject lets a connection fail at once.
func reject() []expr.Any {
	return []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: adminProhibit}}
}
