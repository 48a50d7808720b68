package evidence

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/keyring"
)

// officers are the private keys: investigation, oversight, and a spare of each.
type officers [4]*keyring.PrivateKey

func newOfficers(t testing.TB) officers {
	t.Helper()
	var o officers
	for i := range o {
		var err error
		if o[i], err = keyring.NewPrivateKey(); err != nil {
			t.Fatal(err)
		}
	}
	return o
}

func (o officers) escrow() *keyring.Escrow {
	return &keyring.Escrow{Epoch: 3, Main: keyring.Pair{Investigation: o[0].Public(), Oversight: o[1].Public()}, Spare: keyring.Pair{Investigation: o[2].Public(), Oversight: o[3].Public()}}
}

func (o officers) seal(opt *Options) { opt.Escrow = o.escrow() }

// unlock opens the key of a segment with the keys of two people.
func unlock(dir string, id uuid.UUID, investigation, oversight *keyring.PrivateKey) (*UnlockedKey, error) {
	k, err := ReadSealedKey(dir, id)
	if err != nil {
		return nil, err
	}
	for _, b := range k.Boxes() {
		info := k.Info()
		info.Epoch = b.Epoch
		inner, oerr := keyring.OpenOuter(oversight, info, b.Box)
		if oerr != nil {
			err = oerr
			continue
		}
		secret, ierr := keyring.OpenInner(investigation, info, inner)
		if ierr != nil {
			err = ierr
			continue
		}
		file, ferr := k.KeyFile(secret, time.Now().Add(time.Hour), [32]byte{1})
		if ferr != nil {
			return nil, ferr
		}
		return ParseKeyFile(file, time.Now())
	}
	return nil, err
}

func originals(t testing.TB, dir string) []string {
	t.Helper()
	var out []string
	for _, ext := range []string{extOpen, extClosed, extDamaged} {
		m, err := filepath.Glob(filepath.Join(dir, "evidence", "originals", "*", "*"+ext))
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, m...)
	}
	slices.SortFunc(out, func(a, b string) int { return strings.Compare(filepath.Base(a), filepath.Base(b)) })
	return out
}

func idOf(t testing.TB, path string) uuid.UUID {
	t.Helper()
	id, _, ok := parseName(filepath.Base(path))
	if !ok {
		t.Fatal(path)
	}
	return id
}

// readSealed reads every original with the keys of two people.
func readSealed(t testing.TB, dir string, investigation, oversight *keyring.PrivateKey) []string {
	t.Helper()
	var out []string
	for _, path := range originals(t, dir) {
		k, err := unlock(dir, idOf(t, path), investigation, oversight)
		if err != nil {
			t.Fatal(err)
		}
		r, err := OpenSegmentWithKey(path, k, time.Now)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Read(context.Background(), func(_ uint64, rec []byte) error { out = append(out, string(rec)); return nil }); err != nil {
			t.Fatal(err)
		}
		r.Close()
	}
	return out
}

// stage is where a test of crashes plays: a stream, and how to read it back.
type stage struct {
	stream Stream
	change func(*Options)
	read   func(t testing.TB, dir string, s *Store) []string
}

func clearStage() stage {
	return stage{Events, func(*Options) {}, func(t testing.TB, _ string, s *Store) []string { got, _ := all(t, s, "a"); return got }}
}

func sealedStage(t testing.TB) stage {
	o := newOfficers(t)
	return stage{Originals, o.seal, func(t testing.TB, dir string, _ *Store) []string { return readSealed(t, dir, o[0], o[1]) }}
}

// TestServerCannotOpenOriginals holds the promise: the server, restarted, with every
// key, card, file and secret that it can name, does not open one original. Two
// officers do, the spare pair does, one officer alone does not.
func TestServerCannotOpenOriginals(t *testing.T) {
	dir := quickDir(t)
	o := newOfficers(t)
	ctx := context.Background()
	s := open(t, dir, func(opt *Options) { o.seal(opt); opt.MaxSegmentRecords = 4 })
	want := texts(recs(0, 10))
	var refs []event.Ref
	for _, r := range recs(0, 10) {
		ref, err := s.Append(ctx, Originals, "a", [][]byte{r})
		if err != nil {
			t.Fatal(err)
		}
		refs = append(refs, ref)
	}
	refused := func(s *Store) {
		t.Helper()
		if _, err := s.Read(ctx, Originals, "a", Position{}, func(event.Ref, []byte) error { return nil }); !errors.Is(err, ErrNoKey) || !errors.Is(err, ErrSealed) {
			t.Fatalf("read: %v", err)
		}
		if _, err := s.Prove(ctx, Originals, refs[0]); !errors.Is(err, ErrNoKey) {
			t.Fatalf("prove: %v", err)
		}
		var d *DamageError
		if _, err := s.Read(ctx, Originals, "a", Position{}, func(event.Ref, []byte) error { return nil }); errors.As(err, &d) {
			t.Fatal("a sealed segment is called damaged")
		}
	}
	refused(s) // not even while it is written
	mustAppend(t, s, "a", recs(0, 3))
	if got, _ := all(t, s, "a"); len(got) != 3 {
		t.Fatal("the event stream is sealed too")
	}
	// The process ends without closing: the newest segment stays open.
	crashed := quickDir(t)
	copyDir(t, dir, crashed)
	s.Close()
	dir = crashed
	s = open(t, dir, o.seal)
	if r := s.Recovered(); len(r) != 2 || r[0].Kind != RecoveredClosed || r[1].Kind != RecoveredClosed || r[1].Records != 2 {
		t.Fatalf("%v", r)
	}
	refused(s)
	infos, err := s.Segments(Originals, "a")
	if err != nil || len(infos) != 3 || infos[0].Escrow != "officers" || infos[0].Records != 4 {
		t.Fatal(infos, err)
	}
	s.Close()
	if r := verify(t, dir); !r.OK() || r.Records != 13 {
		t.Fatal(r.Problems)
	}

	// Every secret that the server can name, tried as the key of every segment.
	keys, err := keyring.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	secrets := serverSecrets(t, dir, keys)
	tried := 0
	for _, path := range originals(t, dir) {
		hd, _, err := readEnds(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := Opens(dir, keys, hd.id); !errors.Is(err, ErrNoKey) {
			t.Fatalf("the keyring opens an original: %v", err)
		}
		k, err := ReadSealedKey(dir, hd.id)
		if err != nil {
			t.Fatal(err)
		}
		for _, secret := range secrets {
			tried++
			if cardCommit(hd.id, secret).String() == hd.CardCommit {
				t.Fatal("a secret of the server is the key of an original")
			}
			if priv, err := keyring.ParsePrivateKey(secret); err == nil {
				if _, err := unlock(dir, hd.id, priv, priv); err == nil {
					t.Fatal("a secret of the server opens a seal")
				}
			}
			block, err := aes.NewCipher(secret)
			if err != nil {
				t.Fatal(err)
			}
			aead, err := cipher.NewGCMWithRandomNonce(block)
			if err != nil {
				t.Fatal(err)
			}
			for _, b := range k.Boxes() {
				if _, err := aead.Open(nil, nil, b.Box, nil); err == nil {
					t.Fatal("a secret of the server opens a box")
				}
			}
		}
		if opensByAnything(t, dir, keys, hd) {
			t.Fatal("a file of the server holds a wrap of the key of an original")
		}
	}
	if tried < 100 {
		t.Fatalf("%d tries: the test looked at nothing", tried)
	}

	// The control: the same search finds the keys of the event stream.
	for _, path := range files(t, dir, "a", extClosed) {
		hd, _, err := readEnds(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := Opens(dir, keys, hd.id); err != nil || !opensByAnything(t, dir, keys, hd) {
			t.Fatalf("the search would not find a key that is there: %v", err)
		}
	}

	for i := range o {
		for j := range o {
			_, err := unlock(dir, refs[0].Segment, o[i], o[j])
			pair := i == 0 && j == 1 || i == 2 && j == 3
			if (err == nil) != pair {
				t.Errorf("investigation %d with oversight %d: %v", i, j, err)
			}
		}
	}
	for _, p := range [][2]int{{0, 1}, {2, 3}} {
		if diff := cmp.Diff(want, readSealed(t, dir, o[p[0]], o[p[1]])); diff != "" {
			t.Errorf("pair %v: %s", p, diff)
		}
	}

	// The card destroyed, the officers open nothing either, and proofs stay.
	for _, r := range refs {
		os.Remove(cardPath(dir, r.Segment))
	}
	if _, err := unlock(dir, refs[0].Segment, o[0], o[1]); !errors.Is(err, ErrNoKey) {
		t.Fatalf("opened without its card: %v", err)
	}
	if r := verify(t, dir); !r.OK() {
		t.Fatal(r.Problems)
	}
}

// encoded is what our files hold in base64 or hex.
var encoded = regexp.MustCompile(`[A-Za-z0-9_-]{43,}`)

// opensByAnything tries every box in any file of the server, under every purpose, as
// the wrap of the key of a segment.
func opensByAnything(t *testing.T, dir string, keys *keyring.Keyring, hd *head) (found bool) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, m := range encoded.FindAll(b, -1) {
			raw, err := base64.RawURLEncoding.DecodeString(string(m))
			if err != nil {
				continue
			}
			for _, purpose := range []string{cardPurpose(Events), cardPurpose(Originals)} {
				for _, aad := range [][]byte{nil, cardBinding(hd.id, hd.hash), hd.id[:]} {
					if secret, err := keys.Unwrap(purpose, raw, aad); err == nil && cardCommit(hd.id, secret).String() == hd.CardCommit {
						found = true
					}
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// serverSecrets are the master of the keyring, keys of every purpose by every use,
// and every 32 bytes of any file of the server, in the forms in which we write them.
func serverSecrets(t *testing.T, dir string, keys *keyring.Keyring) (out [][]byte) {
	t.Helper()
	for _, purpose := range []string{"segment/originals", "segment/events", "token/1", "log", "session"} {
		out = append(out, keys.MACKey(purpose))
		for _, path := range originals(t, dir) {
			id := idOf(t, path)
			out = append(out, keys.MAC(purpose, id[:]))
		}
	}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, m := range encoded.FindAll(b, -1) {
			for _, dec := range []func(string) ([]byte, error){base64.RawURLEncoding.DecodeString, hex.DecodeString} {
				raw, err := dec(string(m))
				for i := 0; err == nil && i+32 <= len(raw) && i < 64; i++ {
					out = append(out, raw[i:i+32])
				}
				if err == nil && len(raw) >= 32 {
					out = append(out, raw[len(raw)-32:])
				}
			}
		}
		if strings.HasPrefix(path, filepath.Join(dir, "evidence", "originals")) {
			for i := 0; i+32 <= len(b); i += 8 {
				out = append(out, b[i:i+32])
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestBeforeAndAfterOfficers: a data directory of before goes on when officers come,
// and when they go.
func TestBeforeAndAfterOfficers(t *testing.T) {
	dir := quickDir(t)
	o := newOfficers(t)
	for i, change := range []func(*Options){nil, o.seal, nil} {
		s := open(t, dir, change)
		if len(s.Recovered()) != 0 {
			t.Fatal(s.Recovered())
		}
		if _, err := s.Append(context.Background(), Originals, "a", recs(i, 1)); err != nil {
			t.Fatal(err)
		}
		s.Close()
	}
	s := open(t, dir, nil)
	infos, err := s.Segments(Originals, "a")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, in := range infos {
		got = append(got, in.Escrow)
	}
	if diff := cmp.Diff([]string{"none-yet", "officers", "none-yet"}, got); diff != "" {
		t.Fatal(diff)
	}
	for i, want := range []error{nil, ErrSealed, nil} {
		var recs []string
		_, err := s.Read(context.Background(), Originals, "a", Position{Segment: infos[i].Segment}, func(_ event.Ref, b []byte) error {
			recs = append(recs, string(b))
			return ErrStop
		})
		if !errors.Is(err, want) || want == nil && len(recs) != 1 {
			t.Fatal(i, recs, err)
		}
	}
	c, err := CountCards(dir)
	if err != nil || c.Sealed != 1 || c.ByEpoch[1] != 2 || c.Unknown != 0 {
		t.Fatal(c, err)
	}
	if r := verify(t, dir); !r.OK() {
		t.Fatal(r.Problems)
	}
	bad := o.escrow()
	bad.Spare = bad.Main
	if _, err := tryOpen(quickDir(t), func(opt *Options) { opt.Escrow = bad }); err == nil {
		t.Fatal("opened with two officers of one key")
	}
}

// TestKeyLeavesMemory looks into the writer: with the segment its key is gone.
func TestKeyLeavesMemory(t *testing.T) {
	o := newOfficers(t)
	s := open(t, quickDir(t), o.seal)
	if _, err := s.Append(context.Background(), Originals, "a", recs(0, 1)); err != nil {
		t.Fatal(err)
	}
	l := s.log(Originals, "a")
	key := l.w.key
	salt := key.salt
	if key.aead == nil || bytes.Equal(salt, make([]byte, 32)) {
		t.Fatal("no key while it is written")
	}
	if err := s.Rotate(); err != nil {
		t.Fatal(err)
	}
	if key.aead != nil || !bytes.Equal(salt, make([]byte, 32)) {
		t.Fatal("the key is still there")
	}
}

func TestSealedKeyIsBound(t *testing.T) {
	dir := quickDir(t)
	o := newOfficers(t)
	s := open(t, dir, o.seal)
	var ids []uuid.UUID
	for range 2 {
		ref, err := s.Append(context.Background(), Originals, "a", recs(0, 3))
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Rotate(); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, ref.Segment)
	}
	mustAppend(t, s, "a", recs(0, 1))
	s.Close()
	a, err := ReadSealedKey(dir, ids[0])
	if err != nil {
		t.Fatal(err)
	}
	b, err := ReadSealedKey(dir, ids[1])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ParseSealedKey(a.Head, b.Card); err == nil {
		t.Error("the card of another segment was taken")
	}
	// The boxes of one segment under the name of the other.
	var c sealedCard
	if err := json.Unmarshal(b.Card, &c); err != nil {
		t.Fatal(err)
	}
	c.Segment = ids[0].String()
	if forged, err := marshalLine(c); err != nil {
		t.Fatal(err)
	} else if _, err := ParseSealedKey(a.Head, forged); err == nil {
		t.Error("boxes of another segment were taken")
	}
	if _, err := ReadSealedKey(dir, idOf(t, files(t, dir, "a", extClosed)[0])); err == nil {
		t.Error("an event segment is sealed")
	}
	if _, err := ReadSealedKey(dir, uuid.New()); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if want := []string{"originals/a/" + ids[0].String(), "header " + a.head.hash.String()}; !slices.Equal(a.Objects(), want) {
		t.Error(a.Objects())
	}
	if _, err := a.KeyFile(make([]byte, 32), time.Now(), [32]byte{}); err == nil {
		t.Error("a key file of another key was made")
	}

	key, err := unlock(dir, ids[0], o[0], o[1])
	if err != nil {
		t.Fatal(err)
	}
	paths := originals(t, dir)
	if _, err := OpenSegmentWithKey(paths[1], key, time.Now); err == nil {
		t.Error("a key opened another segment")
	}
	if s := fmt.Sprintf("%v %+v %#v %x", key, key, key, key); strings.Contains(s, hex.EncodeToString(key.secret)) || !strings.Contains(s, ids[0].String()) {
		t.Error(s)
	}
	// Its time: at opening, and in the middle of reading.
	now := time.Now()
	clock := func() time.Time { return now }
	r, err := OpenSegmentWithKey(paths[0], key, clock)
	if err != nil || r.Records() != 3 || r.Compartment() != "a" {
		t.Fatal(err)
	}
	defer r.Close()
	now = key.Until
	if err := r.Read(context.Background(), func(uint64, []byte) error { return nil }); !errors.Is(err, ErrOver) {
		t.Error(err)
	}
	k, err := ReadSealedKey(dir, ids[0])
	if err != nil {
		t.Fatal(err)
	}
	file, err := k.KeyFile(key.secret, now, [32]byte{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ParseKeyFile(file, now); !errors.Is(err, ErrOver) {
		t.Error(err)
	}
	// Altered and cut files do not pass as whole ones.
	whole, err := os.ReadFile(paths[0])
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(whole); i += 11 {
		alt := bytes.Clone(whole)
		alt[i] ^= 4
		path := filepath.Join(t.TempDir(), "x.seg")
		if err := os.WriteFile(path, alt, 0o600); err != nil {
			t.Fatal(err)
		}
		key.Until = time.Now().Add(time.Hour)
		r, err := OpenSegmentWithKey(path, key, time.Now)
		if err == nil {
			err = r.Read(context.Background(), func(uint64, []byte) error { return nil })
			complete := r.rd.damage == nil
			r.Close()
			if err == nil && complete && i < len(whole)-trailerLen {
				t.Fatalf("byte %d changed and nobody noticed", i)
			}
		}
	}
}

func FuzzSealedCard(f *testing.F) {
	dir := quickDir(f)
	o := newOfficers(f)
	s := open(f, dir, o.seal)
	ref, err := s.Append(context.Background(), Originals, "a", recs(0, 1))
	if err != nil {
		f.Fatal(err)
	}
	s.Close()
	k, err := ReadSealedKey(dir, ref.Segment)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(k.Card)
	f.Add([]byte("{}\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := ParseSealedKey(k.Head, b); err == nil && !bytes.Equal(b, k.Card) {
			t.Fatalf("another card was taken: %q", b)
		}
	})
}

func FuzzKeyFile(f *testing.F) {
	good, err := marshalLine(keyFile{Key: base64.RawURLEncoding.EncodeToString(make([]byte, 32)), Segment: uuid.NewString(), Statement: strings.Repeat("0", 64), Until: "2100-01-01T00:00:00Z", V: 1})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Fuzz(func(t *testing.T, b []byte) {
		k, err := ParseKeyFile(b, time.Unix(0, 0))
		if (k == nil) == (err == nil) {
			t.Fatal("neither a key nor an error")
		}
	})
}

// TestLeavesAreHeld: a server that sealed one record and put the leaf of another
// before it is found when the officers read.
func TestLeavesAreHeld(t *testing.T) {
	dir := quickDir(t)
	o := newOfficers(t)
	s := open(t, dir, o.seal)
	for i := range 2 {
		if _, err := s.Append(context.Background(), Originals, "a", recs(i, 1)); err != nil {
			t.Fatal(err)
		}
		s.log(Originals, "a").w.key.salt[0] ^= 1 // the writer rests: leaves to come are wrong
	}
	s.Close()
	if r := verify(t, dir); !r.OK() {
		t.Fatal(r.Problems)
	}
	path := originals(t, dir)[0]
	key, err := unlock(dir, idOf(t, path), o[0], o[1])
	if err != nil {
		t.Fatal(err)
	}
	r, err := OpenSegmentWithKey(path, key, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	n := 0
	if err := r.Read(context.Background(), func(uint64, []byte) error { n++; return nil }); err == nil || !strings.Contains(err.Error(), "leaf") || n != 1 {
		t.Fatal(n, err)
	}
}
