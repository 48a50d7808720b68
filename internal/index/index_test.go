package index

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/VictoriaMetrics/VictoriaMetrics/lib/logger"
	"github.com/VictoriaMetrics/VictoriaMetrics/lib/logstorage"
	"github.com/counterseal/counterseal/internal/durable"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/google/go-cmp/cmp"
)

func open(t *testing.T, o Options) *Index {
	t.Helper()
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	x, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := x.Close(); err != nil {
			t.Error(err)
		}
	})
	return x
}

func TestContract(t *testing.T) {
	runContract(t, func(t *testing.T) store { return open(t, Options{}) })
}

// eventually waits for what the library does in its own time.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(15 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if f() {
			return
		}
	}
	t.Fatalf("not within 15 s: %s", what)
}

func TestVisibleWithoutFlush(t *testing.T) {
	x := open(t, Options{})
	if _, err := x.Append(t.Context(), []Row{row(1)}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the row can be found", func() bool { return len(find(t, x, "", Scope{}, 0)) == 1 })
}

const planted = "planted-value-7f3a"

// Rows beyond each limit keep their OCSF part, are counted, and reach no log.
func TestLimits(t *testing.T) {
	var log syncBuffer
	logger.SetOutputForTests(&log)
	defer logger.ResetOutputForTest()
	x := open(t, Options{})
	big := strings.Repeat("x", 2<<20) + planted
	rows := []Row{row(0), row(1), row(2), row(3), row(4), row(5), row(6)}
	for i := range rows {
		rows[i].OCSF = []Attr{{"user.uid", "p1_a"}}
		rows[i].Native = []Attr{{"F", planted}}
	}
	rows[1].Native = append(rows[1].Native, Attr{strings.Repeat("n", 122), planted})
	for i := range 1001 {
		rows[2].Native = append(rows[2].Native, Attr{"f" + strconv.Itoa(i), planted})
	}
	rows[3].Native = append(rows[3].Native, Attr{"big", big})
	rows[4].OCSF = append(rows[4].OCSF, Attr{"process.cmd_line", big}, Attr{"device.hostname", "h"}, Attr{strings.Repeat("o", 129), planted})
	rows[5].Native = append(rows[5].Native, Attr{strings.Repeat("n", 120), "a"}, Attr{strings.Repeat("n", 120), "b"}) // multi. makes it too long
	rows[6].Native = append(rows[6].Native, Attr{strings.Repeat("n", 121), planted})                                  // just inside
	a := add(t, x, rows...)
	if a != (Appended{Rows: 7, Truncated: 5}) {
		t.Fatalf("%+v", a)
	}
	got := find(t, x, "user.uid = p1_a", Scope{}, 0)
	slices.Reverse(got)
	if len(got) != 7 {
		t.Fatalf("%d rows of 7", len(got))
	}
	for i, r := range got {
		cut := i >= 1 && i <= 5
		if r.Truncated != cut || (len(r.Native) == 0) != cut {
			t.Errorf("row %d: truncated %v, %d native fields", i, r.Truncated, len(r.Native))
		}
	}
	if d := cmp.Diff([]Attr{{"device.hostname", "h"}, {"user.uid", "p1_a"}}, got[4].OCSF); d != "" {
		t.Error(d)
	}
	wantRows(t, x, "truncated = true", 1, 2, 3, 4, 5)
	wantRows(t, x, `"`+planted+`"`, 0, 1, 2, 3, 4, 5, 6) // the text of the row survives, up to its bound
	tot, err := x.Totals()
	if err != nil || tot.Truncated != 5 || tot.Rows != 7 || tot.Dropped != 0 {
		t.Errorf("%+v, %v", tot, err)
	}
	if s := log.String(); strings.Contains(s, planted) || s != "" {
		t.Errorf("the library logged %d bytes: %.200s", len(s), s)
	}
}

// The setting that TestLimits leans on, by itself: the library drops a row beyond
// its limits and would log it.
func TestLibraryLogIsSilent(t *testing.T) {
	open(t, Options{})
	var log syncBuffer
	logger.SetOutputForTests(&log)
	defer logger.ResetOutputForTest()
	drop := func() {
		lr := logstorage.GetLogRows(nil, nil, nil, nil, "")
		defer logstorage.PutLogRows(lr)
		lr.MustAdd(tenant, 1, []logstorage.Field{{Name: strings.Repeat("n", 200), Value: planted}}, nil)
	}
	drop()
	if s := log.String(); s != "" {
		t.Errorf("the library logged %d bytes", len(s))
	}
	flag.Set("loggerLevel", "WARN")
	defer flag.Set("loggerLevel", "ERROR")
	drop()
	if !strings.Contains(log.String(), planted) {
		t.Error("the library would not log: this test shows nothing")
	}
}

func TestSecondOpen(t *testing.T) {
	x := open(t, Options{})
	if _, err := Open(Options{Dir: x.dir}); !errors.Is(err, durable.ErrLocked) {
		t.Fatal(err)
	}
}

func TestDrop(t *testing.T) {
	dir := t.TempDir()
	x := open(t, Options{Dir: dir})
	a, b, c := row(1), row(2), row(3)
	b.Sealed = b.Sealed.AddDate(0, 0, 7)
	c.Compartment, c.Ref = "phones", ref("phones", 3)
	add(t, x, a, b, c)
	if w := x.Weeks(); len(w) != 3 || w[0].Name != "2026-w10" || !w[0].From.Equal(time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)) {
		t.Fatalf("%+v", w)
	}
	os.Mkdir(filepath.Join(dir, "servers", "2026-w09"+damagedSuffix+"1"), 0o700)
	if err := x.Drop("servers", "2026-w09"); err != nil {
		t.Fatal(err)
	}
	wantRows(t, x, "", 2, 3)
	if err := x.Drop("servers", "2026-w09"); err != nil {
		t.Error(err)
	}
	for _, bad := range []string{"../phones", "2026-w9", "2026-w09/..", ""} {
		if err := x.Drop("servers", bad); err == nil {
			t.Errorf("dropped %q", bad)
		}
	}
	left, _ := filepath.Glob(filepath.Join(dir, "servers", "*w09*"))
	if len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
	os.Mkdir(filepath.Join(dir, "servers", "2026-w09"+droppedSuffix+"1"), 0o700)
	x.Close()
	x = open(t, Options{Dir: dir})
	wantRows(t, x, "", 2, 3)
	if left, _ := filepath.Glob(filepath.Join(dir, "servers", "*w09*")); len(left) != 0 {
		t.Errorf("left behind by a crash: %v", left)
	}
	add(t, x, a)
	wantRows(t, x, "", 1, 2, 3)
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// The row owns some names; OCSF's time must not hide the row's.
func TestOwnedNames(t *testing.T) {
	x := open(t, Options{})
	r := row(1)
	r.OCSF = []Attr{{"time", "x"}, {"source", "x"}, {"_time", "x"}, {"native.a", "x"}, {"multi.b", "x"}, {"", "x"}, {"ok", "y"}}
	if a := add(t, x, r); a.Reserved != 6 {
		t.Fatalf("%+v", a)
	}
	got := find(t, x, "", Scope{}, 0)
	want := row(1)
	want.OCSF = []Attr{{"ok", "y"}}
	if d := cmp.Diff([]Row{want}, got); d != "" {
		t.Fatal(d)
	}
}

// A claimed time outside the bounds is stored under the time of sealing, and said.
func TestClaimedTime(t *testing.T) {
	x := open(t, Options{})
	now := time.Now().UTC().Truncate(time.Second)
	var rows []Row
	for i, at := range []time.Time{now.AddDate(10, 0, 0), now.Add(49 * time.Hour), now.Add(47 * time.Hour), time.Unix(0, -5), {}, time.Unix(1, 0)} {
		r := row(i)
		r.Sealed = now
		r.Time = at.UnixNano()
		if at.IsZero() {
			r.Time = 0
		}
		rows = append(rows, r)
	}
	if a := add(t, x, rows...); a.TimeMoved != 4 {
		t.Fatalf("%+v", a)
	}
	wantRows(t, x, "time_claimed exists", 0, 1, 3, 4)
	wantRows(t, x, "time_claimed = "+now.AddDate(10, 0, 0).Format(time.RFC3339), 0)
	for _, r := range find(t, x, "time_claimed exists", Scope{}, 0) {
		if r.Time != now.UnixNano() {
			t.Errorf("%s is at %d", r.Ref, r.Time)
		}
	}
	if tot, _ := x.Totals(); tot.Dropped != 0 {
		t.Errorf("the library dropped %d rows", tot.Dropped)
	}
}

// A clock that runs 200 days ahead and is put back over a restart deletes nothing.
func TestClockJumps(t *testing.T) {
	dir := t.TempDir()
	x := open(t, Options{Dir: dir})
	for i, days := range []int{0, 200, -200, 3650} {
		r := row(i)
		r.Sealed = time.Now().UTC().AddDate(0, 0, days)
		r.Time = r.Sealed.UnixNano()
		add(t, x, r)
	}
	if err := x.Close(); err != nil {
		t.Fatal(err)
	}
	x = open(t, Options{Dir: dir})
	wantRows(t, x, "", 0, 1, 2, 3)
}

func TestBadRows(t *testing.T) {
	x := open(t, Options{})
	for name, change := range map[string]func(*Row){
		"compartment": func(r *Row) { r.Compartment = "../x" },
		"no ref":      func(r *Row) { r.Ref = "" },
		"star":        func(r *Row) { r.Ref = "*" },
		"sealed":      func(r *Row) { r.Sealed = time.Time{} },
		"far":         func(r *Row) { r.Sealed = time.Now().AddDate(200, 0, 0) },
	} {
		good, bad := row(1), row(2)
		change(&bad)
		if _, err := x.Append(t.Context(), []Row{good, bad}); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	x.Flush()
	wantRows(t, x, "")
}

func TestDiskLow(t *testing.T) {
	x := open(t, Options{ReserveBytes: 1 << 60})
	if _, err := x.Append(t.Context(), []Row{row(1)}); !errors.Is(err, ErrDiskLow) {
		t.Fatal(err)
	}
	wantRows(t, x, "")
}

func TestClosed(t *testing.T) {
	x := open(t, Options{})
	add(t, x, row(1))
	if err := x.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := x.Append(t.Context(), []Row{row(2)}); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	if err := x.Query(t.Context(), ask(t, ""), Scope{}, 0, nil); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
}

// Many weeks are searched with few of them open.
func TestFewStoragesOpen(t *testing.T) {
	x := open(t, Options{OpenStorages: 2})
	var all []int
	var rows []Row
	for i := range 12 {
		r := row(i)
		r.Sealed = day0.AddDate(0, 0, 7*i)
		r.Time = r.Sealed.UnixNano()
		rows = append(rows, r)
		all = append(all, i)
	}
	add(t, x, rows...)
	wantRows(t, x, "", all...)
	tot, err := x.Totals()
	if err != nil || tot.Storages != 12 || tot.Open > 3 {
		t.Errorf("%+v, %v", tot, err)
	}
	// A range opens the storages with events in it and no others.
	x.Close()
	x = open(t, Options{Dir: x.dir})
	if got := find(t, x, "", Scope{From: day0.AddDate(0, 0, 7), To: day0.AddDate(0, 0, 8)}, 0); len(got) != 1 {
		t.Errorf("%d rows", len(got))
	}
	if tot, _ := x.Totals(); tot.Open != 1 {
		t.Errorf("%d storages open for one week", tot.Open)
	}
}

// Searches, appends and closing of idle storages at the same time.
func TestConcurrent(t *testing.T) {
	x := open(t, Options{OpenStorages: 1})
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := range 6 {
				r := row(g*100 + i)
				r.Sealed = day0.AddDate(0, 0, 7*((g+i)%3))
				if _, err := x.Append(t.Context(), []Row{r}); err != nil {
					t.Error(err)
				}
				if err := x.Query(t.Context(), ask(t, "source = windows"), Scope{}, 0, func(Row) bool { return true }); err != nil {
					t.Error(err)
				}
			}
		}()
	}
	wg.Wait()
	x.Flush()
	if got := find(t, x, "", Scope{}, 0); len(got) != 24 {
		t.Errorf("%d rows of 24", len(got))
	}
}

// Damage of every kind that the library ends the process for: the storage is moved
// aside, its mark is gone, the others answer, a replay fills it again.
func TestDamage(t *testing.T) {
	for name, harm := range map[string]func(t *testing.T, week string){
		"opening mark": func(t *testing.T, w string) { os.WriteFile(w+openingSuffix, nil, 0o600) },
		"parts.json": func(t *testing.T, w string) {
			overwrite(t, w, "partitions/*/datadb/parts.json", "[\"")
		},
		"no parts.json": func(t *testing.T, w string) { remove(t, w, "partitions/*/datadb/parts.json") },
		"missing part":  func(t *testing.T, w string) { remove(t, w, "partitions/*/datadb/[0-9A-F]*") },
		"missing file":  func(t *testing.T, w string) { remove(t, w, "partitions/*/datadb/*/timestamps.bin") },
		"metadata":      func(t *testing.T, w string) { overwrite(t, w, "partitions/*/datadb/*/metadata.json", "{") },
		"no indexdb":    func(t *testing.T, w string) { remove(t, w, "partitions/*/indexdb") },
		"indexdb part":  func(t *testing.T, w string) { remove(t, w, "partitions/*/indexdb/*/items.bin") },
		"foreign day":   func(t *testing.T, w string) { os.Mkdir(filepath.Join(w, "partitions", "x"), 0o700) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			x := open(t, Options{Dir: dir})
			a, b := row(1), row(2)
			b.Sealed = b.Sealed.AddDate(0, 0, 7)
			add(t, x, a, b)
			x.Note("servers", "pos-2")
			if err := x.Close(); err != nil {
				t.Fatal(err)
			}
			harm(t, filepath.Join(dir, "servers", "2026-w09"))
			x = open(t, Options{Dir: dir})
			d := x.Damaged()
			if len(d) != 1 || d[0].Compartment != "servers" || d[0].Week != "2026-w09" || d[0].Reason == "" {
				t.Fatalf("%+v", d)
			}
			if _, err := os.Stat(d[0].MovedTo); err != nil {
				t.Error(err)
			}
			if m := x.Mark("servers"); m != "" {
				t.Errorf("the mark is %q", m)
			}
			wantRows(t, x, "", 2)
			add(t, x, a)
			wantRows(t, x, "", 1, 2)
			x.Close()
			if x = open(t, Options{Dir: dir}); len(x.Damaged()) != 0 {
				t.Errorf("%+v", x.Damaged())
			}
			wantRows(t, x, "", 1, 2)
		})
	}
}

func each(t *testing.T, week, pattern string, f func(string) error) {
	t.Helper()
	paths, _ := filepath.Glob(filepath.Join(week, pattern))
	if len(paths) == 0 {
		t.Fatalf("nothing is called %s", pattern)
	}
	for _, p := range paths {
		if err := f(p); err != nil {
			t.Fatal(err)
		}
	}
}

func remove(t *testing.T, week, pattern string) { each(t, week, pattern, os.RemoveAll) }

func overwrite(t *testing.T, week, pattern, text string) {
	each(t, week, pattern, func(p string) error { return os.WriteFile(p, []byte(text), 0o600) })
}

func TestMarks(t *testing.T) {
	dir := t.TempDir()
	x := open(t, Options{Dir: dir})
	if m := x.Mark("servers"); m != "" {
		t.Fatalf("a new index has the mark %q", m)
	}
	add(t, x, row(1))
	x.Note("servers", "one")
	if m := x.Mark("servers"); m != "" {
		t.Fatalf("%q became the mark at once", m)
	}
	start := time.Now()
	eventually(t, "the mark moves", func() bool { return x.Mark("servers") == "one" })
	if d := time.Since(start); d < settle-100*time.Millisecond {
		t.Errorf("the mark moved after %v", d)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "servers", markFile)); err != nil || string(b) != "one" {
		t.Errorf("on disk: %q, %v", b, err)
	}
	x.Note("servers", "two")
	x.Note("phones", "three")
	if err := x.Close(); err != nil {
		t.Fatal(err)
	}
	x = open(t, Options{Dir: dir})
	if a, b := x.Mark("servers"), x.Mark("phones"); a != "two" || b != "three" {
		t.Errorf("after a clean close: %q, %q", a, b)
	}
}

// A mark is never ahead of notes that are too young, however many there are.
func TestSettle(t *testing.T) {
	var m marks
	base := time.Now()
	k := m.get("c", t.TempDir())
	for i := range 10 {
		k.noted = append(k.noted, note{strconv.Itoa(i), base.Add(time.Duration(i) * time.Second)})
	}
	for _, c := range []struct {
		at   int
		want string
	}{{-1, ""}, {0, "0"}, {3, "3"}, {3, "3"}, {9, "9"}, {20, "9"}} {
		if err := m.settle(base.Add(time.Duration(c.at) * time.Second)); err != nil {
			t.Fatal(err)
		}
		if k.stored != c.want {
			t.Errorf("at %d s the mark is %q, want %q", c.at, k.stored, c.want)
		}
	}
}

func TestWeeks(t *testing.T) {
	for _, d := range []string{"2026-01-01", "2025-12-29", "2024-12-30", "2021-01-03", "2020-12-31", "1970-01-01", "2026-02-25"} {
		at, _ := time.Parse("2006-01-02", d)
		w := weekOf("c", at)
		back, ok := parseWeek("c", w.name())
		if !ok || back != w {
			t.Errorf("%s: %s came back as %v", d, w.name(), back)
		}
		if m := w.monday(); m.Weekday() != time.Monday || m.After(at) || !m.AddDate(0, 0, 7).After(at) {
			t.Errorf("%s is in the week of %v", d, m)
		}
	}
	for _, bad := range []string{"", "2026-w00", "2026-w54", "2026-w9", "2025-w53", "2026-w09.damaged-1", "mark", "26-w09"} {
		if _, ok := parseWeek("c", bad); ok {
			t.Errorf("took %q for a week", bad)
		}
	}
}

func finding(id string, rev int, state event.State, level string) event.Finding {
	at := day0.Add(time.Duration(rev) * time.Minute)
	r, err := event.ParseRef(ref("servers", 1))
	if err != nil {
		panic(err)
	}
	return event.Finding{
		ID: id, Rev: rev, State: state, RuleSet: "set", Group: "g", From: at.Add(-time.Hour), To: at, Source: "windows", Dataset: "security",
		Rule:  event.RuleInfo{ID: "r1", Digest: "d", Title: "A \"title\"", Level: level, Author: "a, b", License: "DRL", Tags: []string{"attack.t1059", "attack.execution"}},
		Refs:  []event.Ref{r, r.Next(1)},
		Parts: []event.Part{{Field: "Image", Value: "C:\\x=y:z"}, {Field: "odd=:", Value: "\xff\x00\x1f"}, {Field: "", Value: ""}},
	}
}

func TestFindings(t *testing.T) {
	x := open(t, Options{})
	all := []event.Finding{
		finding("aa", 1, event.Open, "high"), finding("aa", 2, event.Withdrawn, "high"),
		finding("bb", 1, event.Open, "low"), finding("bb", 2, event.Open, "high"), finding("bb", 10, event.Open, "high"),
		finding("cc", 1, event.Open, "high"),
	}
	for i, f := range all {
		// Revisions lie in other weeks than what they revise.
		add(t, x, FindingRow(f, day0.AddDate(0, 0, 7*i)))
	}
	add(t, x, FindingRow(all[5], day0), row(1)) // twice, and an event
	got := func(q string) (ids []string) {
		t.Helper()
		fs, err := x.Findings(t.Context(), ask(t, q), Scope{}, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range fs {
			ids = append(ids, fmt.Sprintf("%s/%d", f.ID, f.Rev))
		}
		return ids
	}
	for q, want := range map[string][]string{
		"":                                      {"bb/10", "aa/2", "cc/1"},
		"finding.state = open":                  {"bb/10", "cc/1"},
		"finding.state = withdrawn":             {"aa/2"},
		"rule.level = low":                      nil,
		"rule.level = high and finding.rev > 1": {"bb/10", "aa/2"},
		"rule.tags = attack.t1059 | limit 1":    {"bb/10"},
		"finding.ref = " + ref("servers", 2):    {"bb/10", "aa/2", "cc/1"},
		"finding.ref = " + ref("servers", 3):    nil,
		"* | sort by finding.id":                {"aa/2", "bb/10", "cc/1"},
		"rule.title : title":                    {"bb/10", "aa/2", "cc/1"},
	} {
		if ids := got(q); !slices.Equal(ids, want) {
			t.Errorf("%s: %v, want %v", q, ids, want)
		}
	}
	fs, err := x.Findings(t.Context(), nil, Scope{}, 1)
	if err != nil || len(fs) != 1 {
		t.Fatal(fs, err)
	}
	if d := cmp.Diff(all[4], fs[0]); d != "" {
		t.Error(d)
	}
	has, err := x.Has(t.Context(), "servers", day0, day0.AddDate(1, 0, 0), []string{FindingRef("aa", 2), FindingRef("cc", 1), FindingRef("zz", 1)})
	if d := cmp.Diff(map[string]int{FindingRef("aa", 2): 1, FindingRef("cc", 1): 2}, has); err != nil || d != "" {
		t.Error(d, err)
	}
}
