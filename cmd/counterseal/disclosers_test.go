package main

import (
	"bytes"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/counterseal/counterseal/internal/approval"
	"github.com/counterseal/counterseal/internal/discloser"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/keyholder"
	"github.com/counterseal/counterseal/internal/keyring"
	"github.com/counterseal/counterseal/internal/officer"
	"github.com/counterseal/counterseal/internal/oversight"
)

const agencyDirectory = `apiVersion: directory/v1
people:
  - id: E-1
    names: [alice, Alice Example]
    mails: [alice@agency.example]
  - id: E-2
    names: [bob]
    mails: [bob@agency.example]
`

// withDirectory gives the key holder a directory and the officers, and starts the server anew.
func (n *names) withDirectory() {
	n.t.Helper()
	n.stop()
	layHolder(n.t, n.s.tokens.dir, n.sh.at("officers.yaml"))
	settings := filepath.Join(n.s.tokens.dir, "keyholder.yaml")
	more := bytes.Replace(read(n.t, settings), []byte("lists: 2"), []byte("lists: 9"), 1)
	if err := os.WriteFile(settings, more, 0o600); err != nil {
		n.t.Fatal(err)
	}
	n.open()
	n.signIn()
}

// disclosers is a list of oversight with people on it.
func (n *names) disclosers(people ...string) *discloser.List {
	n.t.Helper()
	var to []keyring.PublicKey
	for _, a := range n.roster.Overseers() {
		to = append(to, a.Seal)
	}
	l, err := discloser.New(to)
	if err != nil {
		n.t.Fatal(err)
	}
	for _, p := range people {
		if err := l.Add(n.now(), "IG-"+p, []string{p}); err != nil {
			n.t.Fatal(err)
		}
	}
	return l
}

// askList asks the key holder of the server for a list.
func (n *names) askList(l *discloser.List, key string) error {
	n.t.Helper()
	h := askedHolder{dir: n.s.tokens.dir}
	dial, err := h.dial(config{})
	if err != nil {
		n.t.Fatal(err)
	}
	k := n.keys[key]
	got, err := keyholder.AskList(n.t.Context(), dial, l.Words(), k.Card().Name, n.now(), func(statement []byte) (approval.Signed, error) { return k.Sign(approval.Approve, statement) }, nil)
	if err != nil {
		return err
	}
	return l.Answered(n.now(), got.Org, got.Epochs, l.Words(), got.Tags)
}

// targetsOf are the kinds and states of what is about somebody, sorted, as overseers get it.
func (b *bureau) targetsOf(all bool, alias string) []string {
	b.t.Helper()
	var a queueAnswer
	b.does(overseer, "oversight.queue", queueAsk{All: all}, &a, 200, "")
	var out []string
	for _, r := range a.Targets {
		for _, who := range r.About {
			if who.Person == alias {
				out = append(out, r.Kind+" "+r.State)
			}
		}
	}
	slices.Sort(out)
	return out
}

// TestDisclosers: whoever is on the overseer's list is found in every look, authorisation
// and request for a name, on the overseer's side alone; nobody else is found, the server gives
// everybody's machine the same, and who is no overseer gets nothing.
func TestDisclosers(t *testing.T) {
	t.Parallel()
	n := openNames(t)
	n.withDirectory()
	n.signIns("d.ndjson", `"user":"Alice@AGENCY.example","src_ip":"203.0.113.21","country":"FI","result":"success"`, `"user":"bob@agency.example","src_ip":"203.0.113.22","country":"SE","result":"success"`)
	alias := map[string]string{}
	for _, r := range rowsOf(t, n.asks("source = idp", 200, "")) {
		alias[r.Get("src_endpoint.location.country")] = r.Get("user.uid")
	}
	alice, bob := alias["FI"], alias["SE"]
	if !strings.HasPrefix(alice, "person-") || !strings.HasPrefix(bob, "person-") || alice == bob {
		t.Fatal(alias)
	}

	l := n.disclosers("alice example", "zoe")
	if err := n.askList(l, "inv"); !errors.Is(err, keyholder.ErrCapability) {
		t.Errorf("investigation asks for the tags of a list: %v", err)
	}
	if l.Unasked() != 2 {
		t.Error("a question that was refused counts as asked")
	}
	if err := n.askList(l, "ovs"); err != nil {
		t.Fatal(err)
	}
	if l.Entries[0].Found != 1 || l.Entries[1].Found != 0 || l.Unasked() != 0 {
		t.Errorf("found %d of the person in the directory, %d of the other", l.Entries[0].Found, l.Entries[1].Found)
	}
	other, none := n.disclosers("bob@agency.example"), n.disclosers()
	for _, o := range []*discloser.List{other, none} {
		if err := n.askList(o, "ovs2"); err != nil {
			t.Fatal(err)
		}
	}

	targets := func(all bool) queueTargets {
		t.Helper()
		code, text := n.as(overseer, "POST", "/api/v1/acts/oversight.queue", url.Values{"case": {"C-17"}}, queueAsk{All: all})
		if code != 200 || hasToken([]byte(text)) {
			t.Fatalf("%d %s", code, text)
		}
		var a queueAnswer
		n.does(overseer, "oversight.queue", queueAsk{All: all}, &a, 200, "")
		return a.queueTargets
	}
	kinds := func(l *discloser.List, a queueTargets, person string) string {
		t.Helper()
		var out []string
		matches, _ := compare(l, n.keys["ovs"], &a)
		for _, m := range matches {
			if m.Person != person && m.Kind != "erasure" || m.Note == "" {
				t.Errorf("%s is taken for somebody on the list: %+v", m.Person, m)
			}
			out = append(out, m.Kind+" "+m.State)
		}
		slices.Sort(out) // two of one second come in either order
		return strings.Join(out, ", ")
	}
	if a := targets(false); len(a.Targets) != 0 || a.Epoch != 1 {
		t.Fatalf("before anybody is asked about: %+v", a)
	}
	r := n.request(alice)
	if got := kinds(l, targets(false), alice); got != "authorisation requested" {
		t.Errorf("a request for an authorisation: %q", got)
	}
	n.does(privacyOfficer, "authorise", authoriseNamed{ID: r.ID, Digest: r.Digest, Approve: true}, &r, 200, "")
	n.authorised(bob)
	n.asks("class_uid = 3002 and user.uid = "+alice, 200, alice)
	n.asks("class_uid = 3002 and user.uid = "+bob, 200, bob)
	a := targets(false)
	if got := kinds(l, a, alice); got != "authorisation approved, look waits" {
		t.Errorf("an authorisation and a look: %q", got)
	}
	if got := kinds(other, a, bob); got != "authorisation approved, look waits" {
		t.Errorf("the other list: %q", got)
	}
	if got := kinds(none, a, ""); got != "" || len(a.Targets) != 4 {
		t.Errorf("an empty list: %q of %d", got, len(a.Targets))
	}
	again := targets(false)
	for i := range a.Targets {
		if string(a.Targets[i].About[0].Veil.Salt) == string(again.Targets[i].About[0].Veil.Salt) {
			t.Error("two answers veil somebody in the same way")
		}
	}
	for _, user := range []int{0, colleague, privacyOfficer, complianceUser} {
		n.does(user, "oversight.queue", queueAsk{}, nil, 403, "")
	}

	// What is over is there when it is asked for.
	look := a.Targets[slices.IndexFunc(a.Targets, func(r targetRow) bool { return r.Kind == "look" && r.About[0].Person == alice })].ID
	n.does(overseer, "look.review", reviewNamed{look, oversight.Misuse}, nil, 200, "")
	n.does(0, "authorise.end", authoriseNamed{ID: r.ID, Reason: "done"}, nil, 200, "")
	if got := kinds(l, targets(false), alice); got != "" {
		t.Errorf("what is over: %q", got)
	}
	if got := kinds(l, targets(true), alice); got != "authorisation ended, look misuse" {
		t.Errorf("what is over, when it is asked for: %q", got)
	}

	// The request for a name has the token itself.
	n.authorised(alice)
	asked, of := n.asked(alice, "Ines Vogel"), n.asked(bob, "Ines Vogel")
	judge := func(l *discloser.List, token event.Token, names []keyholder.Spoken, although bool) (string, error) {
		var said strings.Builder
		err := (&listFile{List: l, path: "mine"}).judge(&said, n.s.pipe.Org().String(), token, names, true, although)
		return said.String(), err
	}
	never, elsewhere := n.disclosers("bob"), listOf(t, n.keys["ovs"], string(asked.row.Token))
	name := func(category, text string) []keyholder.Spoken {
		return []keyholder.Spoken{{Category: category, Text: text}}
	}
	for what, c := range map[string]struct {
		list   *discloser.List
		token  event.Token
		names  []keyholder.Spoken
		says   string
		passes bool
	}{
		"somebody on the list":        {l, asked.row.Token, nil, "LISTED     IG-alice example", false},
		"somebody else":               {l, of.row.Token, nil, "MISSING    place 2, IG-zoe: the directory", true},
		"a list of another house":     {elsewhere, of.row.Token, nil, "", false},
		"a list that was never asked": {never, of.row.Token, nil, "MISSING    place 1, IG-bob: added since", false},
		"an empty list":               {n.disclosers(), of.row.Token, nil, "", true},
		"a name on the list":          {other, "", name("mail", "bob@agency.example"), "LISTED", false},
		"a name in another spelling":  {other, "", name("person", `AGENCY/Bob`), "LISTED", false},
		"a name that may be theirs":   {other, "", name("mail", "<bob@elsewhere.example>"), "LISTED", false},
		"another name":                {other, "", name("person", "carol"), "", true},
		"a device":                    {other, "", name("device", "BOB-LAPTOP"), "MISSING    a name of the category device", false},
		"a request that names nobody": {l, "", nil, "NOT COMPARED", true},
	} {
		said, err := judge(c.list, c.token, c.names, false)
		if (err == nil) != c.passes || !strings.Contains(said, c.says) || c.says == "" && said != "" {
			t.Errorf("%s: %v, %q", what, err, said)
		}
		if _, err := judge(c.list, c.token, c.names, true); err != nil {
			t.Errorf("%s, although: %v", what, err)
		}
	}
	if got := kinds(l, targets(false), alice); got != "authorisation approved, name requested" {
		t.Errorf("a request for a name: %q", got)
	}
	n.approved(asked)
	var row string
	for _, r := range targets(false).Targets {
		if r.Kind == "name" && r.About[0].Person == alice {
			row = r.State
		}
	}
	if row != "approved" {
		t.Errorf("a name that two officers let be opened is %q", row)
	}
	n.eraseAsked(privacyOfficer, bob)
	if got := n.targetsOf(false, ""); !slices.Equal(got, []string{"erasure requested"}) {
		t.Errorf("names are to be erased: %q", got)
	}
	if got := kinds(other, targets(false), bob); !strings.Contains(got, "erasure requested") {
		t.Errorf("names of somebody on the list are to be erased: %q", got)
	}
	before := n.targetsOf(false, bob)
	n.erases(of.row.Token) // nobody knows any more whom the erasure is about
	a = targets(false)
	if got := n.targetsOf(false, bob); a.Uncompared < 1 || len(got) != len(before)-1 { // the request for the name is gone too
		t.Errorf("%d not compared; of bob %q, before %q", a.Uncompared, got, before)
	}
	if got := n.targetsOf(false, ""); got != nil {
		t.Errorf("somebody lost their alias to an erasure: %q", got)
	}

	// A new epoch of tokens: the list is asked for again, and finds the old ones and the new.
	n.stop()
	if _, err := keyholder.Rotate(n.s.tokens.dir, time.Now(), nil); err != nil {
		t.Fatal(err)
	}
	n.open()
	n.signIn()
	n.signIns("e.ndjson", `"user":"alice@agency.example","src_ip":"203.0.113.23","country":"NO","result":"success"`)
	var now string
	for _, r := range rowsOf(t, n.asks("source = idp", 200, "")) {
		if r.Get("src_endpoint.location.country") == "NO" {
			now = r.Get("user.uid")
		}
	}
	n.authorised(now)
	a = targets(false)
	if got := kinds(l, a, alice); got != "authorisation approved, name approved" || a.Epoch != 2 || !slices.Equal(l.Epochs, []int{1}) {
		t.Errorf("before it is asked for again, in epoch %d with the list of %v: %q", a.Epoch, l.Epochs, got)
	}
	if err := n.askList(l, "ovs"); err != nil {
		t.Fatal(err)
	}
	var found []string
	matches, _ := compare(l, n.keys["ovs"], &a)
	for _, m := range matches {
		found = append(found, m.Person)
	}
	if slices.Sort(found); !slices.Contains(found, alice) || !slices.Contains(found, now) || slices.Contains(found, bob) {
		t.Errorf("after it: %q, want %q and %q", found, alice, now)
	}

	// The ledger says that lists were asked for, how often, and nothing else.
	if err := n.s.stateTokenWindow(t.Context()); err != nil {
		t.Fatal(err)
	}
	f, ok, err := n.s.pipe.Recorder().Fact(t.Context(), "keyholder.window", n.s.pipe.Org().String())
	if err != nil || !ok || !strings.Contains(string(f.Detail), `"lists":1`) {
		t.Errorf("%s %v", f.Detail, err)
	}
	n.noName("alice example")
}

// hasToken reports whether a token stands in a text. Three of its characters stand in many a
// seal by chance.
func hasToken(b []byte) bool {
	at, _ := event.NextToken(b)
	return at >= 0
}

// listOf is a list with one person on it, whose token the key holder is said to have given.
func listOf(t *testing.T, k *officer.Key, token string) *discloser.List {
	t.Helper()
	l, err := discloser.New([]keyring.PublicKey{k.Card().Seal})
	if err == nil {
		err = l.Add(time.Now(), "IG-1", []string{"zoe"})
	}
	if err == nil {
		err = l.Answered(time.Now(), uuid.New(), []int{1}, l.Words(), [][]discloser.Tag{{discloser.TagOf(event.Token(token))}})
	}
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// TestDisclosersByCommand keeps a list by commands, without a server.
func TestDisclosersByCommand(t *testing.T) {
	s := newShell(t)
	_, pass := s.office()
	list, key := s.at("list"), []string{"--key", s.at("ovs"), "--passphrase-file", pass}
	cmd := func(code int, says string, args ...string) string {
		t.Helper()
		_, both := s.run(code, append([]string{"oversight", "disclosers"}, args...)...)
		if !strings.Contains(both, says) {
			t.Fatalf("%v: want %q\n%s", args, says, both)
		}
		return both
	}
	with := func(args ...string) []string { return append(args, key...) }
	cmd(2, "--officers is missing", "new", list)
	cmd(0, "opens with 2 keys", "new", list, "--officers", s.at("officers.yaml"))
	cmd(1, "", "new", list, "--officers", s.at("officers.yaml"))
	empty := len(read(t, list))
	alice := s.write("alice", "\n CORP\\alice \nAlice Example\n")
	cmd(2, "--note is about somebody new", with("add", list, "--names", alice)...)
	cmd(2, "--key is missing", "add", list, "--note", "x")
	cmd(0, "added     place 1, IG-2026-14, by 2 names", with("add", list, "--names", alice, "--note", "IG-2026-14")...)
	if said := cmd(2, "place 1, IG-2026-14", with("add", list, "--names", s.write("again", "bob\nalice  EXAMPLE\n"), "--note", "x")...); strings.Contains(said, "alice") {
		t.Error("an error quotes the name")
	}
	cmd(2, "at least one name", with("add", list, "--names", s.write("nobody", "\n"), "--note", "x")...)
	cmd(2, "stands for nobody", with("add", list, "--names", s.write("system", "SYSTEM\n"), "--note", "x")...)
	cmd(2, "a note is a line", with("add", list, "--names", s.write("bob", "bob\n"), "--note", strings.Repeat("n", discloser.MaxNote+1))...)
	cmd(0, "", with("add", list, "--names", s.at("bob"), "--note", "press, 3 May")...)
	cmd(3, "on a terminal", with("show", list)...)
	said := cmd(0, "", with("show", list, "--pipe")...)
	if want := "1         IG-2026-14\n          added " + time.Now().UTC().Format(time.DateOnly) + ", not asked for yet\n          CORP\\alice\n          Alice Example\n2         press"; !strings.Contains(said, want) || !strings.Contains(said, "asked     never") {
		t.Errorf("want %q\n%s", want, said)
	}
	if n := len(read(t, list)); n != empty {
		t.Errorf("the list has %d bytes empty and %d with two people", empty, n)
	}
	if text := string(read(t, list)); strings.Contains(text, "alice") || strings.Contains(text, "IG-2026") {
		t.Error("the file says who is on it")
	}
	if st, err := os.Stat(list); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", st.Mode(), err)
	}
	cmd(0, "place 1, IG-2026-14, by 3 names", with("add", list, "--place", "1", "--names", s.write("more", "alice@agency.example\n"))...)
	cmd(1, "sealed to other keys", "show", list, "--pipe", "--key", s.at("inv"), "--passphrase-file", pass)
	cmd(0, "press, 3 May", "show", list, "--pipe", "--key", s.at("ovs2"), "--passphrase-file", pass)
	cmd(2, "places 1 to 2", with("remove", list, "3")...)
	cmd(0, "removed   place 1, IG-2026-14", with("remove", list, "1")...)
	if said := cmd(0, "bob", with("show", list, "--pipe")...); strings.Contains(said, "alice") {
		t.Error(said)
	}
	cmd(1, "take your copy", with("show", s.write("cut", string(read(t, list))[:400]), "--pipe")...)
	cmd(2, "", with("show", s.at("nowhere"), "--pipe")...)
	cmd(2, "", with("add", list, "--names", s.at("nowhere"), "--note", "x")...)
	cmd(1, "looked for it at "+s.dir, with("ask", list, "--keyholder", s.dir)...)
	s.run(2, "officer", "sign", list, "--key", s.at("ovs"), "-o", s.at("no"), "--although-listed")

	// What lies at the end of a link is written, and what was changed meanwhile is left alone.
	link := s.at("link")
	if err := os.Symlink(list, link); err != nil {
		t.Fatal(err)
	}
	cmd(0, "", with("add", link, "--names", alice, "--note", "by a link")...)
	if st, err := os.Lstat(link); err != nil || st.Mode()&os.ModeSymlink == 0 {
		t.Error("the link is a file now")
	}
	cmd(0, "by a link", with("show", list, "--pipe")...)
	secret := bytes.TrimSpace(read(t, pass))
	k, err := officer.OpenKey(read(t, s.at("ovs")), secret)
	if err != nil {
		t.Fatal(err)
	}
	l, err := openList(list, k)
	if err != nil {
		t.Fatal(err)
	}
	cmd(0, "", with("remove", list, "2")...)
	if err := l.save(); err == nil || !strings.Contains(err.Error(), "changed meanwhile") {
		t.Errorf("what somebody removed is back: %v", err)
	}

	full := s.at("full")
	cmd(0, "", "new", full, "--officers", s.at("officers.yaml"))
	var many strings.Builder
	for i := range discloser.MaxNames {
		fmt.Fprintf(&many, "person-%d\n", i)
	}
	cmd(0, "by 32 names", with("add", full, "--names", s.write("many", many.String()), "--note", "all")...)
	cmd(2, "32 places", with("add", full, "--names", s.at("bob"), "--note", "one more")...)
}
