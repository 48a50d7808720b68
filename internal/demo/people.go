package demo

import (
	"fmt"
	"strings"
)

const (
	domain    = "AGENCY"
	dnsDomain = "agency.example"
	domainSID = "S-1-5-21-3841170655-1290417352-2604471187"
)

// person is one of the forty.
type person struct {
	id            string
	first, last   string
	account, mail string
	sid           string
	uid           int // on the Linux hosts
	phone         string
	laptop        string // address of the laptop, which sends no logs of its own
	laptopID      string
	phoneID       string
	phoneSerial   string
	phoneOS       string
	phoneModel    string
	agent         string
	home          string // address at home
	it            bool
	leaver        bool
}

var firstNames = [...]string{
	"Maren", "Dmitri", "Aiko", "Ruben", "Celeste", "Tomas", "Ingrid", "Kwame", "Priya", "Lucas",
	"Fatima", "Oskar", "Helena", "Mateo", "Noor", "Silas", "Yara", "Bram", "Chiara", "Devon",
	"Elif", "Gideon", "Hanna", "Ivo", "Joanna", "Kofi", "Leila", "Magnus", "Nadia", "Owen",
	"Petra", "Quentin", "Rosa", "Stefan", "Tamsin", "Ulrich", "Vera", "Wendell", "Ximena", "Zoltan",
}

var lastNames = [...]string{
	"Halvorsen", "Petrenko", "Tanabe", "Castellano", "Whitcombe", "Novotny", "Lindqvist", "Asante", "Raghavan", "Fontaine",
	"Benhaddou", "Kowalczyk", "Drossos", "Villanueva", "Rahimi", "Thackeray", "Khoury", "Vandersteen", "Bellandi", "Ashworth",
	"Demirkan", "Okonjo", "Bergstrom", "Marinov", "Zielinska", "Mensah", "Farahani", "Sorensen", "Karimova", "Pritchard",
	"Hofstadter", "Lemaire", "Echeverria", "Radulescu", "Gallagher", "Brandt", "Sokolova", "Tillman", "Arriaga", "Szabados",
}

// The people with a part in the story, by place in the list.
const (
	victimAt  = 16 // administrator whose password is guessed
	leaverAt  = 31
	abroadAt  = 22
	contactAt = 8
)

func staff() []*person {
	models := [...][2]string{{"iOS", "iPhone15,4"}, {"iOS", "iPhone16,1"}, {"Android", "Pixel 9"}, {"Android", "SM-S931B"}}
	agents := [...]string{
		"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36 Edg/142.0.0.0",
		"Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:145.0) Gecko/20100101 Firefox/145.0",
		"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/26.1 Safari/605.1.15",
	}
	people := make([]*person, len(firstNames))
	for i := range people {
		first, last := firstNames[i], lastNames[i]
		m := models[(i*7+i/4)%len(models)]
		people[i] = &person{
			id: fmt.Sprintf("e-%d", 1001+i), first: first, last: last,
			account: strings.ToLower(first[:1] + last),
			mail:    strings.ToLower(first+"."+last) + "@" + dnsDomain,
			sid:     fmt.Sprintf("%s-%d", domainSID, 1104+i), uid: 1001 + i,
			phone:  fmt.Sprintf("+1202555%04d", 110+i*13),
			laptop: fmt.Sprintf("10.20.2.%d", 20+i), laptopID: fmt.Sprintf("LT-%04d", 2301+i*3),
			phoneID:     fmt.Sprintf("8f2c41d6-0b7e-4a93-9c15-%012x", 0x4d3a00+i*7919),
			phoneSerial: fmt.Sprintf("DX3%06XQ", 0x51a7e0+i*4099),
			phoneOS:     m[0], phoneModel: m[1],
			agent: agents[(i*5+i/3)%len(agents)],
			home:  fmt.Sprintf("198.18.%d.%d", 4+i/8, 11+i*5),
			it:    i == victimAt || i == 3 || i == 11 || i == 27, leaver: i == leaverAt,
		}
	}
	return people
}

// phoneVersion is the current one: nobody is late with updates.
func (w *person) phoneVersion() string {
	if w.phoneOS == "iOS" {
		return "26.1"
	}
	return "16"
}

// working is the staff less the leaver.
func (p *play) working() []*person {
	var list []*person
	for _, w := range p.people {
		if !w.leaver {
			list = append(list, w)
		}
	}
	return list
}

func (p *play) admins() []*person {
	var list []*person
	for _, w := range p.people {
		if w.it {
			list = append(list, w)
		}
	}
	return list
}

// host is one of the six machines.
type host struct {
	name, fqdn, ip         string
	agentID, ephemeral     string
	hostID, mac, osVersion string
	osName                 string
	prefix                 string // first group of its process GUIDs
	sid                    string
	security, sysmon       *counter
	powershell, system     *counter
	serial                 *counter // auditd
	stream                 *Stream
}

func (h *host) counters() []*counter {
	return []*counter{h.security, h.sysmon, h.powershell, h.system}
}

func (p *play) hosts() {
	d := p.draws("hosts")
	windows := func(name, ip, osName, version, sid string, s *Stream) *host {
		h := &host{name: name, fqdn: name + "." + dnsDomain, ip: ip, osName: osName, osVersion: version, stream: s}
		h.agentID, h.ephemeral, h.hostID = d.uuid(), d.uuid(), d.uuid()
		h.mac = fmt.Sprintf("00-50-56-%02X-%02X-%02X", d.IntN(256), d.IntN(256), d.IntN(256))
		h.prefix = fmt.Sprintf("%08x", d.Uint32())
		h.sid = domainSID + "-" + sid
		h.security = &counter{channel: "Security", next: uint64(d.between(180_000, 900_000))}
		h.sysmon = &counter{channel: "Microsoft-Windows-Sysmon/Operational", next: uint64(d.between(400_000, 900_000))}
		h.powershell = &counter{channel: "Microsoft-Windows-PowerShell/Operational", next: uint64(d.between(900, 4_000))}
		h.system = &counter{channel: "System", next: uint64(d.between(9_000, 40_000))}
		return h
	}
	client, server := "Windows 11 Enterprise", "Windows Server 2022 Datacenter"
	p.wsFin = windows("WS-FIN-07", "10.20.1.7", client, "10.0.26100.2314", "1611", p.workstations)
	p.wsIT = windows("WS-IT-03", "10.20.1.3", client, "10.0.26100.2314", "1603", p.workstations)
	p.fs = windows("FS01", "10.10.0.30", server, "10.0.20348.2849", "1001", p.fileserver)
	p.ad = windows("DC01", "10.10.0.10", server, "10.0.20348.2849", "1000", p.dc)
	p.jump = &host{name: "jump01", fqdn: "jump01." + dnsDomain, ip: "10.10.0.20"}
	p.db = &host{name: "db01", fqdn: "db01." + dnsDomain, ip: "10.10.0.40"}
	for _, h := range []*host{p.jump, p.db} {
		h.serial = &counter{channel: "audit", next: uint64(d.between(20_000, 90_000))}
	}
}

func (d *draws) uuid() string {
	a, b := d.Uint64(), d.Uint64()
	return fmt.Sprintf("%08x-%04x-4%03x-%04x-%012x", a>>32, a>>16&0xffff, a&0xfff, 0x8000|b>>48&0x3fff, b&0xffffffffffff)
}
