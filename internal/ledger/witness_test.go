package ledger

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/counterseal/counterseal/internal/durable"
)

func hasAlarm(l *Ledger, kind string) bool {
	return slices.ContainsFunc(l.Alarms(), func(a Alarm) bool { return a.Kind == kind })
}

func withWitness(t testing.TB, dir string, w ...Witness) Options {
	o := testOptions(dir)
	o.Witnesses = w
	o.WitnessTimeout = 500 * time.Millisecond
	o.WitnessDeadline = 5 * time.Second
	return o
}

func testVerifiers(t testing.TB, o Options) Verifiers {
	v := Verifiers{Log: []string{testVKey(t, 1)}, Witnesses: o.Witnesses, Threshold: o.Threshold}
	if v.Threshold == 0 {
		v.Threshold = len(o.Witnesses)
	}
	return v
}

func TestWitnessed(t *testing.T) {
	a, sa := testWitness(t, filepath.Join(t.TempDir(), "a"))
	b, sb := testWitness(t, filepath.Join(t.TempDir(), "b"))
	o := withWitness(t, t.TempDir(), Witness{VKey: a.VKey(), URL: sa.URL}, Witness{VKey: b.VKey(), URL: sb.URL + "/prefix"})
	l := testOpen(t, o)
	v := testVerifiers(t, o)
	for i := range 5 {
		s := testStatement(t, fmt.Sprint(i))
		r, err := l.AddWitnessed(context.Background(), s)
		if err != nil {
			t.Fatal(err)
		}
		if r.Index != uint64(i) || len(r.Cosignatures) != 2 {
			t.Fatalf("%+v", r)
		}
		if d := time.Since(r.Cosignatures[0].Time).Abs(); d > time.Minute {
			t.Fatal(d)
		}
		proof, err := l.Prove(context.Background(), r.Index)
		if err != nil {
			t.Fatal(err)
		}
		s.Node, s.Seq = "n1", uint64(i+1)
		leaf, err := s.Canonical()
		if err != nil {
			t.Fatal(err)
		}
		if n, err := VerifyProof(leaf, proof, v); err != nil || n != r.Index {
			t.Fatal(n, err)
		}
		// Every byte counts, of leaf and proof. An extra line would not.
		for at := range proof {
			bad := bytes.Clone(proof)
			bad[at] ^= 1
			if _, err := VerifyProof(leaf, bad, v); err == nil {
				t.Fatalf("byte %d of the proof changed: accepted\n%s", at, bad)
			}
		}
		for at := range leaf {
			bad := bytes.Clone(leaf)
			bad[at] ^= 1
			if _, err := VerifyProof(bad, proof, v); !errors.Is(err, ErrProof) {
				t.Fatalf("byte %d of the leaf changed: %v", at, err)
			}
		}
	}
	if size, at := l.Witnessed(); size != 5 || time.Since(at).Abs() > time.Minute {
		t.Fatal(size, at)
	}
	if since, ok := l.UnwitnessedSince(); ok {
		t.Fatal(since)
	}
	cp, err := l.Checkpoint()
	if err != nil {
		t.Fatal(err)
	}
	if strings.Count(string(cp), "\n— ") != 3 {
		t.Fatalf("%s", cp)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := VerifyDir(context.Background(), o.Dir, v)
	if err != nil || !r.OK() || r.Witnessed != 5 || r.Size != 5 || r.Last["n1"] != 5 || len(r.Cosignatures) != 2 {
		t.Fatalf("%+v, %v", r, err)
	}
	if a := l.Alarms(); len(a) > 0 {
		t.Fatal(a)
	}
}

// TestNoWitness: critical statements are refused and stand in the log all the same.
func TestNoWitness(t *testing.T) {
	l := testOpen(t, testOptions(t.TempDir()))
	if _, ok := l.UnwitnessedSince(); ok {
		t.Fatal("an empty log lacks nothing")
	}
	s := testStatement(t, "x")
	r, err := l.AddWitnessed(context.Background(), s)
	if !errors.Is(err, ErrUnwitnessed) || r.Index != 0 || l.Size() != 1 {
		t.Fatal(r, err)
	}
	if since, ok := l.UnwitnessedSince(); !ok || !since.Equal(s.Time) {
		t.Fatal(since, ok)
	}
	for try := 0; ; try++ { // the checkpoint comes a moment later
		proof, err := l.Prove(context.Background(), 0)
		if err != nil && try < 50 {
			time.Sleep(20 * time.Millisecond)
			continue
		}
		s.Node, s.Seq = "n1", 1
		leaf, _ := s.Canonical()
		if _, err := VerifyProof(leaf, proof, Verifiers{Log: []string{testVKey(t, 1)}}); err != nil {
			t.Fatal(err)
		}
		w, _ := testWitness(t, filepath.Join(t.TempDir(), "w"))
		if _, err := VerifyProof(leaf, proof, Verifiers{Log: []string{testVKey(t, 1)}, Witnesses: []Witness{{VKey: w.VKey()}}, Threshold: 1}); !errors.Is(err, ErrUnwitnessed) {
			t.Fatal(err)
		}
		if _, err := VerifyProof(leaf, proof, Verifiers{Log: []string{testVKey(t, 2)}}); !errors.Is(err, ErrProof) {
			t.Fatal(err)
		}
		break
	}
}

// TestWitnessDownAtFirstStart: routine work goes on, and the witness catches up.
func TestWitnessDownAtFirstStart(t *testing.T) {
	w, _ := testWitness(t, filepath.Join(t.TempDir(), "w"))
	var up atomic.Bool
	front := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if !up.Load() {
			panic(http.ErrAbortHandler)
		}
		w.ServeHTTP(rw, r)
	}))
	defer front.Close()
	o := withWitness(t, t.TempDir(), Witness{VKey: w.VKey(), URL: front.URL})
	o.WitnessDeadline = 300 * time.Millisecond
	l := testOpen(t, o)
	for range 300 {
		go l.Add(context.Background(), testStatement(t, "routine"))
	}
	l.Wait(context.Background(), 300)
	r, err := l.AddWitnessed(context.Background(), testStatement(t, "critical"))
	if !errors.Is(err, ErrUnwitnessed) || !errors.Is(err, context.DeadlineExceeded) || r.Index != 300 {
		t.Fatal(r, err)
	}
	if !hasAlarm(l, AlarmUnwitness) {
		t.Fatal(l.Alarms())
	}
	up.Store(true)
	l.o.WitnessDeadline = 10 * time.Second
	if _, err := l.AddWitnessed(context.Background(), testStatement(t, "critical")); err != nil {
		t.Fatal(err)
	}
	up.Store(false)
	testAdd(t, l, "last")
	// Closing waits for the witness no longer than it may.
	start := time.Now()
	if err := l.Close(); err != nil || time.Since(start) > 5*time.Second {
		t.Fatal(err, time.Since(start))
	}
	up.Store(true)
	l = testOpen(t, o)
	if err := waitWitnessed(l, 303); err != nil {
		t.Fatal(err)
	}
}

func waitWitnessed(l *Ledger, size int64) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return l.until(ctx, func() bool { return l.witnessed.size >= size })
}

// TestBadWitnesses: one that is silent, lies, is slow, redirects or talks nonsense
// makes no cosignature, and beside a good one it stops nothing.
func TestBadWitnesses(t *testing.T) {
	good, gs := testWitness(t, filepath.Join(t.TempDir(), "good"))
	liarKey, _ := testWitness(t, filepath.Join(t.TempDir(), "liar"))
	quit := make(chan struct{})
	defer close(quit)
	for name, c := range map[string]struct {
		h     http.HandlerFunc
		alarm string
	}{
		"silent": {func(_ http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			select {
			case <-quit:
			case <-r.Context().Done():
			}
		}, AlarmUnwitness},
		"lying": {func(rw http.ResponseWriter, r *http.Request) { good.ServeHTTP(rw, r) }, AlarmWitness},
		"forged": {func(rw http.ResponseWriter, r *http.Request) {
			name, _, _ := strings.Cut(liarKey.VKey(), "+")
			fmt.Fprintf(rw, "— %s %s\n", name, base64.StdEncoding.EncodeToString(make([]byte, 76)))
		}, AlarmWitness},
		"empty": {func(rw http.ResponseWriter, r *http.Request) {}, AlarmWitness},
		"redirect": {func(rw http.ResponseWriter, r *http.Request) {
			http.Redirect(rw, r, gs.URL, http.StatusTemporaryRedirect)
		}, AlarmUnwitness},
		"unknown":    {http.NotFound, AlarmWitness},
		"broken":     {func(rw http.ResponseWriter, r *http.Request) { rw.WriteHeader(500) }, AlarmUnwitness},
		"odd size":   {func(rw http.ResponseWriter, r *http.Request) { answerSize(rw, "07\n") }, AlarmWitness},
		"size again": {func(rw http.ResponseWriter, r *http.Request) { answerSize(rw, "0\n") }, AlarmUnwitness},
		"endless": {func(rw http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				if _, err := rw.Write(make([]byte, 1<<16)); err != nil {
					return
				}
			}
		}, AlarmWitness},
	} {
		t.Run(name, func(t *testing.T) {
			bad := httptest.NewServer(c.h)
			defer bad.Close()
			o := withWitness(t, t.TempDir(), Witness{VKey: liarKey.VKey(), URL: bad.URL})
			o.WitnessTimeout, o.WitnessDeadline = 150*time.Millisecond, 400*time.Millisecond
			l := testOpen(t, o)
			start := time.Now()
			r, err := l.AddWitnessed(context.Background(), testStatement(t, "x"))
			if !errors.Is(err, ErrUnwitnessed) || r.Index != 0 || time.Since(start) > 3*time.Second {
				t.Fatal(r, err, time.Since(start))
			}
			if !hasAlarm(l, c.alarm) {
				t.Errorf("alarms: %v, want one of %s", l.Alarms(), c.alarm)
			}
			if size, _ := l.Witnessed(); size != 0 {
				t.Fatal(size)
			}
			l.Close()

			good, gs := testWitness(t, filepath.Join(t.TempDir(), "good"))
			o = withWitness(t, t.TempDir(), Witness{VKey: liarKey.VKey(), URL: bad.URL}, Witness{VKey: good.VKey(), URL: gs.URL})
			o.Threshold = 1
			o.WitnessTimeout = 150 * time.Millisecond
			l = testOpen(t, o)
			if _, err := l.AddWitnessed(context.Background(), testStatement(t, "x")); err != nil {
				t.Fatal(err)
			}
			l.Close()
		})
	}
}

func answerSize(rw http.ResponseWriter, s string) {
	rw.Header().Set("Content-Type", sizeType)
	rw.WriteHeader(http.StatusConflict)
	io.WriteString(rw, s)
}

// TestGroups: two keys of one house count once.
func TestGroups(t *testing.T) {
	a, sa := testWitness(t, filepath.Join(t.TempDir(), "a"))
	b, sb := testWitness(t, filepath.Join(t.TempDir(), "b"))
	o := withWitness(t, t.TempDir(), Witness{VKey: a.VKey(), URL: sa.URL, Group: "house"}, Witness{VKey: b.VKey(), URL: sb.URL, Group: "house"})
	o.Threshold = 2
	if _, err := Open(context.Background(), o); err == nil {
		t.Fatal("two of one group were taken for two")
	}
	o.Threshold = 0 // all groups: one
	l := testOpen(t, o)
	if r, err := l.AddWitnessed(context.Background(), testStatement(t, "x")); err != nil || len(r.Cosignatures) < 1 {
		t.Fatal(r, err)
	}
	o2 := o
	o2.Dir = t.TempDir()
	o2.Witnesses = []Witness{o.Witnesses[0], o.Witnesses[0]}
	if _, err := Open(context.Background(), o2); err == nil {
		t.Fatal("one witness was taken twice")
	}
}

// TestRollbackAndFork restores an old copy of a directory: the witness refuses it
// while it is shorter, and when it has grown past, and the log says so.
func TestRollbackAndFork(t *testing.T) {
	wdir := filepath.Join(t.TempDir(), "w")
	var forks atomic.Int32
	w, err := OpenWitness(WitnessOptions{Dir: wdir, Name: "witness.example", Logs: []string{testVKey(t, 1)}, OnFork: func(string) { forks.Add(1) }})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(w)
	defer srv.Close()
	o := withWitness(t, t.TempDir(), Witness{VKey: w.VKey(), URL: srv.URL})
	o.WitnessDeadline = 2 * time.Second
	l := testOpen(t, o)
	for i := range 3 {
		if _, err := l.AddWitnessed(context.Background(), testStatement(t, fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
	}
	old := copyDir(t, o.Dir)
	for i := range 3 {
		if _, err := l.AddWitnessed(context.Background(), testStatement(t, fmt.Sprint("new", i))); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	latest, err := l.Checkpoint()
	if err != nil {
		t.Fatal(err)
	}

	o.Dir, o.WitnessDeadline = old, 400*time.Millisecond
	var told atomic.Int32
	o.OnAlarm = func(Alarm) { told.Add(1) }
	l = testOpen(t, o)
	if _, err := l.AddWitnessed(context.Background(), testStatement(t, "other")); !errors.Is(err, ErrUnwitnessed) {
		t.Fatal(err)
	}
	if !hasAlarm(l, AlarmRollback) || told.Load() == 0 {
		t.Fatal(l.Alarms())
	}
	if since, ok := l.UnwitnessedSince(); ok && since.IsZero() {
		t.Fatal(since)
	}
	for range 5 {
		testAdd(t, l, "past it")
	}
	if _, err := l.AddWitnessed(context.Background(), testStatement(t, "other")); !errors.Is(err, ErrUnwitnessed) {
		t.Fatal(err)
	}
	if !hasAlarm(l, AlarmFork) || forks.Load() == 0 {
		t.Fatal(l.Alarms(), forks.Load())
	}
	for _, d := range []string{filepath.Join(old, incidentDir), filepath.Join(wdir, incidentDir)} {
		if des, err := os.ReadDir(d); err != nil || len(des) == 0 {
			t.Fatal("no evidence in", d, err)
		}
	}
	l.Close()
	// A checkpoint known from elsewhere tells a reader as well.
	v := testVerifiers(t, o)
	if r, err := VerifyDir(context.Background(), old, v); err != nil || !r.OK() {
		t.Fatalf("%+v, %v", r, err)
	}
	v.Known = latest
	if r, err := VerifyDir(context.Background(), old, v); err != nil || r.OK() {
		t.Fatalf("%+v, %v", r, err)
	}
}

// TestPartRolledBack: less log than checkpoint is refused at the start.
func TestPartRolledBack(t *testing.T) {
	o := testOptions(t.TempDir())
	l := testOpen(t, o)
	testAdd(t, l, "a")
	l.Wait(context.Background(), 1)
	l.Close()
	old := copyDir(t, o.Dir)
	l = testOpen(t, o)
	testAdd(t, l, "b")
	l.Close()
	testOpen(t, o).Close() // begins the outbox anew
	for _, keep := range []string{"log/checkpoint", "outbox", "log/.state/treeState"} {
		mixed := copyDir(t, o.Dir)
		if keep == "log/.state/treeState" { // lost altogether
			os.Remove(filepath.Join(mixed, keep))
		} else {
			mixed = copyDir(t, old)
			b, err := os.ReadFile(filepath.Join(o.Dir, keep))
			if err != nil {
				t.Fatal(err)
			}
			os.WriteFile(filepath.Join(mixed, keep), b, 0o644)
		}
		om := o
		om.Dir = mixed
		if _, err := Open(context.Background(), om); !errors.Is(err, ErrRolledBack) {
			t.Errorf("%s: %v", keep, err)
		}
		r, err := VerifyDir(context.Background(), mixed, Verifiers{Log: []string{testVKey(t, 1)}})
		if err != nil || r.OK() {
			t.Errorf("%s: %+v, %v", keep, r, err)
		}
	}
}

// history is a log in memory that can sign what it likes.
type history struct {
	hashes []tlog.Hash
	n      int64
}

func (h *history) ReadHashes(at []int64) ([]tlog.Hash, error) {
	var out []tlog.Hash
	for _, i := range at {
		out = append(out, h.hashes[i])
	}
	return out, nil
}

func (h *history) grow(what string, n int64) {
	for h.n < n {
		hs, err := tlog.StoredHashes(h.n, fmt.Appendf(nil, "%s %d", what, h.n), h)
		if err != nil {
			panic(err)
		}
		h.hashes = append(h.hashes, hs...)
		h.n++
	}
}

func (h *history) checkpoint(t testing.TB, key byte, origin string, size int64) string {
	root, err := tlog.TreeHash(size, h)
	if err != nil {
		t.Fatal(err)
	}
	s, _, err := signer(origin, testKey(key))
	if err != nil {
		t.Fatal(err)
	}
	n, err := note.Sign(&note.Note{Text: fmt.Sprintf("%s\n%d\n%s\n", origin, size, base64.StdEncoding.EncodeToString(root[:]))}, s)
	if err != nil {
		t.Fatal(err)
	}
	return string(n)
}

func (h *history) proof(t testing.TB, from, to int64) string {
	if from == 0 || from == to {
		return ""
	}
	p, err := tlog.ProveTree(to, from, h)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, x := range p {
		b.WriteString(base64.StdEncoding.EncodeToString(x[:]) + "\n")
	}
	return b.String()
}

func TestWitnessAnswers(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "w")
	w, srv := testWitness(t, dir)
	var h, fork history
	h.grow("a", 20)
	fork.grow("b", 20)
	post := func(body string) (int, string, string) {
		t.Helper()
		resp, err := http.Post(srv.URL+"/add-checkpoint", "text/plain", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, resp.Header.Get("Content-Type"), string(b)
	}
	body := func(old int64, proof, cp string) string { return fmt.Sprintf("old %d\n%s\n%s", old, proof, cp) }
	cp := func(size int64) string { return h.checkpoint(t, 1, testOrigin, size) }
	hash := base64.StdEncoding.EncodeToString(make([]byte, 32)) + "\n"
	v, err := Verifiers{Log: []string{testVKey(t, 1)}, Witnesses: []Witness{{VKey: w.VKey()}}, Threshold: 1}.parse()
	if err != nil {
		t.Fatal(err)
	}
	good := func(name string, old, size int64) {
		t.Helper()
		status, _, sig := post(body(old, h.proof(t, old, size), cp(size)))
		if status != 200 {
			t.Fatalf("%s: %d %s", name, status, sig)
		}
		if o, err := v.open([]byte(cp(size) + sig)); err != nil || !v.witnessed(o) {
			t.Fatalf("%s: %v", name, err)
		}
	}
	refused := func(name, b string, want int, wantSize string) {
		t.Helper()
		status, ct, got := post(b)
		if status != want {
			t.Errorf("%s: %d %s, want %d", name, status, got, want)
		}
		if (ct == sizeType) != (wantSize != "") || wantSize != "" && got != wantSize {
			t.Errorf("%s: %s %q, want size %q", name, ct, got, wantSize)
		}
	}
	refused("proof at first", body(0, hash, cp(3)), 422, "")
	refused("old before anything", body(2, h.proof(t, 2, 3), cp(3)), 409, "0\n")
	good("first", 0, 3)
	good("same again", 3, 3)
	good("grown", 3, 7)
	refused("old behind", body(3, h.proof(t, 3, 9), cp(9)), 409, "7\n")
	refused("old zero", body(0, "", cp(9)), 409, "7\n")
	refused("shorter", body(7, "", cp(5)), 400, "")
	refused("rolled back", body(5, "", cp(5)), 409, "7\n")
	refused("split view", body(7, "", fork.checkpoint(t, 1, testOrigin, 7)), 409, "")
	refused("fork", body(7, fork.proof(t, 7, 9), fork.checkpoint(t, 1, testOrigin, 9)), 422, "")
	refused("no proof", body(7, "", cp(9)), 422, "")
	refused("proof of equal", body(7, hash, cp(7)), 422, "")
	refused("other key", body(7, h.proof(t, 7, 9), h.checkpoint(t, 2, testOrigin, 9)), 403, "")
	refused("other log", body(7, h.proof(t, 7, 9), h.checkpoint(t, 1, "other.example/log", 9)), 404, "")
	for name, b := range map[string]string{
		"empty": "", "no empty line": "old 7\n", "no old": "older 7\n\n" + cp(9), "zeros": "old 07\n\n" + cp(9),
		"plus": "old +7\n\n" + cp(9), "minus": "old -7\n\n" + cp(9), "huge": "old 99999999999999999999\n\n" + cp(9), "no note": "old 7\n\nhello\n",
		"hash too short": "old 7\nAAAA\n\n" + cp(9), "64 hashes": "old 7\n" + strings.Repeat(hash, 64) + "\n" + cp(9),
		"zeros in size": "old 7\n\n" + strings.Replace(cp(9), "\n9\n", "\n09\n", 1),
	} {
		refused(name, b, 400, "")
	}
	refused("long", body(7, "", cp(9))+strings.Repeat("x", maxCheckpoint), 413, "")
	for _, c := range []struct {
		method, path string
		want         int
	}{{"GET", "/add-checkpoint", 405}, {"POST", "/", 404}, {"POST", "/add-checkpoints", 404}} {
		req, _ := http.NewRequest(c.method, srv.URL+c.path, nil)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != c.want {
			t.Errorf("%v: %d", c, resp.StatusCode)
		}
	}
	des, err := os.ReadDir(filepath.Join(dir, incidentDir))
	if err != nil || len(des) != 3 { // split view, fork, no proof
		t.Fatal(des, err)
	}
	good("still there", 7, 9)

	// It remembers over a restart, with the same key, and does not forget when its
	// state is damaged.
	srv.Close()
	w.Close()
	again, err := OpenWitness(WitnessOptions{Dir: dir, Name: "ignored", Logs: []string{testVKey(t, 1)}})
	if err != nil || again.VKey() != w.VKey() {
		t.Fatal(err)
	}
	if _, err := OpenWitness(WitnessOptions{Dir: dir, Name: "x", Logs: []string{testVKey(t, 1)}}); err == nil {
		t.Fatal("two witnesses on one directory")
	}
	if _, no, err := again.add([]byte(body(7, h.proof(t, 7, 10), cp(10)))); err != nil || no == nil || no.body != "9" {
		t.Fatal(no, err)
	}
	path := again.path(testOrigin)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[len(testOrigin)+1]++
	os.WriteFile(path, b, 0o600)
	if sig, no, err := again.add([]byte(body(9, h.proof(t, 9, 10), cp(10)))); err == nil {
		t.Fatal("damaged state was used", string(sig), no)
	}
	again.Close()
	os.Remove(filepath.Join(dir, "key"))
	if _, err := OpenWitness(WitnessOptions{Dir: dir, Name: "x", Logs: []string{testVKey(t, 1)}}); err == nil {
		t.Fatal("a new key over old state")
	}
}

// FuzzWitness: whatever is posted, a cosignature is given only to a log that grew.
func FuzzWitness(f *testing.F) {
	var h history
	h.grow("a", 9)
	cp := h.checkpoint(f, 1, testOrigin, 3)
	f.Add([]byte("old 0\n\n" + cp))
	f.Add([]byte("old 3\n" + h.proof(f, 3, 9) + "\n" + h.checkpoint(f, 1, testOrigin, 9)))
	f.Add([]byte("old 07\n\n" + cp))
	f.Add([]byte("old 3\nAAAA\n\n" + cp + "— x YWJjZA==\n"))
	f.Fuzz(func(t *testing.T, body []byte) {
		q, err := parseRequest(body)
		if err != nil {
			return
		}
		if q.old > q.size || len(q.proof) > 63 || q.size < 0 {
			t.Fatalf("%+v", q)
		}
		// It prints back.
		again := fmt.Sprintf("old %d\n", q.old)
		for _, p := range q.proof {
			again += base64.StdEncoding.EncodeToString(p[:]) + "\n"
		}
		if again += "\n" + string(q.checkpoint); again != string(body) {
			t.Fatalf("%q printed back as %q", body, again)
		}
	})
}

// TestWitnessStoresFirst fails each step of keeping a checkpoint: no cosignature
// leaves, and the witness remembers the old checkpoint or the new one.
func TestWitnessStoresFirst(t *testing.T) {
	var h history
	h.grow("a", 9)
	body := func(old, size int64) []byte {
		return fmt.Appendf(nil, "old %d\n%s\n%s", old, h.proof(t, old, size), h.checkpoint(t, 1, testOrigin, size))
	}
	for _, done := range []bool{false, true} {
		for step := 1; ; step++ {
			n, failed, on := 0, false, false
			o := WitnessOptions{Dir: t.TempDir(), Name: "w", Logs: []string{testVKey(t, 1)}, FS: durable.FS{Fault: func(s durable.Step) error {
				if !on || s.Done != done {
					return nil
				}
				if n++; n == step {
					failed = true
					return errors.New("boom")
				}
				return nil
			}}}
			w, err := OpenWitness(o)
			if err != nil {
				t.Fatal(err)
			}
			if sig, no, err := w.add(body(0, 3)); err != nil || no != nil || len(sig) == 0 {
				t.Fatal(no, err)
			}
			on = true
			sig, _, err := w.add(body(3, 7))
			on = false
			if failed != (err != nil) || failed != (len(sig) == 0) {
				t.Fatalf("step %d: %q, %v", step, sig, err)
			}
			last, err := w.last(testOrigin, w.logs[testOrigin])
			if err != nil || last.size != 7 && (!failed || last.size != 3) {
				t.Fatal(last.size, err)
			}
			if sig, no, err := w.add(body(last.size, 9)); err != nil || no != nil || len(sig) == 0 {
				t.Fatal(no, err)
			}
			w.Close()
			if !failed {
				if step < 4 {
					t.Fatal("only", step, "steps")
				}
				break
			}
		}
	}
}

// TestClocks: when our clock jumps, the cosignatures say otherwise and an alarm
// tells; nothing is lost by it.
func TestClocks(t *testing.T) {
	w, srv := testWitness(t, filepath.Join(t.TempDir(), "w"))
	var jump atomic.Int64
	o := withWitness(t, t.TempDir(), Witness{VKey: w.VKey(), URL: srv.URL})
	o.Now = func() time.Time { return time.Now().Add(time.Duration(jump.Load())) }
	l := testOpen(t, o)
	for i, j := range []time.Duration{0, 48 * time.Hour, -48 * time.Hour} {
		jump.Store(int64(j))
		s, err := New("server.stop", "system", o.Now(), map[string]any{"reason": "x"})
		if err != nil {
			t.Fatal(err)
		}
		if r, err := l.AddWitnessed(context.Background(), s); err != nil || r.Index != uint64(i) || time.Since(r.Cosignatures[0].Time).Abs() > time.Minute {
			t.Fatal(r, err)
		}
		if got := hasAlarm(l, AlarmClock); got != (i > 0) {
			t.Fatal(i, l.Alarms())
		}
	}
	l.Close()
	if r, err := VerifyDir(context.Background(), o.Dir, testVerifiers(t, o)); err != nil || !r.OK() {
		t.Fatalf("%+v, %v", r, err)
	}
}
