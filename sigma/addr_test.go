package sigma

import (
	"net/netip"
	"testing"
)

// TestAddrClassAgreesWithAddresses checks the class against real addresses: a
// class may say yes only if every address of it lies in the prefix, and no only
// if none does.
func TestAddrClassAgreesWithAddresses(t *testing.T) {
	addrs := []string{
		"127.0.0.1", "127.255.255.255", "169.254.1.1", "10.0.0.0", "10.255.255.255", "172.16.0.1", "172.31.255.255",
		"192.168.0.1", "192.168.255.1", "100.64.0.1", "224.0.0.1", "0.0.0.0", "255.255.255.255", "8.8.8.8", "11.0.0.1",
		"172.32.0.1", "::1", "fe80::1", "fd00::1", "fc00::1", "ff02::1", "::", "2001:db8::1", "::ffff:10.0.0.1", "64:ff9b::1",
	}
	prefixes := []string{
		"0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "0.0.0.0/1", "128.0.0.0/1", "172.16.0.0/12", "172.16.0.0/16", "192.168.0.0/16",
		"192.0.0.0/8", "8.8.8.0/24", "127.0.0.0/8", "127.0.0.1/32", "::/0", "::1/128", "fc00::/7", "fd00::/8", "fe80::/10",
		"2001:db8::/32", "ff00::/8", "::ffff:10.0.0.0/104", "255.255.255.255/32", "0.0.0.0/8",
	}
	byClass := map[AddrClass][]netip.Addr{}
	for _, a := range addrs {
		addr := netip.MustParseAddr(a).Unmap()
		byClass[ClassOf(addr)] = append(byClass[ClassOf(addr)], addr)
	}
	if len(byClass) != int(addrClasses)-1 {
		t.Errorf("the samples cover %d classes of %d", len(byClass), addrClasses-1)
	}
	for _, text := range prefixes {
		p := netip.MustParsePrefix(text)
		for class, members := range byClass {
			got := class.In(p)
			for _, a := range members {
				in := unmapPrefix(p).Contains(a)
				if got == Yes && !in || got == No && in {
					t.Errorf("class %d in %s says %v, and %s is there: %v", class, p, got, a, in)
				}
			}
		}
		if got := AddrUnknown.In(p); got != CannotTell {
			t.Errorf("an unknown address in %s: %v", p, got)
		}
	}
	for _, c := range []struct {
		class  AddrClass
		prefix string
		want   Verdict
	}{
		{AddrPrivate10, "10.0.0.0/8", Yes}, {AddrPrivate10, "10.0.0.0/9", CannotTell}, {AddrPrivate10, "0.0.0.0/0", Yes},
		{AddrPrivate10, "::/0", No}, {AddrPublic4, "0.0.0.0/0", Yes}, {AddrPublic4, "10.2.0.0/16", No},
		{AddrPublic4, "0.0.0.0/1", CannotTell}, {AddrPublic6, "::/0", Yes}, {AddrPublic6, "fc00::/8", No},
		{AddrLocal6, "fc00::/7", Yes}, {AddrLocal6, "fd00::/8", CannotTell},
	} {
		if got := c.class.In(netip.MustParsePrefix(c.prefix)); got != c.want {
			t.Errorf("class %d in %s: %v, want %v", c.class, c.prefix, got, c.want)
		}
	}
}
