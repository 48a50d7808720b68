package parse

import (
	"bytes"
	"strings"

	"github.com/counterseal/counterseal/internal/event"
)

// shape is what the header tests of JSON formats look at: which telling keys the
// object has at its top, and the few values that name a dataset.
type shape struct {
	keys    keySet
	channel []byte // of winlog, or flat
	path    []byte // Zeek's log
	event   []byte
	message []byte // as written, quotes and all
}

type keySet uint64

const (
	hasWinlog keySet = 1 << iota
	hasMessage
	hasShipper
	hasLogName
	hasRecordNumber
	hasChannel
	hasEventID
	hasComputer
	hasHostname
	hasSystemTime
	hasProviderName
	hasEventSource
	hasEventName
	hasEventVersion
	hasUserIdentity
	hasZeekPath
	hasWriter
	hasTS
	hasUID
	hasOrig
	hasConnState
	hasQuery
	hasMethod
	hasCipher
	hasAuthSuccess
	hasUser
	hasResult
	hasEventType
	hasPublished
	hasActor
	hasUPN
	hasAppName
	hasCreated
	hasSigninProps
	hasDeviceID
	hasCheckIn
	hasCompliant
	hasJailbroken
	hasEncrypted
	hasSupervised
)

func (s *shape) all(k keySet) bool { return s.keys&k == k }
func (s *shape) any(k keySet) bool { return s.keys&k != 0 }

func readShape(b []byte) *shape {
	s := new(shape)
	members(b, func(key, value []byte) {
		switch string(key) {
		case "winlog":
			found := false
			members(value, func(k, v []byte) {
				switch string(k) {
				case "channel":
					s.setChannel(v)
					found = true
				case "event_id":
					found = true
				}
			})
			if found {
				s.keys |= hasWinlog
			}
		case "message":
			if s.message == nil && len(value) > 2 && value[0] == '"' {
				s.message = value
				s.keys |= hasMessage
			}
		case "agent", "beat", "ecs", "source_type", "agent.type", "agent.version":
			s.keys |= hasShipper
		case "winlog.channel":
			s.setChannel(value)
			s.keys |= hasWinlog
		case "winlog.event_id":
			s.keys |= hasWinlog
		case "log_name":
			s.setChannel(value)
			s.keys |= hasLogName
		case "record_number":
			s.keys |= hasRecordNumber
		case "Channel":
			s.setChannel(value)
			s.keys |= hasChannel
		case "EventID":
			s.keys |= hasEventID
		case "Computer":
			s.keys |= hasComputer
		case "Hostname":
			s.keys |= hasHostname
		case "TimeCreated_SystemTime":
			s.keys |= hasSystemTime
		case "Provider_Name":
			s.keys |= hasProviderName
		case "eventSource":
			s.keys |= hasEventSource
		case "eventName":
			s.keys |= hasEventName
		case "eventVersion":
			s.keys |= hasEventVersion
		case "userIdentity":
			s.keys |= hasUserIdentity
		case "_path", "@stream":
			if p := plain(value); len(p) > 0 && s.path == nil {
				s.path = p
				s.keys |= hasZeekPath
			}
		case "_write_ts", "_system_name", "@system", "@proc":
			s.keys |= hasWriter
		case "ts":
			s.keys |= hasTS
		case "uid":
			s.keys |= hasUID
		case "id.orig_h", "id_orig_h":
			s.keys |= hasOrig
		case "id":
			if bytes.Contains(value[:min(len(value), 64)], []byte(`"orig_h"`)) {
				s.keys |= hasOrig
			}
		case "conn_state":
			s.keys |= hasConnState
		case "query", "qtype", "qtype_name":
			s.keys |= hasQuery
		case "method", "status_code", "uri":
			s.keys |= hasMethod
		case "cipher", "server_name", "ssl_history":
			s.keys |= hasCipher
		case "auth_success", "auth_attempts", "hasshVersion", "kex_alg":
			s.keys |= hasAuthSuccess
		case "event":
			if s.event == nil {
				s.event = plain(value)
			}
		case "user":
			s.keys |= hasUser
		case "result":
			s.keys |= hasResult
		case "eventType":
			s.keys |= hasEventType
		case "published":
			s.keys |= hasPublished
		case "actor":
			s.keys |= hasActor
		case "userPrincipalName", "UserPrincipalName":
			s.keys |= hasUPN
		case "appDisplayName", "AppDisplayName":
			s.keys |= hasAppName
		case "createdDateTime", "CreatedDateTime":
			s.keys |= hasCreated
		case "properties":
			up := false
			members(value, func(k, _ []byte) {
				if string(k) == "userPrincipalName" {
					up = true
				}
			})
			if up {
				s.keys |= hasSigninProps
			}
		case "category", "Category":
			if bytes.HasSuffix(plain(value), []byte("SignInLogs")) {
				s.keys |= hasSigninProps
			}
		case "device_id":
			s.keys |= hasDeviceID
		case "last_check_in":
			s.keys |= hasCheckIn
		case "compliant":
			s.keys |= hasCompliant
		case "jailbroken":
			s.keys |= hasJailbroken
		case "encrypted":
			s.keys |= hasEncrypted
		case "supervised":
			s.keys |= hasSupervised
		}
	})
	return s
}

func (s *shape) setChannel(v []byte) {
	if s.channel == nil {
		s.channel = plain(v)
	}
}

// shapeTest is the header test of a JSON format, nil for the others.
func shapeTest(format string) func(*shape) (string, bool) {
	switch format {
	case "winlogbeat":
		return winlogbeatShape
	case "filebeat":
		return filebeatShape
	case "evtx-json":
		return evtxShape
	case "nxlog":
		return nxlogShape
	case "cloudtrail":
		return cloudtrailShape
	case "okta":
		return oktaShape
	case "entra-signin":
		return entraShape
	case "signin":
		return signinShape
	case "mdm":
		return mdmShape
	case "zeek-json":
		return zeekShape
	}
	return nil
}

func sniffShape(test func(*shape) (string, bool)) func(*event.Frame, string) (string, bool) {
	return func(f *event.Frame, _ string) (string, bool) {
		if !isObject(f.Bytes) {
			return "", false
		}
		return test(readShape(f.Bytes))
	}
}

func winlogbeatShape(s *shape) (string, bool) {
	if s.all(hasWinlog) || s.all(hasLogName|hasRecordNumber) {
		return windowsDataset(s.channel), true
	}
	return "", false
}

func evtxShape(s *shape) (string, bool) {
	if s.all(hasChannel|hasEventID|hasComputer) && s.any(hasSystemTime|hasProviderName) {
		return windowsDataset(s.channel), true
	}
	return "", false
}

func nxlogShape(s *shape) (string, bool) {
	if s.all(hasChannel|hasEventID) && s.any(hasHostname|hasComputer) {
		return windowsDataset(s.channel), true
	}
	return "", false
}

func cloudtrailShape(s *shape) (string, bool) {
	return "cloudtrail", s.all(hasEventSource|hasEventName) && s.any(hasEventVersion|hasUserIdentity)
}

func oktaShape(s *shape) (string, bool) {
	return "okta", s.all(hasEventType | hasPublished | hasActor)
}

func entraShape(s *shape) (string, bool) {
	return "entra-signin", s.all(hasUPN|hasAppName|hasCreated) || s.all(hasSigninProps)
}

func signinShape(s *shape) (string, bool) {
	return "signin", string(s.event) == "signin" && s.any(hasUser|hasResult)
}

func mdmShape(s *shape) (string, bool) {
	state := s.any(hasCompliant|hasJailbroken|hasEncrypted|hasSupervised) || string(s.event) == "mdm"
	return "mdm-device", s.all(hasDeviceID) && state && s.any(hasCheckIn|hasCompliant|hasJailbroken)
}

func zeekShape(s *shape) (string, bool) {
	switch {
	case s.all(hasZeekPath) && s.any(hasTS|hasUID|hasOrig|hasWriter):
		return zeekDataset(string(s.path)), true
	case !s.all(hasTS | hasUID | hasOrig):
		return "", false
	case s.all(hasConnState):
		return "zeek-conn", true
	case s.all(hasQuery):
		return "zeek-dns", true
	case s.all(hasAuthSuccess):
		return "zeek-ssh", true
	case s.all(hasMethod):
		return "zeek-http", true
	case s.all(hasCipher):
		return "zeek-ssl", true
	}
	return "zeek-other", true
}

// windowsDataset names the dataset of a channel. Producers disagree on its case.
func windowsDataset(channel []byte) string {
	switch c := strings.ToLower(string(channel)); c {
	case "security":
		return "win-security"
	case "system":
		return "win-system"
	case "microsoft-windows-sysmon/operational":
		return "win-sysmon"
	case "windows powershell", "microsoft-windows-powershell/operational", "powershellcore/operational":
		return "win-powershell"
	case "microsoft-windows-windows defender/operational":
		return "win-defender"
	case "microsoft-windows-taskscheduler/operational":
		return "win-taskscheduler"
	}
	return "win-other"
}
