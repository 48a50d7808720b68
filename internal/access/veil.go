package access

import (
	"slices"
	"strings"

	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/query"
)

// Veiling says what the rows of an answer may show where Verdict.Veil is set: people,
// or what was read and visited, and never both. Rows of classes that hold no contents
// (processes, logons, accounts, services, the registry) and findings are untouched.
//
// A question that names fields of contents (fields query.hostname) sees contents, and
// then neither people nor anything that leads to them: no reference, no exact time, no
// number that is the same in another answer. Its rows are to be ordered by what they
// show, not by time. Every other question sees people and machines, and of a row that
// holds contents neither those nor fields that nobody described.
type Veiling struct {
	on       bool
	contents bool
}

// Veil gives the veiling for a question. It is the caller's to apply it only where
// Verdict.Veil says so.
func Veil(q *query.Query) Veiling {
	v := Veiling{on: true}
	if q != nil && !q.IsTable() {
		v.contents = slices.ContainsFunc(q.Fields, func(f string) bool { return roleOf(f)&content != 0 })
	}
	return v
}

// Row gives the veiling of one row by its class_uid and its kind. In an answer that
// shows contents every row is veiled: one that is not would tell time and person.
func (v Veiling) Row(class, kind string) Veiling {
	if !v.contents && (kind == "finding" || slices.Contains(plainClasses[:], class)) {
		return Veiling{}
	}
	return v
}

// Contents reports that the answer shows contents. Its rows are to be ordered by what
// they show.
func (v Veiling) Contents() bool { return v.contents }

// Ref reports whether the reference of a row is hidden.
func (v Veiling) Ref() bool { return v.contents }

// Day reports whether times are cut to the day.
func (v Veiling) Day() bool { return v.contents }

// Hide reports whether a field is hidden, whatever it holds. time is not hidden: see
// Day.
func (v Veiling) Hide(field string) bool {
	r := roleOf(field)
	switch {
	case !v.on:
		return false
	case v.contents:
		f := strings.ToLower(field)
		return !besides[f] && (r&content == 0 || r&person != 0 || whole[f])
	}
	return r&(content|unknown) != 0
}

// HideValue reports whether a value is hidden. Where people are shown, this adds text
// that holds a word of private life, such as a command line with the name of a
// document; where contents are, text that holds somebody's name.
func (v Veiling) HideValue(field, value string, o Options) bool {
	if !v.on {
		return false
	}
	r := roleOf(field)
	f := fold(plainGap(value))
	if v.Hide(field) {
		// A field that nobody described may say who it was, or a number.
		return v.contents || r != unknown || !plainValue(f) && !event.IsToken([]byte(f))
	}
	j := judge{o: o}
	if v.contents {
		if r&content == 0 {
			return false
		}
		_, found := shape(f)
		return found || o.Known != nil && o.Known(f)
	}
	return r&prose != 0 && j.private(f)
}

// Somebody reports whether a value of a field of a row leads to a person or a device: a
// row that holds nobody has nothing that a veil would part. In a row that is of no class
// a machine whose name stands in clear is nobody: those of one person are tokens, and
// what such rows hold are the words of programs.
func Somebody(class, field, value string, o Options) bool {
	if from, _ := event.NextToken([]byte(value)); from >= 0 {
		return true
	}
	f := fold(plainGap(value))
	if hits, _ := shape(f); slices.ContainsFunc(hits, func(h hit) bool { return h.who == ByMail || h.who == BySID || h.who == ByHome || h.who == ByCloud }) || o.Known != nil && o.Known(f) {
		return true // in clear, in whatever field
	}
	r := roleOf(field)
	if r&(person|device|session) == 0 || r&(person|session) == 0 && (class == "" || class == "0") {
		return false
	}
	j := judge{o: Options{Known: o.Known, Shared: o.Shared, Joined: o.Joined}}
	j.value(field, plainGap(value))
	return j.v.Class.Has(Person)
}

// whole are the fields that hold the text of a whole record, with time and people.
var whole = set("|message|raw_data|unmapped|observables|native.message|native.msg|native.payload|native.rawdata|native.contents|native.text|native.body|native.data|native._unparsed|native.unparsed")

// besides are the fields that may stand beside contents: kinds of an event, with few
// values each.
var besides = set("time|kind|source|dataset|compartment|class_uid|class_name|category_uid|category_name|activity_id|activity_name|type_uid|type_name|severity|severity_id|" +
	"status|status_id|action|action_id|disposition|disposition_id|query.type|query.class|rcode|rcode_id|http_request.http_method|http_response.code|dst_endpoint.port|truncated")
