package access

import (
	"strings"

	"github.com/counterseal/counterseal/internal/admit"
	"github.com/counterseal/counterseal/internal/event"
)

// gap stands for a wildcard inside a value: one byte that no value keeps.
const gap = '\x00'

// hit is an identity found by its shape.
type hit struct {
	who  Who
	id   string
	part bool // only a part of it is written
}

// key is one for the same identity in all its shapes, as far as shapes tell: mail
// and name of one person stay two.
func (h hit) key() string { return Identity{h.who, h.id}.Key() }

// shape finds identities by their shape in folded text, wherever they stand.
func shape(f string) (hits []hit, found bool) {
	if len(f) < 3 {
		return nil, false
	}
	hits = tokens(hits, f)
	if strings.IndexByte(f, '-') >= 0 {
		hits = aliases(hits, f)
	}
	if strings.IndexByte(f, '@') >= 0 {
		hits = mails(hits, f)
	}
	if strings.Contains(f, "s-1-") {
		hits = sids(hits, f)
	}
	if strings.ContainsAny(f, `\/`) {
		hits = paths(hits, f)
	}
	hits = phones(hits, f)
	if !strings.Contains(f, string(gap)) {
		hits = qualified(hits, f)
	}
	return hits, len(hits) > 0
}

func base32(c byte) bool { return c >= 'a' && c <= 'z' || c >= '2' && c <= '7' }

func word(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '_' || c >= 0x80
}

func tokens(hits []hit, f string) []hit {
	if strings.IndexByte(f, '_') < 0 {
		return hits
	}
	b := []byte(f)
	for at := 0; at < len(b); {
		s, e := event.NextToken(b[at:])
		if s < 0 {
			break
		}
		hits = append(hits, hit{who: ByToken, id: f[at+s : at+e]})
		at += e
	}
	// A token cut short, before a wildcard or at the end of one.
	for i := 0; i < len(f); i++ {
		if f[i] != '_' {
			continue
		}
		k := i - 1
		for k >= 0 && i-k <= 4 && f[k] >= '0' && f[k] <= '9' {
			k--
		}
		if k < 0 || k == i-1 || strings.IndexByte("pmda", f[k]) < 0 || k > 0 && word(f[k-1]) {
			continue
		}
		n := i + 1
		for n < len(f) && base32(f[n]) {
			n++
		}
		if k := n - i - 1; k < 26 && (n == len(f) && k >= 4 || n < len(f) && f[n] == gap) {
			hits = append(hits, hit{who: ByToken, part: true})
		}
	}
	return hits
}

// aliasKinds are what an alias begins with; keyed by case, it stands for a token.
var aliasKinds = [...]string{"person-", "mail-", "device-", "address-"}

// aliases finds aliases: the kind, and 6 or more characters of base32. After person-
// any letter or digit counts, because nothing else is written so.
func aliases(hits []hit, f string) []hit {
	for _, kind := range aliasKinds {
		any := kind == "person-"
		for i := 0; ; {
			k := strings.Index(f[i:], kind)
			if k < 0 {
				break
			}
			at := i + k
			i = at + len(kind)
			if at > 0 && word(f[at-1]) {
				continue
			}
			n := i
			for n < len(f) && (base32(f[n]) || any && word(f[n])) {
				n++
			}
			switch {
			case n < len(f) && f[n] == gap && (any || n > i && !aliasWords[f[i:n]]):
				hits = append(hits, hit{who: ByToken, part: true})
			case n-i < 6, n < len(f) && word(f[n]), aliasWords[f[i:n]]:
			default:
				hits = append(hits, hit{who: ByToken, id: f[at:n]})
			}
		}
	}
	return hits
}

// aliasWords follow device-, mail- and address- in programs and services. That an
// alias is one of them has a chance of one in many millions.
var aliasWords = set("manager|management|install|installer|installation|setup|driver|drivers|control|controller|config|guard|credential|encryption|health|update|mapper|plugin|" +
	"server|servers|service|services|gateway|filter|archive|relay|client|security|delivery|queue|transfer|resolution|family|families|translation|space|list|book|type|name|data|host")

func mails(hits []hit, f string) []hit {
	local := func(c byte) bool { return word(c) || strings.IndexByte(".%+-'$#!~", c) >= 0 }
	for i := 0; ; {
		k := strings.IndexByte(f[i:], '@')
		if k < 0 {
			return hits
		}
		at := i + k
		i = at + 1
		s, e := at, at+1
		for s > 0 && (local(f[s-1]) || f[s-1] == gap) {
			s--
		}
		for e < len(f) && (word(f[e]) || f[e] == '-' || f[e] == '.' || f[e] == gap) {
			e++
		}
		name, host := f[s:at], strings.TrimRight(f[at+1:e], ".-")
		if !letters(name) {
			continue // a whole domain
		}
		if strings.IndexByte(name+host, gap) >= 0 {
			hits = append(hits, hit{who: ByMail, part: true})
			continue
		}
		dot := strings.LastIndexByte(host, '.')
		if dot > 0 && !files[host[dot+1:]] {
			hits = append(hits, hit{who: ByMail, id: f[s : at+1+len(host)]})
		}
	}
}

// sids finds identifiers of accounts; those of built-in principals are nobody's.
func sids(hits []hit, f string) []hit {
	for i := 0; ; {
		k := strings.Index(f[i:], "s-1-")
		if k < 0 {
			return hits
		}
		at := i + k
		e := at + 2
		for e < len(f) && (f[e] >= '0' && f[e] <= '9' || f[e] == '-' || f[e] == gap) {
			e++
		}
		sid := strings.TrimRight(f[at:e], "-")
		i = e
		parts := strings.Split(sid, "-")
		last := parts[len(parts)-1]
		switch {
		case strings.HasPrefix(sid, "s-1-12-") && len(parts) > 4 && letters(last):
		case strings.HasPrefix(sid, "s-1-5-21-") && len(parts) > 4:
			rid := strings.Trim(last, string(gap))
			if rid == "" || len(rid) < 4 && last == rid {
				continue // the domain, or one of its built-in accounts
			}
			if len(parts) < 8 && strings.IndexByte(sid, gap) < 0 {
				continue // the domain
			}
		default:
			continue
		}
		if strings.IndexByte(sid, gap) >= 0 {
			hits = append(hits, hit{who: BySID, part: true})
		} else {
			hits = append(hits, hit{who: BySID, id: sid})
		}
	}
}

var homeRoots = [...]string{"users", "home", "documents and settings", "docume~1", "homes", "home$", "users$", "var/mail", "var/spool/mail", "spool/cron", "spool/cron/crontabs", "run/user"}

func slash(c byte) bool { return c == '\\' || c == '/' }

// paths finds home paths, personal clouds and shares of one machine.
func paths(hits []hit, f string) []hit {
	for i := 0; i < len(f); i++ {
		if i > 0 && !slash(f[i-1]) && f[i-1] != gap && f[i-1] != ' ' && f[i-1] != '"' && f[i-1] != '\'' && f[i-1] != '=' && f[i-1] != ':' && f[i-1] != '(' {
			continue
		}
		switch f[i] {
		case 'u', 'h', 'd', 'v', 's', 'r':
			for _, r := range homeRoots {
				if !strings.HasPrefix(f[i:], r) {
					continue
				}
				seg, ok := below(f, i+len(r))
				if !ok || r == "spool/cron" && strings.HasPrefix(seg, "crontabs") {
					continue
				}
				hits = owner(hits, ByHome, seg)
			}
		case 'p':
			if strings.HasPrefix(f[i:], "personal") && (strings.Contains(f, "sharepoint") || strings.Contains(f, "onedrive")) {
				if seg, ok := below(f, i+len("personal")); ok {
					hits = owner(hits, ByCloud, seg)
				}
			}
		case '~':
			if i+1 < len(f) && word(f[i+1]) {
				if seg, ok := below(f, i); ok {
					hits = owner(hits, ByHome, seg[1:])
				}
			}
		}
		for _, r := range [...]string{"d.docs.live.net", "onedrive.live.com", "my.sharepoint.com/personal"} {
			if strings.HasPrefix(f[i:], r) {
				if seg, ok := below(f, i+len(r)); ok && seg != "personal" {
					hits = owner(hits, ByCloud, seg)
				}
			}
		}
	}
	if host, ok := strings.CutPrefix(f, `\\`); ok {
		if k := strings.IndexByte(host, '\\'); k > 0 && strings.Trim(host[:k], "abcdefghijklmnopqrstuvwxyz0123456789-_") == "" {
			switch h := host[:k]; h {
			case "tsclient", "localhost", "wsl", "pipe":
			default:
				hits = append(hits, hit{who: ByDevice, id: h})
			}
		}
	}
	return hits
}

// maxSegment bounds the name of a home folder, and with it the time for a value.
const maxSegment = 256

// below gives the name after a folder, up to the next slash.
func below(f string, i int) (string, bool) {
	if i < len(f) && f[i] == '~' {
		// ~alice: the name begins here
	} else {
		if i >= len(f) || !slash(f[i]) {
			return "", false
		}
		for i < len(f) && slash(f[i]) {
			i++
		}
	}
	e := i
	for e < len(f) && e-i < maxSegment && !slash(f[e]) && strings.IndexByte("\"'`<>|:;,()[]&\n?", f[e]) < 0 {
		e++
	}
	seg := strings.TrimRight(f[i:e], " ")
	if e == len(f) || !slash(f[e]) { // in a command a space ends the name
		if k := strings.IndexByte(seg, ' '); k > 0 {
			seg = seg[:k]
		}
	}
	return seg, seg != ""
}

func owner(hits []hit, who Who, seg string) []hit {
	switch {
	case !letters(seg), strings.ContainsAny(seg, "%{}$"), wellKnown(seg):
		return hits
	case strings.IndexByte(seg, gap) >= 0:
		if wellKnownPart(seg) {
			return hits
		}
		return append(hits, hit{who: who, part: true})
	}
	if event.IsToken([]byte(seg)) {
		return hits // found as a token
	}
	return append(hits, hit{who: who, id: seg})
}

func phones(hits []hit, f string) []hit {
	digits := 0
	for i := 0; i < len(f); i++ {
		if f[i] >= '0' && f[i] <= '9' {
			digits++
		}
	}
	if digits < 4 {
		return hits
	}
	if i := strings.IndexByte(f, '+'); i >= 0 && strings.IndexByte(f[i:], gap) > 3 && (i == 0 || f[i-1] == gap) &&
		strings.Trim(f[i+1:i+strings.IndexByte(f[i:], gap)], "0123456789 -()") == "" {
		return append(hits, hit{who: ByPhone, part: true})
	}
	if digits < 7 {
		return hits
	}
	var run admit.NumberRun
	b := []byte(f)
	for i := 0; ; {
		if i = run.Next(b, i); i < 0 {
			return hits
		}
		if s, e, ok := run.Shape(b); ok {
			id := f[s:e]
			if forms := admit.PhoneForms(id); forms != nil {
				id = forms[0]
			}
			hits = append(hits, hit{who: ByPhone, id: id})
		}
	}
}

// qualified finds DOMAIN\name where it is the whole value.
func qualified(hits []hit, f string) []hit {
	d, name, ok := strings.Cut(f, `\`)
	const ok1 = "abcdefghijklmnopqrstuvwxyz0123456789-_."
	if !ok || d == "" || strings.Trim(d, ok1) != "" || strings.Trim(name, ok1+"$") != "" || !letters(name) || wellKnown(f) || strings.HasPrefix(d, "hk") || homeRoot(d) {
		return hits
	}
	if i := strings.LastIndexByte(name, '.'); i >= 0 && files[name[i+1:]] {
		return hits
	}
	if strings.HasSuffix(name, "$") {
		return append(hits, hit{who: ByMachine, id: name})
	}
	return append(hits, hit{who: ByName, id: name})
}

func homeRoot(d string) bool {
	for _, r := range homeRoots {
		if d == r {
			return true
		}
	}
	return false
}
