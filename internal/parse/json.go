package parse

import (
	"github.com/counterseal/counterseal/internal/event"
)

func sniffJSON(f *event.Frame, _ string) (string, bool) {
	if !isObject(f.Bytes) {
		return "", false
	}
	if f.Dataset != "" && !agentIndex(f.Dataset) {
		return f.Dataset, true
	}
	return formatJSON, true
}

// parseJSON reads any JSON object. The time is the first of the usual names that
// holds one.
func parseJSON(f *event.Frame, c Context, r *event.Record) error {
	fields, err := flatten(formatJSON, f.Bytes)
	if err != nil {
		return err
	}
	r.Format = "json/1"
	r.Dataset, _ = sniffJSON(f, "")
	r.Fields = fields
	genericTime(r, c)
	return nil
}

var timeNames = []string{
	"@timestamp", "time", "timestamp", "ts", "Timestamp", "eventTime", "event_time", "datetime",
	"TimeGenerated", "CreationTime", "createdDateTime", "published", "date",
}

func genericTime(r *event.Record, c Context) {
	for _, name := range timeNames {
		if v, ok := r.Get(name); ok && timeField(r, c, v) {
			return
		}
	}
}

// timeField reads a time from a text or a number.
func timeField(r *event.Record, c Context, v event.Field) bool {
	switch v.Kind {
	case event.String:
		return setTime(r, c, v.Value)
	case event.Number:
		if t, ok := readNumber(v.Value); ok {
			return claim(r, c, t, true)
		}
	}
	return false
}

// timeOf reads the time from the first of the names that holds one.
func timeOf(r *event.Record, c Context, names ...string) {
	for _, name := range names {
		if v, ok := r.Get(name); ok && timeField(r, c, v) {
			return
		}
	}
}

var jsonDatasets = []Dataset{{
	Name:  formatJSON,
	Title: "Any JSON object",
	Fields: []Field{
		{"@timestamp", "", "allow", ""},
		{"time", "", "allow", ""},
		{"timestamp", "", "allow", ""},
		{"user", "person", "tokenise", ""},
		{"message", "text", "drop", "free text; nobody knows what a producer writes there"},
	},
}}
