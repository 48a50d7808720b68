package policy

import (
	"bufio"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cedar-policy/cedar-go/types"
)

var classes = []string{"nobody", "person", "reverse", "person+reverse", "protected"}

const matrixFile = "../../docs/policy-matrix.md"

var noon = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)

// fine is a request in circumstances in which nothing but role, class, authorisation,
// finding and grant can be in the way.
func fine(role, action, selects string) Request {
	r := Request{
		Principal: Person{ID: "alba", Roles: []string{role}, Office: "office-one", Authority: "council", Standing: "confirmed", TrainedUntil: noon.AddDate(0, 6, 0)},
		Action:    action,
		Resource:  Resource{ID: "thing", Selects: selects, Owner: "bruno", Chain: []string{"chiara"}, Authority: "director", Hold: "free"},
		Context:   Context{Now: noon, Offices: "kept", Crowd: "none", Purpose: "incident-response"},
	}
	if strings.HasPrefix(selects, "person") {
		r.Context.Crowd = "few"
	}
	if role == "founder" {
		r.Principal = Founder("alba")
		r.Context.Offices = "none"
	}
	return r
}

// tables reads the tables of the document: heading to rows of cells.
func tables(t *testing.T) map[string][][]string {
	t.Helper()
	f, err := os.Open(matrixFile)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	out := map[string][][]string{}
	heading := ""
	in := bufio.NewScanner(f)
	for in.Scan() {
		line := in.Text()
		if h, ok := strings.CutPrefix(line, "## "); ok {
			heading = h
		}
		if !strings.HasPrefix(line, "|") || strings.HasPrefix(line, "| ---") {
			continue
		}
		var cells []string
		for cell := range strings.SplitSeq(strings.Trim(line, "|"), "|") {
			cells = append(cells, strings.Trim(strings.TrimSpace(cell), "`"))
		}
		out[heading] = append(out[heading], cells)
	}
	if err := in.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}

func load(t testing.TB) *Set {
	t.Helper()
	s, err := Load(Default())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// tried are what the table tries each act with.
var tried = []Context{{}, {Grant: "covers"}, {Finding: true}, {Authorisation: "covers"}}

// words are what comes of it, in that order.
var words = map[string]string{"yyyy": "yes", "nnnn": "no", "nnny": "auth", "nynn": "grant", "nyny": "auth, grant", "nnyy": "auth, finding"}

// cellOf says in the words of the table what a set answers without anything, with a
// grant, by findings alone, and with an authorisation.
func cellOf(s *Set, role, action, selects string) string {
	got := ""
	for _, c := range tried {
		r := fine(role, action, selects)
		r.Context.Grant, r.Context.Finding, r.Context.Authorisation = c.Grant, c.Finding, c.Authorisation
		if s.Decide(r).Allow {
			got += "y"
		} else {
			got += "n"
		}
	}
	if word, ok := words[got]; ok {
		return word
	}
	return "unexplained: " + got
}

// TestMatrix: the table is the expectation, for each act and role.
func TestMatrix(t *testing.T) {
	s := load(t)
	rows := tables(t)["Acts and roles"]
	if len(rows) < 2 {
		t.Fatal("the table is gone")
	}
	roles := rows[0][2:]
	if !slices.Equal(slices.Sorted(slices.Values(roles)), s.Roles()) {
		t.Fatalf("the table has the roles %v, the schema %v", roles, s.Roles())
	}
	want := map[string]bool{}
	for _, a := range s.Actions() {
		if s.schema.kind[a] != "Events" {
			want[a+"/-"] = true
			continue
		}
		for _, class := range classes {
			want[a+"/"+class] = true
		}
	}
	count := map[string]int{}
	for _, row := range rows[1:] {
		key := row[0] + "/" + row[1]
		if !want[key] || len(row) != len(roles)+2 {
			t.Fatalf("row %s is not an act, or there twice, or not complete", key)
		}
		delete(want, key)
		for i, role := range roles {
			got := cellOf(s, role, row[0], strings.Trim(row[1], "-"))
			if got != row[i+2] {
				t.Errorf("%s by %s: the table says %q, the policies %q", key, role, row[i+2], got)
			}
			count[got]++
		}
	}
	for key := range want {
		t.Errorf("%s is in no row", key)
	}
	t.Logf("%d rows, %d roles, %d cells, %d decisions: %v", len(rows)-1, len(roles), (len(rows)-1)*len(roles), len(tried)*(len(rows)-1)*len(roles), count)
}

// TestOwnRequest: the second table, about what the asker asked for.
func TestOwnRequest(t *testing.T) {
	s := load(t)
	rows := tables(t)["One's own request"]
	if len(rows) < 2 {
		t.Fatal("the table is gone")
	}
	roles := rows[0][1 : len(rows[0])-1]
	for _, row := range rows[1:] {
		token := "no"
		for i, role := range roles {
			r := fine(role, row[0], "")
			r.Resource.Owner = "Alba" // one person in any spelling
			got := map[bool]string{true: "yes", false: "no"}[s.Decide(r).Allow]
			if got != row[i+1] {
				t.Errorf("%s by %s: the table says %q, the policies %q", row[0], role, row[i+1], got)
			}
			r.Context.Machine, r.Context.Scopes = true, []string{row[0]}
			if s.Decide(r).Allow {
				token = "yes"
			}
		}
		if want := row[len(row)-1]; token != want {
			t.Errorf("%s by a token: the table says %q, the policies %q", row[0], want, token)
		}
	}
}

// spoilers are the circumstances of the third table.
var spoilers = map[string]func(*Request){
	"own request":                 func(r *Request) { r.Resource.Owner = "Alba" }, // one person in any spelling
	"owner unknown":               func(r *Request) { r.Resource.Owner = "" },
	"in the owner's chain":        func(r *Request) { r.Resource.Chain = []string{"chiara", "alba"} },
	"chain unknown":               func(r *Request) { r.Resource.Chain = nil },
	"same appointing authority":   func(r *Request) { r.Resource.Authority = r.Principal.Authority },
	"owner's authority unknown":   func(r *Request) { r.Resource.Authority = "" },
	"own authority unknown":       func(r *Request) { r.Principal.Authority = "" },
	"no office":                   func(r *Request) { r.Principal.Office = "" },
	"standing unknown":            func(r *Request) { r.Principal.Standing = "" },
	"standing of another word":    func(r *Request) { r.Principal.Standing = "deputy" },
	"asked by an inspector":       func(r *Request) { r.Resource.Inspector = true },
	"of an inspector's office":    func(r *Request) { r.Principal.Inspector = true },
	"acting":                      func(r *Request) { r.Principal.Standing = "acting" },
	"training expired":            func(r *Request) { r.Principal.TrainedUntil = noon },
	"never trained":               func(r *Request) { r.Principal.TrainedUntil = time.Time{} },
	"no purpose":                  func(r *Request) { r.Context.Purpose = "" },
	"class unknown":               func(r *Request) { r.Resource.Selects = "" },
	"class of another word":       func(r *Request) { r.Resource.Selects = "everybody" },
	"protected":                   func(r *Request) { r.Resource.Selects = "protected" },
	"reverse, without":            func(r *Request) { r.Resource.Selects, r.Context.Authorisation = "reverse", "" },
	"reverse, authorisation over": func(r *Request) { r.Resource.Selects, r.Context.Authorisation = "reverse", "expired" },
	"reverse, outside its scope":  func(r *Request) { r.Resource.Selects, r.Context.Authorisation = "reverse", "outside" },
	"person and reverse, without": func(r *Request) { r.Resource.Selects, r.Context.Authorisation = "person+reverse", "" },
	"a person, without": func(r *Request) {
		r.Resource.Selects, r.Context.Authorisation, r.Context.Grant = "person", "", ""
	},
	"a person, all of it over": func(r *Request) {
		r.Resource.Selects, r.Context.Authorisation, r.Context.Grant = "person", "expired", "expired"
	},
	"a person, outside of both": func(r *Request) {
		r.Resource.Selects, r.Context.Authorisation, r.Context.Grant = "person", "outside", "outside"
	},
	"crowd unknown":             func(r *Request) { r.Context.Crowd = "" },
	"crowd of another word":     func(r *Request) { r.Context.Crowd = "dozens" },
	"crowd not counted":         func(r *Request) { r.Context.Crowd = "many" },
	"above 20, without counsel": func(r *Request) { r.Context.Crowd, r.Context.Outside = "counsel", true },
	"above 100, with counsel":   func(r *Request) { r.Context.Crowd, r.Context.Counsel = "outside", true },
	"by a token without scopes": func(r *Request) { r.Context.Machine = true },
	"by a token of other scopes": func(r *Request) {
		r.Context.Machine, r.Context.Scopes = true, []string{"Search", "search.", "", "king"}
	},
	"by a token that has it all": func(r *Request) {
		r.Context.Machine, r.Context.Scopes = true, []string{r.Action}
		if r.Resource.Selects == "nobody" {
			r.Resource.Selects, r.Context.Crowd = "person", "few"
		}
	},
	"founder, offices kept":    func(r *Request) { r.Principal, r.Context.Offices = foundersToo(r), "kept" },
	"founder, offices unknown": func(r *Request) { r.Principal, r.Context.Offices = foundersToo(r), "" },
	"founder with a token":     func(r *Request) { r.Principal, r.Context.Offices, r.Context.Machine = foundersToo(r), "none", true },
	"founder as well":          func(r *Request) { r.Principal, r.Context.Offices = foundersToo(r), "none" },
	"under a hold":             func(r *Request) { r.Resource.Hold = "held" },
	"hold unknown":             func(r *Request) { r.Resource.Hold = "" },
	"operator as well":         func(r *Request) { r.Principal.Roles = append(r.Principal.Roles, "operator") },
	"overseer as well":         func(r *Request) { r.Principal.Roles = append(r.Principal.Roles, "overseer") },
	"privacy officer as well":  func(r *Request) { r.Principal.Roles = append(r.Principal.Roles, "privacy_officer") },
	"collector as well":        func(r *Request) { r.Principal.Roles = append(r.Principal.Roles, "collector") },
	"role unknown":             func(r *Request) { r.Principal.Roles = append(r.Principal.Roles, "king") },
	"person missing":           func(r *Request) { r.Principal.ID = "" },
	"time missing":             func(r *Request) { r.Context.Now = time.Time{} },
	"hold of another word":     func(r *Request) { r.Resource.Hold = "perhaps" },
	"act in another spelling":  func(r *Request) { r.Action = strings.ToUpper(r.Action) },
}

func foundersToo(r *Request) Person {
	p := r.Principal
	p.Roles = append(slices.Clone(p.Roles), "founder")
	return p
}

// TestSpoiled: whatever the first table allows is refused, by the policy that the second
// table names, as soon as one circumstance is spoiled.
func TestSpoiled(t *testing.T) {
	s := load(t)
	all := tables(t)
	rows := all["What spoils it"]
	if len(rows) < 2 {
		t.Fatal("the table is gone")
	}
	tried := 0
	seen := map[string]bool{}
	for _, row := range rows[1:] {
		spoil := spoilers[row[0]]
		if spoil == nil {
			t.Fatalf("%q is no circumstance that the test knows", row[0])
		}
		seen[row[0]] = true
		before := tried
		for _, cell := range all["Acts and roles"][1:] {
			action, selects := cell[0], strings.Trim(cell[1], "-")
			if !concerns(s, row[1], action) {
				continue
			}
			for _, role := range s.Roles() {
				if role == "founder" && row[2] == "training" { // nobody could say yet who is trained
					continue
				}
				r := fine(role, action, selects)
				r.Context.Authorisation, r.Context.Grant = "covers", "covers"
				if !s.Decide(r).Allow {
					continue
				}
				tried++
				spoil(&r)
				d := s.Decide(r)
				if d.Allow || d.Reason == "" || row[2] != "-" && !slices.Contains(d.Policies, row[2]) || row[2] == "-" && len(d.Policies) > 0 {
					t.Errorf("%s, %s by %s: got allow %v by %v (%s), want a deny by %s", row[0], action, role, d.Allow, d.Policies, d.Reason, row[2])
				}
			}
		}
		if tried == before {
			t.Errorf("%s: the row %q reaches no act", row[0], row[1])
		}
	}
	for name := range spoilers {
		if !seen[name] {
			t.Errorf("%q is in no row", name)
		}
	}
	t.Logf("%d rows, %d decisions", len(rows)-1, tried)
}

// concerns reads the second column: a group, an act, or what kind of resource it has.
func concerns(s *Set, column, action string) bool {
	if but, all := strings.CutPrefix(column, "all but "); all || column == "all" {
		return action != but
	}
	for word := range strings.SplitSeq(column, ", ") {
		if s.schema.within(types.NewEntityUID("Action", types.String(action)), word) {
			return true
		}
	}
	return false
}

// TestRoutesAndActs: the third table says of each route of the server and of each act over
// the socket what the code has it judged as, in words of the policies.
func TestRoutesAndActs(t *testing.T) {
	s := load(t)
	read := func(file, shape string, least int) [][]string {
		t.Helper()
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		found := regexp.MustCompile(shape).FindAllStringSubmatch(string(data), -1)
		if len(found) < least {
			t.Fatalf("%s: found %d: this test looks for the wrong shape", file, len(found))
		}
		return found
	}
	const routes, acts = "../web/routes.go", "../../cmd/counterseal/acts.go"
	want := map[string]string{}
	for _, m := range read(acts, `(?m)^\t+"([a-z.]+)": +s\.`, 10) {
		want[m[1]] = m[1]
	}
	for _, m := range read(routes, `"([a-z.]+)": +"([a-z.]+)",`, 2) { // acts that policies call otherwise
		if want[m[1]] == "" {
			t.Errorf("%s has another name in the policies and is no act", m[1])
		}
		want[m[1]] = m[2]
	}
	for _, m := range read(routes, `(?m)^\t+\{"([^"]+)", \w+, (\w+|"[^"]*"), .*\bs\.\w+\},$`, 10) {
		switch act := strings.Trim(m[2], `"`); act {
		case "":
			want[m[1]] = "open"
		case "byName":
			want[m[1]] = "by its act"
		default:
			want[m[1]] = act
		}
	}
	n := len(want)
	rows := tables(t)["Routes and acts"]
	if len(rows) < 2 {
		t.Fatal("the table is gone")
	}
	for _, row := range rows[1:] {
		as, ok := want[row[0]]
		switch {
		case !ok:
			t.Errorf("%q is no route and no act, or there twice", row[0])
		case row[1] != as:
			t.Errorf("%q: the table says that it is judged as %q, the code as %q", row[0], row[1], as)
		case as != "open" && as != "by its act" && !slices.Contains(s.Actions(), as):
			t.Errorf("%q is judged as %q, which the schema does not know", row[0], as)
		}
		delete(want, row[0])
	}
	for missing := range want {
		t.Errorf("%q is in no row", missing)
	}
	t.Logf("%d routes and acts", n)
}
