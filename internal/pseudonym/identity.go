package pseudonym

import (
	"bytes"
	"net/netip"
	"strconv"
	"strings"

	"github.com/counterseal/counterseal/internal/admit"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/sigma"
)

// whole replaces the value of a field that is one identity, and remembers the
// identity for the text of the record. It is false where the value stays.
func (p *Pseudonymiser) whole(r *record, f *event.Field, h hint) bool {
	v := f.Value
	if len(bytes.TrimSpace(v)) == 0 || f.Kind == event.Bool {
		return false
	}
	before := len(r.clear)
	out, class := p.identity(r, v, h)
	if out == nil {
		r.clear = r.clear[:before]
		return false
	}
	f.Value, f.Addr, f.Kind = out, class, event.String
	return true
}

// identity gives what stands for a value, or nil where the value stays. The shape
// decides where it speaks for itself (token, SID, address, DOMAIN\name, mail), the
// category where it does not.
func (p *Pseudonymiser) identity(r *record, v []byte, h hint) ([]byte, event.AddrClass) {
	if looksForged(v) {
		return p.alone(r, v, event.Person, admit.Fold(string(v))), 0
	}
	if h != hintPhone && h != hintMail {
		if out, class, ok := p.address(r, v); ok {
			if string(out) == string(v) {
				return nil, 0
			}
			return out, class
		}
	}
	if h == hintAddress {
		if bytes.IndexByte(v, ',') >= 0 {
			return p.list(r, v, h), 0
		}
		if isServiceHost(v) {
			return nil, 0
		}
		h = hintDevice
	}
	if h == hintPhone {
		if forms := admit.PhoneForms(string(v)); forms != nil {
			return p.alone(r, v, event.Person, p.phoneCanonical(forms)), 0
		}
	}
	trimmed := bytes.TrimSpace(v)
	if h == hintMail {
		if bytes.IndexByte(v, ',') >= 0 || bytes.IndexByte(v, ';') >= 0 {
			return p.list(r, v, h), 0
		}
		// Alice Example <alice@home.example>: the address says who it is.
		if i := bytes.IndexByte(trimmed, '<'); i >= 0 && trimmed[len(trimmed)-1] == '>' && len(trimmed)-i > 2 {
			if name := bytes.Trim(trimmed[:i], " \"'"); len(name) > 0 {
				p.name(r, name) // remembered, so that the text does not show it
			}
			trimmed = bytes.TrimSpace(trimmed[i+1 : len(trimmed)-1])
		}
		if len(trimmed) == 0 {
			return nil, 0
		}
	}
	if end, ok := sidAt(trimmed, 0); ok && end == len(trimmed) {
		return p.sid(r, trimmed), 0
	}
	if d, name, ok := splitDomain(trimmed); ok {
		return p.qualified(r, trimmed, d, name), 0
	}
	if i := bytes.IndexByte(trimmed, '/'); i > 0 && i < len(trimmed)-1 && bytes.IndexByte(trimmed[i+1:], '/') < 0 && p.knownDomain(r, trimmed[:i]) {
		return p.qualified(r, trimmed, trimmed[:i], trimmed[i+1:]), 0 // CORP/alice
	}
	if bytes.HasPrefix(trimmed, []byte("arn:")) {
		return p.arn(r, trimmed), 0
	}
	if h == hintDevice {
		return p.device(r, trimmed), 0
	}
	if at := bytes.LastIndexByte(trimmed, '@'); at > 0 && at < len(trimmed)-1 {
		return p.mail(r, trimmed, at), 0
	}
	if isMachine(trimmed) {
		return p.machine(r, trimmed), 0
	}
	return p.name(r, trimmed), 0
}

// alone gives the token of a canonical text and remembers v for the record's text.
func (p *Pseudonymiser) alone(r *record, v []byte, k event.TokenKind, canonical string) []byte {
	t := p.token(r, k, canonical)
	r.remember(v, t, k == event.Address)
	return []byte(t)
}

// remember lists an identity of the record. Short ones and short numbers are left
// out: a user "7" would be found in every line.
func (r *record) remember(v []byte, t event.Token, address bool) {
	if len(r.idents) >= 64 || len(v) > maxCachedKey || t == "" {
		return
	}
	folded := admit.Fold(string(v))
	if admit.TooShort(folded) || len(folded) < 5 && strings.Trim(folded, "0123456789") == "" {
		return
	}
	for i := range r.idents {
		if r.idents[i].folded == folded {
			return
		}
	}
	r.idents = append(r.idents, ident{folded, t, address})
	r.first[folded[0]] = true
}

// name gives the token of an account or display name without domain.
func (p *Pseudonymiser) name(r *record, v []byte) []byte {
	t, stay := p.person(r, v)
	if stay {
		return nil
	}
	r.remember(v, t, false)
	return []byte(t)
}

// person asks the cache, the words that stay, the directory, and then the tokenizer.
func (p *Pseudonymiser) person(r *record, v []byte) (event.Token, bool) {
	if r.salt == "" {
		if hit, ok := p.people.get(v); ok {
			return event.Token(hit.text), hit.stay
		}
	}
	n := admit.Fold(string(v))
	if isStayName(n) {
		p.people.put(string(v), cached{stay: true})
		return "", true
	}
	t := p.token(r, event.Person, p.canonicalName(n))
	if r.salt == "" && r.rejected == nil {
		p.people.put(string(v), cached{text: string(t)})
	}
	return t, false
}

// canonicalName joins the names of one person of the directory. A distinguished name
// is looked up by its first part.
func (p *Pseudonymiser) canonicalName(n string) string {
	if who := p.dir.names[n]; who != nil {
		return who.canonical
	}
	if cn, ok := strings.CutPrefix(n, "cn="); ok {
		cn, _, _ = strings.Cut(cn, ",")
		if who := p.dir.names[cn]; who != nil {
			return who.canonical
		}
	}
	if who := p.dir.mails[n]; who != nil {
		return who.canonical
	}
	return n
}

// splitDomain cuts DOMAIN\name. The backslash may be doubled, as JSON in text has
// it; \\server\share is no account.
func splitDomain(v []byte) (domain, name []byte, ok bool) {
	i := bytes.IndexByte(v, '\\')
	if i < 0 || i == 0 && len(v) > 1 && v[1] == '\\' || i > 255 {
		return nil, nil, false
	}
	j := i + 1
	if j < len(v) && v[j] == '\\' {
		j++
	}
	if j == len(v) || bytes.IndexByte(v[j:], '\\') >= 0 || bytes.IndexByte(v[:i], ':') >= 0 || bytes.IndexByte(v[:i], '/') >= 0 {
		return nil, nil, false
	}
	return v[:i], v[j:], true
}

// qualified keeps DOMAIN\ and replaces the name. What is kept is text like any
// other, since a domain may be the name of a personal device.
func (p *Pseudonymiser) qualified(r *record, v, domain, name []byte) []byte {
	if stayDomains[admit.Fold(string(domain))] {
		return nil
	}
	var out []byte
	if isMachine(name) {
		out = p.machine(r, name)
	} else if at := bytes.LastIndexByte(name, '@'); at > 0 && at < len(name)-1 {
		out = p.mail(r, name, at)
	} else {
		out = p.name(r, name)
	}
	if out == nil {
		return nil
	}
	keep := len(v) - len(name)
	r.keep(0, keep)
	return append(bytes.Clone(v[:keep]), out...)
}

// arn keeps the front of an ARN of AWS and replaces the user or session name at its
// end: rules ask for :root and for the kind of the resource.
func (p *Pseudonymiser) arn(r *record, v []byte) []byte {
	cut := bytes.LastIndexByte(v, '/') + 1
	if cut == 0 || cut == len(v) {
		return nil
	}
	name := v[cut:]
	var out []byte
	if at := bytes.LastIndexByte(name, '@'); at > 0 && at < len(name)-1 {
		out = p.mail(r, name, at)
	} else {
		out = p.name(r, name)
	}
	if out == nil {
		return nil
	}
	r.keep(0, cut)
	return append(bytes.Clone(v[:cut]), out...)
}

// mail gives the token of a mail address or UPN: of the person, where the directory
// or a known domain says who it is, else of the whole address.
func (p *Pseudonymiser) mail(r *record, v []byte, at int) []byte {
	t, stay := p.mailToken(r, v, at)
	if stay {
		return nil
	}
	r.remember(v, t, false)
	if t != "" && t[0] == byte(event.Person) && p.knownDomain(r, v[at+1:]) {
		r.remember(v[:at], t, false)
	}
	return []byte(t)
}

func (p *Pseudonymiser) mailToken(r *record, v []byte, at int) (t event.Token, stay bool) {
	if len(p.dir.mails) > 0 {
		if who := p.dir.mails[admit.Fold(string(v))]; who != nil {
			return p.token(r, event.Person, who.canonical), false
		}
	}
	local := v[:at]
	if p.knownDomain(r, v[at+1:]) {
		if isMachine(local) && !p.dir.devices[deviceName(admit.Fold(string(local)))] {
			return "", true
		}
		return p.person(r, local)
	}
	return p.token(r, event.Mail, admit.Fold(string(v))), false
}

// isMachine tells the form of a machine or group-managed account: a name and $.
func isMachine(v []byte) bool {
	n := len(v)
	if n < 2 || n > 64 || v[n-1] != '$' {
		return false
	}
	for _, c := range v[:n-1] {
		if !isNameChar(c) || c == '$' {
			return false
		}
	}
	return true
}

// machine keeps an account with a trailing $, unless it is a personal device: then
// its name is a token and the $ stays.
func (p *Pseudonymiser) machine(r *record, v []byte) []byte {
	n := deviceName(admit.Fold(string(v)))
	if !p.dir.devices[n] {
		return nil
	}
	t := p.token(r, event.Device, n)
	r.remember(v[:len(v)-1], t, false)
	return append([]byte(t), '$')
}

// device gives the token of a device: host name, serial, identifier.
func (p *Pseudonymiser) device(r *record, v []byte) []byte {
	lead := 0
	for lead < len(v) && v[lead] == '\\' {
		lead++
	}
	body := v[lead:]
	n := deviceName(admit.Fold(string(body)))
	if n == "" || isStayName(n) {
		return nil
	}
	if host, domain, ok := strings.Cut(n, "."); ok && host != "" {
		short, _, _ := strings.Cut(domain, ".") // CORP is corp.example
		if p.knownDomain(r, []byte(domain)) || p.knownDomain(r, []byte(short)) {
			n = host
		}
	}
	t := p.token(r, event.Device, n)
	r.remember(body, t, false)
	r.remember([]byte(n), t, false)
	out := append(bytes.Clone(v[:lead]), t...)
	if body[len(body)-1] == '$' {
		out = append(out, '$')
	}
	return out
}

// deviceName takes off what is written after a folded device name.
func deviceName(folded string) string {
	return strings.TrimSuffix(strings.TrimSuffix(folded, "$"), ".")
}

func (p *Pseudonymiser) phoneCanonical(forms []string) string {
	for _, f := range forms {
		if who := p.dir.phones[f]; who != nil {
			return who.canonical
		}
	}
	return "tel:" + forms[0]
}

// list replaces each entry of a list: X-Forwarded-For, the recipients of a mail.
func (p *Pseudonymiser) list(r *record, v []byte, h hint) []byte {
	var out []byte
	changed := false
	for len(v) > 0 {
		part := v
		sep := bytes.IndexAny(v, ",;")
		if sep >= 0 {
			part = v[:sep]
		}
		if t := bytes.TrimSpace(part); len(t) > 0 {
			before := len(r.clear)
			if with, _ := p.identity(r, t, h); with != nil {
				for j := before; j < len(r.clear); j++ {
					r.clear[j].from += len(out)
					r.clear[j].to += len(out)
				}
				out, changed = append(out, with...), true
			} else {
				r.clear = r.clear[:before]
				r.keep(len(out), len(out)+len(t))
				out = append(out, t...)
			}
		}
		if sep < 0 {
			break
		}
		out = append(out, v[sep])
		v = v[sep+1:]
	}
	if !changed {
		return nil
	}
	return out
}

// keep notes that a part of the value at hand stays in clear. It is text like any
// other, and is searched once all identities of the record are known.
func (r *record) keep(from, to int) { r.clear = append(r.clear, clearPart{r.field, from, to}) }

// kept searches the clear parts of a field whose rest is tokens.
//
// Parts of a field stand in order and do not overlap.
func (p *Pseudonymiser) kept(r *record, field int, v []byte) []byte {
	var out []byte
	pos := 0
	for _, c := range r.clear {
		if c.field != field {
			continue
		}
		was := v[c.from:c.to]
		is := p.text(r, was)
		if len(is) == len(was) && &is[0] == &was[0] {
			continue
		}
		out = append(append(out, v[pos:c.from]...), is...)
		pos = c.to
	}
	if out == nil {
		return v
	}
	return append(out, v[pos:]...)
}

// isServiceHost tells the names of cloud services that stand where an address is
// expected: 327 of 2,285 CloudTrail records have one.
func isServiceHost(v []byte) bool {
	s := strings.ToLower(string(v))
	return strings.HasSuffix(s, ".amazonaws.com") || strings.HasSuffix(s, ".googleapis.com") || s == "aws internal" || s == "local"
}

// address reads a whole value as an address with or without port, and gives its
// token and class. Loopback, unspecified, broadcast and multicast stay: out is v.
func (p *Pseudonymiser) address(r *record, v []byte) (out []byte, class event.AddrClass, ok bool) {
	if len(v) < 2 || len(v) > 80 {
		return nil, 0, false
	}
	c := v[0]
	if c != '[' && c != ':' && (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'f') || bytes.IndexByte(v, '.') < 0 && bytes.IndexByte(v, ':') < 0 {
		return nil, 0, false
	}
	s := string(v)
	port := ""
	if s[0] == '[' && s[len(s)-1] == ']' {
		s = s[1 : len(s)-1]
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		ap, err := netip.ParseAddrPort(s)
		if err != nil {
			return nil, 0, false
		}
		a, port = ap.Addr(), ":"+strconv.Itoa(int(ap.Port()))
	}
	a = a.Unmap().WithZone("")
	if a.IsLoopback() || a.IsUnspecified() || a.IsMulticast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return v, 0, true
	}
	canonical := a.String()
	t := p.token(r, event.Address, canonical)
	r.remember([]byte(canonical), t, true)
	if port == "" && string(v) != canonical {
		r.remember(v, t, true)
	}
	if port != "" {
		return append([]byte(t), port...), 0, true
	}
	return []byte(t), event.AddrClass(sigma.ClassOf(a)), true
}

// sidAt finds the end of a SID that begins at i.
func sidAt(v []byte, i int) (end int, ok bool) {
	if i+5 > len(v) || v[i]|0x20 != 's' || v[i+1] != '-' || v[i+2] != '1' || v[i+3] != '-' {
		return 0, false
	}
	j := i + 4
	for groups := 0; groups < 17; groups++ {
		k := j
		for k < len(v) && v[k] >= '0' && v[k] <= '9' {
			k++
		}
		if k == j {
			break
		}
		end, ok = k, true
		if k >= len(v) || v[k] != '-' {
			break
		}
		j = k + 1
	}
	return end, ok
}

// sid replaces the part of a SID that names somebody, and keeps the shape: rules ask
// for the prefix S-1-5-21- and for RIDs below 1000. nil where it names nobody.
func (p *Pseudonymiser) sid(r *record, v []byte) []byte {
	prefix, t, suffix := p.sidParts(r, v)
	if t == "" {
		return nil
	}
	// Not remembered: text is searched for SIDs by shape, and keeps their shape.
	out := make([]byte, 0, len(prefix)+len(t)+len(suffix))
	return append(append(append(out, prefix...), t...), suffix...)
}

// sidParts gives what is kept before and after the token.
func (p *Pseudonymiser) sidParts(r *record, v []byte) (prefix []byte, t event.Token, suffix []byte) {
	n := 0
	for _, pre := range [...]string{"S-1-5-21-", "S-1-12-1-", "S-1-11-96-"} {
		if len(v) > len(pre) && strings.EqualFold(string(v[:len(pre)]), pre) {
			n = len(pre)
		}
	}
	if n == 0 {
		return nil, "", nil
	}
	prefix = v[:n]
	whole := strings.ToUpper(string(v))
	if who := p.dir.sids[whole]; who != nil {
		return prefix, p.token(r, event.Person, who.canonical), nil
	}
	if whole[:n] == "S-1-5-21-" {
		switch rest := v[n:]; bytes.Count(rest, []byte{'-'}) {
		case 2: // the domain itself
			return prefix, p.token(r, event.Device, "sid:"+string(rest)), nil
		case 3:
			cut := bytes.LastIndexByte(rest, '-')
			if rid := rest[cut+1:]; len(rid) <= 3 {
				return prefix, p.token(r, event.Device, "sid:"+string(rest[:cut])), rest[cut:]
			}
		}
	}
	return prefix, p.token(r, event.Person, whole), nil
}
