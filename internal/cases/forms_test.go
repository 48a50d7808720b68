package cases

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/counterseal/counterseal/internal/approval"
)

// forms are the payloads that there are, empty.
func forms() []form {
	return []form{&requestForm{}, &decisionForm{}, &lookForm{}, &reviewForm{}, &inquiryForm{}, &answerForm{}, &reportForm{}, &rulesForm{}, &namesForm{}}
}

// samples are payloads as a house writes them.
func samples(t testing.TB) [][]byte {
	h := incident(t)
	a := draft(person(1), "srv-1")
	a.Readers, a.Scope.Sources = []string{"ruth"}, []string{"fw-1"}
	h.authorised("ines", a, "olga")
	h.ask("rita", "C-7", about(person(1)))
	h.must(h.Review(t.Context(), h.as("olga"), h.glass("remo", "C-9", person(2)), Justified))
	h.must(h.Report(t.Context(), h.as("anna"), "", "protected", "url:union"))
	id, err := h.Receive(t.Context(), h.as("pia"), Inquiry{Case: "C-7", From: "a court", Reference: "12 Js 1", Text: "what there is", Due: noon.AddDate(0, 0, 9)})
	h.must(err)
	h.must(h.Answer(t.Context(), h.as("pia"), id, Answered, "here"))
	h.must(h.Answered(t.Context(), h.as("ines"), "C-7", questionID, [][]string{{inEpoch(1, 1), inEpoch(1, 2)}, {inEpoch(2, 1)}}))
	var out [][]byte
	for _, b := range h.s.payloads {
		out = append(out, b)
	}
	return out
}

// read gives how many forms take b.
func read(t testing.TB, b []byte) (n int) {
	for _, v := range forms() {
		if parse(b, v) != nil {
			continue
		}
		n++
		if again, err := approval.Canonical(v); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("accepted what is written otherwise: %q", b)
		}
	}
	return n
}

// TestPayloadsAreStrict: each payload is read by one form, and by none once it is changed
// anywhere in its shape.
func TestPayloadsAreStrict(t *testing.T) {
	all := samples(t)
	if len(all) != 10 {
		t.Fatalf("%d payloads", len(all))
	}
	for _, b := range all {
		if n := read(t, b); n != 1 {
			t.Errorf("%d forms read %s", n, b)
		}
		for name, bad := range map[string][]byte{
			"a space":          append([]byte(" "), b...),
			"trailing bytes":   append(bytes.Clone(b), '}'),
			"an unknown name":  append([]byte(`{"a":1,`), b[1:]...),
			"a name missing":   bytes.Replace(b, []byte(`"form":`), []byte(`"farm":`), 1),
			"another version":  bytes.Replace(b, []byte(`/v1"`), []byte(`/v2"`), 1),
			"another case":     bytes.Replace(b, []byte(`"form":`), []byte(`"Form":`), 1),
			"no UUID":          bytes.Replace(b, []byte(`"id":"01`), []byte(`"id":"0x`), 1),
			"too long":         append(bytes.Clone(b), bytes.Repeat([]byte(" "), maxRules)...),
			"half of it":       b[:len(b)/2],
			"an invisible one": bytes.Replace(b, []byte(`/v1"`), []byte("/v1\u202e\""), 1),
		} {
			if n := read(t, bad); n != 0 {
				t.Errorf("%s: %d forms read %.200s", name, n, bad)
			}
		}
	}
}

// TestBoundsOfForms changes one member of a request.
func TestBoundsOfForms(t *testing.T) {
	fine := func() *requestForm {
		w := owner{Authorities: []string{"director"}, Chain: []string{}, Person: "ines"}
		return &requestForm{Basis: "b", Case: "C-1", Ends: "2026-12-01T00:00:00Z", Form: requestName, ID: "018f0000-0000-7000-8000-000000000000", Owner: w, Predicate: "p",
			Readers: []owner{}, Scope: scopeForm{From: "2026-11-01T00:00:00Z", Sources: []string{}, Subjects: []string{"s"}, To: "2026-11-02T00:00:00Z"}}
	}
	if err := fine().check(); err != nil {
		t.Fatal(err)
	}
	long := func(n int) []string {
		out := make([]string, n)
		for i := range out {
			out[i] = fmt.Sprintf("s%05d", i)
		}
		return out
	}
	for name, change := range map[string]func(r *requestForm){
		"null subjects":       func(r *requestForm) { r.Scope.Subjects = nil },
		"null readers":        func(r *requestForm) { r.Readers = nil },
		"null chain":          func(r *requestForm) { r.Owner.Chain = nil },
		"no authority":        func(r *requestForm) { r.Owner.Authorities = []string{} },
		"unsorted":            func(r *requestForm) { r.Scope.Subjects = []string{"b", "a"} },
		"twice":               func(r *requestForm) { r.Scope.Subjects = []string{"a", "a"} },
		"large letters":       func(r *requestForm) { r.Scope.Subjects = []string{"Host"} },
		"long subject":        func(r *requestForm) { r.Scope.Subjects = []string{strings.Repeat("s", 257)} },
		"too many subjects":   func(r *requestForm) { r.Scope.Subjects = long(maxSubjects + 1) },
		"too many sources":    func(r *requestForm) { r.Scope.Sources = long(maxSources + 1) },
		"a source with space": func(r *requestForm) { r.Scope.Sources = []string{"a b"} },
		"reader is owner":     func(r *requestForm) { r.Readers = []owner{r.Owner} },
		"a time with offset":  func(r *requestForm) { r.Ends = "2026-12-01T00:00:00+01:00" },
		"a time that rolls":   func(r *requestForm) { r.Ends = "2026-11-31T00:00:00Z" },
		"to before from":      func(r *requestForm) { r.Scope.To = r.Scope.From },
		"person in capitals":  func(r *requestForm) { r.Owner.Person = "Ines" },
		"person of no bytes":  func(r *requestForm) { r.Owner.Person = "" },
		"long case":           func(r *requestForm) { r.Case = strings.Repeat("1", maxCode+1) },
		"basis with space":    func(r *requestForm) { r.Basis = "because I say so" },
	} {
		r := fine()
		change(r)
		if r.check() == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func FuzzPayload(f *testing.F) {
	seeds := samples(f)
	if len(seeds) == 0 {
		f.Fatal("no seeds")
	}
	for _, b := range seeds {
		f.Add(b)
	}
	f.Add([]byte(`{}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if n := read(t, b); n > 1 {
			t.Fatalf("%d forms read one payload", n)
		}
		for _, v := range forms() {
			if err := parse(b, v); err != nil && len(b) > 40 && strings.Contains(err.Error(), string(b[20:40])) {
				t.Fatalf("an error quotes its input: %v", err)
			}
		}
	})
}

var errOther = errors.New("the disk")

// TestOpenFails: a payload that cannot be read for a reason that may pass is no Book.
func TestOpenFails(t *testing.T) {
	h := incident(t)
	h.authorised("ines", draft(person(1)), "olga")
	o := h.o
	o.Statements = failing{h.s}
	if _, err := Open(t.Context(), o); !errors.Is(err, errOther) {
		t.Fatalf("got %v", err)
	}
}
