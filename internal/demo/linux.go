package demo

import (
	"encoding/hex"
	"strconv"
	"strings"
	"time"
)

// Syslog priorities: facility * 8 + severity.
const (
	priAuth = 10*8 + 6 // authpriv.info
	priCron = 9*8 + 6  // cron.info
	priUser = 1*8 + 6  // user.info
	priFW   = 16*8 + 6 // local0.info
)

// syslog adds a line. The jump host writes RFC 3164, the database host RFC 5424,
// as two generations of rsyslog templates do.
func (p *play) syslog(h *host, at time.Time, pri int, app string, pid int, text string) {
	if !p.inside(at) {
		return
	}
	modern := h == p.db
	p.linux.items = append(p.linux.items, item{at: at.UnixNano(), write: func(b []byte, _ uint64) []byte {
		if modern {
			return append(append5424(b, at, h.name, pri, app, pid), text...)
		}
		b = append3164(b, at, h.name, pri)
		b = append(b, app...)
		if pid != 0 {
			b = append(b, '[')
			b = strconv.AppendInt(b, int64(pid), 10)
			b = append(b, ']')
		}
		b = append(b, ": "...)
		return append(b, text...)
	}})
}

func append3164(b []byte, at time.Time, host string, pri int) []byte {
	b = append(b, '<')
	b = strconv.AppendInt(b, int64(pri), 10)
	b = append(b, '>')
	b = at.AppendFormat(b, time.Stamp)
	b = append(b, ' ')
	b = append(b, host...)
	return append(b, ' ')
}

func append5424(b []byte, at time.Time, host string, pri int, app string, pid int) []byte {
	b = append(b, '<')
	b = strconv.AppendInt(b, int64(pri), 10)
	b = append(b, ">1 "...)
	b = at.AppendFormat(b, "2006-01-02T15:04:05.000000Z")
	b = append(b, ' ')
	b = append(b, host...)
	b = append(b, ' ')
	b = append(b, app...)
	b = append(b, ' ')
	if pid == 0 {
		b = append(b, '-')
	} else {
		b = strconv.AppendInt(b, int64(pid), 10)
	}
	return append(b, " - - "...)
}

// shell is one login on a Linux host.
type shell struct {
	h       *host
	user    string
	uid     int
	from    string
	port    int
	pid     int
	session int
	tty     int
}

// login writes what sshd says of a login and its end.
func (p *play) login(d *draws, s *shell, at time.Time, method string, length time.Duration) {
	key := ""
	if method == "publickey" {
		key = ": ED25519 SHA256:" + d.word(43)
	}
	peer := s.from + " port " + strconv.Itoa(s.port)
	p.syslog(s.h, at, priAuth, "sshd", s.pid, "Accepted "+method+" for "+s.user+" from "+peer+" ssh2"+key)
	p.syslog(s.h, at.Add(20*time.Millisecond), priAuth, "sshd", s.pid,
		"pam_unix(sshd:session): session opened for user "+s.user+"(uid="+strconv.Itoa(s.uid)+") by "+s.user+"(uid=0)")
	p.syslog(s.h, at.Add(60*time.Millisecond), priAuth, "systemd-logind", 611,
		"New session "+strconv.Itoa(s.session)+" of user "+s.user+".")
	end := at.Add(length)
	p.syslog(s.h, end, priAuth, "sshd", s.pid+2, "Received disconnect from "+peer+":11: disconnected by user")
	p.syslog(s.h, end.Add(time.Millisecond), priAuth, "sshd", s.pid+2, "Disconnected from user "+s.user+" "+peer)
	p.syslog(s.h, end.Add(9*time.Millisecond), priAuth, "sshd", s.pid, "pam_unix(sshd:session): session closed for user "+s.user)
}

func (p *play) sudo(s *shell, at time.Time, pid int, dir, command string) {
	p.syslog(s.h, at, priAuth, "sudo", pid, s.user+" : TTY=pts/"+strconv.Itoa(s.tty)+" ; PWD="+dir+" ; USER=root ; COMMAND="+command)
	p.syslog(s.h, at.Add(4*time.Millisecond), priAuth, "sudo", pid,
		"pam_unix(sudo:session): session opened for user root(uid=0) by "+s.user+"(uid="+strconv.Itoa(s.uid)+")")
}

// auditText is a value as the kernel writes it: quoted, or hexadecimal where it
// holds a blank, a quote or a control character.
func auditText(s string) string {
	for i := 0; i < len(s); i++ {
		if s[i] < 0x21 || s[i] > 0x7e || s[i] == '"' {
			return strings.ToUpper(hex.EncodeToString([]byte(s)))
		}
	}
	return `"` + s + `"`
}

// record is one line of an audit event, without its head.
type record struct{ kind, text string }

// auditEvent adds the lines of one event, which share time and serial.
func (p *play) auditEvent(h *host, at time.Time, lines []record) {
	if !p.inside(at) {
		return
	}
	g := &group{counter: h.serial}
	for _, r := range lines {
		p.audit.items = append(p.audit.items, item{at: at.UnixNano(), group: g, write: func(b []byte, n uint64) []byte {
			b = append5424(b, at, h.name, priUser, "audisp-syslog", 0)
			b = append(b, "type="...)
			b = append(b, r.kind...)
			b = append(b, " msg=audit("...)
			b = strconv.AppendInt(b, at.Unix(), 10)
			ms := at.Nanosecond() / 1e6
			b = append(b, '.', byte('0'+ms/100), byte('0'+ms/10%10), byte('0'+ms%10), ':')
			b = strconv.AppendUint(b, n, 10)
			b = append(b, "): "...)
			return append(b, r.text...)
		}})
	}
}

// who is the identity of an audited process.
type who struct {
	auid, uid, session int
	tty                string
}

func (p *play) syscall(d *draws, w who, number, items, ppid, pid int, comm, exe, key string) record {
	uid := strconv.Itoa(w.uid)
	session, auid := strconv.Itoa(w.session), strconv.Itoa(w.auid)
	if w.session < 0 {
		session, auid = "4294967295", "4294967295"
	}
	exit := "0"
	if number == 257 {
		exit = "3"
	}
	if key == "" {
		key = "(null)"
	} else {
		key = `"` + key + `"`
	}
	return record{"SYSCALL", "arch=c000003e syscall=" + strconv.Itoa(number) + " success=yes exit=" + exit +
		" a0=" + strconv.FormatUint(0x55d000000000+uint64(d.Uint32()), 16) + " a1=" + strconv.FormatUint(0x55d000000000+uint64(d.Uint32()), 16) +
		" a2=" + strconv.FormatUint(0x55d000000000+uint64(d.Uint32()), 16) + " a3=8 items=" + strconv.Itoa(items) +
		" ppid=" + strconv.Itoa(ppid) + " pid=" + strconv.Itoa(pid) + " auid=" + auid +
		" uid=" + uid + " gid=" + uid + " euid=" + uid + " suid=" + uid + " fsuid=" + uid + " egid=" + uid + " sgid=" + uid + " fsgid=" + uid +
		" tty=" + w.tty + " ses=" + session + " comm=" + auditText(comm) + " exe=" + auditText(exe) + ` subj=unconfined key=` + key + p.enriched(w, number)}
}

// enriched is what auditd adds with log_format = ENRICHED: the names behind the numbers,
// so that a session as root still says whose it is.
func (p *play) enriched(w who, number int) string {
	name := func(uid int) string {
		if i := uid - p.people[0].uid; i >= 0 && i < len(p.people) {
			return p.people[i].account
		}
		return "root"
	}
	login, user, call := "unset", name(w.uid), "execve"
	if w.session >= 0 {
		login = name(w.auid)
	}
	if number == 257 {
		call = "openat"
	}
	return "\x1dARCH=x86_64 SYSCALL=" + call + ` AUID="` + login + `" UID="` + user + `" GID="` + user + `" EUID="` + user + `" SUID="` + user + `" FSUID="` + user +
		`" EGID="` + user + `" SGID="` + user + `" FSGID="` + user + `"`
}

func pathRecord(d *draws, n int, name, mode, nametype string) record {
	return record{"PATH", "item=" + strconv.Itoa(n) + " name=" + auditText(name) + " inode=" + strconv.Itoa(d.between(1000, 900_000)) +
		" dev=fd:00 mode=" + mode + " ouid=0 ogid=0 rdev=00:00 nametype=" + nametype + " cap_fp=0 cap_fi=0 cap_fe=0 cap_fver=0 cap_frootid=0"}
}

func title(args []string) record {
	s := strings.Join(args, "\x00")
	if len(s) > 128 { // the kernel's bound
		s = s[:128]
	}
	return record{"PROCTITLE", "proctitle=" + auditText(s)}
}

// exec is the start of a program.
func (p *play) exec(d *draws, h *host, at time.Time, w who, ppid, pid int, exe, dir, key string, args ...string) {
	var argv strings.Builder
	argv.WriteString("argc=" + strconv.Itoa(len(args)))
	for i, a := range args {
		argv.WriteString(" a" + strconv.Itoa(i) + "=" + auditText(a))
	}
	comm := exe[strings.LastIndexByte(exe, '/')+1:]
	if len(comm) > 15 {
		comm = comm[:15]
	}
	p.auditEvent(h, at, []record{
		p.syscall(d, w, 59, 2, ppid, pid, comm, exe, key),
		{"EXECVE", argv.String()},
		{"CWD", "cwd=" + auditText(dir)},
		pathRecord(d, 0, exe, "0100755", "NORMAL"),
		pathRecord(d, 1, "/lib64/ld-linux-x86-64.so.2", "0100755", "NORMAL"),
		title(args),
	})
}

// open is access to a watched file.
func (p *play) open(d *draws, h *host, at time.Time, w who, ppid, pid int, exe, dir, file, mode, nametype, key string, args ...string) {
	comm := exe[strings.LastIndexByte(exe, '/')+1:]
	p.auditEvent(h, at, []record{
		p.syscall(d, w, 257, 1, ppid, pid, comm, exe, key),
		{"CWD", "cwd=" + auditText(dir)},
		pathRecord(d, 0, file, mode, nametype),
		title(args),
	})
}
