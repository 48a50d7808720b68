package parse

import (
	"bytes"
	"net/netip"
	"regexp"

	"github.com/counterseal/counterseal/internal/event"
)

// shapeOf is one message that a program writes: an expression whose named groups
// become fields, and the word that says what happened. An expression matches the
// whole message, so that no byte of a recognised message is lost.
type shapeOf struct {
	event  string
	prefix []byte // literal that each such message begins with
	re     *regexp.Regexp
}

func shapesOf(pairs ...string) []shapeOf {
	out := make([]shapeOf, 0, len(pairs)/2)
	for i := 0; i < len(pairs); i += 2 {
		out = append(out, shapeOf{pairs[i], literal(pairs[i+1]), regexp.MustCompile(`\A(?s:` + pairs[i+1] + `)\z`)})
	}
	return out
}

// maxShape bounds the messages that expressions look at: no program writes longer
// ones of these shapes, and an attacker may not buy our time with them.
const maxShape = 16 << 10

// literal is what an expression begins with before its first operator. It spares
// most messages the most of the expressions.
func literal(re string) []byte {
	n := 0
	for n < len(re) && !bytes.ContainsRune([]byte(`\.+*?()|[]{}^$`), rune(re[n])) {
		n++
	}
	if n > 0 && n < len(re) && (re[n] == '*' || re[n] == '?' || re[n] == '{') {
		n--
	}
	return []byte(re[:n])
}

// take adds the fields of the first shape that matches, or the message as `msg`.
func take(r *event.Record, shapes []shapeOf, msg []byte) bool {
	for i := range shapes {
		if len(msg) > maxShape {
			break
		}
		if !bytes.HasPrefix(msg, shapes[i].prefix) {
			continue
		}
		m := shapes[i].re.FindSubmatchIndex(msg)
		if m == nil {
			continue
		}
		r.Add("event", shapes[i].event)
		for g, name := range shapes[i].re.SubexpNames() {
			if name == "" || m[2*g] < 0 {
				continue
			}
			kind := event.String
			v := msg[m[2*g]:m[2*g+1]]
			if name == "src_port" || name == "uid" || name == "gid" {
				kind = event.Number
			}
			r.Fields = append(r.Fields, event.Field{Name: name, Kind: kind, Value: v})
		}
		if shapes[i].event == "user_added" {
			// Published rules look for words of this sentence, not for fields.
			r.Fields = append(r.Fields, event.Field{Name: "msg", Value: msg})
		}
		return true
	}
	r.Fields = append(r.Fields, event.Field{Name: "msg", Value: msg})
	return false
}

// The pieces that sshd messages share. An address may carry a zone or be a name
// where sshd resolves addresses. A user may be empty or hold spaces: an attacker
// chooses it, so the last " from " of the message decides where it ends.
const (
	reUser = `(?P<user>.*)`
	reFrom = ` from (?P<src_ip>[^ ]+)`
	rePort = ` port (?P<src_port>[0-9]{1,5})`
	reEnd  = `(?: \[(?P<phase>preauth)\])? ?`
)

// sshdShapes are the messages of the OpenSSH server.
var sshdShapes = shapesOf(
	"accepted", `Accepted (?P<method>[^ ]+) for `+reUser+reFrom+rePort+`(?: (?P<protocol>ssh[0-9]?))?(?:: (?P<key>.+))?`,
	"failed", `Failed (?P<method>[^ ]+) for (?P<user_state>invalid) user `+reUser+reFrom+rePort+`(?: (?P<protocol>ssh[0-9]?))?(?:: (?P<key>.+))?`+reEnd,
	"failed", `Failed (?P<method>[^ ]+) for `+reUser+reFrom+rePort+`(?: (?P<protocol>ssh[0-9]?))?(?:: (?P<key>.+))?`+reEnd,
	"postponed", `Postponed (?P<method>[^ ]+) for (?:(?P<user_state>invalid) user )?`+reUser+reFrom+rePort+`(?: (?P<protocol>ssh[0-9]?))?`+reEnd,
	"invalid_user", `(?:Invalid|Illegal) user `+reUser+reFrom+`(?:`+rePort+`)?`+reEnd,
	"invalid_user", `input_userauth_request: invalid user `+reUser+reEnd,
	"not_allowed", `User `+reUser+reFrom+` not allowed because (?P<reason>.+)`,
	"max_attempts", `(?:error: )?maximum authentication attempts exceeded for (?:(?P<user_state>invalid) user )?`+reUser+reFrom+rePort+`(?: (?P<protocol>ssh[0-9]?))?`+reEnd,
	"disconnected", `Disconnected from (?:(?P<user_state>authenticating|invalid) )?user `+reUser+` (?P<src_ip>[^ ]+)`+rePort+reEnd,
	"disconnected", `Disconnected from (?P<src_ip>[^ ]+)`+rePort+reEnd,
	"disconnected", `Received disconnect from (?P<src_ip>[^ ]+?)(?:`+rePort+`)?: ?(?P<reason>.*?)`+reEnd,
	"disconnected", `Disconnecting (?:(?P<user_state>authenticating|invalid) )?user `+reUser+` (?P<src_ip>[^ ]+)`+rePort+`: (?P<reason>.*?)`+reEnd,
	"closed", `Connection (?:closed|reset) by (?:(?P<user_state>authenticating|invalid) )?user `+reUser+` (?P<src_ip>[^ ]+)`+rePort+reEnd,
	"closed", `Connection (?:closed|reset) by (?P<src_ip>[^ ]+)(?:`+rePort+`)?`+reEnd,
	"connection", `Connection`+reFrom+rePort+`(?: on (?P<dst_ip>[^ ]+) port (?P<dst_port>[0-9]{1,5})(?: rdomain "(?P<rdomain>[^"]*)")?)?`,
	"no_identification", `Did not receive identification string`+reFrom+`(?:`+rePort+`)?`+reEnd,
	"bad_protocol", `Bad protocol version identification '(?P<banner>.*)'`+reFrom+rePort+reEnd,
	"negotiation_failed", `Unable to negotiate with (?P<src_ip>[^ ]+)`+rePort+`: (?P<reason>.*?)`+reEnd,
	"refused", `refused connect from (?P<src_host>.+) \((?P<src_ip>[^ ()]+)\)`,
	"connection_failed", `(?:fatal: )?ssh_dispatch_run_fatal: Connection`+reFrom+rePort+`: (?P<reason>.*?)`+reEnd,
	"timeout", `(?:fatal: )?Timeout before authentication for (?P<src_ip>[^ ]+)`+rePort+reEnd,
	"subsystem", `subsystem request for (?P<subsystem>[^ ]+)(?: by user `+reUser+`)?`,
	"session_start", `Starting session: (?P<session>.+) for `+reUser+reFrom+rePort+`(?: id (?P<session_id>[0-9]+))?`,
	"listening", `Server listening on (?P<dst_ip>[^ ]+) port (?P<dst_port>[0-9]{1,5})\.`,
)

// sudo reads "user : [remark ;] TTY=… ; PWD=… ; USER=… ; COMMAND=…". The command
// runs to the end of the line and may hold anything.
func sudo(r *event.Record, msg []byte) {
	b := bytes.TrimLeft(msg, " ")
	user, rest, ok := bytes.Cut(b, []byte(" : "))
	if !ok || len(user) == 0 || bytes.ContainsAny(user, "=;") {
		r.Fields = append(r.Fields, event.Field{Name: "msg", Value: msg})
		return
	}
	r.Fields = append(r.Fields, event.Field{Name: "user", Value: user})
	outcome, command := "", false
	for len(rest) > 0 {
		rest = bytes.TrimLeft(rest, " ")
		if v, ok := bytes.CutPrefix(rest, []byte("COMMAND=")); ok {
			r.Fields = append(r.Fields, event.Field{Name: "command", Value: v})
			command = true
			break
		}
		part, after, more := bytes.Cut(rest, []byte(" ;"))
		name, value, pair := bytes.Cut(part, []byte("="))
		switch {
		case pair && string(name) == "TTY":
			r.Fields = append(r.Fields, event.Field{Name: "tty", Value: value})
		case pair && string(name) == "PWD":
			r.Fields = append(r.Fields, event.Field{Name: "pwd", Value: value})
		case pair && string(name) == "USER":
			r.Fields = append(r.Fields, event.Field{Name: "runas", Value: value})
		case pair && string(name) == "GROUP":
			r.Fields = append(r.Fields, event.Field{Name: "runas_group", Value: value})
		case pair && (string(name) == "CHROOT" || string(name) == "TSID" || string(name) == "ENV" || string(name) == "HOST"):
			r.Fields = append(r.Fields, event.Field{Name: string(bytes.ToLower(name)), Value: value})
		default:
			// "user NOT in sudoers", "3 incorrect password attempts", "command not
			// allowed": the reason of a refusal.
			outcome = "denied"
			r.Fields = append(r.Fields, event.Field{Name: "reason", Value: part})
		}
		if !more {
			break
		}
		rest = after
	}
	if outcome == "" && command {
		outcome = "allowed"
	}
	if outcome != "" {
		r.Add("outcome", outcome)
	}
}

// authShapes are the messages of PAM, login, su and the account tools.
var authShapes = shapesOf(
	"session_opened", `pam_(?P<module>[^(]+)\((?P<service>[^)]*)\): session opened for user (?P<user>.*?)(?:\(uid=(?P<uid>[0-9]+)\))? by (?P<by>.*?)\(uid=(?P<by_uid>[0-9]+)\)`,
	"session_closed", `pam_(?P<module>[^(]+)\((?P<service>[^)]*)\): session closed for user (?P<user>.*)`,
	"auth_failure", `pam_(?P<module>[^(]+)\((?P<service>[^)]*)\): (?:authentication failure|\d+ more authentication failures?); logname=(?P<logname>.*?) uid=(?P<uid>[0-9]*) euid=(?P<euid>[0-9]*) tty=(?P<tty>.*?) ruser=(?P<ruser>.*?) rhost=(?P<src_ip>[^ ]*?)(?: +user=(?P<user>.*))?`,
	"user_unknown", `pam_(?P<module>[^(]+)\((?P<service>[^)]*)\): check pass; user unknown`,
	"su", `(?P<outcome>Successful|FAILED) su for (?P<runas>.+) by (?P<user>.+)`,
	"su", `\(to (?P<runas>[^)]+)\) (?P<user>.+) on (?P<tty>.+)`,
	"su_denied", `FAILED SU \(to (?P<runas>[^)]+)\) (?P<user>.+) on (?P<tty>.+)`,
	"user_added", `new user: name=(?P<user>.+?), UID=(?P<uid>[0-9]+), GID=(?P<gid>[0-9]+), home=(?P<home>.*?), shell=(?P<shell>[^,]*)(?:, from=(?P<from>.*))?`,
	"group_added", `(?:new group: name=|group added to [^ ]+: name=)(?P<group>[^,]+)(?:, GID=(?P<gid>[0-9]+))?`,
	"user_deleted", `delete user '(?P<user>.*)'`,
	"group_member_added", `add '(?P<user>.*)' to (?:shadow )?group '(?P<group>.*)'`,
	"group_removed", `removed (?:shadow )?group '(?P<group>.*?)' owned by '(?P<user>.*)'`,
	"password_changed", `(?:pam_(?P<module>[^(]+)\((?P<service>[^)]*)\): )?password changed for (?P<user>.+)`,
	"session_new", `New session (?P<session_id>[^ ]+) of user (?P<user>.+)\.`,
	"session_removed", `Removed session (?P<session_id>[^ ]+)\.`,
	"session_logout", `Session (?P<session_id>[^ ]+) logged out\. Waiting for processes to exit\.`,
	"login", `ROOT LOGIN +(?:\((?P<service>[^)]*)\) )?on '?(?P<tty>[^' ]+)'?(?: FROM '?(?P<src_ip>[^' ]+)'?)?`,
	"login", `LOGIN ON (?P<tty>[^ ]+) BY (?P<user>.+?)(?: FROM (?P<src_ip>[^ ]+))?`,
	"login_failed", `FAILED LOGIN (?:SESSION )?\((?P<attempt>[0-9]+)\) on '(?P<tty>[^']*)' (?:from '(?P<src_ip>[^']*)' )?FOR '(?P<user>.*?)', (?P<reason>.*)`,
)

// addressLike reports whether a value is an address. Firewalls of vendors write
// names there too.
func addressLike(b []byte) bool {
	_, err := netip.ParseAddr(string(b))
	return err == nil
}
