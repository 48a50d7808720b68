package state

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"
)

// The statements about looks: docs/formats/oversight.md. Of the first the state keeps when a
// review settled it, so that a start reads those that wait and the latest, and not all.
const (
	looked   = "request.served"
	answered = "look.answered"
	reviewed = "look.reviewed"
)

// Waits is what Settled of a look is until a review of it.
const Waits = math.MaxInt64

// The outcomes of a review.
const (
	Justified = "justified"
	Excessive = "excessive"
	Misuse    = "misuse"
)

// Outcome reads from the detail of look.reviewed what was found; ok is false where that is
// none of the outcomes: then the look waits still.
func Outcome(detail json.RawMessage) (outcome string, ok bool) {
	var d struct {
		Outcome string `json:"outcome"`
	}
	if json.Unmarshal(detail, &d) != nil {
		return "", false
	}
	return d.Outcome, slices.Contains([]string{Justified, Excessive, Misuse}, d.Outcome)
}

// SettledBy gives what Settled of a look is by the newest review of it; nil: there is none.
// A review from before the look is none of it.
func SettledBy(look uint64, review *Fact) int64 {
	if review == nil || review.Index < look {
		return Waits
	}
	if _, ok := Outcome(review.Detail); !ok {
		return Waits
	}
	return review.Time.UnixMicro()
}

// settle notes of a look when it was reviewed. The order in which the two are told makes no
// difference.
func settle(ctx context.Context, tx *sql.Tx, key string) error {
	var index int64
	var by, at sql.NullInt64
	var detail sql.NullString
	switch err := tx.QueryRowContext(ctx, `SELECT o.idx, r.idx, r.time, r.detail FROM facts AS o LEFT JOIN facts AS r ON r.kind = ? AND r.key = o.key
		WHERE o.kind = ? AND o.key = ?`, reviewed, looked, key).Scan(&index, &by, &at, &detail); {
	case errors.Is(err, sql.ErrNoRows): // no look
		return nil
	case err != nil:
		return err
	}
	var review *Fact
	if by.Valid {
		review = &Fact{Index: uint64(by.Int64), Time: time.UnixMicro(at.Int64), Detail: json.RawMessage(detail.String)}
	}
	_, err := tx.ExecContext(ctx, "UPDATE facts SET settled = ? WHERE kind = ? AND key = ?", SettledBy(uint64(index), review), looked, key)
	return err
}

// Looks gives the statements about each look that waits for a review, or was reviewed at a
// moment or later: request.served, look.answered and look.reviewed, in no order. It takes
// the time of what it gives, however many looks there ever were.
func (s *DB) Looks(ctx context.Context, since time.Time) ([]Fact, error) {
	out, err := scan(s.db.QueryContext(ctx, `SELECT f.kind, f.key, f.idx, f.time, f.actor, f.detail, f.settled
		FROM (SELECT key FROM facts INDEXED BY facts_settled WHERE settled >= ?) AS o CROSS JOIN facts AS f
		WHERE f.kind IN (?, ?, ?) AND f.key = o.key`, since.UnixMicro(), looked, answered, reviewed))
	if err != nil {
		return nil, fmt.Errorf("reading looks: %w", err)
	}
	return out, nil
}

// FactsSince gives the facts of a kind that were stated at a moment or later, by key.
func (s *DB) FactsSince(ctx context.Context, kind string, since time.Time) ([]Fact, error) {
	return facts(ctx, s.db, "WHERE kind = ? AND time >= ?", kind, since.UnixMicro())
}
