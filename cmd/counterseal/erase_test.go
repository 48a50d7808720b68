package main

import (
	"encoding/json"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/counterseal/counterseal/internal/approval"
	"github.com/counterseal/counterseal/internal/attest"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/ledger"
	"github.com/counterseal/counterseal/internal/lifecycle"
	"github.com/counterseal/counterseal/internal/vault"
	"github.com/counterseal/counterseal/internal/web"
)

// eraseAsked is a request to erase what is sealed of people, as it is in its file.
func (n *names) eraseAsked(user int, aliases ...string) officerRequest {
	n.t.Helper()
	var r officerRequest
	n.does(user, "erase.request", eraseAsk{Aliases: aliases, Reason: "they asked for it", Requester: "Ines Vogel"}, &r, 200, "")
	return r
}

func (n *names) eraseApproved(r officerRequest) *receipt {
	n.t.Helper()
	var got receipt
	n.does(0, "erase.approve", unlockDecided{r.Statement, n.both(r.Statement)}, &got, 200, "")
	return &got
}

// sees imports a line about somebody.
func (n *names) sees(file, user string) {
	n.t.Helper()
	path := filepath.Join(n.dir, file)
	line := `{"time":"` + time.Now().Add(-time.Hour).UTC().Format(time.RFC3339) + `","event":"signin","user":"` + user + `","src_ip":"203.0.113.77","country":"US","result":"success","mfa":true,"client_app":"Browser","risk":"none"}` + "\n"
	if err := os.WriteFile(path, []byte(line), 0o600); err != nil {
		n.t.Fatal(err)
	}
	if _, err := n.s.importFiles(n.t.Context(), web.ImportRequest{Paths: []string{path}, Source: "idp"}, nil); err != nil {
		n.t.Fatal(err)
	}
}

// verified verifies the data directory, and gives how many rows are there and erased.
func (n *names) verified() (rows, erased int64) {
	n.t.Helper()
	r, err := attest.Verify(n.t.Context(), filepath.Join(n.dir, "data"), attest.VerifyOptions{Log: []string{n.log}})
	if err != nil || !r.OK() {
		n.t.Fatalf("%v %v %v %v", err, r.Problems, r.Evidence.Problems, r.Ledger.Findings)
	}
	return r.Vault.Rows, r.Vault.Erased
}

// TestEraseOne: two officers erase what is sealed of one person. Who may ask, what is
// answered under a hold, what can be asked afterwards, and what the ledger says of it.
func TestEraseOne(t *testing.T) {
	t.Parallel()
	n := openNames(t)
	v := n.s.pipe.Vault()
	tokens := map[string]event.Token{} // by name
	for _, name := range []string{"alice", "bob", "carol"} {
		token, err := n.s.tokens.maker.Token(event.Mail, []byte(name+"@agency.example"))
		if err != nil {
			t.Fatal(err)
		}
		tokens[name] = token
	}
	// Who of them stands behind which alias.
	alias := map[string]string{}
	for _, a := range n.who {
		r := n.eraseAsked(0, a)
		st, err := approval.Parse([]byte(r.Statement))
		if err != nil {
			t.Fatal(err)
		}
		all, err := lifecycle.ParseErasure(st.Objects)
		if err != nil || len(all) != 1 || all[0].Alias != a {
			t.Fatal(all, err)
		}
		token, err := v.TokenAt(t.Context(), all[0].At)
		if err != nil {
			t.Fatal(err)
		}
		for name, have := range tokens {
			if have == token {
				alias[name] = a
			}
		}
	}
	has := func(name string) bool {
		t.Helper()
		if err := n.s.pipe.Vault().CloseWindow(t.Context()); err != nil {
			t.Fatal(err)
		}
		p, err := n.s.pipe.Vault().Places(t.Context(), []event.Token{tokens[name]})
		if err != nil {
			t.Fatal(err)
		}
		return len(p) > 0
	}

	// Who may ask, and for what.
	ask := eraseAsk{Aliases: []string{alias["alice"]}, Reason: "they asked for it", Requester: "Ines Vogel"}
	for _, user := range []int{overseer, complianceUser} {
		n.does(user, "erase.request", ask, nil, 403, "")
	}
	for name, bad := range map[string]eraseAsk{
		"nobody":     {Reason: "x", Requester: "y"},
		"a name":     {Aliases: []string{"alice@agency.example"}, Reason: "x", Requester: "y"},
		"a stranger": {Aliases: []string{"mail-aaaaaa"}, Reason: "x", Requester: "y"},
		"a crowd":    {Aliases: slices.Repeat([]string{alias["alice"]}, 33), Reason: "x", Requester: "y"},
		"no reason":  {Aliases: []string{alias["alice"]}, Requester: "y"},
		"no asker":   {Aliases: []string{alias["alice"]}, Reason: "x"},
	} {
		if code, text := n.as(0, "POST", "/api/v1/acts/erase.request", url.Values{"case": {"C-17"}}, bad); code != 400 {
			t.Errorf("%s: %d %s", name, code, text)
		}
	}
	if code, text := n.as(0, "POST", "/api/v1/acts/erase.request", nil, ask); code != 400 || !strings.Contains(text, "case") {
		t.Errorf("without a case: %d %s", code, text)
	}
	n.away.Store(true)
	n.does(0, "erase.request", ask, nil, 503, "")
	n.away.Store(false)

	// Two officers, neither of whom asked.
	r := n.eraseAsked(privacyOfficer, alias["alice"])
	n.does(0, "erase.approve", unlockDecided{r.Statement, n.sign(approval.Approve, r.Statement, "inv")}, nil, 403, "not approved")
	n.does(0, "erase.request", eraseAsk{Aliases: []string{string(tokens["alice"])}, Reason: "x", Requester: "y"}, nil, 403, "token")
	spares := n.eraseAsked(0, alias["alice"])
	n.does(0, "erase.approve", unlockDecided{spares.Statement, n.sign(approval.Approve, spares.Statement, "ovs", "ovs2")}, nil, 403, "another office")
	var own officerRequest
	n.does(0, "erase.request", eraseAsk{Aliases: ask.Aliases, Reason: "x", Requester: n.roster.Officers[0].Name}, &own, 200, "")
	n.does(0, "erase.approve", unlockDecided{own.Statement, n.both(own.Statement)}, nil, 403, "does not decide")
	if !has("alice") {
		t.Fatal("it was erased without an approval")
	}

	// A hold: the same answer, and no row goes.
	var placed holdPlaced
	n.does(complianceUser, "hold.place", holdPlace{Scope: lifecycle.Scope{From: n.now().Add(-24 * time.Hour).Format(time.RFC3339)}, Order: []byte("order"), Review: n.now().Add(90 * 24 * time.Hour)}, &placed, 200, "")
	held := n.eraseApproved(r)
	if !has("alice") {
		t.Fatal("a hold was not obeyed")
	}
	var all []lifecycle.ErasureState
	n.does(privacyOfficer, "erase.list", struct{}{}, &all, 200, "")
	if len(all) != 1 || all[0].Erased != nil || all[0].Case != "C-17" {
		t.Fatalf("%+v", all)
	}
	var release officerRequest
	n.does(complianceUser, "hold.request", holdAsk{Hold: placed.Hold.ID, Case: "C-1", Purpose: "it is over", Requester: "Ines Vogel"}, &release, 200, "")
	n.does(0, "hold.release", holdRelease{Hold: placed.Hold.ID, Statement: release.Statement, Decisions: n.both(release.Statement)}, nil, 200, "")
	again := n.eraseApproved(r) // asked again after an answer that got lost
	if has("alice") || !has("bob") || held.Leaf != again.Leaf {
		t.Fatal("what nothing keeps any more is there, or the answers differ")
	}
	n.authorised(alias["alice"])
	n.does(0, "unmask.request", unmaskAsk{alias["alice"], "who signed in from there", "Ines Vogel", 60}, nil, 403, "it was erased")
	n.does(0, "erase.request", ask, nil, 403, "it was erased")
	if !strings.Contains(n.asks("source = idp", 200, ""), alias["alice"]) {
		t.Error("the events of who was erased are gone")
	}

	// Who goes on working is sealed anew, and two requests erase once.
	n.sees("more.ndjson", "alice@agency.example")
	if !has("alice") {
		t.Fatal("who goes on is not sealed")
	}
	one, two := n.eraseAsked(0, alias["alice"], alias["bob"]), n.eraseAsked(0, alias["bob"])
	n.eraseApproved(one)
	n.eraseApproved(two)
	if has("alice") || has("bob") || !has("carol") {
		t.Fatal(has("alice"), has("bob"), has("carol"))
	}
	n.does(privacyOfficer, "erase.list", struct{}{}, &all, 200, "")
	if len(all) != 3 || all[1].Rows != 2 || all[2].Rows != 0 || all[2].Erased == nil {
		t.Errorf("%+v", all)
	}
	rows, erased := n.verified()
	if erased != 3 {
		t.Errorf("%d rows, %d erased", rows, erased)
	}

	// The server is killed between the statement and the row: the next one erases it.
	places, err := v.Places(t.Context(), []event.Token{tokens["carol"]})
	if err != nil {
		t.Fatal(err)
	}
	list, err := vault.EncodeList(places)
	if err != nil {
		t.Fatal(err)
	}
	rec := n.s.pipe.Recorder()
	payload, err := rec.PutPayload(list)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := rec.Critical(t.Context(), attest.Act{Kind: "vault.erased", Actor: attest.System, Subject: []string{"0190b2a0-0000-7000-8000-00000000000a"},
		Detail: attest.Erased{List: payload, Reason: attest.ErasedByRetention, Rows: len(places), Windows: 1}}); err != nil {
		t.Fatal(err)
	}
	n.stop()
	if r, e := n.verified(); e != erased || r != rows {
		t.Errorf("%d rows, %d erased", r, e)
	}
	n.open()
	if has("carol") {
		t.Error("what was stated was not erased after a restart")
	}
	if r, e := n.verified(); e != erased+1 || r != rows-1 {
		t.Errorf("%d rows, %d erased", r, e)
	}

	// No statement tells of whom it was.
	rec = n.s.pipe.Recorder()
	if _, err := rec.Each(t.Context(), 0, func(i uint64, s ledger.Statement) error {
		b, err := json.Marshal(s)
		if err != nil {
			return err
		}
		for _, token := range tokens {
			if strings.Contains(string(b), string(token)) || strings.Contains(string(b), string(token)[3:]) {
				t.Errorf("statement %d, %s, has a token", i, s.Kind)
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// eraseByCommands goes on where a question has joined the two tokens of a person: both are
// erased by one alias, and the key of the old epoch is destroyed.
func eraseByCommands(t *testing.T, s *shell, b *bureau, by func(int, ...string) string, pass, file, holder, alias string) {
	t.Helper()
	signed := func(request string) []string {
		t.Helper()
		var out []string
		for _, who := range []string{"inv", "ovs"} {
			said := request + "-" + who
			by(0, "officer", "sign", request, "--key", s.at(who), "--passphrase-file", pass, "--yes", "-o", said)
			out = append(out, "--decision", said)
		}
		return out
	}
	why := []string{"--config", file, "--case", "C-17", "--reason", "they asked for it", "--requester", "Ines Vogel"}
	words := by(0, append([]string{"erase", "request", alias, "-o", s.at("erase")}, why...)...)
	if strings.Count(words, "alias "+alias) != 2 || strings.Count(words, "row ") != 2 {
		t.Fatalf("one alias stands for two tokens:\n%s", words)
	}
	said := by(0, append([]string{"erase", "approve", s.at("erase"), "--config", file, "-o", s.at("erase-receipt")}, signed(s.at("erase"))...)...)
	if !strings.Contains(said, "as soon as nothing keeps it") {
		t.Fatal(said)
	}
	if list := by(0, "erase", "list", "--config", file, "--format", "jsonl"); !strings.Contains(list, `"rows":2`) {
		t.Fatal(list)
	}

	destroy := append([]string{"keyholder", "destroy", "1", "-o", s.at("destroy")}, why...)
	if said := by(3, destroy...); !strings.Contains(said, "--although-kept") {
		t.Fatal(said)
	}
	by(3, append([]string{"keyholder", "destroy", "2", "--although-kept", "-o", s.at("destroy")}, why...)...)
	if words := by(0, append(destroy, "--although-kept")...); !strings.Contains(words, "records are kept") {
		t.Fatalf("the officers are not told that records are kept:\n%s", words)
	}
	by(0, append([]string{"keyholder", "destroy", "1", "--config", file, "--request", s.at("destroy"), "-o", s.at("order")}, signed(s.at("destroy"))...)...)
	carry := []string{"keyholder", "destroy", "1", "--dir", holder, "--order", s.at("order")}
	by(1, carry...) // the holder runs
	b.stop()
	by(0, carry...)
	by(0, carry...)
	b.open()
	var gone struct{ Check, Request string }
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		f, ok, err := b.s.pipe.Recorder().Fact(t.Context(), "key.destroyed", "token/1")
		if err != nil {
			t.Fatal(err)
		}
		if ok {
			if err := json.Unmarshal(f.Detail, &gone); err != nil {
				t.Fatal(err)
			}
			break
		}
		if time.Now().After(end) {
			t.Fatal("nothing says that the key is gone")
		}
	}
	if len(gone.Check) != 32 || gone.Request == "" {
		t.Errorf("%+v", gone)
	}
	if said := by(0, "verify", "--config", file); !strings.Contains(said, "nothing altered") || !strings.Contains(said, "and 2 erased") {
		t.Error(said)
	}
}
