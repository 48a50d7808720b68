package demo

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// site is a place in the web that people go to.
type site struct{ name, ip string }

func sites() []site {
	names := [...]string{
		"login.agency-sso.example", "mail.cloud-office.example", "files.cloud-office.example", "teams.cloud-office.example", "telemetry.cloud-office.example",
		"update.os-vendor.example", "ctldl.os-vendor.example", "time.os-vendor.example", "cdn.office-fonts.example", "www.daily-courier.example",
		"weather.gov-data.example", "maps.gov-data.example", "www.travel-desk.example", "benefits.fed-health.example", "learn.skill-portal.example",
		"docs.procurement.example", "static.cdn-north.example", "img.cdn-north.example", "api.ticketing.example", "status.ticketing.example",
		"search.web-index.example", "www.web-index.example", "video.meet-now.example", "turn.meet-now.example", "av.sentinel-updates.example",
		"crl.trust-root.example", "ocsp.trust-root.example", "packages.linux-mirror.example", "repo.python-mirror.example", "www.rail-times.example",
		"lunch.canteen.example", "radio.streaming.example", "bank.first-union-credit.example", "www.wiki-pages.example", "forum.sql-help.example",
		"code.forge-hub.example", "raw.forge-hub.example", "pdf.form-filler.example", "signing.e-sign.example", "backup.vault-store.example",
	}
	list := make([]site, len(names))
	for i, n := range names {
		list[i] = site{n, fmt.Sprintf("198.51.100.%d", 101+i*3)}
	}
	return list
}

func programs() []*program {
	const (
		explorer = `C:\Windows\explorer.exe`
		services = `C:\Windows\System32\services.exe`
		svchost  = `C:\Windows\System32\svchost.exe`
		ms       = "Microsoft Corporation"
		windows  = "Microsoft® Windows® Operating System"
		winver   = "10.0.26100.1 (WinBuild.160101.0800)"
	)
	user := func(image, command, description, product, version string) *program {
		file := image[strings.LastIndexByte(image, '\\')+1:]
		return &program{image: image, command: command, parent: explorer, parentCommand: `C:\Windows\Explorer.EXE`, description: description, company: ms, product: product,
			original: file, version: version, integrity: "Medium"}
	}
	system := func(image, command, parent, parentCommand, description string) *program {
		file := image[strings.LastIndexByte(image, '\\')+1:]
		return &program{image: image, command: command, parent: parent, parentCommand: parentCommand, description: description, company: ms, product: windows,
			original: file, version: winver, integrity: "System", system: true}
	}
	const office = `C:\Program Files\Microsoft Office\root\Office16\`
	list := []*program{
		user(office+"OUTLOOK.EXE", `"`+office+`OUTLOOK.EXE"`, "Microsoft Outlook", "Microsoft Outlook", "16.0.18129.20116"),
		user(office+"WINWORD.EXE", `"`+office+`WINWORD.EXE" /n`, "Microsoft Word", "Microsoft Office", "16.0.18129.20116"),
		user(office+"EXCEL.EXE", `"`+office+`EXCEL.EXE"`, "Microsoft Excel", "Microsoft Office", "16.0.18129.20116"),
		user(office+"POWERPNT.EXE", `"`+office+`POWERPNT.EXE"`, "Microsoft PowerPoint", "Microsoft Office", "16.0.18129.20116"),
		user(`C:\Program Files (x86)\Microsoft\Edge\Application\msedge.exe`, `"C:\Program Files (x86)\Microsoft\Edge\Application\msedge.exe" --profile-directory=Default`, "Microsoft Edge", "Microsoft Edge", "142.0.3595.65"),
		user(`C:\Program Files\Mozilla Firefox\firefox.exe`, `"C:\Program Files\Mozilla Firefox\firefox.exe"`, "Firefox", "Firefox", "145.0"),
		user(`C:\Windows\System32\notepad.exe`, `"C:\Windows\system32\notepad.exe"`, "Notepad", windows, winver),
		user(`C:\Program Files\Adobe\Acrobat DC\Acrobat\Acrobat.exe`, `"C:\Program Files\Adobe\Acrobat DC\Acrobat\Acrobat.exe"`, "Adobe Acrobat", "Adobe Acrobat", "24.4.20243.0"),
		user(`C:\Windows\System32\mspaint.exe`, `"C:\Windows\system32\mspaint.exe"`, "Paint", windows, winver),
		user(`C:\Windows\System32\SnippingTool.exe`, `"C:\Windows\system32\SnippingTool.exe"`, "Snipping Tool", windows, winver),
		user(`C:\Windows\System32\calc.exe`, `"C:\Windows\system32\calc.exe"`, "Windows Calculator", windows, winver),
		user(`C:\Windows\System32\taskhostw.exe`, `taskhostw.exe`, "Host Process for Windows Tasks", windows, winver),
		user(`C:\Windows\System32\RuntimeBroker.exe`, `C:\Windows\System32\RuntimeBroker.exe -Embedding`, "Runtime Broker", windows, winver),
		user(`C:\Windows\System32\backgroundTaskHost.exe`, `"C:\Windows\system32\backgroundTaskHost.exe" -ServerName:App.AppXmtcan0h2tfbfy7k9kn8hbxb6dmzz1zh0.mca`, "Background Task Host", windows, winver),
		user(`C:\Windows\System32\SearchFilterHost.exe`, `"C:\Windows\system32\SearchFilterHost.exe" 828 2692 2700 812 {0E5DCEC5-7795-4E38-9621-94DFD9F9A421}`, "Microsoft Windows Search Filter Host", windows, winver),
		user(`C:\Windows\System32\dllhost.exe`, `C:\Windows\system32\DllHost.exe /Processid:{973D20D7-562D-44B9-B70B-5A0F49CCDF3F}`, "COM Surrogate", windows, winver),
		user(`C:\Program Files\WindowsApps\MSTeams_25275.2601.4002.2815_x64__8wekyb3d8bbwe\ms-teams.exe`, `"C:\Program Files\WindowsApps\MSTeams_25275.2601.4002.2815_x64__8wekyb3d8bbwe\ms-teams.exe"`, "Microsoft Teams", "Microsoft Teams", "25275.2601.4002.2815"),
	}
	for _, i := range [...]int{0, 4, 5, 16} {
		list[i].browses = true
	}
	for _, i := range [...]int{0, 1, 2, 3, 4, 7} {
		list[i].saves = true
	}
	for _, p := range list[11:16] { // started by the system on the user's behalf
		p.parent, p.parentCommand = svchost, `C:\Windows\system32\svchost.exe -k DcomLaunch -p`
	}
	list[11].parentCommand = `C:\Windows\system32\svchost.exe -k netsvcs -p -s Schedule`
	list = append(list,
		system(svchost, `C:\Windows\system32\svchost.exe -k netsvcs -p -s wuauserv`, services, services, "Host Process for Windows Services"),
		system(svchost, `C:\Windows\system32\svchost.exe -k appmodel -p -s camsvc`, services, services, "Host Process for Windows Services"),
		system(svchost, `C:\Windows\system32\svchost.exe -k LocalSystemNetworkRestricted -p -s TrkWks`, services, services, "Host Process for Windows Services"),
		system(`C:\Windows\System32\wbem\WmiPrvSE.exe`, `C:\Windows\system32\wbem\wmiprvse.exe -secured -Embedding`, svchost, `C:\Windows\system32\svchost.exe -k DcomLaunch -p`, "WMI Provider Host"),
		system(`C:\Windows\System32\SearchProtocolHost.exe`, `"C:\Windows\system32\SearchProtocolHost.exe" Global\UsGthrFltPipeMssGthrPipe 1 -2147483646 "Software\Microsoft\Windows Search"`, `C:\Windows\System32\SearchIndexer.exe`, `C:\Windows\system32\SearchIndexer.exe /Embedding`, "Microsoft Windows Search Protocol Host"),
		system(`C:\Windows\System32\gpupdate.exe`, `gpupdate.exe /target:computer`, svchost, `C:\Windows\system32\svchost.exe -k netsvcs -p -s gpsvc`, "Microsoft® Group Policy Update Utility"),
		system(`C:\Windows\System32\taskhostw.exe`, `taskhostw.exe Install $(Arg0)`, svchost, `C:\Windows\system32\svchost.exe -k netsvcs -p -s Schedule`, "Host Process for Windows Tasks"),
		system(`C:\Program Files\Windows Defender\MpCmdRun.exe`, `"C:\Program Files\Windows Defender\MpCmdRun.exe" SpyNetServiceDss -RestrictPrivileges -AccessKey 3C21AF55`, `C:\Program Files\Windows Defender\MsMpEng.exe`, `"C:\Program Files\Windows Defender\MsMpEng.exe"`, "Microsoft Malware Protection Command Line Utility"),
		system(`C:\Program Files\Agency Inventory\inventory.exe`, `"C:\Program Files\Agency Inventory\inventory.exe" --daily`, services, services, "Agency Inventory"),
	)
	for _, p := range list {
		p.hashes = hashesOf(p.image, p.version)
	}
	return list
}

// benign is the ordinary life of the agency.
func (p *play) benign() {
	p.openArchive()
	progs := programs()
	var user, system []*program
	for _, g := range progs {
		if g.system {
			system = append(system, g)
		} else {
			user = append(user, g)
		}
	}
	p.desks(user)
	p.background(system)
	p.shares()
	p.kerberos()
	p.terminals()
	p.cron()
	p.web()
	p.inner()
	p.refused()
	p.calls()
	p.signIns()
	p.phones()
}

// desks is work at the two workstations: people log on, start programs, read mail,
// browse, save files, log off.
func (p *play) desks(progs []*program) {
	d := p.draws("desks")
	staff, web := p.working(), sites()
	folders := [...]string{`Documents\`, `Desktop\`, `Downloads\`, `AppData\Local\Temp\`, `AppData\Roaming\Microsoft\Office\Recent\`}
	files := [...]string{"Budget FY27 draft.xlsx", "Minutes.docx", "Travel request.pdf", "Quarterly figures.xlsx", "Notes.txt", "Agenda.docx", "Scan_0017.pdf", "Vendor list.xlsx", "~WRS0003.tmp", "Brief.pptx"}
	values := [...][2]string{
		{`Software\Microsoft\Office\16.0\Common\Identity\SignedInUsers`, "DWORD (0x00000001)"},
		{`Software\Microsoft\Windows\CurrentVersion\Explorer\RecentDocs\MRUListEx`, "Binary Data"},
		{`Software\Microsoft\Edge\BLBeacon\version`, "142.0.3595.65"},
		{`Software\Microsoft\Office\16.0\Excel\File MRU\Item 1`, "Binary Data"},
		{`Software\Microsoft\Windows\CurrentVersion\Themes\LastHighContrastTheme`, "(Empty)"},
		{`Software\Microsoft\Windows\CurrentVersion\Explorer\StreamMRU\MRUListEx`, "Binary Data"},
	}
	for i := range p.times(92) {
		h, w := p.wsFin, staff[d.IntN(len(staff))]
		if i%2 == 1 {
			h = p.wsIT
		}
		at := p.rhythm.office(d)
		length := d.part(25*time.Minute, 3*time.Hour)
		l := &logon{who: w.user(), id: uint64(d.between(0x180000, 0xfffffff)), kind: pick(d, []int{2, 2, 11, 7}), pkg: "Negotiate", station: h.name, ip: "127.0.0.1", guid: d.guid()}
		if d.IntN(6) == 0 {
			p.logonFailed(h, at.Add(-9*time.Second), w.user(), 2, "127.0.0.1", 0, h.name, "0xc000006a")
		}
		p.logonOn(h, at, l)
		n := d.between(14, 26)
		for range n {
			t := at.Add(d.part(5*time.Second, length))
			g := pick(d, progs)
			command := g.command
			if strings.HasSuffix(g.image, "WINWORD.EXE") || strings.HasSuffix(g.image, "EXCEL.EXE") {
				command = `"` + g.image + `" "C:\Users\` + w.account + `\Documents\` + pick(d, files[:8]) + `"`
			}
			ps := p.start(d, h, t, g, command, l)
			if g.browses {
				for range d.between(2, 5) {
					p.browse(d, h, t.Add(d.part(time.Second, 12*time.Minute)), ps, pick(d, web))
				}
			}
			if g.saves && d.IntN(4) > 0 {
				p.create(h, t.Add(d.part(2*time.Second, 4*time.Minute)), ps, `C:\Users\`+w.account+`\`+pick(d, folders[:])+pick(d, files[:]))
			}
			if d.IntN(2) == 0 {
				v := pick(d, values[:])
				p.setValue(h, t.Add(d.part(time.Second, time.Minute)), ps, `HKU\`+w.sid+`\`+v[0], v[1])
			}
		}
		p.logoff(h, at.Add(length), l)
	}
}

// browse is a visit from a monitored workstation: the host, the sensor and the
// firewall are witnesses of one connection.
func (p *play) browse(d *draws, h *host, at time.Time, ps *process, s site) {
	f := p.visit(d, at, h.ip, s.name, s.ip, d.part(80*time.Millisecond, 110*time.Second), d.bytes(4200), d.bytes(52_000))
	p.resolve(h, at.Add(time.Millisecond), ps, s.name, s.ip)
	p.connect(h, f.at, ps, f.sport, s.ip, s.name, 443)
}

// background is what the Windows hosts do by themselves.
func (p *play) background(progs []*program) {
	d := p.draws("background")
	names := [...]string{"Windows Update", "Background Intelligent Transfer Service", "Software Protection", "Windows Modules Installer", "Application Experience", "Device Setup Manager", "WMI Performance Adapter", "Shell Hardware Detection"}
	scripts := [...]string{
		"Get-CimInstance -ClassName Win32_OperatingSystem | Select-Object Caption, Version, LastBootUpTime",
		"Get-HotFix | Sort-Object InstalledOn -Descending | Select-Object -First 5 | ConvertTo-Json",
		"Get-PSDrive -PSProvider FileSystem | ForEach-Object { $_.Free / 1GB }",
		"Get-Service -Name Spooler, W32Time | Where-Object Status -ne 'Running'",
		"$cert = Get-ChildItem Cert:\\LocalMachine\\My | Where-Object NotAfter -lt (Get-Date).AddDays(30)\n$cert.Count",
		"Test-ComputerSecureChannel -Verbose",
		"Get-Counter '\\Processor(_Total)\\% Processor Time' -MaxSamples 3",
	}
	boot := &logon{who: systemAccount(), id: 0x3e7, kind: 5, pkg: "Negotiate", station: "-", ip: "-", guid: noGUID, elevated: true}
	for _, h := range []*host{p.wsFin, p.wsIT, p.fs, p.ad} {
		for range p.times(190) {
			p.start(d, h, p.rhythm.always(d), pick(d, progs), "", boot)
		}
		for range p.times(170) {
			p.logonOn(h, p.rhythm.always(d), boot)
		}
		for range p.times(60) {
			at, name := p.rhythm.always(d), pick(d, names[:])
			p.service(h, at, name, "running")
			p.service(h, at.Add(d.part(time.Minute, 12*time.Minute)), name, "stopped")
		}
		for range p.times(40) {
			p.script(h, p.rhythm.always(d), pick(d, scripts[:]), d.uuid(), `C:\Program Files\Agency Inventory\collect.ps1`)
		}
	}
}

// shares is the use of the file server.
func (p *play) shares() {
	d := p.draws("shares")
	staff := p.working()
	shares := [...][2]string{{"Finance", `\??\D:\Shares\Finance`}, {"Projects", `\??\D:\Shares\Projects`}, {"Home", `\??\D:\Shares\Home`}, {"Templates", `\??\D:\Shares\Templates`}, {"HR-Forms", `\??\D:\Shares\HR-Forms`}}
	for range p.times(1700) {
		w, at := pick(d, staff), p.rhythm.office(d)
		l := &logon{who: w.user(), id: uint64(d.between(0x180000, 0xfffffff)), kind: 3, pkg: "Kerberos", station: "-", ip: w.laptop, port: d.between(49152, 65535), guid: d.guid()}
		p.logonOn(p.fs, at, l)
		for range d.between(1, 2) {
			s := pick(d, shares[:])
			p.share(p.fs, at.Add(d.part(4*time.Millisecond, 3*time.Minute)), l, s[0], s[1], "0x1")
		}
		p.logoff(p.fs, at.Add(d.part(4*time.Minute, 15*time.Minute)), l)
	}
}

// kerberos is the work of the domain controller.
func (p *play) kerberos() {
	d := p.draws("kerberos")
	staff := p.working()
	hosts := []*host{p.wsFin, p.wsIT, p.fs, p.ad}
	for range p.times(640) {
		w := pick(d, staff)
		p.ticket(p.rhythm.office(d), w.user(), w.laptop, d.between(49152, 65535))
	}
	for range p.times(160) {
		h := pick(d, hosts)
		p.ticket(p.rhythm.always(d), h.machine(), h.ip, d.between(49152, 65535))
	}
	for range p.times(2500) {
		w, h := pick(d, staff), pick(d, hosts[2:])
		p.serviceTicket(p.rhythm.office(d), w.user(), h.name+"$", h.sid, "0x12", "0x40810000", w.laptop, d.between(49152, 65535), d.guid())
	}
	for range p.times(900) {
		h, at := pick(d, hosts), p.rhythm.always(d)
		l := &logon{who: h.machine(), id: uint64(d.between(0x180000, 0xfffffff)), kind: 3, pkg: "Kerberos", station: "-", ip: h.ip, port: d.between(49152, 65535), guid: d.guid(), elevated: h == p.ad}
		p.logonOn(p.ad, at, l)
		if d.IntN(2) == 0 {
			p.share(p.ad, at.Add(5*time.Millisecond), l, "SYSVOL", `\??\C:\Windows\SYSVOL\sysvol`, "0x1")
		}
		p.logoff(p.ad, at.Add(d.part(time.Second, 4*time.Minute)), l)
	}
}

// terminals is the administrators' work on the Linux hosts, and the audit of it.
func (p *play) terminals() {
	d := p.draws("terminals")
	admins := p.admins()
	commands := [...][]string{
		{"/usr/bin/systemctl", "systemctl", "status", "nginx"}, {"/usr/bin/journalctl", "journalctl", "-u", "postgresql", "-n", "100"},
		{"/usr/bin/apt-get", "apt-get", "update"}, {"/usr/bin/apt-get", "apt-get", "-y", "upgrade"}, {"/usr/bin/df", "df", "-h"}, {"/usr/bin/tail", "tail", "-n", "50", "/var/log/nginx/access.log"},
		{"/usr/bin/ls", "ls", "-la", "/srv/www"}, {"/usr/bin/less", "less", "/var/log/postgresql/postgresql-16-main.log"}, {"/usr/bin/psql", "psql", "-l"}, {"/usr/bin/vim.basic", "vim", "/srv/www/site.conf"},
		{"/usr/bin/git", "git", "-C", "/srv/www", "pull", "--ff-only"}, {"/usr/bin/free", "free", "-m"}, {"/usr/bin/du", "du", "-sh", "/srv/www"},
	}
	elevated := [...]string{"/usr/bin/systemctl reload nginx", "/usr/bin/apt-get update", "/usr/bin/journalctl -u postgresql", "/usr/bin/systemctl restart postgresql", "/usr/bin/tail /var/log/syslog", "/usr/bin/apt-get -y upgrade"}
	session := 4100
	for range p.times(150) {
		w := pick(d, admins)
		h := pick(d, []*host{p.jump, p.jump, p.db})
		from := w.laptop
		if h == p.db {
			from = p.jump.ip
		}
		session++
		uid := w.uid
		s := &shell{h: h, user: w.account, uid: uid, from: from, port: d.between(32768, 60999), pid: d.between(2000, 90000), session: session, tty: d.between(0, 4)}
		at, length := p.rhythm.office(d), d.part(4*time.Minute, 50*time.Minute)
		if d.IntN(9) == 0 {
			p.syslog(h, at.Add(-7*time.Second), priAuth, "sshd", s.pid, "Failed password for "+w.account+" from "+from+" port "+strconv.Itoa(s.port)+" ssh2")
		}
		p.login(d, s, at, pick(d, []string{"publickey", "publickey", "publickey", "keyboard-interactive/pam"}), length)
		identity := who{auid: uid, uid: uid, session: session, tty: "pts" + strconv.Itoa(s.tty)}
		for range d.between(2, 6) {
			c := pick(d, commands[:])
			p.exec(d, h, at.Add(d.part(time.Second, length)), identity, s.pid+4, d.between(2000, 90000), c[0], "/home/"+w.account, "exec", c[1:]...)
		}
		for range d.between(0, 2) {
			p.sudo(s, at.Add(d.part(time.Second, length)), d.between(2000, 90000), "/home/"+w.account, pick(d, elevated[:]))
		}
	}
	// The jump host faces the Internet: somebody always tries a name.
	names := [...]string{"test", "oracle", "ubuntu", "guest", "ftpuser", "git", "pi", "deploy"}
	for range p.times(45) {
		at, ip, port := p.rhythm.always(d), fmt.Sprintf("192.0.2.%d", d.between(100, 220)), strconv.Itoa(d.between(32768, 60999))
		pid, name := d.between(2000, 90000), pick(d, names[:])
		p.syslog(p.jump, at, priAuth, "sshd", pid, "Invalid user "+name+" from "+ip+" port "+port)
		p.syslog(p.jump, at.Add(300*time.Millisecond), priAuth, "sshd", pid, "Connection closed by invalid user "+name+" "+ip+" port "+port+" [preauth]")
	}
}

// cron is the clockwork of the Linux hosts.
func (p *play) cron() {
	d := p.draws("cron")
	for _, h := range []*host{p.jump, p.db} {
		for t := p.from.Truncate(10 * time.Minute); t.Before(p.to); t = t.Add(10 * time.Minute) {
			at := t.Add(time.Second + time.Duration(d.IntN(900_000))*time.Microsecond)
			pid := d.between(2000, 90000)
			p.syslog(h, at, priAuth, "CRON", pid, "pam_unix(cron:session): session opened for user root(uid=0) by root(uid=0)")
			p.syslog(h, at.Add(3*time.Millisecond), priCron, "CRON", pid+1, "(root) CMD (command -v debian-sa1 > /dev/null && debian-sa1 1 1)")
			p.syslog(h, at.Add(time.Second), priAuth, "CRON", pid, "pam_unix(cron:session): session closed for user root")
			if d.IntN(3) == 0 {
				p.exec(d, h, at.Add(20*time.Millisecond), who{uid: 0, session: -1, tty: "(none)"}, pid+1, pid+2, "/usr/bin/dash", "/root", "exec", "/bin/sh", "/usr/lib/sysstat/sa1", "1", "1")
			}
		}
		for range p.times(60) {
			p.syslog(h, p.rhythm.always(d), 3*8+6, "systemd", 1, pick(d, []string{"Starting Daily apt download activities...", "Finished Rotate log files.", "Started Cleanup of Temporary Directories.", "Reloading nginx - high performance web server...", "logrotate.service: Deactivated successfully."}))
		}
	}
}

// web is what the laptops do in the web.
func (p *play) web() {
	d := p.draws("web")
	staff, web := p.working(), sites()
	for range p.times(3000) {
		w, s := pick(d, staff), pick(d, web)
		p.visit(d, p.rhythm.office(d), w.laptop, s.name, s.ip, d.part(80*time.Millisecond, 110*time.Second), d.bytes(4200), d.bytes(52_000))
	}
	for range p.times(160) {
		w, s := pick(d, staff), pick(d, web)
		p.webfilter(p.rhythm.office(d), w.laptop, s.ip, s.name, pick(d, []string{"Business", "News", "Information Technology", "Government"}))
	}
}

// inner is traffic between the agency's own machines, which only the sensor sees.
func (p *play) inner() {
	d := p.draws("inner")
	staff := p.working()
	for range p.times(1500) {
		w := pick(d, staff)
		f := &flow{at: p.rhythm.office(d), length: d.part(10*time.Millisecond, 4*time.Minute).Truncate(time.Microsecond), src: w.laptop, sport: d.between(49152, 65535),
			sent: d.bytes(2500), got: d.bytes(30_000), state: "SF", history: "ShADadFf", local: true, uid: "C" + d.word(17)}
		switch d.IntN(4) {
		case 0, 1:
			f.dst, f.dport, f.service = p.fs.ip, 445, "gssapi,smb,krb"
		case 2:
			f.dst, f.dport, f.service = p.ad.ip, 88, "krb_tcp"
		case 3:
			f.dst, f.dport, f.service = p.ad.ip, 389, "ldap_tcp"
		}
		p.conn(f)
	}
	for range p.times(700) {
		w := pick(d, staff)
		p.dns(&question{at: p.rhythm.office(d), uid: "C" + d.word(17), src: w.laptop, sport: d.between(49152, 65535), id: d.between(1, 65535),
			rtt: d.part(200*time.Microsecond, 2*time.Millisecond), name: pick(d, []string{"fs01", "dc01", "_ldap._tcp.dc._msdcs", "wpad", "mail", "intranet"}) + "." + dnsDomain,
			qtype: 1, qname: "A", rname: "NOERROR", answer: p.ad.ip, ttl: 600})
	}
}

// refused is the background noise of the Internet and a few mistakes inside.
func (p *play) refused() {
	d := p.draws("refused")
	ports := [...]int{22, 23, 80, 443, 445, 1433, 3389, 5060, 5900, 8080, 8443}
	for range p.times(1300) {
		f := &flow{at: p.rhythm.always(d), src: fmt.Sprintf("192.0.2.%d", d.between(100, 250)), dst: fmt.Sprintf("192.0.2.%d", d.between(20, 40)), sport: d.between(1024, 65535), dport: pick(d, ports[:]), app: "other"}
		p.denied(f, 0, "wan", "dmz")
	}
	staff := p.working()
	for range p.times(120) {
		w := pick(d, staff)
		f := &flow{at: p.rhythm.office(d), src: w.laptop, dst: fmt.Sprintf("198.51.100.%d", d.between(101, 218)), sport: d.between(49152, 65535), dport: pick(d, []int{3478, 5228, 8080, 123}), udp: true, app: "other"}
		p.denied(f, 99, "lan", "wan")
	}
}

// calls are telephone calls that pass the firewall.
func (p *play) calls() {
	d := p.draws("calls")
	staff := p.working()
	for range p.times(260) {
		w := pick(d, staff)
		p.call(p.rhythm.office(d), w.laptop, w.phone, fmt.Sprintf("+1202555%04d", d.between(7000, 7999)), d.between(8, 1500))
	}
}

func (p *play) signIns() {
	d := p.draws("signins")
	staff := p.working()
	apps := [...]string{"Mail", "Time and Attendance", "Case Tracker", "Wiki", "Travel", "Learning", "Document Store"}
	for range p.times(1250) {
		w := pick(d, staff)
		s := &signin{at: p.rhythm.office(d), w: w, ip: "192.0.2.10", land: "US", ok: true, mfa: true, client: "browser", app: pick(d, apps[:]), device: w.laptopID, agent: w.agent, session: d.uuid()}
		switch d.IntN(12) {
		case 0, 1:
			s.ip = w.home
		case 2:
			s.client, s.app, s.device, s.agent = "mobile app", "Mail", w.phoneID, "OutlookMobile/4.2546 ("+w.phoneOS+"; "+w.phoneModel+")"
			s.ip = w.home
		case 3:
			if d.IntN(2) == 0 {
				s.ok, s.mfa, s.code = false, false, pick(d, []int{50126, 50126, 500121, 50055})
				s.reason = map[int]string{50126: "invalid_password", 500121: "mfa_timeout", 50055: "password_expired"}[s.code]
			}
		}
		p.signIn(s)
	}
}

func (p *play) phones() {
	d := p.draws("phones")
	for i, w := range p.people {
		for n := range 4 {
			at := p.from.Add(time.Duration(n)*12*time.Hour + d.part(time.Minute, 11*time.Hour)).Truncate(time.Millisecond)
			r := &report{at: at, w: w, osVersion: w.phoneVersion(), land: "US", compliant: true, action: "report", checkIn: at.Add(-d.part(time.Second, 20*time.Minute)).Truncate(time.Second)}
			if i != abroadAt || n == 0 {
				p.deviceReport(r)
			}
		}
	}
}
