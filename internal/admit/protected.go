package admit

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/counterseal/counterseal/internal/event"
)

// Protected is a compiled protected/v1 file: contacts with these channels are never
// recorded. The zero value and nil protect nothing. Once read it is immutable.
type Protected struct {
	words    Words
	kinds    []wordKind                  // by id in words
	prefixes map[int]map[netip.Addr]bool // by length; an address of the prefix is its key
	bits4    []int
	bits6    []int
	numbers  map[string]bool
	digest   [32]byte

	// clean holds names of fields that were looked at and name no channel. They come
	// again with every record.
	mu    sync.RWMutex
	clean map[string]bool
}

// maxClean bounds the names that are remembered.
const maxClean = 1 << 14

// inName looks at the name of a field.
func (p *Protected) inName(name string) bool {
	p.mu.RLock()
	clean := p.clean[name]
	p.mu.RUnlock()
	if clean {
		return false
	}
	if p.inText([]byte(name), true) {
		return true
	}
	p.mu.Lock()
	if p.clean == nil || len(p.clean) >= maxClean {
		p.clean = make(map[string]bool)
	}
	p.clean[name] = true
	p.mu.Unlock()
	return false
}

type wordKind uint8

const (
	nameWord wordKind = iota
	domainWord
	mailWord
)

type protectedFile struct {
	APIVersion string             `yaml:"apiVersion"`
	Channels   []protectedChannel `yaml:"channels"`
}

type protectedChannel struct {
	Name      string   `yaml:"name"`
	Kind      string   `yaml:"kind"`
	Domains   []string `yaml:"domains"`
	Addresses []string `yaml:"addresses"`
	Mails     []string `yaml:"mails"`
	Numbers   []string `yaml:"numbers"`
	Names     []string `yaml:"names"`
}

// ParseProtected reads a protected/v1 file:
//
//	apiVersion: protected/v1
//	channels:
//	  - name: inspector general hotline
//	    kind: inspector               # one of ChannelKinds; other without it
//	    domains: [oig.example]        # and everything below it
//	    addresses: [192.0.2.7/32, 2001:db8::7]
//	    mails: [hotline@agency.example]
//	    numbers: ["+1 202 555 0100"]  # compared by digits, with and without country code
//	    names: [Office of Inspector General]
//
// No bytes are no file: nothing is protected.
func ParseProtected(data []byte) (*Protected, error) {
	if len(data) == 0 {
		return &Protected{}, nil
	}
	f, err := readProtected(data)
	if err != nil {
		return nil, err
	}
	p, err := protect(f)
	if err != nil {
		return nil, err
	}
	p.digest = sha256.Sum256(data)
	return p, nil
}

// protect compiles what a list names.
func protect(f *protectedFile) (*Protected, error) {
	p := &Protected{prefixes: map[int]map[netip.Addr]bool{}, numbers: map[string]bool{}}
	for i, c := range f.Channels {
		if c.Kind != "" && !slices.Contains(ChannelKinds(), strings.TrimSpace(c.Kind)) {
			return nil, fmt.Errorf("protected file: channel %d: kind is one of %s", i+1, strings.Join(ChannelKinds(), ", "))
		}
		in := func(list string, j int, err error) error {
			return fmt.Errorf("protected file: channel %d, %s, entry %d: %w", i+1, list, j+1, err)
		}
		for j, d := range c.Domains {
			if err := p.addDomain(d); err != nil {
				return nil, in("domains", j, err)
			}
		}
		for j, a := range c.Addresses {
			if err := p.addAddress(a); err != nil {
				return nil, in("addresses", j, err)
			}
		}
		for j, m := range c.Mails {
			local, domain, ok := strings.Cut(strings.TrimSpace(m), "@")
			if !ok || local == "" || domain == "" {
				return nil, in("mails", j, fmt.Errorf("is not a mail address"))
			}
			for _, d := range bothForms(domain) {
				if err := p.addWord(local+"@"+d, mailWord); err != nil {
					return nil, in("mails", j, err)
				}
			}
		}
		for j, n := range c.Numbers {
			forms := PhoneForms(n)
			if forms == nil {
				return nil, in("numbers", j, fmt.Errorf("has not 7 to 15 digits"))
			}
			for _, form := range forms {
				p.numbers[form] = true
			}
		}
		for j, n := range c.Names {
			if TooShort(n) {
				return nil, in("names", j, fmt.Errorf("is too short to look for"))
			}
			if err := p.addWord(n, nameWord); err != nil {
				return nil, in("names", j, err)
			}
		}
	}
	return p, nil
}

// Digest is the SHA-256 of the file, hex, for the context; empty where no file is
// in force.
func (p *Protected) Digest() string {
	if p == nil || p.digest == ([32]byte{}) {
		return ""
	}
	return hex.EncodeToString(p.digest[:])
}

func (p *Protected) addWord(text string, k wordKind) error {
	if _, err := p.words.Add(text); err != nil {
		return err
	}
	p.kinds = append(p.kinds, k)
	return nil
}

func (p *Protected) addDomain(d string) error {
	d = strings.TrimPrefix(strings.TrimPrefix(strings.TrimSuffix(strings.TrimSpace(d), "."), "*"), ".")
	if !strings.ContainsRune(Fold(d), '.') || strings.ContainsAny(d, " /@:*\\") {
		return fmt.Errorf("is not a domain of two labels or more")
	}
	for _, form := range bothForms(d) {
		if err := p.addWord(form, domainWord); err != nil {
			return err
		}
	}
	return nil
}

// bothForms gives a domain in Unicode and in the xn-- form.
func bothForms(domain string) []string {
	u, a := toUnicode(Fold(domain)), toASCII(Fold(domain))
	if u == a {
		return []string{u}
	}
	return []string{u, a}
}

func (p *Protected) addAddress(s string) error {
	pre, err := netip.ParsePrefix(s)
	if err != nil {
		a, err := netip.ParseAddr(s)
		if err != nil {
			return fmt.Errorf("is not an address or prefix")
		}
		pre = netip.PrefixFrom(a.WithZone(""), a.BitLen())
	}
	if pre.Addr().Is4In6() {
		if pre.Bits() < 96 {
			return fmt.Errorf("is a prefix across IPv4 and IPv6")
		}
		pre = netip.PrefixFrom(pre.Addr().Unmap(), pre.Bits()-96)
	}
	pre = pre.Masked()
	key, bits := pre.Bits(), &p.bits4
	if pre.Addr().Is6() {
		key, bits = key+1000, &p.bits6
	}
	if p.prefixes[key] == nil {
		p.prefixes[key] = map[netip.Addr]bool{}
		*bits = append(*bits, pre.Bits())
	}
	p.prefixes[key][pre.Addr()] = true
	return nil
}

func (p *Protected) hasAddr(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	bits, base := p.bits4, 0
	if a.Is6() {
		bits, base = p.bits6, 1000
	}
	for _, n := range bits {
		if pre, err := a.Prefix(n); err == nil && p.prefixes[base+n][pre.Addr()] {
			return true
		}
	}
	return false
}

// Withhold reports whether a record is a contact with a protected channel: the
// record must then vanish before anything counts or numbers it. It looks at this
// record alone, in every value and name of a field, in bytes that no parser took,
// and at the peer.
func (p *Protected) Withhold(r *event.Record) bool {
	if p == nil || p.words.Len() == 0 && len(p.prefixes) == 0 && len(p.numbers) == 0 {
		return false
	}
	for i := range r.Fields {
		if p.inText(r.Fields[i].Value, false) || p.inName(r.Fields[i].Name) {
			return true
		}
	}
	return r.Peer != "" && p.inText([]byte(r.Peer), false)
}

// Mentions reports whether a text names a protected channel, for what is not a
// record: the name of a file to import, a line refused before it was parsed.
func (p *Protected) Mentions(text []byte) bool { return p != nil && p.inText(text, false) }

// inText looks at a text and at what it is without escapes. A path is a dotted name,
// where a dot ends a key of the source as well as a label of a domain.
func (p *Protected) inText(v []byte, path bool) bool {
	if len(v) < 3 {
		return false
	}
	if p.scan(v, path) {
		return true
	}
	plain, changed := unescaped(v)
	return changed && p.scan(plain, path)
}

func (p *Protected) scan(v []byte, path bool) bool {
	if p.words.Len() > 0 {
		v = Composed(v)
		var buf [8]Hit
		for i := 0; ; {
			start, next, hits := p.words.Next(buf[:0], v, i)
			if start < 0 {
				break
			}
			i = next
			for _, h := range hits {
				if p.stands(v, start, h, path) {
					return true
				}
			}
		}
	}
	return len(p.prefixes) > 0 && p.scanAddrs(v) || len(p.numbers) > 0 && p.scanNumbers(v)
}

// stands checks what is around a text that was found as whole words.
func (p *Protected) stands(v []byte, start int, h Hit, path bool) bool {
	switch p.kinds[h.ID] {
	case domainWord: // a dot before it is a sub-domain; a hyphen is another name
		if start > 0 && (v[start-1] == '-' || v[start-1] == '_') {
			return false
		}
	case mailWord:
		if start > 0 && bytes.IndexByte([]byte("._%+-"), v[start-1]) >= 0 && !(path && v[start-1] == '.') {
			return false
		}
	default:
		return true
	}
	// The domain ends here: not at a hyphen, and not where another label follows.
	if h.End < len(v) && (v[h.End] == '-' || v[h.End] == '_') {
		return false
	}
	if h.End < len(v) && !path {
		if r, n := decode(v[h.End:]); FoldRune(r) == '.' && WordAfter(v, h.End+n) {
			return false
		}
	}
	return true
}

func isAddrChar(c byte) bool {
	return c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'f' || c == '.' || c == ':'
}

func (p *Protected) scanAddrs(v []byte) bool {
	for i := 0; i < len(v); {
		if !isAddrChar(v[i]) {
			i++
			continue
		}
		start, sep := i, false
		for i < len(v) && isAddrChar(v[i]) {
			sep = sep || v[i] == '.' || v[i] == ':'
			i++
		}
		if sep && i-start >= 2 && p.addrRun(v[start:i], v[i:]) {
			return true
		}
	}
	return false
}

// addrRun looks at a run of characters of which addresses are made: an address with
// or without port, a time, a reversed address of the DNS.
func (p *Protected) addrRun(run, after []byte) bool {
	run = bytes.TrimRight(run, ".")
	if len(run) > 64 {
		return false
	}
	if n := bytes.Count(run, []byte{':'}); n >= 2 {
		s := string(run)
		for _, try := range []string{s, strings.TrimSuffix(s, ":"), strings.TrimPrefix(s, ":")} {
			if a, err := netip.ParseAddr(try); err == nil && p.hasAddr(a) {
				return true
			}
		}
	}
	for piece := range bytes.SplitSeq(run, []byte{':'}) {
		a, ok := quad(piece)
		if !ok {
			continue
		}
		if p.hasAddr(netip.AddrFrom4(a)) {
			return true
		}
		if len(after) >= 12 && bytes.EqualFold(after[:12], []byte("in-addr.arpa")) && p.hasAddr(netip.AddrFrom4([4]byte{a[3], a[2], a[1], a[0]})) {
			return true
		}
	}
	return false
}

// quad reads a dotted IPv4 address; leading zeros count as decimal.
func quad(b []byte) (a [4]byte, ok bool) {
	part, digits, v := 0, 0, 0
	for i := 0; i <= len(b); i++ {
		if i == len(b) || b[i] == '.' {
			if digits == 0 || part > 3 {
				return a, false
			}
			a[part] = byte(v)
			part, digits, v = part+1, 0, 0
			continue
		}
		if b[i] < '0' || b[i] > '9' || digits == 3 {
			return a, false
		}
		if v = v*10 + int(b[i]-'0'); v > 255 {
			return a, false
		}
		digits++
	}
	return a, part == 4
}

func (p *Protected) scanNumbers(v []byte) bool {
	var r NumberRun
	for i := 0; ; {
		if i = r.Next(v, i); i < 0 {
			return false
		}
		if _, _, ok := r.Find(p.numbers); ok {
			return true
		}
	}
}
