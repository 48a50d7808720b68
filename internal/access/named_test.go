package access_test

import (
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/counterseal/counterseal/internal/access"
	"github.com/counterseal/counterseal/internal/query"
)

func shownNames(ids []access.Identity) string {
	s := make([]string, len(ids))
	for i, id := range ids {
		s[i] = string(id.Who) + " " + id.Value
	}
	return strings.Join(s, "; ")
}

func TestNamed(t *testing.T) {
	for _, c := range []struct{ form, question, want string }{
		{"search", "class_uid = 3002", ""},
		{"search", "user.uid = P1_ABCDEFGHIJKLMNOPQRSTUVWXYZ", "token p1_abcdefghijklmnopqrstuvwxyz"},
		{"search", `user.uid = CORP\Alice or process.file.path = C:\Users\ALICE\x.exe`, "name alice"},
		{"search", "user.uid = alice and device.hostname = WS-17 and src_endpoint.ip = '::ffff:10.1.2.3'", "address 10.1.2.3; device ws-17; name alice"},
		{"search", "native.TargetUserSid = S-1-5-21-1-2-3-1104", "sid s-1-5-21-1-2-3-1104"},
		{"search", "not user.uid = alice", "name alice"},
		{"search", "user.uid = al*", ""},
		{"search", "user.uid = root", ""},
		{"search", "process.cmd_line : *cunningham*", "name cunningham"},
		{"search", "device.hostname = mail-k3x7qa or user.uid = Device-K3X7QA", "token device-k3x7qa; token mail-k3x7qa"},
		{"search", "session.uid = 0x1A2B3C", "session 0x1a2b3c"},
		{"hold-tokens", "{p}, bob", "name bob; token " + token("p", 0)},
		{"list", "user.uid|alice, ALICE, bob", "name alice; name bob"},
		{"directory", "alice@corp.example", "mail alice@corp.example"},
		{"values", "user.uid||user.uid = {p}", "token " + token("p", 0)},
		{"rule", "User: [alice, '{p}']", "name alice; token " + token("p", 0)},
	} {
		if got := shownNames(access.Named(build(t, c.form, c.question), options(t))); got != c.want {
			t.Errorf("%s: %s\n got %s\nwant %s", c.form, c.question, got, c.want)
		}
	}
}

// TestNamedAgrees: for every question of the table Persons counts what Named gives.
func TestNamedAgrees(t *testing.T) {
	o := options(t)
	for _, r := range table(t) {
		agrees(t, build(t, r.form, r.question), o)
	}
}

func agrees(t *testing.T, q access.Question, o access.Options) {
	t.Helper()
	ids, v := access.Named(q, o), access.Selects(q, o)
	if len(ids) != v.Persons || len(ids) > 0 && !v.Class.Has(access.Person) {
		t.Fatalf("%d identities, %d persons, %v", len(ids), v.Persons, v.Class)
	}
	for i, id := range ids {
		if id.Value == "" || strings.ContainsRune(id.Value, 0) || !slices.Contains(v.Who, id.Who) {
			t.Fatalf("identity %d by %q has a gap or is not in %v", i, id.Who, v.Who)
		}
		if slices.Contains(ids[:i], id) {
			t.Fatalf("identity %d is there twice", i)
		}
	}
}

// TestCanonical: the value of an event's field is the identity that a question names.
func TestCanonical(t *testing.T) {
	for _, c := range []struct{ field, value, want string }{
		{"user.uid", `CORP\Alice`, "name alice"},
		{"user.uid", token("p", 0), "token " + token("p", 0)},
		{"device.hostname", "WS-17", "device ws-17"},
		{"src_endpoint.ip", "::ffff:10.1.2.3", "address 10.1.2.3"},
		{"session.uid", "0x1A", "session 0x1a"},
		{"user.uid", "SYSTEM", ""},
		{"device.hostname", "srv-db01", ""},
		{"process.cmd_line", token("p", 0), ""},
		{"class_uid", "3002", ""},
		{"user.uid", token("p", 0) + " " + token("p", 1), ""},
	} {
		id, ok := access.Canonical(c.field, c.value, options(t))
		got := ""
		if ok {
			got = string(id.Who) + " " + id.Value
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", c.field, got, c.want)
		}
		if !ok {
			continue
		}
		asked := access.Named(access.Search{Query: &query.Query{Where: query.Equal{Field: c.field, Pattern: query.Literal(c.value)}}}, options(t))
		if len(asked) != 1 || asked[0].Key() != id.Key() {
			t.Errorf("%s: the question names another", c.field)
		}
	}
	// A host is the same in a device field and in a path, a person as account and home.
	for _, pair := range [][2]string{
		{"device.hostname = ws17", `process.cmd_line = '\\ws17\c$\x'`},
		{"user.uid = alice", `process.file.path = C:\Users\alice\x`},
		{`native.TargetUserName = WS17$`, `user.uid = 'CORP\WS17$'`},
	} {
		a := access.Named(access.Search{Query: parseQuery(t, pair[0])}, options(t))
		b := access.Named(access.Search{Query: parseQuery(t, pair[1])}, options(t))
		if len(a) != 1 || len(b) != 1 || a[0].Key() != b[0].Key() {
			t.Errorf("%s and %s: %s, %s", pair[0], pair[1], shownNames(a), shownNames(b))
		}
	}
}

func coversAlice(id access.Identity) bool { return id.Value == "alice" || id.Value == token("p", 0) }

func TestConfined(t *testing.T) {
	for _, c := range []struct {
		question        string
		confined, bound bool
	}{
		{"user.uid = alice", true, true},
		{`user.uid = CORP\ALICE`, true, true},
		{"user.uid = {p} and query.hostname = union.example", true, true},
		{"user.uid : {p}", true, true},
		{"user.uid : alice", false, false}, // alice smith too
		{"actor.user.uid in (alice, {p})", true, true},
		{"user.uid = alice or user.uid = bob", false, false},
		{"user.uid in (alice, bob)", false, false},
		{"user.uid = alice and actor.user.uid = bob", true, true},
		{"user.uid = bob", false, false},
		{"user.uid = alice or process.cmd_line : mimikatz", true, false},
		{"user.uid in (alice, root)", true, false},
		{"(user.uid = alice or process.cmd_line : mimikatz) and class_uid = 1007", true, false},
		{"(user.uid = alice or process.cmd_line : mimikatz) and query.hostname = union.example", false, false},
		{"user.uid = alice or query.hostname = union.example", false, false},
		{"user.uid = alice or user.uid != alice", false, false},
		{"not user.uid = alice", false, false},
		{"user.uid != alice", false, false},
		{"class_uid = 3002 and not user.uid = alice", false, false},
		{"user.uid = al*", false, false},
		{"user.uid = alic?", false, false},
		{"user.uid = alice or user.uid = al*", false, false},
		{"user.uid = {p}*", false, false},
		{"user.uid = '{p} p1_abcd'", false, false},
		{"native.uid in [1, 5]", false, false},
		{"alice", false, false},
		{"process.cmd_line : *{p}*", false, false},
		{"email.to = {p}", false, false},
		{"class_uid = 3002", true, false},
		{"", true, false},
		{"query.hostname = union.example", false, false},
		{"user.uid = {p} and query.hostname = oig.example", false, false}, // protected
		{"(user.uid = alice or user.uid = bob) and (user.uid = alice or class_uid = 3002)", false, false},
		{"((user.uid = alice and user.uid exists) or class_uid = 3002) and (user.uid = {p} or class_uid = 1007)", true, false},
		{"user.uid = alice | top 5 by user.uid, query.hostname", true, true},
		{"(user.uid = alice or class_uid = 4003) | top 5 by user.uid, query.hostname", false, false},
	} {
		q := parseQuery(t, expand(c.question))
		if got := access.Confined(q, options(t), coversAlice); got != c.confined {
			t.Errorf("%s: confined %v", c.question, got)
		}
		if got := access.Bound(q, options(t), coversAlice); got != c.bound {
			t.Errorf("%s: bound %v", c.question, got)
		}
	}
	if access.Confined(nil, options(t), coversAlice) != true || access.Bound(nil, options(t), coversAlice) {
		t.Error("no question")
	}
	address := func(id access.Identity) bool {
		return id == access.Identity{Who: access.ByAddress, Value: "10.1.2.3"}
	}
	if !access.Bound(parseQuery(t, "src_endpoint.ip in 10.1.2.3/32"), options(t), address) || access.Bound(parseQuery(t, "src_endpoint.ip in 10.1.2.2/31"), options(t), address) {
		t.Error("network of one")
	}
}

func TestCovers(t *testing.T) {
	for _, c := range []struct {
		form, question string
		want           bool
	}{
		{"search", "user.uid = alice and query.hostname = union.example", true},
		{"search", "user.uid in (alice, {p}) and query.hostname = union.example", true},
		{"search", "user.uid = alice or (class_uid = 3002 and status_id = 2)", false}, // veil: alice's rows are of any class
		{"search", "class_uid = 3002 and (user.uid = alice or status_id = 2)", true},
		{"search", "user.uid = alice or class_uid = 4003", false},                                 // everybody's rows would lose their veil
		{"search", "(user.uid = alice or query.hostname = union.example) | stats count()", false}, // small counts
		{"search", "user.uid = alice and query.hostname = union.example | stats count()", true},
		{"search", "user.uid = bob", false},
		{"statistics", "user.uid = alice", true},
		{"saved", "user.uid != alice", false},
		{"export", "user.uid = alice", true},
		{"export", "user.uid = alice or class_uid = 4003", false},
		{"suppression", "rule.id = x and user.uid = alice", true},
		{"suppression", "rule.id = x and not user.uid = alice", false},
		{"hold", "user.uid = alice", true},
		{"hold-tokens", "{p}, alice", true},
		{"hold-tokens", "{p}, bob", false},
		{"hold-tokens", "p1_*", false},
		{"values", "query.hostname||user.uid = alice", true},
		{"values", "user.uid|ali|", false},
		{"values", "query.hostname||user.uid = bob", false},
		{"rule", "User: alice", true},
		{"rule", "User: bob", false},
		{"rule", "User: [alice, bob]", false},
		{"rule", "User|startswith: ali", false},
		{"rule", "User: alice, QueryName: union.example", false},
		{"list", "user.uid|alice", true},
		{"list", "user.uid|alice, bob", false},
		{"indicator", "user-account|alice", true},
		{"peers", "|alice, bob|", false},
		{"peers", "user.uid|alice|", false},
		{"directory", "alice", true},
		{"directory", "alice, bob", false},
		{"directory", "oig.example", false},
	} {
		if got := access.Covers(build(t, c.form, c.question), options(t), coversAlice); got != c.want {
			t.Errorf("%s: %s: %v", c.form, c.question, got)
		}
	}
	if access.Covers(nil, options(t), func(access.Identity) bool { return true }) {
		t.Error("a form that is not known is covered")
	}
}

// TestConfinedWide: the largest question that the language knows is answered soon, and
// what needs more work than that is not confined.
func TestConfinedWide(t *testing.T) {
	var either []query.Expr
	for k := range 40 {
		either = append(either, query.Or{Of: []query.Expr{
			query.Equal{Field: "user.uid", Pattern: query.Literal("bob" + strconv.Itoa(k))},
			query.Equal{Field: "user.uid", Pattern: query.Literal("alice")},
		}})
	}
	if access.Confined(&query.Query{Where: query.And{Of: either}}, options(t), coversAlice) {
		t.Error("rows of others are taken for alice's")
	}
}

// The rows of the model: three fields of people, one of programs, one of contents.
var (
	modelPeople = []string{"user.uid", "actor.user.uid", "device.hostname"}
	modelValues = []string{"", "alice", "bob", "root"}
	modelText   = map[string][]string{"process.file.name": {"", "a.exe", "b.exe"}, "query.hostname": {"", "union.example"}}
)

func modelExpr(r *rand.Rand, depth int) query.Expr {
	if depth > 0 && r.IntN(3) > 0 {
		of := make([]query.Expr, 2+r.IntN(2))
		for i := range of {
			of[i] = modelExpr(r, depth-1)
		}
		switch r.IntN(5) {
		case 0:
			return query.Not{Of: of[0]}
		case 1, 2:
			return query.And{Of: of}
		}
		return query.Or{Of: of}
	}
	pick := func() query.Pattern {
		p := query.Literal(modelValues[1+r.IntN(3)])
		if r.IntN(8) == 0 {
			p.Parts = append(p.Parts, query.Part{Wild: '*'})
		}
		return p
	}
	field := modelPeople[r.IntN(3)]
	switch r.IntN(8) {
	case 0:
		return query.OneOf{Field: field, Of: []query.Pattern{pick(), pick()}}
	case 1:
		return query.Equal{Field: field, Pattern: pick(), Differs: true}
	case 2:
		return query.Exists{Field: field}
	case 3, 4:
		return query.Equal{Field: "process.file.name", Pattern: query.Literal("a.exe")}
	case 5:
		if r.IntN(3) == 0 {
			return query.Equal{Field: "query.hostname", Pattern: query.Literal("union.example")}
		}
	}
	return query.Equal{Field: field, Pattern: pick()}
}

// matches evaluates a condition on one row. Where blind, each test that names somebody
// fails, also under not: what is left is the part of the question that names nobody.
func matches(t testing.TB, e query.Expr, row map[string]string, blind bool) bool {
	names := func(e query.Expr) bool {
		return blind && access.Selects(access.Suppression{Query: &query.Query{Where: e}}, access.Options{}).Class.Has(access.Person)
	}
	one := func(field string, p query.Pattern) bool {
		text, star := "", false
		for _, part := range p.Parts {
			text += part.Text
			star = star || part.Wild != 0
		}
		return row[field] == text || star && strings.HasPrefix(row[field], text)
	}
	switch e := e.(type) {
	case nil:
		return true
	case query.And:
		return !slices.ContainsFunc(e.Of, func(x query.Expr) bool { return !matches(t, x, row, blind) })
	case query.Or:
		return slices.ContainsFunc(e.Of, func(x query.Expr) bool { return matches(t, x, row, blind) })
	case query.Not:
		return !names(e) && !matches(t, e.Of, row, false)
	case query.Exists:
		return row[e.Field] != ""
	case query.Equal:
		if e.Differs {
			return !names(e) && row[e.Field] != "" && !one(e.Field, e.Pattern)
		}
		return !names(e) && one(e.Field, e.Pattern)
	case query.OneOf:
		return slices.ContainsFunc(e.Of, func(p query.Pattern) bool {
			return !names(query.Equal{Field: e.Field, Pattern: p}) && one(e.Field, p)
		})
	}
	t.Fatalf("no way to evaluate %T", e)
	return false
}

// holds checks one condition on every row of the model: what a confined question shows
// of others than alice, its free part shows too.
func holds(t testing.TB, e query.Expr) (confined bool) {
	q := &query.Query{Where: e}
	o := access.Options{}
	confined = access.Confined(q, o, coversAlice)
	bound := access.Bound(q, o, coversAlice)
	if bound && !confined {
		t.Fatalf("bound and not confined: %s", q.String())
	}
	if !confined {
		return false
	}
	for n := range 4 * 4 * 4 * 3 * 2 {
		row := map[string]string{}
		k, alices := n, false
		for _, f := range modelPeople {
			row[f] = modelValues[k%4]
			alices = alices || row[f] == "alice"
			k /= 4
		}
		row["process.file.name"] = modelText["process.file.name"][k%3]
		row["query.hostname"] = modelText["query.hostname"][k/3]
		if alices || !matches(t, e, row, false) {
			continue
		}
		if bound || !matches(t, e, row, true) {
			t.Fatalf("confined (bound %v), and still it shows %v: %s", bound, row, q.String())
		}
	}
	return true
}

func TestConfinedModel(t *testing.T) {
	n, confined := 0, 0
	for seed := range uint64(4000) {
		e := modelExpr(rand.New(rand.NewPCG(seed, 7)), 3)
		n++
		if holds(t, e) {
			confined++
		}
	}
	t.Logf("%d conditions, %d confined", n, confined)
	if confined*20 < n || confined*10 > n*9 {
		t.Errorf("%d of %d are confined: the model shows little", confined, n)
	}
}

// FuzzConfined: the model on conditions of any seed, and Named on any question.
func FuzzConfined(f *testing.F) {
	n := 0
	for _, r := range table(f) {
		f.Add(uint64(r.line), expand(r.question))
		n++
	}
	if n == 0 {
		f.Fatal("no seeds")
	}
	o := options(f)
	f.Fuzz(func(t *testing.T, seed uint64, text string) {
		holds(t, modelExpr(rand.New(rand.NewPCG(seed, 1)), 4))
		agrees(t, access.List{Values: []string{text}}, o)
		q, err := query.Parse(text)
		if err != nil {
			return
		}
		agrees(t, access.Search{Query: q}, o)
		agrees(t, access.Suppression{Query: q}, o)
		all := func(access.Identity) bool { return true }
		none := func(access.Identity) bool { return false }
		if access.Confined(q, o, none) && !access.Confined(q, o, all) {
			t.Fatal("a wider scope covers less")
		}
		if v := access.Selects(access.Search{Query: q}, o); v.Free() != access.Confined(q, o, none) && v.Free() {
			t.Fatal("a free question is not confined")
		}
	})
}
