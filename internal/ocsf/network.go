package ocsf

import "strings"

// zeek maps the logs of Zeek by their path.
func (v *view) zeek() {
	v.product = "Zeek"
	v.device("device.hostname", v.first("_system_name", "@system"))
	path := v.text("_path")
	if path == "" {
		path = strings.TrimPrefix(v.e.Dataset, "zeek-")
	}
	v.set("metadata.log_name", path)
	switch path {
	case "conn":
		v.is(classNetwork, connActivity(v.text("conn_state")))
		v.number("traffic.bytes_out", v.text("orig_bytes"))
		v.number("traffic.bytes_in", v.text("resp_bytes"))
		v.set("app_name", v.text("service"))
	case "dns":
		v.is(classDNS, 1)
		if r := v.text("rcode_name"); r != "" {
			v.is(classDNS, 2)
			v.set("rcode", r)
			v.status = statusFailure
			if r == "NOERROR" {
				v.status = statusSuccess
			}
		}
		v.set("query.hostname", v.text("query"))
		v.set("query.type", v.text("qtype_name"))
	case "http":
		method := strings.ToUpper(v.text("method"))
		activity := map[string]int{"CONNECT": 1, "DELETE": 2, "GET": 3, "HEAD": 4, "OPTIONS": 5, "POST": 6, "PUT": 7, "TRACE": 8, "PATCH": 9}[method]
		if activity == 0 && present(method) {
			activity = activityOther
		}
		v.is(classHTTP, activity, method)
		v.set("http_request.http_method", method)
		v.set("http_request.url.hostname", v.text("host"))
		v.set("http_request.url.path", v.text("uri"))
		v.set("http_request.user_agent", v.text("user_agent"))
		v.number("http_response.code", v.text("status_code"))
		v.person("actor.user.uid", v.text("username"))
	case "ssl":
		v.is(classNetwork, 1)
		if v.text("established") == "false" {
			v.is(classNetwork, 4)
		}
		v.set("tls.sni", v.text("server_name"))
		v.set("tls.version", v.text("version"))
		v.set("tls.cipher", v.text("cipher"))
	case "ssh":
		v.is(classSSH, 6)
		v.outcome(v.text("auth_success"))
	case "smb_files", "smb_mapping", "smb_cmd":
		v.is(classSMB, activityOther, v.first("action", "command"))
		switch v.text("action") {
		case "SMB::FILE_OPEN":
			v.is(classSMB, 2)
		case "":
			if path == "smb_mapping" {
				v.is(classSMB, activityOther, "Tree Connect")
			}
		}
		if path == "smb_mapping" {
			v.set("share", v.text("path"))
			v.set("share_type", v.text("share_type"))
		} else {
			v.set("share", v.text("path"))
			v.set("file.name", v.text("name"))
		}
		v.person("actor.user.uid", v.text("username"))
	case "rdp":
		v.is(classRDP, 6)
		v.person("user.uid", v.text("cookie"))
	case "dhcp":
		v.is(classDHCP, 0)
		v.address("src_endpoint.ip", v.text("client_addr"))
		v.address("dst_endpoint.ip", v.text("server_addr"))
		v.device("src_endpoint.hostname", v.first("client_fqdn", "host_name"))
		v.device("src_endpoint.mac", v.text("mac"))
	case "ftp":
		v.is(classFTP, map[string]int{"STOR": 1, "RETR": 2, "DELE": 4, "LIST": 6}[v.text("command")])
		v.set("command", v.text("command"))
		v.person("actor.user.uid", v.text("user"))
	case "kerberos":
		v.is(classAuth, map[string]int{"AS": 3, "TGS": 4}[v.text("request_type")])
		v.person("user.uid", firstByte(v.text("client"), '/'))
		v.set("service.name", v.text("service"))
		v.set("auth_protocol", "Kerberos")
		v.outcome(v.text("success"))
		v.set("status_detail", v.text("error_msg"))
	case "ntlm":
		v.is(classAuth, 1)
		v.person("user.uid", v.text("username"))
		v.device("src_endpoint.hostname", v.text("hostname"))
		v.set("auth_protocol", "NTLM")
		v.outcome(v.text("success"))
	case "files":
		v.is(classFileHosting, 0)
		v.set("file.name", v.text("filename"))
		v.set("file.mime_type", v.text("mime_type"))
		v.number("file.size", v.text("seen_bytes"))
	case "notice":
		v.is(classFinding, 1)
		v.set("finding_info.title", v.text("note"))
		v.set("finding_info.uid", v.text("uid"))
		return // a finding has no endpoints of its own
	default:
		v.set("metadata.original_event_uid", v.text("uid"))
		return // nor has the base event
	}
	v.set("metadata.original_event_uid", v.text("uid"))
	v.source("id.orig_h", "id.orig_p")
	v.destination("id.resp_h", "id.resp_p")
	if v.class/1000 == 4 {
		v.set("connection_info.protocol_name", v.text("proto"))
	}
}

// connActivity reads Zeek's state of a connection, which it writes at its end.
func connActivity(state string) int {
	switch state {
	case "S0":
		return 4 // no answer
	case "REJ":
		return 5
	case "RSTO", "RSTR", "RSTOS0", "RSTRH":
		return 3
	case "S1":
		return 1 // open when Zeek stopped looking
	case "SF", "S2", "S3", "SH", "SHR":
		return 2
	}
	return 6
}
