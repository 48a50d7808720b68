package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/evidence"
	"github.com/counterseal/counterseal/internal/keyring"
	"github.com/counterseal/counterseal/internal/ledger"
	"github.com/counterseal/counterseal/internal/officer"
	"github.com/counterseal/counterseal/internal/packs"
	"github.com/counterseal/counterseal/internal/web"
)

// archive is a data directory with evidence of some ages, officers and a witness, as
// people know it: files and commands.
type archive struct {
	*shell
	file   string // the configuration
	pass   string
	keys   map[string]*officer.Key
	vkey   string // of the log
	wkey   string // of the witness
	config string // its text, without witnesses
	host   string // of the witness
}

func newArchive(t *testing.T) *archive {
	a := &archive{shell: newShell(t), keys: map[string]*officer.Key{}}
	a.pass = a.write("pass", "correct horse battery staple\n")
	roster := "apiVersion: officers/v1\nepoch: 1\nofficers:\n"
	for _, o := range []struct{ file, office, name, authority string }{
		{"inv", "investigation", "Ada Ihle", "Head of Legal"}, {"ovs", "oversight", "Otto Sand", "Works Council"},
		{"inv2", "investigation", "Ira Blom", "Head of Legal"}, {"ovs2", "oversight", "Olga Rot", "Works Council"},
	} {
		args := []string{"officer", "init", "--office", o.office, "--name", o.name, "-o", a.at(o.file), "--passphrase-file", a.pass}
		if strings.HasSuffix(o.file, "2") {
			args = append(args, "--spare")
		}
		a.run(0, args...)
		entry, _ := a.run(0, "officer", "card", a.at(o.file), "--authority", o.authority)
		roster += entry
		k, err := openKey(&environment{}, a.at(o.file), a.pass)
		if err != nil {
			t.Fatal(err)
		}
		a.keys[o.file] = k
	}
	a.write("officers.yaml", roster)
	d := agencyDraft(time.Now().AddDate(0, 0, -150))
	for i := range d.Sources {
		d.Sources[i].RetentionDays = 30
	}
	d.OriginalDays = 7
	if err := os.MkdirAll(a.at("pias"), 0o700); err != nil {
		t.Fatal(err)
	}
	a.write("pias/agency.yaml", string(d.YAML()))
	a.config = "data: data\npias: [pias]\nofficers: officers.yaml\nhttp: off\nreserve: 16MiB\nmemory: 64MiB\n"
	a.file = a.write(configName, a.config)
	return a
}

func (a *archive) data() string { return a.at("data") }

// seal imports lines on a day in the past, as the server of that day did.
func (a *archive) seal(ago time.Duration, source string, lines ...string) {
	a.t.Helper()
	c, err := readConfig(a.file)
	if err != nil {
		a.t.Fatal(err)
	}
	then := time.Now().Add(-ago)
	s, err := openServer(context.Background(), c, serverOptions{log: slog.New(slog.DiscardHandler), now: func() time.Time { return then }})
	if err != nil {
		a.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.pipe.Follow(ctx) }()
	path := a.write(fmt.Sprintf("in-%s-%d.ndjson", source, ago), strings.Join(lines, "\n")+"\n")
	if _, err := s.importFiles(ctx, web.ImportRequest{Paths: []string{path}, Source: source}, nil); err != nil {
		a.t.Fatal(err)
	}
	if err := s.pipe.Settle(ctx); err != nil {
		a.t.Fatal(err)
	}
	stop()
	if err := errors.Join(<-done, s.close()); err != nil {
		a.t.Fatal(err)
	}
}

// watch begins a witness and names it in the configuration.
func (a *archive) watch(more string) {
	a.t.Helper()
	b, err := os.ReadFile(filepath.Join(a.data(), "ledger", "log.vkey"))
	if err != nil {
		a.t.Fatal(err)
	}
	a.vkey = strings.TrimSpace(string(b))
	w, err := ledger.OpenWitness(ledger.WitnessOptions{Dir: a.at("witness"), Name: "test/witness", Logs: []string{a.vkey}})
	if err != nil {
		a.t.Fatal(err)
	}
	srv := httptest.NewServer(w)
	a.t.Cleanup(func() { srv.Close(); w.Close() })
	a.wkey, a.host = w.VKey(), srv.URL
	a.config += "witnesses:\n  - vkey: " + a.wkey + "\n    url: " + a.host + "\n    run_by: others\n" + more
	a.write(configName, a.config)
}

// refs are the references of what a search finds.
func (a *archive) refs(query ...string) (refs []event.Ref) {
	a.t.Helper()
	out, _ := a.run(0, append([]string{"search", "--config", a.file, "--format", "jsonl"}, query...)...)
	for line := range strings.Lines(out) {
		var row struct{ Ref, Kind string }
		if err := json.Unmarshal([]byte(line), &row); err != nil {
			a.t.Fatal(err)
		}
		if row.Kind != "event" {
			continue
		}
		r, err := event.ParseRef(row.Ref)
		if err != nil {
			a.t.Fatal(err)
		}
		refs = append(refs, r)
	}
	return refs
}

// segments are the closed segments, by stream, with the time of their making.
func (a *archive) segments(stream string) (ids []uuid.UUID) {
	a.t.Helper()
	files, err := filepath.Glob(filepath.Join(a.data(), "evidence", stream, "*", "*.seg"))
	if err != nil {
		a.t.Fatal(err)
	}
	for _, f := range files {
		id, err := uuid.Parse(strings.TrimSuffix(filepath.Base(f), ".seg"))
		if err != nil {
			a.t.Fatal(err)
		}
		ids = append(ids, id)
	}
	return ids
}

func madeAt(id uuid.UUID) time.Time {
	sec, nsec := id.Time().UnixTime()
	return time.Unix(sec, nsec)
}

// opensBy lists who opens a segment: the keyring, a backup of it, pairs of officers.
func (a *archive) opensBy(id uuid.UUID, backup string) (who []string) {
	a.t.Helper()
	pass := keyring.PassphraseFrom(a.pass)
	for name, path := range map[string]string{"keyring": filepath.Join(a.data(), "keys", "keyring"), "backup": backup} {
		k, err := keyring.Load(path, pass)
		if err != nil {
			a.t.Fatal(err)
		}
		if evidence.Opens(a.data(), k, id) == nil {
			who = append(who, name)
		}
	}
	sealed, err := evidence.ReadSealedKey(a.data(), id)
	if err != nil {
		return who
	}
	for _, b := range sealed.Boxes() { // there is a box that two of them open: the ceremony has its own test
		for name, k := range a.keys {
			if k.Card().Seal.ID() == b.Outer {
				who = append(who, name)
			}
		}
	}
	return who
}

// TestPastRetention: a segment past its retention, and every other one. After the
// destruction no key that the server, the officers or backups still hold opens it;
// every other proof verifies; the ledger says when and under which rule; and neither a
// rebuild nor a copy of its card brings it back.
func TestPastRetention(t *testing.T) {
	t.Parallel() // it waits more than it works
	a := newArchive(t)
	const day = 24 * time.Hour
	line := func(n int, text string) string {
		return fmt.Sprintf(`{"time":"2026-01-02T03:04:05Z","n":%d,"who":"alice","text":"%s"}`, n, text)
	}
	a.seal(100*day, "app", line(1, "the old record"), line(2, "another old record"))
	a.seal(5*day, "app", line(3, "the young record"))
	backup := a.at("backup")
	a.run(0, "keys", "backup", "--data", a.data(), "-o", backup, "--new-passphrase-file", a.pass)
	old, young := a.refs("native.n = 1"), a.refs("native.n = 3")
	if len(old) != 1 || len(young) != 1 || len(a.refs("kind = event")) != 3 {
		t.Fatalf("%v %v", old, young)
	}
	var oldSealed, youngSealed uuid.UUID
	for _, id := range a.segments("originals") {
		if time.Since(madeAt(id)) > 50*day {
			oldSealed = id
		} else {
			youngSealed = id
		}
	}
	victims := []uuid.UUID{old[0].Segment, oldSealed}
	for _, id := range append(victims, young[0].Segment, youngSealed) {
		if len(a.opensBy(id, backup)) == 0 {
			t.Fatalf("nobody opens %s to begin with", id)
		}
	}
	card := filepath.Join(a.data(), "keys", "segments", old[0].Segment.String()+".card")
	copied, err := os.ReadFile(card)
	if err != nil {
		t.Fatal(err)
	}

	// It is over. Without a witness nothing is destroyed, and with one it waits its grace.
	plan, _ := a.run(0, "retention", "plan", "--config", a.file)
	if !strings.Contains(plan, "retention_days 30 of events/apps") || !strings.Contains(plan, "original_days 7 of originals/apps") || strings.Count(plan, " due ") != 2 {
		t.Fatal(plan)
	}
	ran, _ := a.run(0, "retention", "run", "--config", a.file)
	if !strings.Contains(ran, "announced  0 segments") || !strings.Contains(ran, "waiting    2 segments for a witness") {
		t.Fatal(ran)
	}
	a.watch("")
	ran, _ = a.run(0, "retention", "run", "--config", a.file)
	if !strings.Contains(ran, "announced  2 segments") || !strings.Contains(ran, "destroyed  0 segments") {
		t.Fatal(ran)
	}
	if plan, _ = a.run(0, "retention", "plan", "--config", a.file, "--days", "5"); strings.Count(plan, " announced ") != 2 {
		t.Fatal(plan)
	}
	for _, id := range victims {
		if len(a.opensBy(id, backup)) == 0 {
			t.Fatal("destroyed within the grace")
		}
	}
	a.write(configName, a.config+"retention_grace: 0s\n") // what was announced keeps its time
	ran, _ = a.run(0, "retention", "run", "--config", a.file)
	if !strings.Contains(ran, "announced  0 segments") || !strings.Contains(ran, "destroyed  0 segments") {
		t.Fatal(ran)
	}

	// Four days later, by our clock and by that of the witness: the statement is 72 h
	// old. A test cannot wait so long; a hold, released, makes the clock begin anew.
	hold := a.placeAndRelease(t)
	if list, _ := a.run(0, "hold", "list", "--config", a.file); !strings.Contains(list, hold) || !strings.Contains(list, "released") {
		t.Fatal(list)
	}
	ran, _ = a.run(0, "retention", "run", "--config", a.file) // without a grace both steps are one
	for _, id := range victims {
		if who := a.opensBy(id, backup); len(who) > 0 {
			t.Fatalf("%v still opens a destroyed segment: %s", who, ran)
		}
	}
	for _, id := range []uuid.UUID{young[0].Segment, youngSealed} {
		if len(a.opensBy(id, backup)) == 0 {
			t.Fatal("a neighbour was destroyed")
		}
	}

	check := func() {
		t.Helper()
		if got := a.refs("native.n = 1"); len(got) != 0 {
			t.Fatalf("it is still found: %v", got)
		}
		if got := a.refs("native.n = 3"); len(got) != 1 || got[0] != young[0] {
			t.Fatalf("the young record: %v", got)
		}
		if out, _ := a.run(0, "verify", "--config", a.file); !strings.Contains(out, "nothing altered") ||
			!strings.Contains(out, victims[0].String()+": destroyed under retention_days 30 of events/apps at ") || strings.Count(out, "destroyed under") != 2 {
			t.Fatal(out)
		}
		if _, both := a.run(0, "doctor", "--config", a.file); strings.Contains(both, "key card is gone") {
			t.Fatal(both)
		}
	}
	check()
	// Also the proof that the destroyed record was sealed still stands, without what it said.
	for i, r := range []event.Ref{young[0], old[0]} {
		proof := a.at(fmt.Sprintf("proof-%d", i))
		a.run(0, "prove", r.String(), "--config", a.file, "-o", proof)
		a.run(0, "prove", "--verify", proof, "--log", a.vkey, "--witness", a.wkey)
	}
	if _, both := a.run(3, "prove", old[0].String(), "--config", a.file, "--open"); !strings.Contains(both, "was destroyed") {
		t.Fatal(both)
	}

	a.run(0, "rebuild", "--config", a.file)
	check()
	if err := os.WriteFile(card, copied, 0o600); err != nil { // from a copy of the disk
		t.Fatal(err)
	}
	a.run(0, "rebuild", "--config", a.file)
	if _, err := os.Stat(card); !os.IsNotExist(err) {
		t.Fatal("a card came back")
	}
	check()

	rules := map[string]string{}
	r, err := ledger.VerifyDir(t.Context(), filepath.Join(a.data(), "ledger"), ledger.Verifiers{Log: []string{a.vkey}, Witnesses: []ledger.Witness{{VKey: a.wkey}}, Threshold: 1,
		Each: func(_ uint64, s ledger.Statement) {
			if s.Kind != "destruction.done" {
				return
			}
			var d struct {
				Rule   string
				Beyond []string
			}
			if err := json.Unmarshal(s.Detail, &d); err != nil || len(d.Beyond) < 3 || time.Since(s.Time) > time.Minute {
				t.Errorf("%s: %v", s.Detail, err)
			}
			for _, id := range s.Subject {
				rules[id] = d.Rule
			}
		}})
	if err != nil || !r.OK() {
		t.Fatal(r.Findings, err)
	}
	if len(rules) != 2 || rules[victims[0].String()] != "retention_days 30 of events/apps" || rules[victims[1].String()] != "original_days 7 of originals/apps" {
		t.Fatal(rules)
	}
}

// placeAndRelease places a hold over everything and ends it with two officers, on the
// command line, and gives its id.
func (a *archive) placeAndRelease(t *testing.T) string {
	t.Helper()
	order := a.write("order", "In the matter of 2026-17 all logs are kept.\n")
	review := time.Now().AddDate(0, 3, 0).Format(time.DateOnly)
	a.run(2, "hold", "place", "--config", a.file, "--review", review, "--case", "C-17")
	a.run(2, "hold", "place", "--config", a.file, "--order", order, "--review", review)
	out, _ := a.run(0, "hold", "place", "--config", a.file, "--order", order, "--review", review, "--case", "C-17")
	id := strings.Fields(out)[1]
	if !strings.Contains(out, "it keeps 4 segments") {
		t.Fatal(out)
	}
	plan, _ := a.run(0, "retention", "plan", "--config", a.file)
	if strings.Count(plan, "held by "+id) != 4 {
		t.Fatal(plan)
	}
	if ran, _ := a.run(0, "retention", "run", "--config", a.file); !strings.Contains(ran, "destroyed  0 segments") || !strings.Contains(ran, "held       2 segments") {
		t.Fatal(ran)
	}
	request := a.at("release")
	a.run(0, "hold", "release", id, "--config", a.file, "-o", request, "--case", "C-17", "--purpose", "the matter is closed", "--requester", "Ada Ihle")
	sign := func(who string) string {
		out := a.at("release-" + who)
		words, _ := a.run(0, "officer", "sign", request, "--key", a.at(who), "--passphrase-file", a.pass, "--yes", "-o", out)
		if !strings.Contains(words, "hold.release") || !strings.Contains(words, id) {
			t.Fatal(words)
		}
		return out
	}
	inv, ovs, inv2 := sign("inv"), sign("ovs"), sign("inv2")
	release := func(code int, decisions ...string) {
		t.Helper()
		args := []string{"hold", "release", id, "--config", a.file, "--request", request}
		for _, d := range decisions {
			args = append(args, "--decision", d)
		}
		a.run(code, args...)
	}
	release(3)
	release(3, inv)
	release(3, inv, inv2)
	release(0, inv, ovs)
	release(2, inv, ovs)
	return id
}

// TestKillDuringDestruction kills the process at a random moment of a destruction, then
// lets it end. Nothing young is gone, everything old is, each is stated once, keys and
// statements agree, and a rebuild brings nothing back.
func TestKillDuringDestruction(t *testing.T) {
	t.Parallel()
	rounds := 2
	if packs.Required("kill") {
		rounds = 10
	}
	if text := os.Getenv("COUNTERSEAL_KILLS"); text != "" {
		var err error
		if rounds, err = strconv.Atoi(text); err != nil || rounds < 1 {
			t.Fatalf("COUNTERSEAL_KILLS is %q", text)
		}
	}
	const day = 24 * time.Hour
	a := newArchive(t)
	for i, n := range []int{100, 92, 84, 76, 5} { // weeks of their own
		a.seal(time.Duration(n)*day, "app", fmt.Sprintf(`{"time":"2026-01-02T03:04:05Z","n":%d,"text":"record"}`, i))
	}
	old, young := map[uuid.UUID]bool{}, map[uuid.UUID]bool{}
	for _, stream := range []string{"events", "originals"} {
		for _, id := range a.segments(stream) {
			if time.Since(madeAt(id)) > 50*day {
				old[id] = true
			} else {
				young[id] = true
			}
		}
	}
	if len(old) != 8 || len(young) != 2 {
		t.Fatalf("%d old segments and %d young ones", len(old), len(young))
	}
	base := a.at("base")
	if err := os.Rename(a.data(), base); err != nil {
		t.Fatal(err)
	}
	config := a.config
	seed := uint64(time.Now().UnixNano())
	t.Logf("%d rounds, seed %d", rounds, seed)
	draw := rand.New(rand.NewPCG(seed, 2))
	begun := 0
	for round := range rounds {
		if err := os.CopyFS(a.data(), os.DirFS(base)); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(filepath.Join(a.data(), "keys", "keyring"), 0o600); err != nil {
			t.Fatal(err)
		}
		a.config = config
		a.watch("retention_grace: 0s\n") // a new witness: each round is a history of its own
		cards := func() (n int) {
			for id := range old {
				if _, err := os.Stat(filepath.Join(a.data(), "keys", "segments", id.String()+".card")); err == nil {
					n++
				}
			}
			return n
		}
		cmd := exec.Command("counterseal", "retention", "run", "--config", a.file)
		var said bytes.Buffer
		cmd.Stdout, cmd.Stderr = &said, &said
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		// From the first card on, a moment later.
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		for ; cards() == len(old); time.Sleep(200 * time.Microsecond) {
			select {
			case err := <-ended:
				t.Fatalf("round %d: it ended before it destroyed anything: %v\n%s", round, err, said.String())
			default:
			}
		}
		time.Sleep(time.Duration(draw.IntN(20000)) * time.Microsecond)
		cmd.Process.Kill()
		<-ended
		if n := cards(); n > 0 && n < len(old) {
			begun++
		}
		a.run(0, "retention", "run", "--config", a.file)
		a.run(0, "rebuild", "--config", a.file)
		for id := range old {
			if _, err := os.Stat(filepath.Join(a.data(), "keys", "segments", id.String()+".card")); !os.IsNotExist(err) {
				t.Fatalf("round %d: %s survives", round, id)
			}
		}
		if got := a.refs("kind = event"); len(got) != 1 || !young[got[0].Segment] {
			t.Fatalf("round %d: %v is found", round, got)
		}
		if out, _ := a.run(0, "verify", "--config", a.file); !strings.Contains(out, "nothing altered") || strings.Count(out, "destroyed under") != len(old) {
			t.Fatalf("round %d: %s", round, out)
		}
		stated := map[string]int{}
		if _, err := ledger.VerifyDir(t.Context(), filepath.Join(a.data(), "ledger"), ledger.Verifiers{Log: []string{a.vkey}, Each: func(_ uint64, s ledger.Statement) {
			if s.Kind == "destruction.done" {
				for _, id := range s.Subject {
					stated[id]++
				}
			}
		}}); err != nil {
			t.Fatal(err)
		}
		for id := range old {
			if stated[id.String()] != 1 {
				t.Fatalf("round %d: %s is stated %d times", round, id, stated[id.String()])
			}
		}
		for _, path := range []string{a.data(), a.at("witness")} {
			if err := os.RemoveAll(path); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Logf("%d of %d kills were in the middle", begun, rounds)
}
