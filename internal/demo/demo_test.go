package demo

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

var at = time.Date(2026, 11, 25, 9, 30, 17, 0, time.UTC)

// digest is over every byte that a play would send, in order, and its documents.
func digest(in *Incident) string {
	h := sha256.New()
	for _, s := range in.Streams {
		fmt.Fprintf(h, "%s %s %s %d\n", s.Source, s.Way, s.Name, s.Len())
		for f := range s.Frames() {
			h.Write(f.Bytes)
			h.Write([]byte{'\n'})
		}
	}
	for _, name := range sortedNames(in.PIAs) {
		h.Write(in.PIAs[name])
	}
	h.Write(in.Protected)
	h.Write(in.Directory)
	fmt.Fprintf(h, "%+v", in.Truth)
	return hex.EncodeToString(h.Sum(nil))
}

func sortedNames(m map[string][]byte) []string {
	var names []string
	for n := range m {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

func TestSameOptionsSameBytes(t *testing.T) {
	one := digest(Play(Options{Seed: 7, At: at, Hotline: true}))
	if two := digest(Play(Options{Seed: 7, At: at.Add(300 * time.Millisecond), Hotline: true})); two != one {
		t.Errorf("the same options (below the second) give %s and %s", one, two)
	}
	if two := digest(Play(Options{Seed: 8, At: at, Hotline: true})); two == one {
		t.Error("another seed gives the same bytes")
	}
	if two := digest(Play(Options{Seed: 7, At: at.Add(time.Second), Hotline: true})); two == one {
		t.Error("another end gives the same bytes")
	}
}

func TestFramesCanBeReadTwice(t *testing.T) {
	in := Play(Options{Seed: 7, At: at, Scale: 0.05, Hotline: true})
	for _, s := range in.Streams {
		var first [][]byte
		for f := range s.Frames() {
			first = append(first, f.Bytes)
		}
		i := 0
		for f := range s.Frames() {
			if !bytes.Equal(first[i], f.Bytes) {
				t.Fatalf("%s: frame %d changed", s.Source, i)
			}
			_ = append(f.Bytes, "xxxx"...) // must not reach the next frame
			i++
		}
		if i != len(first) || i != s.Len() {
			t.Errorf("%s: %d, %d and Len %d frames", s.Source, len(first), i, s.Len())
		}
	}
}

func TestCounts(t *testing.T) {
	in := Play(Options{Seed: 7, At: at, Hotline: true})
	total, names := 0, map[string]bool{}
	for _, s := range in.Streams {
		if names[s.Name] {
			t.Errorf("two streams are called %s", s.Name)
		}
		names[s.Name] = true
		total += s.Len()
		if s.Len() < 100 {
			t.Errorf("%s has %d frames", s.Source, s.Len())
		}
	}
	if total < 45_000 || total > 60_000 {
		t.Errorf("%d frames, about 50,000 are due", total)
	}
	small := 0
	for _, s := range Play(Options{Seed: 7, At: at, Scale: 0.1, Hotline: true}).Streams {
		small += s.Len()
	}
	if small > total/5 {
		t.Errorf("a tenth of the scale gives %d of %d frames", small, total)
	}
}

// TestHotline is the heart of the non-interference demonstration: the play without
// the contact is the play with it, less the lines that name it.
func TestHotline(t *testing.T) {
	named := func(b []byte) bool {
		return bytes.Contains(b, []byte("oig.example")) || bytes.Contains(b, []byte("203.0.113.200")) || bytes.Contains(b, []byte("18005550142"))
	}
	for seed, scale := range map[uint64]float64{7: 1, 99: 0.2} {
		with, without := Play(Options{Seed: seed, At: at, Scale: scale, Hotline: true}), Play(Options{Seed: seed, At: at, Scale: scale})
		removed := map[string]int{}
		for i, s := range with.Streams {
			var rest [][]byte
			for f := range s.Frames() {
				if named(f.Bytes) {
					removed[s.Source]++
					if s.Way == "file" {
						t.Errorf("the contact stands in a file")
					}
					continue
				}
				rest = append(rest, f.Bytes)
			}
			j := 0
			for f := range without.Streams[i].Frames() {
				if j >= len(rest) || !bytes.Equal(rest[j], f.Bytes) {
					t.Fatalf("seed %d, %s: frame %d differs beside the contact", seed, s.Source, j)
				}
				j++
			}
			if j != len(rest) {
				t.Errorf("seed %d, %s: %d frames without, %d expected", seed, s.Source, j, len(rest))
			}
		}
		if removed["zeek"] < 3 || removed["firewall"] < 4 || len(removed) != 2 {
			t.Errorf("seed %d: the contact left lines in %v", seed, removed)
		}
		if fmt.Sprint(with.Truth) != fmt.Sprint(without.Truth) {
			t.Error("the truth tells of the contact")
		}
	}
}

// claims find every time that a line claims.
var claims = [...]struct {
	re    *regexp.Regexp
	parse func(string, time.Time) (time.Time, error)
}{
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z`), func(s string, _ time.Time) (time.Time, error) { return time.Parse(time.RFC3339Nano, s) }},
	{regexp.MustCompile(`\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}`), func(s string, _ time.Time) (time.Time, error) { return time.Parse(sysmonMilli, s) }},
	{regexp.MustCompile(`"ts":\d+\.\d{6}`), func(s string, _ time.Time) (time.Time, error) { return epoch(s[5:]) }},
	{regexp.MustCompile(`^\d{10}\.\d{6}\t`), func(s string, _ time.Time) (time.Time, error) { return epoch(s[:17]) }},
	{regexp.MustCompile(`audit\(\d+\.\d{3}:`), func(s string, _ time.Time) (time.Time, error) { return epoch(s[6 : len(s)-1]) }},
	{regexp.MustCompile(`^<\d+>[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d `), func(s string, frame time.Time) (time.Time, error) {
		v, err := time.Parse(time.Stamp, s[strings.IndexByte(s, '>')+1:len(s)-1])
		return v.AddDate(frame.Year(), 0, 0), err
	}},
}

func epoch(s string) (time.Time, error) {
	f, err := strconv.ParseFloat(s, 64)
	return time.UnixMicro(int64(f * 1e6)), err
}

func TestTimes(t *testing.T) {
	for _, end := range []time.Time{at, time.Date(2027, 1, 1, 3, 0, 0, 0, time.UTC), time.Date(2026, 3, 1, 23, 59, 59, 0, time.UTC)} {
		in := Play(Options{Seed: 7, At: end, Scale: 0.25, Hotline: true})
		from := end.Add(-Window)
		for _, s := range in.Streams {
			last, none := time.Time{}, 0
			for f := range s.Frames() {
				if f.At.Before(last) {
					t.Fatalf("%s: a frame before its predecessor", s.Source)
				}
				last = f.At
				if f.At.Before(from) || f.At.After(end) {
					t.Fatalf("%s: sent at %v, outside %v to %v", s.Source, f.At, from, end)
				}
				found := false
				for _, c := range claims {
					for _, m := range c.re.FindAllString(string(f.Bytes), -1) {
						found = true
						v, err := c.parse(m, f.At)
						if err != nil || v.Before(from.Add(-time.Second)) || v.After(end) {
							t.Fatalf("%s claims %s (%v): %s", s.Source, m, err, f.Bytes)
						}
						// A device says when it was last seen; records of the rest are in time.
						if f.At.Sub(v) > 10*time.Minute && s.Source != "mdm" {
							t.Fatalf("%s is sent %v late", s.Source, f.At.Sub(v))
						}
					}
				}
				if !found {
					none++
				}
			}
			if none > len(zeekHeader) || none > 0 && s.Way != "file" {
				t.Errorf("%s: %d frames claim no time", s.Source, none)
			}
		}
		for _, st := range in.Truth.Steps {
			if st.Time.Before(from) || st.Time.After(end) {
				t.Errorf("step %d at %v", st.N, st.Time)
			}
		}
	}
}

func TestJSON(t *testing.T) {
	for _, s := range Play(Options{Seed: 7, At: at, Hotline: true}).Streams {
		if s.Way != "http" {
			continue
		}
		n := 0
		for f := range s.Frames() {
			n++
			if !json.Valid(f.Bytes) || bytes.ContainsAny(f.Bytes, "\n\r") {
				t.Fatalf("%s line %d is no JSON line: %s", s.Source, n, f.Bytes)
			}
		}
	}
}

func TestFramesAreSmall(t *testing.T) {
	for _, s := range Play(Options{Seed: 7, At: at, Hotline: true}).Streams {
		for f := range s.Frames() {
			if len(f.Bytes) == 0 || len(f.Bytes) > 8<<10 {
				t.Fatalf("%s: a frame of %d bytes", s.Source, len(f.Bytes))
			}
		}
	}
}

func TestArchive(t *testing.T) {
	for _, s := range Play(Options{Seed: 7, At: at, Hotline: true}).Streams {
		if s.Way != "file" {
			continue
		}
		i, columns := 0, 0
		for f := range s.Frames() {
			line := string(f.Bytes)
			switch {
			case i < len(zeekHeader):
				if line[0] != '#' {
					t.Fatalf("line %d is no header", i)
				}
				if name, rest, _ := strings.Cut(line, "\t"); name == "#fields" {
					columns = strings.Count(rest, "\t") + 1
				}
			case strings.Count(line, "\t")+1 != columns:
				t.Fatalf("line %d has not %d columns: %s", i, columns, line)
			}
			i++
		}
		if columns != 21 {
			t.Errorf("%d columns", columns)
		}
	}
}

func TestTruth(t *testing.T) {
	in := Play(Options{Seed: 7, At: at, Hotline: true})
	hosts := map[string]bool{}
	last := time.Time{}
	for i, s := range in.Truth.Steps {
		if s.N != i+1 || s.Time.Before(last) {
			t.Errorf("step %d at place %d is out of order", s.N, i)
		}
		last = s.Time
		hosts[s.Host] = true
		if _, err := regexp.Compile(s.Rule); err != nil || s.Rule == "" || s.Technique == "" {
			t.Errorf("step %d: rule %q, technique %q", s.N, s.Rule, s.Technique)
		}
		if !slices.ContainsFunc(in.Streams, func(x *Stream) bool { return x.Source == s.Source }) {
			t.Errorf("step %d names the source %s", s.N, s.Source)
		}
	}
	if len(in.Truth.Steps) < 10 {
		t.Errorf("%d steps", len(in.Truth.Steps))
	}
	for _, h := range []string{"jump01", "WS-IT-03", "FS01", "DC01"} {
		if !hosts[h] {
			t.Errorf("no step on %s", h)
		}
	}
	for _, s := range []Sighting{in.Truth.Leaver, in.Truth.Abroad} {
		if s.Person == "" || s.Time.IsZero() || !bytes.Contains(in.Directory, []byte("id: "+s.Person+"\n")) {
			t.Errorf("sighting %+v", s)
		}
	}
}

// TestGap reads the numbers that the streams really carry.
func TestGap(t *testing.T) {
	in := Play(Options{Seed: 7, At: at, Hotline: true})
	g := in.Truth.Gap
	if g.To.Sub(g.From) != 40*time.Minute || len(g.Holes) == 0 {
		t.Fatalf("gap %+v", g)
	}
	type record struct {
		Winlog struct {
			Channel  string `json:"channel"`
			Computer string `json:"computer_name"`
			ID       uint64 `json:"record_id"`
		} `json:"winlog"`
	}
	before, holes := map[string]uint64{}, map[string]Hole{}
	for _, s := range in.Streams {
		for f := range s.Frames() {
			if s.Source == g.Source && !f.At.Before(g.From) && f.At.Before(g.To) {
				t.Fatalf("%s speaks in the gap", s.Source)
			}
			if !bytes.Contains(f.Bytes, []byte(`"winlog"`)) {
				continue
			}
			var r record
			if err := json.Unmarshal(f.Bytes, &r); err != nil {
				t.Fatal(err)
			}
			key := r.Winlog.Computer + "/" + r.Winlog.Channel
			if n := before[key]; n != 0 && r.Winlog.ID != n+1 {
				if s.Source != g.Source || r.Winlog.ID <= n {
					t.Fatalf("%s goes from %d to %d", key, n, r.Winlog.ID)
				}
				holes[r.Winlog.Channel] = Hole{r.Winlog.Channel, n, r.Winlog.ID}
			}
			before[key] = r.Winlog.ID
		}
	}
	if len(holes) != len(g.Holes) {
		t.Errorf("holes %v, the truth says %v", holes, g.Holes)
	}
	for _, h := range g.Holes {
		if holes[h.Channel] != h {
			t.Errorf("hole %v, the truth says %v", holes[h.Channel], h)
		}
	}
}

// TestAuditSerials holds that the kernel's numbers have no hole and never go back.
func TestAuditSerials(t *testing.T) {
	re := regexp.MustCompile(` (\w+) audisp-syslog .*audit\(\d+\.\d+:(\d+)\)`)
	last := map[string]uint64{}
	for _, s := range Play(Options{Seed: 7, At: at, Hotline: true}).Streams {
		if s.Source != "linux-audit" {
			continue
		}
		for f := range s.Frames() {
			m := re.FindSubmatch(f.Bytes)
			if m == nil {
				t.Fatalf("no audit record: %s", f.Bytes)
			}
			n, _ := strconv.ParseUint(string(m[2]), 10, 64)
			if was := last[string(m[1])]; was != 0 && n != was && n != was+1 {
				t.Fatalf("%s goes from %d to %d", m[1], was, n)
			}
			last[string(m[1])] = n
		}
	}
	if len(last) != 2 {
		t.Errorf("hosts %v", last)
	}
}

func TestPeopleDiffer(t *testing.T) {
	people := staff()
	if len(people) != 40 {
		t.Errorf("%d people", len(people))
	}
	seen := map[string]string{}
	for _, w := range people {
		for _, v := range []string{w.id, w.account, w.mail, w.sid, w.phone, w.laptop, w.laptopID, w.phoneID, w.phoneSerial} {
			if other := seen[v]; other != "" {
				t.Errorf("%s and %s share a name", other, w.id)
			}
			seen[v] = w.id
		}
	}
}

func BenchmarkPlay(b *testing.B) {
	var size int64
	for b.Loop() {
		size = 0
		for _, s := range Play(Options{Seed: 7, At: at, Hotline: true}).Streams {
			for f := range s.Frames() {
				size += int64(len(f.Bytes))
			}
		}
	}
	b.SetBytes(size)
}
