package ocsf

import (
	"strconv"
	"strings"
)

// syslog adds what each syslog record says.
func (v *view) syslog() {
	v.device("device.hostname", v.text("hostname"))
	switch v.text("severity") {
	case "emerg":
		v.severity = 6
	case "alert":
		v.severity = 5
	case "crit":
		v.severity = 4
	case "err":
		v.severity = 3
	case "warning":
		v.severity = 2
	}
}

// sshd maps attempts to log on to authentication, and what concerns a connection
// alone to SSH activity.
func (v *view) sshd() {
	v.product = "OpenSSH"
	v.syslog()
	event := v.text("event")
	logon := true
	switch event {
	case "accepted":
		v.is(classAuth, 1)
		v.status = statusSuccess
	case "failed", "invalid_user", "not_allowed", "max_attempts":
		v.is(classAuth, 1)
		v.status = statusFailure
	case "postponed":
		v.is(classAuth, activityOther, "Postponed")
	default:
		logon = false
		switch event {
		case "disconnected", "closed":
			v.is(classSSH, 2)
		case "connection":
			v.is(classSSH, 1)
		case "refused":
			v.is(classSSH, 5)
			v.status = statusFailure
		case "connection_failed", "no_identification", "negotiation_failed", "timeout", "bad_protocol":
			v.is(classSSH, 4)
			v.status = statusFailure
		case "listening":
			v.is(classSSH, 7)
		case "session_start", "subsystem":
			v.is(classSSH, activityOther, "Session")
		default:
			v.person("actor.user.uid", v.text("user"))
			return
		}
	}
	v.source("src_ip", "src_port")
	v.device("src_endpoint.hostname", v.text("src_host"))
	if logon {
		v.person("user.uid", v.text("user"))
		v.set("auth_protocol", v.text("method"))
		v.set("service.name", "sshd")
		v.boolean("is_remote", "true")
		v.set("status_detail", v.text("reason"))
		return
	}
	v.person("actor.user.uid", v.text("user"))
	v.destination("dst_ip", "dst_port")
	v.set("status_detail", v.text("reason"))
}

// sudo maps to the switch of an account: who, to whom, by which command.
func (v *view) sudo() {
	v.product = "sudo"
	v.syslog()
	if _, ok := v.e.Get("user"); !ok {
		return
	}
	v.is(classAuth, 7)
	v.number("account_switch_type_id", "1")
	v.outcome(v.text("outcome"))
	v.person("actor.user.uid", v.text("user"))
	v.person("user.uid", v.text("runas"))
	v.set("actor.process.cmd_line", v.text("command"))
	v.set("session.terminal", v.text("tty"))
	v.set("service.name", "sudo")
	v.set("status_detail", v.text("reason"))
}

func (v *view) auth() {
	v.product = "Linux"
	v.syslog()
	service := firstByte(v.text("service"), ':')
	switch v.text("event") {
	case "session_opened", "session_new":
		v.is(classAuth, 1)
		v.status = statusSuccess
	case "session_closed", "session_removed", "session_logout":
		v.is(classAuth, 2)
		v.status = statusSuccess
	case "auth_failure", "user_unknown", "login_failed":
		v.is(classAuth, 1)
		v.status = statusFailure
	case "login":
		v.is(classAuth, 1)
		v.status = statusSuccess
	case "su", "su_denied":
		v.is(classAuth, 7)
		v.number("account_switch_type_id", "1")
		v.status = statusSuccess
		if v.text("event") == "su_denied" || v.text("outcome") == "FAILED" {
			v.status = statusFailure
		}
		v.person("actor.user.uid", v.text("user"))
		v.person("user.uid", v.text("runas"))
		v.set("service.name", "su")
		return
	case "user_added":
		v.is(classAccount, 1)
	case "user_deleted":
		v.is(classAccount, 6)
	case "password_changed":
		v.is(classAccount, 3)
	case "group_added", "group_removed", "group_member_added":
		v.is(classGroup, map[string]int{"group_added": 6, "group_removed": 5, "group_member_added": 3}[v.text("event")])
		v.set("group.name", v.text("group"))
		v.person("user.uid", v.text("user"))
		return
	default:
		return
	}
	v.person("user.uid", v.text("user"))
	if v.class == classAuth {
		v.person("actor.user.uid", v.first("by", "ruser"))
		v.set("service.name", service)
		v.set("session.uid", v.text("session_id"))
		v.address("src_endpoint.ip", v.text("src_ip"))
	}
}

// auditd maps single records. The act of an event is in its SYSCALL record or in
// the record of a user-space program; EXECVE, PATH, CWD, SOCKADDR and PROCTITLE
// carry parts of it and keep activity 0, so that nothing counts an act twice.
func (v *view) auditd() {
	v.product = "Linux audit"
	v.device("device.hostname", v.first("node", "syslog_host"))
	typ := v.text("type")
	v.set("metadata.event_code", typ)
	actor := func() {
		v.person("actor.user.uid", v.first("AUID", "auid"))
		v.set("actor.session.uid", v.text("ses"))
	}
	program := func() {
		actor()
		v.person("user.uid", v.first("acct", "ID", "id"))
		v.file("actor.process.file", v.text("exe"))
		v.number("actor.process.pid", v.text("pid"))
		v.outcome(v.first("res", "result"))
	}
	switch typ {
	case "SYSCALL", "AUOMS_SYSCALL", "AUOMS_EXECVE":
		v.outcome(v.text("success"))
		switch v.syscall() {
		case "execve", "execveat":
			v.is(classProcess, 1)
			actor()
			v.person("process.user.uid", v.first("UID", "user", "uid"))
			v.file("process.file", v.text("exe"))
			v.number("process.pid", v.text("pid"))
			v.number("process.parent_process.pid", v.text("ppid"))
			v.set("process.cmd_line", v.text("cmdline"))
			v.set("process.working_directory", v.text("cwd"))
			return
		case "connect":
			v.is(classNetwork, 1)
		case "accept", "accept4":
			v.is(classNetwork, 1)
		case "listen":
			v.is(classNetwork, 7)
		case "open", "openat", "openat2":
			v.is(classFile, 14)
		case "creat", "mknod", "mknodat", "mkdir", "mkdirat":
			v.is(classFile, 1)
		case "unlink", "unlinkat", "rmdir":
			v.is(classFile, 4)
		case "rename", "renameat", "renameat2":
			v.is(classFile, 5)
		case "chmod", "fchmod", "fchmodat", "chown", "fchown", "lchown", "fchownat", "setxattr", "lsetxattr", "fsetxattr":
			v.is(classFile, 7)
		case "init_module", "finit_module":
			v.is(classDriver, 1)
		case "delete_module":
			v.is(classDriver, 2)
		case "ptrace":
			v.is(classProcess, 3)
		case "kill":
			v.is(classProcess, activityOther, "Signal")
		case "setuid", "setreuid", "setresuid":
			v.is(classProcess, 5)
		}
		actor()
		v.file("actor.process.file", v.text("exe"))
		v.number("actor.process.pid", v.text("pid"))
	case "EXECVE":
		v.is(classProcess, 0)
		v.set("process.cmd_line", v.arguments())
	case "PROCTITLE":
		v.is(classProcess, 0)
		v.set("process.cmd_line", v.text("proctitle"))
	case "CWD":
		v.is(classProcess, 0)
		v.set("process.working_directory", v.text("cwd"))
	case "PATH":
		v.is(classFile, 0)
		v.file("file", v.text("name"))
	case "SOCKADDR":
		v.is(classNetwork, 0)
		v.address("dst_endpoint.ip", v.text("laddr"))
		v.port("dst_endpoint.port", v.text("lport"))
	case "USER_LOGIN", "USER_START":
		v.is(classAuth, 1)
		program()
		v.address("src_endpoint.ip", v.text("addr"))
		v.set("session.terminal", v.text("terminal"))
	case "USER_END", "USER_LOGOUT":
		v.is(classAuth, 2)
		program()
		v.address("src_endpoint.ip", v.text("addr"))
	case "USER_AUTH", "USER_ACCT", "CRED_ACQ", "CRED_DISP", "CRED_REFR", "LOGIN", "USER_ERR":
		v.is(classAuth, activityOther, typ)
		program()
		v.address("src_endpoint.ip", v.text("addr"))
	case "USER_CMD":
		v.is(classAuth, 7)
		v.number("account_switch_type_id", "1")
		program()
		v.set("actor.process.cmd_line", v.text("cmd"))
		v.set("service.name", "sudo")
	case "ADD_USER", "DEL_USER", "USER_CHAUTHTOK", "USER_MGMT", "ACCT_LOCK", "ACCT_UNLOCK":
		v.is(classAccount, map[string]int{"ADD_USER": 1, "DEL_USER": 6, "USER_CHAUTHTOK": 3, "USER_MGMT": activityOther, "ACCT_LOCK": 9, "ACCT_UNLOCK": 12}[typ], typ)
		program()
	case "ADD_GROUP", "DEL_GROUP", "GRP_MGMT", "CHGRP_ID", "GRP_CHAUTHTOK":
		v.is(classGroup, map[string]int{"ADD_GROUP": 6, "DEL_GROUP": 5, "GRP_MGMT": activityOther, "CHGRP_ID": activityOther, "GRP_CHAUTHTOK": activityOther}[typ], typ)
		program()
		v.set("group.name", v.text("grp"))
	case "CONFIG_CHANGE":
		v.is(classEventLog, activityOther, typ)
		actor()
		v.outcome(v.text("res"))
	case "DAEMON_START", "DAEMON_RESUME":
		v.is(classEventLog, 6)
		actor()
		v.outcome(v.text("res"))
	case "DAEMON_END", "DAEMON_ABORT":
		v.is(classEventLog, 7)
		actor()
		v.outcome(v.text("res"))
	case "DAEMON_ROTATE":
		v.is(classEventLog, 5)
		actor()
	case "SERVICE_START", "SERVICE_STOP":
		v.is(classLifecycle, map[string]int{"SERVICE_START": 3, "SERVICE_STOP": 4}[typ])
		v.set("app.name", v.text("unit"))
		v.outcome(v.text("res"))
	}
}

// syscall names the call: enriched records hold its name, others a number whose
// meaning depends on the architecture.
func (v *view) syscall() string {
	if s := v.text("SYSCALL"); s != "" {
		return s
	}
	s := v.text("syscall")
	n, err := strconv.Atoi(s)
	if err != nil {
		return s
	}
	switch v.text("arch") {
	case "c000003e": // x86_64
		return map[int]string{
			2: "open", 42: "connect", 43: "accept", 50: "listen", 59: "execve", 62: "kill", 76: "truncate", 82: "rename", 83: "mkdir", 84: "rmdir", 85: "creat",
			87: "unlink", 90: "chmod", 91: "fchmod", 92: "chown", 93: "fchown", 94: "lchown", 101: "ptrace", 105: "setuid", 113: "setreuid", 117: "setresuid",
			133: "mknod", 175: "init_module", 176: "delete_module", 188: "setxattr", 189: "lsetxattr", 190: "fsetxattr", 257: "openat", 258: "mkdirat", 259: "mknodat",
			260: "fchownat", 263: "unlinkat", 264: "renameat", 268: "fchmodat", 288: "accept4", 313: "finit_module", 316: "renameat2", 322: "execveat", 437: "openat2",
		}[n]
	case "c00000b7": // aarch64
		return map[int]string{
			33: "mknodat", 34: "mkdirat", 35: "unlinkat", 38: "renameat", 53: "fchmodat", 52: "fchmod", 54: "fchownat", 55: "fchown", 56: "openat", 105: "init_module",
			106: "delete_module", 117: "ptrace", 129: "kill", 145: "setreuid", 146: "setuid", 147: "setresuid", 201: "listen", 202: "accept", 203: "connect", 221: "execve",
			242: "accept4", 273: "finit_module", 276: "renameat2", 281: "execveat", 437: "openat2",
		}[n]
	case "40000003": // i386
		return map[int]string{
			5: "open", 8: "creat", 10: "unlink", 11: "execve", 15: "chmod", 26: "ptrace", 37: "kill", 38: "rename", 39: "mkdir", 40: "rmdir", 128: "init_module",
			129: "delete_module", 295: "openat", 301: "unlinkat", 358: "execveat", 362: "connect", 363: "listen", 364: "accept4",
		}[n]
	}
	return ""
}

// arguments joins the arguments of an EXECVE record with spaces.
func (v *view) arguments() string {
	var b strings.Builder
	for i := range v.e.Fields {
		f := &v.e.Fields[i]
		if len(f.Name) < 2 || f.Name[0] != 'a' {
			continue
		}
		if _, err := strconv.ParseUint(f.Name[1:], 10, 16); err != nil {
			continue
		}
		if b.Len() > 0 {
			b.WriteByte(' ')
		}
		b.Write(f.Value)
	}
	return b.String()
}

func (v *view) firewall() {
	v.product = v.first("devname", "app_name")
	if v.product == "kernel" {
		v.product = "netfilter"
	}
	v.syslog()
	if v.first("src_ip", "dst_ip") == "" {
		return
	}
	// A packet filter reports traffic; what it did with it is the disposition.
	v.is(classNetwork, 6)
	v.verdict(v.text("action"))
	v.source("src_ip", "src_port")
	v.destination("dst_ip", "dst_port")
	v.set("connection_info.protocol_name", strings.ToLower(v.text("proto")))
	v.number("traffic.bytes_in", v.text("bytes_in"))
	v.number("traffic.bytes_out", v.text("bytes_out"))
	v.set("firewall_rule.name", v.text("rule"))
	v.set("src_endpoint.interface_name", v.text("in_if"))
	v.set("dst_endpoint.interface_name", v.text("out_if"))
	v.person("actor.user.uid", v.first("user", "srcuser", "unauthuser"))
}
