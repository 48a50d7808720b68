package keyholder

import (
	"bufio"
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/counterseal/counterseal/internal/approval"
	"github.com/counterseal/counterseal/internal/blind"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/officer"
)

func removeSockets(b *bench) {
	os.Remove(filepath.Join(b.dir, "ingest.sock"))
	os.Remove(filepath.Join(b.dir, "question.sock"))
}

// FuzzFrames reads frames and everything that a body can be. What is taken is written
// back as it was.
func FuzzFrames(f *testing.F) {
	names, err := appendNames(nil, []Name{person(1), {event.Address, []byte("192.0.2.1")}, {event.Device, nil}})
	if err != nil {
		f.Fatal(err)
	}
	question, err := ask{[]byte("{}"), make([]byte, SaltSize), spoken("alice", "bob")}.encode()
	if err != nil {
		f.Fatal(err)
	}
	answers := appendAnswers(nil, []Answer{{Tokens: []event.Token{event.NewToken(event.Person, 1, [16]byte{1}), event.NewToken(event.Person, 2, [16]byte{2})}}})
	points := make([]blind.Point, Places)
	list, err := listAsk{[]byte("{}"), points}.encode()
	if err != nil {
		f.Fatal(err)
	}
	for i, fr := range []frame{
		{opList, 11, list}, {opListHead, 11, listHead{points: points, rows: 7, width: 3, epochs: []int{1}}.encode()},
		{opHello, 0, hello{faceIngest, 0}.encode()}, {opHelloOK, 0, welcome{Identity: Identity{Org: org, Epoch: 1}}.encode()},
		{opToken, 7, names}, {opTokens, 7, appendBits(nil, make([][16]byte, 3))}, {opDirectory, 8, make([]byte, 8)},
		{opChunk, 8, chunk{total: 3, bytes: []byte("abc")}.encode()}, {opAsk, 9, question}, {opFetch, 10, make([]byte, 16)}, {opFetched, 10, answers}, {opNo, 9, refusal{code: noQuota, after: 1e9}.encode()},
	} {
		b := appendFrame(nil, fr)
		f.Add(b)
		f.Add(b[:len(b)-1])
		f.Add(append(b, byte(i)))
	}
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 1})
	f.Add([]byte{0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bufio.NewReader(bytes.NewReader(b))
		for {
			fr, err := readFrame(r)
			if err != nil {
				return
			}
			if len(fr.body) > len(b) {
				t.Fatal("more than arrived")
			}
			if h, err := parseHello(fr.body); err == nil && !bytes.Equal(h.encode(), fr.body) {
				t.Error("hello")
			}
			if w, err := parseWelcome(fr.body); err == nil && !bytes.Equal(w.encode(), fr.body) {
				t.Error("welcome")
			}
			if n, err := parseNames(fr.body); err == nil {
				if again, err := appendNames(nil, n); err != nil || !bytes.Equal(again, fr.body) {
					t.Error("names", err)
				}
			}
			if a, err := parseAsk(fr.body); err == nil {
				if again, err := a.encode(); err != nil || !bytes.Equal(again, fr.body) {
					t.Error("ask", err)
				}
			}
			if a, err := parseAnswers(fr.body); err == nil && !bytes.Equal(appendAnswers(nil, a), fr.body) {
				t.Error("answers")
			}
			if a, err := parseListAsk(fr.body); err == nil {
				if again, err := a.encode(); err != nil || !bytes.Equal(again, fr.body) {
					t.Error("list", err)
				}
			}
			if h, err := parseListHead(fr.body); err == nil && !bytes.Equal(h.encode(), fr.body) {
				t.Error("head of a list")
			}
			if k, err := parseChunk(fr.body); err == nil && !bytes.Equal(k.encode(), fr.body) {
				t.Error("chunk")
			}
			if bits, err := parseBits(fr.body, 3); err == nil && !bytes.Equal(appendBits(nil, bits), fr.body) {
				t.Error("bits")
			}
			if err := parseRefusal(fr.body); err == nil {
				t.Error("an answer of no without an error")
			}
			if diff := cmp.Diff(b[:len(b)-r.Buffered()][max(0, len(b)-r.Buffered()-len(appendFrame(nil, fr))):], appendFrame(nil, fr)); len(b) < 1<<16 && r.Size() > len(b) && diff != "" {
				t.Error(diff)
			}
		}
	})
}

// FuzzCapability: nothing but what two offices signed is ever allowed.
func FuzzCapability(f *testing.F) {
	keys, text := offices(f)
	roster, err := officer.ParseRoster("officers", text)
	if err != nil {
		f.Fatal(err)
	}
	seen, err := invented(inventedLedger)
	if err != nil {
		f.Fatal(err)
	}
	q := newAsking(f, keys, spoken("alice", "bob"))
	right := q.capability()
	f.Add(right)
	f.Add(q.with(func(q *asking) { q.signed[1] = q.sign("I. Vestigator", approval.Refuse) }).capability())
	f.Add(q.with(func(q *asking) { q.signed = q.signed[:1] }).capability())
	f.Add(q.with(func(q *asking) { q.signed[0], q.signed[1] = q.signed[1], q.signed[0] }).capability())
	f.Add(bytes.ReplaceAll(right, []byte("names 2"), []byte("names 9")))
	f.Add([]byte("{}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		j := judgement{roster: roster, org: org, now: noon, seen: func(s *approval.Statement, statement []byte, a Seen) error { return seen(s, statement, a, noon) }}
		s, err := j.judge(b, q.salt, q.names)
		if err != nil {
			if bytes.Equal(b, right) {
				t.Error(err)
			}
			return
		}
		// Which of two decisions stands first is all that may differ.
		got, perr := parseCapability(b)
		want, werr := parseCapability(right)
		if perr != nil || werr != nil || got.Statement != want.Statement || got.Seen != want.Seen || len(got.Signed) != 2 || got.Signed[0] == got.Signed[1] {
			t.Errorf("allowed: %v", s)
		}
	})
}
