package demo

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// rule is one line of an assessment.
type rule struct {
	action, category string
	why              string
	paths            string // separated by spaces
}

// Reasons that stand in several places.
const (
	whyCommand = "Intrusion rules read how programs are started. Names inside become tokens; nothing is shown outside an approved look."
	whyScript  = "Rules must read script text at the door. Only its length and a keyed digest are stored."
	whyShared  = "The desks are shared and their names are no person's."
	whyQuery   = "Tunnels and command channels show in the names that are looked up. Contact with protected offices is withheld before."
	whySetting = "Persistence shows in the value that was written. Names inside become tokens."
)

// windowsHead is what all Windows records carry.
func windowsHead() []rule {
	return []rule{
		{"allow", "", "", "Channel EventID Provider_Name Version Task Opcode Keywords TimeCreated_SystemTime event.action event.outcome"},
		{"allow", "device", whyShared, "Computer"},
		{"tokenise", "person", "", "Security_UserID Security_UserName"},
		{"allow", "", "", "Security_UserDomain"},
		{"drop", "text", "The rendered text repeats the fields with names in clear.", "Message"},
		{"drop", "", "Of no use to a rule.", "@timestamp Provider_Guid Execution_ProcessID Execution_ThreadID Security_UserType log.level"},
	}
}

func securityRules() []rule {
	return append(windowsHead(),
		rule{"tokenise", "person", "", "SubjectUserSid SubjectUserName TargetUserSid TargetUserName MemberName MemberSid TargetSid SamAccountName UserPrincipalName"},
		rule{"allow", "", "", "SubjectDomainName SubjectLogonId TargetDomainName TargetLogonId TargetLinkedLogonId LogonType LogonProcessName AuthenticationPackageName LmPackageName KeyLength LogonGuid TargetLogonGuid"},
		rule{"allow", "", "", "ElevatedToken ImpersonationLevel VirtualAccount Status SubStatus FailureReason PrivilegeList"},
		rule{"tokenise", "address", "", "IpAddress"},
		rule{"allow", "", "", "IpPort"},
		rule{"tokenise", "device", "", "WorkstationName"},
		rule{"allow", "", "", "TargetServerName TargetInfo ShareName AccessMask AccessList ObjectType"},
		rule{"allow", "", "", "ServiceName ServiceSid ServiceFileName ServiceType ServiceStartType ServiceAccount TicketOptions TicketEncryptionType PreAuthType"},
		rule{"allow", "", "", "NewProcessId NewProcessName ProcessId ProcessName ParentProcessName TokenElevationType MandatoryLabel"},
		rule{"allow", "command", whyCommand, "CommandLine"},
		rule{"allow", "", "", "TaskName xml_name CategoryId SubcategoryId SubcategoryGuid AuditPolicyChanges"},
		rule{"drop", "", "Of no use to a rule.", "TransmittedServices RestrictedAdminMode TargetOutboundUserName TargetOutboundDomainName CertIssuerName CertSerialNumber CertThumbprint"},
		rule{"drop", "", "Of no use to a rule.", "ClientProcessStartKey ClientProcessId ParentProcessId RpcCallClientLocality FQDN"},
		rule{"detect-only", "text", "A file's name may say what somebody works on; rules for written programs read it at the door.", "RelativeTargetName"},
		rule{"detect-only", "text", "A task's content names its author.", "TaskContent"},
		rule{"drop", "text", "Not needed by any rule.", "ShareLocalPath DisplayName UserAccountControl OldUacValue NewUacValue PasswordLastSet AccountExpires PrimaryGroupId"},
	)
}

func sysmonRules() []rule {
	return append(windowsHead(),
		rule{"allow", "", "", "RuleName UtcTime ProcessGuid ProcessId Image FileVersion Product Company OriginalFileName IntegrityLevel Hashes LogonGuid LogonId TerminalSessionId"},
		rule{"allow", "", "The vendor's own name of the program, from the file.", "Description"},
		rule{"allow", "command", whyCommand, "CommandLine ParentCommandLine"},
		rule{"allow", "", "", "CurrentDirectory ParentProcessGuid ParentProcessId ParentImage"},
		rule{"tokenise", "person", "", "User ParentUser SourceUser TargetUser"},
		rule{"allow", "", "", "Protocol Initiated SourceIsIpv6 SourcePort DestinationIsIpv6 DestinationIp DestinationHostname DestinationPort"},
		rule{"tokenise", "address", "", "SourceIp"},
		rule{"drop", "device", "Computer says it already.", "SourceHostname SourcePortName DestinationPortName"},
		rule{"allow", "", "", "SourceProcessGUID SourceProcessId SourceThreadId SourceImage TargetProcessGUID TargetProcessId TargetImage GrantedAccess CallTrace"},
		rule{"allow", "", "", "TargetFilename CreationUtcTime EventType TargetObject"},
		rule{"allow", "text", whySetting, "Details"},
		rule{"allow", "url", whyQuery, "QueryName"},
		rule{"allow", "", "", "QueryStatus PipeName ImageLoaded Signed Signature SignatureStatus Type"},
		rule{"detect-only", "text", "The head of a downloaded file; rules read it at the door.", "Contents"},
		rule{"drop", "", "The name tells enough.", "QueryResults"},
	)
}

func powershellRules() []rule {
	return append(windowsHead(),
		rule{"allow", "", "", "MessageNumber MessageTotal ScriptBlockId Path"},
		rule{"detect-only", "command", whyScript, "ScriptBlockText"},
	)
}

func systemRules() []rule {
	return append(windowsHead(),
		rule{"allow", "", "", "param1 param2 ServiceName ImagePath ServiceType StartType AccountName"},
	)
}

// syslogHead is what all syslog records carry.
func syslogHead() []rule {
	return []rule{{"allow", "", "", "timestamp hostname facility severity app_name proc_id"}}
}

func linuxSources() []sourceRule {
	s := func(dataset string, more ...rule) sourceRule {
		return sourceRule{source: "linux", dataset: dataset, compartment: "servers", original: 7, lateness: 10, rules: append(syslogHead(), more...)}
	}
	audit := sourceRule{source: "linux-audit", dataset: "linux-auditd", compartment: "servers", original: 7, lateness: 10, rules: []rule{
		{"allow", "", "", "timestamp syslog_host audit_time facility severity app_name type arch syscall success exit a0 a1 a2 a3 items ppid pid tty ses comm exe subj key"},
		{"allow", "command", "The arguments of a program started on a server show an intrusion. Names inside become tokens.", "argc a4 a5 a6"},
		{"allow", "", "", "ARCH SYSCALL"},
		{"tokenise", "person", "", "auid uid gid euid suid fsuid egid sgid fsgid ouid ogid AUID UID EUID SUID FSUID"},
		{"drop", "", "The names of groups repeat those of their owners.", "GID EGID SGID FSGID"},
		{"allow", "", "", "cwd item name inode dev mode nametype"},
		{"allow", "", "", "op audit_enabled res"},
		{"drop", "", "Of no use to a rule.", "rdev cap_fp cap_fi cap_fe cap_fver cap_frootid"},
		{"detect-only", "command", "Repeats the arguments; rules may read it at the door.", "proctitle"},
	}}
	return []sourceRule{
		s("linux-sshd", rule{"allow", "", "", "event method src_port protocol phase user_state reason pid"},
			rule{"hash-keyed", "", "A key's print shows the same key again and stands for a person.", "key"},
			rule{"tokenise", "person", "", "user"}, rule{"tokenise", "address", "", "src_ip"}),
		s("linux-sudo", rule{"allow", "", "", "tty runas pwd outcome reason"}, rule{"tokenise", "person", "", "user"},
			rule{"allow", "command", "What was done with an administrator's rights on a server.", "command"}),
		s("linux-auth", rule{"allow", "", "", "event module service session_id"}, rule{"tokenise", "person", "", "user by uid by_uid"},
			rule{"tokenise", "address", "", "src_ip"}),
		s("syslog", rule{"drop", "text", "Free text of many programs.", "msg"},
			rule{"detect-only", "text", "A line that no parser takes may hide an attack on the parser: rules may read it at the door, its digest shows repeats.", "_unparsed"}),
		audit,
	}
}

// sourceRule is one source and dataset of an assessment.
type sourceRule struct {
	source, dataset, compartment string
	original                     int // days
	lateness                     int // minutes
	rules                        []rule
}

// assessment is one PIA.
type assessment struct {
	file, id, title, summary string
	system                   string
	ssp                      string
	compartments             []string
	joins                    []string
	retention                int
	schedule                 string
	sources                  []sourceRule
	risk, mitigation         string
}

func assessments() []assessment {
	windows := func(compartment string, sources ...string) []sourceRule {
		var list []sourceRule
		for _, s := range sources {
			for _, d := range [...]struct {
				dataset string
				rules   []rule
			}{{"win-security", securityRules()}, {"win-sysmon", sysmonRules()}, {"win-powershell", powershellRules()}, {"win-system", systemRules()}} {
				list = append(list, sourceRule{s, d.dataset, compartment, 30, 10, d.rules})
			}
		}
		return list
	}
	return []assessment{
		{
			file: "servers.yaml", id: "PIA-SERVERS-2026-001", title: "Security logs of the servers", system: "servers", ssp: "5b0c7f2e-1d64-4d0a-9f4e-3a2b6c8d9e01",
			summary:      "Windows and Linux security records of the domain controller, the file server, the jump host and the database host.",
			compartments: []string{"servers"}, joins: []string{"TargetUserName", "user"}, retention: 365, schedule: "GRS 3.2 item 030",
			sources: append(windows("servers", "dc", "fileserver"), linuxSources()...),
			risk:    "A record shows when a named person used a file share.", mitigation: "Names are tokens; showing one needs two officers and a purpose; share paths are dropped.",
		},
		{
			file: "workstations.yaml", id: "PIA-WORKSTATIONS-2026-001", title: "Security logs of the shared workstations", system: "workstations", ssp: "0f8e2a74-92cb-4c19-8f53-77d1b6a0c502",
			summary:      "Logons, program starts, connections and script text of the shared desks.",
			compartments: []string{"workstations"}, joins: []string{"TargetUserName", "User"}, retention: 180, schedule: "GRS 3.2 item 030",
			sources: windows("workstations", "workstations"),
			risk:    "Program starts show how a person works.", mitigation: "No performance monitoring (prohibited purpose); names are tokens; script text is read by rules and not stored.",
		},
		{
			file: "identity.yaml", id: "PIA-IDENTITY-2026-001", title: "Sign-ins at the identity provider", system: "idp", ssp: "9cbd98f3-abcb-4948-ad06-14e0bcba742f",
			summary:      "Who signed in where, from which country and with which factor.",
			compartments: []string{"identity"}, joins: []string{"user"}, retention: 365, schedule: "GRS 3.2 item 030",
			sources: []sourceRule{{"idp", "signin", "identity", 7, 10, []rule{
				{"allow", "", "", "time event country result reason error_code risk mfa client_app app"},
				{"tokenise", "mail", "", "user"},
				{"tokenise", "person", "", "user_id"},
				{"tokenise", "address", "", "src_ip"},
				{"tokenise", "device", "", "device_id"},
				{"hash-keyed", "", "", "session_id"},
				{"allow", "", "Old clients that skip the second factor show in this text alone.", "user_agent"},
			}}},
			risk: "Sign-ins from home show where a person lives.", mitigation: "Home addresses are tokens; only the country is kept.",
		},
		{
			file: "mobile.yaml", id: "PIA-MOBILE-2026-001", title: "State of managed telephones", system: "mdm", ssp: "c3a1d5e8-6f20-47b9-b7d4-1e9f0a5c8b04",
			summary:      "Whether an official telephone is encrypted, up to date and in the country.",
			compartments: []string{"mobile"}, joins: []string{"user"}, retention: 180, schedule: "GRS 3.2 item 010",
			sources: []sourceRule{{"mdm", "mdm-device", "mobile", 0, 60, []rule{
				{"allow", "", "", "time os os_version model supervised encrypted passcode jailbroken compliant country last_check_in action"},
				{"tokenise", "device", "", "device_id serial"},
				{"tokenise", "person", "", "user"},
				{"tokenise", "mail", "", "owner_mail"},
				{"tokenise", "phone", "", "phone_number"},
			}}},
			risk: "The country of a telephone is a place.", mitigation: "Nothing finer than the country is collected; the bytes as received are not kept.",
		},
		{
			file: "network.yaml", id: "PIA-NETWORK-2026-001", title: "Traffic records of the network", system: "network", ssp: "41d7e9b2-0c5a-4f36-8a8d-6b2c3d4e5f05",
			summary:      "Connections and DNS names as the firewall and the network sensor write them, without content.",
			compartments: []string{"network"}, joins: []string{"id.orig_h", "src_ip"}, retention: 90, schedule: "GRS 3.2 item 035",
			sources: []sourceRule{
				{"firewall", "firewall", "network", 7, 10, append(syslogHead(),
					rule{"allow", "", "", "action dst_ip src_port dst_port proto service in_if out_if rule duration bytes_in bytes_out type subtype category"},
					rule{"tokenise", "address", "", "src_ip"},
					rule{"drop", "phone", "Whom somebody calls is not security data.", "from to kind"},
					rule{"drop", "url", "What somebody reads is not security data; the category is enough.", "dsthost method"},
				)},
				{"zeek", "zeek-conn", "network", 7, 15, []rule{
					{"allow", "", "", "_path ts uid id.orig_p id.resp_h id.resp_p proto service duration orig_bytes resp_bytes conn_state local_orig local_resp missed_bytes history orig_pkts orig_ip_bytes resp_pkts resp_ip_bytes"},
					{"tokenise", "address", "", "id.orig_h"},
				}},
				{"zeek", "zeek-dns", "network", 7, 15, []rule{
					{"allow", "", "", "_path ts uid id.orig_p id.resp_h id.resp_p proto trans_id rtt qclass qclass_name qtype qtype_name rcode rcode_name AA TC RD RA Z TTLs rejected"},
					{"tokenise", "address", "", "id.orig_h"},
					{"allow", "url", whyQuery, "query"},
					{"drop", "", "The name tells enough.", "answers"},
				}},
			},
			risk: "Names that a person looks up show interests.", mitigation: "Addresses of laptops are tokens; contact with protected offices is withheld before anything is stored.",
		},
	}
}

// documents writes the assessments and lists as of the end of the play.
func (p *play) documents() (map[string][]byte, []byte, []byte) {
	pias := make(map[string][]byte)
	for _, a := range assessments() {
		pias[a.file] = a.yaml(p.to)
	}
	return pias, p.protected(), p.directory()
}

func (a *assessment) yaml(to time.Time) []byte {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	list := func(texts []string) string {
		quoted := make([]string, len(texts))
		for i, t := range texts {
			quoted[i] = strconv.Quote(t)
		}
		return "[" + strings.Join(quoted, ", ") + "]"
	}
	signed := to.AddDate(0, 0, -100).Truncate(24 * time.Hour).Add(14 * time.Hour)
	line("apiVersion: pia/v1")
	line("kind: PIA")
	line("id: %s", a.id)
	line("version: 1")
	line("title: %s", a.title)
	line("summary: %s", a.summary)
	line("system: {id: %s, owner: CISO, hva: false, ssp_uuid: %s, ato: ATO-2026-017}", a.system, a.ssp)
	line("authority: [{citation: 44 U.S.C. 3554(b), pt2: true}]")
	line("sorn: [DEMO/ALL-004]")
	line("purposes:")
	line("  - id: intrusion-detection")
	line("    statement: Find and understand attacks on the agency's systems")
	line("    dpv: https://w3id.org/dpv#EnforceSecurity")
	line("    fides: essential.service.security")
	line("    prohibited: [performance management, union activity, identifying a whistleblower]")
	line("subjects: [{category: employee, estimate: 40}]")
	line("sources:")
	for _, s := range a.sources {
		line("  - selector: {source: %s, dataset: %s}", s.source, s.dataset)
		line("    default: drop")
		line("    fields:")
		if s.compartment != "workstations" { // their address is a desk's
			line("      - {path: _peer, action: allow, justification: \"The sender is a server.\"}")
		}
		for _, r := range s.rules {
			for path := range strings.FieldsSeq(r.paths) {
				if path[0] == '@' { // no plain YAML begins so
					path = strconv.Quote(path)
				}
				text := "{path: " + path + ", action: " + r.action
				if r.category != "" {
					text += ", category: " + r.category
				}
				if r.why != "" {
					text += ", justification: " + strconv.Quote(r.why)
				}
				line("      - %s}", text)
			}
		}
		line("    retention_days: %d", a.retention)
		line("    records_schedule: %s", a.schedule)
		line("    disposition: crypto-shred")
		line("    compartment: %s", s.compartment)
		line("    max_events_per_day: 5000000")
		line("    purposes: [intrusion-detection]")
		line("    original_days: %d", s.original)
		line("    time_zone: UTC")
		line("    lateness_minutes: %d", s.lateness)
	}
	line("sharing: [{recipient: CISA, kind: federal, purpose: incident reporting, agreement: 44 U.S.C. 3554(b)(7), matching_program: false}]")
	line("notice: {how: login banner and rules of behaviour, consent: not-applicable, redress: privacy@%s}", dnsDomain)
	line("access: {compartments: %s, roles: [soc-analyst, incident-responder], audit: true}", list(a.compartments))
	line("aggregation: {join_keys: %s, max_hazard: 150, forbidden_joins: [hr, clearances, health], derived_new_data: false}", list(a.joins))
	line("risks:")
	line("  - {risk: %s, mitigation: %s, residual: low}", strconv.Quote(a.risk), strconv.Quote(a.mitigation))
	line("  - {risk: function creep, mitigation: \"purposes are declared with each look, prohibited ones are refused\", residual: low}")
	digest := sha256.Sum256([]byte(b.String()))
	line("approval:")
	line("  threshold: 2")
	line("  signers:")
	line("    - {role: SAOP, name: Demo privacy officer, key_id: demo-saop, sig: UNSIGNED, signed_at: %q}", signed.Format(time.RFC3339))
	line("    - {role: CISO, name: Demo security officer, key_id: demo-ciso, sig: UNSIGNED, signed_at: %q}", signed.Add(50*time.Minute).Format(time.RFC3339))
	line("publication:")
	line("  status: published")
	line("  url: https://%s/privacy/%s", dnsDomain, a.id)
	line("  digest: sha256:%s", hex.EncodeToString(digest[:]))
	line("  published_at: %q", signed.AddDate(0, 0, 4).Format(time.RFC3339))
	line("effective: %q", to.AddDate(0, 0, -90).Format(time.DateOnly))
	line("expires: %q", to.AddDate(3, 0, -91).Format(time.DateOnly)) // the longest that pia/v1 takes: an old --at still plays
	line("review_triggers: [new source, new recipient, new join key]")
	return []byte(b.String())
}

// protected lists the offices that may be reached unseen.
func (p *play) protected() []byte {
	return []byte(`apiVersion: protected/v1
channels:
  - name: inspector general hotline
    domains: [oig.example]
    addresses: [` + hotlineIP + `/32]
    mails: [hotline@oig.example]
    numbers: ["+1 800 555 0142"]
    names: [Office of Inspector General]
  - name: employee union
    domains: [union-local-42.example]
    addresses: []
    mails: []
    numbers: ["+1 800 555 0177"]
    names: []
`)
}

// directory joins the names of each person, so that they become one token.
func (p *play) directory() []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "apiVersion: directory/v1\ndomains: [%s, %s]\npeople:\n", domain, dnsDomain)
	for _, w := range p.people {
		fmt.Fprintf(&b, "  - id: %s\n    names: [%q, %q, %q]\n    mails: [%q]\n    sids: [%q]\n    phones: [%q]\n    devices: [%q, %q, %q]\n",
			w.id, w.account, w.first+" "+w.last, w.id, w.mail, w.sid, w.phone, w.laptopID, w.phoneID, w.phoneSerial)
		if w.leaver {
			fmt.Fprintf(&b, "    end: %q\n", p.to.AddDate(0, 0, -20).Format(time.DateOnly))
		}
	}
	return []byte(b.String())
}

// The offices whose holders stand for the rules: one asks, the other approves.
const (
	RulesAskedBy    = "soc-second"
	RulesApprovedBy = "privacy"
)

// Offices is the record of who is in office, form offices/v1: one person on duty, as the
// system knows them, and accounts of people who never log in. Who is on duty reads events
// and so runs no machine.
func (in *Incident) Offices(onDuty string) []byte {
	var b strings.Builder
	since, trained := in.at.AddDate(-2, 0, 0).Format(time.DateOnly), in.at.AddDate(3, 0, -91).Format(time.DateOnly) // as long as the assessments
	b.WriteString("form: offices/v1\noffices:\n")
	for _, o := range [...]struct {
		id, authority, holder, roles string
		outside, trained             bool
	}{
		{"soc", "ciso", onDuty, "analyst, responder", false, true},
		{RulesAskedBy, "ciso", "u_second", "analyst, responder", false, true},
		{RulesApprovedBy, "board", "u_privacy", "privacy_officer", false, false},
		{"inspector", "legislature", "u_inspector", "overseer", true, false},
		{"investigations", "counsel", "u_investigator", "investigator", false, true},
		{"compliance", "board", "u_compliance", "compliance", false, false},
		{"operations", "cio", "u_operator", "operator", false, false},
	} {
		fmt.Fprintf(&b, "  - id: %s\n    authority: %s\n    holder: %s\n    standing: confirmed\n    since: %s\n    roles: [%s]\n", o.id, o.authority, o.holder, since, o.roles)
		if o.outside {
			b.WriteString("    outside: true\n")
		}
		if o.trained {
			fmt.Fprintf(&b, "    training_until: %s\n", trained)
		}
	}
	return []byte(b.String())
}
