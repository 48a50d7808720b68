package access_test

import (
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// surfaces are the forms in which something can be asked, and the rows of the table
// that show each.
var surfaces = map[string][]string{
	"query": {"search"}, "statistic": {"statistics"}, "values": {"values"}, "rule": {"rule", "published"}, "list": {"list"}, "indicator": {"indicator"},
	"suppression": {"suppression"}, "saved search": {"saved"}, "hold": {"hold", "hold-tokens"}, "peer group": {"peers"}, "directory change": {"directory"}, "export": {"export"},
}

// classes are what each of them can select.
var classes = []string{"nobody", "token", "alias person", "alias mail", "alias device", "alias address", "name", "mail", "sid", "phone", "device", "machine", "address", "home", "cloud", "session",
	"reverse", "person+reverse", "protected"}

// impossible are the cells that a form cannot express, with the reason.
var impossible = map[string]string{
	"suppression reverse":             "a suppression lists nothing: it keeps findings from being shown",
	"suppression person+reverse":      "a suppression lists nothing",
	"hold reverse":                    "a hold lists nothing: it keeps evidence",
	"hold person+reverse":             "a hold lists nothing",
	"directory change reverse":        "a directory change lists nothing: it says whom a name means",
	"directory change person+reverse": "a directory change lists nothing",
	"directory change device":         "a directory change has no fields: a host without a shape of its own counts as a name",
	"directory change address":        "a directory change has no fields: an address counts as a name",
	"directory change session":        "a directory names people and devices, and no sessions; what is written there counts as a name",
}

var aliasShape = regexp.MustCompile(`(?i)\b(person|mail|device|address)-[a-z2-79]{6}`)

// cells gives the classes that a row shows.
func (r row) cells() []string {
	switch {
	case strings.HasPrefix(r.mark, "protected"):
		return []string{"protected"}
	case r.class != "person":
		return []string{r.class}
	}
	m := aliasShape.FindStringSubmatch(r.question)
	if m != nil && r.who == "token" {
		return []string{"alias " + strings.ToLower(m[1])}
	}
	if r.who == "token" && !regexp.MustCompile(`(?i)\{[pmda](\*\d+)?\}|[pmda]\d+_`).MatchString(r.question) {
		return nil
	}
	return strings.Split(r.who, ",")
}

// TestSurfaces: the table, which TestTable holds Selects to, shows every form with
// every class; what is missing is impossible and says why.
func TestSurfaces(t *testing.T) {
	count := map[string]int{}
	rows := table(t)
	for _, r := range rows {
		for s, forms := range surfaces {
			if slices.Contains(forms, r.form) {
				for _, c := range r.cells() {
					count[s+" "+c]++
				}
			}
		}
	}
	shown := 0
	for s := range surfaces {
		for _, c := range classes {
			cell := s + " " + c
			why, out := impossible[cell]
			switch n := count[cell]; {
			case n == 0 && !out:
				t.Errorf("no row: %s", cell)
			case n > 0 && out:
				t.Errorf("%s: there are %d rows, and it is said to be impossible: %s", cell, n, why)
			case n > 0:
				shown++
			}
		}
	}
	total := len(surfaces) * len(classes)
	if shown+len(impossible) != total {
		t.Errorf("%d cells are shown and %d impossible, of %d", shown, len(impossible), total)
	}
	t.Logf("%d rows; %d forms times %d classes are %d cells: %d shown, %d impossible", len(rows), len(surfaces), len(classes), total, shown, len(impossible))
	page, err := os.ReadFile("../../docs/selects.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		strconv.Itoa(len(rows)) + " questions",
		strconv.Itoa(len(surfaces)) + " forms times " + strconv.Itoa(len(classes)) + " classes are " + strconv.Itoa(total) + " cells",
		strconv.Itoa(shown) + " are shown, " + strconv.Itoa(len(impossible)),
	} {
		if !strings.Contains(strings.Join(strings.Fields(string(page)), " "), want) {
			t.Errorf("the page does not say %q", want)
		}
	}
}
