package index

import (
	"slices"
	"strings"
	"time"

	"github.com/VictoriaMetrics/VictoriaMetrics/lib/logstorage"
	"github.com/counterseal/counterseal/internal/query"
)

// Attr is one named value. A name that repeats is a field of several values.
type Attr struct{ Name, Value string }

// Row is one event or finding as the index stores it.
type Row struct {
	Ref         string
	Time        int64     // event time, Unix nanoseconds
	Sealed      time.Time // decides the week
	Compartment string
	Source      string
	Dataset     string
	Kind        string // event, unparsed, finding
	OCSF        []Attr // under their own names
	Native      []Attr // the producer's fields, without the prefix native.
	Truncated   bool   // set by the index
}

// Kinds of a row.
const (
	KindEvent    = "event"
	KindUnparsed = "unparsed"
	KindFinding  = "finding"
)

// Bounds of a row; those of the library are 128, 2,000 and 2 MiB.
const (
	maxName   = 128
	maxFields = 1000
	maxRow    = 3 << 19 // 1.5 MiB
	maxText   = 64 << 10
	ahead     = 48 * time.Hour
)

const (
	nativePrefix = "native."
	claimedField = "time_claimed" // the claimed time of a row stored under its time of sealing
)

// rowOwned are the names that the row itself fills. An OCSF attribute of that name
// is left out; time and source are such attributes in OCSF.
var rowOwned = []string{"ref", "time", "sealed", "compartment", "source", "dataset", "kind", "truncated", claimedField}

// encoder turns rows into fields of the library. It is reused and belongs to one
// caller at a time.
type encoder struct {
	fields []logstorage.Field
	seen   map[string]int      // stored name to its place in fields
	multi  map[string][]string // stored name to all values, where there are several
	native map[string]string   // name to prefixed name, so that few names are few strings
	text   []byte
}

func newEncoder() *encoder {
	return &encoder{seen: make(map[string]int), multi: make(map[string][]string), native: make(map[string]string)}
}

func (e *encoder) nativeName(name string) string {
	if p, ok := e.native[name]; ok {
		return p
	}
	if len(e.native) > 10_000 { // hostile names must not fill the memory
		clear(e.native)
	}
	p := nativePrefix + name
	e.native[strings.Clone(name)] = p
	return p
}

// encode gives the time and the fields of a row. The fields are valid until the
// next call.
func (e *encoder) encode(r *Row, sum *Appended) (int64, []logstorage.Field) {
	at := r.Time
	moved := at <= 0 || at > r.Sealed.Add(ahead).UnixNano()
	if moved {
		at = r.Sealed.UnixNano()
		sum.TimeMoved++
	}
	e.head(r, moved)
	base := len(e.fields)
	reserved := 0
	for i := range r.OCSF {
		if !e.ocsf(&r.OCSF[i]) {
			reserved++
		}
	}
	for i := range r.Native {
		e.add(e.nativeName(r.Native[i].Name), r.Native[i].Value)
	}
	e.spread()
	e.addText(r)
	sum.Reserved += reserved
	if e.fits() {
		return at, e.fields
	}

	sum.Truncated++
	e.fields = e.fields[:base]
	e.head(r, moved)
	e.fields = append(e.fields, logstorage.Field{Name: "truncated", Value: "true"})
	base = len(e.fields)
	for i := range r.OCSF {
		e.ocsf(&r.OCSF[i])
	}
	e.spread()
	// Keep what fits, in order; the row's own fields always do.
	e.addText(r)
	size, n := rowSize(e.fields[:base]), base
	for _, f := range slices.Clone(e.fields[base:]) {
		s := fieldSize(f)
		if len(f.Name) > maxName || n >= maxFields || size+s > maxRow {
			continue
		}
		e.fields[n] = f
		n++
		size += s
	}
	e.fields = e.fields[:n]
	return at, e.fields
}

// head begins a row with the fields that it owns.
func (e *encoder) head(r *Row, moved bool) {
	clear(e.seen)
	clear(e.multi)
	e.fields = append(e.fields[:0],
		logstorage.Field{Name: "source", Value: bounded(r.Source)},
		logstorage.Field{Name: "dataset", Value: bounded(r.Dataset)},
		logstorage.Field{Name: "kind", Value: bounded(r.Kind)},
		logstorage.Field{Name: "compartment", Value: r.Compartment},
		logstorage.Field{Name: "ref", Value: bounded(r.Ref)},
		logstorage.Field{Name: "sealed", Value: r.Sealed.UTC().Format(query.SealedForm)},
	)
	if moved {
		e.fields = append(e.fields, logstorage.Field{Name: claimedField, Value: time.Unix(0, r.Time).UTC().Format(time.RFC3339Nano)})
	}
}

// bounded keeps the row's own values so short that they always fit.
func bounded(s string) string {
	if len(s) > 1024 {
		return s[:1024]
	}
	return s
}

// ocsf adds an attribute; false: the row owns its name.
func (e *encoder) ocsf(a *Attr) bool {
	if a.Name == "" || a.Name[0] == '_' || slices.Contains(rowOwned, a.Name) || strings.HasPrefix(a.Name, nativePrefix) {
		return false
	}
	if _, ok := query.FieldOfMulti(a.Name); ok {
		return false
	}
	e.add(a.Name, a.Value)
	return true
}

func (e *encoder) add(name, value string) {
	if value == "" {
		return
	}
	i, ok := e.seen[name]
	if !ok {
		e.seen[name] = len(e.fields)
		stored, exact := query.Stored(value)
		e.fields = append(e.fields, logstorage.Field{Name: name, Value: stored})
		if !exact {
			e.multi[name] = []string{value}
		}
		return
	}
	if e.multi[name] == nil {
		e.multi[name] = []string{e.fields[i].Value}
	}
	e.multi[name] = append(e.multi[name], value)
}

// spread adds the fields that hold all values of a name.
func (e *encoder) spread() {
	if len(e.multi) == 0 {
		return
	}
	for _, f := range e.fields { // in order of the fields, so that equal rows are equal
		if all := e.multi[f.Name]; all != nil {
			e.fields = append(e.fields, logstorage.Field{Name: query.MultiName(f.Name), Value: query.JoinMulti(all)})
		}
	}
}

// addText adds the text that a search without a field reads: the producer's values,
// each on its own line so that words of two values are never neighbours and no text
// is taken for a number; without any, the OCSF values.
func (e *encoder) addText(r *Row) {
	e.text = e.text[:0]
	from := r.Native
	if len(from) == 0 {
		from = r.OCSF
	}
	for i := range from {
		v := from[i].Value
		if v == "" {
			continue
		}
		if room := maxText - len(e.text); len(v) > room {
			e.text = append(e.text, v[:max(room, 0)]...)
			break
		}
		e.text = append(e.text, v...)
		e.text = append(e.text, '\n')
	}
	if len(e.text) > 0 {
		e.fields = append(e.fields, logstorage.Field{Name: query.TextField, Value: string(e.text)})
	}
}

func fieldSize(f logstorage.Field) int { return 2 + len(f.Name) + len(f.Value) }

func rowSize(fields []logstorage.Field) int {
	n := 64
	for _, f := range fields {
		n += fieldSize(f)
	}
	return n
}

func (e *encoder) fits() bool {
	if len(e.fields) > maxFields || rowSize(e.fields) > maxRow {
		return false
	}
	for i := range e.fields {
		if len(e.fields[i].Name) > maxName {
			return false
		}
	}
	return true
}

// setField fills a row from one stored field. Strings are the caller's.
func (r *Row) setField(name, value string) {
	switch name {
	case "ref":
		r.Ref = value
	case "sealed":
		r.Sealed, _ = time.Parse(query.SealedForm, value)
	case "compartment":
		r.Compartment = value
	case "source":
		r.Source = value
	case "dataset":
		r.Dataset = value
	case "kind":
		r.Kind = value
	case "truncated":
		r.Truncated = value == "true"
	case query.TextField, "_stream", "_stream_id":
	case "_time":
		if t, err := time.Parse(time.RFC3339Nano, value); err == nil {
			r.Time = t.UnixNano()
		}
	default:
		if native, ok := strings.CutPrefix(name, nativePrefix); ok {
			r.Native = append(r.Native, Attr{native, value})
			return
		}
		r.OCSF = append(r.OCSF, Attr{name, value})
	}
}

// join puts all values of the fields that have several in the place of the first.
func (r *Row) join() {
	for i := 0; i < len(r.OCSF); i++ {
		field, ok := query.FieldOfMulti(r.OCSF[i].Name)
		if !ok {
			continue
		}
		all := query.SplitMulti(r.OCSF[i].Value)
		r.OCSF = slices.Delete(r.OCSF, i, i+1)
		i--
		list, name := &r.OCSF, field
		if native, ok := strings.CutPrefix(field, nativePrefix); ok {
			list, name = &r.Native, native
		}
		at := slices.IndexFunc(*list, func(a Attr) bool { return a.Name == name })
		attrs := make([]Attr, len(all))
		for j, v := range all {
			attrs[j] = Attr{name, v}
		}
		if at < 0 {
			at = len(*list)
		} else {
			*list = slices.Delete(*list, at, at+1)
		}
		*list = slices.Insert(*list, at, attrs...)
	}
	order := func(a, b Attr) int { return strings.Compare(a.Name, b.Name) }
	slices.SortStableFunc(r.OCSF, order)
	slices.SortStableFunc(r.Native, order)
}
