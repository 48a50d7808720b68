// Package event holds the words that every other package shares: what a source
// sent (Frame, Batch), what a parser made of it (Record), what is left once
// identities are tokens (Event), where it is sealed (Ref), and what detection
// says of it (Finding). It does no I/O.
//
// Two promises live in its types. A Record may hold names; an Event may not. The
// steps after pseudonymisation take an Event, so a Record cannot reach them: the
// compiler holds that promise. And an Event has one canonical encoding
// (docs/formats/record.md), so that equal contents have equal digests.
package event

import (
	"bytes"
	"time"
)

// Kind says what a value was in the source. Absent is no kind: a field that is
// absent is not in the list, and absent differs from Null.
type Kind uint8

// The kinds of a value. The numbers are written to disk.
const (
	String Kind = 0 // bytes as the producer wrote them, perhaps not UTF-8
	Number Kind = 1 // the decimal text as written
	Bool   Kind = 2 // "true" or "false"
	Null   Kind = 3 // no bytes
)

// AddrClass says what is known of an address that became a token. It equals
// sigma.AddrClass number for number, so that a test against a network can still
// be answered where the class decides it.
type AddrClass uint8

// Field is one value under the producer's own name. Names are dotted paths
// (`requestParameters.userName`); a name that repeats is a field of several
// values.
type Field struct {
	Name  string
	Kind  Kind
	Addr  AddrClass
	Value []byte
}

// RecordKind tells a parsed record from bytes that no parser took.
type RecordKind uint8

// The kinds of a record. The numbers are written to disk.
const (
	Parsed   RecordKind = 0
	Unparsed RecordKind = 1 // one field, UnparsedField, holds the bytes
)

// UnparsedField is the name under which bytes that no parser took are kept, where
// a PIA lists it.
const UnparsedField = "_unparsed"

// Origin is where in a file a record came from.
type Origin struct {
	// File is the SHA-256 of the file's content, decompressed, less the records
	// that were withheld for protected channels: a file without such a contact has
	// the same digest as with it.
	File   [32]byte
	Chunk  int64  // EVTX chunk number, or -1
	Record uint64 // EVTX header record id, or the number of the kept record from 1
}

// Envelope is what is known about a record beside its fields. The first part is
// content, the second says how it was received and takes no part in equality.
type Envelope struct {
	Source  string     // the source as configured, such as "idp"
	Dataset string     // the kind of record, such as "signin"
	Format  string     // parser and its version, such as "winlogbeat/1"
	Kind    RecordKind // parsed or not
	Group   string     // records that belong together, such as one auditd serial
	Zone    string     // time zone that the parser assumed, empty where the record says it
	Time    int64      // claimed time, Unix nanoseconds; 0 where the record has none

	Way      string  // way in: "http", "syslog-tcp", "relp", "import"
	Peer     string  // sender's address, tokenised where it stands for a person
	Conn     string  // connection or session
	Seq      uint64  // our running number, given after protected channels were withheld
	Received int64   // receipt, Unix nanoseconds
	Original Ref     // the bytes as received in the original stream; zero where none are kept
	Origin   *Origin // nil unless the record came from a file
}

// Running is a producer's own running number: EventRecordID, an auditd serial. It
// is checked for gaps at the door and is never stored.
type Running struct {
	Stream string // whose counter, such as "HOST01/Security"
	N      uint64
	Step   bool // several records may share one number (auditd)
}

// Record is what a parser made of one frame. It may hold names.
type Record struct {
	Envelope
	Running Running
	Fields  []Field
}

// Get returns the first value of a field.
func (r *Record) Get(name string) (Field, bool) { return get(r.Fields, name) }

// Add appends a text field.
func (r *Record) Add(name, value string) {
	r.Fields = append(r.Fields, Field{Name: name, Value: []byte(value)})
}

func get(fields []Field, name string) (Field, bool) {
	for _, f := range fields {
		if f.Name == name {
			return f, true
		}
	}
	return Field{}, false
}

// Verdict is the answer of one rule that had to be asked at the door, since it
// read a detect-only field that storage no longer holds.
type Verdict struct {
	Rule [32]byte // digest of the rule
}

// Event is a record whose identities are tokens. Only internal/pseudonym makes
// one from a Record, and only Decode makes one from stored bytes; layers_test.go
// holds that.
type Event struct {
	Envelope
	Fields []Field

	// RuleSet is the digest of the rule set that was asked at the door, zero where
	// no field was detect-only. Verdicts are its rules that said yes.
	RuleSet  [32]byte
	Verdicts []Verdict

	// DetectOnly holds values that detection may read at the door and that are
	// never encoded; Fields holds their length and keyed digest.
	DetectOnly []Field
}

// Get returns the first value of a field.
func (e *Event) Get(name string) (Field, bool) { return get(e.Fields, name) }

// Text returns the first value of a field as text, empty where it is absent.
func (e *Event) Text(name string) string {
	f, _ := get(e.Fields, name)
	return string(f.Value)
}

// At returns the claimed time, or the time of receipt where the record has none.
func (e *Event) At() time.Time {
	if e.Time != 0 {
		return time.Unix(0, e.Time).UTC()
	}
	return time.Unix(0, e.Received).UTC()
}

// Bounds of what one record may hold. A record beyond them becomes an unparsed
// record, so that nothing is lost; a frame beyond MaxFrame is refused by its line.
const (
	MaxFields = 2000
	MaxName   = 512
	MaxFrame  = 8 << 20
	MaxRecord = 16 << 20 // encoded
	// Future is how far behind the claim of a record our clock may be.
	Future = 48 * time.Hour
)

// Clamp bounds a claimed time to 1970 … receipt + 48 h. A time outside is
// answered with zero and false; the caller keeps the text as written.
func Clamp(claimed time.Time, received time.Time) (int64, bool) {
	if claimed.Before(time.Unix(0, 1)) || claimed.After(received.Add(Future)) {
		return 0, false
	}
	return claimed.UnixNano(), true
}

// Frame is one record as a source sent it.
type Frame struct {
	Bytes   []byte
	Line    int    // line or item in the request, from 1, for errors
	Format  string // format that the way in already knows (EVTX, Zeek with header), else empty
	Dataset string // dataset that the sender declared, else empty
	Header  []byte // header lines that the format needs, such as Zeek's
	Origin  *Origin
	// Refused says why the way in does not take it for a record. It still goes through
	// the gate, which refuses it with this code and reason once no protected channel is
	// seen in it: a withheld line leaves no error.
	Refused *LineError
	// Repeat says that an equal line of the same sender was sealed in a session
	// that broke before its acknowledgement. Card.Repeats counts those kept, so a
	// withheld line is not counted.
	Repeat bool
}

// Batch is what one request, one read of a connection or one piece of a file
// brings. It is accepted whole, one durable unit for each compartment.
type Batch struct {
	Source   string
	Way      string
	Peer     string
	Conn     string
	Key      string // idempotency key; empty: none
	Received time.Time
	Zone     string // zone for times without one; empty: the PIA's
	Frames   []Frame
	// Errors are lines that the way in refused unread, such as one over its bound.
	// They go into the card and the Result beside those that the pipeline refuses.
	Errors []LineError
	// Final says that the source has nothing more: end of an import.
	Final bool
}

// LineError refuses one frame of a batch and none of its neighbours.
type LineError struct {
	Line   int    `json:"line"`
	Code   string `json:"code"`
	Reason string `json:"reason"`
}

func (e LineError) Error() string { return e.Reason }

// Result is what the sender is told. It never counts what was withheld for a
// protected channel.
type Result struct {
	Accepted int
	First    string // Ref of the first record kept, empty where none
	Last     string
	Repeated bool // the key was known and the first answer is given again
	Errors   []LineError
}

// Refusal is an answer of no to a whole request, with a stable code of the API.
type Refusal struct {
	Code   string // pia_missing, source_unknown, key_reused, too_large, busy, disk_low, refused
	Reason string
	Hint   string // what to do next
	After  time.Duration
}

func (r *Refusal) Error() string { return r.Reason }

// Clone returns a deep copy whose bytes the caller owns.
func (e *Event) Clone() *Event {
	c := *e
	c.Fields = make([]Field, len(e.Fields))
	for i, f := range e.Fields {
		f.Value = bytes.Clone(f.Value)
		c.Fields[i] = f
	}
	return &c
}
