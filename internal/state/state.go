// Package state keeps projections of the two truths in one SQLite file. Of the event
// stream: which request keys were answered and how, what was kept and dropped, and
// the gaps that the door found. Of the ledger: the newest statement of each kind about
// each object. It is a view: delete the file, and the next start reads both from
// their beginning and makes it again.
//
// A projection and the position up to which it has read are one transaction, so a
// crash leaves both at an earlier, consistent place. The file is opened with
// synchronous NORMAL: a lost tail is read again.
//
// One DB serves one process; all methods may be called at once.
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

	"github.com/google/uuid"

	"github.com/counterseal/counterseal/internal/durable"
	"github.com/counterseal/counterseal/internal/event"

	_ "modernc.org/sqlite" // the driver
)

// version is the schema's number, kept in PRAGMA user_version. Another number
// means another schema: the view is dropped and made again.
const version = 4

const schema = `
CREATE TABLE cards (
	key BLOB NOT NULL, compartment TEXT NOT NULL, body BLOB NOT NULL, card TEXT NOT NULL, received INTEGER NOT NULL,
	PRIMARY KEY (key, compartment)) STRICT, WITHOUT ROWID;
CREATE INDEX cards_received ON cards (received);
CREATE TABLE counts (
	source TEXT NOT NULL, dataset TEXT NOT NULL, kept INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL,
	PRIMARY KEY (source, dataset)) STRICT, WITHOUT ROWID;
CREATE TABLE drops (
	source TEXT NOT NULL, dataset TEXT NOT NULL, path TEXT NOT NULL, n INTEGER NOT NULL,
	PRIMARY KEY (source, dataset, path)) STRICT, WITHOUT ROWID;
CREATE TABLE gaps (
	compartment TEXT NOT NULL, source TEXT NOT NULL, stream TEXT NOT NULL, kind TEXT NOT NULL,
	first TEXT NOT NULL, last TEXT NOT NULL, at INTEGER NOT NULL) STRICT;
CREATE TABLE repeats (source TEXT PRIMARY KEY NOT NULL, n INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE correlations (
	id INTEGER PRIMARY KEY, compartment TEXT NOT NULL, position TEXT NOT NULL, data BLOB NOT NULL) STRICT;
CREATE INDEX correlations_compartment ON correlations (compartment, id);
CREATE TABLE facts (
	kind TEXT NOT NULL, key TEXT NOT NULL, idx INTEGER NOT NULL, time INTEGER NOT NULL, actor TEXT NOT NULL, detail TEXT NOT NULL,
	settled INTEGER,
	PRIMARY KEY (kind, key)) STRICT, WITHOUT ROWID;
CREATE INDEX facts_time ON facts (kind, time);
CREATE INDEX facts_settled ON facts (settled) WHERE settled IS NOT NULL;
CREATE TABLE ledger (id INTEGER PRIMARY KEY CHECK (id = 1), next INTEGER NOT NULL) STRICT;
CREATE TABLE positions (compartment TEXT PRIMARY KEY NOT NULL, position TEXT NOT NULL) STRICT, WITHOUT ROWID;
`

// Remember is how long a request key is known.
const Remember = 7 * 24 * time.Hour

// DB is the state file.
type DB struct {
	db *sql.DB
}

// Open opens or makes `state.db` in dir. A file that is damaged or of another
// schema is replaced: it is a view.
func Open(dir string) (*DB, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the state directory: %w", err)
	}
	path := filepath.Join(dir, "state.db")
	s, err := open(path)
	if err == nil {
		return s, nil
	}
	if !errors.Is(err, errOther) {
		return nil, err
	}
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if err := os.Remove(path + suffix); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("replacing the state file: %w", err)
		}
	}
	return open(path)
}

var errOther = errors.New("the state file is damaged or of another schema")

func open(path string) (*DB, error) {
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=journal_mode(WAL)&_pragma=synchronous(NORMAL)&_pragma=busy_timeout(5000)&_pragma=secure_delete(on)&_txlock=immediate")
	if err != nil {
		return nil, fmt.Errorf("opening the state file: %w", err)
	}
	db.SetMaxOpenConns(4)
	var have int
	if err := db.QueryRow("PRAGMA user_version").Scan(&have); err != nil {
		return nil, errors.Join(errOther, err, db.Close())
	}
	switch have {
	case version:
		var ok string
		if err := db.QueryRow("PRAGMA quick_check(1)").Scan(&ok); err != nil || ok != "ok" {
			return nil, errors.Join(errOther, db.Close())
		}
		return &DB{db: db}, nil
	case 0:
		if _, err := db.Exec("BEGIN;" + schema + fmt.Sprintf("PRAGMA user_version = %d; COMMIT;", version)); err != nil {
			return nil, errors.Join(errOther, err, db.Close())
		}
		return &DB{db: db}, nil
	}
	return nil, errors.Join(errOther, db.Close())
}

// Close closes the file.
func (s *DB) Close() error { return s.db.Close() }

// Reset empties every projection; the next reader starts at the beginning.
func (s *DB) Reset(ctx context.Context) error {
	_, err := s.db.ExecContext(ctx, "BEGIN; DELETE FROM cards; DELETE FROM counts; DELETE FROM drops; DELETE FROM gaps; DELETE FROM repeats; DELETE FROM correlations; DELETE FROM positions; DELETE FROM facts; DELETE FROM ledger; COMMIT;")
	if err != nil {
		return fmt.Errorf("emptying the state: %w", err)
	}
	return nil
}

// Position returns up to where the event stream of a compartment has been read,
// empty for not at all.
func (s *DB) Position(ctx context.Context, compartment string) (string, error) {
	var p string
	err := s.db.QueryRowContext(ctx, "SELECT position FROM positions WHERE compartment = ?", compartment).Scan(&p)
	if errors.Is(err, sql.ErrNoRows) {
		return "", nil
	}
	return p, err
}

// Project adds cards that were read from a compartment, in order, and moves the
// position, in one transaction.
func (s *DB) Project(ctx context.Context, compartment, position string, cards []*event.Card) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("projecting cards: %w", err)
	}
	defer tx.Rollback() // no effect after Commit
	for _, c := range cards {
		if err := project(ctx, tx, compartment, c); err != nil {
			return fmt.Errorf("projecting cards: %w", err)
		}
	}
	if _, err := tx.ExecContext(ctx, "INSERT INTO positions VALUES (?, ?) ON CONFLICT DO UPDATE SET position = excluded.position", compartment, position); err != nil {
		return fmt.Errorf("projecting cards: %w", err)
	}
	return durable.Commit(ctx, tx)
}

func project(ctx context.Context, tx *sql.Tx, compartment string, c *event.Card) error {
	at := c.Received.UnixNano()
	if c.Key != "" {
		text, err := json.Marshal(c)
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO cards VALUES (?, ?, ?, ?, ?)
			ON CONFLICT DO UPDATE SET body = excluded.body, card = excluded.card, received = excluded.received`, // the key was used anew
			[]byte(c.Key), compartment, []byte(c.Body), string(text), at); err != nil {
			return err
		}
	}
	for _, n := range c.Counts {
		if _, err := tx.ExecContext(ctx, `INSERT INTO counts VALUES (?, ?, ?, ?, ?)
			ON CONFLICT DO UPDATE SET kept = kept + excluded.kept, first = min(first, excluded.first), last = max(last, excluded.last)`,
			c.Source, n.Dataset, n.Kept, at, at); err != nil {
			return err
		}
		for path, k := range n.Dropped {
			if _, err := tx.ExecContext(ctx, `INSERT INTO drops VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET n = n + excluded.n`,
				c.Source, n.Dataset, path, k); err != nil {
				return err
			}
		}
	}
	for _, g := range c.Gaps {
		if _, err := tx.ExecContext(ctx, "INSERT INTO gaps VALUES (?, ?, ?, ?, ?, ?, ?)",
			compartment, g.Source, g.Stream, g.Kind, fmt.Sprint(g.From), fmt.Sprint(g.To), g.At.UnixNano()); err != nil {
			return err
		}
	}
	if c.Repeats > 0 {
		if _, err := tx.ExecContext(ctx, "INSERT INTO repeats VALUES (?, ?) ON CONFLICT DO UPDATE SET n = n + excluded.n", c.Source, c.Repeats); err != nil {
			return err
		}
	}
	return nil
}

// Cards returns the cards of a key by compartment, younger than Remember.
func (s *DB) Cards(ctx context.Context, key string, now time.Time) (map[string]*event.Card, error) {
	rows, err := s.db.QueryContext(ctx, "SELECT compartment, card FROM cards WHERE key = ? AND received >= ?", []byte(key), now.Add(-Remember).UnixNano())
	if err != nil {
		return nil, fmt.Errorf("looking up a request key: %w", err)
	}
	defer rows.Close()
	var out map[string]*event.Card
	for rows.Next() {
		var comp, text string
		if err := rows.Scan(&comp, &text); err != nil {
			return nil, fmt.Errorf("looking up a request key: %w", err)
		}
		c := new(event.Card)
		if err := json.Unmarshal([]byte(text), c); err != nil {
			return nil, fmt.Errorf("looking up a request key: %w", err)
		}
		if out == nil {
			out = make(map[string]*event.Card)
		}
		out[comp] = c
	}
	return out, rows.Err()
}

// Forget removes request keys older than Remember.
func (s *DB) Forget(ctx context.Context, now time.Time) error {
	_, err := s.db.ExecContext(ctx, "DELETE FROM cards WHERE received < ?", now.Add(-Remember).UnixNano())
	return err
}

// SourceCount is what was kept of one dataset of a source.
type SourceCount struct {
	Source  string    `json:"source"`
	Dataset string    `json:"dataset"`
	Kept    int64     `json:"kept"`
	First   time.Time `json:"first"`
	Last    time.Time `json:"last"`
}

// Counts lists what was kept, by source and dataset.
func (s *DB) Counts(ctx context.Context) ([]SourceCount, error) {
	rows, err := s.db.QueryContext(ctx, "SELECT source, dataset, kept, first, last FROM counts ORDER BY source, dataset")
	if err != nil {
		return nil, fmt.Errorf("reading counts: %w", err)
	}
	defer rows.Close()
	out := []SourceCount{}
	for rows.Next() {
		var c SourceCount
		var first, last int64
		if err := rows.Scan(&c.Source, &c.Dataset, &c.Kept, &first, &last); err != nil {
			return nil, fmt.Errorf("reading counts: %w", err)
		}
		c.First, c.Last = time.Unix(0, first).UTC(), time.Unix(0, last).UTC()
		out = append(out, c)
	}
	return out, rows.Err()
}

// Drop counts values that minimisation removed under one path.
type Drop struct {
	Source  string `json:"source"`
	Dataset string `json:"dataset"`
	Path    string `json:"path"`
	N       int64  `json:"n"`
}

// Drops lists what minimisation removed.
func (s *DB) Drops(ctx context.Context) ([]Drop, error) {
	rows, err := s.db.QueryContext(ctx, "SELECT source, dataset, path, n FROM drops ORDER BY source, dataset, path")
	if err != nil {
		return nil, fmt.Errorf("reading drops: %w", err)
	}
	defer rows.Close()
	out := []Drop{}
	for rows.Next() {
		var d Drop
		if err := rows.Scan(&d.Source, &d.Dataset, &d.Path, &d.N); err != nil {
			return nil, fmt.Errorf("reading drops: %w", err)
		}
		out = append(out, d)
	}
	return out, rows.Err()
}

// Gaps lists the holes that the door found, oldest first, at most limit.
func (s *DB) Gaps(ctx context.Context, limit int) ([]event.Gap, error) {
	rows, err := s.db.QueryContext(ctx, "SELECT source, stream, kind, first, last, at FROM gaps ORDER BY at, source, stream, kind, first LIMIT ?", limit)
	if err != nil {
		return nil, fmt.Errorf("reading gaps: %w", err)
	}
	defer rows.Close()
	out := []event.Gap{}
	for rows.Next() {
		var g event.Gap
		var first, last string
		var at int64
		if err := rows.Scan(&g.Source, &g.Stream, &g.Kind, &first, &last, &at); err != nil {
			return nil, fmt.Errorf("reading gaps: %w", err)
		}
		if _, err := fmt.Sscan(first+" "+last, &g.From, &g.To); err != nil {
			return nil, fmt.Errorf("reading gaps: %w", err)
		}
		g.At = time.Unix(0, at).UTC()
		out = append(out, g)
	}
	return out, rows.Err()
}

// Repeats lists, by source, lines that may have been delivered twice.
func (s *DB) Repeats(ctx context.Context) (map[string]int64, error) {
	rows, err := s.db.QueryContext(ctx, "SELECT source, n FROM repeats")
	if err != nil {
		return nil, fmt.Errorf("reading repeats: %w", err)
	}
	defer rows.Close()
	out := map[string]int64{}
	for rows.Next() {
		var source string
		var n int64
		if err := rows.Scan(&source, &n); err != nil {
			return nil, fmt.Errorf("reading repeats: %w", err)
		}
		out[source] = n
	}
	return out, rows.Err()
}

// Saved is a state of the correlations of a stream and the position that it has read
// to.
type Saved struct {
	Position string
	Data     []byte
}

// keepSaved is how many states are kept: the index may be behind the newest.
const keepSaved = 8

// SaveCorrelations keeps a state beside those before it.
func (s *DB) SaveCorrelations(ctx context.Context, compartment, position string, data []byte) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("saving correlations: %w", err)
	}
	defer tx.Rollback() // no effect after Commit
	if _, err := tx.ExecContext(ctx, "INSERT INTO correlations (compartment, position, data) VALUES (?, ?, ?)", compartment, position, data); err != nil {
		return fmt.Errorf("saving correlations: %w", err)
	}
	if _, err := tx.ExecContext(ctx, `DELETE FROM correlations WHERE compartment = ? AND id NOT IN
		(SELECT id FROM correlations WHERE compartment = ? ORDER BY id DESC LIMIT ?)`, compartment, compartment, keepSaved); err != nil {
		return fmt.Errorf("saving correlations: %w", err)
	}
	return durable.Commit(ctx, tx)
}

// Correlations gives the states of a stream, newest first.
func (s *DB) Correlations(ctx context.Context, compartment string) ([]Saved, error) {
	rows, err := s.db.QueryContext(ctx, "SELECT position, data FROM correlations WHERE compartment = ? ORDER BY id DESC", compartment)
	if err != nil {
		return nil, fmt.Errorf("reading correlations: %w", err)
	}
	defer rows.Close()
	var out []Saved
	for rows.Next() {
		var v Saved
		if err := rows.Scan(&v.Position, &v.Data); err != nil {
			return nil, fmt.Errorf("reading correlations: %w", err)
		}
		out = append(out, v)
	}
	return out, rows.Err()
}

// Destroyed removes what was projected from segments that nobody can read again:
// their request cards, states of correlations that end in or before the last of
// them, and gaps noted before a moment. A rebuild would not find them either. It
// says how many rows are gone. Counts by source stay as totals until a rebuild.
func (s *DB) Destroyed(ctx context.Context, compartment string, segments []uuid.UUID, gapsBefore time.Time) (int64, error) {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return 0, fmt.Errorf("forgetting what was destroyed: %w", err)
	}
	defer tx.Rollback() // no effect after Commit
	total := int64(0)
	remove := func(query string, args ...any) error {
		res, err := tx.ExecContext(ctx, query, args...)
		if err != nil {
			return fmt.Errorf("forgetting what was destroyed: %w", err)
		}
		n, err := res.RowsAffected()
		total += n
		return err
	}
	last := uuid.UUID{}
	for _, id := range segments {
		if id.String() > last.String() {
			last = id
		}
		if err := remove("DELETE FROM cards WHERE compartment = ? AND instr(card, ?) > 0", compartment, compartment+"/"+id.String()+"/"); err != nil {
			return 0, err
		}
	}
	if err := remove("DELETE FROM correlations WHERE compartment = ? AND substr(position, 1, 36) <= ?", compartment, last.String()); err != nil {
		return 0, err
	}
	if err := remove("DELETE FROM gaps WHERE compartment = ? AND at < ?", compartment, gapsBefore.UnixNano()); err != nil {
		return 0, err
	}
	if err := durable.Commit(ctx, tx); err != nil {
		return 0, fmt.Errorf("forgetting what was destroyed: %w", err)
	}
	// What was removed is overwritten in the file; the log before it goes too.
	if _, err := s.db.ExecContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)"); err != nil {
		return 0, fmt.Errorf("forgetting what was destroyed: %w", err)
	}
	return total, nil
}
