package sigma

import "net/netip"

// AddrClass is what is known of an address whose text is opaque. The classes
// are disjoint; an address outside the special ones is AddrPublic4 or AddrPublic6.
type AddrClass uint8

// The classes of addresses.
const (
	AddrUnknown      AddrClass = iota // nothing is known
	AddrLoopback4                     // 127.0.0.0/8
	AddrLinkLocal4                    // 169.254.0.0/16
	AddrPrivate10                     // 10.0.0.0/8
	AddrPrivate172                    // 172.16.0.0/12
	AddrPrivate192                    // 192.168.0.0/16
	AddrShared                        // 100.64.0.0/10, carrier-grade NAT
	AddrMulticast4                    // 224.0.0.0/4
	AddrUnspecified4                  // 0.0.0.0
	AddrBroadcast                     // 255.255.255.255
	AddrPublic4                       // any other IPv4 address
	AddrLoopback6                     // ::1
	AddrLinkLocal6                    // fe80::/10
	AddrLocal6                        // fc00::/7, unique local addresses
	AddrMulticast6                    // ff00::/8
	AddrUnspecified6                  // ::
	AddrPublic6                       // any other IPv6 address
	addrClasses                       // number of classes
)

// special returns the prefix that a class is made of, or an invalid prefix.
func (c AddrClass) special() netip.Prefix {
	v4 := func(a, b byte, bits int) netip.Prefix {
		return netip.PrefixFrom(netip.AddrFrom4([4]byte{a, b}), bits)
	}
	v6 := func(a, b, last byte, bits int) netip.Prefix {
		return netip.PrefixFrom(netip.AddrFrom16([16]byte{0: a, 1: b, 15: last}), bits)
	}
	switch c {
	case AddrLoopback4:
		return v4(127, 0, 8)
	case AddrLinkLocal4:
		return v4(169, 254, 16)
	case AddrPrivate10:
		return v4(10, 0, 8)
	case AddrPrivate172:
		return v4(172, 16, 12)
	case AddrPrivate192:
		return v4(192, 168, 16)
	case AddrShared:
		return v4(100, 64, 10)
	case AddrMulticast4:
		return v4(224, 0, 4)
	case AddrUnspecified4:
		return v4(0, 0, 32)
	case AddrBroadcast:
		return netip.PrefixFrom(netip.AddrFrom4([4]byte{255, 255, 255, 255}), 32)
	case AddrLoopback6:
		return v6(0, 0, 1, 128)
	case AddrLinkLocal6:
		return v6(0xfe, 0x80, 0, 10)
	case AddrLocal6:
		return v6(0xfc, 0, 0, 7)
	case AddrMulticast6:
		return v6(0xff, 0, 0, 8)
	case AddrUnspecified6:
		return v6(0, 0, 0, 128)
	}
	return netip.Prefix{}
}

// ClassOf returns the class of a; an IPv4 address inside IPv6 counts as IPv4.
func ClassOf(a netip.Addr) AddrClass {
	if !a.IsValid() {
		return AddrUnknown
	}
	a = a.Unmap().WithZone("")
	for c := AddrUnknown + 1; c < addrClasses; c++ {
		if p := c.special(); p.IsValid() && p.Contains(a) {
			return c
		}
	}
	if a.Is4() {
		return AddrPublic4
	}
	return AddrPublic6
}

// In answers whether an address of class c lies in p: Yes when the whole class
// does, No when none of it does, CannotTell between the two.
func (c AddrClass) In(p netip.Prefix) Verdict {
	if !p.IsValid() {
		return No
	}
	p = unmapPrefix(p)
	if c == AddrPublic4 || c == AddrPublic6 {
		if p.Addr().Is4() != (c == AddrPublic4) {
			return No
		}
		if p.Bits() == 0 {
			return Yes
		}
		for s := AddrUnknown + 1; s < addrClasses; s++ {
			if q := s.special(); q.IsValid() && q.Overlaps(p) && q.Bits() <= p.Bits() {
				return No // p lies inside a special class
			}
		}
		return CannotTell
	}
	q := c.special()
	switch {
	case !q.IsValid():
		return CannotTell
	case !q.Overlaps(p):
		return No
	case p.Bits() <= q.Bits():
		return Yes
	}
	return CannotTell
}

// unmapPrefix turns a prefix of IPv4 addresses inside IPv6 into the IPv4 one.
func unmapPrefix(p netip.Prefix) netip.Prefix {
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p.Masked()
}
