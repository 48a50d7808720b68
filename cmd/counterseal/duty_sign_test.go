package main

import (
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/counterseal/counterseal/internal/duty"
)

// signed is a request that the responder signed with their passkey.
func (n *nights) signed(alias string) *dutyRequest {
	n.t.Helper()
	var w unmaskWaits
	n.does(0, "duty.sign", dutyAsk{alias, "who signed in from there"}, &w, 200, "")
	if code, text := n.person.signs(w.ID); code != 200 {
		n.t.Fatal(code, text)
	}
	return n.collects(w.ID)
}

func (n *nights) collects(id string) *dutyRequest {
	n.t.Helper()
	var got dutyCollected
	n.does(0, "duty.collect", map[string]string{"request": id}, &got, 200, "")
	if got.Request == nil {
		n.t.Fatal("the request waits still")
	}
	return n.brought(got.Request)
}

// TestDutySigned: where the duty host wants it, a name is opened for a request that the
// passkey of who asks has signed, and for no other: not for one that the server states alone.
func TestDutySigned(t *testing.T) {
	t.Parallel() // it waits more than it works
	n := openNights(t, true)
	w := n.warrant()
	n.sh.run(0, "duty", "install", n.write(w), "--dir", n.sh.at("duty"))
	me := n.person.id
	refused := func(name string, r *dutyRequest, says string) {
		t.Helper()
		if a, err := n.host.open(me, n.bytes(r)); err == nil || a != nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want %q", name, err, says)
		}
	}

	bare := n.asked(n.bob)
	refused("nobody signed", bare, "not signed by passkey")
	if code, text := n.as(socketUser, "POST", "/api/v1/acts/duty.sign", url.Values{"case": {"C-17"}}, dutyAsk{n.bob, "x"}); code != 403 {
		t.Error(code, text)
	}

	var waits unmaskWaits
	n.does(0, "duty.sign", dutyAsk{n.bob, "who signed in from there"}, &waits, 200, "")
	if n.stated("duty.asked", waits.ID) {
		t.Error("it is counted before it is signed")
	}
	if code, text := n.person.signs(waits.ID); code != 200 {
		t.Fatal(code, text)
	}
	if n.stated("duty.asked", waits.ID) {
		t.Error("it is counted before it is brought")
	}
	n.does(0, "unmask.collect", map[string]string{"request": waits.ID}, nil, 403, "no request of yours")
	one := n.collects(waits.ID)
	if again := n.collects(waits.ID); again.Asked.Leaf != one.Asked.Leaf {
		t.Error("collected again it is another request")
	}
	two := n.signed(n.bob)

	mixed := *bare
	mixed.By, mixed.V = two.By, 2
	refused("the signature of another", n.brought(&mixed), "over another statement")
	stranger := n.newPerson("responder")
	forged := *one
	by := *one.By
	by.Signed = n.hand(stranger, []byte(one.Statement), nil)
	forged.By = &by
	refused("a stranger signed", n.brought(&forged), "another account")
	by = *one.By
	by.Requested.Proof = unwitnessed(by.Requested.Proof, n.log)
	refused("no witness saw the signature", n.brought(&forged), "not witnessed")
	by = *one.By
	by.Requested = two.By.Requested
	refused("the statement about another", n.brought(&forged), "another act")
	settings := string(read(t, n.sh.at("duty/duty.yaml")))
	n.sh.write("duty/duty.yaml", strings.Replace(settings, "https://logs.example", "https://other.example", 1))
	refused("signed elsewhere", one, "origin")
	n.sh.write("duty/duty.yaml", settings)
	n.at = n.now().Add(6 * time.Minute)
	refused("under a checkpoint of before", one, "longer than 5 minutes ago")
	n.at = time.Time{}

	officers := string(read(t, n.sh.at("duty/officers.yaml")))
	n.sh.write("duty/officers.yaml", strings.Replace(officers, "    authority: 'Head of Legal'\n", "    authority: 'Head of Legal'\n    account: "+me+"\n", 1))
	refused("an officer who signed the warrant", one, "who signed the warrant")
	n.sh.write("duty/officers.yaml", officers)

	a, err := n.host.open(me, n.bytes(one))
	if err != nil || string(a.Identity) != "bob@agency.example" || a.Number != 1 {
		t.Fatal(err, a)
	}
	n.does(0, "duty.opened", dutyOpened{one.Statement, a.Signed}, nil, 200, "")
	refused("a replay", one, "brought before")

	// What held when it was made must hold when it is brought.
	n.does(0, "duty.sign", dutyAsk{n.bob, "x"}, nil, 403, "the most") // three were asked for
	n.later(24 * time.Hour)
	n.does(0, "duty.sign", dutyAsk{n.bob, "who signed in from there"}, &waits, 200, "")
	if code, text := n.person.signs(waits.ID); code != 200 {
		t.Fatal(code, text)
	}
	var st dutyState
	n.does(overseer, "duty.status", struct{}{}, &st, 200, "")
	n.does(overseer, "duty.end", dutyNamed{st.Warrants[0].ID}, nil, 200, "")
	n.does(0, "duty.collect", map[string]string{"request": waits.ID}, nil, 403, "no warrant")
	if all, err := duty.Releases(n.sh.at("duty")); err != nil || len(all) != 1 {
		t.Error(err, all)
	}
	n.noName("bob@")
}
