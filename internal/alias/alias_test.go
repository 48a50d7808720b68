package alias

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/counterseal/counterseal/internal/event"
)

var noon = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

func key(k string) func([]byte) [32]byte {
	return func(msg []byte) (sum [32]byte) {
		h := hmac.New(sha256.New, []byte(k+" is the key of a test, of 112 bits"))
		h.Write(msg)
		h.Sum(sum[:0])
		return sum
	}
}

// crowded is a key under which the first 30 bits of an alias take few values, so that
// nearly all collide. 0x0006b2xx is `aa2`, and more.
func crowded(msg []byte) [32]byte {
	sum := key("k")(msg)
	sum[0], sum[1], sum[2], sum[3] = 0x00, 0x35, 0x00, sum[3]&0x07
	return sum
}

func options(t testing.TB) Options {
	return Options{MAC: key("k"), Path: filepath.Join(t.TempDir(), "state", "aliases.db"), Now: func() time.Time { return noon }}
}

func open(t testing.TB, o Options) *Book {
	t.Helper()
	b, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() }) // a second time where the test has closed it
	return b
}

func token(kind event.TokenKind, n uint64) string {
	var bits [16]byte
	sum := sha256.Sum256(binary.BigEndian.AppendUint64(nil, n))
	copy(bits[:], sum[:])
	return string(event.NewToken(kind, 1+int(n%3), bits))
}

func show(t testing.TB, b *Book, s Scope, tok string) string {
	t.Helper()
	a, err := b.Show(context.Background(), s, tok)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func resolve(t testing.TB, b *Book, s Scope, text string) Resolved {
	t.Helper()
	r, err := b.Resolve(context.Background(), s, text)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

var aliasForm = regexp.MustCompile(`^(person|mail|device|address)-[a-z2-7]{6,52}$`)

func TestShowIsStableAndBoundToItsScope(t *testing.T) {
	o := options(t)
	b := open(t, o)
	o2 := options(t)
	o2.MAC = key("another")
	other := open(t, o2)
	scopes := []Scope{
		{Case: "c1"}, {Case: "c2"}, OfTeam("soc", noon), OfTeam("soc2", noon), OfTeam("soc", noon.AddDate(0, 0, -1)),
		{Case: "team\x002026-11-20soc"},
	}
	words := map[event.TokenKind]string{event.Person: "person-", event.Mail: "mail-", event.Device: "device-", event.Address: "address-"}
	for n := range uint64(200) {
		for kind, word := range words {
			tok := token(kind, n)
			seen := map[string]Scope{}
			for _, s := range scopes {
				a := show(t, b, s, tok)
				if !aliasForm.MatchString(a) || !strings.HasPrefix(a, word) {
					t.Fatalf("kind %c: alias of another form: %q", kind, a)
				}
				if again := show(t, b, s, tok); again != a {
					t.Fatalf("%v: %q, then %q", s, a, again)
				}
				if old, ok := seen[a]; ok {
					t.Fatalf("%v and %v share an alias", old, s)
				}
				seen[a] = s
				if strings.Contains(a, tok[3:9]) {
					t.Fatalf("alias %q holds a part of %q", a, tok)
				}
				if r := resolve(t, b, s, a); r != (Resolved{Text: tok, Known: 1}) {
					t.Fatalf("%v: resolved %+v, want %q", s, r, tok)
				}
				if show(t, other, s, tok) == a {
					t.Fatal("two keys give one alias")
				}
			}
		}
	}
}

func TestACaseWins(t *testing.T) {
	b := open(t, options(t))
	tok := token(event.Person, 1)
	want := show(t, b, Scope{Case: "c1"}, tok)
	if got := show(t, b, Scope{Case: "c1", Team: "soc", Day: "no day"}, tok); got != want {
		t.Errorf("with team and day: %q, want %q", got, want)
	}
}

func TestCollisionsGetMoreCharacters(t *testing.T) {
	o := options(t)
	o.MAC = crowded
	b := open(t, o)
	s := Scope{Case: "c1"}
	by := map[string]string{}
	lengths := map[int]int{}
	for n := range uint64(300) {
		tok := token(event.Person, n)
		a := show(t, b, s, tok)
		if by[a] != "" {
			t.Fatalf("two tokens share %q", a)
		}
		by[a] = tok
		lengths[len(a)-len("person-")]++
	}
	if lengths[6] == 0 || lengths[6] > 8 || lengths[7] == 0 || lengths[8] == 0 {
		t.Errorf("lengths %v: want a few of 6, then longer ones", lengths)
	}
	check := func(when string) {
		t.Helper()
		for a, tok := range by {
			if got := show(t, b, s, tok); got != a {
				t.Fatalf("%s: shown %q, then %q", when, a, got)
			}
			if r := resolve(t, b, s, "x "+a+" y"); r.Text != "x "+tok+" y" {
				t.Fatalf("%s: %q resolved to %+v", when, a, r)
			}
		}
	}
	check("at once")
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	b = open(t, o)
	check("after a restart")
	b.rows = 64 // less than the scope has: most lies in the file alone
	b.pages = map[[32]byte]*page{}
	b.total = 0
	check("with little memory")
	if b.total > 64 {
		t.Errorf("%d aliases in memory, the bound is 64", b.total)
	}
}

func TestABrokenKeyIsAnError(t *testing.T) {
	o := options(t)
	o.MAC = func([]byte) [32]byte { return [32]byte{} }
	b := open(t, o)
	if _, err := b.Show(context.Background(), Scope{Case: "c1"}, token(event.Person, 1)); err == nil {
		t.Error("a digest without any form was taken")
	}
	o = options(t)
	o.MAC = func(msg []byte) [32]byte { return [32]byte{0x00, 0x35, 0x00} }
	b = open(t, o)
	for n := range uint64(longest - Shortest + 1) {
		show(t, b, Scope{Case: "c1"}, token(event.Person, n))
	}
	if _, err := b.Show(context.Background(), Scope{Case: "c1"}, token(event.Person, 99)); err == nil {
		t.Error("48 tokens with one digest got as many aliases")
	}
}

func TestResolve(t *testing.T) {
	b := open(t, options(t))
	c1, c2 := Scope{Case: "c1"}, Scope{Case: "c2"}
	p, m := token(event.Person, 1), token(event.Mail, 2)
	ap, am := show(t, b, c1, p), show(t, b, c1, m)
	foreign := show(t, b, c2, p)
	for _, c := range []struct {
		in   string
		want Resolved
	}{
		{"", Resolved{}},
		{"user=" + ap + " AND mail:\"" + am + "\"", Resolved{Text: "user=" + p + " AND mail:\"" + m + "\"", Known: 2}},
		{strings.ToUpper(ap) + "," + ap, Resolved{Text: p + "," + p, Known: 2}},
		{"(" + ap + "*)", Resolved{Text: "(" + p + "*)", Known: 1}},
		{foreign + " " + ap, Resolved{Text: foreign + " " + p, Known: 1, Unknown: 1}},
		{ap + "a", Resolved{Text: ap + "a", Unknown: 1}},
		{ap + "_", Resolved{Text: ap + "_"}},
		{ap + "9", Resolved{Text: ap + "9"}},
		{ap + "é", Resolved{Text: ap + "é"}},
		{"x" + ap, Resolved{Text: "x" + ap}},
		{"X" + ap, Resolved{Text: "X" + ap}},
		{"é" + ap, Resolved{Text: "é" + ap}},
		{"my-" + ap + "-x", Resolved{Text: "my-" + p + "-x", Known: 1}},
		{ap[:len(ap)-1], Resolved{Text: ap[:len(ap)-1]}},
		// Words of everyday are no aliases: an alias has a digit before a letter.
		{"mail-server mail-server2 device-manager person-related address-book device-22 mail-a9b8c7d6",
			Resolved{Text: "mail-server mail-server2 device-manager person-related address-book device-22 mail-a9b8c7d6"}},
		{"person-a2bcde", Resolved{Text: "person-a2bcde", Unknown: 1}},
		{"person-a2bcde" + strings.Repeat("f", 47), Resolved{Text: "person-a2bcde" + strings.Repeat("f", 47)}},
		{"user=" + p, Resolved{Text: "user=" + p, Tokens: 1}},
		{strings.ToUpper(p) + "x" + m + " " + ap, Resolved{Text: strings.ToUpper(p) + "x" + m + " " + p, Known: 1, Tokens: 2}},
		{"\xff-\xffperson-\xff" + ap[:7], Resolved{Text: "\xff-\xffperson-\xff" + ap[:7]}},
	} {
		if got := resolve(t, b, c1, c.in); got != c.want {
			t.Errorf("%q:\n got %+v\nwant %+v", c.in, got, c.want)
		}
	}
	if _, err := b.Resolve(context.Background(), c1, strings.Repeat(" ", MaxText+1)); !errors.Is(err, ErrText) {
		t.Errorf("a long text: %v", err)
	}
}

func TestBadScopesAndTokens(t *testing.T) {
	b := open(t, options(t))
	ctx := context.Background()
	tok := token(event.Person, 1)
	for _, c := range []struct {
		s    Scope
		want error
	}{
		{Scope{}, ErrScope},
		{Scope{Team: "soc"}, ErrScope},
		{Scope{Day: "2026-11-20"}, ErrScope},
		{Scope{Team: "soc", Day: "2026-11-31"}, ErrScope},
		{Scope{Team: "soc", Day: "2026-11-20 "}, ErrScope},
		{Scope{Team: strings.Repeat("a", 201), Day: "2026-11-20"}, ErrScope},
		{Scope{Case: strings.Repeat("a", 201)}, ErrScope},
		{Scope{Team: "soc", Day: "2026-11-12"}, ErrPast},
		{Scope{Team: "soc", Day: "2026-11-13"}, nil},
		{Scope{Team: "soc", Day: "2026-11-21"}, nil},
		{Scope{Team: "soc", Day: "2026-11-22"}, ErrPast},
	} {
		if _, err := b.Show(ctx, c.s, tok); !errors.Is(err, c.want) {
			t.Errorf("Show in %+v: %v, want %v", c.s, err, c.want)
		}
		var out bytes.Buffer
		w := b.Writer(ctx, &out, c.s)
		_, err := w.Write([]byte("a " + tok + "."))
		if cerr := w.Close(); !errors.Is(err, c.want) || !errors.Is(cerr, c.want) {
			t.Errorf("Writer in %+v: %v, %v, want %v", c.s, err, cerr, c.want)
		}
		if c.want != nil && out.Len() > 0 {
			t.Errorf("Writer in %+v wrote %q", c.s, out.String())
		}
		if c.want == ErrScope {
			if _, err := b.Resolve(ctx, c.s, "x"); !errors.Is(err, c.want) {
				t.Errorf("Resolve in %+v: %v", c.s, err)
			}
		}
	}
	for _, bad := range []string{"", "p1_", tok + "a", " " + tok, tok[1:], "x1" + tok[2:]} {
		_, err := b.Show(ctx, Scope{Case: "c1"}, bad)
		if err == nil {
			t.Errorf("Show took %q", bad)
		}
	}
}

func TestRestartAndDeletedFile(t *testing.T) {
	o := options(t)
	s := Scope{Case: "c1"}
	b := open(t, o)
	var toks, aliases []string
	for n := range uint64(2500) { // two batches and a rest
		toks = append(toks, token(event.Person, n))
		aliases = append(aliases, show(t, b, s, toks[n]))
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	b = open(t, o)
	text := strings.Join(aliases, " ")
	want := Resolved{Text: strings.Join(toks, " "), Known: len(toks)}
	if diff := cmp.Diff(want, resolve(t, b, s, text)); diff != "" {
		t.Fatal(diff)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	for _, content := range []string{"", "this is no database file, it is a text of more than one hundred bytes, which no reader of databases takes"} {
		for _, suffix := range []string{"", "-wal", "-shm"} {
			if err := os.RemoveAll(o.Path + suffix); err != nil {
				t.Fatal(err)
			}
		}
		if content != "" {
			if err := os.WriteFile(o.Path, []byte(content), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		b = open(t, o)
		if r := resolve(t, b, s, text); r.Unknown != len(toks) || r.Text != text {
			t.Errorf("without the file: %d unknown", r.Unknown)
		}
		for i, tok := range toks {
			if a := show(t, b, s, tok); a != aliases[i] {
				t.Fatalf("after the loss of the file %q is %q", aliases[i], a)
			}
		}
		if diff := cmp.Diff(want, resolve(t, b, s, text)); diff != "" {
			t.Fatal(diff)
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAnswerIsInTheFileWhenItsWriterIsClosed(t *testing.T) {
	o := options(t)
	b := open(t, o)
	s := Scope{Case: "c1"}
	tok := token(event.Device, 5)
	var out bytes.Buffer
	w := b.Writer(context.Background(), &out, s)
	if _, err := w.Write([]byte(tok)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if r := resolve(t, open(t, o), s, out.String()); r.Text != tok { // beside the first, as after a crash
		t.Errorf("got %+v, want %q", r, tok)
	}
}

func TestFileIsForTheServerAlone(t *testing.T) {
	o := options(t)
	if err := os.MkdirAll(filepath.Dir(o.Path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(o.Path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	b := open(t, o)
	s := OfTeam("harbour-team", noon)
	show(t, b, s, token(event.Person, 1))
	show(t, b, Scope{Case: "harbour-case"}, token(event.Person, 1))
	if err := b.Flush(context.Background()); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(o.Path + "*")
	if err != nil || len(files) < 2 {
		t.Fatalf("files %v, %v", files, err)
	}
	for _, f := range files {
		info, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", filepath.Base(f), info.Mode())
		}
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(text, []byte("harbour")) {
			t.Errorf("%s names the team or the case", filepath.Base(f))
		}
	}
}

func TestDaysArePruned(t *testing.T) {
	o := options(t)
	now := noon
	o.Now = func() time.Time { return now }
	b := open(t, o)
	tok := token(event.Person, 1)
	day, kase := OfTeam("soc", noon), Scope{Case: "c1"}
	ad, ac := show(t, b, day, tok), show(t, b, kase, tok)
	count := func() (n int) {
		if err := b.db.QueryRow("SELECT count(*) FROM aliases").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	now = noon.AddDate(0, 0, Keep)
	if r := resolve(t, b, day, ad); r.Text != tok {
		t.Errorf("after %d days: %+v", Keep, r)
	}
	if n := count(); n != 2 {
		t.Errorf("%d rows after %d days, want 2", n, Keep)
	}
	now = now.AddDate(0, 0, 1)
	if r := resolve(t, b, day, ad); r.Unknown != 1 || r.Text != ad {
		t.Errorf("after %d days: %+v", Keep+1, r)
	}
	if r := resolve(t, b, kase, ac); r.Text != tok {
		t.Errorf("the alias of the case: %+v", r)
	}
	if n := count(); n != 1 {
		t.Errorf("%d rows after %d days, want that of the case", n, Keep+1)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	now = noon // a clock that was set back brings nothing back
	b = open(t, o)
	if r := resolve(t, b, day, ad); r.Unknown != 1 {
		t.Errorf("after pruning: %+v", r)
	}
	show(t, b, day, tok)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	now = noon.AddDate(0, 0, Keep+1)
	b = open(t, o)
	if n := count(); n != 1 {
		t.Errorf("%d rows after a start, want that of the case", n)
	}
}

func TestForget(t *testing.T) {
	b := open(t, options(t))
	tok := token(event.Person, 1)
	a1, a2 := show(t, b, Scope{Case: "c1"}, tok), show(t, b, Scope{Case: "c2"}, tok)
	if err := b.Forget(context.Background(), Scope{Case: "c1"}); err != nil {
		t.Fatal(err)
	}
	if r := resolve(t, b, Scope{Case: "c1"}, a1); r.Unknown != 1 {
		t.Errorf("after Forget: %+v", r)
	}
	if r := resolve(t, b, Scope{Case: "c2"}, a2); r.Text != tok {
		t.Errorf("the other case: %+v", r)
	}
	if again := show(t, b, Scope{Case: "c1"}, tok); again != a1 {
		t.Errorf("shown again: %q, want %q", again, a1)
	}
}

func TestMemoryIsBounded(t *testing.T) {
	b := open(t, options(t))
	b.rows = 100
	shown := map[Scope]string{}
	for n := range uint64(600) {
		s := Scope{Case: fmt.Sprint("c", n/2)}
		shown[s] = show(t, b, s, token(event.Person, n))
		if b.total > 100 {
			t.Fatalf("%d aliases in memory", b.total)
		}
	}
	for n := range 2 * maxPages {
		resolve(t, b, Scope{Case: fmt.Sprint("empty", n)}, "person-a2bcde")
	}
	if len(b.pages) > maxPages {
		t.Errorf("%d scopes in memory", len(b.pages))
	}
	for s, a := range shown {
		if r := resolve(t, b, s, a); r.Known != 1 {
			t.Fatalf("an alias is lost: %+v", r)
		}
	}
}

// TestStoreErrorsSurface fails the reads and writes of a real file, and looks for what
// errors must not hold.
func TestStoreErrorsSurface(t *testing.T) {
	ctx := context.Background()
	s := Scope{Case: "harbour-case"}
	toks := make([]string, batch+1)
	for n := range toks {
		toks[n] = token(event.Person, uint64(n))
	}
	exec := func(t *testing.T, b *Book, q string) {
		t.Helper()
		if _, err := b.db.Exec(q); err != nil {
			t.Fatal(err)
		}
	}
	quiet := func(t *testing.T, err error) {
		t.Helper()
		if err == nil {
			t.Fatal("no error")
		}
		for _, bad := range []string{"harbour", "person-", toks[0], toks[0][3:10], toks[batch][3:10]} {
			if strings.Contains(err.Error(), bad) {
				t.Errorf("the error holds a value: %v", err)
			}
		}
	}
	const fault = "CREATE TRIGGER fault BEFORE INSERT ON aliases BEGIN SELECT RAISE(ABORT, 'disk'); END"
	t.Run("write", func(t *testing.T) {
		b := open(t, options(t))
		exec(t, b, fault)
		for _, tok := range toks[:batch] {
			show(t, b, s, tok)
		}
		_, err := b.Show(ctx, s, toks[batch])
		quiet(t, err)
		quiet(t, b.Flush(ctx))
		if len(b.pending) != batch {
			t.Errorf("%d aliases wait, the bound is %d", len(b.pending), batch)
		}
		exec(t, b, "DROP TRIGGER fault")
		a := show(t, b, s, toks[batch]) // nothing was lost
		if r := resolve(t, b, s, a); r.Text != toks[batch] || len(b.pending) != 1 {
			t.Errorf("afterwards %+v, %d wait", r, len(b.pending))
		}
	})
	t.Run("writer", func(t *testing.T) {
		b := open(t, options(t))
		exec(t, b, fault)
		var out bytes.Buffer
		w := b.Writer(ctx, &out, s)
		_, err := w.Write([]byte(strings.Join(toks, "\n")))
		quiet(t, err)
		if n := tokens(out.Bytes()); n > 0 {
			t.Errorf("%d tokens passed", n)
		}
		was := out.Len()
		_, err = w.Write([]byte("more\n"))
		quiet(t, err)
		quiet(t, w.Close())
		if out.Len() != was {
			t.Error("something was written after the error")
		}
		w = b.Writer(ctx, &out, s)
		if _, err := w.Write([]byte(toks[0])); err == nil {
			quiet(t, w.Close())
		}
	})
	t.Run("read", func(t *testing.T) {
		b := open(t, options(t))
		show(t, b, s, toks[0])
		exec(t, b, "ALTER TABLE aliases RENAME TO elsewhere")
		_, err := b.Show(ctx, Scope{Case: "harbour-case-2"}, toks[1])
		quiet(t, err)
		_, err = b.Resolve(ctx, Scope{Case: "harbour-case-2"}, "person-a2bcde")
		quiet(t, err)
		quiet(t, b.Forget(ctx, s))
	})
	t.Run("closed", func(t *testing.T) {
		b := open(t, options(t))
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		_, err := b.Show(ctx, s, toks[0])
		quiet(t, err)
	})
	t.Run("cancelled", func(t *testing.T) {
		b := open(t, options(t))
		gone, cancel := context.WithCancel(ctx)
		cancel()
		_, err := b.Show(gone, s, toks[0])
		quiet(t, err)
		show(t, b, s, toks[0])
		// What others were shown is written all the same.
		if err := b.Flush(gone); err != nil || len(b.pending) > 0 {
			t.Errorf("Flush for an asker who went away: %v, %d wait", err, len(b.pending))
		}
	})
	t.Run("no folder", func(t *testing.T) {
		o := options(t)
		o.Path = filepath.Join(o.Path, "is-a-file", "x.db")
		if err := os.MkdirAll(filepath.Dir(filepath.Dir(filepath.Dir(o.Path))), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Dir(filepath.Dir(o.Path)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Open(o)
		quiet(t, err)
		o.MAC = nil
		_, err = Open(o)
		quiet(t, err)
	})
}

func TestConcurrent(t *testing.T) {
	o := options(t)
	o.MAC = crowded
	b := open(t, o)
	b.rows = 500
	s := Scope{Case: "c1"}
	const n, askers = 300, 4
	got := make([][]string, askers)
	var wg sync.WaitGroup
	for i := range askers {
		got[i] = make([]string, n)
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(i), 1))
			for _, k := range r.Perm(n) {
				tok := token(event.Person, uint64(k))
				var out bytes.Buffer
				w := b.Writer(context.Background(), &out, s)
				_, err := w.Write([]byte(tok))
				if err := errors.Join(err, w.Close()); err != nil {
					t.Error(err)
					return
				}
				got[i][k] = out.String()
				if res, err := b.Resolve(context.Background(), s, out.String()); err != nil || res.Text != tok {
					t.Errorf("asker %d, token %d: resolved %+v, %v", i, k, res, err)
					return
				}
			}
		})
	}
	wg.Wait()
	for i := 1; i < askers; i++ {
		if diff := cmp.Diff(got[0], got[i]); diff != "" {
			t.Fatalf("asker %d saw others (seeds 0 and %d):\n%s", i, i, diff)
		}
	}
	unique := map[string]bool{}
	for _, a := range got[0] {
		unique[a] = true
	}
	if len(unique) != n {
		t.Errorf("%d aliases for %d tokens", len(unique), n)
	}
}

// FuzzResolve holds Resolve against the words of the text, taken one by one.
func FuzzResolve(f *testing.F) {
	b := open(f, options(f))
	s := Scope{Case: "c1"}
	known := map[string]string{}
	for n, kind := range []event.TokenKind{event.Person, event.Mail, event.Device, event.Address} {
		tok := token(kind, uint64(n))
		a := show(f, b, s, tok)
		known[a] = tok
		f.Add("x " + a + "," + strings.ToUpper(a) + "-" + a + "é " + tok)
	}
	f.Add("person-a2bcde mail-server2 device-person-a2bcde _mail-a2bcde PERSON-mail-address-b3cdef")
	word := regexp.MustCompile(`[a-zA-Z0-9_\x80-\xff]+`)
	form := regexp.MustCompile(`(?i)^[a-z2-7]{6,52}$`)
	digit := regexp.MustCompile(`(?i)^.{0,4}[2-7].*[a-z]`)
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > MaxText {
			return
		}
		// Latin-1, so that the pattern sees bytes.
		wide := make([]rune, len(text))
		for i := range len(text) {
			wide[i] = rune(text[i])
		}
		latin := string(wide)
		var want strings.Builder
		unknown, hits := 0, 0
		narrow := func(s string) {
			for _, r := range s {
				want.WriteByte(byte(r))
			}
		}
		at := 0
		list := word.FindAllStringIndex(latin, -1)
		for i := 0; i+1 < len(list); i++ {
			kind, body := latin[list[i][0]:list[i][1]], latin[list[i+1][0]:list[i+1][1]]
			switch strings.Map(ascii, kind) {
			case "person", "mail", "device", "address":
			default:
				continue
			}
			if list[i+1][0] != list[i][1]+1 || latin[list[i][1]] != '-' || !form.MatchString(body) || !digit.MatchString(body[:6]) {
				continue
			}
			narrow(latin[at:list[i][0]])
			if tok := known[strings.Map(ascii, kind+"-"+body)]; tok != "" {
				want.WriteString(tok)
				hits++
			} else {
				narrow(kind + "-" + body)
				unknown++
			}
			at = list[i+1][1]
		}
		narrow(latin[at:])
		got := resolve(t, b, s, text)
		if got.Text != want.String() || got.Known != hits || got.Unknown != unknown {
			t.Errorf("%q:\n got %q, %d known, %d unknown\nwant %q, %d, %d", text, got.Text, got.Known, got.Unknown, want.String(), hits, unknown)
		}
	})
}

func ascii(r rune) rune {
	if r >= 'A' && r <= 'Z' {
		return r + 'a' - 'A'
	}
	return r
}

// TestJoined: a case that joins tokens shows one alias for them, in answers too, and turns
// back what it showed before; others show two.
func TestJoined(t *testing.T) {
	o := options(t)
	newest, older := token(event.Person, 1), token(event.Person, 2)
	on := false
	o.Joined = func(_ context.Context, caseID string) (func(string) string, error) {
		if caseID == "C-13" {
			return nil, errors.New("not now")
		}
		return func(t string) string {
			if on && caseID == "C-7" && t == older {
				return newest
			}
			return t
		}, nil
	}
	b := open(t, o)
	c, other := Scope{Case: "C-7"}, Scope{Case: "C-8"}
	first := show(t, b, c, older)
	on = true
	want := show(t, b, c, newest)
	if got := show(t, b, c, older); got != want || got == first {
		t.Errorf("shown as %q and %q", got, want)
	}
	var out bytes.Buffer
	w := b.Writer(t.Context(), &out, c)
	if _, err := fmt.Fprintf(w, "%s %s", older, newest); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil || out.String() != want+" "+want {
		t.Errorf("%q, %v", out.String(), err)
	}
	if r := resolve(t, b, c, first+" "+want); r.Text != older+" "+newest || r.Unknown != 0 {
		t.Error("an alias of before is not turned back")
	}
	if show(t, b, other, older) == show(t, b, other, newest) {
		t.Error("another case joins them")
	}
	if _, err := b.Writer(t.Context(), &out, Scope{Case: "C-13"}).Write([]byte("x")); err == nil {
		t.Error("written without knowing whom the case joins")
	}
}
