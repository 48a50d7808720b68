package state

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/counterseal/counterseal/internal/durable"
)

// Fact is the newest statement of a kind about an object.
type Fact struct {
	Kind   string // of the statement
	Key    string // one of its subjects: each subject has a fact
	Index  uint64 // in the ledger
	Time   time.Time
	Actor  string
	Detail json.RawMessage // nil where the statement has none
	// Settled is, of a look, when its review was stated, in microseconds since 1970, and
	// Waits before. Of everything else it is 0.
	Settled int64
}

// Told is up to where the ledger has been folded: the index to go on from.
func (s *DB) Told(ctx context.Context) (uint64, error) {
	return told(ctx, s.db)
}

func told(ctx context.Context, db asker) (uint64, error) {
	var n int64
	err := db.QueryRowContext(ctx, "SELECT next FROM ledger").Scan(&n)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return 0, fmt.Errorf("reading how far the ledger was folded: %w", err)
	}
	return uint64(n), nil
}

// Tell adds facts in the order of the ledger, the newest of one kind and key last,
// and moves on to next, in one transaction.
func (s *DB) Tell(ctx context.Context, next uint64, facts []Fact) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("folding the ledger: %w", err)
	}
	defer tx.Rollback() // no effect after Commit
	for i := range facts {
		f := &facts[i]
		if _, err := tx.ExecContext(ctx, `INSERT INTO facts (kind, key, idx, time, actor, detail) VALUES (?, ?, ?, ?, ?, ?)
			ON CONFLICT DO UPDATE SET idx = excluded.idx, time = excluded.time, actor = excluded.actor, detail = excluded.detail
			WHERE excluded.idx >= idx`,
			f.Kind, f.Key, int64(f.Index), f.Time.UnixMicro(), f.Actor, string(f.Detail)); err != nil {
			return fmt.Errorf("folding the ledger: %w", err)
		}
		if f.Kind == looked || f.Kind == reviewed {
			if err := settle(ctx, tx, f.Key); err != nil {
				return fmt.Errorf("folding the ledger: %w", err)
			}
		}
	}
	if _, err := tx.ExecContext(ctx, "INSERT INTO ledger VALUES (1, ?) ON CONFLICT DO UPDATE SET next = excluded.next", int64(next)); err != nil {
		return fmt.Errorf("folding the ledger: %w", err)
	}
	return durable.Commit(ctx, tx)
}

// Forgotten empties what was folded from the ledger.
func (s *DB) Forgotten(ctx context.Context) error {
	if _, err := s.db.ExecContext(ctx, "BEGIN; DELETE FROM facts; DELETE FROM ledger; COMMIT;"); err != nil {
		return fmt.Errorf("emptying the facts: %w", err)
	}
	return nil
}

// Facts gives the facts of a kind, by key; of every kind where kind is empty.
func (s *DB) Facts(ctx context.Context, kind string) ([]Fact, error) {
	if kind == "" {
		return facts(ctx, s.db, "")
	}
	return facts(ctx, s.db, "WHERE kind = ?", kind)
}

// Fact gives one fact; ok is false where nothing was stated.
func (s *DB) Fact(ctx context.Context, kind, key string) (f Fact, ok bool, err error) {
	fs, err := facts(ctx, s.db, "WHERE kind = ? AND key = ?", kind, key)
	if err != nil || len(fs) == 0 {
		return f, false, err
	}
	return fs[0], true, nil
}

func facts(ctx context.Context, db asker, where string, args ...any) ([]Fact, error) {
	out, err := scan(db.QueryContext(ctx, "SELECT kind, key, idx, time, actor, detail, settled FROM facts "+where+" ORDER BY kind, key", args...))
	if err != nil {
		return nil, fmt.Errorf("reading facts: %w", err)
	}
	return out, nil
}

// scan reads the rows of a question for facts.
func scan(rows *sql.Rows, err error) ([]Fact, error) {
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []Fact
	for rows.Next() {
		var f Fact
		var index, at int64
		var detail string
		var settled sql.NullInt64
		if err := rows.Scan(&f.Kind, &f.Key, &index, &at, &f.Actor, &detail, &settled); err != nil {
			return nil, err
		}
		f.Index, f.Time, f.Settled = uint64(index), time.UnixMicro(at).UTC(), settled.Int64
		if detail != "" {
			f.Detail = json.RawMessage(detail)
		}
		out = append(out, f)
	}
	return out, rows.Err()
}

// AllFacts gives every fact and up to where the ledger was folded, of one moment.
func (s *DB) AllFacts(ctx context.Context) (next uint64, all []Fact, err error) {
	conn, err := s.db.Conn(ctx)
	if err != nil {
		return 0, nil, fmt.Errorf("reading facts: %w", err)
	}
	defer conn.Close()
	if _, err := conn.ExecContext(ctx, "BEGIN DEFERRED"); err != nil { // a reader: it keeps no writer waiting
		return 0, nil, fmt.Errorf("reading facts: %w", err)
	}
	defer conn.ExecContext(context.WithoutCancel(ctx), "ROLLBACK")
	if next, err = told(ctx, conn); err != nil {
		return 0, nil, err
	}
	all, err = facts(ctx, conn, "")
	return next, all, err
}

// ReadFacts reads what a state file in dir says of the ledger, without changing it
// and beside a running server. A file that is missing gives os.ErrNotExist.
func ReadFacts(ctx context.Context, dir string) (next uint64, all []Fact, err error) {
	path := filepath.Join(dir, "state.db")
	if _, err := os.Stat(path); err != nil {
		return 0, nil, err
	}
	db, err := sql.Open("sqlite", "file:"+path+"?mode=ro&_pragma=busy_timeout(5000)&_pragma=query_only(true)")
	if err != nil {
		return 0, nil, fmt.Errorf("opening the state file: %w", err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	db.SetMaxOpenConns(1)
	tx, err := db.BeginTx(ctx, &sql.TxOptions{ReadOnly: true}) // both reads see one moment
	if err != nil {
		return 0, nil, fmt.Errorf("opening the state file: %w", err)
	}
	defer tx.Rollback()
	var have int
	if err := tx.QueryRowContext(ctx, "PRAGMA user_version").Scan(&have); err != nil {
		return 0, nil, fmt.Errorf("opening the state file: %w", err)
	}
	if have != version {
		return 0, nil, fmt.Errorf("opening the state file: %w", errOther)
	}
	if next, err = told(ctx, tx); err != nil {
		return 0, nil, err
	}
	all, err = facts(ctx, tx, "")
	return next, all, err
}

// asker is a database or a transaction of it.
type asker interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}
