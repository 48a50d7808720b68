// Package sigmajson reads JSON objects as the fields that package sigma matches,
// without a map or a tree in between: one pass over the text, no allocation once
// the names are known.
//
// It owns the way from JSON to fields:
//
//   - Fields come in the order of the text. The member c of an object b of an
//     object a is the field a.b.c.
//   - An array gives its name a value for each element; objects in an array give
//     their members the array's name and no index. Tests of a rule hold when they
//     hold for one of the values.
//   - A name that occurs twice keeps both values.
//   - A string is its text, a number its digits exactly as written, whatever its
//     size; true and false are [sigma.KindBool]. null is [sigma.KindNull], and so
//     are an empty object and an empty array.
//   - Text that is not UTF-8, and half a surrogate pair, read as U+FFFD, as
//     encoding/json has it. In everything else the text must be JSON by RFC 8259.
//
// It promises that no input makes it panic or take memory out of proportion, and
// that an error names a place and holds nothing of the text. It leaves to others
// the framing of records, what producer an event is from, and the time.
package sigmajson

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/counterseal/counterseal/sigma"
)

const (
	// MaxDepth is how deep objects and arrays may nest.
	MaxDepth = 64
	// MaxName is how long a name with its dots may be, in bytes.
	MaxName = 512
)

// What is kept between calls: names, and the buffer of values.
const (
	keptNames  = 8192
	keptBuffer = 1 << 20
)

// An Error says what is wrong with a text and where. It holds nothing of the text.
type Error struct {
	Offset int64 // in bytes
	What   string
}

func (e *Error) Error() string {
	return fmt.Sprintf("reading JSON fields: byte %d: %s", e.Offset, e.What)
}

// A Reader reads objects one after the other. The zero Reader is ready. It is not
// safe for concurrent use: each goroutine has its own.
type Reader struct {
	text    bytes.Buffer
	decoder jsontext.Decoder
	fields  []sigma.Field
	values  []byte // what the fields' values point into
	name    []byte // of the member that is being read
	names   map[string]string
}

// Fields appends the fields of one object to dst and returns it. The names stay;
// the values are valid until the next call. On an error dst comes back as it was.
func (r *Reader) Fields(dst []sigma.Field, object []byte) ([]sigma.Field, error) {
	if cap(r.values) > keptBuffer {
		r.values = nil
	}
	if r.names == nil {
		r.names = make(map[string]string)
	}
	r.text = *bytes.NewBuffer(object)
	r.decoder.Reset(&r.text, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	r.fields, r.values, r.name = dst, r.values[:0], r.name[:0]
	err := r.object()
	out := r.fields
	r.fields, r.text = nil, bytes.Buffer{}
	if err != nil {
		return dst, err
	}
	return out, nil
}

func (r *Reader) object() error {
	if r.decoder.PeekKind() != jsontext.KindBeginObject {
		return r.fail(nil, "not a JSON object")
	}
	if err := r.value(0); err != nil {
		return err
	}
	if _, err := r.decoder.ReadToken(); !errors.Is(err, io.EOF) {
		return r.fail(err, "more than one JSON value")
	}
	return nil
}

// fail makes an error. One of the decoder itself may quote the text, so that only
// its place is taken over.
func (r *Reader) fail(err error, what string) error {
	var syntax *jsontext.SyntacticError
	if errors.As(err, &syntax) {
		return &Error{syntax.ByteOffset, "not valid JSON"}
	}
	return &Error{r.decoder.InputOffset(), what}
}

// value reads one value of the member r.name.
func (r *Reader) value(depth int) error {
	kind := r.decoder.PeekKind()
	switch kind {
	case jsontext.KindBeginObject, jsontext.KindBeginArray:
		if depth == MaxDepth {
			return r.fail(nil, fmt.Sprintf("objects and arrays nest deeper than %d", MaxDepth))
		}
		return r.members(kind == jsontext.KindBeginObject, depth+1)
	}
	text, err := r.decoder.ReadValue()
	if err != nil {
		return r.fail(err, "not valid JSON")
	}
	f := sigma.Field{Name: r.keep()}
	at := len(r.values)
	switch kind {
	case jsontext.KindString:
		r.values = unquote(r.values, text)
	case jsontext.KindNull:
		f.Kind = sigma.KindNull
	case jsontext.KindTrue, jsontext.KindFalse:
		f.Kind = sigma.KindBool
		r.values = append(r.values, text...)
	default:
		f.Kind = sigma.KindNumber
		r.values = append(r.values, text...)
	}
	f.Value = r.values[at:len(r.values):len(r.values)]
	r.fields = append(r.fields, f)
	return nil
}

// members reads an object or an array.
func (r *Reader) members(object bool, depth int) error {
	if _, err := r.decoder.ReadToken(); err != nil {
		return r.fail(err, "not valid JSON")
	}
	prefix, empty := len(r.name), true
	for {
		switch r.decoder.PeekKind() {
		case jsontext.KindEndObject, jsontext.KindEndArray:
			if _, err := r.decoder.ReadToken(); err != nil {
				return r.fail(err, "not valid JSON")
			}
			if empty && depth > 1 {
				r.fields = append(r.fields, sigma.Field{Name: r.keep(), Kind: sigma.KindNull})
			}
			return nil
		}
		empty = false
		if object {
			text, err := r.decoder.ReadValue()
			if err != nil {
				return r.fail(err, "not valid JSON")
			}
			if depth > 1 {
				r.name = append(r.name, '.')
			}
			r.name = unquote(r.name, text)
			if len(r.name) > MaxName {
				return r.fail(nil, fmt.Sprintf("a name is longer than %d bytes", MaxName))
			}
		}
		if err := r.value(depth); err != nil {
			return err
		}
		r.name = r.name[:prefix]
	}
}

// keep returns the name as a string, the same one for each event. Producers have
// few names; one that makes new ones all the time costs an allocation for each.
func (r *Reader) keep() string {
	if s, ok := r.names[string(r.name)]; ok {
		return s
	}
	s := string(r.name)
	if len(r.names) < keptNames {
		r.names[s] = s
	}
	return s
}

// unquote appends the text of a JSON string that the decoder has read.
func unquote(dst, text []byte) []byte {
	inner := text[1 : len(text)-1]
	if bytes.IndexByte(inner, '\\') < 0 && utf8.Valid(inner) {
		return append(dst, inner...)
	}
	dst, _ = jsontext.AppendUnquote(dst, text) // what is not UTF-8 became U+FFFD
	return dst
}
