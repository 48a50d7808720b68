package sigma

import (
	"fmt"
	"slices"
	"strings"
)

// A Mapping says which events a rule's log source means. An entry answers a
// category, or a service, of rules. A rule passes an event when one of its
// entries does, or when the event's Source names the rule's log source itself.
//
// A rule that no entry answers falls back to its attributes: one that is unset
// on either side is no conflict. Windows is the exception: there Channel and
// EventID say what an event is, so a Windows rule without an entry is unmapped
// and an unmapped rule for no product never meets a Windows event.
type Mapping struct {
	Entries []Entry
}

// An Entry ties one log source of rules to events.
type Entry struct {
	// Product, Category and Service are the log source that rules name. An empty
	// Product answers rules for any product.
	Product, Category, Service string
	// Channels and EventIDs select events of an event log by their fields of that
	// name; no EventIDs means every event of the channels. Channels compare
	// without regard to case.
	Channels []string
	EventIDs []string
	// From selects events by what their producer is known to be: each attribute
	// that is set must be equal. It is an alternative to Channels.
	From []LogSource
	// Where are further fields that the event must hold, each with one of the
	// values, without regard to case.
	Where []Where
	// Aliases give the native field to read where the rule's field is absent.
	Aliases []Alias
}

// Where is a field and the values of which it must hold one.
type Where struct {
	Field  string
	Values []string
}

// Alias reads the field Native where an event has no field Name.
type Alias struct{ Name, Native string }

const (
	sysmonChannel      = "Microsoft-Windows-Sysmon/Operational"
	linuxSysmonChannel = "Linux-Sysmon/Operational"
	windows            = "windows"
)

// DefaultMapping returns the table for Windows event logs, Linux, Zeek and the
// common network sources. The caller owns the result and may add to it.
func DefaultMapping() *Mapping {
	m := &Mapping{}
	m.windows()
	m.linux()
	m.network()
	return m
}

func (m *Mapping) add(e Entry) { m.Entries = append(m.Entries, e) }

func (m *Mapping) windows() {
	// Sysmon: one category for each kind of event.
	for _, c := range []struct{ category, ids string }{
		{"process_creation", "1"},
		{"file_change", "2"},
		{"network_connection", "3"},
		{"sysmon_status", "4 16"},
		{"process_termination", "5"},
		{"driver_load", "6"},
		{"image_load", "7"},
		{"create_remote_thread", "8"},
		{"raw_access_thread", "9"},
		{"process_access", "10"},
		{"file_event", "11"},
		{"registry_event", "12 13 14"},
		{"registry_set", "13"},
		{"registry_rename", "14"},
		{"create_stream_hash", "15"},
		{"pipe_created", "17 18"},
		{"wmi_event", "19 20 21"},
		{"dns_query", "22"},
		{"file_delete", "23"},
		{"clipboard_change", "24"},
		{"process_tampering", "25"},
		{"file_delete_detected", "26"},
		{"file_block_executable", "27"},
		{"file_block_shredding", "28"},
		{"file_executable_detected", "29"},
		{"sysmon_error", "255"},
	} {
		m.add(Entry{Product: windows, Category: c.category, Channels: []string{sysmonChannel}, EventIDs: strings.Fields(c.ids)})
	}
	m.add(Entry{Product: windows, Category: "registry_add", Channels: []string{sysmonChannel}, EventIDs: []string{"12"},
		Where: []Where{{"EventType", []string{"CreateKey"}}}})
	m.add(Entry{Product: windows, Category: "registry_delete", Channels: []string{sysmonChannel}, EventIDs: []string{"12"},
		Where: []Where{{"EventType", []string{"DeleteKey", "DeleteValue"}}}})

	// The Security log knows a new process under other names.
	m.add(Entry{Product: windows, Category: "process_creation", Channels: []string{"Security"}, EventIDs: []string{"4688"},
		Aliases: []Alias{{"Image", "NewProcessName"}, {"ParentImage", "ParentProcessName"}}})

	powershell := []string{"Microsoft-Windows-PowerShell/Operational", "PowerShellCore/Operational"}
	m.add(Entry{Product: windows, Category: "ps_module", Channels: powershell, EventIDs: []string{"4103"}})
	m.add(Entry{Product: windows, Category: "ps_script", Channels: powershell, EventIDs: []string{"4104"}})
	classic := []string{"Windows PowerShell"}
	m.add(Entry{Product: windows, Category: "ps_classic_start", Channels: classic, EventIDs: []string{"400"}})
	m.add(Entry{Product: windows, Category: "ps_classic_provider_start", Channels: classic, EventIDs: []string{"600"}})
	m.add(Entry{Product: windows, Category: "ps_classic_script", Channels: classic, EventIDs: []string{"800"}})

	defender := []string{"Microsoft-Windows-Windows Defender/Operational"}
	m.add(Entry{Product: windows, Category: "antivirus", Channels: defender,
		EventIDs: strings.Fields("1006 1007 1008 1009 1010 1011 1012 1017 1018 1019 1115 1116"),
		Aliases:  []Alias{{"Signature", "ThreatName"}, {"Filename", "Path"}}})

	// Services: the channels of the event log that carry each name.
	for _, s := range []struct {
		service  string
		channels []string
	}{
		{"application", []string{"Application"}},
		{"security", []string{"Security"}},
		{"system", []string{"System"}},
		{"sysmon", []string{sysmonChannel}},
		{"powershell", powershell},
		{"powershell-classic", classic},
		{"windefend", defender},
		{"applocker", []string{
			"Microsoft-Windows-AppLocker/EXE and DLL",
			"Microsoft-Windows-AppLocker/MSI and Script",
			"Microsoft-Windows-AppLocker/Packaged app-Deployment",
			"Microsoft-Windows-AppLocker/Packaged app-Execution",
		}},
		{"application-experience", []string{
			"Microsoft-Windows-Application-Experience/Program-Compatibility-Assistant",
			"Microsoft-Windows-Application-Experience/Program-Telemetry",
		}},
		{"appmodel-runtime", []string{"Microsoft-Windows-AppModel-Runtime/Admin"}},
		{"appxdeployment-server", []string{"Microsoft-Windows-AppXDeploymentServer/Operational"}},
		{"appxpackaging-om", []string{"Microsoft-Windows-AppxPackaging/Operational"}},
		{"bitlocker", []string{"Microsoft-Windows-BitLocker/BitLocker Management"}},
		{"bits-client", []string{"Microsoft-Windows-Bits-Client/Operational"}},
		{"capi2", []string{"Microsoft-Windows-CAPI2/Operational"}},
		{"certificateservicesclient-lifecycle-system", []string{"Microsoft-Windows-CertificateServicesClient-Lifecycle-System/Operational"}},
		{"codeintegrity-operational", []string{"Microsoft-Windows-CodeIntegrity/Operational"}},
		{"dhcp", []string{"Microsoft-Windows-DHCP-Server/Operational"}},
		{"diagnosis-scripted", []string{"Microsoft-Windows-Diagnosis-Scripted/Operational"}},
		{"dns-client", []string{"Microsoft-Windows-DNS Client Events/Operational"}},
		{"firewall-as", []string{"Microsoft-Windows-Windows Firewall With Advanced Security/Firewall"}},
		{"hyper-v-worker", []string{"Microsoft-Windows-Hyper-V-Worker"}},
		{"iis-configuration", []string{"Microsoft-IIS-Configuration/Operational"}},
		{"kernel-event-tracing", []string{"Microsoft-Windows-Kernel-EventTracing"}},
		{"kernel-shimengine", []string{
			"Microsoft-Windows-Kernel-ShimEngine/Diagnostic",
			"Microsoft-Windows-Kernel-ShimEngine/Operational",
		}},
		{"ldap", []string{"Microsoft-Windows-LDAP-Client/Debug"}},
		{"lsa-server", []string{"Microsoft-Windows-LSA/Operational"}},
		{"msexchange-management", []string{"MSExchange Management"}},
		{"ntfs", []string{"Microsoft-Windows-Ntfs/Operational"}},
		{"ntlm", []string{"Microsoft-Windows-NTLM/Operational"}},
		{"openssh", []string{"OpenSSH/Operational"}},
		{"printservice-admin", []string{"Microsoft-Windows-PrintService/Admin"}},
		{"printservice-operational", []string{"Microsoft-Windows-PrintService/Operational"}},
		{"security-mitigations", []string{
			"Microsoft-Windows-Security-Mitigations/Kernel Mode",
			"Microsoft-Windows-Security-Mitigations/User Mode",
		}},
		{"sense", []string{"Microsoft-Windows-SENSE/Operational"}},
		{"servicebus-client", []string{"Microsoft-ServiceBus-Client/Admin", "Microsoft-ServiceBus-Client/Operational"}},
		{"shell-core", []string{"Microsoft-Windows-Shell-Core/Operational"}},
		{"smbclient-connectivity", []string{"Microsoft-Windows-SmbClient/Connectivity"}},
		{"smbclient-security", []string{"Microsoft-Windows-SmbClient/Security"}},
		{"smbserver-connectivity", []string{"Microsoft-Windows-SMBServer/Connectivity"}},
		{"taskscheduler", []string{"Microsoft-Windows-TaskScheduler/Operational"}},
		{"terminalservices-localsessionmanager", []string{"Microsoft-Windows-TerminalServices-LocalSessionManager/Operational"}},
		{"vhdmp", []string{"Microsoft-Windows-VHDMP/Operational"}},
		{"wmi", []string{"Microsoft-Windows-WMI-Activity/Operational"}},
	} {
		m.add(Entry{Product: windows, Service: s.service, Channels: s.channels})
	}
}

func (m *Mapping) linux() {
	// Sysmon for Linux writes the fields of Sysmon.
	for _, c := range []struct{ category, ids string }{
		{"process_creation", "1"},
		{"network_connection", "3"},
		{"process_termination", "5"},
		{"file_event", "11"},
		{"file_delete", "23"},
	} {
		m.add(Entry{Product: "linux", Category: c.category, Channels: []string{linuxSysmonChannel}, EventIDs: strings.Fields(c.ids)})
	}
	m.add(Entry{Product: "linux", Service: "sysmon", Channels: []string{linuxSysmonChannel}})
	// The authentication log holds the lines of several programs; a parser that
	// knows the program names it.
	auth := func(services ...string) (out []LogSource) {
		for _, s := range services {
			out = append(out, LogSource{Product: "linux", Service: s})
		}
		return out
	}
	m.add(Entry{Product: "linux", Service: "auth", From: auth("auth", "sshd", "sudo", "su", "login", "systemd-logind")})
	m.add(Entry{Product: "linux", Service: "sshd", From: auth("sshd", "auth")})
	m.add(Entry{Product: "linux", Service: "sudo", From: auth("sudo", "auth")})
	m.add(Entry{Product: "linux", Service: "auditd", From: auth("auditd")})
	m.add(Entry{Product: "linux", Service: "cron", From: auth("cron", "syslog")})
	m.add(Entry{Product: "linux", Service: "syslog", From: auth("syslog", "cron", "kernel", "systemd")})
}

func (m *Mapping) network() {
	// Zeek: one service for each of its logs, so rules and events name the same.
	m.add(Entry{Category: "dns", From: []LogSource{
		{Product: "zeek", Service: "dns"}, {Service: "dns"}, {Product: "dns"},
		{Product: "bind"}, {Product: "dnsmasq"}, {Product: "unbound"},
	}, Aliases: []Alias{
		{"record_type", "qtype_name"}, {"answer", "answers"},
		{"src_ip", "id.orig_h"}, {"dst_ip", "id.resp_h"},
	}})
	m.add(Entry{Category: "proxy", From: []LogSource{
		{Product: "zeek", Service: "http"}, {Service: "proxy"}, {Product: "proxy"},
		{Product: "squid"}, {Product: "bluecoat"}, {Product: "zscaler"},
	}, Aliases: []Alias{
		{"c-uri", "uri"}, {"cs-uri", "uri"}, {"c-useragent", "user_agent"}, {"cs-host", "host"},
		{"r-dns", "host"}, {"cs-method", "method"}, {"cs-referrer", "referrer"}, {"sc-status", "status_code"},
		{"src_ip", "id.orig_h"}, {"dst_ip", "id.resp_h"},
	}})
	m.add(Entry{Category: "webserver", From: []LogSource{
		{Product: "apache"}, {Product: "nginx"}, {Product: "iis"}, {Product: "caddy"},
		{Service: "apache"}, {Service: "nginx"}, {Service: "iis"}, {Service: "caddy"}, {Service: "webserver"},
	}})
	m.add(Entry{Category: "firewall", From: []LogSource{
		{Product: "firewall"}, {Product: "paloalto"}, {Product: "fortigate"}, {Product: "cisco", Service: "asa"},
		{Product: "zeek", Service: "conn"}, {Service: "firewall"}, {Service: "netfilter"},
	}, Aliases: []Alias{
		{"src_ip", "id.orig_h"}, {"src_port", "id.orig_p"}, {"dst_ip", "id.resp_h"}, {"dst_port", "id.resp_p"},
	}})
	m.add(Entry{Category: "database", From: []LogSource{
		{Product: "mysql"}, {Product: "postgresql"}, {Product: "mssql"}, {Product: "oracle"}, {Service: "database"},
	}})
	m.add(Entry{Category: "antivirus", From: []LogSource{
		{Product: "antivirus"}, {Service: "antivirus"}, {Product: "linux", Service: "clamav"},
	}})
}

// covers reports whether an event log entry takes the channel and event id.
func (e *Entry) covers(channel, eventID string) bool {
	for _, c := range e.Channels {
		if strings.EqualFold(c, channel) {
			return len(e.EventIDs) == 0 || slices.Contains(e.EventIDs, eventID)
		}
	}
	return false
}

// channelsOf returns the channels that carry a service of an event log.
func (m *Mapping) channelsOf(product, service string) []string {
	var out []string
	for _, e := range m.Entries {
		if e.Category == "" && e.Service == service && compatible(product, e.Product) {
			out = append(out, e.Channels...)
		}
	}
	return out
}

// compatible reports that two attributes do not contradict each other.
func compatible(a, b string) bool { return a == "" || b == "" || a == b }

// entriesFor returns the entries that answer a rule's log source.
func (m *Mapping) entriesFor(ls LogSource) []*Entry {
	var out []*Entry
	for i := range m.Entries {
		e := &m.Entries[i]
		switch {
		case !compatible(ls.Product, e.Product):
		case ls.Category != "":
			if e.Category == ls.Category && (ls.Service == "" || m.serves(e, ls)) {
				out = append(out, e)
			}
		case ls.Service != "":
			if e.Category == "" && e.Service == ls.Service {
				out = append(out, e)
			}
		}
	}
	return out
}

// serves reports whether an entry of a category lies in the service that the
// rule names too.
func (m *Mapping) serves(e *Entry, ls LogSource) bool {
	for _, c := range m.channelsOf(ls.Product, ls.Service) {
		if slices.ContainsFunc(e.Channels, func(have string) bool { return strings.EqualFold(c, have) }) {
			return true
		}
	}
	return slices.ContainsFunc(e.From, func(f LogSource) bool { return f.Service == ls.Service })
}

// gate is a rule's log source with the entries that answer it.
type gate struct {
	ls      LogSource
	entries []*Entry
}

// unmapped reports a rule that no event can reach by the table: one for Windows
// that has a category or service without an entry.
func (g *gate) unmapped() bool {
	return g.ls.Product == windows && len(g.entries) == 0 && (g.ls.Category != "" || g.ls.Service != "")
}

// way is one way for an event through a gate: what it must hold besides, and
// how to read it.
type way struct {
	where   []Where
	aliases []Alias
}

// origin is what an event shows of where it comes from, in the mapping's words.
type origin struct {
	source   LogSource
	channels []string // of the event, or of its service where it names none
	eventID  string
}

// pass returns the ways through the gate for an event.
func (g *gate) pass(o origin) []way {
	ls, src := g.ls, o.source
	if !compatible(ls.Product, src.Product) {
		return nil
	}
	if ls.Product != "" && src.Product == "" && len(o.channels) == 0 && ls.Product == windows {
		return nil // a Windows rule needs to know that it looks at Windows
	}
	var ways []way
	for _, e := range g.entries {
		if !compatible(src.Product, e.Product) {
			continue
		}
		if slices.ContainsFunc(o.channels, func(c string) bool { return e.covers(c, o.eventID) }) || e.from(src) {
			ways = append(ways, way{e.Where, e.Aliases})
		}
	}
	if len(ways) > 0 {
		return ways
	}
	if named(ls, src) {
		w := way{}
		for _, e := range g.entries {
			w.aliases = append(w.aliases, e.Aliases...)
		}
		return []way{w}
	}
	if len(g.entries) > 0 {
		return nil
	}
	if src.Product == windows || src.Product == "" && len(o.channels) > 0 {
		// An event log is known by its channel: only a rule for the product as a
		// whole is left.
		linux := slices.ContainsFunc(o.channels, func(c string) bool { return strings.EqualFold(c, linuxSysmonChannel) })
		if ls.Category == "" && ls.Service == "" && ls.Product == windows && !linux {
			return []way{{}}
		}
		return nil
	}
	if compatible(ls.Category, src.Category) && compatible(ls.Service, src.Service) {
		return []way{{}}
	}
	return nil
}

// from reports whether the producer is one of the entry's. A producer of the
// entry's product whose service is not known is no conflict.
func (e *Entry) from(src LogSource) bool {
	for _, f := range e.From {
		if (f.Product == "" || f.Product == src.Product) &&
			(f.Category == "" || f.Category == src.Category) &&
			(f.Service == "" || f.Service == src.Service || src.Service == "" && e.Product != "" && e.Product == src.Product) {
			return true
		}
	}
	return false
}

// named reports whether the event's source says each attribute that the rule
// names, the category or the service among them.
func named(ls, src LogSource) bool {
	return (ls.Category != "" || ls.Service != "") &&
		(ls.Product == "" || ls.Product == src.Product) &&
		(ls.Category == "" || ls.Category == src.Category) &&
		(ls.Service == "" || ls.Service == src.Service)
}

// String lists the whole table in a fixed form; the digest of a set covers it.
func (m *Mapping) String() string {
	var b strings.Builder
	for _, e := range m.Entries {
		fmt.Fprintf(&b, "%q\n", []any{e.Product, e.Category, e.Service, e.Channels, e.EventIDs, e.From, e.Where, e.Aliases})
	}
	return b.String()
}
