package pipeline

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/counterseal/counterseal/internal/demo"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/evidence"
)

// twoCompartments are the documents of a source whose records lie in two
// compartments, and one request with records of both.
func twoCompartments(t *testing.T) (Documents, event.Batch) {
	t.Helper()
	in := demo.Play(demo.Options{Seed: 1, At: at, Scale: 0.02})
	d := Documents{Protected: in.Protected, Directory: in.Directory}
	for _, name := range []string{"identity.yaml", "mobile.yaml"} {
		d.PIAs = append(d.PIAs, Document{Name: name, Data: bytes.ReplaceAll(in.PIAs[name], []byte("source: mdm"), []byte("source: idp"))})
	}
	b := event.Batch{Source: "idp", Way: "http", Key: "one", Received: at}
	for _, st := range in.Streams {
		if st.Source != "idp" && st.Source != "mdm" {
			continue
		}
		n := 0
		for f := range st.Frames() {
			if n++; n > 5 {
				break
			}
			b.Frames = append(b.Frames, event.Frame{Bytes: f.Bytes, Line: len(b.Frames) + 1})
		}
	}
	return d, b
}

// sealed counts the events of each compartment.
func sealed(t *testing.T, p *Pipeline) map[string]int {
	t.Helper()
	n := map[string]int{}
	for _, comp := range p.evidence.Compartments(evidence.Events) {
		_, err := p.evidence.Read(t.Context(), evidence.Events, comp, evidence.Position{}, func(_ event.Ref, rec []byte) error {
			if event.Type(rec[1]) == event.TypeEvent {
				n[comp]++
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return n
}

// TestRepeatAfterAPolicyChange: the answer to a key is the first answer, also where
// the assessments now put its records elsewhere, or refuse them.
func TestRepeatAfterAPolicyChange(t *testing.T) {
	docs, b := twoCompartments(t)
	b.Frames = append(b.Frames, event.Frame{Bytes: []byte(`{"other":1}`), Line: len(b.Frames) + 1})
	s := start(t, Options{Dir: t.TempDir(), Documents: docs})
	first, err := s.Accept(t.Context(), b)
	if err != nil || first.Accepted != 10 || len(first.Errors) != 1 {
		t.Fatalf("%+v, %v", first, err)
	}
	for name, change := range map[string]func(string) string{
		"moved": func(s string) string {
			return strings.NewReplacer("compartment: identity", "compartment: elsewhere", `"identity"`, `"elsewhere"`).Replace(s)
		},
		"withdrawn": func(s string) string { return strings.ReplaceAll(s, "status: published", "status: draft") },
	} {
		other := docs
		other.PIAs = nil
		for _, d := range docs.PIAs {
			other.PIAs = append(other.PIAs, Document{Name: d.Name, Data: []byte(change(string(d.Data)))})
		}
		if err := s.SetDocuments(other); err != nil {
			t.Fatal(err)
		}
		again, err := s.Accept(t.Context(), b)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !again.Repeated || again.Accepted != first.Accepted || fmt.Sprint(again.Errors) != fmt.Sprint(first.Errors) || again.First != first.First {
			t.Errorf("%s: a repeat is answered %+v, at first %+v", name, again, first)
		}
		if n := sealed(t, s.Pipeline); n["identity"] != 5 || n["mobile"] != 5 || len(n) != 2 {
			t.Errorf("%s: sealed %v", name, n)
		}
	}
}

// TestCrashBetweenCompartments: a request that was sealed in one compartment alone
// is completed by its repeat, and not doubled.
func TestCrashBetweenCompartments(t *testing.T) {
	docs, b := twoCompartments(t)
	dir := t.TempDir()
	s := start(t, Options{Dir: dir, Documents: docs})
	w, refusal, err := s.gate(s.policy, b)
	if refusal != nil || err != nil {
		t.Fatal(refusal, err)
	}
	body := fmt.Sprintf("%x", w.body.Sum(nil))
	if _, err := s.append(t.Context(), s.policy, w, "identity", sortedKeys(w.parts), keyOf(&b), body); err != nil {
		t.Fatal(err)
	}
	s.stop()
	s = start(t, Options{Dir: dir, Documents: docs})
	for range 2 {
		res, err := s.Accept(t.Context(), b)
		if err != nil || res.Accepted != 10 {
			t.Fatalf("%+v, %v", res, err)
		}
	}
	if n := sealed(t, s.Pipeline); n["identity"] != 5 || n["mobile"] != 5 {
		t.Errorf("sealed %v", n)
	}
}

// TestKeyIsUsedAgainAfterAWeek: a key may be used anew after 7 days, and is then
// remembered for 7 days again.
func TestKeyIsUsedAgainAfterAWeek(t *testing.T) {
	docs, b := twoCompartments(t)
	now := at
	s := start(t, Options{Dir: t.TempDir(), Documents: docs, Now: func() time.Time { return now }})
	send := func(want bool) {
		t.Helper()
		b.Received = time.Time{}
		res, err := s.Accept(t.Context(), b)
		if err != nil || res.Repeated != want {
			t.Fatalf("%+v, %v; want repeated %v", res, err, want)
		}
		if err := s.Settle(t.Context()); err != nil { // so that the card is projected
			t.Fatal(err)
		}
	}
	send(false)
	now = at.Add(8 * 24 * time.Hour)
	send(false)
	now = now.Add(time.Minute)
	send(true)
}

// TestRepeatsWhileCardsAreProjected: a key is known at every moment, also while its
// card moves from memory into the state, and nothing stays in memory.
func TestRepeatsWhileCardsAreProjected(t *testing.T) {
	docs, b := twoCompartments(t)
	s := start(t, Options{Dir: t.TempDir(), Documents: docs})
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 40 {
				mine := b
				mine.Key = fmt.Sprintf("key %d %d", g, i)
				for try := range 12 {
					res, err := s.Accept(context.Background(), mine)
					if err != nil || res.Repeated != (try > 0) {
						t.Errorf("try %d: %+v, %v", try, res, err)
						return
					}
				}
			}
		})
	}
	wg.Wait()
	if err := s.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := sealed(t, s.Pipeline); n["identity"] != 8*40*5 || n["mobile"] != 8*40*5 {
		t.Errorf("sealed %v, want %d each", n, 8*40*5)
	}
	s.recentMu.Lock()
	defer s.recentMu.Unlock()
	if len(s.recent) > 0 {
		t.Errorf("%d keys stay in memory", len(s.recent))
	}
}

// TestWithheldLinesMoveNoNumber: the sender learns its own line numbers, and what is
// sealed about refused lines is the same with and without a withheld line before.
func TestWithheldLinesMoveNoNumber(t *testing.T) {
	docs, b := twoCompartments(t)
	hidden := event.Frame{Bytes: []byte(`{"mail":"hotline@oig.example"}`)}
	bad := event.Frame{Bytes: []byte(`{"other":1}`)}
	var cards []string
	for _, with := range []bool{false, true} {
		s := start(t, Options{Dir: t.TempDir(), Documents: docs})
		mine := b
		mine.Frames = append([]event.Frame{b.Frames[0], bad}, b.Frames[1:]...)
		mine.Frames = append(mine.Frames, bad)
		want := []int{2, 12}
		if with {
			mine.Frames = append([]event.Frame{hidden}, mine.Frames...)
			mine.Frames = append(mine.Frames, hidden, bad)
			mine.Frames = append(mine.Frames[:4:4], append([]event.Frame{hidden}, mine.Frames[4:]...)...)
			mine.Frames = mine.Frames[:len(mine.Frames)-1]
			want = []int{3, 14}
		}
		for i := range mine.Frames {
			mine.Frames[i].Line = i + 1
		}
		for range 2 {
			res, err := s.Accept(t.Context(), mine)
			if err != nil || res.Accepted != 10 {
				t.Fatalf("%+v, %v", res, err)
			}
			var lines []int
			for _, e := range res.Errors {
				lines = append(lines, e.Line)
			}
			if fmt.Sprint(lines) != fmt.Sprint(want) {
				t.Errorf("with %v: the sender is told of lines %v, want %v", with, lines, want)
			}
		}
		if err := s.Settle(t.Context()); err != nil {
			t.Fatal(err)
		}
		cards = append(cards, fmt.Sprint(hold(t, s).Cards))
		s.stop()
	}
	if cards[0] != cards[1] {
		t.Errorf("cards without and with a withheld line:\n%s\n%s", cards[0], cards[1])
	}
}

// TestBreakOfASourceThatIsSilentSince: a break is shown without another record of its
// source, and without anybody who settles.
func TestBreakOfASourceThatIsSilentSince(t *testing.T) {
	docs, b := twoCompartments(t)
	s := start(t, Options{Dir: t.TempDir(), Documents: docs})
	if _, err := s.Accept(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	s.Gap(event.Gap{Source: "idp", Stream: "x", Kind: "connection", From: 5})
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		gaps, err := s.Gaps(t.Context(), 10)
		if err != nil {
			t.Fatal(err)
		}
		if len(gaps) == 1 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("gaps %+v", gaps)
		}
	}
}

// TestFollowTwice: who follows again in the same process adds no row twice.
func TestFollowTwice(t *testing.T) {
	docs, b := twoCompartments(t)
	s := start(t, Options{Dir: t.TempDir(), Documents: docs})
	if _, err := s.Accept(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	if err := s.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.followMu.Lock()
	stop := s.Pipeline.stop
	s.followMu.Unlock()
	stop()
	for {
		if err := s.followError(); err != nil && !errors.Is(err, context.Canceled) {
			break
		}
		time.Sleep(time.Millisecond)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Follow(ctx) }()
	b.Key = "two"
	for {
		if _, err := s.Accept(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		if err := s.Settle(t.Context()); err == nil {
			break
		}
	}
	indexEqualsEvidence(t, s)
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if err := s.Pipeline.Close(); err != nil {
		t.Fatal(err)
	}
	s.stop = func() {}
}
