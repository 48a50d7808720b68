package parse

// The usual fields of each dataset and what a template proposes. The rules behind
// the proposals:
//
//   - what names a person is tokenised: rules and searches go on, names stop at
//     the door;
//   - an address of infrastructure stays, an address that stands for a person (a
//     workstation, a sign-in, a VPN) is tokenised;
//   - free text is dropped, or read by detection and not kept, with the reason;
//   - command lines and paths carry names in known shapes, which pseudonymising
//     finds, and detection lives on them: kept with a justification, or
//     detect-only where they are encoded;
//   - a place finer than a country is dropped.

const (
	whyCommand  = "process rules test the command line; names of known shape become tokens"
	whyEncoded  = "script text holds what people write; rules read it at the door, storage keeps length and digest"
	whyMessage  = "rendered prose that repeats the fields and holds names in every language"
	whyFreeText = "free text; nobody knows what a producer writes there"
	whyKeyword  = "messages that no parser knows; keyword rules read them at the door and storage does not keep them"
	whyPersonIP = "the address of a workstation or a session stands for a person"
	whyPlace    = "finer than a country"
	whySecret   = "a secret or a key to a session"
	whyURL      = "a query string holds searches and session keys; rules read it at the door"
	whyAgent    = "rules test for tools that call themselves by name"
	whyKeys     = "keystrokes are content; they are never collected"
)

// act gives fields of one category and action.
func act(category, action, reason string, paths ...string) []Field {
	out := make([]Field, len(paths))
	for i, p := range paths {
		out[i] = Field{Path: p, Category: category, Action: action, Reason: reason}
	}
	return out
}

func allow(paths ...string) []Field   { return act("", "allow", "", paths...) }
func people(paths ...string) []Field  { return act("person", "tokenise", "", paths...) }
func mails(paths ...string) []Field   { return act("mail", "tokenise", "", paths...) }
func devices(paths ...string) []Field { return act("device", "tokenise", "", paths...) }
func servers(paths ...string) []Field { return act("device", "allow", "", paths...) }
func infra(paths ...string) []Field   { return act("address", "allow", "", paths...) }
func sessionIP(paths ...string) []Field {
	return act("address", "tokenise", whyPersonIP, paths...)
}
func dropped(category, reason string, paths ...string) []Field {
	return act(category, "drop", reason, paths...)
}

func join(groups ...[]Field) []Field {
	var out []Field
	for _, g := range groups {
		out = append(out, g...)
	}
	return out
}

// windowsSystem is the System part of every Windows event. Computer is tokenised:
// it is the personal device of somebody as often as a server, and pseudonymising
// keeps the words of servers that the operator lists.
var windowsSystem = join(
	allow("Channel", "EventID", "EventID_Qualifiers", "Provider_Name", "Provider_Guid", "Version", "Level", "Task", "Opcode", "Keywords",
		"TimeCreated_SystemTime", "EventTime", "TimeCreated", "TimeGenerated", "@timestamp", "Severity", "SeverityValue", "OpcodeValue",
		"Category", "nxlog.EventType", "Execution_ProcessID", "Execution_ThreadID", "Correlation_ActivityID", "Correlation_RelatedActivityID",
		"event.action", "event.outcome", "log.level"),
	devices("Computer"),
	people("Security_UserID", "Security_UserName", "AccountName"),
	allow("Security_UserDomain", "Security_UserType", "Domain", "AccountType"),
	dropped("text", whyMessage, "Message"),
)

// windowsProcess is what Sysmon and Security say of processes.
var windowsProcess = join(
	allow("Image", "ParentImage", "OriginalFileName", "Product", "Company", "FileVersion", "Hashes", "IntegrityLevel",
		"ProcessId", "ParentProcessId", "ProcessGuid", "ParentProcessGuid", "LogonId", "LogonGuid", "TerminalSessionId", "RuleName", "UtcTime",
		"CurrentDirectory", "NewProcessName", "NewProcessId", "ParentProcessName", "ProcessName", "TokenElevationType", "MandatoryLabel"),
	act("", "allow", "what the maker of a program wrote into its file", "Description"),
	act("command", "allow", whyCommand, "CommandLine", "ParentCommandLine", "ProcessCommandLine"),
	people("User", "ParentUser", "SourceUser", "TargetUser"),
)

var windowsDatasets = []Dataset{
	{Name: "win-security", Title: "Windows Security log", Product: "windows", Fields: join(windowsSystem, windowsProcess,
		people("SubjectUserName", "SubjectUserSid", "TargetUserName", "TargetUserSid", "TargetSid", "MemberName", "MemberSid", "SamAccountName",
			"UserPrincipalName", "DisplayName", "OldTargetUserName", "NewTargetUserName", "TargetOutboundUserName"),
		allow("SubjectDomainName", "TargetDomainName", "TargetOutboundDomainName", "SubjectLogonId", "TargetLogonId", "TargetLinkedLogonId", "LogonType",
			"LogonProcessName", "AuthenticationPackageName", "LmPackageName", "KeyLength", "ElevatedToken", "ImpersonationLevel", "RestrictedAdminMode",
			"VirtualAccount", "Status", "SubStatus", "FailureReason", "TransmittedServices", "TicketOptions", "TicketEncryptionType",
			"PreAuthType", "ServiceSid", "PrivilegeList", "EnabledPrivilegeList", "DisabledPrivilegeList", "ObjectServer", "ObjectType", "ObjectName", "HandleId",
			"AccessList", "AccessMask", "AccessReason", "ResourceAttributes", "OperationType", "Properties", "ShareName", "ShareLocalPath", "RelativeTargetName",
			"ServiceName", "ServiceFileName", "ServiceType", "ServiceStartType", "ServiceAccount", "TaskName", "TargetServerName", "TargetInfo", "AuditPolicyChanges",
			"CategoryId", "SubcategoryId", "SubcategoryGuid", "AttributeLDAPDisplayName", "AttributeValue", "ObjectDN", "ObjectGUID", "ObjectClass",
			"OpCorrelationID", "AppCorrelationID", "DSName", "DSType", "Application", "Direction", "SourcePort", "DestPort", "Protocol", "LayerName", "LayerRTID",
			"FilterRTID", "RemoteMachineID", "RemoteUserID", "ProcessID", "IpPort", "CallerProcessId", "CallerProcessName", "ClientProcessId", "DeviceDescription",
			"ClassName", "ClassId", "DeviceId", "VendorIds", "LocationInformation", "NewUacValue", "OldUacValue", "UserAccountControl", "Service", "ObjectValueName",
			"OldValue", "NewValue", "OldValueType", "NewValueType"),
		act("command", "allow", "scheduled tasks hide commands in their definition; names of known shape become tokens", "TaskContent", "TaskContentNew"),
		devices("WorkstationName", "Workstation", "TargetWorkstationName"),
		sessionIP("IpAddress", "SourceAddress", "ClientAddress"),
		infra("DestAddress"),
	)},
	{Name: "win-sysmon", Title: "Sysmon on Windows", Product: "windows", Fields: join(windowsSystem, windowsProcess,
		allow("SourceProcessGUID", "SourceProcessGuid", "SourceProcessId", "SourceThreadId", "SourceImage", "TargetProcessGUID", "TargetProcessGuid", "TargetProcessId",
			"TargetImage", "GrantedAccess", "CallTrace", "NewThreadId", "StartAddress", "StartModule", "StartFunction", "ImageLoaded", "Signed", "Signature",
			"SignatureStatus", "TargetFilename", "CreationUtcTime", "PreviousCreationUtcTime", "EventType", "TargetObject", "Details", "NewName", "PipeName",
			"Protocol", "Initiated", "SourceIsIpv6", "SourcePort", "SourcePortName", "DestinationIsIpv6", "DestinationHostname", "DestinationPort", "DestinationPortName",
			"QueryName", "QueryStatus", "QueryResults", "Hash", "Device", "Archived", "IsExecutable", "Operation", "EventNamespace", "Name", "Type", "Destination",
			"Consumer", "Filter", "State", "SchemaVersion", "Configuration", "ConfigurationFileHash", "ID", "Session", "ClientInfo"),
		act("", "allow", "the query of a WMI subscription, a common hiding place", "Query"),
		devices("SourceHostname"),
		sessionIP("SourceIp"),
		infra("DestinationIp"),
		act("text", "drop", "clipboard and stream contents are content", "Contents"),
	)},
	{Name: "win-powershell", Title: "PowerShell logs", Product: "windows", Fields: join(windowsSystem,
		allow("ScriptBlockId", "Path", "MessageNumber", "MessageTotal", "HostName", "HostVersion", "EngineVersion", "RunspaceId", "PipelineId",
			"NewEngineState", "PreviousEngineState", "SequenceNumber"),
		act("command", "detect-only", whyEncoded, "ScriptBlockText", "Payload", "ContextInfo", "Data", "param1", "param2", "param3"),
		act("command", "allow", whyCommand, "HostApplication", "CommandLine", "CommandName", "CommandPath"),
	)},
	{Name: "win-system", Title: "Windows System log", Product: "windows", Fields: join(windowsSystem,
		allow("ServiceName", "ServiceType", "StartType", "param1", "param2", "param3", "param4", "Data", "Binary", "DriverName", "DeviceName",
			"UserData.Channel", "BackupPath"),
		act("command", "allow", "service installation is the trace of most remote tools", "ImagePath"),
		people("SubjectUserName", "User", "Sid"),
		allow("SubjectDomainName"),
	)},
	{Name: "win-defender", Title: "Microsoft Defender Antivirus", Product: "windows", Fields: join(windowsSystem,
		allow("ProductName", "ProductVersion", "DetectionID", "DetectionTime", "ThreatID", "ThreatName", "SeverityID", "SeverityName", "CategoryID", "CategoryName",
			"FWLink", "StatusCode", "StatusDescription", "State", "SourceID", "SourceName", "ProcessName", "OriginID", "OriginName", "ExecutionID", "ExecutionName",
			"TypeID", "TypeName", "PreExecutionStatus", "ActionID", "ActionName", "ErrorCode", "PostCleanStatus", "AdditionalActionsID", "AdditionalActionsString",
			"SecurityintelligenceVersion", "EngineVersion", "NewValue", "OldValue"),
		act("", "allow", "file paths; the shape of a home folder becomes a token", "Path"),
		people("DetectionUser", "RemediationUser", "User"),
		dropped("text", whyFreeText, "ErrorDescription"),
	)},
	{Name: "win-taskscheduler", Title: "Windows Task Scheduler", Product: "windows", Fields: join(windowsSystem,
		allow("TaskName", "InstanceId", "TaskInstanceId", "ActionName", "ResultCode", "EnginePID", "Path", "ProcessID", "Priority"),
		people("UserContext", "UserName"),
	)},
	{Name: "win-other", Title: "Other Windows event logs", Product: "windows", Fields: join(windowsSystem, windowsProcess,
		people("SubjectUserName", "SubjectUserSid", "TargetUserName", "TargetUserSid", "UserName", "UserSid", "Username"),
		sessionIP("IpAddress", "ClientIP", "Address"),
		dropped("text", whyFreeText, "Data", "Binary"),
	)},
}

// syslogHeader is what each syslog record has.
var syslogHeader = join(
	allow("timestamp", "facility", "severity", "app_name", "proc_id", "msg_id"),
	servers("hostname"),
)

var auditdDatasets = []Dataset{{Name: "linux-auditd", Title: "Linux audit records", Product: "linux", Service: "auditd", Fields: join(
	allow("timestamp", "facility", "severity", "app_name", "proc_id", "msg_id", "type", "audit_time", "arch", "syscall", "success", "exit", "items", "item", "ppid", "pid", "tty", "ses", "old-ses", "comm", "key", "subj", "obj",
		"gid", "egid", "sgid", "fsgid", "ogid", "mode", "dev", "inode", "rdev", "nametype", "objtype", "cap_fp", "cap_fi", "cap_fe", "cap_fver", "cap_frootid",
		"argc", "op", "res", "result", "unit", "terminal", "saddr_fam", "seresult", "seperms", "scontext", "tcontext", "tclass", "permissive", "apparmor", "operation",
		"profile", "requested_mask", "denied_mask", "ver", "format", "kernel", "list", "audit_enabled", "audit_pid", "audit_backlog_limit", "audit_failure", "old",
		"sig", "code", "compat", "ip", "grantors", "direction", "cipher", "ksize", "mac", "pfs", "spid", "rport", "lport", "kind", "fp", "table", "family", "entries",
		"prom", "old_prom", "reason", "cwd", "ARCH", "SYSCALL", "GID", "EGID", "SGID", "FSGID", "OGID"),
	act("", "allow", "fixed words of the kernel and of audit programs", "text"),
	servers("node", "syslog_host"),
	people("auid", "old-auid", "uid", "euid", "suid", "fsuid", "ouid", "id", "acct", "AUID", "UID", "EUID", "SUID", "FSUID", "OUID", "ID"),
	allow("grp"),
	act("command", "allow", whyCommand, "a0", "a1", "a2", "a3", "a4", "a5", "a6", "a7", "a8", "a9", "proctitle", "cmd", "cmdline"),
	act("", "allow", "file paths; the shape of a home folder becomes a token", "name", "path", "exe", "dir", "watch", "filename"),
	sessionIP("addr", "laddr"),
	infra("src", "dst"),
	dropped("address", "a socket of another family; its hexadecimal form hides what it names", "saddr"),
	devices("hostname"),
	dropped("content", whyKeys, "data"),
)}}

var syslogDatasets = []Dataset{
	{Name: "linux-sshd", Title: "OpenSSH server", Product: "linux", Service: "sshd", Fields: join(syslogHeader,
		allow("pid", "event", "method", "user_state", "protocol", "phase", "reason", "src_port", "dst_port", "subsystem", "session", "session_id", "rdomain", "invalid"),
		people("user"),
		sessionIP("src_ip"),
		infra("dst_ip"),
		devices("src_host"),
		act("device", "hash-keyed", "a key's fingerprint is one person's for years; the digest still joins its uses", "key"),
		dropped("text", whyFreeText, "banner"),
		act("text", "detect-only", whyKeyword, "msg"),
	)},
	{Name: "linux-sudo", Title: "sudo", Product: "linux", Service: "sudo", Fields: join(syslogHeader,
		people("user", "runas"),
		allow("runas_group", "tty", "outcome", "reason", "chroot", "tsid", "host"),
		act("", "allow", "a folder; the shape of a home folder becomes a token", "pwd"),
		act("command", "allow", whyCommand, "command"),
		dropped("text", "variables hold secrets", "env"),
		act("text", "detect-only", whyKeyword, "msg"),
	)},
	{Name: "linux-auth", Title: "PAM, login, su and account tools", Product: "linux", Service: "auth", Fields: join(syslogHeader,
		allow("event", "module", "service", "outcome", "tty", "session_id", "attempt", "gid", "shell", "group", "from", "reason"),
		people("user", "runas", "by", "logname", "ruser", "uid", "euid", "by_uid"),
		act("", "allow", "a folder; the shape of a home folder becomes a token", "home"),
		sessionIP("src_ip"),
		act("text", "detect-only", whyKeyword, "msg"),
	)},
	{Name: "firewall", Title: "Packet filters and firewalls", Product: "firewall", Category: "firewall", Fields: join(syslogHeader,
		allow("action", "src_port", "dst_port", "proto", "proto_id", "bytes_in", "bytes_out", "in_if", "out_if", "rule", "sub_rule", "anchor", "tracker", "interface",
			"direction", "reason", "ip_version", "flags", "length", "LEN", "TOS", "PREC", "TTL", "ID", "WINDOW", "RES", "URGP", "UDP_LEN", "MARK", "TYPE", "CODE",
			"kernel_time", "DESCR", "date", "time", "devname", "devid", "logid", "type", "subtype", "level", "service", "duration", "sentpkt", "rcvdpkt", "app", "appcat",
			"srccountry", "dstcountry"),
		sessionIP("src_ip"),
		infra("dst_ip"),
		devices("MAC"),
		people("user", "srcuser", "unauthuser"),
		act("url", "detect-only", whyURL, "url"),
		dropped("text", whyFreeText, "msg"),
	)},
	{Name: formatSyslog, Title: "Other syslog", Product: "linux", Service: "syslog", Fields: join(syslogHeader,
		act("text", "detect-only", whyKeyword, "msg"),
	)},
}

// zeekConn is what every Zeek log of a connection has.
var zeekConn = join(
	allow("_path", "ts", "uid", "id.orig_p", "id.resp_p", "_write_ts", "_system_name"),
	sessionIP("id.orig_h"),
	infra("id.resp_h"),
)

var zeekDatasets = []Dataset{
	{Name: "zeek-conn", Title: "Zeek connections", Product: "zeek", Service: "conn", Fields: join(zeekConn,
		allow("proto", "service", "duration", "orig_bytes", "resp_bytes", "conn_state", "local_orig", "local_resp", "missed_bytes", "history", "orig_pkts", "orig_ip_bytes",
			"resp_pkts", "resp_ip_bytes", "tunnel_parents", "ip_proto", "community_id", "vlan", "inner_vlan"),
		devices("orig_l2_addr"),
		act("device", "allow", "the hardware address of a server or router", "resp_l2_addr"),
	)},
	{Name: "zeek-dns", Title: "Zeek DNS", Product: "zeek", Service: "dns", Fields: join(zeekConn,
		allow("proto", "trans_id", "rtt", "qclass", "qclass_name", "qtype", "qtype_name", "rcode", "rcode_name", "AA", "TC", "RD", "RA", "Z", "answers", "TTLs", "rejected"),
		act("url", "allow", "domain rules test the name that was asked for; protected names are withheld before", "query"),
	)},
	{Name: "zeek-http", Title: "Zeek HTTP", Product: "zeek", Service: "http", Fields: join(zeekConn,
		allow("trans_depth", "method", "host", "version", "request_body_len", "response_body_len", "status_code", "status_msg", "info_code", "info_msg", "tags",
			"orig_fuids", "orig_mime_types", "resp_fuids", "resp_mime_types", "origin", "proxied", "orig_filenames", "resp_filenames"),
		act("url", "detect-only", whyURL, "uri", "referrer"),
		act("", "allow", whyAgent, "user_agent"),
		people("username"),
		dropped("text", whySecret, "password", "cookie_vars", "uri_vars"),
	)},
	{Name: "zeek-ssl", Title: "Zeek TLS", Product: "zeek", Service: "ssl", Fields: join(zeekConn,
		allow("version", "cipher", "curve", "server_name", "resumed", "last_alert", "next_protocol", "established", "ssl_history", "cert_chain_fps", "client_cert_chain_fps",
			"sni_matches_cert", "validation_status", "ja3", "ja3s", "issuer"),
		act("", "allow", "the name in the certificate of a server", "subject"),
		act("person", "tokenise", "a client certificate names a person", "client_subject"),
		allow("client_issuer"),
	)},
	{Name: "zeek-ssh", Title: "Zeek SSH", Product: "zeek", Service: "ssh", Fields: join(zeekConn,
		allow("version", "auth_success", "auth_attempts", "direction", "client", "server", "cipher_alg", "mac_alg", "compression_alg", "kex_alg", "host_key_alg", "host_key",
			"hassh", "hasshServer", "hasshVersion", "remote_location.country_code"),
		dropped("location", whyPlace, "remote_location.region", "remote_location.city", "remote_location.latitude", "remote_location.longitude"),
	)},
	{Name: "zeek-smb", Title: "Zeek SMB", Product: "zeek", Service: "smb_files", Fields: join(zeekConn,
		allow("fuid", "action", "size", "times.modified", "times.accessed", "times.created", "times.changed", "service", "native_file_system", "share_type",
			"sub_command", "argument", "status", "rtt", "version", "tree", "tree_service"),
		act("", "allow", "the name of a command of the protocol", "command"),
		act("", "allow", "share and file names; the shape of a home folder becomes a token", "path", "name", "prev_name"),
		people("username"),
	)},
	{Name: "zeek-other", Title: "Other Zeek logs", Product: "zeek", Fields: join(zeekConn,
		allow("proto", "service", "note", "name", "source", "peer", "actions", "suppress_for", "mime_type", "md5", "sha1", "sha256", "fuid", "depth", "analyzers", "duration",
			"seen_bytes", "total_bytes", "operation", "endpoint", "named_pipe", "success", "cipher", "request_type", "error_msg", "host", "port_num", "port_proto"),
		people("client", "username", "user", "cookie"),
		sessionIP("client_addr", "assigned_addr", "requested_addr", "src", "orig_h"),
		devices("client_fqdn", "host_name", "mac", "hostname"),
		infra("dst", "resp_h"),
		act("", "allow", "file names", "filename"),
		dropped("text", whyFreeText, "msg", "sub", "addl", "message", "arg", "mailfrom", "rcptto", "subject", "to", "from"),
		dropped("text", whySecret, "password"),
	)},
}

var signinDatasets = []Dataset{{Name: "signin", Title: "Sign-ins at the identity provider", Product: "idp", Category: "authentication", Service: "signin", Fields: join(
	allow("time", "event", "result", "reason", "error_code", "mfa", "mfa_method", "client_app", "app", "risk"),
	people("user", "user_id"),
	mails("user_mail"),
	sessionIP("src_ip"),
	act("", "allow", "a country is coarse enough to see travel and coarse enough not to follow anybody", "country"),
	dropped("location", whyPlace, "city", "region", "latitude", "longitude"),
	devices("device_id", "device_name"),
	act("", "allow", whyAgent, "user_agent"),
	act("device", "hash-keyed", "joins the events of one session; the value itself is a key to it", "session_id"),
	dropped("text", whySecret, "session_cookie", "token"),
)}}

var oktaDatasets = []Dataset{{Name: "okta", Title: "Okta system log", Product: "okta", Service: "okta", Fields: join(
	allow("published", "eventType", "version", "severity", "legacyEventType", "outcome.result", "outcome.reason", "uuid", "actor.type", "target.type", "transaction.type",
		"client.userAgent.os", "client.userAgent.browser", "client.zone", "client.device", "authenticationContext.authenticationProvider",
		"authenticationContext.credentialProvider", "authenticationContext.credentialType", "authenticationContext.interface", "securityContext.asNumber",
		"securityContext.asOrg", "securityContext.isp", "securityContext.domain", "securityContext.isProxy", "debugContext.debugData.requestUri",
		"debugContext.debugData.threatSuspected", "debugContext.debugData.risk", "debugContext.debugData.behaviors"),
	act("url", "detect-only", whyURL, "debugContext.debugData.url"),
	act("", "allow", whyAgent, "client.userAgent.rawUserAgent"),
	people("actor.id", "actor.alternateId", "actor.displayName", "target.id", "target.alternateId", "target.displayName"),
	sessionIP("client.ipAddress", "request.ipChain.ip"),
	act("", "allow", "a country is coarse enough", "client.geographicalContext.country", "request.ipChain.geographicalContext.country"),
	dropped("location", whyPlace, "client.geographicalContext.city", "client.geographicalContext.state", "client.geographicalContext.postalCode",
		"client.geographicalContext.geolocation.lat", "client.geographicalContext.geolocation.lon"),
	act("device", "hash-keyed", "joins the events of one session", "authenticationContext.externalSessionId", "authenticationContext.rootSessionId", "transaction.id"),
	devices("client.id"),
	dropped("text", whyFreeText, "displayMessage"),
)}}

var entraDatasets = []Dataset{{Name: "entra-signin", Title: "Microsoft Entra sign-ins", Product: "azure", Service: "signinlogs", Fields: join(
	allow("id", "createdDateTime", "CreatedDateTime", "time", "TimeGenerated", "category", "Category", "operationName", "OperationName", "appDisplayName", "AppDisplayName",
		"appId", "AppId", "clientAppUsed", "ClientAppUsed", "conditionalAccessStatus", "ConditionalAccessStatus", "isInteractive", "IsInteractive", "riskDetail",
		"riskLevelAggregated", "riskLevelDuringSignIn", "riskState", "riskEventTypes", "resourceDisplayName", "resourceId", "status.errorCode", "status.failureReason",
		"resultType", "ResultType", "ResultDescription", "deviceDetail.operatingSystem", "deviceDetail.browser", "deviceDetail.isCompliant", "deviceDetail.isManaged",
		"deviceDetail.trustType", "authenticationRequirement", "AuthenticationRequirement", "tokenIssuerType", "autonomousSystemNumber"),
	people("userPrincipalName", "UserPrincipalName", "userDisplayName", "UserDisplayName", "userId", "UserId", "properties.userPrincipalName", "properties.userId",
		"properties.userDisplayName"),
	sessionIP("ipAddress", "IPAddress", "properties.ipAddress", "callerIpAddress"),
	devices("deviceDetail.deviceId", "deviceDetail.displayName"),
	act("", "allow", "a country is coarse enough", "location.countryOrRegion", "Location"),
	dropped("location", whyPlace, "location.city", "location.state", "location.geoCoordinates.latitude", "location.geoCoordinates.longitude"),
	act("device", "hash-keyed", "joins the events of one session", "correlationId", "CorrelationId", "sessionId"),
	act("", "allow", whyAgent, "userAgent", "UserAgent"),
	dropped("text", whyFreeText, "status.additionalDetails"),
)}}

var mdmDatasets = []Dataset{{Name: "mdm-device", Title: "Reports of managed devices", Product: "mdm", Service: "device", Fields: join(
	allow("time", "event", "os", "os_version", "model", "supervised", "encrypted", "passcode", "jailbroken", "compliant", "last_check_in", "action", "patch_level", "managed"),
	devices("device_id", "serial", "imei", "udid", "device_name"),
	people("user"),
	mails("owner_mail"),
	act("phone", "hash-keyed", "joins reports of one number without keeping it", "phone_number"),
	act("", "allow", "the travel policy asks for the country", "country"),
	dropped("location", whyPlace, "city", "latitude", "longitude", "location", "ssid"),
	dropped("content", "what is installed tells of health, faith and politics", "apps"),
)}}

var cloudtrailDatasets = []Dataset{{Name: "cloudtrail", Title: "AWS CloudTrail", Product: "aws", Service: "cloudtrail", Fields: join(
	allow("eventVersion", "eventTime", "eventSource", "eventName", "awsRegion", "errorCode", "eventID", "eventType", "eventCategory", "managementEvent", "readOnly",
		"recipientAccountId", "requestID", "apiVersion", "sharedEventID", "vpcEndpointId", "userIdentity.type", "userIdentity.accountId", "userIdentity.invokedBy",
		"userIdentity.sessionContext.sessionIssuer.type", "userIdentity.sessionContext.sessionIssuer.accountId", "userIdentity.sessionContext.attributes.creationDate",
		"userIdentity.sessionContext.attributes.mfaAuthenticated", "tlsDetails.tlsVersion", "tlsDetails.cipherSuite", "tlsDetails.clientProvidedHostHeader",
		"resources.ARN", "resources.type", "resources.accountId", "additionalEventData.MFAUsed", "additionalEventData.MobileVersion", "additionalEventData.LoginTo",
		"responseElements.ConsoleLogin", "responseElements"),
	people("userIdentity.userName", "userIdentity.principalId", "userIdentity.arn", "userIdentity.sessionContext.sessionIssuer.userName",
		"userIdentity.sessionContext.sessionIssuer.arn", "userIdentity.sessionContext.sessionIssuer.principalId", "requestParameters.userName",
		"requestParameters.roleSessionName", "responseElements.user.userName", "responseElements.user.arn", "responseElements.user.userId",
		"responseElements.assumedRoleUser.arn", "responseElements.assumedRoleUser.assumedRoleId"),
	allow("requestParameters.roleArn", "requestParameters.roleName", "requestParameters.policyArn", "requestParameters.groupName", "requestParameters.bucketName",
		"requestParameters.instanceId", "requestParameters.instanceType", "requestParameters.name", "requestParameters.trailName", "requestParameters.secretId",
		"requestParameters.functionName", "requestParameters.attributeType", "requestParameters.launchPermission.add.items.userId"),
	act("device", "hash-keyed", "joins the calls of one key without keeping it", "userIdentity.accessKeyId", "responseElements.accessKey.accessKeyId",
		"responseElements.credentials.accessKeyId"),
	dropped("text", whySecret, "responseElements.credentials.sessionToken", "requestParameters.userData"),
	sessionIP("sourceIPAddress"),
	act("", "allow", whyAgent, "userAgent"),
	dropped("text", whyFreeText, "errorMessage"),
)}}
