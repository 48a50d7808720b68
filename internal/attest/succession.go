package attest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/counterseal/counterseal/internal/approval"
	"github.com/counterseal/counterseal/internal/ledger"
	"github.com/counterseal/counterseal/internal/officer"
)

// ActionSucceed is the action of a statement that closes a log.
const ActionSucceed = "ledger.succeed"

// SucceedObjects are what such a statement must name: which log ends where.
func SucceedObjects(origin string, size uint64, root string) []string {
	return []string{"log " + origin, "size " + strconv.FormatUint(size, 10), "root " + root}
}

// succeeded is the detail of log.succeeded, as far as it is checked.
type succeeded struct {
	Origin    string
	Size      uint64
	Root      string
	Statement ledger.Digest
	First     ledger.Digest `json:"decision_1"`
	Second    ledger.Digest `json:"decision_2"`
	Officers  ledger.Digest
}

// succession checks the first statement of a log: that two officers of two offices, in
// office by the logs before it, signed exactly what it says of the one that it succeeds.
func succession(s *ledger.Statement, payload func(ledger.Digest) ([]byte, error), officers map[string]bool) error {
	var d succeeded
	if s.Kind != "log.succeeded" {
		return errors.New("it does not say which log it succeeds")
	}
	if err := json.Unmarshal(s.Detail, &d); err != nil {
		return errors.New("what it says of the log before it cannot be read")
	}
	var texts [4][]byte
	for i, digest := range []ledger.Digest{d.Statement, d.Officers, d.First, d.Second} {
		b, err := payload(digest)
		if err != nil {
			return fmt.Errorf("what two officers signed to close the log before it is not kept: %w", err)
		}
		texts[i] = b
	}
	st, err := approval.Parse(texts[0])
	if err != nil {
		return err
	}
	if st.Action != ActionSucceed || !slices.Equal(st.Objects, SucceedObjects(d.Origin, d.Size, d.Root)) {
		return errors.New("two officers signed something else than closing the log before it")
	}
	roster, err := officer.ParseRoster("officers", texts[1])
	if err != nil {
		return err
	}
	var book approval.Book
	if _, err := book.Request(texts[0], s.Time); err != nil {
		return fmt.Errorf("closing the log before it: %w", err)
	}
	for _, b := range texts[2:] {
		v, err := approval.ParseSigned(b)
		if err != nil {
			return err
		}
		by, err := roster.Voter(v.Key)
		if err != nil {
			return err
		}
		if !officers[v.Key] {
			return errors.New("whoever signed to close the log before it was not in office")
		}
		if _, err := book.Decide(st.ID, v, by, s.Time); err != nil {
			return fmt.Errorf("closing the log before it: %w", err)
		}
	}
	if book.State(st.ID) != approval.Approved {
		return errors.New("two people of two offices did not close the log before it")
	}
	return nil
}

// Succession checks how the current log came to succeed another; nil where it is the
// first one.
func (r *Recorder) Succession(ctx context.Context) error {
	if len(r.before) == 0 {
		return nil
	}
	raw, err := r.ledger.Leaf(ctx, 0)
	if err != nil {
		return err
	}
	s, err := ledger.Parse(raw)
	if err != nil {
		return err
	}
	then := NewFolded() // what the current log says of officers counts for the next one
	base := uint64(0)
	for _, c := range r.before {
		if _, err := c.Each(ctx, 0, func(i uint64, s ledger.Statement, _ []byte) error {
			if s.Kind == "officer.enrolled" || s.Kind == "officer.retired" {
				then.Add(base+i, s)
			}
			return nil
		}); err != nil {
			return err
		}
		base += c.Size()
	}
	return succession(&s, r.Payload, then.officers())
}

// officers is who is in office by a fold.
func (f *Folded) officers() map[string]bool {
	in := make(map[string]bool)
	for key, came := range f.Facts {
		if key[0] != "officer.enrolled" {
			continue
		}
		left, gone := f.Fact("officer.retired", key[1])
		in[key[1]] = !gone || left.Index < came.Index
	}
	return in
}
