package sigma

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestOriginsAreBounded: events of endless origins do not fill the memory, and
// the answers stay right.
func TestOriginsAreBounded(t *testing.T) {
	rules, refused := Parse("f", []byte("title: x\nlogsource: {product: p}\ndetection: {s: {A: 1}, condition: s}\n"))
	if len(refused) > 0 {
		t.Fatal(refused)
	}
	set, _ := Compile(rules, Options{Mapping: &Mapping{}})
	for i := range maxBuckets + 100 {
		ev := &Event{
			Source: LogSource{Product: "p", Service: fmt.Sprint(i)},
			Fields: []Field{{Name: "A", Value: []byte("1")}, {Name: "Channel", Value: fmt.Append(nil, i)}, {Name: "EventID", Value: fmt.Append(nil, i)}},
		}
		n := 0
		set.Match(ev, func(Match) { n++ })
		if n != 1 {
			t.Fatalf("origin %d: %d matches, want 1", i, n)
		}
	}
	if n := len(*set.buckets.Load()); n != maxBuckets {
		t.Errorf("%d origins are kept, want %d", n, maxBuckets)
	}
	one, _ := Compile(rules, Options{})
	for i := range 100 {
		ev := &Event{Source: LogSource{Product: windows}, Fields: []Field{
			{Name: "Channel", Value: fmt.Append(nil, i)}, {Name: "EventID", Value: fmt.Append(nil, "id", i)},
		}}
		one.Match(ev, func(Match) { t.Error("match") })
	}
	if n := len(*one.buckets.Load()); n != 1 {
		t.Errorf("unknown channels and event ids make %d origins, want 1", n)
	}
}

// TestManyTokens: a value that is full of tokens is searched in linear time.
func TestManyTokens(t *testing.T) {
	rules, refused := Parse("f", []byte("title: x\nlogsource: {product: p}\ndetection: {s: {A|contains: p1_}, t: {B: '*p1_*a?c*'}, condition: 1 of them}\n"))
	if len(refused) > 0 {
		t.Fatal(refused)
	}
	set, _ := Compile(rules, Options{Opaque: func(b []byte) (int, int) {
		i := strings.Index(string(b[:min(len(b), 64)]), "p1_")
		if i < 0 || i+11 > len(b) {
			return -1, -1
		}
		return i, i + 11
	}})
	value := []byte(strings.Repeat("p1_aaaaaaaa ", 100000))
	ev := &Event{Source: LogSource{Product: "p"}, Fields: []Field{{Name: "A", Value: value}, {Name: "B", Value: value}}}
	start := time.Now()
	set.Match(ev, func(Match) { t.Error("a literal matches inside of a token") })
	// Searching each token's inside anew would take minutes.
	if d := time.Since(start); d > 20*time.Second {
		t.Errorf("%v", d)
	}
	// A finder that answers nonsense is not followed out of the value.
	for _, span := range [][2]int{{-1, 5}, {0, 0}, {3, 2}, {0, 1 << 40}} {
		set, _ := Compile(rules, Options{Opaque: func([]byte) (int, int) { return span[0], span[1] }})
		n := 0
		set.Match(ev, func(Match) { n++ })
		if n != 1 {
			t.Errorf("finder %v: %d matches, want 1", span, n)
		}
	}
}
