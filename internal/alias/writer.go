package alias

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/counterseal/counterseal/internal/event"
)

const (
	tokenBody = 26
	tokenHead = 6                     // the kind, four digits of the epoch, the underscore
	tokenMax  = tokenHead + tokenBody // TestTokenLengths

	maxSeen = 4096     // aliases that a Writer remembers
	maxOut  = 32 << 10 // what a Writer gathers before it writes
	direct  = 4 << 10  // a run without a token that is written as it lies
)

var errClosed = errors.New("the writer of aliases is closed")

// writer replaces tokens in what passes. One goroutine uses it.
type writer struct {
	ctx   context.Context // of the answer that is written: Write has none of its own
	book  *Book
	to    io.Writer
	place place
	one   func(token string) string // of joined tokens
	seen  map[string]string         // aliases by token, so that repeats cost no lock
	held  []byte                    // fewer than tokenMax bytes that may begin a token
	out   []byte
	err   error // the first one; nothing is written after it
}

// Writer passes on what is written to it, with every token that event.NextToken finds
// replaced by its alias in the scope; all else stays byte for byte. Tokens that the case joins
// have one alias.
//
// When Write returns, all that came has been passed on, except for up to 31 bytes at the
// end that may be the beginning of a token: a line end, quote or bracket is never held. Close
// passes those on and writes the new aliases to the file; it does not close w. After an error
// nothing more is passed on, and Write and Close return it. A wrong scope is such an error.
//
// A word of the source that has the shape of an alias passes as it is. A token inside a
// longer word is replaced, but Resolve does not turn that word back; and a hostile source can
// choose the neighbours of a token so that they and the alias together have the shape of a
// token, which is nobody's.
func (b *Book) Writer(ctx context.Context, w io.Writer, s Scope) io.WriteCloser {
	p, err := b.showing(s)
	var one func(string) string
	if err == nil {
		one, err = b.one(ctx, s)
	}
	return &writer{ctx: ctx, book: b, to: w, place: p, one: one, err: err, seen: map[string]string{}}
}

// Write implements io.Writer.
func (w *writer) Write(p []byte) (int, error) {
	if w.err == nil {
		w.err = w.write(p)
	}
	if w.err != nil {
		return 0, w.err
	}
	return len(p), nil
}

func (w *writer) write(p []byte) error {
	rest := p
	if len(w.held) > 0 {
		// What was held and the next bytes are looked at together. The end of this piece
		// that is held again is shorter than what was added, so it lies in p.
		before := len(w.held)
		joint := append(w.held, p[:min(len(p), tokenMax)]...)
		at, err := w.pass(joint)
		if err != nil {
			return err
		}
		if len(p) <= tokenMax {
			w.held = append(w.held[:0], joint[at:]...)
			return w.send()
		}
		rest = p[at-before:]
	}
	at, err := w.pass(rest)
	if err != nil {
		return err
	}
	w.held = append(w.held[:0], rest[at:]...)
	return w.send()
}

// Close implements io.Closer.
func (w *writer) Close() error {
	if w.err == errClosed {
		return nil
	}
	if w.err != nil {
		return w.err
	}
	w.err = w.copy(w.held)
	if w.err == nil {
		w.err = w.send()
	}
	if w.err == nil {
		w.err = w.book.Flush(w.ctx)
	}
	if w.err != nil {
		return w.err
	}
	w.err = errClosed
	return nil
}

// pass passes b on up to where the beginning of a token may stand at its end, and says
// where that is.
func (w *writer) pass(b []byte) (int, error) {
	at := 0
	for {
		start, end := next(b[at:])
		if start < 0 {
			break
		}
		if err := w.copy(b[at : at+start]); err != nil {
			return 0, err
		}
		alias, err := w.alias(b[at+start : at+end])
		if err != nil {
			return 0, err
		}
		w.out = append(w.out, alias...)
		at += end
	}
	hold := at + begun(b[at:])
	return hold, w.copy(b[at:hold])
}

func (w *writer) alias(token []byte) (string, error) {
	if a, ok := w.seen[string(token)]; ok {
		return a, nil
	}
	t := string(token)
	a, err := w.book.show(w.ctx, w.place, w.one(t))
	if err != nil {
		return "", err
	}
	if len(w.seen) >= maxSeen {
		clear(w.seen)
	}
	w.seen[t] = a
	return a, nil
}

func (w *writer) copy(b []byte) error {
	if len(b) < direct && len(w.out)+len(b) <= maxOut {
		w.out = append(w.out, b...)
		return nil
	}
	if err := w.send(); err != nil {
		return err
	}
	return w.put(b)
}

func (w *writer) send() error {
	err := w.put(w.out)
	w.out = w.out[:0]
	return err
}

func (w *writer) put(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	n, err := w.to.Write(b)
	if err != nil {
		return fmt.Errorf("writing the answer: %w", err)
	}
	if n < len(b) {
		return fmt.Errorf("writing the answer: %w", io.ErrShortWrite)
	}
	return nil
}

// next is event.NextToken, asked only about the neighbourhood of an underscore after a
// digit. FuzzWriter holds it against the function itself.
func next(b []byte) (start, end int) {
	for i := 0; ; i++ {
		k := bytes.IndexByte(b[i:], '_')
		if k < 0 {
			return -1, -1
		}
		i += k
		if i+1+tokenBody > len(b) {
			return -1, -1
		}
		if i < 2 || b[i-1] < '0' || b[i-1] > '9' {
			continue
		}
		from := max(0, i+1-tokenHead)
		if s, e := event.NextToken(b[from : i+1+tokenBody]); s >= 0 {
			return from + s, from + e
		}
	}
}

// begun says where the beginning of a token stands that the end of b cuts off, or
// gives the length of b. There is no whole token in b.
func begun(b []byte) int {
	for i := max(0, len(b)-tokenMax+1); i < len(b); i++ {
		if begins(b[i:]) {
			return i
		}
	}
	return len(b)
}

func begins(b []byte) bool {
	switch event.TokenKind(b[0]) {
	case event.Person, event.Mail, event.Device, event.Address:
	default:
		return false
	}
	i := 1
	for i < len(b) && i < tokenHead-1 && b[i] >= '0' && b[i] <= '9' {
		i++
	}
	if i == len(b) {
		return true
	}
	if i == 1 || b[i] != '_' {
		return false
	}
	for _, c := range b[i+1:] {
		if (c < 'a' || c > 'z') && (c < '2' || c > '7') {
			return false
		}
	}
	return true
}
