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

	"github.com/counterseal/counterseal/internal/durable"

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
	// Session is one login of a browser or of a terminal; Hash is the SHA-256 of its secret.
	Session struct {
		Hash, ID, Account string
		Terminal          bool
		Created, Seen     time.Time
	}
	// Passkey is what a list shows of a credential. ID is the beginning of its digest.
	Passkey struct {
		ID         string
		Synced     bool // copies of it may lie on other devices of its owner
		Made, Used time.Time
	}
	// APIToken is the right of a machine; Hash is the SHA-256 of its text.
	APIToken struct {
		Hash, ID, Account      string
		Scopes                 []string
		Created, Expires, Used time.Time
	}
)

// over says whether a session is past its limits.
func (s *Session) over(now time.Time) bool {
	return now.Sub(s.Created) >= Absolute || now.Sub(s.Seen) >= Idle
}

// Store keeps accounts, credentials, sessions and tokens. A method that returns nil has
// made its change durable; what is missing is ErrUnknown; all may be called at once.
type Store interface {
	Accounts(ctx context.Context) (int, error)
	Account(ctx context.Context, id string) (Account, error)
	External(ctx context.Context, hash string) (Account, error)
	// AllAccounts lists them, oldest first.
	AllAccounts(ctx context.Context) ([]Account, error)
	// PutAccount makes an account; it changes none.
	PutAccount(ctx context.Context, a Account) error
	// Register makes an account with its first passkey, both or neither. With first it
	// fails when any account exists.
	Register(ctx context.Context, a Account, first bool, c webauthn.Credential) error
	// SetRoles changes the roles of an account that is not disabled.
	SetRoles(ctx context.Context, account string, roles []string) error
	// Disable disables or enables an account. Disabling deletes its sessions and tokens
	// in the same transaction.
	Disable(ctx context.Context, account string, disabled bool) error
	Credentials(ctx context.Context, account string) ([]webauthn.Credential, error)
	Passkeys(ctx context.Context, account string) ([]Passkey, error)
	PutCredential(ctx context.Context, account string, c webauthn.Credential, used time.Time) error
	DeleteCredential(ctx context.Context, account string, credential []byte) error
	Session(ctx context.Context, hash string) (Session, error)
	Sessions(ctx context.Context, account string) ([]Session, error)
	PutSession(ctx context.Context, s Session) error // ErrUnknown when the account is disabled
	TouchSession(ctx context.Context, hash string, seen time.Time) error
	DeleteSession(ctx context.Context, hash string) error // nil when it is not there
	RevokeSession(ctx context.Context, account, id string) error
	Token(ctx context.Context, hash string) (APIToken, error)
	Tokens(ctx context.Context) ([]APIToken, error)
	PutToken(ctx context.Context, t APIToken) error // ErrUnknown when the account is disabled
	TouchToken(ctx context.Context, hash string, used time.Time) error
	RevokeToken(ctx context.Context, account, id string) error
	// PutStatement keeps a statement that waits for a signature; the nonce is new. Who has
	// too many of them gets an error that wraps ErrBad.
	PutStatement(ctx context.Context, w Waiting) error
	Statement(ctx context.Context, id string) (Waiting, error)
	// UseStatement uses a statement up; it answers true once, before it expires.
	UseStatement(ctx context.Context, id string, now time.Time) (bool, error)
}

const schema = `
CREATE TABLE IF NOT EXISTS accounts (id TEXT PRIMARY KEY, external TEXT UNIQUE, data TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS credentials (id BLOB PRIMARY KEY, account TEXT NOT NULL REFERENCES accounts(id), data TEXT NOT NULL, made INTEGER NOT NULL, used INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS sessions (hash TEXT PRIMARY KEY, id TEXT UNIQUE NOT NULL, account TEXT NOT NULL REFERENCES accounts(id), created INTEGER NOT NULL, seen INTEGER NOT NULL, terminal INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS tokens (hash TEXT PRIMARY KEY, id TEXT UNIQUE NOT NULL, account TEXT NOT NULL REFERENCES accounts(id), scopes TEXT NOT NULL, created INTEGER NOT NULL, expires INTEGER NOT NULL, used INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS statements (id TEXT PRIMARY KEY, account TEXT NOT NULL REFERENCES accounts(id), nonce TEXT UNIQUE NOT NULL, statement TEXT NOT NULL, made INTEGER NOT NULL, expires INTEGER NOT NULL, used INTEGER NOT NULL) STRICT;
PRAGMA user_version = 1;
`

// DB is the store in one SQLite file.
type DB struct {
	db *sql.DB
	tx *sql.Tx // inside of atomic
}

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
	return &DB{db: db}, nil
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
	run := d.db.ExecContext
	if d.tx != nil {
		run = d.tx.ExecContext
	}
	r, err := run(ctx, q, args...)
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

// atomic makes what do writes one change.
func (d *DB) atomic(ctx context.Context, do func(*DB) error) error {
	tx, err := d.db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("writing the login store: %w", err)
	}
	if err := do(&DB{db: d.db, tx: tx}); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	if err := durable.Commit(ctx, tx); err != nil {
		return fmt.Errorf("writing the login store: %w", err)
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

// AllAccounts implements Store.
func (d *DB) AllAccounts(ctx context.Context) (list []Account, err error) {
	rows, err := d.db.QueryContext(ctx, "SELECT data FROM accounts ORDER BY rowid")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var data string
		var a Account
		if err := rows.Scan(&data); err != nil {
			return nil, err
		}
		if err := json.Unmarshal([]byte(data), &a); err != nil {
			return nil, fmt.Errorf("reading an account: %w", err)
		}
		list = append(list, a)
	}
	return list, rows.Err()
}

// PutAccount implements Store.
func (d *DB) PutAccount(ctx context.Context, a Account) error {
	data, err := json.Marshal(a)
	if err != nil {
		return err
	}
	return d.exec(ctx, true, "INSERT INTO accounts VALUES (?, ?, ?)", a.ID, sql.NullString{String: a.External, Valid: a.External != ""}, string(data))
}

// Register implements Store.
func (d *DB) Register(ctx context.Context, a Account, first bool, c webauthn.Credential) error {
	data, err := json.Marshal(a)
	if err != nil {
		return err
	}
	cred, err := json.Marshal(c)
	if err != nil {
		return err
	}
	return d.atomic(ctx, func(tx *DB) error {
		if err := tx.exec(ctx, true, "INSERT INTO accounts SELECT ?, NULL, ? WHERE NOT ? OR NOT EXISTS (SELECT 1 FROM accounts)", a.ID, string(data), first); err != nil {
			return err
		}
		return tx.exec(ctx, true, "INSERT INTO credentials VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING", c.ID, a.ID, string(cred), a.Created.UnixNano(), a.Created.UnixNano())
	})
}

// SetRoles implements Store.
func (d *DB) SetRoles(ctx context.Context, account string, roles []string) error {
	data, err := json.Marshal(roles)
	if err != nil {
		return err
	}
	return d.exec(ctx, true, "UPDATE accounts SET data = json_set(data, '$.Roles', json(?)) WHERE id = ? AND NOT json_extract(data, '$.Disabled')", string(data), account)
}

// Disable implements Store.
func (d *DB) Disable(ctx context.Context, account string, disabled bool) error {
	return d.atomic(ctx, func(tx *DB) error {
		if err := tx.exec(ctx, true, "UPDATE accounts SET data = json_set(data, '$.Disabled', json(iif(?, 'true', 'false'))) WHERE id = ?", disabled, account); err != nil || !disabled {
			return err
		}
		if err := tx.exec(ctx, false, "DELETE FROM sessions WHERE account = ?", account); err != nil {
			return err
		}
		return tx.exec(ctx, false, "DELETE FROM tokens WHERE account = ?", account)
	})
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

// Passkeys implements Store.
func (d *DB) Passkeys(ctx context.Context, account string) (list []Passkey, err error) {
	rows, err := d.db.QueryContext(ctx, "SELECT id, data, made, used FROM credentials WHERE account = ? ORDER BY made, rowid", account)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var data string
		var cid []byte
		var c webauthn.Credential
		var m, u int64
		if err := rows.Scan(&cid, &data, &m, &u); err != nil {
			return nil, err
		}
		if err := json.Unmarshal([]byte(data), &c); err != nil {
			return nil, fmt.Errorf("reading a credential: %w", err)
		}
		list = append(list, Passkey{ID: passkeyID(cid), Synced: c.Flags.BackupEligible, Made: time.Unix(0, m), Used: time.Unix(0, u)})
	}
	return list, rows.Err()
}

// PutCredential implements Store. A credential never moves to another account.
func (d *DB) PutCredential(ctx context.Context, account string, c webauthn.Credential, used time.Time) error {
	data, err := json.Marshal(c)
	if err != nil {
		return err
	}
	return d.exec(ctx, true, "INSERT INTO credentials VALUES (?, ?, ?, ?, ?) ON CONFLICT(id) DO UPDATE SET data = excluded.data, used = excluded.used WHERE account = excluded.account", c.ID, account, string(data), used.UnixNano(), used.UnixNano())
}

// DeleteCredential implements Store.
func (d *DB) DeleteCredential(ctx context.Context, account string, credential []byte) error {
	return d.exec(ctx, true, "DELETE FROM credentials WHERE account = ? AND id = ?", account, credential)
}

// Session implements Store.
func (d *DB) Session(ctx context.Context, hash string) (Session, error) {
	var s Session
	var c, n int64
	err := d.db.QueryRowContext(ctx, "SELECT hash, id, account, created, seen, terminal FROM sessions WHERE hash = ?", hash).Scan(&s.Hash, &s.ID, &s.Account, &c, &n, &s.Terminal)
	s.Created, s.Seen = time.Unix(0, c), time.Unix(0, n)
	return s, unknown(err)
}

// Sessions implements Store.
func (d *DB) Sessions(ctx context.Context, account string) (list []Session, err error) {
	rows, err := d.db.QueryContext(ctx, "SELECT hash, id, account, created, seen, terminal FROM sessions WHERE account = ? ORDER BY created, rowid", account)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var s Session
		var c, n int64
		if err := rows.Scan(&s.Hash, &s.ID, &s.Account, &c, &n, &s.Terminal); err != nil {
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
	return d.exec(ctx, true, "INSERT INTO sessions SELECT ?, ?, id, ?, ?, ? FROM accounts WHERE id = ? AND NOT json_extract(data, '$.Disabled')", s.Hash, s.ID, s.Created.UnixNano(), s.Seen.UnixNano(), s.Terminal, s.Account)
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

// Tokens implements Store.
func (d *DB) Tokens(ctx context.Context) (list []APIToken, err error) {
	rows, err := d.db.QueryContext(ctx, "SELECT hash, id, account, scopes, created, expires, used FROM tokens ORDER BY created, rowid")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var t APIToken
		var scopes string
		var c, e, u int64
		if err := rows.Scan(&t.Hash, &t.ID, &t.Account, &scopes, &c, &e, &u); err != nil {
			return nil, err
		}
		if err := json.Unmarshal([]byte(scopes), &t.Scopes); err != nil {
			return nil, fmt.Errorf("reading a token: %w", err)
		}
		t.Created, t.Expires, t.Used = time.Unix(0, c), time.Unix(0, e), time.Unix(0, u)
		list = append(list, t)
	}
	return list, rows.Err()
}

// PutToken implements Store.
func (d *DB) PutToken(ctx context.Context, t APIToken) error {
	scopes, err := json.Marshal(t.Scopes)
	if err != nil {
		return err
	}
	return d.exec(ctx, true, "INSERT INTO tokens SELECT ?, ?, id, ?, ?, ?, 0 FROM accounts WHERE id = ? AND NOT json_extract(data, '$.Disabled')", t.Hash, t.ID, string(scopes), t.Created.UnixNano(), t.Expires.UnixNano(), t.Account)
}

// TouchToken implements Store.
func (d *DB) TouchToken(ctx context.Context, hash string, used time.Time) error {
	return d.exec(ctx, true, "UPDATE tokens SET used = ? WHERE hash = ?", used.UnixNano(), hash)
}

// RevokeToken implements Store.
func (d *DB) RevokeToken(ctx context.Context, account, id string) error {
	return d.exec(ctx, true, "DELETE FROM tokens WHERE account = ? AND id = ?", account, id)
}
