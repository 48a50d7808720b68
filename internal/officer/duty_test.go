package officer

import (
	"errors"
	"strings"
	"testing"

	"github.com/counterseal/counterseal/internal/keyring"
)

// dutyText is a roster of four officers and the two keys of a duty host, marked by mark.
func dutyText(ks []*Key, mark string) string {
	text := rosterText(ks, board)
	for _, k := range ks[4:] {
		text = strings.Replace(text, "  - id: "+k.Card().ID()+"\n", "  - id: "+k.Card().ID()+"\n    "+mark+"\n", 1)
	}
	return text
}

// TestDutyRoster: the two keys of a duty host get names alone, and decide on nothing.
func TestDutyRoster(t *testing.T) {
	k4 := four(t)
	ks := append(k4[:], newOfficer(t, "Duty host", Investigation, false), newOfficer(t, "Duty host", Oversight, false))
	r, err := ParseRoster("officers.yaml", []byte(dutyText(ks, "duty: true")))
	if err != nil {
		t.Fatal(err)
	}
	e := r.Escrow()
	if err := e.Check(); err != nil || e.Duty.Investigation.ID() != ks[4].Card().Seal.ID() || e.Duty.Oversight.ID() != ks[5].Card().Seal.ID() || e.Main.Oversight.ID() != ks[1].Card().Seal.ID() || e.Inspected() {
		t.Fatal("keys at other places", err)
	}
	for _, a := range r.Overseers() {
		if a.Duty {
			t.Error("what is for the overseers would open at the duty host")
		}
	}
	if inner, outer := r.Duty(); inner != ks[4].Card().ID() || outer != ks[5].Card().ID() {
		t.Error("other cards")
	}
	for _, action := range []string{"", "unmask", "evidence.unlock", "duty.warrant", "hold.release"} {
		for _, k := range ks[4:] {
			if _, err := r.VoterFor(k.Card().ID(), action); err == nil {
				t.Errorf("a duty host decides on %q", action)
			}
		}
	}
	for name, c := range map[string]struct{ text, want string }{
		"one key":             {dutyText(ks[:5], "duty: true"), "two keys"},
		"not told":            {strings.ReplaceAll(dutyText(ks, "duty: true"), "    duty: true\n", ""), "hold one office"},
		"one told":            {strings.Replace(dutyText(ks, "duty: true"), "    duty: true\n", "", 1), "hold one office"},
		"one layer":           {dutyText(append(k4[:], ks[4], newOfficer(t, "Duty host", Investigation, false)), "duty: true"), "hold one office"},
		"a spare":             {dutyText(append(k4[:], ks[4], newOfficer(t, "Duty host", Oversight, true)), "duty: true"), "no spare"},
		"both":                {dutyText(ks, "duty: true\n    inspector: true"), "no inspector's office"},
		"a key of an officer": {dutyText(append(k4[:], k4[0], ks[5]), "duty: true"), "one key"},
	} {
		if _, err := ParseRoster("officers.yaml", []byte(c.text)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestOpenBoth: the two keys of a duty host open the box that is sealed to them, after it
// was counted, and no other pair does.
func TestOpenBoth(t *testing.T) {
	k4 := four(t)
	ks := append(k4[:], newOfficer(t, "Duty host", Investigation, false), newOfficer(t, "Duty host", Oversight, false))
	r, err := ParseRoster("officers.yaml", []byte(dutyText(ks, "duty: true")))
	if err != nil {
		t.Fatal(err)
	}
	info := keyring.SealInfo{Purpose: "vault/identity", Org: org, Subject: "p1_x"}
	boxes, err := r.Escrow().SealName(info, []byte("a name"))
	if err != nil {
		t.Fatal(err)
	}
	counted := 0
	count := func() error { counted++; return nil }
	if b, err := OpenBoth(ks[4], ks[5], info, boxes, count); err != nil || string(b) != "a name" || counted != 1 {
		t.Fatalf("%q, %v, counted %d times", b, err, counted)
	}
	for name, pair := range map[string][2]*Key{"turned": {ks[5], ks[4]}, "mixed": {ks[4], ks[1]}, "strangers": {newOfficer(t, "X", Investigation, false), newOfficer(t, "X", Oversight, false)}} {
		if _, err := OpenBoth(pair[0], pair[1], info, boxes, count); !errors.Is(err, ErrOtherOfficer) {
			t.Errorf("%s: %v", name, err)
		}
	}
	full := errors.New("full")
	if b, err := OpenBoth(ks[4], ks[5], info, boxes, func() error { return full }); !errors.Is(err, full) || b != nil {
		t.Error("opened without a count", err)
	}
	if _, err := OpenBoth(ks[4], ks[5], info, boxes, nil); err == nil {
		t.Error("opened and nobody counts")
	}
	if counted != 1 {
		t.Errorf("counted %d times", counted)
	}
	originals, err := r.Escrow().Seal(info, []byte("a key"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := OpenBoth(ks[4], ks[5], info, originals, count); !errors.Is(err, ErrOtherOfficer) {
		t.Errorf("the keys of originals are sealed to a duty host: %v", err)
	}
}
