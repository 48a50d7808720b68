package pseudonym

import (
	"bytes"
	"slices"
	"unicode/utf8"

	"github.com/counterseal/counterseal/internal/admit"
	"github.com/counterseal/counterseal/internal/event"
)

// text replaces identities inside a text that the PIA lets in. Where it finds none it
// returns v itself and has allocated nothing.
func (p *Pseudonymiser) text(r *record, v []byte) []byte {
	if len(v) < 3 {
		return v
	}
	composed := admit.Composed(v) // a decomposed name is found in NFC, and written so
	spans := p.find(r, r.spans[:0], composed)
	if len(spans) == 0 {
		r.spans = spans
		return v
	}
	out := splice(composed, spans)
	r.spans = spans[:0]
	return out
}

// dotted is text for a dotted name: it is searched as a whole and each segment by
// itself, where a dot before or after says nothing.
func (p *Pseudonymiser) dotted(r *record, v []byte) []byte {
	v = admit.Composed(v)
	spans := p.find(r, nil, v)
	for from := 0; from < len(v); {
		end := len(v)
		if i := bytes.IndexByte(v[from:], '.'); i >= 0 {
			end = from + i
		}
		for _, s := range p.find(r, nil, v[from:end]) {
			spans = append(spans, span{s.start + from, s.end + from, s.token})
		}
		from = end + 1
	}
	return splice(v, spans)
}

// find appends all that is looked for in text, in no order.
func (p *Pseudonymiser) find(r *record, spans []span, v []byte) []span {
	spans = p.words(r, spans, v)
	spans = p.mails(r, spans, v)
	spans = p.backslashes(r, spans, v)
	spans = p.slashes(r, spans, v)
	spans = p.numbers(r, spans, v)
	return p.forged(r, spans, v)
}

// splice puts tokens into the spans. Of spans that begin together the longest wins;
// one inside another is dropped; one that reaches beyond the one before it replaces
// the rest, so that nothing of it is left over.
func splice(v []byte, spans []span) []byte {
	slices.SortFunc(spans, func(a, b span) int {
		if a.start != b.start {
			return a.start - b.start
		}
		return b.end - a.end
	})
	out := make([]byte, 0, len(v)+len(spans)*24)
	pos := 0
	for _, s := range spans {
		if s.end <= pos {
			continue
		}
		if s.start > pos {
			out = append(out, v[pos:s.start]...)
		}
		out = append(out, s.token...)
		pos = s.end
	}
	return append(out, v[pos:]...)
}

// words finds what begins at a word: identities of the record, entries of the
// directory, SIDs.
func (p *Pseudonymiser) words(r *record, spans []span, v []byte) []span {
	var room [8]admit.Hit
	for i := 0; ; {
		start, next, hits := p.dir.words.Next(room[:0], v, i)
		if start < 0 {
			return spans
		}
		i = next
		if c := v[start]; c|0x20 == 's' && start+1 < len(v) && v[start+1] == '-' {
			if end, ok := sidAt(v, start); ok {
				if prefix, t, suffix := p.sidParts(r, v[start:end]); t != "" {
					spans = append(spans, span{start + len(prefix), end - len(suffix), t})
				}
			}
		}
		for _, h := range hits {
			f := p.dir.found[h.ID]
			spans = append(spans, span{start, h.End, p.token(r, f.kind, f.canonical)})
		}
		if len(r.idents) > 0 {
			spans = p.identsAt(r, spans, v, start)
		}
	}
}

func (p *Pseudonymiser) identsAt(r *record, spans []span, v []byte, start int) []span {
	first, _ := utf8.DecodeRune(v[start:])
	var lead [utf8.UTFMax]byte
	utf8.EncodeRune(lead[:], admit.FoldRune(first))
	if first != utf8.RuneError && !r.first[lead[0]] {
		return spans
	}
	for i := range r.idents {
		id := &r.idents[i]
		end, ok := foldedPrefix(v[start:], id.folded)
		if !ok {
			continue
		}
		end += start
		if admit.WordBefore(v, end) && admit.WordAfter(v, end) {
			continue
		}
		if id.address && (start > 0 && v[start-1] == '.' || end+1 < len(v) && v[end] == '.' && v[end+1] >= '0' && v[end+1] <= '9') {
			continue
		}
		spans = append(spans, span{start, end, id.token})
	}
	return spans
}

// foldedPrefix tells where in v the folded text ends, if v begins with it.
func foldedPrefix(v []byte, folded string) (end int, ok bool) {
	for folded != "" {
		if end >= len(v) {
			return 0, false
		}
		if c := v[end]; c < utf8.RuneSelf && folded[0] < utf8.RuneSelf {
			if byte(admit.FoldRune(rune(c))) != folded[0] {
				return 0, false
			}
			end++
			folded = folded[1:]
			continue
		}
		have, n := utf8.DecodeRune(v[end:])
		if have == utf8.RuneError && n == 1 {
			have = rune(v[end]) // Latin-1
		}
		want, m := utf8.DecodeRuneInString(folded)
		if admit.FoldRune(have) != want {
			return 0, false
		}
		end += n
		folded = folded[m:]
	}
	return end, true
}

func isLocalChar(c byte) bool {
	return c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z' || c >= utf8.RuneSelf || bytes.IndexByte([]byte("._%+-'=~$#!"), c) >= 0
}

func isHostChar(c byte) bool {
	return c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z' || c >= utf8.RuneSelf || c == '-' || c == '.' || c == '_'
}

// mails finds local@domain.tld, and local@domain of a known domain.
func (p *Pseudonymiser) mails(r *record, spans []span, v []byte) []span {
	for from := 0; ; {
		i := bytes.IndexByte(v[from:], '@')
		sep := 1
		if i < 0 {
			return spans
		}
		at := from + i
		from = at + 1
		start, end := at, at+sep
		for start > 0 && at-start < 128 && isLocalChar(v[start-1]) {
			start--
		}
		for start < at && bytes.IndexByte([]byte(".'=-$#!~"), v[start]) >= 0 {
			start++
		}
		// key=value: what stands before the last = is a name of the text.
		if eq := bytes.LastIndexByte(v[start:at], '='); eq >= 0 {
			start += eq + 1
		}
		for end < len(v) && end-at < 256 && isHostChar(v[end]) {
			end++
		}
		for end > at+1 && (v[end-1] == '.' || v[end-1] == '-' || v[end-1] == '_') {
			end--
		}
		if start == at || end == at+1 {
			continue
		}
		domain := v[at+1 : end]
		if !mailDomain(domain) && !p.knownDomain(r, domain) {
			continue
		}
		if t, stay := p.mailToken(r, v[start:end], at-start); !stay {
			spans = append(spans, span{start, end, t})
		}
	}
}

// mailDomain accepts two labels or more, the last of two letters or more.
func mailDomain(d []byte) bool {
	dot := bytes.LastIndexByte(d, '.')
	if dot <= 0 || bytes.Contains(d, []byte("..")) {
		return false
	}
	tld := d[dot+1:]
	letters := 0
	for _, c := range tld {
		if c|0x20 >= 'a' && c|0x20 <= 'z' || c >= utf8.RuneSelf {
			letters++
		}
	}
	if fileEndings[string(bytes.ToLower(tld))] {
		return false // user@1000.service, Invoice@0582.cpl
	}
	return len(tld) >= 2 && letters == len(tld) || bytes.HasPrefix(bytes.ToLower(tld), []byte("xn--"))
}

// fileEndings look like the last label of a domain and are none.
var fileEndings = foldedSet(
	"exe", "dll", "cpl", "sys", "ocx", "drv", "scr", "msi", "msp", "bat", "cmd", "vbs", "vbe", "jse", "wsf", "hta", "lnk", "inf", "ini", "cfg", "conf", "xml", "json", "yml", "yaml", "txt", "log", "dat", "tmp", "bak", "csv",
	"doc", "docx", "xls", "xlsx", "ppt", "pptx", "pdf", "rtf", "png", "jpg", "jpeg", "gif", "bmp", "ico", "svg", "html", "htm", "php", "asp", "aspx", "jsp", "jar", "war", "tar", "gz", "rar", "iso", "img", "vhd", "vhdx", "vmdk", "dmg", "evtx", "pcap",
	"service", "socket", "timer", "mount", "automount", "swap", "slice", "scope", "device",
)

func isNameChar(c byte) bool {
	return c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z' || c >= utf8.RuneSelf || c == '.' || c == '_' || c == '-' || c == '$'
}

// backslashes finds DOMAIN\name of a known domain, and home paths of Windows.
func (p *Pseudonymiser) backslashes(r *record, spans []span, v []byte) []span {
	known := len(r.domains) > 0 || len(p.dir.domains) > 0
	for from := 0; ; {
		i := bytes.IndexByte(v[from:], '\\')
		if i < 0 {
			return spans
		}
		at := from + i
		next := at + 1
		if next < len(v) && v[next] == '\\' {
			next++ // JSON in text
		}
		from = next
		spans = p.home(r, spans, v, next)
		if !known {
			continue
		}
		start := at
		for start > 0 && at-start < 255 && isHostChar(v[start-1]) {
			start--
		}
		if start == at || start > 0 && v[start-1] == '\\' || !p.knownDomain(r, v[start:at]) {
			continue
		}
		end := next
		for end < len(v) && end-next < 128 && isNameChar(v[end]) {
			end++
		}
		for end > next && v[end-1] == '.' {
			end--
		}
		if end == next || end < len(v) && v[end] == '\\' {
			continue // a path below a share
		}
		if v[end-1] == '$' {
			if p.dir.devices[deviceName(admit.Fold(string(v[next:end])))] {
				spans = append(spans, span{next, end - 1, p.token(r, event.Device, deviceName(admit.Fold(string(v[next:end]))))})
			}
			continue
		}
		if t, stay := p.person(r, v[next:end]); !stay {
			spans = append(spans, span{next, end, t})
		}
	}
}

// slashes finds home paths of Unix, and of Windows written with slashes. A value may
// begin with one without its slash.
func (p *Pseudonymiser) slashes(r *record, spans []span, v []byte) []span {
	spans = p.home(r, spans, v, 0)
	for from := 0; ; {
		i := bytes.IndexByte(v[from:], '/')
		if i < 0 {
			return spans
		}
		from += i + 1
		spans = p.home(r, spans, v, from)
	}
}

var homes = [...]string{"users", "home", "documents and settings", "docume~1"}

// home replaces the name in Users\name, home/name and Documents and Settings\name,
// where i is the offset after the slash before it.
func (p *Pseudonymiser) home(r *record, spans []span, v []byte, i int) []span {
	if i+6 > len(v) {
		return spans
	}
	switch v[i] | 0x20 {
	case 'u', 'h', 'd':
	default:
		return spans
	}
	for _, h := range homes {
		end, ok := foldedPrefix(v[i:], h)
		if !ok {
			continue
		}
		start := i + end
		if start >= len(v) || v[start] != '\\' && v[start] != '/' {
			continue
		}
		for start < len(v) && (v[start] == '\\' || v[start] == '/') {
			start++
		}
		stop := homeEnd(v, start)
		if stop == start {
			return spans
		}
		if to, t := p.owner(r, v[start:stop]); t != "" {
			spans = append(spans, span{start, start + to, t})
		}
		return spans
	}
	return spans
}

// homeEnd finds the end of the name of a profile folder. A name may hold spaces only
// where a slash ends it; in "dir C:\Users\alice /s" the name ends at the space.
func homeEnd(v []byte, start int) int {
	end, space := start, -1
	for end < len(v) && end-start < 128 {
		c := v[end]
		if c == '\\' || c == '/' {
			break
		}
		if c == ' ' || c == '\t' {
			if space < 0 {
				space = end
			}
		}
		if c < ' ' || bytes.IndexByte([]byte("\"'`<>|:*?;,()[]&"), c) >= 0 {
			if space >= 0 {
				return space
			}
			return end
		}
		end++
	}
	if space < 0 {
		return end
	}
	if end < len(v) && end-start < 128 && v[end-1] != ' ' && v[space+1] != '-' {
		return end
	}
	return space
}

// owner says whose a profile folder is, and how much of its name the token replaces.
func (p *Pseudonymiser) owner(r *record, name []byte) (int, event.Token) {
	if isSharedFolder(admit.Fold(string(name))) {
		return 0, ""
	}
	folded := admit.Fold(string(name))
	// alice.CORP, alice.CORP.000: the domain, and a number, after the name.
	for cut := bytes.LastIndexByte(name, '.'); cut > 0; cut = bytes.LastIndexByte(name[:cut], '.') {
		tail := name[cut+1:]
		if isDigits(tail) && len(tail) == 3 {
			continue
		}
		if dot := bytes.IndexByte(tail, '.'); dot > 0 && isDigits(tail[dot+1:]) {
			tail = tail[:dot]
		}
		if p.knownDomain(r, tail) {
			if t, stay := p.person(r, name[:cut]); !stay {
				return cut, t
			}
			return 0, ""
		}
	}
	// The 8.3 form: ALICEE~1.
	if tilde := bytes.IndexByte(name, '~'); tilde > 0 && tilde <= 6 && len(name) > tilde+1 && isDigits(name[tilde+1:]) {
		base := admit.Fold(string(name[:tilde]))
		for i := range r.idents {
			if s := shortName(r.idents[i].folded); s != "" && s == base && !r.idents[i].address {
				return len(name), r.idents[i].token
			}
		}
		if who := p.dir.short[base]; who != nil {
			return len(name), p.token(r, event.Person, who.canonical)
		}
	}
	for i := range r.idents {
		if r.idents[i].folded == folded {
			return len(name), r.idents[i].token
		}
	}
	t, stay := p.person(r, name)
	if stay {
		return 0, ""
	}
	return len(name), t
}

func isDigits(b []byte) bool {
	for _, c := range b {
		if c < '0' || c > '9' {
			return false
		}
	}
	return len(b) > 0
}

// numbers finds telephone numbers: + and 7 to 15 digits; the shapes 202-555-0100,
// (202) 555-0100 and 030 1234567; and, in any shape, those of the directory.
func (p *Pseudonymiser) numbers(r *record, spans []span, v []byte) []span {
	var run admit.NumberRun
	for i := 0; ; {
		if i = run.Next(v, i); i < 0 {
			return spans
		}
		if len(p.dir.dialled) > 0 {
			if start, end, ok := run.Find(p.dir.dialled); ok {
				if start > 0 && v[start-1] == '+' {
					start--
				}
				spans = append(spans, span{start, end, p.phone(r, v[start:end])})
				continue
			}
		}
		if start, end, ok := run.Shape(v); ok {
			spans = append(spans, span{start, end, p.phone(r, v[start:end])})
		}
	}
}

func (p *Pseudonymiser) phone(r *record, v []byte) event.Token {
	forms := admit.PhoneForms(string(v))
	if forms == nil {
		return p.token(r, event.Person, "tel:"+admit.Fold(string(v)))
	}
	return p.token(r, event.Person, p.phoneCanonical(forms))
}

// forged finds text of the source that has the shape of a token or of a keyed digest.
func (p *Pseudonymiser) forged(r *record, spans []span, v []byte) []span {
	for from := 0; ; {
		i := bytes.IndexByte(v[from:], '_')
		if i < 0 {
			return spans
		}
		at := from + i
		from = at + 1
		if start, ok := tokenShape(v, at); ok {
			end := at + 1 + tokenBody
			spans = append(spans, span{start, end, p.token(r, event.Person, "text:"+string(v[start:end]))})
			from = end
		}
	}
}

func looksForged(v []byte) bool {
	for from := 0; ; {
		i := bytes.IndexByte(v[from:], '_')
		if i < 0 {
			return false
		}
		if _, ok := tokenShape(v, from+i); ok {
			return true
		}
		from += i + 1
	}
}

const tokenBody = 26

// tokenShape tells whether the underscore at i stands in text that event.NextToken
// would take for a token, or in the form of a keyed digest, and where that begins.
func tokenShape(v []byte, i int) (start int, ok bool) {
	if i < 2 || i+1+tokenBody > len(v) {
		return 0, false
	}
	for _, c := range v[i+1 : i+1+tokenBody] {
		if (c < 'a' || c > 'z') && (c < '2' || c > '7') {
			return 0, false
		}
	}
	start = i - 1
	for start >= 0 && i-start <= 4 && v[start] >= '0' && v[start] <= '9' {
		start--
	}
	if start < 0 || start == i-1 {
		return 0, false
	}
	switch v[start] {
	case byte(event.Person), byte(event.Mail), byte(event.Device), byte(event.Address), admit.HashPrefix[0]:
		return start, true
	}
	return 0, false
}
