// Package ocsf gives the normalised view of an event: the core of the OCSF 1.8
// class that fits, for search across sources, correlation and timelines. Rules of
// detection read native fields and never this view.
//
// It promises that each class, activity and attribute is one of schema 1.8.0
// (TestSchema holds that against the published files), that an activity is never
// guessed (0 is unknown, 99 is named), that a person's attribute holds the bare
// token or a well-known word, and that a name once given stays. An event without a
// fitting class is a base event, class 0.
//
// View looks at one event. What needs several records of one auditd event, or two
// witnesses of one act, is left to correlation and reconstruct. It accepts an
// event.Event alone: the view can hold no name that the event does not. It is
// pure.
package ocsf

import (
	"bytes"
	"net/netip"
	"strconv"
	"strings"

	"github.com/counterseal/counterseal/internal/event"
)

// Version is the schema that the view follows.
const Version = "1.8.0"

// Attr is one attribute of the view.
type Attr struct {
	Name   string // dotted path in the schema
	Value  string
	Number bool // the schema's type is a number
}

// The classes that the view gives.
const (
	classBase         = 0
	classFile         = 1001
	classDriver       = 1002
	classModule       = 1005
	classJob          = 1006
	classProcess      = 1007
	classEventLog     = 1008
	classScript       = 1009
	classFinding      = 2004
	classAccount      = 3001
	classAuth         = 3002
	classPrivilege    = 3003
	classEntity       = 3004
	classAccess       = 3005
	classGroup        = 3006
	classNetwork      = 4001
	classHTTP         = 4002
	classDNS          = 4003
	classDHCP         = 4004
	classRDP          = 4005
	classSMB          = 4006
	classSSH          = 4007
	classFTP          = 4008
	classInventory    = 5001
	classLifecycle    = 6002
	classAPI          = 6003
	classFileHosting  = 6006
	classRegistryKey  = 201001
	classRegistryVal  = 201002
	classWinResource  = 201003
	classWinService   = 201004
	activityOther     = 99
	statusSuccess     = 1
	statusFailure     = 2
	severityInfo      = 1
	actionAllowed     = 1
	actionDenied      = 2
	dispositionAllow  = 1
	dispositionBlock  = 2
	dispositionDrop   = 6
	dispositionReject = 25
)

// view gathers the attributes of one event.
type view struct {
	e        *event.Event
	class    int
	activity int
	name     string // activity_name where activity is 99
	severity int
	status   int
	product  string
	attrs    []Attr
}

// View gives the attributes of the event in a fixed order: classification first.
func View(e *event.Event) []Attr {
	v := view{e: e, severity: severityInfo, attrs: make([]Attr, 0, 24)}
	if e.Kind == event.Parsed {
		v.normalise()
	}
	head := make([]Attr, 0, len(v.attrs)+12)
	number := func(name string, n int64) {
		head = append(head, Attr{name, strconv.FormatInt(n, 10), true})
	}
	head = append(head, Attr{Name: "metadata.version", Value: Version})
	number("class_uid", int64(v.class))
	number("category_uid", int64(v.class%100000/1000))
	number("activity_id", int64(v.activity))
	if v.activity == activityOther && v.name != "" {
		head = append(head, Attr{Name: "activity_name", Value: v.name})
	}
	number("type_uid", int64(v.class)*100+int64(v.activity))
	number("severity_id", int64(v.severity))
	number("time", e.At().UnixMilli())
	if v.status != 0 {
		number("status_id", int64(v.status))
	}
	if v.product != "" {
		head = append(head, Attr{Name: "metadata.product.name", Value: v.product})
	}
	return append(head, v.attrs...)
}

func (v *view) normalise() {
	switch v.e.Dataset {
	case "win-security", "win-sysmon", "win-powershell", "win-system", "win-defender", "win-taskscheduler", "win-other":
		v.windows()
	case "linux-sshd":
		v.sshd()
	case "linux-sudo":
		v.sudo()
	case "linux-auth":
		v.auth()
	case "linux-auditd":
		v.auditd()
	case "firewall":
		v.firewall()
	case "syslog":
		v.syslog()
		v.set("metadata.log_name", v.text("app_name"))
	case "zeek-conn", "zeek-dns", "zeek-http", "zeek-ssl", "zeek-ssh", "zeek-smb", "zeek-other":
		v.zeek()
	case "signin":
		v.signin()
	case "okta":
		v.okta()
	case "entra-signin":
		v.entra()
	case "mdm-device":
		v.mdm()
	case "cloudtrail":
		v.cloudtrail()
	default:
		// Another producer's JSON: only what needs no knowledge of it.
		if v.e.Format == "syslog/1" {
			v.syslog()
		}
	}
}

// is sets class, activity and, where the activity is Other, its name.
func (v *view) is(class, activity int, name ...string) {
	v.class, v.activity = class, activity
	if activity == activityOther && len(name) > 0 {
		v.name = name[0]
	}
}

func (v *view) text(name string) string { return v.e.Text(name) }

// first gives the first text that is not empty.
func (v *view) first(names ...string) string {
	for _, n := range names {
		if s := v.e.Text(n); present(s) {
			return s
		}
	}
	return ""
}

// present tells a value from what producers write for none.
func present(s string) bool {
	switch s {
	case "", "-", "?", "(null)", "(none)":
		return false
	}
	return true
}

// set adds a text where there is one.
func (v *view) set(name, value string) {
	if present(value) {
		v.attrs = append(v.attrs, Attr{Name: name, Value: value})
	}
}

// number adds a number; hexadecimal text is turned into decimal, other text is
// left out.
func (v *view) number(name, value string) {
	n, err := strconv.ParseInt(value, 0, 64)
	if err != nil || value != strings.TrimSpace(value) || strings.Contains(value, "_") {
		return
	}
	if len(value) > 1 && value[0] == '0' && value[1] >= '0' && value[1] <= '9' { // not octal
		if n, err = strconv.ParseInt(value, 10, 64); err != nil {
			return
		}
	}
	v.attrs = append(v.attrs, Attr{name, strconv.FormatInt(n, 10), true})
}

// boolean adds a truth value as the schema writes it.
func (v *view) boolean(name, value string) {
	switch strings.ToLower(value) {
	case "true", "yes", "1":
		v.attrs = append(v.attrs, Attr{Name: name, Value: "true"})
	case "false", "no", "0":
		v.attrs = append(v.attrs, Attr{Name: name, Value: "false"})
	}
}

// person adds who somebody is: the bare token, wherever in the value it stands, or
// the word that is no name. A domain before a word is taken off.
func (v *view) person(name, value string) {
	if !present(value) {
		return
	}
	if s, e := event.NextToken([]byte(value)); s >= 0 {
		v.attrs = append(v.attrs, Attr{Name: name, Value: value[s:e]})
		return
	}
	if i := strings.LastIndexByte(value, '\\'); i >= 0 && i+1 < len(value) {
		value = value[i+1:]
	}
	switch value {
	case "4294967295", "-1", "unset": // auditd: nobody logged in
		return
	}
	v.set(name, value)
}

// device adds a machine: the bare token, or the host's name.
func (v *view) device(name, value string) {
	if !present(value) {
		return
	}
	if s, e := event.NextToken([]byte(value)); s >= 0 {
		value = value[s:e]
	}
	v.set(name, value)
}

// address adds an address in its usual form, or its token. Another text, such as
// the name of a service, is left out and answered with false.
func (v *view) address(name, value string) bool {
	if s, e := event.NextToken([]byte(value)); s >= 0 {
		v.attrs = append(v.attrs, Attr{Name: name, Value: value[s:e]})
		return true
	}
	a, err := netip.ParseAddr(strings.Trim(value, "[]"))
	if err != nil {
		if ap, err2 := netip.ParseAddrPort(value); err2 == nil { // Microsoft writes the port too
			a, err = ap.Addr(), nil
		}
	}
	if err != nil {
		return false
	}
	v.attrs = append(v.attrs, Attr{Name: name, Value: a.Unmap().String()})
	return true
}

// outcome sets the status by a word that producers use.
func (v *view) outcome(s string) {
	switch strings.ToLower(s) {
	case "success", "successful", "succeeded", "true", "yes", "1", "allowed", "allow", "ok":
		v.status = statusSuccess
	case "failure", "failed", "fail", "false", "no", "0", "denied", "deny", "error":
		v.status = statusFailure
	}
}

// verdict gives action and disposition of a control by its word.
func (v *view) verdict(word string) {
	var action, disposition int
	switch strings.ToLower(word) {
	case "accept", "accepted", "allow", "allowed", "pass", "permit", "permitted", "close", "start", "client-rst", "server-rst", "timeout":
		action, disposition = actionAllowed, dispositionAllow
	case "drop", "dropped":
		action, disposition = actionDenied, dispositionDrop
	case "reject", "rejected":
		action, disposition = actionDenied, dispositionReject
	case "deny", "denied", "block", "blocked":
		action, disposition = actionDenied, dispositionBlock
	default:
		return
	}
	v.attrs = append(v.attrs,
		Attr{"action_id", strconv.Itoa(action), true},
		Attr{"disposition_id", strconv.Itoa(disposition), true})
}

// fileName is the last part of a path in either notation.
func fileName(path string) string {
	return path[strings.LastIndexAny(path, `\/`)+1:]
}

func (v *view) file(name, path string) {
	v.set(name+".path", path)
	if n := fileName(path); n != path && present(path) {
		v.set(name+".name", n)
	}
}

func firstByte(s string, sep byte) string {
	if i := bytes.IndexByte([]byte(s), sep); i >= 0 {
		return s[:i]
	}
	return s
}
