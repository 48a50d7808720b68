package officer

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/counterseal/counterseal/internal/approval"
	"github.com/counterseal/counterseal/internal/keyring"
)

var (
	noon   = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	org    = uuid.MustParse("01890a5d-ac96-474b-bcce-b302099a8057")
	phrase = []byte("correct horse battery staple")
)

func newOfficer(t testing.TB, name string, office Office, spare bool) *Key {
	t.Helper()
	k, err := New(name, office, spare)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// four is a full set of officers: investigation, oversight, spare of each.
func four(t testing.TB) [4]*Key {
	return [4]*Key{
		newOfficer(t, "Ada Ihle", Investigation, false), newOfficer(t, "Otto Sand", Oversight, false),
		newOfficer(t, "Ira Blom", Investigation, true), newOfficer(t, "Olga Rot", Oversight, true),
	}
}

func rosterText(ks []*Key, authority func(i int) string) string {
	var b strings.Builder
	b.WriteString("apiVersion: officers/v1\nepoch: 2\nofficers:\n")
	for i, k := range ks {
		card := string(k.Card().Bytes())
		fmt.Fprintf(&b, "  - id: %s\n    authority: %s\n    card: '%s'\n", k.Card().ID(), authority(i), strings.ReplaceAll(card, "'", "''"))
	}
	return b.String()
}

func board(i int) string { return []string{"Head of Legal", "Works Council"}[i%2] }

func roster(t testing.TB, ks [4]*Key) *Roster {
	t.Helper()
	r, err := ParseRoster("officers.yaml", []byte(rosterText(ks[:], board)))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestKeyFile(t *testing.T) {
	k := newOfficer(t, "Ada <Ihle> & Co", Investigation, true)
	b, err := k.File(phrase)
	if err != nil {
		t.Fatal(err)
	}
	seed, err := k.seal.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range [][]byte{seed, k.sign.Seed()} {
		if bytes.Contains(b, secret) || bytes.Contains(b, []byte(b64(secret))) || strings.Contains(fmt.Sprintf("%v %+v %#v %x %s", k, k, k, k, k), b64(secret)) {
			t.Fatal("a private key lies open")
		}
	}
	if _, err := json.Marshal(k); err == nil {
		t.Error("a key went into a document")
	}
	card, err := CardOf(b)
	if err != nil || card.ID() != k.Card().ID() || card.Name != "Ada <Ihle> & Co" || !card.Spare || card.Office != Investigation {
		t.Fatal(card, err)
	}
	if again, err := CardOf(card.Bytes()); err != nil || again.ID() != card.ID() {
		t.Fatal(err)
	}
	got, err := OpenKey(b, phrase)
	if err != nil || got.Card().ID() != k.Card().ID() || !got.sign.Equal(k.sign) {
		t.Fatal(err)
	}
	if _, err := OpenKey(b, []byte("another horse battery staple")); !errors.Is(err, keyring.ErrPassphrase) {
		t.Fatal(err)
	}
	// A card of somebody else in front of the same secret.
	forged := bytes.Replace(b, []byte("Ada"), []byte("Eva"), 1)
	if _, err := OpenKey(forged, phrase); !errors.Is(err, keyring.ErrPassphrase) {
		t.Fatal("a changed card was taken", err)
	}
	if _, err := k.File([]byte("short")); err == nil {
		t.Fatal("a short passphrase was taken")
	}
	if _, err := OpenKey(k.Card().Bytes(), phrase); err == nil {
		t.Fatal("a card opened as a key")
	}
}

func TestCardsAreStrict(t *testing.T) {
	good := string(newOfficer(t, "Ada Ihle", Investigation, false).Card().Bytes())
	if _, err := ParseCard([]byte(good + "\n")); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"space": strings.Replace(good, `,"office"`, `, "office"`, 1), "member": strings.Replace(good, `,"office"`, `,"o":1,"office"`, 1),
		"office": strings.Replace(good, `"investigation"`, `"both"`, 1), "version": strings.Replace(good, `"v":1`, `"v":2`, 1),
		"suite": strings.Replace(good, "AES-256", "AES-128", 1), "name": strings.Replace(good, "Ada Ihle", "Ada  Ihle", 1),
		"hidden": strings.Replace(good, "Ada", "Ada\u200b", 1), "seal": strings.Replace(good, `"seal":"`, `"seal":"AAAA`, 1), "tail": good + "\n\n",
	} {
		if text == good {
			t.Fatal(name)
		}
		if _, err := ParseCard([]byte(text)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestRoster(t *testing.T) {
	ks := four(t)
	r := roster(t, ks)
	e := r.Escrow()
	if err := e.Check(); err != nil || e.Epoch != 2 {
		t.Fatal(err)
	}
	if e.Main.Investigation.ID() != ks[0].Card().Seal.ID() || e.Main.Oversight.ID() != ks[1].Card().Seal.ID() ||
		e.Spare.Investigation.ID() != ks[2].Card().Seal.ID() || e.Spare.Oversight.ID() != ks[3].Card().Seal.ID() {
		t.Fatal("keys at other places")
	}
	if v, err := r.Voter(ks[1].Card().ID()); err != nil || v.Office != "oversight" || v.Person != "otto sand" {
		t.Fatal(v, err)
	}
	if _, err := r.Voter(newOfficer(t, "X", Oversight, false).Card().ID()); err == nil {
		t.Fatal("a stranger votes")
	}
	good := rosterText(ks[:], board)
	set := func(i int, k *Key) string { x := ks; x[i] = k; return rosterText(x[:], board) }
	for name, c := range map[string]struct{ text, want string }{
		"person":      {set(1, newOfficer(t, "ADA IHLE", Oversight, false)), "one person"},
		"spelling":    {set(3, newOfficer(t, "Ada Ihle", Oversight, true)), "one person"},
		"authority":   {rosterText(ks[:], func(int) string { return "The Board" }), "one authority"},
		"letter case": {rosterText(ks[:], func(i int) string { return []string{"The Board", "THE BOARD"}[i%2] }), "one authority"},
		"no spare":    {rosterText(ks[:3], board), "four"},
		"two of one":  {set(1, newOfficer(t, "Uwe", Investigation, false)), "hold one office"},
		"id":          {strings.Replace(good, ks[0].Card().ID(), ks[1].Card().ID(), 1), "id is not"},
		"unknown key": {strings.Replace(good, "epoch: 2", "epoch: 2\nextra: 1", 1), "extra"},
		"version":     {strings.Replace(good, "officers/v1", "officers/v2", 1), "apiVersion"},
		"epoch":       {strings.Replace(good, "epoch: 2", "epoch: 0", 1), "epoch"},
		"empty":       {"", ""},
		"long":        {good + strings.Repeat("#", maxRoster), "longer"},
	} {
		_, err := ParseRoster("officers.yaml", []byte(c.text))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// withInspectors is a full set of officers and the two of an inspector's office.
func withInspectors(t testing.TB) (ks [6]*Key, text string) {
	k4 := four(t)
	copy(ks[:], k4[:])
	ks[4], ks[5] = newOfficer(t, "Nils Berg", Investigation, false), newOfficer(t, "Nora Falk", Oversight, false)
	return ks, inspectorText(ks[:], func(int) string { return "The Court" })
}

func inspectorText(ks []*Key, court func(i int) string) string {
	text := rosterText(ks, func(i int) string {
		if i > 3 {
			return court(i)
		}
		return board(i)
	})
	for _, k := range ks[4:] {
		text = strings.Replace(text, "  - id: "+k.Card().ID()+"\n", "  - id: "+k.Card().ID()+"\n    inspector: true\n", 1)
	}
	return text
}

// TestInspectors: two keys of an inspector's office open what is sealed without the
// organisation, and decide on nothing else; nobody mixes the two houses.
func TestInspectors(t *testing.T) {
	ks, text := withInspectors(t)
	r, err := ParseRoster("officers.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	e := r.Escrow()
	if err := e.Check(); err != nil || e.Inspector.Investigation.ID() != ks[4].Card().Seal.ID() || e.Inspector.Oversight.ID() != ks[5].Card().Seal.ID() || e.Main.Oversight.ID() != ks[1].Card().Seal.ID() {
		t.Fatal("keys at other places", err)
	}
	court := func(int) string { return "The Court" }
	set := func(i int, k *Key) string { x := ks; x[i] = k; return inspectorText(x[:], court) }
	for name, c := range map[string]struct{ text, want string }{
		"one of them":      {inspectorText(ks[:5], court), "four"},
		"not marked":       {strings.ReplaceAll(text, "    inspector: true\n", ""), "hold one office"},
		"one marked":       {strings.Replace(text, "    inspector: true\n", "", 1), "hold one office"},
		"one office":       {set(5, newOfficer(t, "Nora Falk", Investigation, false)), "hold one office"},
		"a spare":          {set(5, newOfficer(t, "Nora Falk", Oversight, true)), "no spare"},
		"one person":       {set(5, newOfficer(t, "NILS BERG", Oversight, false)), "one person"},
		"of the house":     {set(4, newOfficer(t, "Ada Ihle", Investigation, false)), "one person"},
		"two authorities":  {inspectorText(ks[:], func(i int) string { return fmt.Sprint("Court ", i) }), "two inspectors' offices"},
		"of one authority": {inspectorText(ks[:], func(int) string { return "works council" }), "one authority"},
	} {
		if _, err := ParseRoster("officers.yaml", []byte(c.text)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := r.Voter(ks[4].Card().ID()); err == nil {
		t.Error("an inspector decides on anything")
	}
	for _, action := range []string{"hold.release", "offices.activate", "ledger.succeed", "evidence.unlock", "unmask", ""} {
		if _, err := r.VoterFor(ks[4].Card().ID(), action); err == nil {
			t.Errorf("an inspector decides on %q", action)
		}
	}
	for _, action := range []string{InsideUnmask, InsideUnlock, InsideQuestions} {
		if _, err := r.VoterFor(ks[4].Card().ID(), action); err != nil {
			t.Error(err)
		}
		if _, err := r.VoterFor(ks[0].Card().ID(), action); err == nil {
			t.Errorf("an officer of the organisation decides on %q", action)
		}
	}

	info := keyring.SealInfo{Purpose: "segment/originals", Org: org, Subject: "018f0000-0000-7000-8000-000000000001"}
	boxes, err := e.Seal(info, []byte("the key"))
	if err != nil {
		t.Fatal(err)
	}
	objects := []string{"originals/general/018f0000-0000-7000-8000-000000000001"}
	opened := func(action string, by [2]int, i, j int) ([]byte, error) {
		_, st, err := approval.New(approval.Ask{Action: action, Case: "C-1", Purpose: "why", Requester: "Nils Berg", Objects: objects, Org: org, Grant: time.Hour}, noon)
		if err != nil {
			t.Fatal(err)
		}
		o := &Opening{Action: action, Roster: r, Statement: st, Objects: objects, Org: org.String(), Now: noon, Record: func([]byte) error { return nil }}
		for _, n := range by {
			s, err := ks[n].Sign(approval.Approve, st)
			if err != nil {
				t.Fatal(err)
			}
			o.Signed = append(o.Signed, s)
		}
		h, err := ks[j].OpenOuter(o, info, boxes)
		if err != nil {
			return nil, err
		}
		secret, _, err := ks[i].OpenInner(o, info, h)
		return secret, err
	}
	open := func(action string, i, j int) ([]byte, error) { return opened(action, [2]int{i, j}, i, j) }
	for action, by := range map[string][2]int{"evidence.unlock": {0, 1}, InsideUnlock: {4, 5}} { // what these approved, those do not open
		if secret, err := opened(action, by, 4-by[0], 5-by[0]); !errors.Is(err, ErrOtherOfficer) || secret != nil {
			t.Errorf("others open what %v approved: %v", by, err)
		}
	}
	if secret, err := open(InsideUnlock, 4, 5); err != nil || string(secret) != "the key" {
		t.Errorf("the inspectors open: %q, %v", secret, err)
	}
	for _, mixed := range [][2]int{{0, 5}, {4, 1}, {2, 5}, {4, 3}} {
		for _, action := range []string{"evidence.unlock", InsideUnlock} {
			if secret, err := open(action, mixed[0], mixed[1]); err == nil || secret != nil {
				t.Errorf("%v decide together on %s", mixed, action)
			}
		}
	}
}

// TestCeremony opens one thing by two officers and refuses every short cut.
func TestCeremony(t *testing.T) {
	ks := four(t)
	r := roster(t, ks)
	info := keyring.SealInfo{Purpose: "segment/originals", Org: org, Subject: "018f0000-0000-7000-8000-000000000001"}
	boxes, err := r.Escrow().Seal(info, []byte("the key"))
	if err != nil {
		t.Fatal(err)
	}
	objects := []string{"originals/general/018f0000-0000-7000-8000-000000000001"}
	ask := approval.Ask{Action: "evidence.unlock", Case: "C-1", Purpose: "why", Requester: "Ada Ihle", Objects: objects, Org: org, Grant: 2 * time.Hour}
	_, st, err := approval.New(ask, noon)
	if err != nil {
		t.Fatal(err)
	}
	say := func(k *Key, d approval.Decision) approval.Signed {
		s, err := k.Sign(d, st)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	both := []approval.Signed{say(ks[0], approval.Approve), say(ks[1], approval.Approve)}
	records := 0
	opening := func(change func(*Opening)) *Opening {
		o := &Opening{Roster: r, Statement: st, Signed: both, Objects: objects, Org: org.String(), Now: noon, Record: func([]byte) error { records++; return nil }}
		if change != nil {
			change(o)
		}
		return o
	}
	later := noon.Add(25 * time.Hour)
	for name, change := range map[string]func(*Opening){
		"one signature":  func(o *Opening) { o.Signed = both[:1] },
		"one twice":      func(o *Opening) { o.Signed = []approval.Signed{both[0], both[0]} },
		"none":           func(o *Opening) { o.Signed = nil },
		"one office":     func(o *Opening) { o.Signed = []approval.Signed{both[0], say(ks[2], approval.Approve)} },
		"a refusal":      func(o *Opening) { o.Signed = []approval.Signed{both[0], say(ks[1], approval.Refuse)} },
		"a stranger":     func(o *Opening) { o.Signed[1] = say(newOfficer(t, "Otto Sand", Oversight, false), approval.Approve) },
		"too late":       func(o *Opening) { o.Now = later },
		"other object":   func(o *Opening) { o.Objects = []string{"originals/general/other"} },
		"one more":       func(o *Opening) { o.Objects = append(objects, "x") },
		"other data":     func(o *Opening) { o.Org = uuid.NewString() },
		"nobody records": func(o *Opening) { o.Record = nil },
	} {
		o := opening(nil)
		o.Signed = append([]approval.Signed(nil), both...)
		change(o)
		if h, err := ks[1].OpenOuter(o, info, boxes); err == nil || h != nil {
			t.Errorf("%s: the outer layer was opened", name)
		}
	}
	if records != 0 {
		t.Fatal("a refused opening was recorded as one")
	}
	down := errors.New("the ledger is away")
	if h, err := ks[1].OpenOuter(opening(func(o *Opening) { o.Record = func([]byte) error { return down } }), info, boxes); !errors.Is(err, down) || h != nil {
		t.Fatal("opened without a record", err)
	}
	for i, k := range ks {
		h, err := k.OpenOuter(opening(nil), info, boxes)
		if k.Card().Office == Investigation {
			if !errors.Is(err, ErrOtherOfficer) {
				t.Fatal("investigation took the outer layer off", err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := approval.Canonical(h)
		if err != nil {
			t.Fatal(err)
		}
		if h, err = ParseHandover(b); err != nil {
			t.Fatal(err)
		}
		for j, inv := range ks {
			secret, until, err := inv.OpenInner(opening(nil), info, h)
			if (err == nil) != (j == i-1) { // the investigation of the same pair
				t.Fatalf("box of %d opened by %d: %v", i, j, err)
			}
			if err == nil && (string(secret) != "the key" || !until.Equal(noon.Add(2*time.Hour))) {
				t.Fatalf("%q until %v", secret, until)
			}
		}
		if _, _, err := ks[i-1].OpenInner(opening(func(o *Opening) { o.Signed = both[:1] }), info, h); err == nil {
			t.Fatal("the inner layer was opened with one signature")
		}
		_, another, err := approval.New(ask, noon)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := ks[i-1].OpenInner(opening(func(o *Opening) { o.Statement = another }), info, h); err == nil {
			t.Fatal("a handover was used for another statement")
		}
	}
	if records == 0 {
		t.Fatal("nothing was recorded")
	}
}

func FuzzParseCard(f *testing.F) {
	f.Add(newOfficer(f, "Ada Ihle", Investigation, false).Card().Bytes())
	f.Add([]byte(`{"name":"x"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := ParseCard(b)
		if err == nil && !bytes.Equal(c.Bytes(), bytes.TrimSuffix(b, []byte("\n"))) {
			t.Fatalf("accepted what is written otherwise: %q", b)
		}
	})
}

func FuzzParseRoster(f *testing.F) {
	ks := four(f)
	f.Add([]byte(rosterText(ks[:], board)))
	_, text := withInspectors(f)
	f.Add([]byte(text))
	f.Add([]byte("apiVersion: officers/v1\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := ParseRoster("f", b)
		if err == nil && r.Escrow().Check() != nil {
			t.Fatal("a roster without an escrow")
		}
	})
}

func FuzzParseHandover(f *testing.F) {
	b, err := approval.Canonical(Handover{Box: "AA", Epoch: 1, Inner: strings.Repeat("0", 64), Statement: strings.Repeat("1", 64), V: 1})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := ParseHandover(b)
		if err != nil {
			return
		}
		if again, err := approval.Canonical(h); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("accepted what is written otherwise: %q", b)
		}
	})
}
