package evidence

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/google/uuid"
)

// Permit is asked in the moment before a key card is destroyed, and answers nil where
// nothing forbids it: no hold, and a statement that was made in time. Whoever gives
// one keeps the answer true until DestroyCard returns.
type Permit func(stream Stream, compartment string, segment uuid.UUID) error

// HasCard reports whether the key card of a segment is there.
func (s *Store) HasCard(id uuid.UUID) (bool, error) {
	_, err := os.Lstat(cardPath(s.o.Dir, id))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("looking for the key card of segment %s: %w", id, err)
	}
	return true, nil
}

// DestroyCard destroys the key of a segment that is no longer written, and lets go of
// every copy of it and of its records in this process. The file of the card is
// removed and the removal made durable, sealed boxes of officers and all; then nobody
// opens a block of the segment again. Header, frames, footer and every proof stay.
//
// It is the one way to destroy a card. Destroying one that is gone is no error, so
// that what a crash cut off can be finished; there says whether it was there.
func (s *Store) DestroyCard(ctx context.Context, stream Stream, compartment string, id uuid.UUID, permit Permit) (there bool, err error) {
	fail := func(err error) (bool, error) {
		return false, fmt.Errorf("destroying the key card of segment %s/%s/%s: %w", stream, compartment, id, err)
	}
	if err := ctx.Err(); err != nil {
		return false, err
	}
	if permit == nil {
		return fail(errors.New("nobody permits it"))
	}
	l := s.log(stream, compartment)
	if l == nil {
		return fail(ErrPosition)
	}
	seg := l.find(id)
	if seg == nil {
		return fail(ErrPosition)
	}
	l.mu.Lock()
	state, closed := seg.state, l.closed
	l.mu.Unlock()
	if closed {
		return fail(ErrClosed)
	}
	if state == segOpen {
		return fail(errors.New("the segment is open"))
	}
	path := cardPath(s.o.Dir, id)
	if there, err = s.HasCard(id); err != nil {
		return fail(err)
	}
	if err := permit(stream, compartment, id); err != nil {
		return fail(err)
	}
	if there {
		if err := s.o.FS.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fail(err)
		}
	} else if err := s.o.FS.SyncDir(cardDir(s.o.Dir)); err != nil {
		return fail(err) // an earlier removal may not have reached the disk
	}
	// Whoever reads the segment right now ends with the key that it has; nobody begins.
	l.mu.Lock()
	seg.destroyed = true
	if seg.rd != nil {
		seg.rd.forget = true
		l.unload(seg)
	}
	l.mu.Unlock()
	s.blocks.drop(id)
	return there, nil
}
