package vault

import (
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/counterseal/counterseal/internal/event"
)

// For how long a name is kept depends on the records that hold its token. The table seen
// has, for each token and compartment, the weeks in which such records were sealed. It is
// written before the records are, so that no week is missing in it.

// unknown is the compartment of what was seen before anybody took note of compartments:
// up to the week that stands there, in any of them.
const unknown = ""

// ahead is how long before the end of a week the next one is noted as well: a batch may be
// sealed that much later than it was noted.
const ahead = time.Hour

// maxWeeks bounds the weeks of one token in one compartment: 200 years.
const maxWeeks = 10_400

// Week is the number of a week, Monday to Sunday, UTC. That of 1 January 1970 is 0.
func Week(t time.Time) int {
	const mondays = 3 // days of that week before 1970
	return int(math.Floor(float64(t.Unix()+mondays*24*3600) / (7 * 24 * 3600)))
}

// encodeWeeks writes weeks, ascending: the first, then differences, each a uvarint.
func encodeWeeks(weeks []int) []byte {
	var out []byte
	last := 0
	for _, w := range weeks {
		out = binary.AppendUvarint(out, uint64(w-last))
		last = w
	}
	return out
}

func decodeWeeks(b []byte) ([]int, error) {
	var out []int
	last := 0
	for len(b) > 0 {
		d, n := binary.Uvarint(b)
		if n <= 0 || n > 1 && b[n-1] == 0 || d > math.MaxInt32 || len(out) >= maxWeeks || len(out) > 0 && d == 0 {
			return nil, errOther
		}
		if last += int(d); last > math.MaxInt32 {
			return nil, errOther
		}
		out = append(out, last)
		b = b[n:]
	}
	if len(out) == 0 {
		return nil, errOther
	}
	return out, nil
}

// noted is what of a compartment is known to be in seen: the week that was noted last,
// by token.
type noted struct{ young, old map[event.Token]int }

// notes is what one call of Keep has to note.
type notes struct {
	compartment string
	weeks       []int // one, or two at the end of a week
	tokens      []event.Token
}

// unnoted looks for tokens in records that are about to be sealed, and gives those that are
// not known to be noted.
func (v *Vault) unnoted(compartment string, at time.Time, records [][]byte) notes {
	n := notes{compartment: compartment, weeks: []int{Week(at)}}
	if next := Week(at.Add(ahead)); next != n.weeks[0] {
		n.weeks = append(n.weeks, next)
	}
	last := n.weeks[len(n.weeks)-1]
	v.mu.RLock()
	defer v.mu.RUnlock()
	known := v.noted[compartment]
	for _, rec := range records {
		for {
			i, j := event.NextToken(rec)
			if i < 0 {
				break
			}
			if known == nil {
				n.tokens = append(n.tokens, event.Token(rec[i:j]))
			} else if w, ok := known.young[event.Token(rec[i:j])]; !ok || w != last {
				if w, ok = known.old[event.Token(rec[i:j])]; !ok || w != last {
					n.tokens = append(n.tokens, event.Token(rec[i:j]))
				}
			}
			rec = rec[j:]
		}
	}
	slices.Sort(n.tokens)
	n.tokens = slices.Compact(n.tokens)
	return n
}

// remember notes in memory what was noted in the file. The caller holds mu.
func (v *Vault) remember(n notes) {
	if len(n.tokens) == 0 {
		return
	}
	k := v.noted[n.compartment]
	if k == nil {
		k = &noted{young: map[event.Token]int{}}
		v.noted[n.compartment] = k
	}
	for _, t := range n.tokens {
		if len(k.young) >= maxKnown {
			k.young, k.old = make(map[event.Token]int, 64), k.young
		}
		k.young[t] = n.weeks[len(n.weeks)-1]
	}
}

// note writes weeks of tokens. Rows that were erased while a batch with their tokens was on
// its way are not there any more: that batch must come again, so that they are sealed anew.
func (v *Vault) note(ctx context.Context, tx *sql.Tx, n notes) error {
	for _, t := range n.tokens {
		v.mu.RLock()
		_, gone := v.gone[t]
		v.mu.RUnlock()
		if gone {
			var have int
			err := tx.QueryRowContext(ctx, "SELECT 1 FROM seals WHERE token = ?", string(t)).Scan(&have)
			if errors.Is(err, sql.ErrNoRows) {
				v.mu.Lock()
				delete(v.gone, t) // once
				v.mu.Unlock()
				return ErrAgain
			}
			if err != nil {
				return err
			}
		}
		if err := noteWeeks(ctx, tx, t, n.compartment, n.weeks); err != nil {
			return err
		}
	}
	return nil
}

func noteWeeks(ctx context.Context, tx *sql.Tx, t event.Token, compartment string, weeks []int) error {
	var b []byte
	var have []int
	err := tx.QueryRowContext(ctx, "SELECT weeks FROM seen WHERE token = ? AND compartment = ?", string(t), compartment).Scan(&b)
	if err == nil {
		have, err = decodeWeeks(b)
	}
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	all := append(slices.Clone(have), weeks...)
	slices.Sort(all)
	if all = slices.Compact(all); len(all) == len(have) {
		return nil
	}
	_, err = tx.ExecContext(ctx, "INSERT OR REPLACE INTO seen VALUES (?, ?, ?)", string(t), compartment, encodeWeeks(all))
	return err
}

// Seen tells when records with a token were sealed.
type Seen struct {
	Compartment string // empty: in any, up to the last week that is there
	Weeks       []int  // ascending; see Week
}

// Seen gives the weeks of a token. Nothing is known of one that was never noted.
func (v *Vault) Seen(ctx context.Context, t event.Token) ([]Seen, error) {
	rows, err := v.db.QueryContext(ctx, "SELECT compartment, weeks FROM seen WHERE token = ? ORDER BY compartment", string(t))
	if err != nil {
		return nil, whatIs("reading", err)
	}
	defer rows.Close()
	var out []Seen
	for rows.Next() {
		var s Seen
		var b []byte
		if err := rows.Scan(&s.Compartment, &b); err != nil {
			return nil, whatIs("reading", err)
		}
		if s.Weeks, err = decodeWeeks(b); err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	if err := rows.Err(); err != nil {
		return nil, whatIs("reading", err)
	}
	return out, nil
}

// OfEpoch counts the tokens of an epoch of which a record, or a row, may be left.
func (v *Vault) OfEpoch(ctx context.Context, epoch int) (int64, error) {
	var n int64
	of := fmt.Sprintf("[pmda]%d_*", epoch)
	err := v.db.QueryRowContext(ctx, "SELECT count(*) FROM (SELECT token FROM seen WHERE token GLOB ?1 UNION SELECT token FROM seals WHERE token GLOB ?1 UNION SELECT token FROM unsealed WHERE token GLOB ?1)", of).Scan(&n)
	if err != nil {
		return 0, whatIs("reading", err)
	}
	return n, nil
}

// pageOf is how many tokens one step of Outlived looks at.
const pageOf = 4096

// Outlived forgets the weeks of which gone says that no record is left, and gives the tokens
// of which none is left at all and that have a row. gone answers about a compartment and a
// week; about the empty compartment it answers whether no record of any is left up to that
// week. It reads the whole table, in steps that keep nobody waiting for long.
func (v *Vault) Outlived(ctx context.Context, gone func(compartment string, week int) bool, now time.Time) ([]event.Token, error) {
	var out []event.Token
	for after := ""; ; {
		page, last, err := v.outlived(ctx, after, gone)
		if err != nil {
			return nil, whatIs("reading", err)
		}
		out = append(out, page...)
		if last == "" {
			break
		}
		after = last
	}
	// What was sealed for a batch that was never kept is in no record.
	rows, err := v.db.QueryContext(ctx, "SELECT DISTINCT s.token, w.id FROM seals s JOIN windows w ON w.seq = s.win WHERE NOT EXISTS (SELECT 1 FROM seen WHERE seen.token = s.token)")
	if err != nil {
		return nil, whatIs("reading", err)
	}
	defer rows.Close()
	for rows.Next() {
		var t, id string
		if err := rows.Scan(&t, &id); err != nil {
			return nil, whatIs("reading", err)
		}
		if made, err := windowTime(id); err == nil && Week(made) < Week(now)-1 {
			out = append(out, event.Token(t))
		}
	}
	if err := rows.Err(); err != nil {
		return nil, whatIs("reading", err)
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// outlived looks at the tokens behind one. last is empty at the end.
func (v *Vault) outlived(ctx context.Context, after string, gone func(string, int) bool) (out []event.Token, last string, err error) {
	v.writing.Lock()
	defer v.writing.Unlock()
	type line struct {
		token, compartment string
		weeks              []int
	}
	var lines []line
	rows, err := v.db.QueryContext(ctx, "SELECT token, compartment, weeks FROM seen WHERE token IN (SELECT DISTINCT token FROM seen WHERE token > ? ORDER BY token LIMIT ?) ORDER BY token, compartment", after, pageOf)
	if err != nil {
		return nil, "", err
	}
	defer rows.Close()
	for rows.Next() {
		var l line
		var b []byte
		if err := rows.Scan(&l.token, &l.compartment, &b); err != nil {
			return nil, "", err
		}
		if l.weeks, err = decodeWeeks(b); err != nil {
			return nil, "", err
		}
		lines = append(lines, l)
	}
	if err := rows.Err(); err != nil {
		return nil, "", err
	}
	if len(lines) == 0 {
		return nil, "", nil
	}
	err = v.change(context.WithoutCancel(ctx), func(tx *sql.Tx) error {
		for i := 0; i < len(lines); {
			t, lives := lines[i].token, 0
			for ; i < len(lines) && lines[i].token == t; i++ {
				l := &lines[i]
				left := slices.DeleteFunc(slices.Clone(l.weeks), func(w int) bool { return gone(l.compartment, w) })
				lives += len(left)
				switch {
				case len(left) == len(l.weeks):
					continue
				case len(left) == 0:
					_, err = tx.ExecContext(ctx, "DELETE FROM seen WHERE token = ? AND compartment = ?", t, l.compartment)
				default:
					_, err = tx.ExecContext(ctx, "UPDATE seen SET weeks = ? WHERE token = ? AND compartment = ?", encodeWeeks(left), t, l.compartment)
				}
				if err != nil {
					return err
				}
			}
			if lives > 0 {
				continue
			}
			if _, err := tx.ExecContext(ctx, "DELETE FROM unsealed WHERE token = ?", t); err != nil {
				return err
			}
			var have int
			switch err := tx.QueryRowContext(ctx, "SELECT 1 FROM seals WHERE token = ?", t).Scan(&have); {
			case err == nil:
				out = append(out, event.Token(t))
			case !errors.Is(err, sql.ErrNoRows):
				return err
			}
		}
		return nil
	})
	return out, lines[len(lines)-1].token, err
}
