package pipeline

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sort"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/counterseal/counterseal/internal/demo"
	"github.com/counterseal/counterseal/internal/detect"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/evidence"
	"github.com/counterseal/counterseal/internal/index"
	"github.com/counterseal/counterseal/internal/keyring"
	"github.com/counterseal/counterseal/internal/pseudonym"
	"github.com/counterseal/counterseal/internal/query"
	"github.com/counterseal/counterseal/rules"
)

var at = time.Date(2026, 3, 5, 17, 0, 0, 0, time.UTC)

// ownRules are the rules that ship.
func ownRules(t testing.TB) []detect.File {
	t.Helper()
	files, err := detect.ReadFiles(rules.Files(), "rules")
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func documents(t testing.TB, in *demo.Incident) Documents {
	t.Helper()
	d := Documents{Protected: in.Protected, Directory: in.Directory, Rules: ownRules(t)}
	for _, name := range slices.Sorted(maps.Keys(in.PIAs)) {
		d.PIAs = append(d.PIAs, Document{Name: name, Data: in.PIAs[name]})
	}
	return d
}

// running is a pipeline whose streams are followed.
type system struct {
	*Pipeline
	stop func()
}

func start(t testing.TB, o Options) *system {
	t.Helper()
	if o.Now == nil {
		now := at
		o.Now = func() time.Time { return now }
	}
	if o.Tokens == nil {
		o.Tokens = maker(t)
	}
	p, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Follow(ctx) }()
	s := &system{Pipeline: p}
	s.stop = func() {
		t.Helper()
		if err := p.Settle(context.Background()); err != nil {
			t.Error(err)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		s.stop = func() {}
	}
	t.Cleanup(func() { s.stop() })
	return s
}

// batches cuts a stream by hours of its own clock, as a sender would.
func batches(st *demo.Stream) []event.Batch {
	var out []event.Batch
	var cut time.Time
	for f := range st.Frames() {
		if f.At.After(cut) {
			cut = f.At.Truncate(time.Hour).Add(time.Hour)
			out = append(out, event.Batch{Source: st.Source, Way: st.Way, Conn: st.Name, Key: fmt.Sprintf("%s-%d", st.Name, cut.Unix()), Received: at})
		}
		b := &out[len(out)-1]
		b.Frames = append(b.Frames, event.Frame{Bytes: f.Bytes, Line: len(b.Frames) + 1})
	}
	return out
}

// play sends an incident, streams of files aside, which import frames.
func play(t testing.TB, s *system, in *demo.Incident) {
	t.Helper()
	for _, st := range in.Streams {
		if st.Way == "file" {
			continue
		}
		for _, b := range batches(st) {
			res, err := s.Accept(context.Background(), b)
			if err != nil {
				t.Fatalf("%s: %v", st.Name, err)
			}
			if len(res.Errors) > 0 {
				t.Fatalf("%s: line %d: %s", st.Name, res.Errors[0].Line, res.Errors[0].Reason)
			}
		}
	}
	if err := s.Settle(context.Background()); err != nil {
		t.Fatal(err)
	}
}

func seeded(t testing.TB, dir string) {
	t.Helper()
	if err := keyring.CreateFrom(dir, [32]byte{1, 2, 3}); err != nil {
		t.Fatal(err)
	}
}

// stored is everything that the system holds, receipt aside.
type stored struct {
	Events   []string // content of each event in order, by compartment
	Cards    []string
	Rows     []string
	Findings []string
	Gaps     []event.Gap
	Kept     []string
	Drops    []string
}

func hold(t testing.TB, s *system) stored {
	t.Helper()
	ctx := context.Background()
	var h stored
	for _, stream := range []evidence.Stream{evidence.Events, evidence.Originals} {
		for _, comp := range s.evidence.Compartments(stream) {
			n := 0
			_, err := s.evidence.Read(ctx, stream, comp, evidence.Position{}, func(ref event.Ref, rec []byte) error {
				n++
				if stream == evidence.Originals {
					h.Events = append(h.Events, fmt.Sprintf("%s %s %d %q", stream, comp, n, rec))
					return nil
				}
				en, err := event.Decode(rec)
				if err != nil {
					return err
				}
				switch {
				case en.Event != nil:
					h.Events = append(h.Events, fmt.Sprintf("%s %d %d %x", comp, n, en.Event.Seq, event.AppendContent(nil, en.Event)))
				case en.Card != nil:
					c := *en.Card
					c.First, c.Last, c.Received = "", "", time.Time{}
					b, err := json.Marshal(c)
					if err != nil {
						return err
					}
					h.Cards = append(h.Cards, comp+" "+string(b))
				case en.Watermark != nil:
					h.Cards = append(h.Cards, fmt.Sprintf("%s watermark %s %s", comp, en.Watermark.Source, en.Watermark.Until))
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	q, err := query.Parse("")
	if err != nil {
		t.Fatal(err)
	}
	err = s.Index().Query(ctx, q, index.Scope{}, 0, func(r index.Row) bool {
		row := fmt.Sprintf("%d %s %s %s %v %v", r.Time, r.Source, r.Dataset, r.Kind, r.OCSF, r.Native)
		h.Rows = append(h.Rows, refless.ReplaceAllString(row, "REF"))
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	sort.Strings(h.Rows)
	findings, err := s.Index().Findings(ctx, nil, index.Scope{}, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range findings {
		h.Findings = append(h.Findings, f.ID+" "+f.Rule.Title)
	}
	sort.Strings(h.Findings)
	if h.Gaps, err = s.Gaps(ctx, 1000); err != nil {
		t.Fatal(err)
	}
	for i := range h.Gaps {
		h.Gaps[i].At = time.Time{}
	}
	counts, err := s.State().Counts(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range counts {
		h.Kept = append(h.Kept, fmt.Sprint(c.Source, c.Dataset, c.Kept))
	}
	drops, err := s.State().Drops(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range drops {
		h.Drops = append(h.Drops, fmt.Sprint(d))
	}
	return h
}

var refless = regexp.MustCompile(`[a-z-]+/[0-9a-f]{8}-[0-9a-f-]{27}/\d+`)

// TestIncident plays the whole way: every step of the intrusion is found, the gap
// is named, and index equals evidence with each Ref once.
func TestIncident(t *testing.T) {
	in := demo.Play(demo.Options{Seed: 1, At: at, Hotline: true, Scale: 0.1})
	dir := t.TempDir()
	seeded(t, dir)
	s := start(t, Options{Dir: dir, Documents: documents(t, in)})
	play(t, s, in)

	findings, err := s.Index().Findings(t.Context(), nil, index.Scope{}, 0)
	if err != nil {
		t.Fatal(err)
	}
	fromFile := map[string]bool{}
	for _, st := range in.Streams {
		if st.Way == "file" {
			fromFile[st.Source] = true
		}
	}
	for _, step := range in.Truth.Steps {
		want := regexp.MustCompile(step.Rule)
		found := slices.ContainsFunc(findings, func(f event.Finding) bool {
			return want.MatchString(f.Rule.Title) && f.From.Sub(step.Time).Abs() < 30*time.Minute
		})
		if !found && !fromFile[step.Source] {
			t.Errorf("step %d, %s: no finding of a rule like %q", step.N, step.Title, step.Rule)
		}
	}
	gaps, err := s.Gaps(t.Context(), 100)
	if err != nil {
		t.Fatal(err)
	}
	for _, hole := range in.Truth.Gap.Holes {
		if !slices.ContainsFunc(gaps, func(g event.Gap) bool { return g.From == hole.After+1 && g.To == hole.Before-1 }) {
			t.Errorf("the hole %d to %d of %s is not among the gaps", hole.After, hole.Before, hole.Channel)
		}
		if !slices.ContainsFunc(gaps, func(g event.Gap) bool {
			return strings.EqualFold(strings.SplitN(g.Stream, ".", 2)[0], strings.SplitN(in.Truth.Gap.Host, ".", 2)[0]) || strings.Contains(strings.ToLower(g.Stream), strings.ToLower(in.Truth.Gap.Host))
		}) {
			t.Errorf("no gap names the server %s, whose name the assessment lets stand: %+v", in.Truth.Gap.Host, gaps)
		}
	}
	if len(gaps) != len(in.Truth.Gap.Holes) {
		t.Errorf("%d gaps, want %d: %+v", len(gaps), len(in.Truth.Gap.Holes), gaps)
	}
	indexEqualsEvidence(t, s)
}

func indexEqualsEvidence(t *testing.T, s *system) {
	t.Helper()
	refs := map[string]int{}
	for _, comp := range s.evidence.Compartments(evidence.Events) {
		_, err := s.evidence.Read(t.Context(), evidence.Events, comp, evidence.Position{}, func(ref event.Ref, rec []byte) error {
			if event.Type(rec[1]) == event.TypeEvent {
				refs[ref.String()]++
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	q, err := query.Parse("kind in (event, unparsed)")
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]int{}
	err = s.Index().Query(t.Context(), q, index.Scope{}, 0, func(r index.Row) bool {
		rows[r.Ref]++
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(refs) == 0 {
		t.Fatal("no evidence")
	}
	missing, extra, double := 0, 0, 0
	for r := range refs {
		if rows[r] == 0 {
			missing++
		} else if rows[r] > 1 {
			double++
		}
	}
	for r := range rows {
		if refs[r] == 0 {
			extra++
		}
	}
	if missing+extra+double > 0 {
		t.Fatalf("index against evidence: %d of %d missing, %d extra, %d double", missing, len(refs), extra, double)
	}
}

// TestSettleBeforeFollow: who starts Follow in a goroutine and settles at once waits
// for it; after Follow has ended there is nothing to wait for.
func TestSettleBeforeFollow(t *testing.T) {
	in := demo.Play(demo.Options{Seed: 1, At: at, Scale: 0.01})
	dir := t.TempDir()
	p, err := Open(t.Context(), Options{Tokens: maker(t), Dir: dir, Documents: documents(t, in), Now: func() time.Time { return at }})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Accept(t.Context(), batches(in.Streams[1])[0]); err != nil {
		t.Fatal(err)
	}
	settled := make(chan error, 1)
	go func() { settled <- p.Settle(t.Context()) }()
	select {
	case err := <-settled:
		t.Fatalf("settled before anything was followed: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Follow(ctx) }()
	if err := <-settled; err != nil {
		t.Error(err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if _, err := p.Accept(t.Context(), batches(in.Streams[1])[1]); err != nil {
		t.Fatal(err)
	}
	if err := p.Settle(t.Context()); err == nil {
		t.Error("settled what nobody follows")
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}

// TestNonInterference: with and without the contact with the hotline, everything
// that the system holds is the same, receipt times and Refs aside.
func TestNonInterference(t *testing.T) {
	if testing.Short() {
		t.Skip("long: the race detector sees its code in the others")
	}
	held := map[bool]stored{}
	for _, hotline := range []bool{true, false} {
		in := demo.Play(demo.Options{Seed: 7, At: at, Hotline: hotline, Scale: 0.05})
		if hotline && !bytes.Contains(allBytes(in), []byte("hotline")) {
			t.Fatal("the play holds no contact: the test compares nothing")
		}
		dir := t.TempDir()
		seeded(t, dir)
		s := start(t, Options{Dir: dir, Documents: documents(t, in)})
		play(t, s, in)
		held[hotline] = hold(t, s)
		s.stop()
	}
	if len(held[true].Events) == 0 || len(held[true].Rows) == 0 {
		t.Fatal("nothing is held")
	}
	if diff := cmp.Diff(held[true], held[false]); diff != "" {
		if len(diff) > 4000 {
			diff = diff[:4000]
		}
		t.Fatalf("the contact left a trace:\n%s", diff)
	}
}

func allBytes(in *demo.Incident) []byte {
	var b []byte
	for _, st := range in.Streams {
		for f := range st.Frames() {
			b = append(b, f.Bytes...)
		}
	}
	return b
}

// TestRebuild: index and state made again from evidence hold the same events and
// finding ids, also when the rules in force have changed meanwhile.
func TestRebuild(t *testing.T) {
	in := demo.Play(demo.Options{Seed: 3, At: at, Hotline: true, Scale: 0.05})
	dir := t.TempDir()
	seeded(t, dir)
	docs := documents(t, in)
	s := start(t, Options{Dir: dir, Documents: docs})
	play(t, s, in)
	want := hold(t, s)
	s.stop()
	if len(want.Findings) < 5 {
		t.Fatalf("only %d findings", len(want.Findings))
	}

	docs.Rules = docs.Rules[:1]
	now := at.Add(time.Hour)
	p, err := Open(t.Context(), Options{Tokens: maker(t), Dir: dir, Documents: docs, Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Rebuild(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	got := hold(t, &system{Pipeline: p})
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		if len(diff) > 4000 {
			diff = diff[:4000]
		}
		t.Fatal(diff)
	}
}

// TestFindingIDsDoNotDependOnTheRun: another data directory with the same keys
// finds the same ids.
func TestKeys(t *testing.T) {
	in := demo.Play(demo.Options{Seed: 1, At: at, Scale: 0.02})
	dir := t.TempDir()
	docs := documents(t, in)
	s := start(t, Options{Dir: dir, Documents: docs})
	var st *demo.Stream
	for _, c := range in.Streams {
		if c.Way == "http" && c.Len() > 20 {
			st = c
			break
		}
	}
	b := batches(st)[0]
	first, err := s.Accept(t.Context(), b)
	if err != nil || first.Accepted == 0 || first.Repeated {
		t.Fatalf("%+v, %v", first, err)
	}
	again, err := s.Accept(t.Context(), b)
	if err != nil || !again.Repeated || again.First != first.First || again.Last != first.Last || again.Accepted != first.Accepted {
		t.Fatalf("a repeat: %+v, %v; first %+v", again, err, first)
	}
	other := b
	other.Frames = slices.Clone(b.Frames[1:])
	var refusal *event.Refusal
	if _, err := s.Accept(t.Context(), other); !errors.As(err, &refusal) || refusal.Code != "key_reused" {
		t.Fatalf("another body under the key: %v", err)
	}
	s.stop()

	s = start(t, Options{Dir: dir, Documents: docs})
	again, err = s.Accept(t.Context(), b)
	if err != nil || !again.Repeated || again.First != first.First {
		t.Fatalf("a repeat after a restart: %+v, %v", again, err)
	}
	if err := s.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	indexEqualsEvidence(t, s)
}

func TestGate(t *testing.T) {
	in := demo.Play(demo.Options{Seed: 1, At: at, Scale: 0.02})
	docs := documents(t, in)
	s := start(t, Options{Dir: t.TempDir(), Documents: docs})
	source := in.Streams[0].Source

	var refusal *event.Refusal
	_, err := s.Accept(t.Context(), event.Batch{Source: "nobody", Way: "http", Frames: []event.Frame{{Bytes: []byte(`{"a":1}`), Line: 1}}})
	if !errors.As(err, &refusal) || refusal.Code != "source_unknown" || refusal.Hint == "" {
		t.Fatalf("an unknown source: %v", err)
	}
	_, err = s.Accept(t.Context(), event.Batch{Source: source, Way: "http", Frames: []event.Frame{{Bytes: []byte(`{"planted":"planted-value-1"}`), Line: 1}}})
	if !errors.As(err, &refusal) || refusal.Code != "pia_missing" {
		t.Fatalf("a dataset without an assessment: %v", err)
	}
	if refused := s.Refused(); len(refused) != 2 || refused[0].N != 1 {
		t.Fatalf("refusals are counted: %+v", refused)
	}
	// A year later every assessment has expired.
	late := start(t, Options{Dir: t.TempDir(), Documents: docs, Now: func() time.Time { return at.AddDate(4, 0, 0) }})
	b := batches(in.Streams[0])[0]
	b.Received = time.Time{}
	if _, err := late.Accept(t.Context(), b); !errors.As(err, &refusal) || refusal.Code != "pia_missing" {
		t.Fatalf("an expired assessment: %v", err)
	}
}

func TestBadLineCostsOnlyItself(t *testing.T) {
	in := demo.Play(demo.Options{Seed: 1, At: at, Scale: 0.02})
	s := start(t, Options{Dir: t.TempDir(), Documents: documents(t, in)})
	var st *demo.Stream
	for _, c := range in.Streams {
		if c.Way == "http" && c.Len() > 20 {
			st = c
			break
		}
	}
	b := batches(st)[0]
	good := len(b.Frames)
	deep := strings.Repeat(`{"a":`, 200_000) + "1" + strings.Repeat("}", 200_000)
	for _, bad := range []string{"\x00\x00", deep, `{"@timestamp":`} {
		b.Frames = append(b.Frames, event.Frame{Bytes: []byte(bad), Line: len(b.Frames) + 1})
	}
	res, err := s.Accept(t.Context(), b)
	if err != nil || res.Accepted != good || len(res.Errors) != 3 {
		t.Fatalf("%d accepted of %d, errors %+v, %v", res.Accepted, good, res.Errors, err)
	}
	for i, e := range res.Errors {
		if e.Line != good+1+i || e.Reason == "" {
			t.Errorf("error %d: %+v", i, e)
		}
	}
}

func TestLowDiskRefuses(t *testing.T) {
	in := demo.Play(demo.Options{Seed: 1, At: at, Scale: 0.02})
	s := start(t, Options{Dir: t.TempDir(), Documents: documents(t, in), Reserve: 1 << 60})
	var refusal *event.Refusal
	_, err := s.Accept(t.Context(), batches(in.Streams[0])[0])
	if !errors.As(err, &refusal) || refusal.Code != "disk_low" || refusal.After == 0 {
		t.Fatalf("%v", err)
	}
	if s.Ready() == nil {
		t.Fatal("ready with a full disk")
	}
}

// TestNoNames: people of the directory appear in nothing that is stored, the
// original stream aside, which is encrypted.
func TestNoNames(t *testing.T) {
	in := demo.Play(demo.Options{Seed: 5, At: at, Hotline: true, Scale: 0.05})
	dir := t.TempDir()
	s := start(t, Options{Dir: dir, Documents: documents(t, in)})
	play(t, s, in)
	h := hold(t, s)
	names := people(t, in.Directory)
	if len(names) < 100 {
		t.Fatalf("only %d names to look for", len(names))
	}
	var text strings.Builder
	for _, e := range h.Events {
		if strings.HasPrefix(e, "originals ") {
			continue
		}
		text.WriteString(e)
	}
	for _, part := range [][]string{h.Cards, h.Rows, h.Findings, h.Kept, h.Drops} {
		for _, l := range part {
			text.WriteString(l)
		}
	}
	for _, g := range h.Gaps {
		fmt.Fprint(&text, g)
	}
	for _, c := range s.Doctor(t.Context(), true) {
		fmt.Fprint(&text, c)
	}
	// Contents are printed as hexadecimal above; look at their bytes too.
	for _, comp := range s.evidence.Compartments(evidence.Events) {
		_, err := s.evidence.Read(t.Context(), evidence.Events, comp, evidence.Position{}, func(_ event.Ref, rec []byte) error {
			text.Write(rec)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	s.stop()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		text.WriteString(path)
		text.Write(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	have := strings.ToLower(text.String())
	for _, n := range names {
		if i := occurs(have, strings.ToLower(n)); i >= 0 {
			t.Errorf("%q is stored: …%q…", n, have[max(0, i-60):min(len(have), i+60)])
		}
	}
}

// occurs finds a name in text. A staff number such as e-1032 stands by chance in the middle
// of a GUID.
func occurs(have, name string) int {
	const guid = "0123456789abcdef-"
	for from := 0; ; {
		i := strings.Index(have[from:], name)
		if i < 0 {
			return -1
		}
		i += from
		end := i + len(name)
		if strings.Trim(name, guid) != "" || i == 0 || end == len(have) || !strings.ContainsRune(guid, rune(have[i-1])) || !strings.ContainsRune(guid, rune(have[end])) {
			return i
		}
		from = end
	}
}

// people lists every name of a directory file that is long enough to be no
// accident in random bytes.
func people(t *testing.T, directory []byte) []string {
	t.Helper()
	var out []string
	for _, line := range strings.Split(string(directory), "\n") {
		for _, q := range regexp.MustCompile(`"([^"]+)"|'([^']+)'`).FindAllStringSubmatch(line, -1) {
			out = append(out, q[1]+q[2])
		}
		out = append(out, regexp.MustCompile(`[\w.+-]+@[\w.-]+|S-1-5-21[\d-]+`).FindAllString(line, -1)...)
		if i := strings.Index(line, "names: ["); i >= 0 {
			for _, n := range strings.Split(strings.Trim(line[i+len("names: ["):], " ]"), ",") {
				out = append(out, strings.Trim(n, ` "'`))
			}
		}
	}
	slices.Sort(out)
	out = slices.Compact(out)
	return slices.DeleteFunc(out, func(s string) bool {
		return len(s) < 6 || strings.HasPrefix(s, "directory/") || strings.HasPrefix(s, "2")
	})
}

// TestRepeatsAfterARestart: what a RELP sender repeats because the acknowledgement
// was lost with the process is kept and counted as a possible repeat.
func TestRepeatsAfterARestart(t *testing.T) {
	in := demo.Play(demo.Options{Seed: 1, At: at, Scale: 0.05})
	dir := t.TempDir()
	docs := documents(t, in)
	i := slices.IndexFunc(in.Streams, func(s *demo.Stream) bool { return s.Way == "relp" })
	b := batches(in.Streams[i])[0]
	b.Key = ""
	b.Frames = b.Frames[:min(20, len(b.Frames))]
	s := start(t, Options{Dir: dir, Documents: docs})
	if _, err := s.Accept(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	s.stop()

	s = start(t, Options{Dir: dir, Documents: docs})
	again := b
	again.Conn = "another"
	again.Frames = b.Frames[len(b.Frames)-5:]
	if res, err := s.Accept(t.Context(), again); err != nil || res.Accepted != 5 {
		t.Fatalf("%+v, %v", res, err)
	}
	if _, err := s.Accept(t.Context(), again); err != nil { // sent a third time: no longer the tail's
		t.Fatal(err)
	}
	if err := s.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n, err := s.State().Repeats(t.Context()); err != nil || n[b.Source] != 5 {
		t.Fatalf("repeats %v, want 5; %v", n, err)
	}
	s.stop()

	// A batch that could not be sealed comes again, and is a repeat then as well.
	s = start(t, Options{Dir: dir, Documents: docs})
	stopped, stop := context.WithCancel(t.Context())
	stop()
	for range 3 { // as often as the tail holds each line
		w, no, err := s.gate(s.policy, again)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.keep(stopped, s.policy, w, no); err == nil {
			t.Fatal("sealed with a context that had ended")
		}
	}
	if _, err := s.Accept(t.Context(), again); err != nil {
		t.Fatal(err)
	}
	if err := s.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n, err := s.State().Repeats(t.Context()); err != nil || n[b.Source] != 10 {
		t.Fatalf("repeats %v, want 10; %v", n, err)
	}
}

// TestDamagedEvidenceCostsOnlyItself: a flipped byte in a closed segment is named by
// doctor; every other record is still found.
func TestDamagedEvidenceCostsOnlyItself(t *testing.T) {
	if testing.Short() {
		t.Skip("long: the race detector sees its code in the others")
	}
	in := demo.Play(demo.Options{Seed: 2, At: at, Scale: 0.1})
	dir := t.TempDir()
	docs := documents(t, in)
	o := Options{Dir: dir, Documents: docs, Segment: evidence.Options{BlockBytes: 32 << 10, MaxSegmentBytes: 1 << 20}}
	s := start(t, o)
	play(t, s, in)
	total := len(hold(t, s).Rows)
	s.stop()

	segments, err := filepath.Glob(filepath.Join(dir, "evidence", "events", "servers", "*.seg"))
	if err != nil || len(segments) == 0 {
		t.Fatalf("no closed segment: %v", err)
	}
	b, err := os.ReadFile(segments[0])
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.Chmod(segments[0], 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(segments[0], b, 0o600); err != nil {
		t.Fatal(err)
	}

	p, err := Open(t.Context(), Options{Tokens: maker(t), Dir: dir, Documents: docs, Now: func() time.Time { return at.Add(time.Hour) }})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := p.Rebuild(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	q, err := query.Parse("")
	if err != nil {
		t.Fatal(err)
	}
	rows := 0
	if err := p.Index().Query(t.Context(), q, index.Scope{}, 0, func(index.Row) bool { rows++; return true }); err != nil {
		t.Fatal(err)
	}
	if rows == total || rows < total*3/4 {
		t.Errorf("%d rows of %d: one block should be missing", rows, total)
	}
	checks := p.Doctor(t.Context(), true)
	if !slices.ContainsFunc(checks, func(c Check) bool { return c.Name == "evidence" && c.State == "fail" }) {
		t.Errorf("doctor does not name the damage: %+v", checks)
	}
}

// maker stands for a key holder.
func maker(t testing.TB) pseudonym.Tokenizer {
	t.Helper()
	l, err := pseudonym.NewLocal(bytes.Repeat([]byte{7}, pseudonym.KeySize), uuid.MustParse("9cbd98f3-abcb-4948-ad06-14e0bcba742f"), 1)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// away is a maker of tokens that answers for some time only.
type away struct {
	pseudonym.Tokenizer
	left atomic.Int64 // so many answers
}

var errAway = errors.New("the key holder does not answer")

func (a *away) Token(k event.TokenKind, canonical []byte) (event.Token, error) {
	if a.left.Add(-1) < 0 {
		return "", errAway
	}
	return a.Tokenizer.Token(k, canonical)
}

// TestNoTokenNoRecord: where a token cannot be had, at whatever place of a batch, nothing
// of the batch is sealed, counted or numbered, and the same batch is taken whole later.
func TestNoTokenNoRecord(t *testing.T) {
	docs, b := twoCompartments(t)
	b.Frames = append(b.Frames, event.Frame{Bytes: []byte(`{"no":"dataset"}`), Line: len(b.Frames) + 1})
	want := start(t, Options{Dir: t.TempDir(), Documents: docs})
	whole, err := want.Accept(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	refused := want.Refused()
	want.stop()
	tokens := &away{Tokenizer: maker(t)}
	s := start(t, Options{Dir: t.TempDir(), Documents: docs, Tokens: tokens})
	for n := range 12 {
		tokens.left.Store(int64(n))
		_, err := s.Accept(t.Context(), b)
		var no *event.Refusal
		if !errors.As(err, &no) || no.Code != codeBusy || no.After == 0 {
			t.Fatalf("after %d tokens: %v", n, err)
		}
		if got := sealed(t, s.Pipeline); len(got) != 0 || s.Accepted() != 0 || len(s.Refused()) != 0 {
			t.Fatalf("after %d tokens %v was sealed, %v refused", n, got, s.Refused())
		}
	}
	if n, _, why := s.NoTokens(); n != 12 || !errors.Is(why, errAway) {
		t.Error(n, why)
	}
	tokens.left.Store(1 << 40)
	got, err := s.Accept(t.Context(), b)
	if err != nil || got.Accepted != whole.Accepted || len(got.Errors) != len(whole.Errors) {
		t.Fatalf("%+v, want %+v; %v", got, whole, err)
	}
	if diff := cmp.Diff(refused, s.Refused()); diff != "" {
		t.Error(diff)
	}
	for _, comp := range s.evidence.Compartments(evidence.Events) {
		var seqs []uint64
		_, err := s.evidence.Read(t.Context(), evidence.Events, comp, evidence.Position{}, func(_ event.Ref, rec []byte) error {
			if en, err := event.Decode(rec); err == nil && en.Event != nil {
				seqs = append(seqs, en.Event.Seq)
			}
			return nil
		})
		if err != nil || len(seqs) == 0 || slices.Min(seqs) > uint64(got.Accepted) {
			t.Errorf("%s: numbered %v, %v", comp, seqs, err)
		}
	}
	s.stop()
}
