package lifecycle

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/counterseal/counterseal/internal/approval"
	"github.com/counterseal/counterseal/internal/attest"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/evidence"
	"github.com/counterseal/counterseal/internal/keyring"
	"github.com/counterseal/counterseal/internal/pia"
	"github.com/counterseal/counterseal/internal/vault"
)

// plainTokens makes tokens that anybody could undo.
type plainTokens struct{}

func (plainTokens) Token(kind event.TokenKind, canonical []byte) (event.Token, error) {
	var bits [16]byte
	copy(bits[:], canonical)
	return event.NewToken(kind, 1, bits), nil
}

func tokenOf(name string) event.Token {
	t, _ := plainTokens{}.Token(event.Person, []byte(name))
	return t
}

// named is a site with a vault.
type named struct {
	*site
	escrow *keyring.Escrow
	fault  func(string) error
	v      *vault.Vault
}

func newNamed(t *testing.T) *named {
	t.Helper()
	n := &named{site: newSite(t)}
	var keys [4]keyring.PublicKey
	for i := range keys {
		k, err := keyring.NewPrivateKey()
		if err != nil {
			t.Fatal(err)
		}
		keys[i] = k.Public()
	}
	n.escrow = &keyring.Escrow{Epoch: 1, Main: keyring.Pair{Investigation: keys[0], Oversight: keys[1]}, Spare: keyring.Pair{Investigation: keys[2], Oversight: keys[3]}}
	n.restart()
	t.Cleanup(func() { n.v.Close() })
	return n
}

// restart opens all of it anew, and ends what was begun.
func (n *named) restart() {
	n.t.Helper()
	if n.v != nil {
		n.v.Close()
	}
	var err error
	n.v, err = vault.Open(context.Background(), vault.Options{Dir: n.dir, Org: n.site.keys.ID(), Escrow: n.escrow, Now: n.now, Fault: func(at string) error {
		if n.fault == nil {
			return nil
		}
		return n.fault(at)
	}, State: func(ctx context.Context, w vault.Window) error {
		_, err := n.book.Record(ctx, attest.Act{Kind: "vault.sealed", Actor: attest.System, Subject: []string{w.ID}, Detail: map[string]any{"window": w.ID, "n": w.N, "root": hex.EncodeToString(w.Root[:])}})
		return err
	}})
	if err != nil {
		n.t.Fatal(err)
	}
	n.site.vault = n.v
	n.reopen()
	if err := n.l.Begin(context.Background()); err != nil {
		n.t.Fatal(err)
	}
}

// about seals a record about people.
func (n *named) about(comp string, names ...string) {
	n.t.Helper()
	var rec []byte
	for _, name := range names {
		t, err := n.v.Tokenizer(plainTokens{}).Token(event.Person, []byte(name))
		if err != nil {
			n.t.Fatal(err)
		}
		rec = append(append(rec, t...), ' ')
	}
	if err := n.v.Keep(context.Background(), comp, n.at, rec); err != nil {
		n.t.Fatal(err)
	}
	n.seal(evidence.Events, comp, 1)
	if err := n.v.CloseWindow(context.Background()); err != nil {
		n.t.Fatal(err)
	}
}

func (n *named) has(name string) bool {
	n.t.Helper()
	_, _, err := n.v.Find(context.Background(), tokenOf(name))
	if err != nil && !errors.Is(err, vault.ErrNoSeal) {
		n.t.Fatal(err)
	}
	return err == nil
}

// sound checks the vault against the statements.
func (n *named) sound(notes int) {
	n.t.Helper()
	ctx := context.Background()
	s, err := vault.Look(ctx, n.dir)
	if err != nil {
		n.t.Fatal(err)
	}
	defer s.Close()
	sealed, _ := n.book.Facts(ctx, "vault.sealed")
	erased, _ := n.book.Facts(ctx, "vault.erased")
	known, bad := attest.Stated(sealed, erased, n.book.Payload)
	r, err := s.Check(ctx, known)
	if err != nil || len(bad) > 0 || len(r.Findings) > 0 || len(r.Notes) != notes {
		n.t.Fatalf("%v %v %v %v", err, bad, r.Findings, r.Notes)
	}
}

// approved is an erasure that two officers agreed on.
func (n *named) approved(names ...string) string {
	n.t.Helper()
	ctx := context.Background()
	var all []Erasure
	for _, name := range names {
		p, err := n.v.Places(ctx, []event.Token{tokenOf(name)})
		if err != nil || len(p) == 0 {
			n.t.Fatal(p, err)
		}
		all = append(all, Erasure{"person-abcdef", p[0]})
	}
	st, b, err := approval.New(approval.Ask{Action: ErasureAction, Case: "P-1", Purpose: "they asked for it", Requester: "Head of Privacy", Objects: ErasureObjects(all), Org: n.site.keys.ID(), Grant: time.Minute}, n.at)
	if err != nil {
		n.t.Fatal(err)
	}
	if again, err := ParseErasure(st.Objects); err != nil || !cmp.Equal(again, all) {
		n.t.Fatal(again, err)
	}
	payload, err := n.book.PutPayload(b)
	if err != nil {
		n.t.Fatal(err)
	}
	sum := approval.Digest(b)
	digest := hex.EncodeToString(sum[:])
	if _, err := n.book.Record(ctx, attest.Act{Kind: "approval.requested", Actor: "os:1000", Subject: []string{st.ID}, Detail: map[string]any{"act": ErasureAction, "expires": st.Expires, "statement": digest, "payload": payload}}); err != nil {
		n.t.Fatal(err)
	}
	if _, err := n.book.Record(ctx, attest.Act{Kind: "erasure.approved", Actor: "os:1000", Subject: []string{st.ID}, Detail: ErasureApproved{Case: "P-1", Request: st.ID, Statement: digest}}); err != nil {
		n.t.Fatal(err)
	}
	return st.ID
}

func (n *named) erases() {
	n.t.Helper()
	if err := n.l.EraseApproved(context.Background()); err != nil {
		n.t.Fatal(err)
	}
}

// TestNamesGoWithTheirRecords: a sealed name is erased with the last record that holds its
// token, in whichever compartment, and the ledger says which rows, and of whom to nobody.
func TestNamesGoWithTheirRecords(t *testing.T) {
	n := newNamed(t)
	n.rules = append(n.rules, &pia.Rule{Source: "fw", Compartment: "net", Retention: 90})
	n.about("hr", "alice", "bob", "carol")
	n.about("net", "carol")
	n.after(7 * day)
	n.about("hr", "bob")
	n.at = monday.Add(37 * day) // the first week is over
	if r := n.pass(); r.Announced != 1 || r.Names != 0 || !n.has("alice") {
		t.Fatalf("%+v", r)
	}
	n.after(n.grace)
	n.fault = func(at string) error {
		if at == "stated erasing" {
			return errors.New("killed")
		}
		return nil
	}
	if _, err := n.l.Pass(t.Context()); err == nil || !n.has("alice") {
		t.Fatal("it was not cut off between the statement and the row", err)
	}
	n.sound(1) // stated, and not done
	n.fault = nil
	n.restart()
	if n.has("alice") || !n.has("bob") || !n.has("carol") {
		t.Fatal(n.has("alice"), n.has("bob"), n.has("carol"))
	}
	n.sound(0)
	if r := n.pass(); r.Names != 0 {
		t.Fatalf("%+v", r)
	}
	n.after(14 * day)
	n.pass()
	n.after(n.grace)
	if r := n.pass(); r.Names != 1 || n.has("bob") || !n.has("carol") {
		t.Fatalf("%+v", r)
	}
	n.after(90 * day)
	n.pass()
	n.after(n.grace)
	if r := n.pass(); r.Names != 1 || n.has("carol") {
		t.Fatalf("%+v", r)
	}
	n.sound(0)
	for _, d := range details[attest.Erased](t, n.book, "vault.erased") {
		if d.Reason != attest.ErasedByRetention || d.Rows != 1 || d.Windows != 1 || d.Request != "" {
			t.Errorf("%+v", d)
		}
	}
	n.silent()
}

// TestNamesOfLostEvidence: evidence that is not there, and was not destroyed, keeps its names:
// it may come back.
func TestNamesOfLostEvidence(t *testing.T) {
	n := newNamed(t)
	n.about("hr", "alice")
	id := uuid.UUID{6: 0x70, 8: 0x80, 15: 1} // version 7, of this moment
	for i, ms := 5, n.at.UnixMilli(); i >= 0; i, ms = i-1, ms>>8 {
		id[i] = byte(ms)
	}
	lost := func(stream, key string) {
		t.Helper()
		if _, err := n.book.Record(t.Context(), attest.Act{Kind: "segment.opened", Actor: attest.System, Subject: []string{key}, Detail: map[string]any{"compartment": "hr", "stream": stream}}); err != nil {
			t.Fatal(err)
		}
	}
	lost("events", id.String())
	n.at = monday.Add(60 * day)
	n.pass()
	n.after(n.grace)
	if r := n.pass(); r.Destroyed != 1 || r.Names != 0 || !n.has("alice") {
		t.Fatalf("%+v", r)
	}
	if _, err := n.book.Record(t.Context(), attest.Act{Kind: "destruction.done", Actor: attest.System, Subject: []string{id.String()}, Detail: map[string]any{"rule": "none", "destroyed": map[string]any{}}}); err != nil {
		t.Fatal(err)
	}
	n.restart()
	if r := n.pass(); r.Names != 1 || n.has("alice") {
		t.Fatalf("%+v", r)
	}
}

// silent fails where a statement about erasing, or its list, tells of whom it is.
func (n *named) silent() {
	n.t.Helper()
	var said strings.Builder
	for _, a := range n.book.all {
		if a.Kind == "vault.erased" || a.Kind == "erasure.approved" {
			fmt.Fprintf(&said, "%+v\n", a)
		}
	}
	for _, p := range n.book.payloads {
		said.Write(p)
	}
	if i, _ := event.NextToken([]byte(said.String())); i >= 0 {
		n.t.Error("a token stands in a statement or a list")
	}
}

// TestErasureAndHolds: what two officers approved is erased when no hold of any kind keeps
// it, and what others are told is the same whichever hold it is, or none.
func TestErasureAndHolds(t *testing.T) {
	n := newNamed(t)
	o := newOfficers(t)
	n.roll = o.roster
	n.restart()
	ctx := t.Context()
	n.about("hr", "alice", "bob")
	n.about("net", "carol")
	n.after(14 * day)
	n.about("hr", "alice")
	told := func(request string) ErasureState {
		t.Helper()
		all, err := n.l.Erasures(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range all {
			if e.Request == request {
				e.Request, e.Approved = "", time.Time{}
				return e
			}
		}
		t.Fatal("it is not told")
		return ErasureState{}
	}
	week := Scope{Compartment: "hr", From: monday.Add(10 * day).Format(time.RFC3339), To: monday.Add(20 * day).Format(time.RFC3339)}
	h := n.place(week)
	inspectors, _, err := n.l.PlaceInside(ctx, nils, Scope{Compartment: "net"}, []byte("order"), n.at.Add(90*day))
	if err != nil {
		t.Fatal(err)
	}
	a, b, c := n.approved("alice"), n.approved("bob"), n.approved("carol")
	n.erases()
	if !n.has("alice") || n.has("bob") || !n.has("carol") {
		t.Fatal(n.has("alice"), n.has("bob"), n.has("carol"))
	}
	if told(b).Erased == nil || told(b).Rows != 1 {
		t.Errorf("%+v", told(b))
	}
	if diff := cmp.Diff(told(a), told(c)); diff != "" || told(c).Erased != nil {
		t.Errorf("the hold of an inspector's office is told from another: %s", diff)
	}
	n.after(14 * day)
	n.about("hr", "bob") // who goes on is sealed anew, and erased again by another request
	if !n.has("bob") {
		t.Fatal("who goes on working has no name")
	}
	n.sound(0)

	// Witnesses: neither an approval nor a statement that none has seen erases anything.
	n.book.up = false
	d := n.approved("bob")
	n.erases()
	if told(d).Erased != nil || !n.has("bob") {
		t.Fatal("an approval that no witness has seen counts")
	}
	n.book.up = true
	n.book.witness()
	n.book.up = false
	n.erases()
	if told(d).Erased == nil || !n.has("bob") {
		t.Fatal("a statement that no witness has seen erases")
	}
	n.sound(1)
	// A hold that comes between the statement and the erasing keeps the row.
	late := n.place(Scope{Compartment: "hr"})
	n.book.up = true
	n.restart()
	n.pass()
	if !n.has("bob") {
		t.Fatal("a hold that stands was not obeyed")
	}
	n.sound(1)
	n.released(o, late)
	n.pass()
	if n.has("bob") || !n.has("alice") {
		t.Fatal(n.has("bob"), n.has("alice"))
	}
	n.released(o, h)
	if err := n.l.AskInside(ctx, nils, inspectors.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := n.l.ReleaseInside(ctx, nora, inspectors.ID, mayUnless("nora")); err != nil {
		t.Fatal(err)
	}
	n.pass()
	if n.has("alice") || n.has("carol") || told(a).Erased == nil || told(c).Erased == nil {
		t.Fatal(n.has("alice"), n.has("carol"))
	}
	statements := len(n.book.all)
	n.erases()
	n.restart()
	n.pass()
	if len(n.book.all) != statements {
		t.Error("what was erased is erased again")
	}
	n.sound(0)
	n.silent()
}

// released ends a hold by two officers.
func (n *named) released(o *officers, h Hold) {
	n.t.Helper()
	ctx := context.Background()
	b, err := n.l.Ask(ctx, "os:1000", h.ID, "C-1", "it is over", "Head of Privacy")
	if err != nil {
		n.t.Fatal(err)
	}
	if _, err := n.l.Release(ctx, "os:1000", h.ID, b, o.sign(n.t, b, 0, 1)); err != nil {
		n.t.Fatal(err)
	}
}

// TestErasureByState: what somebody wrote into the state erases nothing.
func TestErasureByState(t *testing.T) {
	n := newNamed(t)
	n.about("hr", "alice")
	differs := errors.New("the state differs from the ledger")
	n.agree = func(context.Context) error { return differs }
	n.restart()
	n.approved("alice")
	if err := n.l.EraseApproved(t.Context()); !errors.Is(err, differs) {
		t.Error(err)
	}
	list, err := vault.EncodeList(n.placesOf("alice"))
	if err != nil {
		t.Fatal(err)
	}
	payload, err := n.book.PutPayload(list)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.book.Record(t.Context(), attest.Act{Kind: "vault.erased", Actor: attest.System, Subject: []string{"x"}, Detail: attest.Erased{List: payload, Reason: attest.ErasedByRetention, Rows: 1, Windows: 1}}); err != nil {
		t.Fatal(err)
	}
	n.restart()
	if !n.has("alice") {
		t.Error("it was erased")
	}
}

func (n *named) placesOf(name string) []vault.Place {
	n.t.Helper()
	p, err := n.v.Places(context.Background(), []event.Token{tokenOf(name)})
	if err != nil {
		n.t.Fatal(err)
	}
	return p
}

func FuzzParseErasure(f *testing.F) {
	f.Add("alias person-abc", "row 0190b2a0-0000-7000-8000-00000000000a 3")
	f.Add("alias ", "row 0190b2a0-0000-7000-8000-00000000000a 03")
	f.Add("row", "alias")
	f.Fuzz(func(t *testing.T, a, b string) {
		all, err := ParseErasure([]string{a, b})
		if err != nil {
			return
		}
		if diff := cmp.Diff([]string{a, b}, ErasureObjects(all)); diff != "" {
			t.Error(diff)
		}
	})
}
