package keyholder

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/counterseal/counterseal/internal/approval"
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

func capability(t testing.TB, k *officer.Key, d approval.Decision, q Question, at time.Time) []byte {
	t.Helper()
	if q.Case == "" {
		q.Case, q.Purpose, q.Requester = "C-17", "who opened the vault", "I. Vestigator"
	}
	if q.Org == uuid.Nil {
		q.Org = org
	}
	s, err := NewQuestion(q, at)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := k.Sign(d, s)
	if err != nil {
		t.Fatal(err)
	}
	b, err := Capability(s, signed)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestQuestion(t *testing.T) {
	keys, roster := offices(t)
	oversight := keys["O. Versight"]
	b := newBench(t, Setup{Officers: roster})
	b.begin()
	ask := func(c []byte, names ...Name) error {
		_, err := Ask(t.Context(), b.dial("question.sock"), 0, c, names)
		return err
	}
	two := []Name{person(1), person(2)}
	right := capability(t, oversight, approval.Approve, Question{Names: 2}, noon)
	stranger, err := officer.New("O. Versight", officer.Oversight, false)
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.SplitN(string(right), "C-17", 2)
	other := capability(t, oversight, approval.Approve, Question{Names: 3}, noon)
	for name, c := range map[string][]byte{
		"none":                 nil,
		"empty":                []byte("{}"),
		"changed":              []byte(parts[0] + "C-18" + parts[1]),
		"a space more":         append(bytes.Clone(right), ' '),
		"by investigation":     capability(t, keys["I. Vestigator"], approval.Approve, Question{Names: 2}, noon),
		"by a stranger":        capability(t, stranger, approval.Approve, Question{Names: 2}, noon),
		"a refusal":            capability(t, oversight, approval.Refuse, Question{Names: 2}, noon),
		"of another house":     capability(t, oversight, approval.Approve, Question{Names: 2, Org: uuid.New()}, noon),
		"for one name":         capability(t, oversight, approval.Approve, Question{Names: 1}, noon),
		"expired":              capability(t, oversight, approval.Approve, Question{Names: 2, Life: time.Minute}, noon.Add(-time.Minute)),
		"of the future":        capability(t, oversight, approval.Approve, Question{Names: 2}, noon.Add(time.Hour)),
		"signature of another": swapStatement(t, right, other),
		"of another act":       anotherAct(t, oversight),
	} {
		if err := ask(c, two...); !errors.Is(err, ErrCapability) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if s := b.h.Stats(); s.QuestionsRefused != 13 || s.Questions != 0 {
		t.Errorf("%+v", s)
	}
	got, err := Ask(t.Context(), b.dial("question.sock"), 0, right, two)
	if err != nil {
		t.Fatal(err)
	}
	want, err := b.client(ClientOptions{}).Tokens(two)
	if err != nil || got[0] != want[0] || got[1] != want[1] {
		t.Fatal(got, want, err)
	}
	if err := ask(right, two...); !errors.Is(err, ErrCapability) {
		t.Errorf("repeated: %v", err)
	}
	b.crash() // what was used stays used
	b.at.Store(60)
	removeSockets(b)
	b.begin()
	if err := ask(right, two[0]); !errors.Is(err, ErrCapability) {
		t.Errorf("repeated after a restart: %v", err)
	}
	if err := ask(capability(t, keys["O. Spare"], approval.Approve, Question{Names: 256}, noon), two[0]); err != nil {
		t.Errorf("by the spare officer: %v", err)
	}
	if s := b.h.Stats(); s.Questions != 1 || s.QuestionNames != 1 || s.New != 0 {
		t.Errorf("questions are not ingest: %+v", s)
	}
}

func TestNoOfficersNoQuestion(t *testing.T) {
	keys, _ := offices(t)
	b := newBench(t, Setup{})
	b.begin()
	if _, err := Ask(t.Context(), b.dial("question.sock"), 0, capability(t, keys["O. Versight"], approval.Approve, Question{Names: 2}, noon), []Name{person(1)}); !errors.Is(err, ErrRoster) {
		t.Error(err)
	}
}

// swapStatement puts the statement of one capability under the signature of another.
func swapStatement(t *testing.T, signature, statement []byte) []byte {
	t.Helper()
	a, err := parseCapability(signature)
	if err != nil {
		t.Fatal(err)
	}
	b, err := parseCapability(statement)
	if err != nil {
		t.Fatal(err)
	}
	c, err := Capability([]byte(b.Statement), a.Signed)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// anotherAct is a valid approval of something that is no question.
func anotherAct(t *testing.T, k *officer.Key) []byte {
	t.Helper()
	_, s, err := approval.New(approval.Ask{Action: "evidence.unlock", Case: "C-17", Purpose: "x", Requester: "y", Org: org, Grant: time.Hour, Objects: []string{"names/2"}}, noon)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := k.Sign(approval.Approve, s)
	if err != nil {
		t.Fatal(err)
	}
	c, err := Capability(s, signed)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestQuestionsAreForgottenAfterTheirTime(t *testing.T) {
	keys, _ := offices(t)
	now := noon
	q, err := openQuestions(t.TempDir(), func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		f, err := parseCapability(capability(t, keys["O. Versight"], approval.Approve, Question{Names: 1}, now))
		if err != nil {
			t.Fatal(err)
		}
		s, err := approval.Parse([]byte(f.Statement))
		if err != nil {
			t.Fatal(err)
		}
		if err := q.spend(s, 1); err != nil {
			t.Fatal(err)
		}
		if err := q.spend(s, 1); err == nil {
			t.Fatal("used twice")
		}
		now = now.Add(72 * time.Hour)
	}
	if len(q.used) != 1 {
		t.Errorf("%d are remembered", len(q.used))
	}
}
