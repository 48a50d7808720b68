package keyholder

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/counterseal/counterseal/internal/approval"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/officer"
)

// offices are four invented officers and their roster.
func offices(t testing.TB) (map[string]*officer.Key, []byte) {
	t.Helper()
	keys := map[string]*officer.Key{}
	var f bytes.Buffer
	f.WriteString("apiVersion: officers/v1\nepoch: 1\nofficers:\n")
	for _, o := range []struct {
		name   string
		office officer.Office
		spare  bool
	}{{"I. Vestigator", officer.Investigation, false}, {"S. Pare", officer.Investigation, true}, {"O. Versight", officer.Oversight, false}, {"O. Spare", officer.Oversight, true}} {
		k, err := officer.New(o.name, o.office, o.spare)
		if err != nil {
			t.Fatal(err)
		}
		keys[o.name] = k
		fmt.Fprintf(&f, "  - id: %s\n    authority: Appoints %s\n    card: '%s'\n", k.Card().ID(), o.office, k.Card().Bytes())
	}
	return keys, f.Bytes()
}

// inventedLedger has seen a statement where the leaf is its digest: what stands in for the
// proofs of internal/ledger, which this package must not know.
var inventedLedger = Witnesses{Log: "log", Witnesses: []string{"witness"}}

func invented(w Witnesses) (SeenBy, error) {
	if w.Log != inventedLedger.Log {
		return nil, errors.New("another ledger")
	}
	return func(s *approval.Statement, statement []byte, seen Seen, now time.Time) error {
		digest := approval.Digest(statement)
		if seen.Leaf != hex.EncodeToString(digest[:]) {
			return errors.New("witnesses have not seen it")
		}
		if !now.Before(s.MadeAt().Add(s.Grant())) {
			return errors.New("its time is over")
		}
		return nil
	}, nil
}

func spoken(names ...string) (out []Spoken) {
	for _, n := range names {
		out = append(out, Spoken{"person", n})
	}
	return out
}

// asking is a question on its way, and what a test changes of it.
type asking struct {
	t         testing.TB
	keys      map[string]*officer.Key
	names     []Spoken
	salt      []byte
	statement []byte
	signed    []approval.Signed
	seen      Seen
}

func newAsking(t testing.TB, keys map[string]*officer.Key, names []Spoken, change ...func(*Question)) *asking {
	t.Helper()
	q := &asking{t: t, keys: keys, names: names}
	var c [32]byte
	var err error
	if q.salt, c, err = Commit(names); err != nil {
		t.Fatal(err)
	}
	ask := Question{Case: "C-17", Purpose: "who opened the vault", Requester: "N. Vestigator", Account: "os-1000", Names: len(names), Commitment: c, Org: org, Grant: time.Hour}
	at := noon
	for _, f := range change {
		f(&ask)
	}
	if ask.Life < 0 { // a test makes it that much earlier
		at, ask.Life = noon.Add(ask.Life), -ask.Life
	}
	if _, q.statement, err = NewQuestion(ask, at); err != nil {
		t.Fatal(err)
	}
	q.finish()
	return q
}

func (q *asking) finish() {
	q.signed = []approval.Signed{q.sign("O. Versight", approval.Approve), q.sign("I. Vestigator", approval.Approve)}
	digest := approval.Digest(q.statement)
	q.seen = Seen{Leaf: hex.EncodeToString(digest[:]), Proof: "proof", V: 1}
}

func (q *asking) sign(by string, d approval.Decision) approval.Signed {
	q.t.Helper()
	s, err := q.keys[by].Sign(d, q.statement)
	if err != nil {
		q.t.Fatal(err)
	}
	return s
}

// with is a copy that is changed.
func (q *asking) with(change func(*asking)) *asking {
	c := *q
	c.signed, c.names, c.salt = slices.Clone(q.signed), slices.Clone(q.names), bytes.Clone(q.salt)
	change(&c)
	return &c
}

func (q *asking) capability() []byte {
	q.t.Helper()
	b, err := Capability(q.statement, q.signed, q.seen)
	if err != nil {
		q.t.Fatal(err)
	}
	return b
}

func (q *asking) id() uuid.UUID {
	s, err := approval.Parse(q.statement)
	if err != nil {
		q.t.Fatal(err)
	}
	return uuid.MustParse(s.ID)
}

func (b *bench) ask(q *asking) error { return b.askBytes(q.capability(), q) }

func (b *bench) askBytes(c []byte, q *asking) error {
	return Ask(b.t.Context(), b.dial("question.sock"), c, q.salt, q.names)
}

// TestQuestion: what a holder takes for the word of two offices, and nothing else. It uses
// nothing up and says nothing where it refuses.
func TestQuestion(t *testing.T) {
	keys, roster := offices(t)
	strange, _ := offices(t)
	b := newBench(t, Setup{Officers: roster, Ledger: inventedLedger})
	b.begin()
	right := newAsking(t, keys, spoken("alice", "bob"))
	other := newAsking(t, keys, spoken("alice", "carol"))
	again := func(change func(*Question)) *asking { return newAsking(t, keys, right.names, change) }
	anotherAct := right.with(func(q *asking) {
		s, err := approval.Parse(q.statement)
		if err != nil {
			t.Fatal(err)
		}
		if _, q.statement, err = approval.New(approval.Ask{Action: "unmask", Case: s.Case, Purpose: s.Purpose, Requester: s.Requester, Org: org, Grant: time.Hour, Objects: s.Objects}, noon); err != nil {
			t.Fatal(err)
		}
		q.finish()
	})
	n := int64(0)
	for name, q := range map[string]*asking{
		"no decision":           right.with(func(q *asking) { q.signed = nil }),
		"oversight alone":       right.with(func(q *asking) { q.signed = q.signed[:1] }),
		"investigation alone":   right.with(func(q *asking) { q.signed = q.signed[1:] }),
		"one decision twice":    right.with(func(q *asking) { q.signed[1] = q.signed[0] }),
		"two of oversight":      right.with(func(q *asking) { q.signed[1] = q.sign("O. Spare", approval.Approve) }),
		"two of investigation":  right.with(func(q *asking) { q.signed[0] = q.sign("S. Pare", approval.Approve) }),
		"three decisions":       right.with(func(q *asking) { q.signed = append(q.signed, q.sign("O. Spare", approval.Approve)) }),
		"oversight refuses":     right.with(func(q *asking) { q.signed[0] = q.sign("O. Versight", approval.Refuse) }),
		"investigation refuses": right.with(func(q *asking) { q.signed[1] = q.sign("I. Vestigator", approval.Refuse) }),
		"a refusal called an approval": right.with(func(q *asking) {
			q.signed[0] = q.sign("O. Versight", approval.Refuse)
			q.signed[0].Decision = approval.Approve
		}),
		"signature of another statement": right.with(func(q *asking) { q.signed[0] = other.signed[0] }),
		"officers of another roster":     newAsking(t, strange, right.names),
		"who asks decides":               again(func(q *Question) { q.Requester = "i.  VESTIGATOR" }),
		"not in the ledger":              right.with(func(q *asking) { q.seen = other.seen }),
		"no word of the ledger":          right.with(func(q *asking) { q.seen = Seen{V: 1} }),
		"other names":                    right.with(func(q *asking) { q.names = other.names }),
		"a name in other spelling":       right.with(func(q *asking) { q.names = spoken("Alice", "bob") }),
		"another kind of name":           right.with(func(q *asking) { q.names[0].Category = "device" }),
		"names in another order":         right.with(func(q *asking) { slices.Reverse(q.names) }),
		"more names":                     right.with(func(q *asking) { q.names = append(q.names, spoken("carol")...) }),
		"fewer names":                    right.with(func(q *asking) { q.names = q.names[:1] }),
		"another salt":                   right.with(func(q *asking) { q.salt[0] ^= 1 }),
		"of another house":               again(func(q *Question) { q.Org = uuid.New() }),
		"late":                           again(func(q *Question) { q.Life = -time.Minute }),
		"its time since approval over":   again(func(q *Question) { q.Life, q.Grant = -2*time.Hour, time.Hour }),
		"of another act":                 anotherAct,
	} {
		if err := b.ask(q); !errors.Is(err, ErrCapability) {
			t.Errorf("%s: %v", name, err)
		}
		n++
	}
	whole := right.capability()
	for name, c := range map[string][]byte{
		"none": nil, "empty": []byte("{}"), "a space more": append(bytes.Clone(whole), ' '),
		"changed": bytes.Replace(whole, []byte("C-17"), []byte("C-18"), 1),
	} {
		if err := b.askBytes(c, right); !errors.Is(err, ErrCapability) {
			t.Errorf("%s: %v", name, err)
		}
		n++
	}
	c := b.client(ClientOptions{})
	if s := b.h.Stats(); s.QuestionsRefused != n || s.Questions != 0 {
		t.Errorf("%+v", s)
	}
	if _, err := c.Fetch(t.Context(), right.id()); !errors.Is(err, ErrNoAnswer) {
		t.Errorf("an answer before it was asked: %v", err)
	}
	if err := b.ask(right); err != nil {
		t.Fatal(err)
	}
	for range 2 { // a server that lost it on the way
		got, err := c.Fetch(t.Context(), right.id())
		if err != nil {
			t.Fatal(err)
		}
		want, err := c.Tokens([]Name{{event.Person, []byte("alice")}, {event.Person, []byte("bob")}})
		if err != nil || len(got) != 2 || !slices.Equal(got[0].Tokens, want[:1]) || !slices.Equal(got[1].Tokens, want[1:]) {
			t.Fatal(len(got), err)
		}
	}
	if err := b.ask(right); !errors.Is(err, ErrCapability) {
		t.Errorf("repeated: %v", err)
	}
	b.at.Store(int64(AnswerKept / time.Second))
	if _, err := c.Fetch(t.Context(), right.id()); !errors.Is(err, ErrNoAnswer) {
		t.Errorf("an answer for ever: %v", err)
	}
	b.crash() // what was used stays used
	removeSockets(b)
	b.begin()
	if err := b.ask(right); !errors.Is(err, ErrCapability) {
		t.Errorf("repeated after a restart: %v", err)
	}
	spares := other.with(func(q *asking) {
		q.signed = []approval.Signed{q.sign("S. Pare", approval.Approve), q.sign("O. Spare", approval.Approve)}
	})
	if err := b.ask(spares); err != nil {
		t.Errorf("by the spares: %v", err)
	}
	if s := b.h.Stats(); s.Questions != 1 || s.QuestionNames != 2 || s.New != 0 {
		t.Errorf("questions are not ingest: %+v", s)
	}
	for _, name := range []string{"alice", "bob", "carol"} {
		if strings.Contains(b.log.String(), name) {
			t.Error("the log says a name")
		}
	}
	err := filepath.WalkDir(b.dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		text, err := os.ReadFile(path)
		if bytes.Contains(text, []byte("alice")) {
			t.Errorf("%s holds a name", d.Name())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestInspectorAsksNoNames: an inspector's office opens what is sealed to it and decides on
// nothing else.
func TestInspectorAsksNoNames(t *testing.T) {
	keys, roster := offices(t)
	for _, o := range []officer.Office{officer.Investigation, officer.Oversight} {
		name := "Inspector of " + string(o)
		k, err := officer.New(name, o, false)
		if err != nil {
			t.Fatal(err)
		}
		keys[name] = k
		roster = fmt.Appendf(roster, "  - id: %s\n    authority: Parliament\n    inspector: true\n    card: '%s'\n", k.Card().ID(), k.Card().Bytes())
	}
	b := newBench(t, Setup{Officers: roster, Ledger: inventedLedger})
	b.begin()
	q := newAsking(t, keys, spoken("alice"))
	both := q.with(func(q *asking) {
		q.signed = []approval.Signed{q.sign("Inspector of oversight", approval.Approve), q.sign("Inspector of investigation", approval.Approve)}
	})
	if err := b.ask(both); !errors.Is(err, ErrCapability) {
		t.Error(err)
	}
	if err := b.ask(q); err != nil {
		t.Error(err)
	}
}

// TestQuestionJoins: spellings that the directory joins give one person, in every epoch; a
// word that stands for nobody uses nothing up.
func TestQuestionJoins(t *testing.T) {
	keys, roster := offices(t)
	b := newBench(t, Setup{Officers: roster, Ledger: inventedLedger, Directory: []byte("apiVersion: directory/v1\ndomains: [CORP]\npeople:\n  - {id: E-1, names: [alice, Alice Example], mails: [a@corp.example], devices: [LAP-1]}\n")})
	for range 2 {
		if _, err := Rotate(b.dir, noon, nil); err != nil {
			t.Fatal(err)
		}
	}
	b.begin()
	q := newAsking(t, keys, []Spoken{{"person", `CORP\ALICE`}, {"mail", "a@corp.example"}, {"person", "Alice Example"}, {"device", "lap-1"}, {"mail", "x@home.example"}})
	if err := b.ask(q); err != nil {
		t.Fatal(err)
	}
	got, err := b.client(ClientOptions{}).Fetch(t.Context(), q.id())
	if err != nil || len(got) != 5 {
		t.Fatal(len(got), err)
	}
	for epoch := 1; epoch <= 3; epoch++ {
		want, err := b.client(ClientOptions{Epoch: epoch}).Tokens([]Name{{event.Person, []byte("alice")}, {event.Device, []byte("lap-1")}, {event.Mail, []byte("x@home.example")}})
		if err != nil {
			t.Fatal(err)
		}
		for i, k := range []int{0, 0, 0, 1, 2} {
			if len(got[i].Tokens) != 3 || got[i].Tokens[epoch-1] != want[k] {
				t.Errorf("name %d, epoch %d", i+1, epoch)
			}
		}
	}
	// The directory has come to list a name of another kind since the officers read it.
	nobody := newAsking(t, keys, spoken("alice")).with(func(q *asking) {
		q.names = spoken("root")
		var c Question
		s, err := approval.Parse(q.statement)
		if err != nil {
			t.Fatal(err)
		}
		was, err := ParseQuestion(s)
		if err != nil {
			t.Fatal(err)
		}
		c = *was
		c.Commitment = Commitment(q.salt, q.names)
		if _, q.statement, err = NewQuestion(c, noon); err != nil {
			t.Fatal(err)
		}
		q.finish()
	})
	for range 2 {
		if err := b.ask(nobody); !errors.Is(err, ErrNoName) {
			t.Error(err)
		}
	}
	if _, _, err := Commit(spoken("alice", "root")); err == nil || !strings.Contains(err.Error(), "name 2") || strings.Contains(err.Error(), "root") {
		t.Errorf("asking for nobody: %v", err)
	}
}

// TestQuestionQuota: what a day may be asked for, durable, and new the next day.
func TestQuestionQuota(t *testing.T) {
	keys, roster := offices(t)
	few := DefaultQuota()
	few.Questions = 3
	b := newBench(t, Setup{Officers: roster, Ledger: inventedLedger, Quota: &few})
	b.begin()
	if err := b.ask(newAsking(t, keys, spoken("alice", "bob"))); err != nil {
		t.Fatal(err)
	}
	b.crash()
	removeSockets(b)
	b.begin()
	two := newAsking(t, keys, spoken("carol", "dave"), func(q *Question) { q.Grant = 24 * time.Hour })
	var no *QuotaError
	if err := b.ask(two); !errors.As(err, &no) || no.After != 12*time.Hour {
		t.Errorf("a fourth name: %v", err)
	}
	if err := b.ask(newAsking(t, keys, spoken("carol"))); err != nil {
		t.Errorf("a third name: %v", err)
	}
	b.at.Store(12 * 3600)
	if err := b.ask(two); err != nil {
		t.Errorf("the next day, and nothing was used up: %v", err)
	}
}

func TestNoOfficersNoQuestion(t *testing.T) {
	keys, roster := offices(t)
	for name, s := range map[string]Setup{"no officers": {Ledger: inventedLedger}, "no ledger": {Officers: roster}} {
		b := newBench(t, s)
		b.begin()
		if err := b.ask(newAsking(t, keys, spoken("alice"))); !errors.Is(err, ErrRoster) {
			t.Error(name, err)
		}
	}
}

func TestQuestionsAreForgottenAfterTheirTime(t *testing.T) {
	keys, _ := offices(t)
	now := noon
	dir := t.TempDir()
	q, err := openQuestions(dir, 100, func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		s, err := approval.Parse(newAsking(t, keys, spoken("alice")).statement)
		if err != nil {
			t.Fatal(err)
		}
		if err := q.spend(s, make([]Answer, 1)); err != nil {
			t.Fatal(err)
		}
		if err := q.spend(s, make([]Answer, 1)); err == nil {
			t.Fatal("used twice")
		}
		now = now.Add(72 * time.Hour)
	}
	if len(q.used) != 1 || len(q.waiting) != 1 {
		t.Errorf("%d are remembered, %d wait", len(q.used), len(q.waiting))
	}
	if err := os.WriteFile(filepath.Join(dir, "asked.json"), []byte(`{"used":[],"v":1} `), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openQuestions(dir, 100, func() time.Time { return now }); err == nil {
		t.Error("a damaged file is taken")
	}
}
