package policy

import (
	"slices"
	"strings"
	"testing"
)

const agency = `form: offices/v1
offices:
  - {id: director, authority: council, holder: dora, standing: confirmed, since: 2024-01-01, roles: [compliance]}
  - {id: security, authority: director, under: director, holder: sven, standing: confirmed, since: 2025-02-01, roles: [responder], training_until: 2027-01-31}
  - {id: soc, authority: security, under: security, holder: ada, standing: acting, since: 2026-03-01, roles: [analyst], training_until: 2027-01-31}
  - {id: internal-affairs, authority: director, under: director, holder: ines, standing: confirmed, since: 2026-03-01, roles: [investigator]}
  - {id: privacy, authority: minister, holder: pia, standing: confirmed, since: 2023-05-01, roles: [privacy_officer]}
  - {id: inspector, authority: parliament, holder: olga, standing: confirmed, since: 2023-05-01, roles: [overseer]}
  - {id: press, authority: director, under: director, roles: [compliance]}
`

func TestOffices(t *testing.T) {
	s := load(t)
	o, err := ParseOffices([]byte(agency), s.Roles())
	if err != nil {
		t.Fatal(err)
	}
	for person, want := range map[string][]string{"ada": {"dora", "sven"}, "Ada": {"dora", "sven"}, "sven": {"ada", "dora"}, "dora": {"ada", "ines", "sven"}, "olga": {}} {
		if got, ok := o.Chain(person); !ok || !slices.Equal(got, want) {
			t.Errorf("chain of %s: got %v %v, want %v", person, got, ok, want)
		}
	}
	for _, nobody := range []string{"", "zoe"} {
		if got, ok := o.Chain(nobody); ok || got != nil {
			t.Errorf("the chain of %q is known: %v", nobody, got)
		}
	}
	p, ok := o.Person("soc")
	if !ok || p.ID != "ada" || p.Authority != "security" || p.Standing != "acting" || !slices.Equal(p.Roles, []string{"analyst"}) || p.TrainedUntil.Year() != 2027 {
		t.Errorf("got %+v", p)
	}
	if _, ok := o.Person("press"); ok {
		t.Error("a vacant office has a holder")
	}

	// A request of ada's, as the record of offices tells it.
	chain, _ := o.Chain("ada")
	r := Request{Action: "authorise", Resource: Resource{Owner: "ada", Chain: chain, Authority: "security"}, Context: Context{Now: noon}}
	for office, allow := range map[string]bool{"inspector": true, "privacy": true, "security": false, "director": false, "soc": false} {
		r.Principal, _ = o.Person(office)
		if d := s.Decide(r); d.Allow != allow {
			t.Errorf("%s decides on ada's request: got %+v", office, d)
		}
	}
}

func TestOfficesRefused(t *testing.T) {
	roles := load(t).Roles()
	for name, c := range map[string]struct{ old, new, want string }{
		"another form":         {"offices/v1", "offices/v2", "the form is not offices/v1"},
		"unknown key":          {"{id: soc,", "{id: soc, salary: 1,", "line 5"},
		"id twice":             {"{id: soc,", "{id: security,", "twice"},
		"unknown role":         {"[analyst]", "[king]", "role 1 is not known"},
		"no role":              {"[analyst]", "[]", "has a role"},
		"no authority":         {"authority: parliament, ", "", "small letters"},
		"unknown office above": {"authority: security, under: security", "authority: security, under: nowhere", "not there"},
		"circle":               {"{id: director, authority: council,", "{id: director, authority: council, under: soc,", "circle"},
		"under itself":         {"{id: director, authority: council,", "{id: director, authority: council, under: director,", "circle"},
		"same authority":       {"authority: parliament", "authority: minister", "privacy and inspector decide together and have the same appointing authority"},
		"one person":           {"holder: olga", "holder: pia", "held by one person"},
		"one under the other":  {"authority: parliament,", "authority: parliament, under: privacy,", "one is under the other"},
		"standing":             {"standing: acting", "standing: deputy", "confirmed or acting"},
		"vacant with standing": {"under: director, roles", "under: director, standing: acting, roles", "vacant"},
		"since":                {"since: 2026-03-01, roles: [analyst]", "since: March, roles: [analyst]", "since is not a date"},
		"training":             {"training_until: 2027-01-31}\n  - {id: soc", "training_until: soon}\n  - {id: soc", "training_until is not a date"},
		"two spellings":        {"holder: olga", "holder: PIA", "held by one person"},
		"a holder with spaces": {"holder: ada", "holder: ada lovelace", "the holder is the id of an account"},
		"letters alike":        {"holder: ada", "holder: аda", "the holder is the id of an account"},
		"no number":            {"holder: ada", "holder: os-root", "after os- comes the number"},
		"two forms of one":     {"holder: ada", "holder: os-007", "after os- comes the number"},
		"a founder":            {"[analyst]", "[analyst, founder]", "the founder holds no office"},
		"profile":              {"offices/v1\n", "offices/v1\nprofile: large\n", "profile"},
		"small, none outside":  {"offices/v1\n", "offices/v1\nprofile: small\n", "outside of the organisation"},
		"alias":                {"{id: soc,", "&a {id: soc,", "anchors"},
		"two documents":        {"form: offices/v1\n", "form: offices/v1\n---\nform: offices/v1\n", "offices"},
	} {
		text := strings.Replace(agency, c.old, c.new, 1)
		if text == agency {
			t.Fatalf("%s changes nothing", name)
		}
		_, err := ParseOffices([]byte(text), roles)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q in it", name, err, c.want)
			continue
		}
		for _, holder := range []string{"olga", "ada", "ines"} {
			if strings.Contains(strings.ToLower(err.Error()), holder) {
				t.Errorf("%s: the error names a holder: %v", name, err)
			}
		}
	}
}

// inspectors are the two offices of an inspector.
const inspectors = `  - {id: inspection, authority: court, outside: true, inspector: true, holder: nils, standing: confirmed, since: 2023-05-01, roles: [investigator], training_until: 2027-01-31}
  - {id: inspection-two, authority: court, outside: true, inspector: true, holder: nora, standing: confirmed, since: 2023-05-01, roles: [investigator], training_until: 2027-01-31}
`

func TestInspectorsOffice(t *testing.T) {
	roles := load(t).Roles()
	all := agency + inspectors
	o, err := ParseOffices([]byte(all), roles)
	if err != nil {
		t.Fatal(err)
	}
	if p, ok := o.Person("inspection"); !ok || !p.Inspector {
		t.Errorf("got %+v", p)
	}
	if p, _ := o.Person("internal-affairs"); p.Inspector {
		t.Error("an investigator of the organisation is an inspector")
	}
	// The overseer may be of the same authority: nobody looks into the watch.
	if _, err := ParseOffices([]byte(strings.ReplaceAll(all, "authority: parliament", "authority: court")), roles); err != nil {
		t.Error(err)
	}
	for name, c := range map[string]struct{ old, new, want string }{
		"inside the organisation":          {"outside: true, inspector: true, holder: nora", "inspector: true, holder: nora", "inspection-two: an inspector's office is outside"},
		"another role":                     {"holder: nora, standing: confirmed, since: 2023-05-01, roles: [investigator]", "holder: nora, standing: confirmed, since: 2023-05-01, roles: [investigator, analyst]", "no other"},
		"one person":                       {"holder: nora", "holder: NILS", "needs two people"},
		"one is vacant":                    {"holder: nora, standing: confirmed, since: 2023-05-01, roles: [investigator], training_until: 2027-01-31", "roles: [investigator]", "needs two people"},
		"two authorities":                  {"{id: inspection-two, authority: court", "{id: inspection-two, authority: senate", "needs two people"},
		"appointed as the SOC is":          {"{id: soc, authority: security", "{id: soc, authority: court", "inspection and soc have the same appointing authority"},
		"appointed as the privacy officer": {"authority: minister", "authority: court", "inspection and privacy have the same appointing authority"},
		"in an office of the organisation": {"holder: ines", "holder: nora", "held by one person"},
		"the overseer as well":             {"holder: olga", "holder: nora", "held by one person"},
		"under the director":               {"{id: inspection-two, authority: court,", "{id: inspection-two, authority: court, under: director,", "one is under the other"},
		"over the press office":            {"{id: press, authority: director, under: director", "{id: press, authority: director, under: inspection", "one is under the other"},
	} {
		text := strings.Replace(all, c.old, c.new, 1)
		if text == all {
			t.Fatalf("%s changes nothing", name)
		}
		if _, err := ParseOffices([]byte(text), roles); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q in it", name, err, c.want)
		}
	}
}

func TestHeld(t *testing.T) {
	o, err := ParseOffices([]byte(strings.ReplaceAll(agency, "holder: ada", "holder: u_ABC123DEF")), load(t).Roles())
	if err != nil {
		t.Fatal(err)
	}
	for _, spelling := range []string{"u_ABC123DEF", "u_abc123def"} {
		if got := o.Held(spelling); !slices.Equal(got, []string{"soc"}) {
			t.Errorf("offices of %s: got %v", spelling, got)
		}
	}
	if p, ok := o.Person("soc"); !ok || p.ID != "u_ABC123DEF" {
		t.Errorf("got %+v", p)
	}
	if chain, _ := o.Chain("sven"); !slices.Contains(chain, "u_ABC123DEF") {
		t.Errorf("got %v", chain)
	}
	if got := o.Held(""); got != nil {
		t.Errorf("nobody holds %v", got)
	}
}

func TestWarnings(t *testing.T) {
	roles := load(t).Roles()
	fine := strings.Replace(agency, "holder: ines, standing: confirmed, since: 2026-03-01, roles: [investigator]", "holder: ines, standing: confirmed, since: 2026-03-01, roles: [investigator], training_until: 2027-01-31", 1)
	fine = strings.Replace(fine, "authority: parliament, holder", "authority: parliament, outside: true, holder", 1)
	warnings := func(text string) []string {
		t.Helper()
		o, err := ParseOffices([]byte(text), roles)
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, w := range o.Warnings(noon) {
			out = append(out, w.String())
			for _, holder := range []string{"olga", "ada", "ines", "pia"} {
				if strings.Contains(w.String(), holder) {
					t.Errorf("a warning names a holder: %s", w)
				}
			}
		}
		return out
	}
	if got := warnings(fine); len(got) > 0 {
		t.Fatalf("a sound record: got %q", got)
	}
	if got := warnings(fine + inspectors); len(got) > 0 {
		t.Fatalf("a sound record with inspectors: got %q", got)
	}
	fine += inspectors
	for name, c := range map[string]struct{ old, new, want string }{
		"an inspector above": {"{id: inspection-two, authority: court,", "{id: inspection-two, authority: court, under: inspection,", "inspection: nobody can decide on what it asks"},
		"vacant":             {", holder: olga, standing: confirmed, since: 2023-05-01", "", "nobody is overseer"},
		"only acting":        {"holder: pia, standing: confirmed", "holder: pia, standing: acting", "who is privacy officer is only acting"},
		"nobody outside":     {"parliament, outside: true, ", "parliament, ", "no office outside"},
		"ends in 30 days":    {"roles: [analyst], training_until: 2027-01-31", "roles: [analyst], training_until: 2026-12-25", "soc: its training ends on 2026-12-25"},
		"is over":            {"roles: [analyst], training_until: 2027-01-31", "roles: [analyst], training_until: 2026-11-25", "soc: its training is over"},
		"never trained":      {"roles: [analyst], training_until: 2027-01-31", "roles: [analyst]", "soc: reads events and has no training"},
		"user of machine":    {"holder: ada", "holder: os-1000", "soc: is held by a user of the machine"},
		"two offices":        {"holder: ada", "holder: sven", "security: its holder has 2 offices"},
		"operator as well":   {"[analyst]", "[analyst, operator]", "soc: its holder is operator as well"},
		"nobody decides":     {"authority: security, under: security", "authority: minister, under: inspector", "soc: nobody can decide on what it asks"},
	} {
		text := strings.Replace(fine, c.old, c.new, 1)
		if text == fine {
			t.Fatalf("%s changes nothing", name)
		}
		if got := warnings(text); !slices.ContainsFunc(got, func(w string) bool { return strings.HasPrefix(w, c.want) }) {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
}

// TestSmallTeam: five people, the second deciding office outside.
func TestSmallTeam(t *testing.T) {
	s := load(t)
	o, err := ParseOffices([]byte(`form: offices/v1
profile: small
offices:
  - {id: lead, authority: board, holder: lea, standing: confirmed, since: 2024-01-01, roles: [compliance]}
  - {id: defence, authority: lead, under: lead, holder: rui, standing: confirmed, since: 2024-01-01, roles: [analyst, responder], training_until: 2027-01-31}
  - {id: hr, authority: lead, under: lead, holder: ines, standing: confirmed, since: 2024-01-01, roles: [investigator], training_until: 2027-01-31}
  - {id: machines, authority: lead, under: lead, holder: otto, standing: confirmed, since: 2024-01-01, roles: [operator]}
  - {id: works-council, authority: staff, holder: wanda, standing: confirmed, since: 2024-01-01, roles: [overseer]}
  - {id: dpo, authority: firm, outside: true, holder: pia@law.example, standing: confirmed, since: 2024-01-01, roles: [privacy_officer]}
`), s.Roles())
	if err != nil {
		t.Fatal(err)
	}
	chain, _ := o.Chain("ines")
	n := 0
	for _, f := range o.Offices {
		p, _ := o.Person(f.ID)
		if s.Decide(Request{Principal: p, Action: "unlock.approve", Resource: Resource{Owner: "ines", Chain: chain, Authority: "lead"}, Context: Context{Now: noon}}).Allow {
			n++
		}
	}
	if n != 2 {
		t.Errorf("%d offices can decide on an unlocking, want the two", n)
	}
}

func FuzzOffices(f *testing.F) {
	f.Add([]byte(agency))
	f.Add([]byte("form: offices/v1\nprofile: small\noffices: [{id: a, authority: b, roles: [analyst]}]"))
	f.Add([]byte("form: [[[[{{{{"))
	roles := load(f).Roles()
	f.Fuzz(func(t *testing.T, data []byte) {
		o, err := ParseOffices(data, roles)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "offices: ") {
				t.Errorf("got %v", err)
			}
			return
		}
		for _, a := range o.Offices {
			if slices.Contains(o.above(a.ID), a.ID) {
				t.Errorf("%s is above itself", a.ID)
			}
			if chain, ok := o.Chain(a.Holder); ok && slices.ContainsFunc(chain, func(p string) bool { return strings.EqualFold(p, a.Holder) }) {
				t.Errorf("the holder of %s is in their own chain", a.ID)
			}
			for _, b := range o.Offices {
				if a.ID != b.ID && slices.Contains(a.Roles, "overseer") && slices.Contains(b.Roles, "privacy_officer") && a.Authority == b.Authority {
					t.Errorf("%s and %s have one authority", a.ID, b.ID)
				}
			}
		}
	})
}
