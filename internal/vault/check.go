package vault

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/google/uuid"

	"github.com/counterseal/counterseal/internal/event"
)

// Stated is what the ledger says of a vault.
type Stated struct {
	Org     uuid.UUID               // of the data directory; zero: not known
	Windows map[string]StatedWindow // by id
	Erased  []StatedErasure
}

// StatedWindow is a window with the statement about it.
type StatedWindow struct {
	N     int64
	Root  [32]byte
	Index uint64
}

// StatedErasure is a statement about rows that are erased.
type StatedErasure struct {
	ID     string
	Places []Place
	Index  uint64
}

// Finding is a place where file and ledger disagree. It names no token.
type Finding struct {
	Place string // such as window 01…, row 3
	What  string
	Index int64 // of the statement, or -1
}

// Report is what Check found.
type Report struct {
	Windows, Rows, Erased int64
	Findings              []Finding // the first of them
	More                  int       // findings beyond those
	Notes                 []string
}

// maxFindings bounds what is told one by one.
const maxFindings = 200

func (r *Report) add(index int64, place, format string, args ...any) {
	if len(r.Findings) >= maxFindings {
		r.More++
		return
	}
	r.Findings = append(r.Findings, Finding{place, fmt.Sprintf(format, args...), index})
}

// Snapshot is a vault of one moment, open for reading.
type Snapshot struct {
	path    string
	db      *sql.DB
	tx      *sql.Tx
	version int
}

// Look opens the vault of a data directory for reading, beside a running server, as it is
// now. A file that is missing gives an error that is fs.ErrNotExist.
func Look(ctx context.Context, dir string) (*Snapshot, error) {
	path := filepath.Join(dir, File)
	if _, err := os.Stat(path); err != nil {
		return nil, err
	}
	s := &Snapshot{path: path}
	var err error
	if s.db, s.tx, s.version, err = readOnly(ctx, path); err != nil {
		return nil, err
	}
	return s, nil
}

func readOnly(ctx context.Context, path string) (*sql.DB, *sql.Tx, int, error) {
	db, err := sql.Open("sqlite", "file:"+path+"?mode=ro&_pragma=busy_timeout(5000)&_pragma=query_only(true)")
	if err != nil {
		return nil, nil, 0, err
	}
	db.SetMaxOpenConns(1)
	tx, err := db.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return nil, nil, 0, errors.Join(whatIs("reading", err), db.Close())
	}
	var have, rows int
	if err = tx.QueryRowContext(ctx, "PRAGMA user_version").Scan(&have); err == nil {
		err = tx.QueryRowContext(ctx, "SELECT count(*) FROM windows").Scan(&rows) // the moment begins
	}
	if err == nil && have != version && have != 1 {
		err = errOther
	}
	if err != nil {
		return nil, nil, 0, errors.Join(whatIs("reading", err), tx.Rollback(), db.Close())
	}
	return db, tx, have, nil
}

// Close ends it.
func (s *Snapshot) Close() error { return errors.Join(s.tx.Rollback(), s.db.Close()) }

// lookedAt is a window of the file.
type lookedAt struct {
	id     string
	n      sql.NullInt64
	root   []byte
	stated bool
}

// Check holds a snapshot against what a ledger says that was read after the snapshot was
// taken: each window has the leaves, number and root that were stated; each row is the one
// of its leaf and stands under its token and epoch; a leaf without a row was stated as
// erased, and one that was is gone; nothing that was stated is missing, and nothing is there
// that was not.
func (s *Snapshot) Check(ctx context.Context, known Stated) (Report, error) {
	var r Report
	fail := func(err error) (Report, error) { return r, whatIs("reading", err) }
	done := map[string]bool{}
	if s.version > 1 {
		if err := s.each(ctx, "SELECT statement FROM erased", func(rows *sql.Rows) error {
			var id string
			err := rows.Scan(&id)
			done[id] = true
			return err
		}); err != nil {
			return fail(err)
		}
	}
	erased := map[Place]*StatedErasure{}
	for i := range known.Erased {
		e := &known.Erased[i]
		for _, p := range e.Places {
			if erased[p] == nil || done[e.ID] { // once for good is enough
				erased[p] = e
			}
		}
	}
	windows := map[int64]*lookedAt{}
	var order []int64
	if err := s.each(ctx, "SELECT seq, id, n, root, stated FROM windows ORDER BY seq", func(rows *sql.Rows) error {
		var seq int64
		w := &lookedAt{}
		if err := rows.Scan(&seq, &w.id, &w.n, &w.root, &w.stated); err != nil {
			return err
		}
		windows[seq] = w
		order = append(order, seq)
		return nil
	}); err != nil {
		return fail(err)
	}
	// Windows are stated in order, and the last one may be open.
	there := map[string]bool{}
	waiting := 0
	for i, seq := range order {
		w := windows[seq]
		there[w.id] = true
		at := "window " + event.Printable(w.id)
		st, ok := known.Windows[w.id]
		last := !slices.ContainsFunc(order[i+1:], func(s int64) bool { return windows[s].stated })
		switch {
		case ok && (!w.n.Valid || w.n.Int64 != st.N || !bytes.Equal(w.root, st.Root[:])):
			r.add(int64(st.Index), at, "it has another number of rows or another root than the ledger knows")
		case ok:
		case w.stated:
			r.add(-1, at, "no statement knows this window: it was put in, or the ledger is an older one")
		case !last:
			r.add(-1, at, "it was never stated, and later ones were")
		case !w.n.Valid && seq != order[len(order)-1]:
			r.add(-1, at, "it is open, and there are later ones")
		case w.n.Valid:
			waiting++
		}
	}
	if waiting > 0 {
		r.Notes = append(r.Notes, fmt.Sprintf("%d windows of the vault are not stated yet: the server does it, or its next start", waiting))
	}
	r.Windows = int64(len(order))
	if err := s.missing(ctx, known, there, &r); err != nil {
		return fail(err)
	}
	if err := s.rows(ctx, known, windows, order, erased, done, &r); err != nil {
		return fail(err)
	}
	return r, nil
}

// missing names windows that the ledger knows and that are not in the file. What was made
// since the snapshot is in the file of now.
func (s *Snapshot) missing(ctx context.Context, known Stated, there map[string]bool, r *Report) error {
	var lost []string
	for id := range known.Windows {
		if !there[id] {
			lost = append(lost, id)
		}
	}
	if len(lost) == 0 {
		return nil
	}
	db, tx, _, err := readOnly(ctx, s.path)
	if err != nil {
		return err
	}
	defer db.Close()
	defer tx.Rollback()
	slices.Sort(lost)
	for _, id := range lost {
		var have bool
		if err := tx.QueryRowContext(ctx, "SELECT EXISTS (SELECT 1 FROM windows WHERE id = ?)", id).Scan(&have); err != nil {
			return err
		}
		if !have {
			r.add(int64(known.Windows[id].Index), "window "+id, "the ledger knows this window and it is not there: it was taken away, or an older copy was put back")
		}
	}
	return nil
}

// rows reads leaves and rows of all windows together.
func (s *Snapshot) rows(ctx context.Context, known Stated, windows map[int64]*lookedAt, order []int64, erased map[Place]*StatedErasure, done map[string]bool, r *Report) error {
	leaves := make(map[int64][][32]byte, 1)
	end := func(seq int64) { // all leaves of a window are known
		w, got := windows[seq], leaves[seq]
		delete(leaves, seq)
		if w == nil || !w.n.Valid {
			return
		}
		at := "window " + event.Printable(w.id)
		if int64(len(got)) != w.n.Int64 {
			r.add(-1, at, "it has %d leaves and was closed with %d", len(got), w.n.Int64)
		} else if h := root(got); !bytes.Equal(h[:], w.root) {
			r.add(-1, at, "its root is not that of its leaves: one of them was altered")
		}
	}
	seen := map[int64]bool{}
	back := map[string]int64{} // statement to rows that are there
	now := int64(-1)
	err := s.each(ctx, "SELECT l.win, l.idx, l.commitment, s.token, s.epoch, s.row FROM leaves l LEFT JOIN seals s ON s.win = l.win AND s.idx = l.idx ORDER BY l.win, l.idx", func(rows *sql.Rows) error {
		var win, idx int64
		var commitment, row []byte
		var token sql.NullString
		var epoch sql.NullInt64
		if err := rows.Scan(&win, &idx, &commitment, &token, &epoch, &row); err != nil {
			return err
		}
		if win != now {
			if now >= 0 {
				end(now)
			}
			now, seen[win] = win, true
		}
		w := windows[win]
		if w == nil {
			r.add(-1, "leaf "+strconv.FormatInt(idx, 10)+" of window number "+strconv.FormatInt(win, 10), "it stands in no window")
			return nil
		}
		p := Place{w.id, idx}
		at := fmt.Sprintf("window %s, row %d", event.Printable(w.id), idx)
		if idx != int64(len(leaves[win])) || len(commitment) != 32 {
			r.add(-1, at, "its leaf is out of its place or no commitment")
		}
		var c [32]byte
		copy(c[:], commitment)
		if len(leaves[win]) <= maxWindow {
			leaves[win] = append(leaves[win], c)
		}
		e := erased[p]
		switch {
		case !token.Valid && e == nil:
			r.add(-1, at, "the row is gone and no statement says that it was erased")
		case !token.Valid:
			r.Erased++
		case e != nil && done[e.ID]:
			r.add(int64(e.Index), at, "the row is there again after it was erased")
		case e != nil:
			back[e.ID]++
		}
		if token.Valid {
			r.Rows++
			if what := wrong(row, c, token.String, epoch.Int64, known.Org); what != "" {
				r.add(-1, at, "%s", what)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if now >= 0 {
		end(now)
	}
	for _, seq := range order {
		if w := windows[seq]; !seen[seq] && w.n.Valid {
			r.add(-1, "window "+event.Printable(w.id), "its leaves are gone")
		}
	}
	for _, e := range known.Erased {
		if n := back[e.ID]; n > 0 {
			r.Notes = append(r.Notes, fmt.Sprintf("statement %d says that %d rows of the vault are erased, and it is not done yet: the server does it, or its next start", e.Index, n))
			delete(back, e.ID)
		}
	}
	return s.each(ctx, "SELECT s.win, s.idx FROM seals s LEFT JOIN leaves l ON l.win = s.win AND l.idx = s.idx WHERE l.win IS NULL ORDER BY s.win, s.idx", func(rows *sql.Rows) error {
		var win, idx int64
		if err := rows.Scan(&win, &idx); err != nil {
			return err
		}
		at := "window number " + strconv.FormatInt(win, 10)
		if w := windows[win]; w != nil {
			at = "window " + event.Printable(w.id)
		}
		r.add(-1, fmt.Sprintf("%s, row %d", at, idx), "a row without a leaf: it was put in")
		return nil
	})
}

// wrong says what is wrong with a row, by its leaf and the columns beside it. A row of which
// the commitment is right is the one that was sealed, in canonical form, so its last members
// are where they are.
func wrong(row []byte, commitment [32]byte, token string, epoch int64, org uuid.UUID) string {
	if sha256.Sum256(row) != commitment {
		return "the row is not the one of its leaf"
	}
	rest, ok := bytes.CutSuffix(row, []byte(`","token":"`+token+`","v":1}`))
	if !ok || !event.IsToken([]byte(token)) {
		return "the row stands under another token than its own"
	}
	if org != uuid.Nil && !bytes.HasSuffix(rest, []byte(`"org":"`+org.String())) {
		return "the row is of another organisation"
	}
	_, of, ok := bytes.Cut(row, []byte(`"epoch":`))
	if !ok || !bytes.HasPrefix(of, []byte(strconv.FormatInt(epoch, 10)+",")) {
		return "the row stands under another epoch of officers than its own"
	}
	return ""
}

func (s *Snapshot) each(ctx context.Context, q string, fn func(*sql.Rows) error) error {
	rows, err := s.tx.QueryContext(ctx, q)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := fn(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}
