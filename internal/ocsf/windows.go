package ocsf

import (
	"strconv"
	"strings"
)

func (v *view) windows() {
	v.product = "Microsoft Windows"
	v.device("device.hostname", v.text("Computer"))
	v.set("metadata.log_name", v.text("Channel"))
	v.set("metadata.log_provider", v.text("Provider_Name"))
	v.set("metadata.event_code", v.text("EventID"))
	switch v.text("Level") {
	case "1", "Critical":
		v.severity = 5
	case "2", "Error":
		v.severity = 3
	case "3", "Warning":
		v.severity = 2
	}
	id, err := strconv.Atoi(v.text("EventID"))
	if err != nil {
		return
	}
	switch v.e.Dataset {
	case "win-security":
		v.security(id)
	case "win-sysmon":
		v.product = "Sysmon"
		v.sysmon(id)
	case "win-system":
		v.system(id)
	case "win-powershell":
		v.product = "PowerShell"
		switch id {
		case 800, 4103, 4104:
			v.is(classScript, 1)
			v.person("actor.user.uid", v.first("Security_UserID", "Security_UserName"))
			v.file("script.file", v.first("Path", "CommandPath"))
			v.set("script.uid", v.text("ScriptBlockId"))
			v.number("actor.process.pid", v.text("Execution_ProcessID"))
			v.set("actor.process.cmd_line", v.text("HostApplication"))
		}
	case "win-defender":
		v.product = "Microsoft Defender Antivirus"
		v.defender(id)
	case "win-taskscheduler":
		switch id {
		case 106:
			v.is(classJob, 1)
		case 140:
			v.is(classJob, 2)
		case 141:
			v.is(classJob, 3)
		case 142:
			v.is(classJob, 5)
		case 100, 129, 200:
			v.is(classJob, 6)
		default:
			return
		}
		v.set("job.name", v.text("TaskName"))
		v.person("actor.user.uid", v.first("UserContext", "UserName"))
	}
}

// security maps the Security log. Subject acts, Target is acted upon.
func (v *view) security(id int) {
	subject := func() {
		v.person("actor.user.uid", v.text("SubjectUserName"))
		v.set("actor.session.uid", v.text("SubjectLogonId"))
	}
	target := func() { v.person("user.uid", v.text("TargetUserName")) }
	// Failures of the audit carry it in their keywords.
	if k := v.text("Keywords"); strings.Contains(k, "Failure") || k == "0x8010000000000000" {
		v.status = statusFailure
	} else if strings.Contains(k, "Success") || k == "0x8020000000000000" {
		v.status = statusSuccess
	}
	switch id {
	case 4624, 4625, 4634, 4647, 4648:
		switch id {
		case 4634, 4647:
			v.is(classAuth, 2)
		default:
			v.is(classAuth, 1)
		}
		switch id {
		case 4625:
			v.status = statusFailure
			v.set("status_code", v.text("Status"))
			v.set("status_detail", v.text("SubStatus"))
		case 4624, 4634, 4647:
			v.status = statusSuccess
		}
		subject()
		target()
		v.number("logon_type_id", logonType(v.text("LogonType")))
		v.set("session.uid", v.text("TargetLogonId"))
		v.set("auth_protocol", v.text("AuthenticationPackageName"))
		v.source("IpAddress", "IpPort")
		v.device("src_endpoint.hostname", v.text("WorkstationName"))
		v.file("logon_process.file", v.text("ProcessName"))
		v.number("logon_process.pid", v.text("ProcessId"))
		if id == 4648 {
			v.device("dst_endpoint.hostname", v.text("TargetServerName"))
		}
	case 4768, 4769, 4770, 4771:
		v.is(classAuth, map[int]int{4768: 3, 4769: 4, 4770: 5, 4771: 6}[id])
		v.status = statusSuccess
		if s := v.text("Status"); id == 4771 || s != "" && s != "0x0" {
			v.status = statusFailure
			v.set("status_code", s)
		}
		target()
		v.set("auth_protocol", "Kerberos")
		v.set("service.name", v.text("ServiceName"))
		v.source("IpAddress", "IpPort")
	case 4776:
		v.is(classAuth, activityOther, "Credential Validation")
		v.status = statusSuccess
		if s := v.text("Status"); s != "" && s != "0x0" {
			v.status = statusFailure
			v.set("status_code", s)
		}
		target()
		v.device("src_endpoint.hostname", v.text("Workstation"))
	case 4672:
		v.is(classPrivilege, 1)
		subject()
		v.person("user.uid", v.text("SubjectUserName"))
		v.set("session.uid", v.text("SubjectLogonId"))
	case 4703:
		v.is(classPrivilege, 1)
		subject()
		target()
		v.set("session.uid", v.text("TargetLogonId"))
	case 4688:
		v.is(classProcess, 1)
		subject()
		// The target is the new process's user where it differs from the subject.
		if t := v.text("TargetUserName"); present(t) {
			v.person("process.user.uid", t)
		} else {
			v.person("process.user.uid", v.text("SubjectUserName"))
		}
		v.file("process.file", v.text("NewProcessName"))
		v.set("process.cmd_line", v.first("CommandLine", "ProcessCommandLine"))
		v.number("process.pid", v.text("NewProcessId"))
		v.set("process.parent_process.file.path", v.text("ParentProcessName"))
		v.number("process.parent_process.pid", v.text("ProcessId"))
	case 4689:
		v.is(classProcess, 2)
		subject()
		v.file("process.file", v.text("ProcessName"))
		v.number("process.pid", v.text("ProcessId"))
		v.number("exit_code", v.text("Status"))
	case 4697:
		v.is(classWinService, 1)
		subject()
		v.set("win_service.name", v.text("ServiceName"))
		v.set("win_service.cmd_line", v.text("ServiceFileName"))
		v.person("win_service.service_start_name", v.text("ServiceAccount"))
	case 4698, 4699, 4700, 4701, 4702:
		v.is(classJob, map[int]int{4698: 1, 4699: 3, 4700: 4, 4701: 5, 4702: 2}[id])
		subject()
		v.set("job.name", v.text("TaskName"))
	case 4720, 4722, 4723, 4724, 4725, 4726, 4738, 4740, 4767:
		v.is(classAccount, map[int]int{4720: 1, 4722: 2, 4723: 3, 4724: 4, 4725: 5, 4726: 6, 4738: activityOther, 4740: 9, 4767: 12}[id], "Change")
		subject()
		target()
	case 4728, 4732, 4756, 4729, 4733, 4757:
		v.is(classGroup, 3)
		if id == 4729 || id == 4733 || id == 4757 {
			v.is(classGroup, 4)
		}
		subject()
		v.person("user.uid", v.first("MemberName", "MemberSid"))
		v.set("group.name", v.text("TargetUserName"))
	case 4656, 4663:
		subject()
		activity := 0
		switch v.text("ObjectType") {
		case "File":
			if id == 4656 {
				activity = 14
			} else {
				activity = activityOther
			}
			v.is(classFile, activity, "Access")
			v.file("file", v.text("ObjectName"))
		case "Key":
			v.is(classRegistryKey, activityOther, "Access")
			v.set("reg_key.path", v.text("ObjectName"))
		case "Process":
			v.is(classProcess, 3)
			v.file("process.file", v.text("ObjectName"))
		default:
			v.is(classWinResource, 1)
			v.set("win_resource.name", v.text("ObjectName"))
			v.set("win_resource.type", v.text("ObjectType"))
		}
		v.actorProcess("ProcessName", "ProcessId")
	case 4673, 4674:
		v.is(classWinResource, 1)
		subject()
		v.set("win_resource.name", v.first("ObjectName", "Service"))
		v.set("win_resource.type", v.text("ObjectType"))
		v.actorProcess("ProcessName", "ProcessId")
	case 5140, 5145:
		v.is(classSMB, activityOther, "Share Access")
		subject()
		v.set("share", v.text("ShareName"))
		v.set("file.path", v.text("RelativeTargetName"))
		v.source("IpAddress", "IpPort")
	case 5154, 5156, 5157, 5158:
		switch id {
		case 5154:
			v.is(classNetwork, 7)
		case 5158:
			v.is(classNetwork, activityOther, "Bind")
		default:
			v.is(classNetwork, 1)
		}
		if id == 5157 {
			v.verdict("block")
		} else if id == 5156 {
			v.verdict("allow")
		}
		v.source("SourceAddress", "SourcePort")
		v.destination("DestAddress", "DestPort")
		v.number("connection_info.protocol_num", v.text("Protocol"))
		v.actorProcess("Application", "ProcessID")
		switch v.text("Direction") {
		case "%%14592":
			v.number("connection_info.direction_id", "1")
		case "%%14593":
			v.number("connection_info.direction_id", "2")
		}
	case 1102:
		v.is(classEventLog, 1)
		subject()
		v.set("log_name", v.text("Channel"))
		v.severity = 4
	}
}

// logonType passes the types that the schema knows.
func logonType(s string) string {
	switch s {
	case "2", "3", "4", "5", "7", "8", "9", "10", "11", "12", "13":
		return s
	case "0":
		return "1" // System
	}
	return ""
}

func (v *view) source(ip, port string) {
	v.address("src_endpoint.ip", v.text(ip))
	v.port("src_endpoint.port", v.text(port))
}

func (v *view) destination(ip, port string) {
	v.address("dst_endpoint.ip", v.text(ip))
	v.port("dst_endpoint.port", v.text(port))
}

// port adds a port; 0 is how producers write none.
func (v *view) port(name, value string) {
	if n, err := strconv.ParseUint(value, 10, 16); err == nil && n > 0 {
		v.number(name, value)
	}
}

func (v *view) actorProcess(image, pid string) {
	v.file("actor.process.file", v.text(image))
	v.number("actor.process.pid", v.text(pid))
}

// sysmon maps Sysmon. A user may be missing in old versions.
func (v *view) sysmon(id int) {
	actor := func() {
		v.actorProcess("Image", "ProcessId")
		v.set("actor.process.uid", v.text("ProcessGuid"))
		v.person("actor.user.uid", v.text("User"))
	}
	switch id {
	case 1:
		v.is(classProcess, 1)
		v.person("actor.user.uid", v.first("ParentUser", "User"))
		v.person("process.user.uid", v.text("User"))
		v.file("process.file", v.text("Image"))
		v.set("process.cmd_line", v.text("CommandLine"))
		v.number("process.pid", v.text("ProcessId"))
		v.set("process.uid", v.text("ProcessGuid"))
		v.set("process.working_directory", v.text("CurrentDirectory"))
		v.set("process.session.uid", v.text("LogonId"))
		v.set("process.parent_process.file.path", v.text("ParentImage"))
		v.set("process.parent_process.cmd_line", v.text("ParentCommandLine"))
		v.number("process.parent_process.pid", v.text("ParentProcessId"))
		v.set("process.parent_process.uid", v.text("ParentProcessGuid"))
	case 5:
		v.is(classProcess, 2)
		v.person("actor.user.uid", v.text("User"))
		v.file("process.file", v.text("Image"))
		v.number("process.pid", v.text("ProcessId"))
		v.set("process.uid", v.text("ProcessGuid"))
	case 8, 10:
		v.is(classProcess, 4)
		if id == 10 {
			v.is(classProcess, 3)
		}
		v.person("actor.user.uid", v.text("SourceUser"))
		v.actorProcess("SourceImage", "SourceProcessId")
		v.set("actor.process.uid", v.first("SourceProcessGUID", "SourceProcessGuid"))
		v.file("process.file", v.text("TargetImage"))
		v.number("process.pid", v.text("TargetProcessId"))
		v.set("process.uid", v.first("TargetProcessGUID", "TargetProcessGuid"))
		v.person("process.user.uid", v.text("TargetUser"))
	case 25:
		v.is(classProcess, 4)
		v.person("actor.user.uid", v.text("User"))
		v.file("process.file", v.text("Image"))
		v.number("process.pid", v.text("ProcessId"))
	case 3:
		v.is(classNetwork, 1)
		actor()
		v.source("SourceIp", "SourcePort")
		v.device("src_endpoint.hostname", v.text("SourceHostname"))
		v.destination("DestinationIp", "DestinationPort")
		v.device("dst_endpoint.hostname", v.text("DestinationHostname"))
		v.set("connection_info.protocol_name", v.text("Protocol"))
		switch v.text("Initiated") {
		case "true":
			v.number("connection_info.direction_id", "2")
		case "false":
			v.number("connection_info.direction_id", "1")
		}
	case 6:
		v.is(classDriver, 1)
		v.file("driver.file", v.text("ImageLoaded"))
	case 7:
		v.is(classModule, 1)
		actor()
		v.file("module.file", v.text("ImageLoaded"))
	case 2, 11, 15, 23, 26, 27, 28, 29:
		v.is(classFile, map[int]int{2: 6, 11: 1, 15: 1, 23: 4, 26: 4, 27: 1, 28: 4, 29: 1}[id])
		if id == 27 || id == 28 {
			v.status = statusFailure
			v.verdict("block")
		}
		actor()
		v.file("file", v.text("TargetFilename"))
	case 12, 13, 14:
		actor()
		switch v.text("EventType") {
		case "SetValue":
			v.is(classRegistryVal, 2)
			v.set("reg_value.path", v.text("TargetObject"))
			v.set("reg_value.name", fileName(v.text("TargetObject")))
			v.set("reg_value.data", v.text("Details"))
		case "DeleteValue":
			v.is(classRegistryVal, 4)
			v.set("reg_value.path", v.text("TargetObject"))
			v.set("reg_value.name", fileName(v.text("TargetObject")))
		case "CreateKey", "DeleteKey", "RenameKey":
			v.is(classRegistryKey, map[string]int{"CreateKey": 1, "DeleteKey": 4, "RenameKey": 5}[v.text("EventType")])
			v.set("reg_key.path", v.first("NewName", "TargetObject"))
		default:
			v.is(classRegistryKey, 0)
			v.set("reg_key.path", v.text("TargetObject"))
		}
	case 17, 18:
		v.is(classFile, 1)
		if id == 18 {
			v.is(classFile, 14)
		}
		actor()
		v.set("file.name", v.text("PipeName"))
		v.number("file.type_id", "6")
	case 19, 20, 21:
		v.is(classWinResource, activityOther, v.first("EventType", "Operation"))
		v.person("actor.user.uid", v.text("User"))
		v.set("win_resource.name", v.first("Name", "Consumer", "Filter"))
		v.set("win_resource.type", "WMI")
	case 22:
		v.is(classDNS, 1)
		actor()
		v.set("query.hostname", v.text("QueryName"))
		if s := v.text("QueryStatus"); s == "0" {
			v.status = statusSuccess
		} else if s != "" {
			v.status = statusFailure
			v.set("status_code", s)
		}
	}
}

func (v *view) system(id int) {
	switch id {
	case 7045:
		v.is(classWinService, 1)
		v.set("win_service.name", v.text("ServiceName"))
		v.set("win_service.cmd_line", v.text("ImagePath"))
		v.person("win_service.service_start_name", v.text("AccountName"))
		v.person("actor.user.uid", v.first("Security_UserID", "SubjectUserName"))
	case 7040:
		v.is(classWinService, 2)
		v.set("win_service.name", v.first("param4", "param1"))
	case 7036:
		// The new state is a word in the language of the machine.
		v.is(classWinService, activityOther, "State Change")
		v.set("win_service.name", v.text("param1"))
	case 104:
		v.is(classEventLog, 1)
		v.person("actor.user.uid", v.text("SubjectUserName"))
		v.set("log_name", v.first("UserData.Channel", "Channel"))
		v.severity = 4
	}
}

func (v *view) defender(id int) {
	switch {
	case id >= 1006 && id <= 1012, id >= 1116 && id <= 1119:
	default:
		return
	}
	v.is(classFinding, 1)
	v.set("finding_info.title", v.text("ThreatName"))
	v.set("finding_info.uid", v.first("DetectionID", "ThreatID"))
	v.person("actor.user.uid", v.text("DetectionUser"))
	switch v.text("SeverityID") {
	case "1":
		v.severity = 2
	case "2":
		v.severity = 3
	case "4":
		v.severity = 4
	case "5":
		v.severity = 5
	}
}
