package demo

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// fields writes the members of event_data.
type fields struct {
	b    []byte
	open bool
}

func (f *fields) s(name, value string) {
	if f.open {
		f.b = append(f.b, ',')
	}
	f.open = true
	f.b = append(f.b, '"')
	f.b = append(f.b, name...)
	f.b = append(f.b, `":`...)
	f.b = appendJSON(f.b, value)
}

func (f *fields) d(name string, n int) { f.s(name, strconv.Itoa(n)) }

func (f *fields) x(name string, n uint64) { f.s(name, "0x"+strconv.FormatUint(n, 16)) }

// appendJSON writes a JSON string. Our own texts are valid UTF-8.
func appendJSON(b []byte, s string) []byte {
	const hexDigits = "0123456789abcdef"
	b = append(b, '"')
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c == '\n':
			b = append(b, '\\', 'n')
		case c == '\r':
			b = append(b, '\\', 'r')
		case c == '\t':
			b = append(b, '\\', 't')
		case c < 0x20:
			b = append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		default:
			b = append(b, c)
		}
	}
	return append(b, '"')
}

const (
	isoMilli    = "2006-01-02T15:04:05.000Z"
	isoNano     = "2006-01-02T15:04:05.0000000Z"
	sysmonMilli = "2006-01-02 15:04:05.000"
)

// maxRead is how long after an event the agent may read it.
const maxRead = 1700 * time.Millisecond

// kind is what Windows says of one event id beside its data.
type kind struct {
	task, message, opcode string
	version               int
	level                 string
}

func securityKind(id int) kind {
	k := kind{opcode: "Info", level: "information"}
	switch id {
	case 1102:
		k.task, k.message = "Log clear", "The audit log was cleared."
	case 4624:
		k.task, k.message, k.version = "Logon", "An account was successfully logged on.", 2
	case 4625:
		k.task, k.message = "Logon", "An account failed to log on."
	case 4634:
		k.task, k.message = "Logoff", "An account was logged off."
	case 4648:
		k.task, k.message = "Logon", "A logon was attempted using explicit credentials."
	case 4672:
		k.task, k.message = "Special Logon", "Special privileges assigned to new logon."
	case 4688:
		k.task, k.message, k.version = "Process Creation", "A new process has been created.", 2
	case 4697:
		k.task, k.message = "Security System Extension", "A service was installed in the system."
	case 4698:
		k.task, k.message, k.version = "Other Object Access Events", "A scheduled task was created.", 1
	case 4719:
		k.task, k.message = "Audit Policy Change", "System audit policy was changed."
	case 4720:
		k.task, k.message = "User Account Management", "A user account was created."
	case 4728:
		k.task, k.message = "Security Group Management", "A member was added to a security-enabled global group."
	case 4732:
		k.task, k.message = "Security Group Management", "A member was added to a security-enabled local group."
	case 4768:
		k.task, k.message = "Kerberos Authentication Service", "A Kerberos authentication ticket (TGT) was requested."
	case 4769:
		k.task, k.message = "Kerberos Service Ticket Operations", "A Kerberos service ticket was requested."
	case 5140:
		k.task, k.message, k.version = "File Share", "A network share object was accessed.", 1
	case 5145:
		k.task, k.message = "Detailed File Share", "A network share object was checked to see whether client can be granted desired access."
	}
	return k
}

func sysmonKind(id int) kind {
	k := kind{opcode: "Info", level: "information", version: 5}
	switch id {
	case 1:
		k.task, k.message = "Process Create (rule: ProcessCreate)", "Process Create"
	case 3:
		k.task, k.message = "Network connection detected (rule: NetworkConnect)", "Network connection detected"
	case 10:
		k.task, k.message, k.version = "Process accessed (rule: ProcessAccess)", "Process accessed", 3
	case 11:
		k.task, k.message, k.version = "File created (rule: FileCreate)", "File created", 2
	case 13:
		k.task, k.message, k.version = "Registry value set (rule: RegistryEvent)", "Registry value set", 2
	case 22:
		k.task, k.message = "Dns query (rule: DnsQuery)", "Dns query"
	}
	return k
}

// winlogbeat wraps event data as Winlogbeat 8 sends it: event_id is text,
// record_id a number.
func (h *host) winlogbeat(b []byte, at time.Time, n uint64, c *counter, id int, k kind, failure bool, pid, tid int, data func(*fields)) []byte {
	var provider, guid string
	audit := false
	switch c {
	case h.security:
		provider, guid, audit = "Microsoft-Windows-Security-Auditing", "{54849625-5478-4994-A5BA-3E3B0328C30D}", true
		if id == 1102 {
			provider, guid, audit = "Microsoft-Windows-Eventlog", "{FC65DDD8-D6EF-4962-83D5-6E5CFE9CE148}", false
		}
	case h.sysmon:
		provider, guid = "Microsoft-Windows-Sysmon", "{5770385F-C22A-43E0-BF4C-06F5698FFBD9}"
	case h.powershell:
		provider, guid = "Microsoft-Windows-PowerShell", "{A0C1853B-5C40-4B15-8766-3CF1C58F985A}"
	default:
		provider, guid = "Service Control Manager", "{555908D1-A6D7-4695-8E1E-26931D2012F4}"
	}
	b = append(b, `{"@timestamp":"`...)
	b = at.AppendFormat(b, isoMilli)
	b = append(b, `","event":{"code":"`...)
	b = strconv.AppendInt(b, int64(id), 10)
	b = append(b, `","kind":"event","provider":"`...)
	b = append(b, provider...)
	b = append(b, `","action":`...)
	b = appendJSON(b, k.task)
	b = append(b, `,"created":"`...)
	b = at.Add(time.Duration(n)*time.Millisecond%maxRead).AppendFormat(b, isoMilli)
	if audit {
		if failure {
			b = append(b, `","outcome":"failure`...)
		} else {
			b = append(b, `","outcome":"success`...)
		}
	}
	b = append(b, `"},"log":{"level":"`...)
	b = append(b, k.level...)
	b = append(b, `"},"message":`...)
	b = appendJSON(b, k.message)
	b = append(b, `,"host":{"name":"`...)
	b = append(b, strings.ToLower(h.fqdn)...)
	b = append(b, `","hostname":"`...)
	b = append(b, h.name...)
	b = append(b, `","architecture":"x86_64","id":"`...)
	b = append(b, h.hostID...)
	b = append(b, `","ip":["`...)
	b = append(b, h.ip...)
	b = append(b, `"],"mac":["`...)
	b = append(b, h.mac...)
	b = append(b, `"],"os":{"family":"windows","kernel":"`...)
	b = append(b, h.osVersion...)
	b = append(b, `","name":"`...)
	b = append(b, h.osName...)
	b = append(b, `","platform":"windows","type":"windows","version":"10.0"}},"agent":{"ephemeral_id":"`...)
	b = append(b, h.ephemeral...)
	b = append(b, `","id":"`...)
	b = append(b, h.agentID...)
	b = append(b, `","name":"`...)
	b = append(b, h.name...)
	b = append(b, `","type":"winlogbeat","version":"8.17.4"},"ecs":{"version":"8.0.0"},"winlog":{"api":"wineventlog","channel":"`...)
	b = append(b, c.channel...)
	b = append(b, `","computer_name":"`...)
	b = append(b, h.fqdn...)
	if id == 1102 {
		b = append(b, `","user_data":{`...)
	} else {
		b = append(b, `","event_data":{`...)
	}
	f := fields{b: b}
	data(&f)
	b = append(f.b, `},"event_id":"`...)
	b = strconv.AppendInt(b, int64(id), 10)
	switch {
	case audit && failure:
		b = append(b, `","keywords":["Audit Failure"],"opcode":"`...)
	case audit:
		b = append(b, `","keywords":["Audit Success"],"opcode":"`...)
	default:
		b = append(b, `","opcode":"`...)
	}
	b = append(b, k.opcode...)
	b = append(b, `","process":{"pid":`...)
	b = strconv.AppendInt(b, int64(pid), 10)
	b = append(b, `,"thread":{"id":`...)
	b = strconv.AppendInt(b, int64(tid), 10)
	b = append(b, `}},"provider_guid":"`...)
	b = append(b, guid...)
	b = append(b, `","provider_name":"`...)
	b = append(b, provider...)
	b = append(b, `","record_id":`...)
	b = strconv.AppendUint(b, n, 10)
	b = append(b, `,"task":`...)
	b = appendJSON(b, k.task)
	b = append(b, `,"time_created":"`...)
	b = at.AppendFormat(b, isoNano)
	b = append(b, '"')
	if c != h.security {
		b = append(b, `,"user":{"domain":"NT AUTHORITY","identifier":"S-1-5-18","name":"SYSTEM","type":"User"}`...)
	}
	if k.version != 0 {
		b = append(b, `,"version":`...)
		b = strconv.AppendInt(b, int64(k.version), 10)
	}
	return append(b, `}}`...)
}

// log adds one record of a channel.
func (p *play) log(h *host, c *counter, at time.Time, id int, failure bool, data func(*fields)) {
	if !p.inside(at) || !p.inside(at.Add(maxRead)) {
		return
	}
	var k kind
	pid := 4
	switch c {
	case h.security:
		k, pid = securityKind(id), 744
		if id == 4688 || id == 5140 || id == 5145 {
			pid = 4
		}
	case h.sysmon:
		k, pid = sysmonKind(id), 3172
	case h.powershell:
		k, pid = kind{task: "Execute a Remote Command", message: "Creating Scriptblock text", opcode: "On create calls", version: 1, level: "verbose"}, 6388
	case h.system:
		k, pid = kind{message: "A service changed its state.", opcode: "Info", level: "information"}, 704
		if id == 7045 {
			k.message = "A service was installed in the system."
		}
	}
	tid := 120 + int(at.UnixNano()/1000%9000)&^3
	g := &group{counter: c}
	h.stream.items = append(h.stream.items, item{at: at.UnixNano(), group: g, write: func(b []byte, n uint64) []byte {
		return h.winlogbeat(b, at, n, c, id, k, failure, pid, tid, data)
	}})
}

// account is who a Windows record speaks of.
type account struct{ name, domain, sid string }

func (w *person) user() account { return account{w.account, domain, w.sid} }

func (h *host) machine() account { return account{h.name + "$", domain, h.sid} }

func systemAccount() account { return account{"SYSTEM", "NT AUTHORITY", "S-1-5-18"} }

func (f *fields) subject(a account, logon uint64) {
	f.s("SubjectUserSid", a.sid)
	f.s("SubjectUserName", a.name)
	f.s("SubjectDomainName", a.domain)
	f.x("SubjectLogonId", logon)
}

const noGUID = "{00000000-0000-0000-0000-000000000000}"

// logon is one Windows session.
type logon struct {
	who      account
	id       uint64
	kind     int
	pkg      string // Kerberos, NTLM, Negotiate
	station  string
	ip       string
	port     int
	guid     string
	elevated bool
}

func (p *play) logonOn(h *host, at time.Time, l *logon) {
	p.log(h, h.security, at, 4624, false, func(f *fields) {
		process, pid, proc := "-", uint64(0), "Kerberos"
		switch l.kind {
		case 2, 7, 10, 11:
			f.subject(account{h.name + "$", domain, "S-1-5-18"}, 0x3e7)
			process, pid, proc = `C:\Windows\System32\svchost.exe`, 0x5c4, "User32 "
		case 5:
			f.subject(account{h.name + "$", domain, "S-1-5-18"}, 0x3e7)
			process, pid, proc = `C:\Windows\System32\services.exe`, 0x2c0, "Advapi  "
		default:
			f.subject(account{"-", "-", "S-1-0-0"}, 0)
			if l.pkg == "NTLM" {
				proc = "NtLmSsp "
			}
		}
		f.s("TargetUserSid", l.who.sid)
		f.s("TargetUserName", l.who.name)
		f.s("TargetDomainName", l.who.domain)
		f.x("TargetLogonId", l.id)
		f.d("LogonType", l.kind)
		f.s("LogonProcessName", proc)
		f.s("AuthenticationPackageName", l.pkg)
		f.s("WorkstationName", l.station)
		f.s("LogonGuid", l.guid)
		f.s("TransmittedServices", "-")
		if l.pkg == "NTLM" {
			f.s("LmPackageName", "NTLM V2")
			f.s("KeyLength", "128")
		} else {
			f.s("LmPackageName", "-")
			f.s("KeyLength", "0")
		}
		f.x("ProcessId", pid)
		f.s("ProcessName", process)
		f.s("IpAddress", l.ip)
		if l.port == 0 {
			f.s("IpPort", "-")
		} else {
			f.d("IpPort", l.port)
		}
		f.s("ImpersonationLevel", "%%1833")
		f.s("RestrictedAdminMode", "-")
		f.s("TargetOutboundUserName", "-")
		f.s("TargetOutboundDomainName", "-")
		f.s("VirtualAccount", "%%1843")
		f.s("TargetLinkedLogonId", "0x0")
		f.s("ElevatedToken", elevation(l.elevated))
	})
	if l.elevated {
		p.log(h, h.security, at.Add(time.Millisecond), 4672, false, func(f *fields) {
			f.subject(l.who, l.id)
			f.s("PrivilegeList", "SeSecurityPrivilege\n\t\t\tSeBackupPrivilege\n\t\t\tSeRestorePrivilege\n\t\t\tSeTakeOwnershipPrivilege\n\t\t\tSeDebugPrivilege\n\t\t\tSeSystemEnvironmentPrivilege\n\t\t\tSeLoadDriverPrivilege\n\t\t\tSeImpersonatePrivilege")
		})
	}
}

func elevation(yes bool) string {
	if yes {
		return "%%1842"
	}
	return "%%1843"
}

func (p *play) logoff(h *host, at time.Time, l *logon) {
	p.log(h, h.security, at, 4634, false, func(f *fields) {
		f.s("TargetUserSid", l.who.sid)
		f.s("TargetUserName", l.who.name)
		f.s("TargetDomainName", l.who.domain)
		f.x("TargetLogonId", l.id)
		f.d("LogonType", l.kind)
	})
}

func (p *play) logonFailed(h *host, at time.Time, a account, kind int, ip string, port int, station, subStatus string) {
	p.log(h, h.security, at, 4625, true, func(f *fields) {
		f.subject(account{h.name + "$", domain, "S-1-5-18"}, 0x3e7)
		f.s("TargetUserSid", "S-1-0-0")
		f.s("TargetUserName", a.name)
		f.s("TargetDomainName", a.domain)
		f.s("Status", "0xc000006d")
		f.s("FailureReason", "%%2313")
		f.s("SubStatus", subStatus)
		f.d("LogonType", kind)
		f.s("LogonProcessName", "User32 ")
		f.s("AuthenticationPackageName", "Negotiate")
		f.s("WorkstationName", station)
		f.s("TransmittedServices", "-")
		f.s("LmPackageName", "-")
		f.s("KeyLength", "0")
		f.x("ProcessId", 0x5c4)
		f.s("ProcessName", `C:\Windows\System32\svchost.exe`)
		f.s("IpAddress", ip)
		f.d("IpPort", port)
	})
}

func (p *play) explicit(h *host, at time.Time, l *logon, target account, server, process string) {
	p.log(h, h.security, at, 4648, false, func(f *fields) {
		f.subject(l.who, l.id)
		f.s("LogonGuid", noGUID)
		f.s("TargetUserName", target.name)
		f.s("TargetDomainName", target.domain)
		f.s("TargetLogonGuid", noGUID)
		f.s("TargetServerName", server)
		f.s("TargetInfo", server)
		f.s("ProcessId", "0x97c")
		f.s("ProcessName", process)
		f.s("IpAddress", "-")
		f.s("IpPort", "-")
	})
}

func (p *play) share(h *host, at time.Time, l *logon, name, path, mask string) {
	p.log(h, h.security, at, 5140, false, func(f *fields) {
		f.subject(l.who, l.id)
		f.s("ObjectType", "File")
		f.s("IpAddress", l.ip)
		f.d("IpPort", l.port)
		f.s("ShareName", `\\*\`+name)
		f.s("ShareLocalPath", path)
		f.s("AccessMask", mask)
		f.s("AccessList", "%%4416\n\t\t\t\t")
	})
}

func (p *play) ticket(at time.Time, a account, ip string, port int) {
	p.log(p.ad, p.ad.security, at, 4768, false, func(f *fields) {
		f.s("TargetUserName", a.name)
		f.s("TargetDomainName", domain)
		f.s("TargetSid", a.sid)
		f.s("ServiceName", "krbtgt")
		f.s("ServiceSid", domainSID+"-502")
		f.s("TicketOptions", "0x40810010")
		f.s("Status", "0x0")
		f.s("TicketEncryptionType", "0x12")
		f.s("PreAuthType", "2")
		f.s("IpAddress", "::ffff:"+ip)
		f.d("IpPort", port)
		f.s("CertIssuerName", "")
		f.s("CertSerialNumber", "")
		f.s("CertThumbprint", "")
	})
}

func (p *play) serviceTicket(at time.Time, a account, service, serviceSID, encryption, options, ip string, port int, guid string) {
	p.log(p.ad, p.ad.security, at, 4769, false, func(f *fields) {
		f.s("TargetUserName", a.name+"@"+strings.ToUpper(dnsDomain))
		f.s("TargetDomainName", strings.ToUpper(dnsDomain))
		f.s("ServiceName", service)
		f.s("ServiceSid", serviceSID)
		f.s("TicketOptions", options)
		f.s("TicketEncryptionType", encryption)
		f.s("IpAddress", "::ffff:"+ip)
		f.d("IpPort", port)
		f.s("Status", "0x0")
		f.s("LogonGuid", guid)
		f.s("TransmittedServices", "-")
	})
}

// program is a piece of software and how it is started.
type program struct {
	image, command        string
	parent, parentCommand string
	description, company  string
	product, original     string
	version               string
	hashes                string
	system                bool // runs as SYSTEM
	integrity             string
	browses, saves        bool // goes to the web, writes documents
}

// hashesOf stands for the content of a file: one program, one digest.
func hashesOf(image, version string) string {
	a := sha256.Sum256([]byte(image + "\x00" + version))
	b := sha256.Sum256(a[:])
	return "SHA256=" + strings.ToUpper(hex.EncodeToString(a[:])) + ",IMPHASH=" + strings.ToUpper(hex.EncodeToString(b[:16]))
}

// process is one running program.
type process struct {
	*program
	command string // as started
	pid     int
	guid    string
	parent  int
	pguid   string
	l       *logon
	dir     string
}

func (d *draws) guid() string {
	a, b := d.Uint64(), d.Uint64()
	return fmt.Sprintf("{%08x-%04x-%04x-%04x-%012x}", a>>32, a>>16&0xffff, a&0xffff, b>>48, b&0xffffffffffff)
}

func (h *host) processGUID(d *draws, at time.Time) string {
	v := d.Uint32()
	return fmt.Sprintf("{%s-%04x-%04x-%02x%02x-000000001900}", h.prefix, at.Unix()>>16&0xffff, at.Unix()&0xffff, v&0xff, v>>8&0x3f)
}

// start makes a process and its two witnesses: Security 4688 and Sysmon 1.
func (p *play) start(d *draws, h *host, at time.Time, prog *program, command string, l *logon) *process {
	if command == "" {
		command = prog.command
	}
	ps := &process{program: prog, command: command, l: l, pid: d.between(300, 5000) * 4, parent: d.between(150, 3000) * 4}
	ps.guid, ps.pguid = h.processGUID(d, at), h.processGUID(d, at.Add(-d.part(time.Minute, 40*time.Hour)))
	ps.dir = `C:\Windows\system32\`
	if !prog.system {
		ps.dir = `C:\Users\` + l.who.name + `\`
	}
	p.witness(h, at, ps)
	return ps
}

func (p *play) witness(h *host, at time.Time, ps *process) {
	prog, l := ps.program, ps.l
	p.log(h, h.sysmon, at, 1, false, func(f *fields) {
		f.s("RuleName", "-")
		f.s("UtcTime", at.Format(sysmonMilli))
		f.s("ProcessGuid", ps.guid)
		f.d("ProcessId", ps.pid)
		f.s("Image", prog.image)
		f.s("FileVersion", prog.version)
		f.s("Description", prog.description)
		f.s("Product", prog.product)
		f.s("Company", prog.company)
		f.s("OriginalFileName", prog.original)
		f.s("CommandLine", ps.command)
		f.s("CurrentDirectory", ps.dir)
		f.s("User", l.who.domain+`\`+l.who.name)
		f.s("LogonGuid", l.guid)
		f.x("LogonId", l.id)
		if l.id == 0x3e7 {
			f.s("TerminalSessionId", "0")
		} else {
			f.s("TerminalSessionId", "1")
		}
		f.s("IntegrityLevel", prog.integrity)
		f.s("Hashes", prog.hashes)
		f.s("ParentProcessGuid", ps.pguid)
		f.d("ParentProcessId", ps.parent)
		f.s("ParentImage", prog.parent)
		f.s("ParentCommandLine", prog.parentCommand)
		f.s("ParentUser", l.who.domain+`\`+l.who.name)
	})
	p.log(h, h.security, at.Add(3*time.Millisecond), 4688, false, func(f *fields) {
		if l.id == 0x3e7 {
			f.subject(account{h.name + "$", domain, "S-1-5-18"}, l.id)
		} else {
			f.subject(l.who, l.id)
		}
		f.x("NewProcessId", uint64(ps.pid))
		f.s("NewProcessName", prog.image)
		if prog.integrity == "Medium" {
			f.s("TokenElevationType", "%%1938")
		} else {
			f.s("TokenElevationType", "%%1936")
		}
		f.x("ProcessId", uint64(ps.parent))
		f.s("CommandLine", ps.command)
		f.s("TargetUserSid", "S-1-0-0")
		f.s("TargetUserName", "-")
		f.s("TargetDomainName", "-")
		f.s("TargetLogonId", "0x0")
		f.s("ParentProcessName", prog.parent)
		switch prog.integrity {
		case "System":
			f.s("MandatoryLabel", "S-1-16-16384")
		case "High":
			f.s("MandatoryLabel", "S-1-16-12288")
		default:
			f.s("MandatoryLabel", "S-1-16-8192")
		}
	})
}

func (f *fields) process(at time.Time, ps *process) {
	f.s("UtcTime", at.Format(sysmonMilli))
	f.s("ProcessGuid", ps.guid)
	f.d("ProcessId", ps.pid)
}

func (ps *process) userName() string { return ps.l.who.domain + `\` + ps.l.who.name }

func (p *play) connect(h *host, at time.Time, ps *process, srcPort int, ip, name string, port int) {
	p.log(h, h.sysmon, at, 3, false, func(f *fields) {
		f.s("RuleName", "-")
		f.process(at, ps)
		f.s("Image", ps.image)
		f.s("User", ps.userName())
		f.s("Protocol", "tcp")
		f.s("Initiated", "true")
		f.s("SourceIsIpv6", "false")
		f.s("SourceIp", h.ip)
		f.s("SourceHostname", h.fqdn)
		f.d("SourcePort", srcPort)
		f.s("SourcePortName", "-")
		f.s("DestinationIsIpv6", "false")
		f.s("DestinationIp", ip)
		f.s("DestinationHostname", name)
		f.d("DestinationPort", port)
		f.s("DestinationPortName", "-")
	})
}

func (p *play) resolve(h *host, at time.Time, ps *process, name, result string) {
	p.log(h, h.sysmon, at, 22, false, func(f *fields) {
		f.s("RuleName", "-")
		f.process(at, ps)
		f.s("QueryName", name)
		f.s("QueryStatus", "0")
		f.s("QueryResults", "::ffff:"+result+";")
		f.s("Image", ps.image)
		f.s("User", ps.userName())
	})
}

func (p *play) create(h *host, at time.Time, ps *process, file string) {
	p.log(h, h.sysmon, at, 11, false, func(f *fields) {
		f.s("RuleName", "-")
		f.process(at, ps)
		f.s("Image", ps.image)
		f.s("TargetFilename", file)
		f.s("CreationUtcTime", at.Format(sysmonMilli))
		f.s("User", ps.userName())
	})
}

func (p *play) setValue(h *host, at time.Time, ps *process, object, details string) {
	p.log(h, h.sysmon, at, 13, false, func(f *fields) {
		f.s("RuleName", "-")
		f.s("EventType", "SetValue")
		f.process(at, ps)
		f.s("Image", ps.image)
		f.s("TargetObject", object)
		f.s("Details", details)
		f.s("User", ps.userName())
	})
}

func (p *play) access(h *host, at time.Time, ps *process, target, granted, trace string) {
	p.log(h, h.sysmon, at, 10, false, func(f *fields) {
		f.s("RuleName", "-")
		f.s("UtcTime", at.Format(sysmonMilli))
		f.s("SourceProcessGUID", ps.guid)
		f.d("SourceProcessId", ps.pid)
		f.s("SourceThreadId", "7112")
		f.s("SourceImage", ps.image)
		f.s("TargetProcessGUID", "{"+h.prefix+"-1f02-6925-0c00-000000001900}")
		f.s("TargetProcessId", "744")
		f.s("TargetImage", target)
		f.s("GrantedAccess", granted)
		f.s("CallTrace", trace)
		f.s("SourceUser", ps.userName())
		f.s("TargetUser", `NT AUTHORITY\SYSTEM`)
	})
}

func (p *play) script(h *host, at time.Time, text, id, path string) {
	p.log(h, h.powershell, at, 4104, false, func(f *fields) {
		f.s("MessageNumber", "1")
		f.s("MessageTotal", "1")
		f.s("ScriptBlockText", text)
		f.s("ScriptBlockId", id)
		f.s("Path", path)
	})
}

func (p *play) service(h *host, at time.Time, name, state string) {
	p.log(h, h.system, at, 7036, false, func(f *fields) {
		f.s("param1", name)
		f.s("param2", state)
	})
}

// install is a new service, which two channels report.
func (p *play) install(h *host, at time.Time, l *logon, name, path string) {
	p.log(h, h.system, at, 7045, false, func(f *fields) {
		f.s("ServiceName", name)
		f.s("ImagePath", path)
		f.s("ServiceType", "user mode service")
		f.s("StartType", "demand start")
		f.s("AccountName", "LocalSystem")
	})
	p.log(h, h.security, at.Add(2*time.Millisecond), 4697, false, func(f *fields) {
		f.subject(l.who, l.id)
		f.s("ServiceName", name)
		f.s("ServiceFileName", path)
		f.s("ServiceType", "0x10")
		f.s("ServiceStartType", "3")
		f.s("ServiceAccount", "LocalSystem")
	})
}

func (p *play) member(h *host, at time.Time, id int, l *logon, member account, memberName, group, groupSID, groupDomain string) {
	p.log(h, h.security, at, id, false, func(f *fields) {
		f.s("MemberName", memberName)
		f.s("MemberSid", member.sid)
		f.s("TargetUserName", group)
		f.s("TargetDomainName", groupDomain)
		f.s("TargetSid", groupSID)
		f.subject(l.who, l.id)
		f.s("PrivilegeList", "-")
	})
}
