package alias

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"

	"github.com/counterseal/counterseal/internal/durable"
	"github.com/counterseal/counterseal/internal/event"
)

const version = 1

const schema = `
CREATE TABLE aliases (
	scope BLOB NOT NULL, alias TEXT NOT NULL, token TEXT NOT NULL,
	PRIMARY KEY (scope, alias)) STRICT, WITHOUT ROWID;
CREATE TABLE days (scope BLOB PRIMARY KEY NOT NULL, day INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE INDEX days_day ON days (day);
`

// Bounds of memory. An alias takes about 120 bytes.
const (
	maxRows  = 1 << 18 // aliases of all scopes
	maxPages = 1 << 10 // scopes
	loadRows = 1 << 15 // read at once when a scope is asked for again
	batch    = 1000    // aliases that wait for one transaction
)

// Options says how a Book works.
type Options struct {
	// MAC is HMAC-SHA256 under a lasting key that serves nothing else. It is called by many
	// at once.
	MAC  func(msg []byte) [32]byte
	Path string // the SQLite file; its folder is made
	// Joined gives, for a case, the one token by which it shows somebody of whom it knows
	// several, and any other as it is. nil: no case joins any.
	Joined func(ctx context.Context, caseID string) (func(token string) string, error)
	Now    func() time.Time // nil: time.Now
}

// Book knows the aliases that were shown.
//
// A new alias is in memory at once and in the file with the next transaction: when a
// thousand wait, when a Writer is closed, at Flush and at Close. A crash before costs that
// it must be shown again.
type Book struct {
	mac    func([]byte) [32]byte
	now    func() time.Time
	joined func(context.Context, string) (func(string) string, error)
	rows   int // maxRows; tests take less

	mu      sync.Mutex // guards what follows, and is held while the file is read or written
	db      *sql.DB
	pages   map[[32]byte]*page
	total   int // aliases in pages
	pending []shown
	clock   uint64
	pruned  int // the day of the last pruning
}

// page is the memory of one scope.
type page struct {
	tokens map[string]string // by alias
	day    int
	whole  bool // nothing of the scope is in the file alone
	used   uint64
}

type shown struct {
	place        place
	alias, token string
}

// Open opens or makes the file. One that is damaged or of another version is replaced: it
// is a cache.
func Open(o Options) (*Book, error) {
	if o.MAC == nil {
		return nil, errors.New("aliases need a key")
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if err := os.MkdirAll(filepath.Dir(o.Path), 0o700); err != nil {
		return nil, fmt.Errorf("making the folder of the alias file: %w", err)
	}
	db, err := openFile(o.Path)
	if errors.Is(err, errOther) {
		for _, suffix := range []string{"", "-wal", "-shm"} {
			if err := os.Remove(o.Path + suffix); err != nil && !errors.Is(err, os.ErrNotExist) {
				return nil, fmt.Errorf("replacing the alias file: %w", err)
			}
		}
		db, err = openFile(o.Path)
	}
	if err != nil {
		return nil, err
	}
	b := &Book{mac: o.MAC, now: o.Now, joined: o.Joined, rows: maxRows, db: db, pages: map[[32]byte]*page{}, pruned: noDay}
	if err := b.room(context.Background()); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return b, nil
}

var errOther = errors.New("the alias file is damaged or of another version")

func openFile(path string) (*sql.DB, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the alias file: %w", err)
	}
	if err := errors.Join(f.Chmod(0o600), f.Close()); err != nil {
		return nil, fmt.Errorf("opening the alias file: %w", err)
	}
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=journal_mode(WAL)&_pragma=synchronous(NORMAL)&_pragma=busy_timeout(5000)&_pragma=secure_delete(on)&_txlock=immediate")
	if err != nil {
		return nil, fmt.Errorf("opening the alias file: %w", err)
	}
	db.SetMaxOpenConns(1)
	var have int
	if err := db.QueryRow("PRAGMA user_version").Scan(&have); err != nil {
		return nil, errors.Join(whatIs(err), db.Close())
	}
	switch have {
	case version:
		var ok string
		if err := db.QueryRow("PRAGMA quick_check(1)").Scan(&ok); err != nil {
			return nil, errors.Join(whatIs(err), db.Close())
		}
		if ok != "ok" {
			return nil, errors.Join(errOther, db.Close())
		}
		return db, nil
	case 0:
		if _, err := db.Exec("BEGIN;" + schema + fmt.Sprintf("PRAGMA user_version = %d; COMMIT;", version)); err != nil {
			return nil, errors.Join(whatIs(err), db.Close())
		}
		return db, nil
	}
	return nil, errors.Join(errOther, db.Close())
}

// whatIs tells damage, which is answered by a new file, from the rest, which is not.
func whatIs(err error) error {
	var e *sqlite.Error
	if errors.As(err, &e) && (e.Code()&0xff == lib.SQLITE_CORRUPT || e.Code()&0xff == lib.SQLITE_NOTADB) {
		return errOther
	}
	return fmt.Errorf("opening the alias file: %w", err)
}

// Close writes what waits and closes the file.
func (b *Book) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return errors.Join(b.flush(context.Background()), b.db.Close())
}

// Flush writes the aliases that wait.
func (b *Book) Flush(ctx context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.flush(ctx)
}

// Show gives the alias of a token in a scope.
func (b *Book) Show(ctx context.Context, s Scope, token string) (string, error) {
	p, err := b.showing(s)
	if err != nil {
		return "", err
	}
	one, err := b.one(ctx, s)
	if err != nil {
		return "", err
	}
	return b.show(ctx, p, one(token))
}

// one is what a scope makes of a token before it shows it.
func (b *Book) one(ctx context.Context, s Scope) (func(string) string, error) {
	if b.joined == nil || s.Case == "" {
		return func(token string) string { return token }, nil
	}
	return b.joined(ctx, s.Case)
}

// showing is the place of a scope in which aliases may be shown now. A day to come is
// refused like one long past: it would stay too long.
func (b *Book) showing(s Scope) (place, error) {
	p, err := b.place(s)
	if err != nil {
		return place{}, err
	}
	if today := dayOf(b.now()); p.day != noDay && (p.day < today-Keep || p.day > today+1) {
		return place{}, ErrPast
	}
	return p, nil
}

func (b *Book) show(ctx context.Context, p place, token string) (string, error) {
	name, err := b.name(p, token)
	if err != nil {
		return "", err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.room(ctx); err != nil {
		return "", err
	}
	g, err := b.page(ctx, p)
	if err != nil {
		return "", err
	}
	for n := strings.IndexByte(name, '-') + 1 + Shortest; n <= len(name); n++ {
		have, err := b.find(ctx, p, g, name[:n])
		switch {
		case err != nil:
			return "", err
		case have == token:
			return name[:n], nil
		case have == "":
			alias, token := strings.Clone(name[:n]), strings.Clone(token)
			b.put(g, alias, token)
			b.pending = append(b.pending, shown{p, alias, token})
			return alias, nil
		}
	}
	return "", errors.New("two tokens have one digest under the key of aliases")
}

// Resolved is a text whose aliases are tokens again.
type Resolved struct {
	Text    string
	Known   int // aliases of this scope, replaced
	Unknown int // words of their shape that this scope did not show, left as they are
	// Tokens counts canonical tokens that the text brought along. None ever left the
	// server, so the caller refuses the text. One that is cut short, for a search by its
	// beginning, is not seen here: access.Selects sees it.
	Tokens int
}

// Resolve replaces the aliases in a text by their tokens. An alias in capitals is the same
// alias.
func (b *Book) Resolve(ctx context.Context, s Scope, text string) (Resolved, error) {
	p, err := b.place(s)
	if err != nil {
		return Resolved{}, err
	}
	if len(text) > MaxText {
		return Resolved{}, ErrText
	}
	low := lower(text)
	r := Resolved{Tokens: tokens([]byte(low))}
	var out strings.Builder
	at := 0
	for {
		start, end := shape(low, at)
		if start < 0 {
			break
		}
		token, err := b.lookup(ctx, p, low[start:end])
		if err != nil {
			return Resolved{}, err
		}
		out.WriteString(text[at:start])
		if token == "" {
			r.Unknown++
			token = text[start:end]
		} else {
			r.Known++
		}
		out.WriteString(token)
		at = end
	}
	if at == 0 {
		r.Text = text
		return r, nil
	}
	out.WriteString(text[at:])
	r.Text = out.String()
	return r, nil
}

func tokens(text []byte) (n int) {
	for {
		start, end := event.NextToken(text)
		if start < 0 {
			return n
		}
		text = text[end:]
		n++
	}
}

func (b *Book) lookup(ctx context.Context, p place, alias string) (string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.room(ctx); err != nil {
		return "", err
	}
	g, err := b.page(ctx, p)
	if err != nil {
		return "", err
	}
	return b.find(ctx, p, g, alias)
}

// Forget ends a scope: none of its aliases can be turned back until it is shown again.
func (b *Book) Forget(ctx context.Context, s Scope) error {
	p, err := b.place(s)
	if err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.flush(ctx); err != nil {
		return err
	}
	if _, err := b.db.ExecContext(ctx, "DELETE FROM aliases WHERE scope = ?", p.digest[:]); err != nil {
		return fmt.Errorf("ending a scope in the alias file: %w", err)
	}
	b.drop(p.digest)
	return nil
}

// room makes room in memory before something new comes: what waits is written when it
// is a batch, days that are over leave, and so do the scopes used longest ago.
func (b *Book) room(ctx context.Context) error {
	if today := dayOf(b.now()); today != b.pruned {
		if err := b.prune(ctx, today-Keep); err != nil {
			return err
		}
		b.pruned = today
	}
	full := b.total >= b.rows || len(b.pages) >= maxPages
	if full || len(b.pending) >= batch {
		if err := b.flush(ctx); err != nil {
			return err
		}
	}
	if !full {
		return nil
	}
	type old struct {
		digest [32]byte
		used   uint64
	}
	var list []old
	for d, g := range b.pages {
		list = append(list, old{d, g.used})
	}
	slices.SortFunc(list, func(x, y old) int { return cmp.Compare(x.used, y.used) })
	for _, o := range list {
		if b.total <= b.rows/2 && len(b.pages) <= maxPages/2 {
			break
		}
		b.drop(o.digest)
	}
	return nil
}

func (b *Book) drop(digest [32]byte) {
	if g := b.pages[digest]; g != nil {
		b.total -= len(g.tokens)
		delete(b.pages, digest)
	}
}

// prune deletes the scopes of days before the first one to keep.
func (b *Book) prune(ctx context.Context, first int) error {
	if err := b.flush(ctx); err != nil {
		return err
	}
	err := b.change(ctx, func(tx *sql.Tx) error {
		if _, err := tx.Exec("DELETE FROM aliases WHERE scope IN (SELECT scope FROM days WHERE day < ?)", first); err != nil {
			return err
		}
		_, err := tx.Exec("DELETE FROM days WHERE day < ?", first)
		return err
	})
	if err != nil {
		return fmt.Errorf("pruning the alias file: %w", err)
	}
	for d, g := range b.pages {
		if g.day < first {
			b.drop(d)
		}
	}
	return nil
}

// page gives the memory of a scope, read from the file when it is not there.
func (b *Book) page(ctx context.Context, p place) (*page, error) {
	b.clock++
	g := b.pages[p.digest]
	if g == nil {
		g = &page{tokens: map[string]string{}, day: p.day}
		if err := b.load(ctx, p, g); err != nil {
			return nil, fmt.Errorf("reading the alias file: %w", err)
		}
		b.pages[p.digest] = g
		b.total += len(g.tokens)
	}
	g.used = b.clock
	return g, nil
}

func (b *Book) load(ctx context.Context, p place, g *page) error {
	most := min(loadRows, b.rows/8)
	rows, err := b.db.QueryContext(ctx, "SELECT alias, token FROM aliases WHERE scope = ? LIMIT ?", p.digest[:], most+1)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var alias, token string
		if err := rows.Scan(&alias, &token); err != nil {
			return err
		}
		g.tokens[alias] = token
	}
	g.whole = len(g.tokens) <= most
	return rows.Err()
}

func (b *Book) put(g *page, alias, token string) {
	g.tokens[alias] = token
	b.total++
}

// find gives the token of an alias, empty where the scope did not show it.
func (b *Book) find(ctx context.Context, p place, g *page, alias string) (string, error) {
	token := g.tokens[alias]
	if token != "" || g.whole {
		return token, nil
	}
	err := b.db.QueryRowContext(ctx, "SELECT token FROM aliases WHERE scope = ? AND alias = ?", p.digest[:], alias).Scan(&token)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return "", nil
	case err != nil:
		return "", fmt.Errorf("reading the alias file: %w", err)
	}
	b.put(g, strings.Clone(alias), token)
	return token, nil
}

// flush writes what waits in one transaction. On an error it still waits. It does not
// stop when one asker goes away: the aliases are those of all.
func (b *Book) flush(ctx context.Context) error {
	if len(b.pending) == 0 {
		return nil
	}
	err := b.change(context.WithoutCancel(ctx), func(tx *sql.Tx) error {
		put, err := tx.Prepare("INSERT INTO aliases VALUES (?, ?, ?) ON CONFLICT (scope, alias) DO UPDATE SET token = token WHERE token = excluded.token")
		if err != nil {
			return err
		}
		defer put.Close()
		var last place
		for _, s := range b.pending {
			r, err := put.Exec(s.place.digest[:], s.alias, s.token)
			if err != nil {
				return err
			}
			if n, err := r.RowsAffected(); err != nil || n != 1 {
				return errors.Join(err, errors.New("another process writes it"))
			}
			if s.place != last && s.place.day != noDay {
				if _, err := tx.Exec("INSERT OR IGNORE INTO days VALUES (?, ?)", s.place.digest[:], s.place.day); err != nil {
					return err
				}
			}
			last = s.place
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("writing the alias file: %w", err)
	}
	clear(b.pending)
	b.pending = b.pending[:0]
	return nil
}

func (b *Book) change(ctx context.Context, fn func(*sql.Tx) error) error {
	tx, err := b.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := fn(tx); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	return durable.Commit(ctx, tx)
}
