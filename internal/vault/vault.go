// Package vault keeps the names behind tokens, sealed so that the server cannot read them
// again. It owns the form of a sealed identity, vault/vault.db in the data directory, and
// the windows by which the ledger knows what was sealed when. docs/formats/vault.md has
// the bytes.
//
// It promises: after Keep returned nil, every identity that a Tokenizer of this vault has
// turned into a token has a durable row, sealed once for each epoch of the officers, the
// inner layer to investigation and the outer one to oversight, and again to their spares;
// a row never changes; each row stands at one place of one window, and a window that was
// stated grows no more; no name lies in the file, in an error or in a log. Names wait in
// memory from their token to Keep, no longer. It knows in which weeks records with a token
// were sealed, so that a name does not outlive the last of them, and a row that was erased
// was stated before: Check shows it from the file and the ledger.
//
// Without officers nothing is sealed: it is only noted which tokens have no seal. A lost
// file is lost names and nothing else; who is seen again is sealed again.
//
// It leaves to others who makes tokens (internal/pseudonym), how a window is stated
// (Options.State), who may ask for a name and when two officers have agreed to it.
package vault

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"
	"modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"

	"github.com/counterseal/counterseal/internal/durable"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/keyring"
)

// File is the place of the vault in a data directory.
const File = "vault/vault.db"

const version = 2

const schema = `
CREATE TABLE windows (
	seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE,
	n INTEGER, root BLOB, stated INTEGER NOT NULL DEFAULT 0) STRICT;
CREATE TABLE leaves (
	win INTEGER NOT NULL, idx INTEGER NOT NULL, commitment BLOB NOT NULL,
	PRIMARY KEY (win, idx)) STRICT, WITHOUT ROWID;
CREATE TABLE seals (
	id INTEGER PRIMARY KEY, token TEXT NOT NULL, epoch INTEGER NOT NULL,
	win INTEGER NOT NULL, idx INTEGER NOT NULL, row BLOB NOT NULL,
	UNIQUE (token, epoch), UNIQUE (win, idx)) STRICT;
CREATE INDEX windows_todo ON windows (seq) WHERE stated = 0;
CREATE TABLE unsealed (token TEXT PRIMARY KEY NOT NULL) STRICT, WITHOUT ROWID;
` + schemaOf2

// schemaOf2 is what version 2 added.
const schemaOf2 = `
CREATE TABLE seen (
	token TEXT NOT NULL, compartment TEXT NOT NULL, weeks BLOB NOT NULL,
	PRIMARY KEY (token, compartment)) STRICT, WITHOUT ROWID;
CREATE TABLE erased (statement TEXT PRIMARY KEY NOT NULL) STRICT, WITHOUT ROWID;
`

// Bounds of memory. A known token takes some 80 bytes.
const (
	maxKnown   = 1 << 17 // tokens of one generation; there are two
	maxWaiting = 1 << 16 // identities that are not sealed yet
	maxBytes   = 32 << 20
	maxWindow  = 1 << 20 // rows of a window, of which 32 bytes each are in memory
)

// Errors that a caller tells apart.
var (
	// ErrNoSeal: nothing is sealed of this token.
	ErrNoSeal = errors.New("nothing is sealed of this identity")
	// ErrOpen: the row stands in a window that the ledger does not know yet.
	ErrOpen = errors.New("the window of this seal is not stated yet")
	// ErrAgain: a row was erased while a batch with its token was on its way. The batch is
	// taken when it comes again.
	ErrAgain = errors.New("a name of this batch was erased at this moment; send it again")

	errOther = errors.New("vault/vault.db is damaged or of another version: put a copy in its place, or move it aside, which loses the names that it holds and nothing else")
)

// Options says how a vault works.
type Options struct {
	Dir    string // data directory, locked by the caller
	Org    uuid.UUID
	Escrow *keyring.Escrow // the officers; nil: nobody is in office
	// State states a window. It is called again with the same window until it answers nil,
	// also after a crash, so it looks first whether the ledger has it.
	State func(context.Context, Window) error
	Now   func() time.Time // nil: time.Now
	// Fault, in tests, is asked at named places and fails there.
	Fault func(place string) error
}

// Tokenizer makes tokens: that of internal/pseudonym.
type Tokenizer interface {
	Token(kind event.TokenKind, canonical []byte) (event.Token, error)
}

// Vault is the open vault of a data directory. It is safe for concurrent use.
type Vault struct {
	o       Options
	db      *sql.DB
	workers int

	pending atomic.Int64 // identities that wait; Keep has nothing to do at 0
	rows    atomic.Bool  // there may be rows

	mu         sync.RWMutex // guards what follows
	young, old map[event.Token]struct{}
	waiting    map[event.Token]Identity
	bytes      int
	noted      map[string]*noted        // by compartment
	gone       map[event.Token]struct{} // rows that were erased and not sealed anew

	writing sync.Mutex // one writes at a time; guards what follows
	open    openWindow
	stale   bool // the file may say otherwise than open
}

// openWindow is the window that rows go into.
type openWindow struct {
	seq    int64 // 0: none
	id     string
	leaves [][32]byte
}

// Open opens or makes the file, closes the window that a crash left open, and states what
// was not stated.
func Open(ctx context.Context, o Options) (*Vault, error) {
	if o.State == nil {
		return nil, errors.New("a vault needs a ledger")
	}
	if o.Escrow != nil {
		if err := o.Escrow.Check(); err != nil {
			return nil, err
		}
	}
	path := filepath.Join(o.Dir, File)
	var disk durable.FS
	if err := disk.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("making vault/: %w", err)
	}
	if err := disk.WriteNew(path, nil, 0o600); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("making vault/vault.db: %w", err)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	db, err := openFile(path, o.Now())
	if err != nil {
		return nil, err
	}
	v := &Vault{o: o, db: db, workers: runtime.GOMAXPROCS(0), young: map[event.Token]struct{}{}, waiting: map[event.Token]Identity{},
		noted: map[string]*noted{}, gone: map[event.Token]struct{}{}, stale: true}
	var have bool
	if err := db.QueryRowContext(ctx, "SELECT EXISTS (SELECT 1 FROM seals)").Scan(&have); err != nil {
		return nil, errors.Join(whatIs("reading", err), db.Close())
	}
	v.rows.Store(have || o.Escrow != nil)
	if o.Escrow != nil { // who was seen without officers was seen until now, and nobody noted where
		if _, err := db.ExecContext(ctx, "INSERT INTO seen SELECT token, ?, ? FROM unsealed WHERE NOT EXISTS (SELECT 1 FROM seen WHERE seen.token = unsealed.token)", unknown, encodeWeeks([]int{Week(o.Now())})); err != nil {
			return nil, errors.Join(whatIs("writing", err), db.Close())
		}
	}
	if err := v.CloseWindow(ctx); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return v, nil
}

func openFile(path string, now time.Time) (*sql.DB, error) {
	// Full: a commit is on the disk when it returns. What is deleted is overwritten.
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=busy_timeout(5000)&_pragma=secure_delete(on)&_txlock=immediate")
	if err != nil {
		return nil, fmt.Errorf("opening the vault: %w", err)
	}
	db.SetMaxOpenConns(4) // one writes; who reads keeps nobody waiting
	var have int
	err = db.QueryRow("PRAGMA user_version").Scan(&have)
	if err == nil && have == 0 {
		_, err = db.Exec("BEGIN;" + schema + fmt.Sprintf("PRAGMA user_version = %d; COMMIT;", version))
		have = version
	}
	if err == nil && have == 1 {
		err = toVersion2(db, now)
		have = version
	}
	if err == nil && have != version {
		err = errOther
	}
	if err != nil {
		return nil, errors.Join(whatIs("opening", err), db.Close())
	}
	return db, nil
}

// toVersion2 brings a file of version 1 up: nobody noted when its tokens were seen, so they
// count as seen until now, wherever records are.
func toVersion2(db *sql.DB, now time.Time) error {
	tx, err := db.Begin()
	if err != nil {
		return err
	}
	defer tx.Rollback() // no effect after Commit
	if _, err := tx.Exec(schemaOf2); err != nil {
		return err
	}
	if _, err := tx.Exec("INSERT INTO seen SELECT DISTINCT token, ?, ? FROM seals", unknown, encodeWeeks([]int{Week(now)})); err != nil {
		return err
	}
	if _, err := tx.Exec(fmt.Sprintf("PRAGMA user_version = %d", version)); err != nil {
		return err
	}
	return tx.Commit()
}

// whatIs says what a failure of the file is, in words that a person can act on.
func whatIs(doing string, err error) error {
	var e *sqlite.Error
	if errors.As(err, &e) {
		switch e.Code() & 0xff {
		case lib.SQLITE_CORRUPT, lib.SQLITE_NOTADB:
			return errOther
		case lib.SQLITE_FULL:
			err = syscall.ENOSPC
		}
	}
	return fmt.Errorf("%s the vault: %w", doing, err)
}

// Close closes the file. What waits is lost, and so is every event that was not kept.
func (v *Vault) Close() error { return v.db.Close() }

// Tokenizer gives a maker of tokens that shows the vault what it is asked. What only asks,
// and stores no event, uses the inner one.
func (v *Vault) Tokenizer(inner Tokenizer) Tokenizer { return &watched{v, inner} }

type watched struct {
	v     *Vault
	inner Tokenizer
}

func (w *watched) Token(kind event.TokenKind, canonical []byte) (event.Token, error) {
	t, err := w.inner.Token(kind, canonical)
	if err != nil {
		return "", err
	}
	return t, w.v.see(t, kind, canonical)
}

// see remembers an identity whose token is not known to have a row.
func (v *Vault) see(t event.Token, kind event.TokenKind, canonical []byte) error {
	v.mu.RLock()
	_, known := v.young[t]
	if !known {
		_, known = v.waiting[t]
	}
	v.mu.RUnlock()
	if known {
		return nil
	}
	v.mu.Lock()
	_, known = v.young[t]
	if _, aged := v.old[t]; aged && !known {
		v.knows(t)
		known = true
	}
	if _, waits := v.waiting[t]; !known && !waits {
		id := Identity{Kind: kind}
		if v.o.Escrow != nil && len(canonical) <= maxName { // else it is only noted that it has no seal
			id.Canonical = bytes.Clone(canonical)
		}
		v.waiting[t] = id
		v.bytes += len(id.Canonical)
		v.pending.Store(int64(len(v.waiting)))
	}
	full := len(v.waiting) >= maxWaiting || v.bytes >= maxBytes
	v.mu.Unlock()
	if !full {
		return nil
	}
	v.writing.Lock()
	defer v.writing.Unlock()
	return v.write(context.Background(), notes{})
}

// knows notes a token that has a row. The caller holds mu.
func (v *Vault) knows(t event.Token) {
	if len(v.young) >= maxKnown {
		v.young, v.old = make(map[event.Token]struct{}, 64), v.young
	}
	v.young[t] = struct{}{}
}

// Keep answers nil when every identity that was seen before the call has its row, durably,
// and the file has noted that these records, which are about to be sealed in a compartment,
// hold their tokens. On an error what waits goes on waiting; ErrAgain says that the batch
// must come again. Where nobody is in office nothing is sealed, and where nothing was ever
// sealed it has nothing to do.
func (v *Vault) Keep(ctx context.Context, compartment string, at time.Time, records ...[]byte) error {
	if !v.rows.Load() {
		return nil
	}
	n := v.unnoted(compartment, at, records)
	if len(n.tokens) == 0 && v.pending.Load() == 0 {
		return nil
	}
	v.writing.Lock()
	defer v.writing.Unlock()
	return v.write(ctx, n)
}

// sealed is a row on its way into the file.
type sealed struct {
	token event.Token
	id    Identity
	row   *Row
}

// write seals what waits and commits it, with what is to be noted, in one transaction. The
// caller holds writing.
func (v *Vault) write(ctx context.Context, n notes) error {
	v.mu.RLock()
	batch := maps.Clone(v.waiting)
	v.mu.RUnlock()
	if len(batch) == 0 && len(n.tokens) == 0 {
		return nil
	}
	err := v.writeBatch(ctx, batch, n)
	if errors.Is(err, ErrAgain) {
		v.stale = true
		return err
	}
	if err != nil {
		v.stale = true
		return whatIs("writing", err)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.remember(n)
	for t, id := range batch {
		v.bytes -= len(id.Canonical)
		clear(id.Canonical)
		delete(v.waiting, t)
		delete(v.gone, t)
		v.knows(t)
	}
	v.pending.Store(int64(len(v.waiting)))
	return nil
}

func (v *Vault) writeBatch(ctx context.Context, batch map[event.Token]Identity, n notes) error {
	var todo []sealed
	var none []event.Token
	epoch := 0
	if v.o.Escrow != nil {
		epoch = v.o.Escrow.Epoch
	}
	for _, t := range slices.Sorted(maps.Keys(batch)) {
		if len(batch[t].Canonical) == 0 { // nobody is in office, or it is no name
			none = append(none, t)
			continue
		}
		var have int
		err := v.db.QueryRowContext(ctx, "SELECT 1 FROM seals WHERE token = ? AND epoch = ?", string(t), epoch).Scan(&have)
		switch {
		case errors.Is(err, sql.ErrNoRows):
			todo = append(todo, sealed{token: t, id: batch[t]})
		case err != nil:
			return err
		}
	}
	if err := v.sealAll(ctx, todo); err != nil {
		return err
	}
	if err := v.fault("sealed"); err != nil {
		return err
	}
	if len(todo) > 0 {
		if err := v.window(ctx, len(todo)); err != nil {
			return err
		}
	}
	ctx = context.WithoutCancel(ctx) // others wait for it too
	var leaves [][32]byte
	err := v.change(ctx, func(tx *sql.Tx) error {
		for _, t := range none {
			if _, err := tx.ExecContext(ctx, "INSERT OR IGNORE INTO unsealed SELECT ? WHERE NOT EXISTS (SELECT 1 FROM seals WHERE token = ?)", string(t), string(t)); err != nil {
				return err
			}
		}
		if len(todo) == 0 {
			return v.note(ctx, tx, n)
		}
		leaf, err := tx.PrepareContext(ctx, "INSERT INTO leaves VALUES (?, ?, ?)")
		if err != nil {
			return err
		}
		defer leaf.Close()
		seal, err := tx.PrepareContext(ctx, "INSERT INTO seals (token, epoch, win, idx, row) VALUES (?, ?, ?, ?, ?)")
		if err != nil {
			return err
		}
		defer seal.Close()
		for i := range todo {
			c := todo[i].row.Commitment()
			at := len(v.open.leaves) + i
			if _, err := leaf.ExecContext(ctx, v.open.seq, at, c[:]); err != nil {
				return err
			}
			if _, err := seal.ExecContext(ctx, string(todo[i].token), epoch, v.open.seq, at, todo[i].row.Bytes); err != nil {
				return err
			}
			res, err := tx.ExecContext(ctx, "DELETE FROM unsealed WHERE token = ?", string(todo[i].token))
			if err != nil {
				return err
			}
			if had, err := res.RowsAffected(); err != nil {
				return err
			} else if had > 0 { // it was seen before, and nobody noted when
				if err := noteWeeks(ctx, tx, todo[i].token, unknown, []int{Week(v.o.Now())}); err != nil {
					return err
				}
			}
			leaves = append(leaves, c)
		}
		if err := v.note(ctx, tx, n); err != nil {
			return err
		}
		return v.fault("written")
	})
	if err == nil {
		err = v.fault("committed") // it is in the file, and nobody knows
	}
	if err != nil {
		return err
	}
	v.open.leaves = append(v.open.leaves, leaves...)
	return nil
}

// sealAll seals on all cores.
func (v *Vault) sealAll(ctx context.Context, todo []sealed) error {
	g, gctx := errgroup.WithContext(ctx)
	var next atomic.Int64
	for range min(v.workers, len(todo)) {
		g.Go(func() error {
			for i := next.Add(1) - 1; i < int64(len(todo)); i = next.Add(1) - 1 {
				if err := gctx.Err(); err != nil {
					return err
				}
				s := &todo[i]
				var err error
				if s.row, err = Seal(v.o.Escrow, v.o.Org, s.token, s.id); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// window sees to it that there is an open window with room for n rows.
func (v *Vault) window(ctx context.Context, n int) error {
	if v.stale {
		if err := v.reload(ctx); err != nil {
			return err
		}
	}
	if v.open.seq != 0 && len(v.open.leaves)+n > maxWindow {
		if err := v.end(ctx); err != nil {
			return err
		}
	}
	if v.open.seq != 0 {
		return nil
	}
	id, err := uuid.NewV7()
	if err != nil {
		return err
	}
	res, err := v.db.ExecContext(ctx, "INSERT INTO windows (id) VALUES (?)", id.String())
	if err != nil {
		return err
	}
	seq, err := res.LastInsertId()
	if err != nil {
		return err
	}
	v.open = openWindow{seq: seq, id: id.String()}
	return nil
}

// reload reads the open window from the file.
func (v *Vault) reload(ctx context.Context) error {
	v.open = openWindow{}
	err := v.db.QueryRowContext(ctx, "SELECT seq, id FROM windows WHERE stated = 0 AND n IS NULL ORDER BY seq DESC LIMIT 1").Scan(&v.open.seq, &v.open.id)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	if v.open.leaves, err = v.leaves(ctx, v.open.seq); err != nil {
		return err
	}
	v.stale = false
	return nil
}

func (v *Vault) leaves(ctx context.Context, seq int64) ([][32]byte, error) {
	rows, err := v.db.QueryContext(ctx, "SELECT idx, commitment FROM leaves WHERE win = ? ORDER BY idx", seq)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out [][32]byte
	for rows.Next() {
		var idx int
		var c []byte
		if err := rows.Scan(&idx, &c); err != nil {
			return nil, err
		}
		if idx != len(out) || len(c) != 32 {
			return nil, errOther
		}
		out = append(out, [32]byte(c))
	}
	return out, rows.Err()
}

// end closes the open window: no row comes into it any more. One without rows is taken
// back.
func (v *Vault) end(ctx context.Context) error {
	if v.open.seq == 0 {
		return nil
	}
	var err error
	if len(v.open.leaves) == 0 {
		_, err = v.db.ExecContext(ctx, "DELETE FROM windows WHERE seq = ?", v.open.seq)
	} else {
		r := root(v.open.leaves)
		_, err = v.db.ExecContext(ctx, "UPDATE windows SET n = ?, root = ? WHERE seq = ?", len(v.open.leaves), r[:], v.open.seq)
	}
	if err != nil {
		v.stale = true
		return err
	}
	v.open = openWindow{}
	return nil
}

// CloseWindow closes the window that is open and states it, and those that were not stated
// before. It is called every few seconds, and at the end.
func (v *Vault) CloseWindow(ctx context.Context) error {
	v.writing.Lock()
	defer v.writing.Unlock()
	if v.o.Escrow == nil { // the note of what has no seal waits for this
		if err := v.write(ctx, notes{}); err != nil {
			return err
		}
	}
	if v.stale {
		if err := v.reload(ctx); err != nil {
			return whatIs("reading", err)
		}
	}
	if err := v.end(ctx); err != nil {
		return whatIs("writing", err)
	}
	todo, err := v.windows(ctx, "WHERE stated = 0 AND n IS NOT NULL")
	if err != nil {
		return whatIs("reading", err)
	}
	for _, w := range todo {
		if err := v.o.State(ctx, w); err != nil {
			return err
		}
		if err := v.fault("stated"); err != nil {
			return err
		}
		if _, err := v.db.ExecContext(ctx, "UPDATE windows SET stated = 1 WHERE id = ?", w.ID); err != nil {
			return whatIs("writing", err)
		}
	}
	return nil
}

func (v *Vault) windows(ctx context.Context, where string, args ...any) ([]Window, error) {
	rows, err := v.db.QueryContext(ctx, "SELECT id, n, root FROM windows "+where+" ORDER BY seq", args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []Window
	for rows.Next() {
		var w Window
		var r []byte
		if err := rows.Scan(&w.ID, &w.N, &r); err != nil {
			return nil, err
		}
		if len(r) != 32 || w.N < 1 {
			return nil, errOther
		}
		w.Root = [32]byte(r)
		out = append(out, w)
	}
	return out, rows.Err()
}

// Windows gives every window that is closed, oldest first.
func (v *Vault) Windows(ctx context.Context) ([]Window, error) {
	w, err := v.windows(ctx, "WHERE n IS NOT NULL")
	if err != nil {
		return nil, whatIs("reading", err)
	}
	return w, nil
}

// Find gives the newest row of a token, with the proof that it stands in its window.
func (v *Vault) Find(ctx context.Context, t event.Token) (*Row, *Proof, error) {
	return v.find(ctx, "token = ? ORDER BY epoch DESC, id DESC LIMIT 1", string(t))
}

// At gives the row at a place of a window.
func (v *Vault) At(ctx context.Context, window string, index int64) (*Row, *Proof, error) {
	return v.find(ctx, "win = (SELECT seq FROM windows WHERE windows.id = ?) AND idx = ?", window, index)
}

func (v *Vault) find(ctx context.Context, where string, args ...any) (*Row, *Proof, error) {
	var raw []byte
	var seq int64
	var p Proof
	err := v.db.QueryRowContext(ctx, "SELECT row, win, idx FROM seals WHERE "+where, args...).Scan(&raw, &seq, &p.Index)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return nil, nil, ErrNoSeal
	case err != nil:
		return nil, nil, whatIs("reading", err)
	}
	row, err := ParseRow(raw)
	if err != nil {
		return nil, nil, fmt.Errorf("reading the vault: %w", err)
	}
	w, err := v.windows(ctx, "WHERE seq = ? AND stated = 1", seq)
	if err != nil {
		return nil, nil, whatIs("reading", err)
	}
	if len(w) == 0 {
		return row, nil, ErrOpen
	}
	p.Window = w[0]
	leaves, err := v.leaves(ctx, seq)
	if err != nil {
		return nil, nil, whatIs("reading", err)
	}
	if int64(len(leaves)) != p.Window.N || p.Index >= p.Window.N {
		return nil, nil, errOther
	}
	p.Path = path(leaves, int(p.Index))
	if err := p.Check(row.Commitment()); err != nil {
		return nil, nil, fmt.Errorf("reading the vault: %w", err)
	}
	return row, &p, nil
}

// Counts says how much there is.
type Counts struct {
	Sealed   int64 // tokens with a row for the officers of now
	Former   int64 // tokens whose rows are all for officers before them
	Unsealed int64 // tokens that were seen while nobody was in office, or that are no names
	Waiting  int64 // identities whose batch is on its way
}

// Counts counts.
func (v *Vault) Counts(ctx context.Context) (Counts, error) {
	var c Counts
	epoch := 0
	if v.o.Escrow != nil {
		epoch = v.o.Escrow.Epoch
	}
	err := v.db.QueryRowContext(ctx, `SELECT
		(SELECT count(*) FROM seals WHERE epoch = ?),
		(SELECT count(DISTINCT token) FROM seals s WHERE epoch <> ? AND NOT EXISTS (SELECT 1 FROM seals o WHERE o.token = s.token AND o.epoch = ?)),
		(SELECT count(*) FROM unsealed)`, epoch, epoch, epoch).Scan(&c.Sealed, &c.Former, &c.Unsealed)
	if err != nil {
		return c, whatIs("reading", err)
	}
	c.Waiting = v.pending.Load()
	return c, nil
}

func (v *Vault) fault(place string) error {
	if v.o.Fault == nil {
		return nil
	}
	return v.o.Fault(place)
}

func (v *Vault) change(ctx context.Context, fn func(*sql.Tx) error) error {
	tx, err := v.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := fn(tx); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	return durable.Commit(ctx, tx)
}
