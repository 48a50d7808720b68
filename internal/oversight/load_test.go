package oversight

import (
	"cmp"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/counterseal/counterseal/internal/attest"
	"github.com/counterseal/counterseal/internal/ledger"
	"github.com/counterseal/counterseal/internal/policy"
	"github.com/counterseal/counterseal/internal/state"
)

// projected is a ledger of which a real state file is kept.
type projected struct {
	*state.DB
	attest.Statements
	next uint64
}

func (p *projected) Facts(ctx context.Context, kind string) ([]state.Fact, error) {
	return p.DB.Facts(ctx, kind)
}

func (p *projected) Fact(ctx context.Context, kind, key string) (state.Fact, bool, error) {
	return p.DB.Fact(ctx, kind, key)
}

func (p *projected) tell(t testing.TB, all ...ledger.Statement) {
	t.Helper()
	var facts []state.Fact
	for _, s := range all {
		facts = append(facts, attest.Fold(p.next, s)...)
		p.next++
	}
	if err := p.Tell(t.Context(), p.next, facts); err != nil {
		t.Fatal(err)
	}
}

// openProjected opens a Book over a state file.
func openProjected(t testing.TB, dir string, now time.Time) (*Book, *projected) {
	t.Helper()
	db, err := state.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	p := &projected{DB: db}
	b, err := Open(t.Context(), Options{Statements: p, Now: func() time.Time { return now }, Offices: func() *policy.Offices { return nil }})
	if err != nil {
		t.Fatal(err)
	}
	return b, p
}

// loadAll is the fold of every statement about looks there ever was.
func loadAll(t testing.TB, b *Book, p *projected) {
	t.Helper()
	var all []state.Fact
	for _, kind := range append([]string{"request.served", "look.answered", "look.reviewed"}, kinds...) {
		facts, err := p.DB.Facts(t.Context(), kind)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, facts...)
	}
	slices.SortFunc(all, func(x, y state.Fact) int { return cmp.Compare(x.Index, y.Index) })
	b.looks, b.heard, b.begun, b.quiet, b.turn = map[string]*look{}, map[string]state.Fact{}, time.Time{}, nil, 0
	for i := range all {
		b.fold(&all[i])
	}
	b.forget()
}

// TestStartReadsWhatCounts: over random histories, with reviews of every form, in every
// order and repeated, a Book that reads the looks that wait and the latest ones is the same
// as one that reads all there ever were; also after the state was emptied and folded anew.
func TestStartReadsWhatCounts(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 11))
	outcomes := []any{Justified, Excessive, Misuse, Justified, Justified, Misuse, "hearsay", 7}
	waiting, settled, gone := 0, 0, 0
	for range 50 {
		dir := t.TempDir()
		b, p := openProjected(t, dir, noon)
		var history []ledger.Statement
		for range rng.IntN(120) {
			id := fmt.Sprintf("look-%d", rng.IntN(25))
			at := noon.Add(-time.Duration(rng.Int64N(int64(200 * 24 * time.Hour))))
			if rng.IntN(4) == 0 { // on the edge
				at = noon.Add(-Kept).Add(time.Duration(rng.IntN(5)-2) * time.Microsecond)
			}
			var s ledger.Statement
			switch rng.IntN(8) {
			case 0, 1:
				s = statement(t, "request.served", at, map[string]any{"act": "search", "selects": "person", "look": []string{People, Wide, "x"}[rng.IntN(3)], "route": "r", "status": 200}, id)
			case 2:
				s = statement(t, "look.answered", at, map[string]any{"look": id, "rows": 10, "people": 1}, id)
			case 3, 4, 5, 6:
				s = statement(t, "look.reviewed", at, map[string]any{"look": id, "outcome": outcomes[rng.IntN(len(outcomes))]}, id)
			case 7:
				s = statement(t, []string{"oversight.silent", "oversight.back"}[rng.IntN(2)], at, map[string]any{"reason": Vacant, "since": stamp(at)}, id)
			}
			history = append(history, s)
		}
		for from := 0; from < len(history); { // in transactions of any size
			to := min(len(history), from+1+rng.IntN(20))
			p.tell(t, history[from:to]...)
			from = to
		}
		if rng.IntN(3) == 0 {
			if err := p.Forgotten(t.Context()); err != nil {
				t.Fatal(err)
			}
			p.next = 0
			p.tell(t, history...)
		}
		if err := b.load(t.Context()); err != nil {
			t.Fatal(err)
		}
		looks, rest := b.looks, []any{b.begun, b.quiet, b.turn}
		loadAll(t, b, p)
		if d := gocmp.Diff(b.looks, looks, gocmp.AllowUnexported(look{}, About{})); d != "" {
			t.Fatalf("all (-) and what counts (+):\n%s", d)
		}
		if d := gocmp.Diff([]any{b.begun, b.quiet, b.turn}, rest); d != "" {
			t.Fatal(d)
		}
		for _, l := range b.looks {
			if l.outcome == "" {
				waiting++
			} else {
				settled++
			}
		}
		facts, err := p.DB.Facts(t.Context(), "request.served")
		if err != nil {
			t.Fatal(err)
		}
		gone += len(facts) - len(b.looks)
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if waiting < 60 || settled < 60 || gone < 60 {
		t.Fatalf("%d wait, %d are settled, %d are not read: the histories try too little", waiting, settled, gone)
	}
}

var benchLooks = flag.Int("looks", 20_000, "looks in the state of BenchmarkStart")

// BenchmarkStart opens a Book over a state in which looks were stated over three years, all
// but the last hundred reviewed a day later: as it does, and as it did when it read all.
func BenchmarkStart(b *testing.B) {
	n := *benchLooks
	dir := b.TempDir()
	now := noon
	_, p := openProjected(b, dir, now)
	step := 3 * 365 * 24 * time.Hour / time.Duration(n)
	detail := func(kind string, v map[string]any) json.RawMessage { return statement(b, kind, now, v).Detail }
	served := detail("request.served", map[string]any{"act": "search", "selects": "person", "office": "soc", "cover": "01900000-0000-7000-8000-000000000000", "covered_by": "authorisation", "look": People, "route": "GET /api/v1/search", "status": 200,
		"question": map[string]string{"alg": "sha256-salted", "h": fmt.Sprintf("%064x", 1)}, "case": "C-17", "purpose": "security"})
	answered := detail("look.answered", map[string]any{"look": "01900000-0000-7000-8000-000000000000", "rows": 10, "people": 1})
	reviewed := detail("look.reviewed", map[string]any{"look": "01900000-0000-7000-8000-000000000000", "kind": People, "looked": stamp(now), "office": "inspector", "outcome": Justified})
	var facts []state.Fact
	for i := range n {
		id := fmt.Sprintf("%08x-0000-7000-8000-%012x", i, i)
		at := now.Add(-time.Duration(n-i) * step)
		add := func(kind string, at time.Time, detail json.RawMessage) {
			facts = append(facts, state.Fact{Kind: kind, Key: id, Index: p.next, Time: at, Actor: "account:anna", Detail: detail})
			p.next++
		}
		add("request.served", at, served)
		add("look.answered", at, answered)
		if i < n-100 {
			add("look.reviewed", at.Add(24*time.Hour), reviewed)
		}
		if len(facts) > 4096 || i == n-1 {
			if err := p.Tell(b.Context(), p.next, facts); err != nil {
				b.Fatal(err)
			}
			facts = facts[:0]
		}
	}
	if err := p.Close(); err != nil {
		b.Fatal(err)
	}
	if st, err := os.Stat(filepath.Join(dir, "state.db")); err == nil {
		b.Logf("%d looks: state.db of %d MiB", n, st.Size()>>20)
	}
	for _, all := range []bool{false, true} {
		b.Run(map[bool]string{false: "what-counts", true: "all"}[all], func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				began := time.Now()
				db, err := state.Open(dir)
				if err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(time.Since(began).Seconds(), "s-to-open-the-file")
				p := &projected{DB: db}
				book := &Book{o: Options{Statements: p, Now: func() time.Time { return now }}}
				var before, after runtime.MemStats
				runtime.GC()
				runtime.ReadMemStats(&before)
				b.StartTimer()
				if all {
					loadAll(b, book, p)
				} else if err := book.load(b.Context()); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				runtime.ReadMemStats(&after)
				b.ReportMetric(float64(after.TotalAlloc-before.TotalAlloc)/(1<<20), "MiB-allocated")
				b.ReportMetric(float64(after.HeapSys-before.HeapSys)/(1<<20), "MiB-more-heap")
				b.ReportMetric(float64(len(book.looks)), "looks-kept")
				if err := db.Close(); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
		})
	}
}
