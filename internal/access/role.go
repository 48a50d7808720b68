package access

import (
	"net/netip"
	"strings"

	"github.com/counterseal/counterseal/internal/admit"
)

// role says what a field may hold.
type role uint8

const (
	person  role = 1 << iota // who somebody is
	device                   // a machine or an address, perhaps of one user
	session                  // one user's session
	content                  // what was read, written, visited, printed or contacted
	prose                    // text that may hold a home path or a name: paths, command lines
	unknown                  // a field that these tables do not know

	// peopled are the roles that put people into an answer.
	peopled = person | device | session | prose | unknown
)

// roleOf reads the name of a field as the index has it. A field that is not known
// counts as contents where it is tested and as people where it is shown.
func roleOf(field string) role {
	switch field {
	case "":
		return content | prose
	case "ref":
		return prose // leads to the record
	case "time", "sealed", "compartment", "source", "dataset", "kind", "truncated":
		return 0
	}
	f := strings.ToLower(field)
	if native, ok := strings.CutPrefix(f, "native."); ok {
		return nativeRole(native)
	}
	first, _, _ := strings.Cut(f, ".")
	last := f[strings.LastIndexByte(f, '.')+1:]
	switch {
	case segment(f, "location"): // where somebody is
		if last == "country" || last == "continent" {
			return 0
		}
		return content
	case first == "finding":
		if last == "group" || last == "part" {
			return prose
		}
		return 0
	case segment(f, "email"), first == "message", first == "raw_data", first == "unmapped" || first == "observables":
		if first == "email" && (last == "to" || last == "from" || last == "cc" || last == "bcc" || last == "sender" || last == "reply_to" || last == "smtp_from" || last == "smtp_to") {
			return person | content
		}
		if first == "email" && last == "size" {
			return 0
		}
		return content | prose
	case segment(f, "user"), segment(f, "owner"), segment(f, "manager"), segment(f, "member"), segment(f, "users"), first == "entity", last == "service_start_name", last == "email_addr", last == "phone_number", last == "full_name":
		switch last {
		case "type", "type_id", "domain", "risk_level", "risk_level_id", "has_mfa":
			return 0
		}
		return person
	case segment(f, "session"):
		switch last {
		case "uid", "uuid", "uid_alt", "credential_uid", "session":
			return session
		}
		return 0
	case segment(f, "url"), first == "query" && last != "type" && last != "class" && last != "opcode_id", first == "answers", last == "sni", last == "referrer", segment(f, "web_resources"), segment(f, "resources"), first == "databucket":
		switch last {
		case "port", "scheme", "type", "ttl", "flags":
			return 0
		}
		return content
	case segment(f, "certificate"):
		if last == "subject" || last == "sans" {
			return content
		}
		return 0
	case segment(f, "process"), first == "script", first == "module", first == "driver", first == "job", strings.HasPrefix(first, "reg_"), first == "win_service", first == "service", first == "logon_process", first == "startup_item":
		switch last {
		case "pid", "uid", "tid", "md5", "sha256", "value", "algorithm", "size", "integrity", "integrity_id", "created_time", "start_type", "type":
			return 0
		}
		return prose
	case first == "file", first == "win_resource", first == "share", first == "folder", first == "file_diff", first == "file_result", first == "print", first == "printer", first == "document":
		switch last {
		case "size", "type", "type_id", "mime_type", "value", "algorithm", "algorithm_id", "ext":
			return 0
		}
		return content | prose
	case first == "app" || first == "app_name" || first == "application", first == "peripheral_device":
		return content
	case strings.HasSuffix(first, "endpoint"), first == "device", first == "relay", first == "intermediate_ips", first == "proxy":
		switch last {
		case "hostname", "name", "ip", "uid", "uid_alt", "mac", "instance_uid", "serial_number", "imei", "imei_list", "meid", "udid", "eid", "iccid", "vendor_uid", "domain", "ip_addresses", "network_interfaces", "intermediate_ips", "agent_list", "hw_info":
			if segment(f, "os") || first == "device" && last == "domain" || first == "src_endpoint" && last == "domain" {
				return 0
			}
			if first == "dst_endpoint" {
				return device | content
			}
			return device
		}
		return 0
	}
	if last == "user_agent" {
		return prose
	}
	switch first {
	case "class_uid", "class_name", "category_uid", "category_name", "activity_id", "activity_name", "type_uid", "type_name", "severity", "severity_id",
		"status", "status_id", "status_code", "status_detail", "metadata", "action", "action_id", "disposition", "disposition_id", "cloud", "api", "connection_info",
		"auth_protocol", "auth_protocol_id", "logon_type", "logon_type_id", "is_mfa", "is_remote", "is_cleartext", "is_new_logon", "rcode", "rcode_id", "firewall_rule",
		"privileges", "finding_info", "rule", "malware", "attacks", "risk_level", "risk_level_id", "risk_score", "confidence", "confidence_id", "count", "duration",
		"traffic", "tls", "http_request", "http_response", "query", "command", "share_type", "policy", "authorizations", "start_time", "end_time", "timezone_offset",
		"osint", "remediation", "state", "state_id", "app_protocol", "port", "direction", "direction_id", "protocol_ver", "http_status", "access_mask", "requested_permissions", "prev_reg_value", "create_mask", "open_type", "account_switch_type", "account_switch_type_id", "exit_code", "log_name":
		return 0
	case "group":
		return prose
	case "actor":
		if last == "app_name" || last == "app_uid" || last == "invoked_by" {
			return prose
		}
		return person
	}
	return unknown
}

// segment reports whether one part of a dotted name is s.
func segment(name, s string) bool {
	for i := 0; ; {
		k := strings.Index(name[i:], s)
		if k < 0 {
			return false
		}
		at, end := i+k, i+k+len(s)
		if (at == 0 || name[at-1] == '.') && (end == len(name) || name[end] == '.') {
			return true
		}
		i = end
	}
}

// nativeRole reads the producer's own name: the last part, letters and digits only.
func nativeRole(name string) role {
	if strings.HasPrefix(name, "user.") || strings.HasPrefix(name, "actor.") {
		return person
	}
	last := name[strings.LastIndexByte(name, '.')+1:]
	if strings.ContainsAny(last, "_-@ ") {
		last = strings.NewReplacer("_", "", "-", "", "@", "", " ", "").Replace(last)
	}
	if r, ok := nativeRoles[last]; ok {
		return r
	}
	switch {
	case strings.HasSuffix(last, "username"), strings.HasSuffix(last, "usersid"), strings.HasSuffix(last, "userid"), strings.HasSuffix(last, "email"), strings.HasSuffix(last, "phone"):
		return person
	case strings.HasSuffix(last, "hostname"), strings.HasSuffix(last, "ipaddress"):
		return device
	case strings.HasSuffix(last, "logonid"), strings.HasSuffix(last, "sessionid"):
		return session
	}
	return unknown
}

var nativeRoles = roles(map[role]string{
	person: `targetusername subjectusername user username usr accountname samaccountname targetusersid subjectusersid usersid sid targetsid membername membersid userprincipalname upn
		userid uid auid loginuid suid euid fsuid ouid owner acct account login loginname userdisplayname employeeid sourceuser targetuser parentuser srcuser dstuser suser duser
		caller callername phone phonenumber msisdn client cookie displayname alternateid manager logonuser ruser userlogin userarn arn principalid objectid initiatedby targetoutboundusername`,
	person | content: `recipient recipients to from cc bcc sender mailfrom rcptto email mail`,
	session:          `logonid targetlogonid subjectlogonid logonguid sessionid ses session linkedlogonid targetlogonguid`,
	device: `computer computername hostname workstation workstationname machinename devicename deviceid serialnumber imei mac macaddress ipaddress clientip clientaddress
		sourceip sourceipaddress sourceaddress sourcehostname srcip src srchost origh clientname cip deviceip ip sourcenetworkaddress callerip remoteip source workstations addr node
		sourceworkstation udid assetid systemname`,
	device | content: `host destinationip destinationhostname destinationaddress dst dstip dsthost resph rhost remoteaddress targetservername remotehost destip destination targethostname sip shost`,
	content: `url uri query queryname querystring requesturl cshost csuristem csuriquery curi csuri csreferer csreferrer referer referrer servername sni
		document documentname printer printername subject title windowtitle page site website
		usb devicedescription volume app application appname destinationdomain dstdomain answers queryresults channelname chat item itemname certsubject`,
	content | prose: `targetfilename objectname filename filepath fname sharename relativetargetname path target folder message msg payload rawdata contents text body data _unparsed unparsed`,
	prose: `image parentimage commandline parentcommandline originalfilename imageloaded currentdirectory process processname newprocessname parentprocessname exe comm cmdline cwd
		scriptblocktext details targetobject servicefilename servicename imagepath taskname taskcontent pipename proctitle sourceimage targetimage calltrace command parentprocess
		application file key name newname actions scriptpath contextinfo hostapplication tty terminal useragent csuseragent a0 a1 a2 a3`,
	0: `eventid eventcode channel provider providername version level keywords opcode task recordid eventrecordid logontype status substatus authenticationpackagename logonprocessname
		lmpackagename keylength integritylevel hashes md5 sha1 sha256 imphash processid parentprocessid newprocessid port srcport dstport sourceport destinationport protocol proto action
		rcode rcodename qtype qtypename method csmethod statuscode scstatus result outcome severity type category product vendor privilegelist accesslist accessmask
		grantedaccess ticketencryptiontype ticketoptions failurereason company description fileversion signature signed signaturestatus ruleid policyid bytes duration eventtype
		operation eventsource eventname awsregion errorcode errormessage success syscall facility priority connstate service auditpolicychanges subcategoryguid pid ppid
		elevatedtoken impersonationlevel mandatorylabel tokenelevationtype servicetype starttype initiated sourceisipv6 destinationisipv6 utctime rulename arch exitcode exit
		authrequirement conditionalaccessstatus risklevel riskstate isinteractive clientappused region country origbytes respbytes origp respp historystate history missedbytes
		threatname actionid threatid enabled newthreadid startmodule startfunction startaddress`,
})

func roles(words map[role]string) map[string]role {
	m := make(map[string]role, 300)
	for r, list := range words {
		for w := range strings.FieldsSeq(list) {
			m[w] |= r
		}
	}
	return m
}

// fold is how values compare: the words of directory, door and question alike.
func fold(s string) string {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c >= 'A' && c <= 'Z' || c >= 0x80 || c == '\t' || c == '\n' || c == ' ' {
			return admit.Fold(s)
		}
	}
	return s
}

// letters reports whether there is anything to know somebody by.
func letters(s string) bool {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c >= 0x80 {
			return true
		}
	}
	return false
}

// wellKnown tells accounts and machines that are nobody's. It is shorter than the
// list of the door: what stands here is free to ask.
func wellKnown(f string) bool {
	if i := strings.LastIndexByte(f, '\\'); i >= 0 {
		if builtinDomains[f[:i]] {
			return true
		}
		f = f[i+1:]
	}
	if wellKnownNames[f] {
		return true
	}
	if rest, ok := strings.CutPrefix(f, "s-1-"); ok { // built-in principals
		if strings.HasPrefix(rest, "5-21-") { // the built-in accounts of a domain have three digits
			i := strings.LastIndexByte(rest, '-')
			return len(rest)-i == 4 && rest[i+1] != '0' && strings.Trim(rest[i+1:], "0123456789") == ""
		}
		return !strings.HasPrefix(rest, "12-")
	}
	for _, p := range [...]string{"dwm-", "umfd-", "healthmailbox"} {
		if rest, ok := strings.CutPrefix(f, p); ok && strings.Trim(rest, "0123456789abcdef") == "" {
			return true
		}
	}
	return false
}

func wellKnownPart(f string) bool {
	for p := range strings.SplitSeq(f, string(gap)) {
		p = strings.Trim(p, ` \`)
		if len(p) == 4 && p[0] == '-' && p[1] != '0' && strings.Trim(p[1:], "0123456789") == "" {
			continue // the end of the SID of a built-in account or group
		}
		if strings.HasPrefix(p, "s-1-") {
			continue // shape would have found more than the domain
		}
		if n := strings.Count(p, "."); n > 0 && n <= 2 && p[len(p)-1] == '.' && strings.Trim(p, "0123456789.") == "" {
			continue // a wide network: 10. or 192.168.
		}
		if letters(p) && !wellKnown(p) && !builtinDomains[p] && !wellKnownParts[p] {
			return false
		}
	}
	return true
}

var (
	builtinDomains = set("nt authority|nt-autorität|autorite nt|autorité nt|nt autority|autoridade nt|builtin|vordefiniert|nt service|nt-dienst|window manager|font driver host|iis apppool|nt virtual machine")
	wellKnownParts = set("authori|autori|authority|admin|system32|windows|local|microsoft|mssql|iis")
	wellKnownNames = set("-|--|?|n/a|null|none|(null)|unknown|unset|system|local service|network service|localsystem|localservice|networkservice|anonymous logon|anonymous|trustedinstaller|" +
		"lokaler dienst|netzwerkdienst|système|everyone|jeder|authenticated users|interactive|batch|service|network|self|users|administrators|administratoren|" +
		"administrator|administrateur|administrador|guest|gast|invité|defaultaccount|wdagutilityaccount|krbtgt|helpassistant|admin|" +
		"root|daemon|bin|sys|sync|nobody|nogroup|lp|www-data|backup|list|systemd-network|systemd-resolve|systemd-timesync|messagebus|syslog|sshd|polkitd|dbus|chrony|ntp|rpc|postfix|apache|nginx|httpd|mysql|postgres|redis|mongodb|tomcat|docker|git|jenkins|puppet|zabbix|nagios|ftp|operator|" +
		"localhost|127.0.0.1|::1|0.0.0.0|255.255.255.255|0x3e7|0x3e4|0x3e5|0x0|999|0|-1|4294967295|65534|" +
		"public|default|default user|all users|systemprofile|shared|defaultuser0|lost+found|.|..|linuxbrew|defaultapppool|" +
		"hidden_due_to_security_reasons|aws internal|system:anonymous|kali|true|false")
	// protocols are what app names say of a connection and not of a person.
	protocols = set("ssh|sshd|dns|http|https|ssl|tls|rdp|smb|smb2|ftp|tftp|ntp|dhcp|krb|krb_tcp|kerberos|ntlm|ldap|smtp|imap|pop3|snmp|syslog|quic|radius|gssapi|dce_rpc|mysql|sudo|su|cron|systemd|kernel|ipp|sip|irc|modbus|dnp3")
	files     = set("exe|dll|sys|ocx|cpl|scr|msi|bat|cmd|vbs|vbe|js|jse|wsf|hta|lnk|ps1|psm1|py|sh|pl|jar|so|ko|inf|ini|cfg|conf|tmp|log|evtx|service|elf|bin|dat|drv|com|php|asp|aspx|jsp")
	documents = [...]string{".doc", ".docx", ".xls", ".xlsx", ".ppt", ".pptx", ".pdf", ".odt", ".ods", ".rtf", ".eml", ".msg", ".pst"}
	// privates are words of private life and opinion. They are a floor, not a list to
	// rest on: Options.Private adds the names of a country and a town.
	privates = [...]string{"signal", "whatsapp", "telegram", "threema", "wire", "viber", "wechat", "messenger", "facebook", "instagram", "linkedin", "tinder", "grindr", "glassdoor", "protonmail", "proton.me", "tutanota", "gmail",
		"union", "gewerkschaft", "syndicat", "sindacato", "sindicato", "verdi", "betriebsrat", "works council", "personalrat", "clinic", "klinik", "hospital", "doctor", "therapy", "therapist", "psych", "abortion", "pregnan", "cancer", "addiction",
		"newspaper", "news", "herald", "gazette", "tribune", "zeitung", "journal", "press", "reporter", "journalist", "whistle", "securedrop", "ombud", "lawyer", "attorney", "counsel", "anwalt",
		"church", "mosque", "synagogue", "party", "election", "petition", "protest", "strike", "job", "career", "resume", "dating"}
	privateWhole = set("wire|news|press|party|strike|job|doctor|signal|union|career|resume|cancer|journal|verdi|counsel|messenger")
)

// privateWord finds a word of private life in folded text. Short and common words
// count as whole words only: firewall is no wire.
func privateWord(f string) bool {
	for _, w := range privates {
		for i := 0; ; {
			k := strings.Index(f[i:], w)
			if k < 0 {
				break
			}
			at, end := i+k, i+k+len(w)
			if !privateWhole[w] || (at == 0 || !letters(f[at-1:at])) && (end == len(f) || !letters(f[end:end+1])) {
				return true
			}
			i = end
		}
	}
	for _, d := range documents { // names of documents, where they stand in command lines
		if i := strings.Index(f, d); i > 0 && letters(f[i-1:i]) && (i+len(d) == len(f) || !letters(f[i+len(d):i+len(d)+1])) {
			return true
		}
	}
	return false
}

func set(words string) map[string]bool {
	m := map[string]bool{}
	for w := range strings.SplitSeq(words, "|") {
		m[w] = true
	}
	return m
}

// plainValue tells values of content fields that say nothing of what was read:
// numbers, digests, protocols.
func plainValue(f string) bool {
	if protocols[f] || wellKnownNames[f] {
		return true
	}
	if number(f) {
		return true
	}
	return (len(f) == 32 || len(f) == 40 || len(f) == 64) && strings.Trim(f, "0123456789abcdef") == ""
}

func number(f string) bool { return strings.Trim(f, "0123456789") == "" }

// notAName tells members of a list that are no account: digests, numbers, files,
// paths, domains.
func notAName(f string) bool {
	if plainValue(f) || strings.ContainsAny(f, `/\:`) {
		return true
	}
	i := strings.LastIndexByte(f, '.')
	return i > 0 && (files[f[i+1:]] || domain(f))
}

// domain tells a name with two labels or more, as public sites have them.
func domain(f string) bool {
	i := strings.LastIndexByte(f, '.')
	if i <= 0 || len(f)-i < 3 || files[f[i+1:]] || strings.ContainsAny(f, " ") {
		return false
	}
	tld := f[i+1:]
	if strings.Trim(tld, "abcdefghijklmnopqrstuvwxyz") != "" && !strings.HasPrefix(tld, "xn--") {
		return false
	}
	// alice.smith is a name as often as a domain: a short last label, or two dots.
	return len(tld) <= 4 || strings.Count(f, ".") > 1 || tld == "example" || tld == "onion"
}

func internalName(f string) bool {
	for _, s := range [...]string{".local", ".internal", ".lan", ".corp", ".intranet", ".home.arpa", ".localdomain"} {
		if strings.HasSuffix(f, s) {
			return true
		}
	}
	return false
}

// outward reports whether an address of a destination field lies outside.
func outward(r role, a netip.Addr) bool {
	a = a.Unmap()
	return r&content != 0 && !a.IsPrivate() && !a.IsLoopback() && !a.IsLinkLocalUnicast() && !a.IsMulticast() && !a.IsUnspecified() && !shared100.Contains(a)
}

var shared100 = netip.MustParsePrefix("100.64.0.0/10")

// stix gives the field for a type of indicator.
func stix(t string) string {
	switch strings.ToLower(t) {
	case "domain-name", "domain", "hostname":
		return "query.hostname"
	case "url":
		return "http_request.url.url_string"
	case "ipv4-addr", "ipv6-addr", "ip", "ip-dst":
		return "dst_endpoint.ip"
	case "file", "filename", "file-name":
		return "process.file.name"
	case "file-hash", "md5", "sha1", "sha256":
		return "file.hashes.value"
	case "email-addr", "email":
		return "email.from"
	case "user-account", "user":
		return "user.uid"
	case "mac-addr":
		return "device.mac"
	}
	return t
}
