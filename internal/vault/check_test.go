package vault

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/counterseal/counterseal/internal/event"
)

// known is what the ledger of the house says.
func (h *house) known(erased ...StatedErasure) Stated {
	h.mu.Lock()
	defer h.mu.Unlock()
	k := Stated{Org: h.org, Windows: map[string]StatedWindow{}, Erased: erased}
	for i, w := range h.stated {
		k.Windows[w.ID] = StatedWindow{N: w.N, Root: w.Root, Index: uint64(i)}
	}
	return k
}

func (h *house) check(k Stated) Report {
	h.t.Helper()
	r, err := checkDir(h.dir, k)
	if err != nil {
		h.t.Fatal(err)
	}
	for _, f := range r.Findings {
		if i, _ := event.NextToken([]byte(f.Place + f.What)); i >= 0 {
			h.t.Errorf("a finding tells a token: %s", f.Place+f.What)
		}
	}
	return r
}

func checkDir(dir string, k Stated) (Report, error) {
	s, err := Look(context.Background(), dir)
	if err != nil {
		return Report{}, err
	}
	defer s.Close()
	return s.Check(context.Background(), k)
}

// placesOf gives where the rows of people stand.
func (h *house) placesOf(names ...string) []Place {
	h.t.Helper()
	var tokens []event.Token
	for _, n := range names {
		tokens = append(tokens, tokenOf(n))
	}
	p, err := h.v.Places(context.Background(), tokens)
	if err != nil {
		h.t.Fatal(err)
	}
	return p
}

// full fills a house: several windows, two epochs of officers, some rows erased.
func (h *house) full(each int) StatedErasure {
	h.t.Helper()
	for w := range 3 {
		for i := range each {
			h.sees(fmt.Sprintf("name %d %d", w, i))
		}
		h.keeps()
		h.closes()
	}
	h.v.Close()
	h.e.Epoch++
	h.open()
	h.sees("name 0 0", "name 1 1", "somebody else")
	h.keeps()
	h.closes()
	e := StatedErasure{ID: "0190b2a0-0000-7000-8000-000000000001", Places: h.placesOf("name 0 0", "name 2 0"), Index: 90}
	if n, err := h.v.Erase(context.Background(), e.ID, e.Places); n != 3 || err != nil {
		h.t.Fatal(n, err)
	}
	return e
}

func TestCheck(t *testing.T) {
	h := newHouse(t)
	e := h.full(4)
	r := h.check(h.known(e))
	if len(r.Findings)+r.More+len(r.Notes) > 0 || r.Windows != 4 || r.Rows != 12 || r.Erased != 3 {
		t.Fatalf("%+v", r)
	}
	h.sees("who comes now") // the open window is no fault, and neither is one that waits
	h.keeps()
	if r := h.check(h.known(e)); len(r.Findings) > 0 {
		t.Fatal(r.Findings)
	}
	h.down = true
	if err := h.v.CloseWindow(t.Context()); err == nil {
		t.Fatal("the ledger is not away")
	}
	if r := h.check(h.known(e)); len(r.Findings) > 0 || len(r.Notes) != 1 {
		t.Fatalf("%+v", r)
	}
	h.down = false
	h.closes()
	if r := h.check(h.known(e)); len(r.Findings)+len(r.Notes) > 0 {
		t.Fatalf("%+v", r)
	}
	if r := h.check(h.known()); len(r.Findings) != 3 || !strings.Contains(r.Findings[0].What, "no statement says that it was erased") {
		t.Errorf("rows that no statement explains: %+v", r)
	}
	late := StatedErasure{ID: "0190b2a0-0000-7000-8000-000000000002", Places: h.placesOf("name 1 0"), Index: 91}
	if r := h.check(h.known(e, late)); len(r.Findings) > 0 || len(r.Notes) != 1 {
		t.Errorf("stated and not done: %+v", r)
	}
	// A window that the ledger knows and the file does not.
	k := h.known(e)
	k.Windows["0190b2a0-0000-7000-8000-000000000009"] = StatedWindow{N: 1, Index: 7}
	if r := h.check(k); len(r.Findings) != 1 || r.Findings[0].Index != 7 {
		t.Errorf("a window is missing: %+v", r)
	}
	h.v.Close()
	for _, f := range []string{"", "-wal", "-shm"} {
		os.Remove(filepath.Join(h.dir, File) + f)
	}
	if _, err := Look(t.Context(), h.dir); !os.IsNotExist(err) {
		t.Error(err)
	}
}

// TestRandomEdits: whatever somebody changes in the file, Check names it, and with where.
func TestRandomEdits(t *testing.T) {
	h := newHouse(t)
	e := h.full(5)
	h.v.Close()
	whole, err := os.ReadFile(filepath.Join(h.dir, File))
	if err != nil {
		t.Fatal(err)
	}
	other, err := Seal(h.e, h.org, tokenOf("somebody put in"), Identity{event.Person, []byte("mallory")})
	if err != nil {
		t.Fatal(err)
	}
	k := h.known(e)
	type edit struct {
		name string
		do   func(draw *rand.Rand, db *sql.DB) (int64, error)
	}
	exec := func(q string, args ...any) func(*rand.Rand, *sql.DB) (int64, error) {
		return func(_ *rand.Rand, db *sql.DB) (int64, error) {
			res, err := db.Exec(q, args...)
			if err != nil {
				return 0, err
			}
			return res.RowsAffected()
		}
	}
	const any1 = "(SELECT id FROM seals ORDER BY random() LIMIT 1)"
	flip := func(q, set string) func(*rand.Rand, *sql.DB) (int64, error) {
		return func(draw *rand.Rand, db *sql.DB) (int64, error) {
			var id int64
			var b []byte
			if err := db.QueryRow(q).Scan(&id, &b); err != nil {
				return 0, err
			}
			b[draw.IntN(len(b))] ^= 1 << draw.IntN(8)
			return exec(set, b, id)(draw, db)
		}
	}
	put := func(seq, stated int) func(*rand.Rand, *sql.DB) (int64, error) {
		return func(draw *rand.Rand, db *sql.DB) (int64, error) {
			c := other.Commitment()
			r := root([][32]byte{c})
			if _, err := db.Exec("INSERT INTO windows VALUES (?, '0190b2a0-0000-7000-8000-00000000000b', 1, ?, ?)", seq, r[:], stated); err != nil {
				return 0, err
			}
			if _, err := db.Exec("INSERT INTO leaves VALUES (?, 0, ?)", seq, c[:]); err != nil {
				return 0, err
			}
			return exec("INSERT INTO seals (token, epoch, win, idx, row) VALUES (?, ?, ?, 0, ?)", string(other.Token), other.Epoch(), seq, other.Bytes)(draw, db)
		}
	}
	edits := []edit{
		{"flip a bit of a row", flip("SELECT id, row FROM seals ORDER BY random() LIMIT 1", "UPDATE seals SET row = ? WHERE id = ?")},
		{"flip a bit of a root", flip("SELECT seq, root FROM windows ORDER BY random() LIMIT 1", "UPDATE windows SET root = ? WHERE seq = ?")},
		{"flip a bit of a leaf", flip("SELECT win * 1000 + idx, commitment FROM leaves ORDER BY random() LIMIT 1", "UPDATE leaves SET commitment = ? WHERE win * 1000 + idx = ?")},
		{"take a row", exec("DELETE FROM seals WHERE id = " + any1)},
		{"another row", exec("UPDATE seals SET row = ? WHERE id = "+any1, other.Bytes)},
		{"another row with its leaf", func(draw *rand.Rand, db *sql.DB) (int64, error) {
			c := other.Commitment()
			if _, err := exec("UPDATE leaves SET commitment = ? WHERE win = 2 AND idx = 1", c[:])(draw, db); err != nil {
				return 0, err
			}
			return exec("UPDATE seals SET row = ? WHERE win = 2 AND idx = 1", other.Bytes)(draw, db)
		}},
		{"another token", exec("UPDATE seals SET token = ? WHERE id = "+any1, string(tokenOf("nobody at all")))},
		{"another epoch", exec("UPDATE seals SET epoch = epoch + 7 WHERE id = " + any1)},
		{"exchange rows", exec("UPDATE seals SET row = (SELECT row FROM seals o WHERE o.id = (SELECT min(id) FROM seals)) WHERE id = (SELECT max(id) FROM seals)")},
		{"exchange places", func(draw *rand.Rand, db *sql.DB) (int64, error) {
			for _, q := range []string{"UPDATE seals SET idx = 9999 WHERE win = 1 AND idx = 1", "UPDATE seals SET idx = 1 WHERE win = 1 AND idx = 2", "UPDATE seals SET idx = 2 WHERE win = 1 AND idx = 9999"} {
				if _, err := db.Exec(q); err != nil {
					return 0, err
				}
			}
			return 1, nil
		}},
		{"a row for one that was erased", exec("INSERT INTO seals (token, epoch, win, idx, row) SELECT token, epoch + 9, (SELECT seq FROM windows WHERE windows.id = ?), ?, row FROM seals WHERE id = "+any1, e.Places[0].Window, e.Places[0].Index)},
		{"a row of no leaf", exec("INSERT INTO seals (token, epoch, win, idx, row) SELECT token, epoch + 9, win, 777, row FROM seals WHERE id = " + any1)},
		{"a row of no window", exec("UPDATE seals SET win = 88 WHERE id = " + any1)},
		{"take a leaf", exec("DELETE FROM leaves WHERE win = 2 AND idx = (SELECT max(idx) FROM leaves WHERE win = 2)")},
		{"take a leaf and its row", func(draw *rand.Rand, db *sql.DB) (int64, error) {
			if _, err := db.Exec("DELETE FROM seals WHERE win = 3 AND idx = 4"); err != nil {
				return 0, err
			}
			return exec("DELETE FROM leaves WHERE win = 3 AND idx = 4")(draw, db)
		}},
		{"one more leaf", exec("INSERT INTO leaves SELECT win, idx + 1, commitment FROM leaves WHERE win = 2 ORDER BY idx DESC LIMIT 1")},
		{"all leaves of a window", exec("DELETE FROM leaves WHERE win = 2")},
		{"leaves of no window", exec("INSERT INTO leaves SELECT 99, idx, commitment FROM leaves WHERE win = 1")},
		{"another number", exec("UPDATE windows SET n = n + 1 WHERE seq = (SELECT seq FROM windows ORDER BY random() LIMIT 1)")},
		{"a window is opened again", exec("UPDATE windows SET n = NULL, root = NULL, stated = 0 WHERE seq = 2")},
		{"another id of a window", exec("UPDATE windows SET id = '0190b2a0-0000-7000-8000-00000000000a' WHERE seq = 2")},
		{"take a window", exec("DELETE FROM windows WHERE seq = (SELECT seq FROM windows ORDER BY random() LIMIT 1)")},
		{"put a window in", put(50, 1)},
		{"a window that was not stated, before those that were", put(0, 0)},
	}
	seed := uint64(time.Now().UnixNano())
	draw := rand.New(rand.NewPCG(seed, 3))
	rounds := 4 * len(edits)
	for i := range rounds {
		ed := edits[i%len(edits)]
		dir := t.TempDir()
		if err := os.Mkdir(filepath.Join(dir, "vault"), 0o700); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, File)
		if err := os.WriteFile(path, whole, 0o600); err != nil {
			t.Fatal(err)
		}
		db, err := sql.Open("sqlite", "file:"+path)
		if err != nil {
			t.Fatal(err)
		}
		n, err := ed.do(draw, db)
		if err != nil || n == 0 {
			t.Fatal(ed.name, n, err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		r, err := checkDir(dir, k)
		if err != nil || len(r.Findings) == 0 {
			t.Errorf("seed %d: %s: nothing is found: %v %v", seed, ed.name, r.Notes, err)
			continue
		}
		for _, f := range r.Findings {
			if i, _ := event.NextToken([]byte(f.Place + f.What)); i >= 0 || !strings.Contains(f.Place, "window") {
				t.Errorf("seed %d: %s: %+v", seed, ed.name, f)
			}
		}
	}
}

// BenchmarkCheck reads a vault of 100,000 rows. They are copies of one: sealing them would
// take minutes.
func BenchmarkCheck(b *testing.B) {
	h := newHouse(b)
	h.sees("somebody")
	h.keeps()
	h.closes()
	const rows, in = 100_000, 1000
	tx, err := h.v.db.Begin()
	if err != nil {
		b.Fatal(err)
	}
	k := h.known()
	n := 0
	for w := range rows / in {
		var leaves [][32]byte
		id := fmt.Sprintf("0190b2a0-0000-7000-8000-%012d", w)
		for i := range in {
			t := tokenOf(fmt.Sprint(n))
			n++
			row, err := h.copied(t)
			if err != nil {
				b.Fatal(err)
			}
			c := row.Commitment()
			leaves = append(leaves, c)
			if _, err := tx.Exec("INSERT INTO leaves VALUES (?, ?, ?)", w+10, i, c[:]); err != nil {
				b.Fatal(err)
			}
			if _, err := tx.Exec("INSERT INTO seals (token, epoch, win, idx, row) VALUES (?, ?, ?, ?, ?)", string(t), row.Epoch(), w+10, i, row.Bytes); err != nil {
				b.Fatal(err)
			}
		}
		r := root(leaves)
		if _, err := tx.Exec("INSERT INTO windows VALUES (?, ?, ?, ?, 1)", w+10, id, in, r[:]); err != nil {
			b.Fatal(err)
		}
		k.Windows[id] = StatedWindow{N: in, Root: r}
	}
	if err := tx.Commit(); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		r, err := checkDir(h.dir, k)
		if err != nil || len(r.Findings) > 0 || r.Rows != rows+1 {
			b.Fatal(r, err)
		}
	}
	b.ReportMetric(float64(rows)*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
}

// copied is the row of somebody under another token: nobody could open it.
func (h *house) copied(t event.Token) (*Row, error) {
	var raw string
	if err := h.v.db.QueryRow("SELECT row FROM seals WHERE id = 1").Scan(&raw); err != nil {
		return nil, err
	}
	return ParseRow([]byte(strings.Replace(raw, string(tokenOf("somebody")), string(t), 1)))
}
