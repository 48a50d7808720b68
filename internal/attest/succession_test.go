package attest

import (
	"crypto/ed25519"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/counterseal/counterseal/internal/approval"
	"github.com/counterseal/counterseal/internal/ledger"
	"github.com/counterseal/counterseal/internal/officer"
)

// four makes investigation, oversight and their spares, and the file of them.
func four(t *testing.T) (keys []*officer.Key, roster string) {
	t.Helper()
	roster = "apiVersion: officers/v1\nepoch: 1\nofficers:\n"
	for i, name := range []string{"Inga One", "Omar Two", "Ines Three", "Otto Four"} {
		office, authority := officer.Investigation, "Head of Legal"
		if i%2 == 1 {
			office, authority = officer.Oversight, "Works Council"
		}
		k, err := officer.New(name, office, i > 1)
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, k)
		roster += fmt.Sprintf("  - id: %s\n    authority: %s\n    card: '%s'\n", k.Card().ID(), authority, k.Card().Bytes())
	}
	return keys, roster
}

// signed gives the decisions of officers about a statement.
func signed(t *testing.T, statement []byte, d approval.Decision, keys ...*officer.Key) (out []approval.Signed) {
	t.Helper()
	for _, k := range keys {
		s, err := k.Sign(d, statement)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, s)
	}
	return out
}

func enrol(t *testing.T, r *Recorder, keys []*officer.Key) {
	t.Helper()
	for _, k := range keys {
		if _, err := r.Record(t.Context(), Act{Kind: "officer.enrolled", Actor: System, Subject: []string{k.Card().ID()}, Detail: map[string]any{"office": string(k.Card().Office), "key": k.Card().ID()}}); err != nil {
			t.Fatal(err)
		}
	}
}

// TestApprove goes through what must not pass for the consent of two people.
func TestApprove(t *testing.T) {
	h := newHouse(t)
	defer h.close()
	keys, text := four(t)
	roster, err := officer.ParseRoster("officers", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	strangers, strange := four(t)
	other, err := officer.ParseRoster("officers", []byte(strange))
	if err != nil {
		t.Fatal(err)
	}
	enrol(t, h.rec, keys)
	org := uuid.New()
	ask := func(state bool) (statement []byte, id string) {
		st, b, err := approval.New(approval.Ask{Action: "test.act", Case: "C-1", Purpose: "why", Requester: "A", Objects: []string{"x"}, Org: org, Grant: time.Hour}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if state {
			digest := approval.Digest(b)
			if _, err := h.rec.Record(t.Context(), Act{Kind: "approval.requested", Actor: "os:1", Subject: []string{st.ID}, Detail: map[string]any{"act": st.Action, "expires": st.Expires, "statement": fmt.Sprintf("%x", digest)}}); err != nil {
				t.Fatal(err)
			}
		}
		return b, st.ID
	}
	approve := func(b []byte, change func(*Approval), s ...approval.Signed) error {
		a := Approval{Statement: b, Signed: s, Action: "test.act", Org: org.String(), Objects: []string{"x"}, Roster: roster, Actor: "os:1", Now: time.Now()}
		if change != nil {
			change(&a)
		}
		_, err := Approve(t.Context(), h.rec, a)
		return err
	}
	refused := func(what string, err error, words string) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%s: %v", what, err)
		}
	}
	b, _ := ask(false)
	refused("nobody asked", approve(b, nil, signed(t, b, approval.Approve, keys[0], keys[1])...), "no request")
	b, id := ask(true)
	both := signed(t, b, approval.Approve, keys[0], keys[1])
	refused("another act", approve(b, func(a *Approval) { a.Action = "test.other" }, both...), "something else")
	refused("another place", approve(b, func(a *Approval) { a.Org = uuid.NewString() }, both...), "something else")
	refused("another object", approve(b, func(a *Approval) { a.Objects = []string{"y"} }, both...), "something else")
	refused("nobody in office", approve(b, func(a *Approval) { a.Roster = nil }, both...), "no officers")
	refused("late", approve(b, func(a *Approval) { a.Now = time.Now().Add(48 * time.Hour) }, both...), "expired")
	refused("officers that the ledger does not know", approve(b, func(a *Approval) { a.Roster = other }, signed(t, b, approval.Approve, strangers[0], strangers[1])...), "does not know this officer")
	if ok, err := Approved(t.Context(), h.rec, id); err != nil || ok {
		t.Fatal("what was refused was stated", err)
	}
	refused("one", approve(b, nil, both[0]), "requested")
	if err := approve(b, nil, both[1]); err != nil { // the first one stands
		t.Fatal(err)
	}
	if ok, err := Approved(t.Context(), h.rec, id); err != nil || !ok {
		t.Fatal(ok, err)
	}
	for range 2 {
		if err := Use(t.Context(), h.rec, "os:1", id); err != nil {
			t.Fatal(err)
		}
	}
	refused("twice", approve(b, nil), "used")

	b, id = ask(true)
	refused("a refusal", approve(b, nil, signed(t, b, approval.Refuse, keys[3])...), "refused")
	refused("approvals after a refusal", approve(b, nil, signed(t, b, approval.Approve, keys[0], keys[1])...), "decided")
	if ok, err := Approved(t.Context(), h.rec, id); err != nil || ok {
		t.Fatal("approved after a refusal", err)
	}
}

// TestForgedSuccession: whoever holds the key of the log puts it away and begins another.
// Only what two officers signed, in office by the old log, passes.
func TestForgedSuccession(t *testing.T) {
	keys, roster := four(t)
	strangers, strange := four(t)
	for name, c := range map[string]struct {
		roster  string
		signers []*officer.Key
		action  string
		late    []*officer.Key // enrolled by the new log
		want    string
	}{
		"as it should be":                   {roster, keys[:2], ActionSucceed, nil, ""},
		"nobody signed":                     {roster, nil, ActionSucceed, nil, "is not kept"},
		"one signed twice":                  {roster, []*officer.Key{keys[0], keys[0]}, ActionSucceed, nil, "another office"},
		"two of one office":                 {roster, []*officer.Key{keys[0], keys[2]}, ActionSucceed, nil, "another office"},
		"another act was signed":            {roster, keys[:2], "hold.release", nil, "something else"},
		"strangers, enrolled by the forger": {strange, strangers[:2], ActionSucceed, strangers, "not in office"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			h.append("a", "one")
			enrol(t, h.rec, keys)
			h.close()
			pub := h.key.Public().(ed25519.PublicKey)
			vkey, err := ledger.VKey(origin, pub)
			if err != nil {
				t.Fatal(err)
			}
			old, err := ledger.OpenClosed(filepath.Join(h.dir, "ledger"), ledger.Verifiers{Log: []string{vkey}})
			if err != nil {
				t.Fatal(err)
			}
			_, statement, err := approval.New(approval.Ask{Action: c.action, Case: "C", Purpose: "why", Requester: "A", Objects: SucceedObjects(origin, old.Size(), old.Root()), Org: uuid.New(), Grant: time.Hour}, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			next := filepath.Join(h.dir, "next")
			l, err := ledger.Open(t.Context(), ledger.Options{Dir: next, Origin: origin + "/2", Key: h.key, Node: "n1"})
			if err != nil {
				t.Fatal(err)
			}
			detail := map[string]any{"origin": origin, "size": int64(old.Size()), "root": old.Root(), "reason": "approved"}
			put := func(name string, b []byte) {
				if detail[name], err = l.PutPayload(b); err != nil {
					t.Fatal(err)
				}
			}
			put("statement", statement)
			put("officers", []byte(c.roster))
			for i, s := range signed(t, statement, approval.Approve, c.signers...) {
				b, err := approval.Canonical(s)
				if err != nil {
					t.Fatal(err)
				}
				put(fmt.Sprintf("decision_%d", i+1), b)
			}
			add := func(kind string, subject string, detail any) {
				s, err := ledger.New(kind, System, time.Now(), detail)
				if err != nil {
					t.Fatal(err)
				}
				s.Subject = []string{subject}
				if _, err := l.Add(t.Context(), s); err != nil {
					t.Fatal(err)
				}
			}
			add("log.succeeded", origin, detail)
			for _, k := range c.late {
				add("officer.enrolled", k.Card().ID(), map[string]any{"office": string(k.Card().Office), "key": k.Card().ID()})
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			nextKey, err := ledger.VKey(origin+"/2", pub)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.MkdirAll(filepath.Join(h.dir, "ledger.before"), 0o700); err != nil {
				t.Fatal(err)
			}
			for _, way := range [][2]string{{"ledger", "ledger.before/1"}, {"next", "ledger"}} {
				if err := os.Rename(filepath.Join(h.dir, way[0]), filepath.Join(h.dir, way[1])); err != nil {
					t.Fatal(err)
				}
			}
			for at, k := range map[string]string{"ledger.before/1": vkey, "ledger": nextKey} {
				if err := os.WriteFile(filepath.Join(h.dir, at, "log.vkey"), []byte(k+"\n"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			r, err := Verify(t.Context(), h.dir, VerifyOptions{Log: []string{nextKey, vkey}})
			if err != nil {
				t.Fatal(err)
			}
			said := fmt.Sprint(r.Problems)
			if (c.want == "") != r.OK() || !strings.Contains(said, c.want) {
				t.Fatalf("want %q: %s %v", c.want, said, r.Ledger.Findings)
			}
		})
	}
}
