package demo

import (
	"strconv"
	"time"
)

// flow is one connection as firewall and sensor see it.
type flow struct {
	at       time.Time
	length   time.Duration
	src, dst string
	sport    int
	dport    int
	udp      bool
	service  string // Zeek's name of it
	app      string // the firewall's
	sent     uint64
	got      uint64
	state    string
	history  string
	uid      string
	local    bool // the responder is ours
}

func (f *flow) end() time.Time { return f.at.Add(f.length) }

// firewallLine adds a line of the firewall.
func (p *play) firewallLine(at time.Time, text string) {
	if !p.inside(at) {
		return
	}
	p.firewall.items = append(p.firewall.items, item{at: at.UnixNano(), write: func(b []byte, _ uint64) []byte {
		b = append3164(b, at, "fw01", priFW)
		b = append(b, "firewall[812]: "...)
		return append(b, text...)
	}})
}

// passed is a session that the firewall let through, written at its end.
func (p *play) passed(f *flow, policy int, in, out string) {
	proto := "tcp"
	if f.udp {
		proto = "udp"
	}
	p.firewallLine(f.end(), "action=allow srcip="+f.src+" srcport="+strconv.Itoa(f.sport)+" dstip="+f.dst+" dstport="+strconv.Itoa(f.dport)+
		" proto="+proto+" service="+f.app+" srcintf="+in+" dstintf="+out+" policyid="+strconv.Itoa(policy)+
		" duration="+strconv.Itoa(int(f.length.Seconds()))+" sentbyte="+strconv.FormatUint(f.sent, 10)+" rcvdbyte="+strconv.FormatUint(f.got, 10))
}

func (p *play) denied(f *flow, policy int, in, out string) {
	proto := "tcp"
	if f.udp {
		proto = "udp"
	}
	p.firewallLine(f.at, "action=deny srcip="+f.src+" srcport="+strconv.Itoa(f.sport)+" dstip="+f.dst+" dstport="+strconv.Itoa(f.dport)+
		" proto="+proto+" service="+f.app+" srcintf="+in+" dstintf="+out+" policyid="+strconv.Itoa(policy)+" sentbyte=0 rcvdbyte=0")
}

// webfilter and call are the firewall's lines about the name of a site and about a
// telephone call.
func (p *play) webfilter(at time.Time, src, dst, name, class string) {
	p.firewallLine(at, "action=allow type=utm subtype=webfilter srcip="+src+" dstip="+dst+" dstport=443 proto=tcp dsthost="+name+` category="`+class+`" method=GET`)
}

func (p *play) call(at time.Time, src, from, to string, seconds int) {
	p.firewallLine(at, "action=allow type=utm subtype=voip srcip="+src+" dstip="+exchange+` dstport=5061 proto=tcp kind=call from="sip:`+from+"@voice."+dnsDomain+
		`" to="sip:`+to+"@voice."+dnsDomain+`" duration=`+strconv.Itoa(seconds))
}

const exchange = "10.10.0.60" // the telephone exchange

// ts is Zeek's time.
func appendTS(b []byte, t time.Time) []byte {
	b = strconv.AppendInt(b, t.Unix(), 10)
	us := t.Nanosecond() / 1000
	b = append(b, '.')
	for div := 100_000; div > 0; div /= 10 {
		b = append(b, byte('0'+us/div%10))
	}
	return b
}

var zeekHeader = [...]string{
	`#separator \x09`,
	"#set_separator\t,",
	"#empty_field\t(empty)",
	"#unset_field\t-",
	"#path\tconn",
	"",
	"#fields\tts\tuid\tid.orig_h\tid.orig_p\tid.resp_h\tid.resp_p\tproto\tservice\tduration\torig_bytes\tresp_bytes\tconn_state\tlocal_orig\tlocal_resp\tmissed_bytes\thistory\torig_pkts\torig_ip_bytes\tresp_pkts\tresp_ip_bytes\ttunnel_parents",
	"#types\ttime\tstring\taddr\tport\taddr\tport\tenum\tstring\tinterval\tcount\tcount\tstring\tbool\tbool\tcount\tstring\tcount\tcount\tcount\tcount\tset[string]",
}

// openArchive writes the header of the first day's file.
func (p *play) openArchive() {
	for i, line := range zeekHeader {
		if i == 5 {
			line = "#open\t" + p.from.Format("2006-01-02-15-04-05")
		}
		p.archive.items = append(p.archive.items, item{at: p.from.UnixNano(), write: func(b []byte, _ uint64) []byte { return append(b, line...) }})
	}
}

// conn is a connection in Zeek's log. It is written at the end of the connection.
// The first day is a rotated file in Zeek's own form, the second comes live as
// JSON.
func (p *play) conn(f *flow) {
	end := f.end()
	if !p.inside(f.at) || !p.inside(end) {
		return
	}
	c := *f
	if end.Before(p.from.Add(Window / 2)) {
		p.archive.items = append(p.archive.items, item{at: end.UnixNano(), write: func(b []byte, _ uint64) []byte { return c.tsv(b) }})
		return
	}
	p.zeek.items = append(p.zeek.items, item{at: end.UnixNano(), write: func(b []byte, _ uint64) []byte { return c.json(b) }})
}

func (f *flow) proto() string {
	if f.udp {
		return "udp"
	}
	return "tcp"
}

// packets are estimates from bytes, as full segments with their acknowledgements.
func (f *flow) packets() (orig, resp uint64) {
	orig, resp = f.sent/1300+2, f.got/1300+2
	if f.udp {
		return f.sent/1300 + 1, f.got/1300 + 1
	}
	if orig < resp/2 {
		orig = resp / 2
	}
	if resp < orig/2 {
		resp = orig / 2
	}
	return orig, resp
}

func (f *flow) tsv(b []byte) []byte {
	op, rp := f.packets()
	b = appendTS(b, f.at)
	for _, s := range [...]string{f.uid, f.src, strconv.Itoa(f.sport), f.dst, strconv.Itoa(f.dport), f.proto(), orDash(f.service)} {
		b = append(b, '\t')
		b = append(b, s...)
	}
	b = append(b, '\t')
	b = strconv.AppendFloat(b, f.length.Seconds(), 'f', 6, 64)
	b = append(b, '\t')
	b = strconv.AppendUint(b, f.sent, 10)
	b = append(b, '\t')
	b = strconv.AppendUint(b, f.got, 10)
	b = append(b, '\t')
	b = append(b, f.state...)
	b = append(b, "\tT\t"...)
	b = append(b, letter(f.local)...)
	b = append(b, "\t0\t"...)
	b = append(b, f.history...)
	for _, n := range [...]uint64{op, f.sent + 40*op, rp, f.got + 40*rp} {
		b = append(b, '\t')
		b = strconv.AppendUint(b, n, 10)
	}
	return append(b, "\t-"...)
}

// letter is how Zeek writes a bool.
func letter(yes bool) string {
	if yes {
		return "T"
	}
	return "F"
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func appendEnds(b []byte, src string, sport int, dst string, dport int) []byte {
	b = append(b, `,"id.orig_h":"`...)
	b = append(b, src...)
	b = append(b, `","id.orig_p":`...)
	b = strconv.AppendInt(b, int64(sport), 10)
	b = append(b, `,"id.resp_h":"`...)
	b = append(b, dst...)
	b = append(b, `","id.resp_p":`...)
	return strconv.AppendInt(b, int64(dport), 10)
}

func (f *flow) json(b []byte) []byte {
	op, rp := f.packets()
	b = append(b, `{"_path":"conn","ts":`...)
	b = appendTS(b, f.at)
	b = append(b, `,"uid":"`...)
	b = append(b, f.uid...)
	b = append(b, '"')
	b = appendEnds(b, f.src, f.sport, f.dst, f.dport)
	b = append(b, `,"proto":"`...)
	b = append(b, f.proto()...)
	b = append(b, '"')
	if f.service != "" {
		b = append(b, `,"service":"`...)
		b = append(b, f.service...)
		b = append(b, '"')
	}
	b = append(b, `,"duration":`...)
	b = strconv.AppendFloat(b, f.length.Seconds(), 'f', 6, 64)
	b = append(b, `,"orig_bytes":`...)
	b = strconv.AppendUint(b, f.sent, 10)
	b = append(b, `,"resp_bytes":`...)
	b = strconv.AppendUint(b, f.got, 10)
	b = append(b, `,"conn_state":"`...)
	b = append(b, f.state...)
	b = append(b, `","local_orig":true,"local_resp":`...)
	b = strconv.AppendBool(b, f.local)
	b = append(b, `,"missed_bytes":0,"history":"`...)
	b = append(b, f.history...)
	b = append(b, `","orig_pkts":`...)
	b = strconv.AppendUint(b, op, 10)
	b = append(b, `,"orig_ip_bytes":`...)
	b = strconv.AppendUint(b, f.sent+40*op, 10)
	b = append(b, `,"resp_pkts":`...)
	b = strconv.AppendUint(b, rp, 10)
	b = append(b, `,"resp_ip_bytes":`...)
	b = strconv.AppendUint(b, f.got+40*rp, 10)
	return append(b, '}')
}

// question is one DNS exchange.
type question struct {
	at     time.Time
	uid    string
	src    string
	sport  int
	id     int
	rtt    time.Duration
	name   string
	qtype  int
	qname  string
	rcode  int
	rname  string
	answer string
	ttl    int
}

func (p *play) dns(q *question) {
	if !p.inside(q.at) {
		return
	}
	c := *q
	p.zeek.items = append(p.zeek.items, item{at: q.at.UnixNano(), write: func(b []byte, _ uint64) []byte { return c.json(b) }})
}

func (q *question) json(b []byte) []byte {
	b = append(b, `{"_path":"dns","ts":`...)
	b = appendTS(b, q.at)
	b = append(b, `,"uid":"`...)
	b = append(b, q.uid...)
	b = append(b, '"')
	b = appendEnds(b, q.src, q.sport, resolver, 53)
	b = append(b, `,"proto":"udp","trans_id":`...)
	b = strconv.AppendInt(b, int64(q.id), 10)
	b = append(b, `,"rtt":`...)
	b = strconv.AppendFloat(b, q.rtt.Seconds(), 'f', 6, 64)
	b = append(b, `,"query":`...)
	b = appendJSON(b, q.name)
	b = append(b, `,"qclass":1,"qclass_name":"C_INTERNET","qtype":`...)
	b = strconv.AppendInt(b, int64(q.qtype), 10)
	b = append(b, `,"qtype_name":"`...)
	b = append(b, q.qname...)
	b = append(b, `","rcode":`...)
	b = strconv.AppendInt(b, int64(q.rcode), 10)
	b = append(b, `,"rcode_name":"`...)
	b = append(b, q.rname...)
	b = append(b, `","AA":false,"TC":false,"RD":true,"RA":true,"Z":0`...)
	if q.answer != "" {
		b = append(b, `,"answers":[`...)
		b = appendJSON(b, q.answer)
		b = append(b, `],"TTLs":[`...)
		b = strconv.AppendInt(b, int64(q.ttl), 10)
		b = append(b, ".0]"...)
	}
	return append(b, `,"rejected":false}`...)
}

const resolver = "10.10.0.10"

// visit is a look at a web site: a DNS exchange, a connection and the firewall's
// line.
func (p *play) visit(d *draws, at time.Time, src, name, dst string, length time.Duration, sent, got uint64) *flow {
	p.dns(&question{at: at, uid: "C" + d.word(17), src: src, sport: d.between(49152, 65535), id: d.between(1, 65535),
		rtt: d.part(400*time.Microsecond, 30*time.Millisecond), name: name, qtype: 1, qname: "A", rname: "NOERROR", answer: dst, ttl: d.between(2, 60) * 5})
	f := &flow{at: at.Add(d.part(2*time.Millisecond, 60*time.Millisecond)).Truncate(time.Microsecond), length: length.Truncate(time.Microsecond), src: src, dst: dst,
		sport: d.between(49152, 65535), dport: 443, service: "ssl", app: "HTTPS", sent: sent, got: got, state: "SF", history: "ShADadFf", uid: "C" + d.word(17)}
	p.conn(f)
	p.passed(f, 12, "lan", "wan")
	return f
}
