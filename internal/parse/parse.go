// Package parse turns one frame into an event.Record: the transport envelope is
// taken off, the producer's own field names and values stay, in source order, with
// numbers as written and bytes that are not UTF-8 as bytes. One file holds one
// format.
//
// It promises that Identify looks at headers alone, that a record never exceeds
// the bounds of package event, that the running number of a producer is in
// Record.Running and in no field, and that an error names a byte or a field and
// never a value. It is pure: no clock, no files, no network, no state. What a
// parser does not take becomes an unparsed record, so that nothing is lost.
//
// Values of a record may point into the bytes of its frame.
//
// It also holds, for each dataset, the fields that are usual and what a privacy
// impact assessment might do with them (Dataset.Fields): the ground of
// `counterseal pia draft`. Deciding is left to internal/pia, minimising to
// internal/admit, and normalising to internal/ocsf.
package parse

import (
	"bytes"
	"strconv"
	"time"

	"github.com/counterseal/counterseal/internal/event"
)

// Field is one usual field of a dataset and a careful proposal for it.
type Field struct {
	Path     string // dotted native path, `*` is one segment
	Category string // "" technical, person, mail, device, address, phone, text, command, url, content, location
	Action   string // allow, drop, tokenise, truncate, hash-keyed, detect-only
	Reason   string // why this action; the justification where the schema asks for one
}

// Dataset is one kind of record.
type Dataset struct {
	Name   string
	Title  string
	Fields []Field

	// Product, Category and Service are the log source of Sigma. Windows datasets
	// carry a product alone: their service follows from the channel.
	Product, Category, Service string
}

// Format reads one form of log.
type Format struct {
	Name    string
	Version int
	// Datasets are the kinds of record that the format can give.
	Datasets []Dataset
	// Sniff tells by headers whether the frame has this format, and its dataset.
	Sniff func(f *event.Frame, way string) (dataset string, ok bool)
	// Parse fills Dataset (where the caller has not), Format, Time, Zone, Group,
	// Running and Fields. After an error the record holds nothing of the frame.
	Parse func(f *event.Frame, c Context, r *event.Record) error
}

// Tag is what stands in Envelope.Format.
func (fm *Format) Tag() string { return fm.Name + "/" + strconv.Itoa(fm.Version) }

// Context is what a parser must know beside the bytes.
type Context struct {
	Received time.Time      // receipt: bounds times and gives the missing year
	Zone     *time.Location // for times without a zone; nil is UTC
}

// The names of the two formats that take what no other does.
const (
	formatJSON   = "json"
	formatSyslog = "syslog"
)

// formats is never written to. A format stands before the ones that would take
// its records too.
var formats = []Format{
	{"winlogbeat", 1, windowsDatasets, sniffShape(winlogbeatShape), finish(parseWinlogbeat)},
	{"filebeat", 1, filebeatDatasets, sniffShape(filebeatShape), finish(parseFilebeat)},
	{"evtx-json", 1, windowsDatasets, sniffShape(evtxShape), finish(parseEvtxJSON)},
	{"nxlog", 1, windowsDatasets, sniffShape(nxlogShape), finish(parseNXLog)},
	{"cloudtrail", 1, cloudtrailDatasets, sniffShape(cloudtrailShape), finish(parseCloudTrail)},
	{"okta", 1, oktaDatasets, sniffShape(oktaShape), finish(parseOkta)},
	{"entra-signin", 1, entraDatasets, sniffShape(entraShape), finish(parseEntra)},
	{"signin", 1, signinDatasets, sniffShape(signinShape), finish(parseSignin)},
	{"mdm", 1, mdmDatasets, sniffShape(mdmShape), finish(parseMDM)},
	{"zeek-json", 1, zeekDatasets, sniffShape(zeekShape), finish(parseZeekJSON)},
	{"zeek-tsv", 1, zeekDatasets, sniffZeek, finish(parseZeek)},
	{"auditd", 1, auditdDatasets, sniffAuditd, finish(parseAuditd)},
	{formatSyslog, 1, syslogDatasets, sniffSyslog, finish(parseSyslog)},
	{formatJSON, 1, jsonDatasets, sniffJSON, finish(parseJSON)},
}

// Formats lists the formats in order of trial. The caller must not change it.
func Formats() []Format { return formats }

// finish wraps a parser: it fills what all formats fill alike and leaves nothing
// of a frame in the record when the parser fails or breaks a bound.
func finish(parse func(f *event.Frame, c Context, r *event.Record) error) func(*event.Frame, Context, *event.Record) error {
	return func(f *event.Frame, c Context, r *event.Record) error {
		given := r.Dataset
		r.Kind, r.Format, r.Time, r.Zone, r.Group = event.Parsed, "", 0, "", ""
		r.Running, r.Fields = event.Running{}, nil
		err := parse(f, c, r)
		if err == nil {
			err = bounds(r)
		}
		if err != nil {
			r.Dataset, r.Format, r.Time, r.Zone, r.Group = given, "", 0, "", ""
			r.Running, r.Fields = event.Running{}, nil
			return err
		}
		if given != "" {
			r.Dataset = given
		}
		return nil
	}
}

func bounds(r *event.Record) error {
	if len(r.Fields) > event.MaxFields {
		return &Error{Format: r.Format, Offset: -1, What: "more than " + strconv.Itoa(event.MaxFields) + " fields"}
	}
	for i := range r.Fields {
		if len(r.Fields[i].Name) > event.MaxName {
			return &Error{Format: r.Format, Offset: -1, What: "field " + strconv.Itoa(i) + " has a name of more than " + strconv.Itoa(event.MaxName) + " bytes"}
		}
	}
	return nil
}

// Identify names the format and the dataset of a frame. A format that the way in
// knows is taken. A dataset that the sender declared and that one of our formats
// owns is kept where the record itself does not tell; one that nobody owns is
// generic JSON or syslog under that name. Not ok means that no parser may try.
func Identify(f *event.Frame, way string) (*Format, string, bool) {
	if fm := byName(f.Format); fm != nil {
		if ds, ok := fm.Sniff(f, way); ok {
			return fm, ds, true
		}
		// The way in knows better than the headers, which then say no more than the
		// dataset.
		switch fm.Name {
		case "winlogbeat", "evtx-json", "nxlog":
			return fm, windowsDataset(readShape(f.Bytes).channel), true
		case "zeek-json":
			return fm, zeekDataset(string(readShape(f.Bytes).path)), true
		case "zeek-tsv":
			return fm, zeekDataset(zeekPath(f.Header)), true
		case formatSyslog, "filebeat":
			return fm, formatSyslog, true
		}
		return fm, fm.Datasets[0].Name, true
	}
	object := isObject(f.Bytes)
	if foreign(f) {
		if object {
			return byName(formatJSON), f.Dataset, true
		}
		if _, ok := sniffSyslog(f, way); ok {
			return byName(formatSyslog), f.Dataset, true
		}
		return nil, "", false
	}
	var sh *shape
	if object {
		sh = readShape(f.Bytes)
	}
	for i := range formats {
		fm := &formats[i]
		var ds string
		var ok bool
		if test := shapeTest(fm.Name); test != nil {
			if sh == nil {
				continue
			}
			ds, ok = test(sh)
		} else {
			ds, ok = fm.Sniff(f, way)
		}
		if !ok {
			continue
		}
		if fm.Name == formatJSON && f.Dataset != "" {
			if own := owner(f.Dataset); own != nil {
				return own, f.Dataset, true
			}
		}
		return fm, ds, true
	}
	return nil, "", false
}

// byName is nil for a name that no format has.
func byName(name string) *Format {
	if name == "" {
		return nil
	}
	for i := range formats {
		if formats[i].Name == name {
			return &formats[i]
		}
	}
	return nil
}

// owner is the JSON format that gives one dataset alone, such as signin.
func owner(dataset string) *Format {
	for i := range formats {
		fm := &formats[i]
		if shapeTest(fm.Name) != nil && len(fm.Datasets) == 1 && fm.Datasets[0].Name == dataset {
			return fm
		}
	}
	return nil
}

// filebeatDatasets are those of the lines that a shipper may carry.
var filebeatDatasets = append(auditdDatasets[:len(auditdDatasets):len(auditdDatasets)], syslogDatasets...)

// allDatasets lists what the formats give, each once.
var allDatasets = [][]Dataset{
	windowsDatasets, cloudtrailDatasets, oktaDatasets, entraDatasets, signinDatasets, mdmDatasets, zeekDatasets, auditdDatasets, syslogDatasets, jsonDatasets,
}

// Datasets lists the datasets of all formats, each once. The caller must not
// change it.
func Datasets() []Dataset {
	var out []Dataset
	for _, list := range allDatasets {
		out = append(out, list...)
	}
	return out
}

// find is nil for a name that is none of ours.
func find(dataset string) *Dataset {
	for _, list := range allDatasets {
		for i := range list {
			if list[i].Name == dataset {
				return &list[i]
			}
		}
	}
	return nil
}

func known(dataset string) bool { return find(dataset) != nil }

// foreign reports whether the sender declared a dataset that is none of ours.
func foreign(f *event.Frame) bool {
	return f.Dataset != "" && !known(f.Dataset) && !agentIndex(f.Dataset)
}

// LogSource gives the log source that Sigma rules name for a dataset; empty texts
// for a dataset that is none of ours.
func LogSource(dataset string) (product, category, service string) {
	d := find(dataset)
	if d == nil {
		return "", "", ""
	}
	return d.Product, d.Category, d.Service
}

// Unparsed makes r the record of a frame that no parser took: one field holds the
// bytes as received.
func Unparsed(f *event.Frame, r *event.Record) {
	if r.Dataset == "" {
		r.Dataset = f.Dataset
	}
	r.Kind, r.Format, r.Time, r.Zone, r.Group = event.Unparsed, "", 0, "", ""
	r.Running = event.Running{}
	r.Fields = []event.Field{{Name: event.UnparsedField, Value: f.Bytes}}
}

// isObject tells a JSON object by its first byte that is no space.
func isObject(b []byte) bool {
	b = bytes.TrimLeft(b, " \t\r\n")
	return len(b) > 0 && b[0] == '{'
}

// trimLine takes the end of the line off.
func trimLine(b []byte) []byte {
	b = bytes.TrimSuffix(b, []byte("\n"))
	return bytes.TrimSuffix(b, []byte("\r"))
}
