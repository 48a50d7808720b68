// Package strict reads the YAML of the files that operators write: configuration, broker,
// offices, officers, key holder, duty host.
//
// It promises: an unknown key is an error, and so is every input at which the YAML library
// panics, such as a list that is nothing but a tag. A server that reads a file again while it
// runs does not end by a slip in it. Errors are those of goccy/go-yaml, with line and column,
// or ErrMalformed.
//
// It leaves to the caller how large a file may be, and whether it holds one document.
package strict

import (
	"bytes"
	"errors"

	"github.com/goccy/go-yaml"
)

// ErrMalformed says that the library cannot read the document, and not where.
var ErrMalformed = errors.New("this is no YAML that can be read: look for a tag (!) where a list is expected")

// Decoder reads the documents of one file, in order.
type Decoder struct{ d *yaml.Decoder }

// NewDecoder reads data.
func NewDecoder(data []byte) *Decoder {
	return &Decoder{yaml.NewDecoder(bytes.NewReader(data), yaml.DisallowUnknownField())}
}

// Decode reads the next document into what v points to, and gives io.EOF after the last one.
func (d *Decoder) Decode(v any) (err error) {
	defer func() {
		if recover() != nil { // its text could repeat a value
			err = ErrMalformed
		}
	}()
	return d.d.Decode(v)
}
