package attest

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/counterseal/counterseal/internal/approval"
	"github.com/counterseal/counterseal/internal/officer"
)

// TestApproveOfInspectors: the two of an inspector's office approve an opening by themselves,
// nobody approves with them, and they approve nothing else.
func TestApproveOfInspectors(t *testing.T) {
	h := newHouse(t)
	defer h.close()
	keys, text := four(t)
	for i, o := range []officer.Office{officer.Investigation, officer.Oversight} {
		k, err := officer.New([]string{"Nils Five", "Nora Six"}[i], o, false)
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, k)
		text += fmt.Sprintf("  - id: %s\n    authority: Court\n    inspector: true\n    card: '%s'\n", k.Card().ID(), k.Card().Bytes())
	}
	roster, err := officer.ParseRoster("officers", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	enrol(t, h.rec, keys)
	org := uuid.New()
	try := func(action string, by ...*officer.Key) error {
		st, b, err := approval.New(approval.Ask{Action: action, Case: "C-1", Purpose: "why", Requester: "A", Objects: []string{"x"}, Org: org, Grant: time.Hour}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		digest := approval.Digest(b)
		if _, err := h.rec.Record(t.Context(), Act{Kind: "approval.requested", Actor: "os:1", Subject: []string{st.ID}, Detail: map[string]any{"act": st.Action, "expires": st.Expires, "statement": fmt.Sprintf("%x", digest)}}); err != nil {
			t.Fatal(err)
		}
		_, err = Approve(t.Context(), h.rec, Approval{Statement: b, Signed: signed(t, b, approval.Approve, by...), Action: action, Org: org.String(), Objects: []string{"x"}, Roster: roster, Actor: "os:1", Now: time.Now()})
		return err
	}
	for action, inside := range map[string]bool{"evidence.unlock": false, "unmask": false, officer.InsideUnlock: true, officer.InsideUnmask: true, officer.InsideQuestions: true} {
		if err := try(action, keys[4], keys[5]); inside != (err == nil) {
			t.Errorf("%s by the inspectors: %v", action, err)
		}
		if err := try(action, keys[0], keys[1]); inside == (err == nil) {
			t.Errorf("%s by the organisation: %v", action, err)
		}
		for _, mixed := range [][2]int{{0, 5}, {4, 1}, {5, 0}, {3, 4}} {
			if err := try(action, keys[mixed[0]], keys[mixed[1]]); !errors.Is(err, ErrNotApproved) {
				t.Errorf("%s by %v: %v", action, mixed, err)
			}
		}
	}
	for _, action := range []string{"hold.release", "offices.activate", "ledger.succeed"} {
		if err := try(action, keys[4], keys[5]); !errors.Is(err, ErrNotApproved) {
			t.Errorf("%s by the inspectors: %v", action, err)
		}
	}
}
