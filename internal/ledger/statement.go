package ledger

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"
)

// The bounds of a statement.
const (
	MaxStatement = 32 << 10 // bytes of its canonical form
	maxSubjects  = 256
	maxWord      = 256
	maxDepth     = 8
	maxExact     = 1<<53 - 1 // the largest integer that every JSON reader keeps
)

// statementType is the first word that a reader looks for.
const statementType = "counterseal/statement/v1"

// timeForm has exactly microseconds, so that one time has one spelling.
const timeForm = "2006-01-02T15:04:05.000000Z"

// ErrForm is wrapped by every refusal of a statement for its form.
var ErrForm = errors.New("not a statement")

// Statement is one entry of the ledger: who did what to what, when, and why. A
// leaf is for ever and readable by auditors, so no field holds an identity, free
// text or a search term: words are tokens, Refs, ids and digests. What is larger or
// about a person stands in a payload, and Detail holds its salted Digest.
type Statement struct {
	ID      uuid.UUID // version 7, given by New
	Kind    string    // one of Kinds
	Time    time.Time // UTC, to the microsecond
	Node    string    // the writing node; given by Add
	Seq     uint64    // counts from 1 without a gap per node; given by Add
	Actor   string    // "os:1000" at the socket until login exists, "system", or a token
	Purpose string    // a code or the id of a case; empty where the kind needs none
	Subject []string
	Detail  json.RawMessage // a JSON object, or empty
}

// New begins a statement. Detail is marshalled to a JSON object; nil leaves it out.
func New(kind, actor string, at time.Time, detail any) (Statement, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return Statement{}, fmt.Errorf("making the id of a statement: %w", err)
	}
	s := Statement{ID: id, Kind: kind, Actor: actor, Time: at.UTC().Truncate(time.Microsecond)}
	if detail != nil {
		s.Detail, err = json.Marshal(detail)
		if err != nil {
			return Statement{}, fmt.Errorf("detail of %s: %w", kind, err)
		}
	}
	return s, nil
}

// wire is the form in JSON.
type wire struct {
	Type    string          `json:"_type"`
	Actor   string          `json:"actor"`
	Detail  json.RawMessage `json:"detail"`
	ID      string          `json:"id"`
	Kind    string          `json:"kind"`
	Node    string          `json:"node"`
	Purpose string          `json:"purpose"`
	Seq     string          `json:"seq"`
	Subject []string        `json:"subject"`
	Time    string          `json:"time"`
}

// Canonical is the leaf: the RFC 8785 form, at most MaxStatement bytes. Hash and
// compare these bytes and no others.
func (s Statement) Canonical() ([]byte, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	detail := jsontext.Value(bytes.Clone(s.Detail))
	if len(detail) > 0 {
		// Canonicalize rounds integers that a float64 does not hold, so walk comes
		// first. It also undoes the escapes that json.Marshal puts on <, > and &.
		if err := walk(detail); err != nil {
			return nil, err
		}
		if err := detail.Canonicalize(); err != nil {
			return nil, fmt.Errorf("%w: detail has no canonical form", ErrForm)
		}
	}
	// Names in the order of RFC 8785; check has seen to it that no word needs an
	// escape. TestCanonicalForm and the property test compare with a full encoder.
	b := make([]byte, 0, 512+len(detail))
	b = append(b, `{"_type":"`+statementType+`","actor":"`...)
	b = append(b, s.Actor...)
	if len(detail) > 0 {
		b = append(b, `","detail":`...)
		b = append(b, detail...)
		b = append(b, `,"id":"`...)
	} else {
		b = append(b, `","id":"`...)
	}
	b = append(b, s.ID.String()...)
	b = append(b, `","kind":"`...)
	b = append(b, s.Kind...)
	b = append(b, `","node":"`...)
	b = append(b, s.Node...)
	if s.Purpose != "" {
		b = append(b, `","purpose":"`...)
		b = append(b, s.Purpose...)
	}
	b = append(b, `","seq":"`...)
	b = strconv.AppendUint(b, s.Seq, 10)
	for i, w := range s.Subject {
		if i == 0 {
			b = append(b, `","subject":["`...)
		} else {
			b = append(b, `","`...)
		}
		b = append(b, w...)
	}
	if len(s.Subject) > 0 {
		b = append(b, `"],"time":"`...)
	} else {
		b = append(b, `","time":"`...)
	}
	b = s.Time.AppendFormat(b, timeForm)
	b = append(b, `"}`...)
	if len(b) > MaxStatement {
		return nil, fmt.Errorf("%w: %d bytes, more than %d", ErrForm, len(b), MaxStatement)
	}
	return b, nil
}

// Parse reads a leaf and refuses whatever Canonical would not have written. Kinds
// that this version does not know are read; Add does not write them.
func Parse(raw []byte) (Statement, error) {
	var s Statement
	if len(raw) > MaxStatement {
		return s, fmt.Errorf("%w: %d bytes, more than %d", ErrForm, len(raw), MaxStatement)
	}
	// This decoder is lax about names that differ in case, double or unknown; the
	// comparison at the end is not. Its errors quote what they read.
	var w wire
	if json.Unmarshal(raw, &w) != nil {
		return s, fmt.Errorf("%w: broken JSON", ErrForm)
	}
	if w.Type != statementType {
		return s, fmt.Errorf("%w: _type is not %s", ErrForm, statementType)
	}
	var err error
	if s.ID, err = uuid.Parse(w.ID); err != nil {
		return s, fmt.Errorf("%w: id is no UUID", ErrForm)
	}
	if s.Time, err = time.Parse(timeForm, w.Time); err != nil {
		return s, fmt.Errorf("%w: time is not in the form %s", ErrForm, timeForm)
	}
	if s.Seq, err = strconv.ParseUint(w.Seq, 10, 64); err != nil {
		return s, fmt.Errorf("%w: seq is no number", ErrForm)
	}
	s.Kind, s.Node, s.Actor, s.Purpose, s.Subject, s.Detail = w.Kind, w.Node, w.Actor, w.Purpose, w.Subject, w.Detail
	again, err := s.Canonical()
	if err != nil {
		return s, err
	}
	if !bytes.Equal(again, raw) {
		return s, fmt.Errorf("%w: the bytes are not canonical", ErrForm)
	}
	return s, nil
}

// check holds the fields to their form.
func (s *Statement) check() error {
	bad := func(field, why string) error { return fmt.Errorf("%w: %s %s", ErrForm, field, why) }
	if s.ID.Version() != 7 || s.ID.Variant() != uuid.RFC4122 {
		return bad("id", "is no UUIDv7")
	}
	if !isKind(s.Kind) {
		return bad("kind", "is not lower-case words joined by dots")
	}
	if s.Time.Location() != time.UTC || s.Time.Nanosecond()%1000 != 0 || s.Time.Year() < 1970 || s.Time.Year() > 9999 {
		return bad("time", "is not UTC to the microsecond")
	}
	if !IsWord(s.Node) {
		return bad("node", "is missing or holds more than a word")
	}
	if s.Seq == 0 {
		return bad("seq", "is missing")
	}
	if !IsWord(s.Actor) {
		return bad("actor", "is missing or holds more than a word")
	}
	if s.Purpose != "" && !IsWord(s.Purpose) {
		return bad("purpose", "holds more than a word")
	}
	if len(s.Subject) > maxSubjects {
		return bad("subject", fmt.Sprintf("has more than %d entries", maxSubjects))
	}
	if i := slices.IndexFunc(s.Subject, func(w string) bool { return !IsWord(w) }); i >= 0 {
		return bad("subject "+strconv.Itoa(i), "is empty or holds more than a word")
	}
	if len(s.Detail) > 0 && jsontext.Value(s.Detail).Kind() != '{' {
		return bad("detail", "is no JSON object")
	}
	return nil
}

// IsWord tells whether a subject, an actor or a purpose may be so: tokens, Refs, UUIDs,
// digests and ids are. It takes no @, no backslash and no space, so that mail
// addresses, DOMAIN\name and full names stop here.
func IsWord(s string) bool {
	if s == "" || len(s) > maxWord {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') &&
			c != '.' && c != '_' && c != ':' && c != '/' && c != '-' {
			return false
		}
	}
	return true
}

func isKind(s string) bool {
	if len(s) > 64 {
		return false
	}
	dots := 0
	start := true // of a word
	for i := range len(s) {
		switch c := s[i]; {
		case c >= 'a' && c <= 'z':
			start = false
		case !start && c == '_':
		case !start && c == '.':
			dots++
			start = true
		default:
			return false
		}
	}
	return dots > 0 && !start
}

// walk refuses what canonical JSON could carry and a ledger should not: floats,
// integers that some reader would round, nulls, names outside ASCII, depth.
// Duplicate names, broken UTF-8 and lone surrogates the decoder refuses itself.
func walk(raw []byte) error {
	dec := jsontext.NewDecoder(bytes.NewReader(raw))
	for n := 0; ; n++ {
		tok, err := dec.ReadToken()
		if err == io.EOF && n > 0 {
			return nil
		}
		if err != nil {
			// The error of the decoder may quote a name, so it stays here.
			return fmt.Errorf("%w: broken JSON at byte %d", ErrForm, dec.InputOffset())
		}
		if n == 0 && tok.Kind() != '{' {
			return fmt.Errorf("%w: no JSON object", ErrForm)
		}
		if n > 0 && dec.StackDepth() == 0 && tok.Kind() != '}' {
			return fmt.Errorf("%w: data after the object", ErrForm)
		}
		if dec.StackDepth() > maxDepth {
			return fmt.Errorf("%w: deeper than %d", ErrForm, maxDepth)
		}
		switch tok.Kind() {
		case 'n':
			return fmt.Errorf("%w: null at byte %d", ErrForm, dec.InputOffset())
		case '0':
			if !isExact(tok.String()) {
				return fmt.Errorf("%w: a number at byte %d is no integer within 2^53", ErrForm, dec.InputOffset())
			}
		case '"':
			if kind, i := dec.StackIndex(dec.StackDepth()); kind == '{' && i%2 == 1 && !isName(tok.String()) {
				return fmt.Errorf("%w: a name at byte %d is not plain ASCII", ErrForm, dec.InputOffset())
			}
		}
	}
}

func isExact(s string) bool {
	n, err := strconv.ParseInt(s, 10, 64)
	return err == nil && strconv.FormatInt(n, 10) == s && n <= maxExact && n >= -maxExact
}

func isName(s string) bool {
	if s == "" || len(s) > 64 {
		return false
	}
	for i := range len(s) {
		if s[i] < 0x21 || s[i] > 0x7e {
			return false
		}
	}
	return true
}
