package vault

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/counterseal/counterseal/internal/approval"
	"github.com/counterseal/counterseal/internal/event"
)

// A row is erased in two steps: the ledger states which places are erased, and then the
// rows that stand there are deleted. What a crash leaves between the two is done by whoever
// asks Done and calls Erase again. Leaves of windows stay, so that others can be proved.

// Place is where a row stands: all that anybody but the vault has to know of it.
type Place struct {
	Window string // UUID
	Index  int64
}

// MaxPlaces bounds the places of one statement.
const MaxPlaces = 1000

const maxList = 256 << 10

// listForm is the payload of vault.erased: the places, by window.
type listForm struct {
	Rows []listWindow `json:"rows"`
	V    int          `json:"v"`
}

type listWindow struct {
	Places []int64 `json:"places"`
	Window string  `json:"window"`
}

// EncodeList writes places as canonical JSON. It sorts them.
func EncodeList(places []Place) ([]byte, error) {
	places = slices.Clone(places)
	slices.SortFunc(places, func(a, b Place) int {
		return cmp.Or(strings.Compare(a.Window, b.Window), cmp.Compare(a.Index, b.Index))
	})
	f := listForm{Rows: []listWindow{}, V: 1}
	for _, p := range slices.Compact(places) {
		if n := len(f.Rows); n == 0 || f.Rows[n-1].Window != p.Window {
			f.Rows = append(f.Rows, listWindow{Window: p.Window})
		}
		w := &f.Rows[len(f.Rows)-1]
		w.Places = append(w.Places, p.Index)
	}
	return approval.Canonical(f)
}

// ParseList reads what EncodeList wrote and refuses every other form.
func ParseList(b []byte) ([]Place, error) {
	bad := errors.New("not a list of places in the vault")
	var f listForm
	if approval.DecodeUpTo(maxList, b, &f) != nil || f.V != 1 || f.Rows == nil {
		return nil, bad
	}
	var out []Place
	for i, w := range f.Rows {
		if id, err := uuid.Parse(w.Window); err != nil || id.String() != w.Window || i > 0 && w.Window <= f.Rows[i-1].Window || len(w.Places) == 0 {
			return nil, bad
		}
		last := int64(-1)
		for _, n := range w.Places {
			if n <= last || n >= maxWindow {
				return nil, bad
			}
			last = n
			out = append(out, Place{w.Window, n})
		}
	}
	if len(out) > MaxPlaces {
		return nil, bad
	}
	return out, nil
}

// windowTime is when a window was opened, by its id.
func windowTime(id string) (time.Time, error) {
	u, err := uuid.Parse(id)
	if err != nil || u.Version() != 7 {
		return time.Time{}, errors.New("not the id of a window")
	}
	sec, nsec := u.Time().UnixTime()
	return time.Unix(sec, nsec).UTC(), nil
}

// Places gives where the rows of tokens stand, of every epoch of officers. Rows of the open
// window are not among them: CloseWindow comes before.
func (v *Vault) Places(ctx context.Context, tokens []event.Token) ([]Place, error) {
	var out []Place
	for _, t := range tokens {
		rows, err := v.db.QueryContext(ctx, "SELECT w.id, s.idx FROM seals s JOIN windows w ON w.seq = s.win WHERE s.token = ? AND w.stated = 1 ORDER BY s.id", string(t))
		if err != nil {
			return nil, whatIs("reading", err)
		}
		for rows.Next() {
			var p Place
			if err := rows.Scan(&p.Window, &p.Index); err != nil {
				return nil, errors.Join(whatIs("reading", err), rows.Close())
			}
			out = append(out, p)
		}
		if err := errors.Join(rows.Err(), rows.Close()); err != nil {
			return nil, whatIs("reading", err)
		}
	}
	return out, nil
}

// TokenAt gives the token of the row at a place, empty where no row stands any more.
func (v *Vault) TokenAt(ctx context.Context, p Place) (event.Token, error) {
	var t string
	err := v.db.QueryRowContext(ctx, "SELECT s.token FROM seals s JOIN windows w ON w.seq = s.win WHERE w.id = ? AND s.idx = ?", p.Window, p.Index).Scan(&t)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return "", whatIs("reading", err)
	}
	return event.Token(t), nil
}

// Done gives the statements that were carried out.
func (v *Vault) Done(ctx context.Context) (map[string]bool, error) {
	rows, err := v.db.QueryContext(ctx, "SELECT statement FROM erased")
	if err != nil {
		return nil, whatIs("reading", err)
	}
	defer rows.Close()
	out := map[string]bool{}
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			return nil, whatIs("reading", err)
		}
		out[id] = true
	}
	if err := rows.Err(); err != nil {
		return nil, whatIs("reading", err)
	}
	return out, nil
}

// Erase deletes the rows at places, for good, and notes that the statement about them was
// carried out. It answers how many rows there were. Done twice it does nothing more. Who is
// seen again is sealed again.
func (v *Vault) Erase(ctx context.Context, statement string, places []Place) (int64, error) {
	v.writing.Lock()
	defer v.writing.Unlock()
	return v.erase(context.WithoutCancel(ctx), statement, places)
}

func (v *Vault) erase(ctx context.Context, statement string, places []Place) (n int64, err error) {
	var tokens []event.Token
	err = v.change(ctx, func(tx *sql.Tx) error {
		for _, p := range places {
			var t string
			err := tx.QueryRowContext(ctx, "DELETE FROM seals WHERE win = (SELECT seq FROM windows WHERE windows.id = ?) AND idx = ? RETURNING token", p.Window, p.Index).Scan(&t)
			if errors.Is(err, sql.ErrNoRows) {
				continue
			}
			if err != nil {
				return err
			}
			n++
			tokens = append(tokens, event.Token(t))
		}
		return v.fault("erasing")
	})
	if err != nil {
		return 0, whatIs("writing", err)
	}
	v.mu.Lock()
	for _, t := range tokens {
		delete(v.young, t)
		delete(v.old, t)
		for _, k := range v.noted { // a batch under way is noted anew, and finds that the row is gone
			delete(k.young, t)
			delete(k.old, t)
		}
		if len(v.gone) >= maxKnown {
			clear(v.gone)
		}
		v.gone[t] = struct{}{}
	}
	v.mu.Unlock()
	if err := v.fault("erased"); err != nil {
		return 0, err
	}
	// The log before the file goes too.
	var busy, log, moved int
	if err := v.db.QueryRowContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)").Scan(&busy, &log, &moved); err != nil {
		return 0, whatIs("writing", err)
	}
	if busy != 0 {
		return 0, errors.New("the vault is read at this moment, and the log beside it still holds what was deleted: try again")
	}
	if _, err := v.db.ExecContext(ctx, "INSERT OR IGNORE INTO erased VALUES (?)", statement); err != nil {
		return 0, whatIs("writing", err)
	}
	return n, nil
}

// EraseOutlived erases the rows of tokens of which no record is left, some at a time: state
// makes the statement about their places and gives its id. A token that was seen again since
// Outlived is left alone: nothing is sealed meanwhile. It answers how many rows there were.
func (v *Vault) EraseOutlived(ctx context.Context, tokens []event.Token, state func([]Place) (string, error)) (n int64, err error) {
	const some = 500 // of a second epoch of officers each may have a row more
	for part := range slices.Chunk(tokens, some) {
		k, err := v.eraseSome(ctx, part, state)
		n += k
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

func (v *Vault) eraseSome(ctx context.Context, tokens []event.Token, state func([]Place) (string, error)) (int64, error) {
	v.writing.Lock()
	defer v.writing.Unlock()
	ctx = context.WithoutCancel(ctx)
	var left []event.Token
	for _, t := range tokens {
		v.mu.RLock()
		_, waits := v.waiting[t]
		v.mu.RUnlock()
		var again bool
		if err := v.db.QueryRowContext(ctx, "SELECT EXISTS (SELECT 1 FROM seen WHERE token = ?)", string(t)).Scan(&again); err != nil {
			return 0, whatIs("reading", err)
		}
		if !again && !waits {
			left = append(left, t)
		}
	}
	places, err := v.Places(ctx, left)
	if err != nil {
		return 0, err
	}
	n := int64(0)
	for part := range slices.Chunk(places, MaxPlaces) {
		id, err := state(part)
		if err != nil {
			return n, fmt.Errorf("stating what is erased: %w", err)
		}
		if err := v.fault("stated erasing"); err != nil {
			return n, err
		}
		k, err := v.erase(ctx, id, part)
		n += k
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// Unsealed reports whether a token has no row because nobody was in office when it was seen,
// or because it is no name. One that has neither a row nor this note had a row.
func (v *Vault) Unsealed(ctx context.Context, t event.Token) (bool, error) {
	var have bool
	err := v.db.QueryRowContext(ctx, "SELECT EXISTS (SELECT 1 FROM unsealed WHERE token = ?)", string(t)).Scan(&have)
	if err != nil {
		return false, whatIs("reading", err)
	}
	return have, nil
}
