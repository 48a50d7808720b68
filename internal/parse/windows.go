package parse

import (
	"bytes"
	"slices"
	"strconv"
	"strings"

	"github.com/counterseal/counterseal/internal/event"
)

// systemName reports whether a bare name belongs to the System part of a Windows
// event. A value of EventData or UserData under such a name is kept as
// EventData.Name, as package evtx does.
func systemName(name string) bool {
	switch name {
	case "Channel", "Computer", "EventID", "EventRecordID", "Keywords", "Level", "Opcode", "Task", "Version",
		"Provider_Name", "Provider_Guid", "Provider_EventSourceName", "EventID_Qualifiers", "TimeCreated_SystemTime",
		"Execution_ProcessID", "Execution_ThreadID", "Correlation_ActivityID", "Correlation_RelatedActivityID",
		"Security_UserID", "Security_UserName", "Security_UserDomain", "Security_UserType", "Message":
		return true
	}
	return false
}

// bare makes the name of an EventData or UserData value: spaces out, as rules
// expect, and qualified where System owns it.
func bare(section, name string) string {
	if strings.IndexByte(name, ' ') >= 0 {
		name = strings.ReplaceAll(name, " ", "")
	}
	if systemName(name) {
		return section + "." + name
	}
	return name
}

// setRunning takes the record number of a Windows channel. Its stream is named by
// machine and channel.
func setRunning(r *event.Record, number []byte) {
	n, err := strconv.ParseUint(string(number), 10, 64)
	if err != nil {
		return
	}
	host, _ := r.Get("Computer")
	channel, _ := r.Get("Channel")
	r.Running = event.Running{
		Stream: string(bytes.ToLower(host.Value)) + "/" + string(bytes.ToLower(channel.Value)),
		N:      n,
	}
}

// parseEvtxJSON reads the flat object that package evtx prints: its names are
// native already.
func parseEvtxJSON(f *event.Frame, c Context, r *event.Record) error {
	fields, err := flatten("evtx-json", f.Bytes)
	if err != nil {
		return err
	}
	r.Format = "evtx-json/1"
	out := fields[:0]
	var number []byte
	for _, v := range fields {
		if v.Name == "EventRecordID" {
			number = v.Value
			continue
		}
		out = append(out, v)
	}
	r.Fields = out
	r.Dataset = windowsDataset(readShape(f.Bytes).channel) // as Identify reads it
	setRunning(r, number)
	timeOf(r, c, "TimeCreated_SystemTime")
	return nil
}

// parseNXLog reads the flat form of NXLog and of the agents that copy it. `host`,
// `port`, `tags`, `@version` and the like belong to the collector: the machine is
// Hostname.
func parseNXLog(f *event.Frame, c Context, r *event.Record) error {
	fields, err := flatten("nxlog", f.Bytes)
	if err != nil {
		return err
	}
	r.Format = "nxlog/1"
	r.Fields = fields
	_, agent := r.Get("SourceModuleName")
	var number []byte
	out := fields[:0]
	for _, v := range fields {
		switch v.Name {
		case "host", "port", "tags", "@version", "SourceModuleName", "SourceModuleType", "EventReceivedTime":
			continue
		case "RecordNumber", "EventRecordID":
			number = v.Value
			continue
		case "Hostname":
			v.Name = "Computer"
		case "SourceName":
			v.Name = "Provider_Name"
		case "ProviderGuid":
			v.Name = "Provider_Guid"
		case "ExecutionProcessID":
			v.Name = "Execution_ProcessID"
		case "ThreadID":
			v.Name = "Execution_ThreadID"
		case "ActivityID":
			v.Name = "Correlation_ActivityID"
		case "UserID":
			if agent {
				v.Name = "Security_UserID"
			}
		case "EventType":
			// Sysmon 12, 13, 17 to 21 own this name; the agent writes its severity
			// under it elsewhere.
			if collectorSeverity(v.Value) {
				v.Name = "nxlog.EventType"
			}
		case "EventTypeOrignal", "EventTypeOriginal":
			v.Name = "nxlog.EventType"
		}
		v.Name = strings.ReplaceAll(v.Name, " ", "")
		out = append(out, v)
	}
	r.Fields = out
	r.Dataset = windowsDataset(readShape(f.Bytes).channel) // as Identify reads it
	setRunning(r, number)
	timeOf(r, c, "EventTime", "TimeCreated", "TimeCreated_SystemTime", "TimeGenerated", "@timestamp")
	return nil
}

func collectorSeverity(v []byte) bool {
	switch string(v) {
	case "INFO", "WARNING", "ERROR", "CRITICAL", "VERBOSE", "DEBUG", "AUDIT_SUCCESS", "AUDIT_FAILURE":
		return true
	}
	return false
}

// parseWinlogbeat takes off the envelope that Winlogbeat 6, 7 and 8 put around a
// Windows event. What its modules computed from the event stays under their own
// names, for a PIA to decide.
func parseWinlogbeat(f *event.Frame, c Context, r *event.Record) error {
	fields, err := flatten("winlogbeat", f.Bytes)
	if err != nil {
		return err
	}
	r.Format = "winlogbeat/1"
	var number []byte
	// Newer agents write the event's time beside their @timestamp.
	created := slices.ContainsFunc(fields, func(v event.Field) bool { return v.Name == "winlog.time_created" })
	out := fields[:0]
	for _, v := range fields {
		name, keep := winlogbeatName(v.Name)
		if created && v.Name == "@timestamp" {
			name = v.Name
		}
		if name == "EventRecordID" {
			number = v.Value
			continue
		}
		if !keep {
			continue
		}
		v.Name = name
		out = append(out, v)
	}
	r.Fields = out
	r.Dataset = windowsDataset(readShape(f.Bytes).channel) // as Identify reads it
	setRunning(r, number)
	timeOf(r, c, "TimeCreated_SystemTime")
	return nil
}

// winlogbeatName maps a path of the envelope to the producer's name. The second
// result is false for what the agent says of itself.
func winlogbeatName(path string) (string, bool) {
	if rest, ok := strings.CutPrefix(path, "winlog."); ok {
		switch rest {
		case "channel":
			return "Channel", true
		case "event_id":
			return "EventID", true
		case "provider_name":
			return "Provider_Name", true
		case "provider_guid":
			return "Provider_Guid", true
		case "computer_name":
			return "Computer", true
		case "record_id":
			return "EventRecordID", false
		case "version":
			return "Version", true
		case "task":
			return "Task", true
		case "opcode":
			return "Opcode", true
		case "keywords":
			return "Keywords", true
		case "level":
			return "Level", true
		case "process.pid":
			return "Execution_ProcessID", true
		case "process.thread.id":
			return "Execution_ThreadID", true
		case "activity_id":
			return "Correlation_ActivityID", true
		case "related_activity_id":
			return "Correlation_RelatedActivityID", true
		case "user.identifier":
			return "Security_UserID", true
		case "user.name":
			return "Security_UserName", true
		case "user.domain":
			return "Security_UserDomain", true
		case "user.type":
			return "Security_UserType", true
		case "time_created":
			return "TimeCreated_SystemTime", true
		case "api":
			return "", false
		}
		if name, ok := strings.CutPrefix(rest, "event_data."); ok {
			return bare("EventData", name), true
		}
		if name, ok := strings.CutPrefix(rest, "user_data."); ok {
			return bare("UserData", name), true
		}
		return path, true
	}
	if name, ok := strings.CutPrefix(path, "event_data."); ok { // Winlogbeat 6
		return bare("EventData", name), true
	}
	if name, ok := strings.CutPrefix(path, "user_data."); ok {
		return bare("UserData", name), true
	}
	switch path {
	case "@timestamp":
		return "TimeCreated_SystemTime", true
	case "message":
		return "Message", true
	case "log_name":
		return "Channel", true
	case "event_id":
		return "EventID", true
	case "source_name":
		return "Provider_Name", true
	case "provider_guid":
		return "Provider_Guid", true
	case "computer_name":
		return "Computer", true
	case "record_number":
		return "EventRecordID", false
	case "process_id":
		return "Execution_ProcessID", true
	case "thread_id":
		return "Execution_ThreadID", true
	case "activity_id":
		return "Correlation_ActivityID", true
	case "related_activity_id":
		return "Correlation_RelatedActivityID", true
	case "version":
		return "Version", true
	case "task":
		return "Task", true
	case "opcode":
		return "Opcode", true
	case "keywords":
		return "Keywords", true
	case "level":
		return "Level", true
	case "user.identifier":
		return "Security_UserID", true
	case "type", "tags", "host", "event.kind", "event.code", "event.provider", "event.created", "event.ingested", "@version":
		return "", false
	}
	top, _, _ := strings.Cut(path, ".")
	switch top {
	case "agent", "beat", "ecs", "host", "input", "@metadata", "cloud":
		return "", false
	}
	return path, true
}
