package login

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/go-webauthn/webauthn/webauthn"

	_ "modernc.org/sqlite" // the driver
)

// ErrUnknown is returned for what the store does not hold.
var ErrUnknown = errors.New("not in the login store")

type (
	// Account is one person or machine. ID is random; nothing here names anybody.
	Account struct {
		ID       string
		External string // SHA-256 of issuer and subject of the provider; empty for a local account
		Roles    []string
		Created  time.Time
		Disabled bool
	}
	// Session is one login of a browser; Hash is the SHA-256 of its cookie.
	Session struct {
		Hash, ID, Account string
		Created, Seen     time.Time
	}
	// APIToken is the right of a machine; Hash is the SHA-256 of its text.
	APIToken struct {
		Hash, ID, Account      string
		Scopes                 []string
		Created, Expires, Used time.Time
	}
)

// Store keeps accounts, credentials, sessions and tokens. A method that returns nil has
// made its change durable; what is missing is ErrUnknown; all may be called at once.
type Store interface {
	Accounts(ctx context.Context) (int, error)
	Account(ctx context.Context, id string) (Account, error)
	External(ctx context.Context, hash string) (Account, error)
	PutAccount(ctx context.Context, a Account) error
	// FirstAccount is PutAccount that fails when any account exists.
	FirstAccount(ctx context.Context, a Account) error
	Credentials(ctx context.Context, account string) ([]webauthn.Credential, error)
	PutCredential(ctx context.Context, account string, c webauthn.Credential) error
	Session(ctx context.Context, hash string) (Session, error)
	Sessions(ctx context.Context, account string) ([]Session, error)
	PutSession(ctx context.Context, s Session) error
	TouchSession(ctx context.Context, hash string, seen time.Time) error
	DeleteSession(ctx context.Context, hash string) error // nil when it is not there
	RevokeSession(ctx context.Context, account, id string) error
	Token(ctx context.Context, hash string) (APIToken, error)
	PutToken(ctx context.Context, t APIToken) error
	TouchToken(ctx context.Context, hash string, used time.Time) error
	RevokeToken(ctx context.Context, account, id string) error
}

const schema = `
CREATE TABLE IF NOT EXISTS accounts (id TEXT PRIMARY KEY, external TEXT UNIQUE, data TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS credentials (id BLOB PRIMARY KEY, account TEXT NOT NULL REFERENCES accounts(id), data TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS sessions (hash TEXT PRIMARY KEY, id TEXT UNIQUE NOT NULL, account TEXT NOT NULL REFERENCES accounts(id), created INTEGER NOT NULL, seen INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS tokens (hash TEXT PRIMARY KEY, id TEXT UNIQUE NOT NULL, account TEXT NOT NULL REFERENCES accounts(id), scopes TEXT NOT NULL, created INTEGER NOT NULL, expires INTEGER NOT NULL, used INTEGER NOT NULL) STRICT;
PRAGMA user_version = 1;
`

// DB is the store in one SQLite file.
type DB struct{ db *sql.DB }

// Open opens or makes `login.db` in dir. It is a truth of its own: it is never replaced.
func Open(dir string) (*DB, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the directory of the login store: %w", err)
	}
	path := filepath.Join(dir, "login.db")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the login store: %w", err)
	}
	if err := f.Close(); err != nil {
		return nil, fmt.Errorf("opening the login store: %w", err)
	}
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=busy_timeout(5000)&_pragma=foreign_keys(1)&_pragma=secure_delete(1)")
	if err != nil {
		return nil, fmt.Errorf("opening the login store: %w", err)
	}
	db.SetMaxOpenConns(1)
	var v int
	if err := db.QueryRow("PRAGMA user_version").Scan(&v); err != nil {
		return nil, errors.Join(fmt.Errorf("reading the version of the login store: %w", err), db.Close())
	}
	if v > 1 {
		return nil, errors.Join(fmt.Errorf("the login store has version %d, this program knows 1", v), db.Close())
	}
	if _, err := db.Exec(schema); err != nil {
		return nil, errors.Join(fmt.Errorf("making the login store: %w", err), db.Close())
	}
	return &DB{db}, nil
}

// Close closes the file.
func (d *DB) Close() error { return d.db.Close() }

func unknown(err error) error {
	if errors.Is(err, sql.ErrNoRows) {
		return ErrUnknown
	}
	return err
}

func (d *DB) exec(ctx context.Context, must bool, q string, args ...any) error {
	r, err := d.db.ExecContext(ctx, q, args...)
	if err != nil {
		return fmt.Errorf("writing the login store: %w", err)
	}
	n, err := r.RowsAffected()
	if err != nil {
		return fmt.Errorf("writing the login store: %w", err)
	}
	if must && n == 0 {
		return ErrUnknown
	}
	return nil
}

// Accounts implements Store.
func (d *DB) Accounts(ctx context.Context) (n int, err error) {
	err = d.db.QueryRowContext(ctx, "SELECT count(*) FROM accounts").Scan(&n)
	return n, err
}

func (d *DB) account(ctx context.Context, where, arg string) (a Account, err error) {
	var data string
	if err := d.db.QueryRowContext(ctx, "SELECT data FROM accounts WHERE "+where+" = ?", arg).Scan(&data); err != nil {
		return a, unknown(err)
	}
	if err := json.Unmarshal([]byte(data), &a); err != nil {
		return a, fmt.Errorf("reading an account: %w", err)
	}
	return a, nil
}

// Account implements Store.
func (d *DB) Account(ctx context.Context, id string) (Account, error) {
	return d.account(ctx, "id", id)
}

// External implements Store.
func (d *DB) External(ctx context.Context, hash string) (Account, error) {
	return d.account(ctx, "external", hash)
}

// PutAccount implements Store.
func (d *DB) PutAccount(ctx context.Context, a Account) error {
	data, err := json.Marshal(a)
	if err != nil {
		return err
	}
	return d.exec(ctx, true, "INSERT INTO accounts VALUES (?, ?, ?) ON CONFLICT(id) DO UPDATE SET external = excluded.external, data = excluded.data", a.ID, sql.NullString{String: a.External, Valid: a.External != ""}, string(data))
}

// FirstAccount implements Store.
func (d *DB) FirstAccount(ctx context.Context, a Account) error {
	data, err := json.Marshal(a)
	if err != nil {
		return err
	}
	return d.exec(ctx, true, "INSERT INTO accounts SELECT ?, NULL, ? WHERE NOT EXISTS (SELECT 1 FROM accounts)", a.ID, string(data))
}

// Credentials implements Store.
func (d *DB) Credentials(ctx context.Context, account string) (list []webauthn.Credential, err error) {
	rows, err := d.db.QueryContext(ctx, "SELECT data FROM credentials WHERE account = ?", account)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var data string
		var c webauthn.Credential
		if err := rows.Scan(&data); err != nil {
			return nil, err
		}
		if err := json.Unmarshal([]byte(data), &c); err != nil {
			return nil, fmt.Errorf("reading a credential: %w", err)
		}
		list = append(list, c)
	}
	return list, rows.Err()
}

// PutCredential implements Store. A credential never moves to another account.
func (d *DB) PutCredential(ctx context.Context, account string, c webauthn.Credential) error {
	data, err := json.Marshal(c)
	if err != nil {
		return err
	}
	return d.exec(ctx, true, "INSERT INTO credentials VALUES (?, ?, ?) ON CONFLICT(id) DO UPDATE SET data = excluded.data WHERE account = excluded.account", c.ID, account, string(data))
}

// Session implements Store.
func (d *DB) Session(ctx context.Context, hash string) (Session, error) {
	var s Session
	var c, n int64
	err := d.db.QueryRowContext(ctx, "SELECT hash, id, account, created, seen FROM sessions WHERE hash = ?", hash).Scan(&s.Hash, &s.ID, &s.Account, &c, &n)
	s.Created, s.Seen = time.Unix(0, c), time.Unix(0, n)
	return s, unknown(err)
}

// Sessions implements Store.
func (d *DB) Sessions(ctx context.Context, account string) (list []Session, err error) {
	rows, err := d.db.QueryContext(ctx, "SELECT hash, id, account, created, seen FROM sessions WHERE account = ? ORDER BY created, id", account)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var s Session
		var c, n int64
		if err := rows.Scan(&s.Hash, &s.ID, &s.Account, &c, &n); err != nil {
			return nil, err
		}
		s.Created, s.Seen = time.Unix(0, c), time.Unix(0, n)
		list = append(list, s)
	}
	return list, rows.Err()
}

// PutSession implements Store. Sessions past their absolute end leave with it.
func (d *DB) PutSession(ctx context.Context, s Session) error {
	if err := d.exec(ctx, false, "DELETE FROM sessions WHERE created < ?", s.Seen.Add(-Absolute).UnixNano()); err != nil {
		return err
	}
	return d.exec(ctx, true, "INSERT INTO sessions VALUES (?, ?, ?, ?, ?)", s.Hash, s.ID, s.Account, s.Created.UnixNano(), s.Seen.UnixNano())
}

// TouchSession implements Store.
func (d *DB) TouchSession(ctx context.Context, hash string, seen time.Time) error {
	return d.exec(ctx, true, "UPDATE sessions SET seen = ? WHERE hash = ?", seen.UnixNano(), hash)
}

// DeleteSession implements Store.
func (d *DB) DeleteSession(ctx context.Context, hash string) error {
	return d.exec(ctx, false, "DELETE FROM sessions WHERE hash = ?", hash)
}

// RevokeSession implements Store.
func (d *DB) RevokeSession(ctx context.Context, account, id string) error {
	return d.exec(ctx, true, "DELETE FROM sessions WHERE account = ? AND id = ?", account, id)
}

// Token implements Store.
func (d *DB) Token(ctx context.Context, hash string) (APIToken, error) {
	var t APIToken
	var scopes string
	var c, e, u int64
	if err := d.db.QueryRowContext(ctx, "SELECT hash, id, account, scopes, created, expires, used FROM tokens WHERE hash = ?", hash).Scan(&t.Hash, &t.ID, &t.Account, &scopes, &c, &e, &u); err != nil {
		return t, unknown(err)
	}
	t.Created, t.Expires, t.Used = time.Unix(0, c), time.Unix(0, e), time.Unix(0, u)
	return t, json.Unmarshal([]byte(scopes), &t.Scopes)
}

// PutToken implements Store.
func (d *DB) PutToken(ctx context.Context, t APIToken) error {
	scopes, err := json.Marshal(t.Scopes)
	if err != nil {
		return err
	}
	return d.exec(ctx, true, "INSERT INTO tokens VALUES (?, ?, ?, ?, ?, ?, 0)", t.Hash, t.ID, t.Account, string(scopes), t.Created.UnixNano(), t.Expires.UnixNano())
}

// TouchToken implements Store.
func (d *DB) TouchToken(ctx context.Context, hash string, used time.Time) error {
	return d.exec(ctx, true, "UPDATE tokens SET used = ? WHERE hash = ?", used.UnixNano(), hash)
}

// RevokeToken implements Store.
func (d *DB) RevokeToken(ctx context.Context, account, id string) error {
	return d.exec(ctx, true, "DELETE FROM tokens WHERE account = ? AND id = ?", account, id)
}
