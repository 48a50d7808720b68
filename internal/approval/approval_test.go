package approval

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
)

var (
	noon = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	org  = uuid.MustParse("01890a5d-ac96-474b-bcce-b302099a8057")
)

func ask() Ask {
	return Ask{Action: "evidence.unlock", Case: "C-17", Purpose: "who opened the vault & when <draft>", Requester: "A. Investigator", Objects: []string{"originals/general/018f0000-0000-7000-8000-000000000001"}, Org: org, Grant: 8 * time.Hour}
}

func statement(t testing.TB, now time.Time) (*Statement, []byte) {
	t.Helper()
	s, b, err := New(ask(), now)
	if err != nil {
		t.Fatal(err)
	}
	return s, b
}

type person struct {
	Officer
	private ed25519.PrivateKey
}

func anOfficer(name, office string, n byte) person {
	seed := make([]byte, ed25519.SeedSize)
	seed[0] = n
	k := ed25519.NewKeyFromSeed(seed)
	return person{Officer{Key: fmt.Sprintf("%064x", n), Person: name, Office: office, Public: k.Public().(ed25519.PublicKey)}, k}
}

func (p person) say(t testing.TB, d Decision, b []byte) Signed {
	t.Helper()
	s, err := Sign(d, b, p.Key, p.private)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

var (
	anna  = anOfficer("anna", "investigation", 1)
	otto  = anOfficer("otto", "oversight", 2)
	spare = anOfficer("berta", "investigation", 3)
	anna2 = anOfficer("anna", "oversight", 4) // one person with keys of two offices
)

func TestTwoPeopleOfTwoOffices(t *testing.T) {
	var book Book
	s, b := statement(t, noon)
	if _, err := book.Request(b, noon); err != nil {
		t.Fatal(err)
	}
	if _, err := book.Use(s.ID, noon); !errors.Is(err, ErrPending) {
		t.Fatal(err)
	}
	if st, err := book.Decide(s.ID, anna.say(t, Approve, b), anna.Officer, noon); st != Requested || err != nil {
		t.Fatal(st, err)
	}
	if _, err := book.Use(s.ID, noon); !errors.Is(err, ErrPending) {
		t.Fatal("used with one approval", err)
	}
	for name, p := range map[string]person{"the same again": anna, "her own office": spare, "one person, two offices": anna2} {
		if st, err := book.Decide(s.ID, p.say(t, Approve, b), p.Officer, noon); st != Requested || !errors.Is(err, ErrOffice) {
			t.Fatal(name, st, err)
		}
	}
	// Signatures that are not this officer's over this statement.
	_, another := statement(t, noon)
	refusal := otto.say(t, Refuse, b)
	refusal.Decision = Approve
	borrowed := anna.say(t, Approve, b)
	borrowed.Key = otto.Key
	for name, d := range map[string]Signed{"other statement": otto.say(t, Approve, another), "turned refusal": refusal, "other key": borrowed} {
		if st, err := book.Decide(s.ID, d, otto.Officer, noon); st != Requested || !errors.Is(err, ErrSignature) {
			t.Fatal(name, st, err)
		}
	}
	if st, err := book.Decide(s.ID, otto.say(t, Approve, b), otto.Officer, noon); st != Approved || err != nil {
		t.Fatal(st, err)
	}
	if got, err := book.Use(s.ID, noon); err != nil || got.Case != "C-17" {
		t.Fatal(got, err)
	}
	if _, err := book.Use(s.ID, noon); !errors.Is(err, ErrUsed) {
		t.Fatal(err)
	}
	if _, err := book.Request(b, noon); !errors.Is(err, ErrRepeated) {
		t.Fatal(err)
	}
	copied := *s
	copied.ID = uuid.NewString()
	if cb, err := Canonical(copied); err != nil {
		t.Fatal(err)
	} else if _, err := book.Request(cb, noon); !errors.Is(err, ErrRepeated) {
		t.Fatal("a nonce came twice", err)
	}
	if _, err := book.Use("none", noon); !errors.Is(err, ErrUnknown) {
		t.Fatal(err)
	}
}

func TestTimes(t *testing.T) {
	var book Book
	s, b := statement(t, noon)
	if _, err := book.Request(b, noon.Add(-skew-time.Second)); !errors.Is(err, ErrTime) {
		t.Fatal(err)
	}
	if _, err := book.Request(b, noon.Add(MaxLife)); !errors.Is(err, ErrExpired) {
		t.Fatal(err)
	}
	if _, err := book.Request(b, noon); err != nil {
		t.Fatal(err)
	}
	late := noon.Add(MaxLife)
	for _, p := range []person{anna, otto} {
		if _, err := book.Decide(s.ID, p.say(t, Approve, b), p.Officer, late); !errors.Is(err, ErrExpired) {
			t.Fatal(err)
		}
		if _, err := book.Decide(s.ID, p.say(t, Approve, b), p.Officer, late.Add(-time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := book.Use(s.ID, late); !errors.Is(err, ErrExpired) {
		t.Fatal("used after its time", err)
	}
	if got := book.Expire(late); len(got) != 1 || got[0] != s.ID || book.State(s.ID) != Expired {
		t.Fatal(got)
	}
	if got := book.Expire(late); len(got) != 0 {
		t.Fatal("told twice", got)
	}
	if _, err := book.Use(s.ID, noon); !errors.Is(err, ErrExpired) {
		t.Fatal("a clock that went back brought it back", err)
	}
}

// TestRandomSteps drives a Book by legal and illegal steps against a model of a few
// lines. No illegal step is accepted, no legal one refused.
func TestRandomSteps(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	people := []person{anna, otto, spare, anna2, anOfficer("rosa", "oversight", 5)}
	type model struct {
		b       []byte
		id      string
		expires time.Time
		yes     []person
		state   State
	}
	ends := map[State]int{}
	for range 200 {
		var book Book
		now := noon
		var ms []*model
		for range 60 {
			switch step := rng.IntN(12); {
			case step == 0 || len(ms) == 0:
				s, b := statement(t, now)
				if _, err := book.Request(b, now); err != nil {
					t.Fatal(err)
				}
				ms = append(ms, &model{b: b, id: s.ID, expires: s.ExpiresAt(), state: Requested})
			case step == 1: // a replay
				m := ms[rng.IntN(len(ms))]
				if _, err := book.Request(m.b, now); err == nil {
					t.Fatal("a statement was taken twice")
				}
			case step == 2:
				now = now.Add(time.Duration(rng.IntN(20)) * time.Hour)
			case step == 3:
				got := map[string]bool{}
				for _, id := range book.Expire(now) {
					got[id] = true
				}
				for _, m := range ms {
					gone := (m.state == Requested || m.state == Approved) && !now.Before(m.expires)
					if got[m.id] != gone {
						t.Fatalf("expired %v, want %v", got[m.id], gone)
					}
					if gone {
						m.state = Expired
					}
				}
			case step < 6:
				m := ms[rng.IntN(len(ms))]
				_, err := book.Use(m.id, now)
				if legal := m.state == Approved && now.Before(m.expires); (err == nil) != legal {
					t.Fatalf("use in state %s: %v", m.state, err)
				} else if legal {
					m.state = Used
				}
			default:
				m := ms[rng.IntN(len(ms))]
				p := people[rng.IntN(len(people))]
				d, said := p.say(t, Approve, m.b), Approve
				if rng.IntN(6) == 0 {
					d, said = p.say(t, Refuse, m.b), Refuse
				}
				forged := rng.IntN(4) == 0
				if forged {
					switch rng.IntN(3) {
					case 0:
						d = people[(rng.IntN(4)+1+slicesIndex(people, p))%5].say(t, said, m.b)
					case 1:
						d = p.say(t, said, ms[rng.IntN(len(ms))].b)
						forged = !sameBytes(d, p.say(t, said, m.b))
					case 2:
						d.Signature = strings.Repeat("A", 86)
					}
				}
				legal := m.state == Requested && now.Before(m.expires) && !forged
				for _, y := range m.yes {
					if y.Person == p.Person || y.Office == p.Office {
						legal = false
					}
				}
				got, err := book.Decide(m.id, d, p.Officer, now)
				if (err == nil) != legal {
					t.Fatalf("decision %s by %s in state %s with %d approvals, forged %v: %v", said, p.Person, m.state, len(m.yes), forged, err)
				}
				if legal && said == Refuse {
					m.state = Refused
				} else if legal {
					if m.yes = append(m.yes, p); len(m.yes) == 2 {
						m.state = Approved
					}
				}
				if err == nil && got != m.state {
					t.Fatalf("state %s, want %s", got, m.state)
				}
			}
		}
		for _, m := range ms {
			if book.State(m.id) != m.state {
				t.Fatalf("state %s, want %s", book.State(m.id), m.state)
			}
			ends[m.state]++
		}
	}
	for _, s := range []State{Requested, Approved, Refused, Expired, Used} {
		if ends[s] == 0 {
			t.Errorf("no request ended %s: the steps are too tame (%v)", s, ends)
		}
	}
}

func slicesIndex(ps []person, p person) int {
	for i := range ps {
		if ps[i].Key == p.Key {
			return i
		}
	}
	return -1
}

func sameBytes(a, b Signed) bool { return a == b }

func TestStatementsAreStrict(t *testing.T) {
	_, b := statement(t, noon)
	if strings.Contains(string(b), `\u003c`) || !strings.Contains(string(b), "& when <draft>") {
		t.Fatalf("not RFC 8785: %s", b)
	}
	swap := func(old, with string) string {
		out := strings.Replace(string(b), old, with, 1)
		if out == string(b) {
			t.Fatalf("%q is not there", old)
		}
		return out
	}
	for name, text := range map[string]string{
		"space":     swap(`,"case"`, `, "case"`),
		"member":    swap(`,"case"`, `,"bonus":1,"case"`),
		"repeated":  swap(`,"case"`, `,"case":"C-17","case"`),
		"tail":      string(b) + " ",
		"version":   swap(`"v":1`, `"v":2`),
		"fraction":  swap(`"v":1`, `"v":1.0`),
		"minutes":   swap(`"minutes":480`, `"minutes":10081`),
		"none":      swap(`"minutes":480`, `"minutes":0`),
		"life":      swap("2026-11-26T12:00:00Z", "2026-11-26T12:00:01Z"),
		"backwards": swap("2026-11-26T12:00:00Z", "2026-11-25T11:00:00Z"),
		"escape":    swap("C-17", `C-\u0031\u0037`),
		"hidden":    swap("C-17", "C\u202e-17"),
		"control":   swap("C-17", `C\n17`),
		"empty":     swap("C-17", ""),
		"objects":   swap(`["originals/general/018f0000-0000-7000-8000-000000000001"]`, `[]`),
		"null":      swap(`["originals/general/018f0000-0000-7000-8000-000000000001"]`, `null`),
		"org":       swap("01890a5d", "01890A5D"),
		"long":      swap("C-17", strings.Repeat("x", 501)),
	} {
		if _, err := Parse([]byte(text)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	a := ask()
	a.Life = 25 * time.Hour
	if _, _, err := New(a, noon); err == nil {
		t.Error("made a statement that lives too long")
	}
	s, _ := statement(t, noon)
	for _, want := range []string{"A. Investigator asks for: evidence.unlock", "C-17", "8h0m0s", "2026-11-26T12:00:00Z", s.ID} {
		if !strings.Contains(s.Words(), want) {
			t.Errorf("%q is not in the words:\n%s", want, s.Words())
		}
	}
	if _, err := Sign("maybe", b, anna.Key, anna.private); err == nil {
		t.Error("signed a decision that there is not")
	}
	if _, err := Sign(Approve, []byte(`{}`), anna.Key, anna.private); err == nil {
		t.Error("signed what is no statement")
	}
}

func FuzzParse(f *testing.F) {
	_, b := statement(f, noon)
	f.Add(b)
	f.Add([]byte(`{"action":"a"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := Parse(b)
		if err != nil {
			return
		}
		again, err := Canonical(s)
		if err != nil || string(again) != string(b) {
			t.Fatalf("accepted what is written otherwise: %q", b)
		}
		if strings.ContainsAny(s.Words(), "\x1b\r\u202e") {
			t.Fatal("words with control characters")
		}
	})
}

func FuzzParseSigned(f *testing.F) {
	_, b := statement(f, noon)
	d, err := Canonical(anna.say(f, Approve, b))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(d)
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := ParseSigned(b)
		if err != nil {
			return
		}
		if again, err := Canonical(s); err != nil || string(again) != string(b) {
			t.Fatalf("accepted what is written otherwise: %q", b)
		}
	})
}
