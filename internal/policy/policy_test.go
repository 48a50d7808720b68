package policy

import (
	"io/fs"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"
)

// TestCases runs the cases beside the policies; each policy decides in one at least.
func TestCases(t *testing.T) {
	s := load(t)
	cases, err := Cases(Default())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		if err := s.Check(c); err != nil {
			t.Error(err)
		}
		c.Allow = !c.Allow
		if s.Check(c) == nil {
			t.Errorf("%s passes with the opposite expectation as well", c.Name)
		}
	}
	if u := s.Untested(cases); len(u) > 0 {
		t.Errorf("no case for %v", u)
	}
	t.Logf("%d cases, %d policies, %d acts, digest %s", len(cases), len(s.Policies()), len(s.Actions()), s.Digest())
}

// files gives the default set as a map that a test can spoil.
func files(t testing.TB) fstest.MapFS {
	t.Helper()
	out := fstest.MapFS{}
	for _, name := range []string{"counterseal.cedarschema", "roles.cedar", "duties.cedar"} {
		data, err := fs.ReadFile(Default(), name)
		if err != nil {
			t.Fatal(err)
		}
		out[name] = &fstest.MapFile{Data: data}
	}
	return out
}

func TestRefusedFiles(t *testing.T) {
	for name, c := range map[string]struct{ file, text, want string }{
		"syntax":                {"x.cedar", "@id(\"a\")\n\npermit(principal, action, resource", "x.cedar:3: "},
		"unknown act":           {"x.cedar", "\n@id(\"a\")\npermit(principal, action == Action::\"read.minds\", resource);", "x.cedar:2: "},
		"unknown role":          {"x.cedar", "@id(\"a\") permit(principal in Role::\"king\", action, resource);", `x.cedar:1: policy "a": unrecognized role "king"`},
		"unknown role inside":   {"x.cedar", "@id(\"a\") permit(principal, action, resource) when { principal in Role::\"king\" };", `unrecognized role "king"`},
		"unknown type":          {"x.cedar", "@id(\"a\") permit(principal is Robot, action, resource);", "x.cedar:1: "},
		"misspelt attribute":    {"x.cedar", "@id(\"a\") permit(principal, action, resource) when { principal has ofice && principal.ofice == \"a\" };", `x.cedar:1: policy "a": no principal has an attribute "ofice"`},
		"attribute of another":  {"x.cedar", "@id(\"a\") @reason(\"r\") forbid(principal, action, resource) when { resource has office };", `no resource has an attribute "office"`},
		"unguarded attribute":   {"x.cedar", "@id(\"a\") permit(principal, action, resource) when { principal.office == \"a\" };", "optional attribute"},
		"unguarded forbid":      {"x.cedar", "@id(\"a\") @reason(\"r\") forbid(principal, action == Action::\"retention.run\", resource) when { resource.held };", "optional attribute"},
		"other type":            {"x.cedar", "@id(\"a\") permit(principal, action, resource) when { context.now == \"noon\" };", "x.cedar:1: "},
		"no id":                 {"x.cedar", "permit(principal, action, resource);", "x.cedar:1: a policy needs an id"},
		"id twice":              {"x.cedar", "@id(\"purpose\") permit(principal, action, resource);", `x.cedar:1: the id "purpose" is used at duties.cedar:`},
		"no reason":             {"x.cedar", "@id(\"a\") forbid(principal, action, resource);", "needs a reason"},
		"unknown annotation":    {"x.cedar", "@id(\"a\") @disabled(\"true\") permit(principal, action, resource);", "x.cedar:1: the annotation @disabled is not known"},
		"nested":                {"x.cedar", "@id(\"a\") permit(principal, action, resource) when {\n" + strings.Repeat("(", 40) + "true", "x.cedar:2: brackets are nested"},
		"large":                 {"x.cedar", strings.Repeat("// all work\n", 10_000), "larger than"},
		"two schemas":           {"x.cedarschema", "entity A;", "there is a schema already"},
		"schema syntax":         {"counterseal.cedarschema", "entity Role enum [\"a\"];\n\nentity ;", "counterseal.cedarschema:3: "},
		"schema of other types": {"counterseal.cedarschema", "entity Role enum [\"a\"];\nentity Person in [Role] { office: Long };\nentity House;\naction \"status\" appliesTo { principal: Person, resource: House, context: { now: datetime } };", "counterseal.cedarschema:4: "},
	} {
		dir := files(t)
		dir[c.file] = &fstest.MapFile{Data: []byte(c.text)}
		_, err := Load(dir)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q in it", name, err, c.want)
		}
	}
}

// TestEvaluationErrorDenies: a policy that fails in evaluation is skipped by the library,
// so that everything that is permitted otherwise is refused here.
func TestEvaluationErrorDenies(t *testing.T) {
	dir := files(t)
	dir["x.cedar"] = &fstest.MapFile{Data: []byte(`@id("overflow") @reason("never shown") forbid(principal, action == Action::"status", resource) when { 9223372036854775807 + 1 == 0 };`)}
	s, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	d := s.Decide(fine("analyst", "status", ""))
	if d.Allow || !slices.Equal(d.Policies, []string{"overflow"}) || !strings.Contains(d.Reason, "could not be evaluated") {
		t.Errorf("got %+v", d)
	}
	if d := s.Decide(fine("analyst", "sources", "")); !d.Allow {
		t.Errorf("another act: got %+v", d)
	}
}

// TestMissingAttribute: without an attribute that the schema has, something that is
// allowed with it is refused. One that opens is missing in its zero value.
func TestMissingAttribute(t *testing.T) {
	s := load(t)
	about := func(selects string, c func(*Context)) Request {
		r := fine("responder", "search", selects)
		c(&r.Context)
		return r
	}
	covers := func(c *Context) { c.Authorisation = "covers" }
	inside := fine("investigator", "authorise", "") // an inspector decides on what another asked for
	inside.Resource.Authority, inside.Resource.Inspector, inside.Principal.Inspector = inside.Principal.Authority, true, true
	for of, attributes := range map[string]map[string]struct {
		fine Request
		lose func(*Request)
	}{
		"principal": {
			"office":        {fine("overseer", "authorise", ""), func(r *Request) { r.Principal.Office = "" }},
			"authority":     {fine("overseer", "authorise", ""), func(r *Request) { r.Principal.Authority = "" }},
			"standing":      {fine("overseer", "authorise", ""), func(r *Request) { r.Principal.Standing = "" }},
			"trained_until": {fine("analyst", "search", "nobody"), func(r *Request) { r.Principal.TrainedUntil = time.Time{} }},
			"inspector":     {inside, func(r *Request) { r.Principal.Inspector = false }},
		},
		"resource": {
			"selects":   {fine("analyst", "search", "nobody"), func(r *Request) { r.Resource.Selects = "" }},
			"owner":     {fine("overseer", "authorise", ""), func(r *Request) { r.Resource.Owner = "" }},
			"chain":     {fine("overseer", "authorise", ""), func(r *Request) { r.Resource.Chain = nil }},
			"authority": {fine("overseer", "authorise", ""), func(r *Request) { r.Resource.Authority = "" }},
			"inspector": {inside, func(r *Request) { r.Resource.Inspector = false }},
			"held":      {fine("operator", "retention.run", ""), func(r *Request) { r.Resource.Hold = "" }},
		},
		"context": {
			"now":           {fine("analyst", "status", ""), func(r *Request) { r.Context.Now = time.Time{} }},
			"offices":       {fine("founder", "status", ""), func(r *Request) { r.Context.Offices = "" }},
			"purpose":       {fine("analyst", "search", "nobody"), func(r *Request) { r.Context.Purpose = "" }},
			"crowd":         {fine("analyst", "search", "nobody"), func(r *Request) { r.Context.Crowd = "" }},
			"authorisation": {about("person", covers), func(r *Request) { r.Context.Authorisation = "" }},
			"grant":         {about("person", func(c *Context) { c.Grant = "covers" }), func(r *Request) { r.Context.Grant = "" }},
			"finding":       {about("reverse", func(c *Context) { c.Finding = true }), func(r *Request) { r.Context.Finding = false }},
			"counsel": {about("person", func(c *Context) { c.Authorisation, c.Crowd, c.Counsel = "covers", "counsel", true }),
				func(r *Request) { r.Context.Counsel = false }},
			"outside": {about("person", func(c *Context) { c.Authorisation, c.Crowd, c.Outside = "covers", "outside", true }),
				func(r *Request) { r.Context.Outside = false }},
			"scope": {about("nobody", func(c *Context) { c.Machine, c.Scopes = true, []string{"search"} }), func(r *Request) { r.Context.Scopes = nil }},
			// A request that has scopes is a machine's, whatever else it says.
			"machine": {about("person", covers), func(r *Request) { r.Context.Machine, r.Context.Scopes = false, []string{"search"} }},
		},
	} {
		for name := range s.schema.attributes[of] {
			c, ok := attributes[name]
			if !ok {
				t.Errorf("%s.%s is in the schema and in no case of this test", of, name)
				continue
			}
			if d := s.Decide(c.fine); !d.Allow {
				t.Errorf("with %s.%s: got %+v", of, name, d)
			}
			c.lose(&c.fine)
			if d := s.Decide(c.fine); d.Allow || d.Reason == "" {
				t.Errorf("without %s.%s: got %+v", of, name, d)
			}
		}
	}
}

func TestDigest(t *testing.T) {
	seen := map[string]string{}
	one, err := Load(files(t))
	if err != nil {
		t.Fatal(err)
	}
	if one.Digest() != load(t).Digest() || len(one.Digest()) != 64 {
		t.Errorf("two loads of one set have two digests, or none")
	}
	seen[one.Digest()] = "unchanged"
	for name := range maps.Keys(files(t)) {
		dir := files(t)
		dir[name].Data = append(dir[name].Data, "// another comment\n"...)
		s, err := Load(dir)
		if err != nil {
			t.Fatal(err)
		}
		if other, ok := seen[s.Digest()]; ok {
			t.Errorf("%s changed has the digest of %s", name, other)
		}
		seen[s.Digest()] = name
	}
}

func TestDeterministic(t *testing.T) {
	s := load(t)
	r := fine("operator", "search", "")
	r.Context.Purpose, r.Principal.TrainedUntil = "", noon
	want := []string{"operators-read-no-events", "protected", "purpose", "reverse-rows", "training"}
	for range 50 {
		if d := s.Decide(r); d.Allow || !slices.Equal(d.Policies, want) || d.Reason != "operators do not read events, nor do they decide on requests, whatever else they are" {
			t.Fatalf("got %+v", d)
		}
	}
}

func TestCasesRefused(t *testing.T) {
	head := "case: a\nprincipal: id=a\naction: status\nresource:\ncontext: now=2026-11-25T12:00:00Z\n"
	for text, want := range map[string]string{
		head + "expect: maybe\n":                 "t.txt:6: expected allow or deny",
		head:                                     `t.txt:1: the case ends without "expect:"`,
		"case: a\naction: status\n":              `t.txt:2: expected a line that begins with "principal:"`,
		"case: a\nprincipal: id=a id=b":          "t.txt:2: id is there twice",
		"case: a\nprincipal: ide=b":              "t.txt:2: a principal has no ide",
		"case: a\nprincipal: trained_until=noon": "t.txt:2: trained_until is not a time",
		head[:len(head)-1] + " counsel=yes\n":    "t.txt:5: counsel is not true or false",
		"case:\n":                                "t.txt:1: a case needs a name",
	} {
		if _, err := ParseCases("t.txt", []byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", text, err, want)
		}
	}
}

func FuzzLoad(f *testing.F) {
	for _, file := range files(f) {
		f.Add(string(file.Data))
	}
	f.Add(`@id("a") permit(principal, action, resource) when { if true then !!!!principal in Role::"king" else [1].contains(ip("1.2.3.4")) };`)
	for _, deep := range []string{strings.Repeat("!", 3000), strings.Repeat("1 == 1 && ", 3000), strings.Repeat("if true then ", 500)} {
		f.Add(`@id("a") permit(principal, action, resource) when { ` + deep + "true };")
	}
	f.Fuzz(func(t *testing.T, text string) {
		base := files(t)
		for _, name := range []string{"x.cedar", "counterseal.cedarschema"} {
			dir := maps.Clone(base)
			dir[name] = &fstest.MapFile{Data: []byte(text)}
			s, err := Load(dir)
			if err != nil {
				if !strings.Contains(err.Error(), ".cedar") {
					t.Errorf("the error names no file: %v", err)
				}
				continue
			}
			// Whatever else a set says, what duties.cedar forbids stays forbidden.
			for _, spoiled := range []string{"own request", "protected", "no purpose", "under a hold"} {
				for _, action := range []string{"search", "authorise", "retention.run", "ledger.alter"} {
					r := fine("investigator", action, "nobody")
					spoilers[spoiled](&r)
					forbidden := action == "ledger.alter" || spoiled == "own request" && action == "authorise" ||
						spoiled == "under a hold" && action == "retention.run" || action == "search" && (spoiled == "protected" || spoiled == "no purpose")
					if d := s.Decide(r); forbidden && d.Allow {
						t.Errorf("%s, %s: allowed by %v", spoiled, action, d.Policies)
					}
				}
			}
		}
	})
}

func FuzzCases(f *testing.F) {
	err := fs.WalkDir(Default(), "tests", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := fs.ReadFile(Default(), path)
		f.Add(data)
		return err
	})
	if err != nil {
		f.Fatal(err)
	}
	s := load(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		cases, err := ParseCases("t.txt", data)
		if err != nil && !strings.HasPrefix(err.Error(), "t.txt") {
			t.Errorf("the error names no line: %v", err)
		}
		for _, c := range cases {
			if d := s.Decide(c.Request); d.Allow && len(d.Policies) == 0 || d.Reason == "" {
				t.Errorf("%+v", d)
			}
		}
	})
}

func BenchmarkDecide(b *testing.B) {
	s := load(b)
	for _, c := range []struct{ name, role, action, selects string }{
		{"search", "analyst", "search", "nobody"}, {"approve", "overseer", "unlock.approve", ""}, {"refused", "operator", "search", "reverse"},
	} {
		r := fine(c.role, c.action, c.selects)
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				s.Decide(r)
			}
		})
	}
}
