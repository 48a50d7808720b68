package sigma

import (
	"bytes"
	"net/netip"
)

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

// parseAddr reads an address as netip.ParseAddr does, without a zone, with IPv4
// inside IPv6 as IPv4, and without allocating; the zero Addr is none.
func parseAddr(b []byte) netip.Addr {
	for _, c := range b {
		switch c {
		case '.':
			if a, ok := parseAddr4(b); ok {
				return a
			}
			return netip.Addr{}
		case ':':
			if z := bytes.IndexByte(b, '%'); z >= 0 {
				if z == len(b)-1 {
					return netip.Addr{}
				}
				b = b[:z]
			}
			return parseAddr6(b)
		case '%':
			return netip.Addr{}
		}
	}
	return netip.Addr{}
}

func parseAddr4(b []byte) (netip.Addr, bool) {
	var a [4]byte
	for i := range a {
		n, digits := 0, 0
		for len(b) > 0 && '0' <= b[0] && b[0] <= '9' {
			if digits > 0 && n == 0 {
				return netip.Addr{}, false // a leading zero
			}
			if n = 10*n + int(b[0]-'0'); n > 255 {
				return netip.Addr{}, false
			}
			digits++
			b = b[1:]
		}
		if digits == 0 {
			return netip.Addr{}, false
		}
		a[i] = byte(n)
		if i < 3 {
			if len(b) == 0 || b[0] != '.' {
				return netip.Addr{}, false
			}
			b = b[1:]
		}
	}
	return netip.AddrFrom4(a), len(b) == 0
}

func parseAddr6(b []byte) netip.Addr {
	var a [16]byte
	n, gap := 0, -1 // bytes read, and where the :: stands
	if len(b) >= 2 && b[0] == ':' && b[1] == ':' {
		gap = 0
		b = b[2:]
	}
	for len(b) > 0 {
		if n == 16 {
			return netip.Addr{}
		}
		group, digits := 0, 0
		for digits < len(b) && hexDigit(b[digits]) >= 0 {
			if digits == 4 {
				return netip.Addr{}
			}
			group = group<<4 | hexDigit(b[digits])
			digits++
		}
		if digits == 0 {
			return netip.Addr{}
		}
		if digits < len(b) && b[digits] == '.' {
			four, ok := parseAddr4(b)
			if !ok || n > 12 || gap < 0 && n != 12 {
				return netip.Addr{}
			}
			v := four.As4()
			n += copy(a[n:], v[:])
			break
		}
		a[n], a[n+1] = byte(group>>8), byte(group)
		n += 2
		if b = b[digits:]; len(b) == 0 {
			break
		}
		if b[0] != ':' || len(b) == 1 {
			return netip.Addr{}
		}
		if b = b[1:]; b[0] == ':' {
			if gap >= 0 {
				return netip.Addr{}
			}
			gap = n
			b = b[1:]
		}
	}
	switch {
	case n < 16 && gap < 0 || n == 16 && gap >= 0:
		return netip.Addr{}
	case n < 16:
		copy(a[16-(n-gap):], a[gap:n])
		clear(a[gap : 16-(n-gap)])
	}
	return netip.AddrFrom16(a).Unmap()
}

func hexDigit(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}
