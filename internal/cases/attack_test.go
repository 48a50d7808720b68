package cases

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/counterseal/counterseal/internal/access"
	"github.com/counterseal/counterseal/internal/approval"
	"github.com/counterseal/counterseal/internal/ledger"
	"github.com/counterseal/counterseal/internal/policy"
)

// TestAttacks walks what people try. Each attack answers with the code of its refusal.
func TestAttacks(t *testing.T) {
	tests := []struct {
		name string
		want string
		try  func(h *house) error
	}{
		// The request.
		{"an overseer asks", NotPermitted, func(h *house) error { return h.tryRequest("olga", draft(person(1))) }},
		{"somebody without an office asks", NotPermitted, func(h *house) error { return h.tryRequest("nobody", draft(person(1))) }},
		{"a role that is only claimed", NotPermitted, func(h *house) error {
			p := h.as("sven")
			p.Roles = append(p.Roles, "investigator")
			_, err := h.Request(h.t.Context(), p, draft(person(1)))
			return err
		}},
		{"no subjects", BadInput, func(h *house) error { return h.tryRequest("ines", draft()) }},
		{"a name as a subject", BadInput, func(h *house) error { return h.tryRequest("ines", draft("some one")) }},
		{"a mail address as a subject", BadInput, func(h *house) error { return h.tryRequest("ines", draft("a@example.org")) }},
		{"an account as a subject", BadInput, func(h *house) error { return h.tryRequest("ines", draft(`corp\one`)) }},
		{"too many subjects", BadInput, func(h *house) error { return h.tryRequest("ines", draft(people(maxSubjects+1)...)) }},
		{"91 days", BadInput, func(h *house) error {
			a := draft(person(1))
			a.Ends = noon.Add(MaxAuthorisation + time.Second)
			return h.tryRequest("ines", a)
		}},
		{"an end that has been", BadInput, func(h *house) error {
			a := draft(person(1))
			a.Ends = noon
			return h.tryRequest("ines", a)
		}},
		{"no time in scope", BadInput, func(h *house) error {
			a := draft(person(1))
			a.Scope.From = time.Time{}
			return h.tryRequest("ines", a)
		}},
		{"a time beyond the end", BadInput, func(h *house) error {
			a := draft(person(1))
			a.Scope.To = a.Ends.Add(time.Second)
			return h.tryRequest("ines", a)
		}},
		{"no predicate", BadInput, func(h *house) error {
			a := draft(person(1))
			a.Predicate = ""
			return h.tryRequest("ines", a)
		}},
		{"no legal basis", BadInput, func(h *house) error {
			a := draft(person(1))
			a.Basis = ""
			return h.tryRequest("ines", a)
		}},
		{"no case", BadInput, func(h *house) error {
			a := draft(person(1))
			a.Case = ""
			return h.tryRequest("ines", a)
		}},
		{"a case that is a sentence", BadInput, func(h *house) error {
			a := draft(person(1))
			a.Case = "all of them"
			return h.tryRequest("ines", a)
		}},
		{"a reader without an office", BadInput, func(h *house) error {
			a := draft(person(1))
			a.Readers = []string{"nobody"}
			return h.tryRequest("ines", a)
		}},

		// The decision.
		{"own request", NotPermitted, func(h *house) error { return h.decide("ines", h.request("ines", draft(person(1))), true) }},
		{"own request, by a second office", NotPermitted, func(h *house) error {
			h.offices.Offices[7].Holder = "ines"
			id := h.request("ines", draft(person(1)))
			by, _ := h.offices.Person("inspector")
			return h.Decide(h.t.Context(), by, true, id, h.digest(id), true)
		}},
		{"own chain of command", NotPermitted, func(h *house) error { return h.decide("hugo", h.request("ines", draft(person(1))), true) }},
		{"own chain of then, moved since", NotPermitted, func(h *house) error {
			id := h.request("ines", draft(person(1)))
			h.offices.Offices[1].Under = ""
			return h.decide("hugo", id, true)
		}},
		{"own chain of today, not of then", NotPermitted, func(h *house) error {
			id := h.request("ines", draft(person(1)))
			h.offices.Offices[1].Under = "inspector"
			return h.decide("olga", id, true)
		}},
		{"same appointing authority", NotPermitted, func(h *house) error { return h.decide("dora", h.request("ines", draft(person(1))), true) }},
		{"another office of the requester has that authority", NotPermitted, func(h *house) error {
			h.offices.Offices[4].Holder = "ines"
			h.offices.Offices[4].Authority = "parliament"
			return h.decide("olga", h.request("ines", draft(person(1))), true)
		}},
		{"another office of the requester has it since", NotPermitted, func(h *house) error {
			id := h.request("ines", draft(person(1)))
			h.offices.Offices[4].Holder, h.offices.Offices[4].Authority = "ines", "parliament"
			return h.decide("olga", id, true)
		}},
		{"a reader decides, under policies that let everybody", NotPermitted, func(h *house) error {
			h.o.Policy = func(context.Context, policy.Request) policy.Decision { return policy.Decision{Allow: true} }
			h.open()
			a := draft(person(1))
			a.Readers = []string{"olga"}
			return h.decide("olga", h.request("ines", a), true)
		}},
		{"who asked decides, under policies that let everybody", NotPermitted, func(h *house) error {
			h.o.Policy = func(context.Context, policy.Request) policy.Decision { return policy.Decision{Allow: true} }
			h.open()
			return h.decide("ines", h.request("ines", draft(person(1))), true)
		}},
		{"chain of command of a reader", NotPermitted, func(h *house) error {
			h.offices.Offices[5].Under = "inspector"
			a := draft(person(1))
			a.Readers = []string{"ruth"}
			return h.decide("olga", h.request("ines", a), true)
		}},
		{"a reader decides", NotPermitted, func(h *house) error {
			a := draft(person(1))
			a.Readers = []string{"olga"}
			return h.decide("olga", h.request("ines", a), true)
		}},
		{"an operator decides", NotPermitted, func(h *house) error { return h.decide("otto", h.request("ines", draft(person(1))), true) }},
		{"an overseer who is an operator besides", NotPermitted, func(h *house) error {
			olga := h.as("olga")
			olga.Roles = append(olga.Roles, "operator")
			id := h.request("ines", draft(person(1)))
			return h.Decide(h.t.Context(), olga, true, id, h.digest(id), true)
		}},
		{"an analyst decides", NotPermitted, func(h *house) error { return h.decide("anna", h.request("ines", draft(person(1))), true) }},
		{"an office that was lost since the login", NotPermitted, func(h *house) error {
			olga := h.as("olga")
			h.offices.Offices[7].Holder = "somebody"
			id := h.request("ines", draft(person(1)))
			return h.Decide(h.t.Context(), olga, true, id, h.digest(id), true)
		}},
		{"an authority that is only claimed", NotPermitted, func(h *house) error {
			dora := h.as("dora")
			dora.Authority = "elsewhere"
			id := h.request("ines", draft(person(1)))
			return h.Decide(h.t.Context(), dora, true, id, h.digest(id), true)
		}},
		{"a role that was lost since the login", NotPermitted, func(h *house) error {
			olga := h.as("olga")
			h.offices.Offices[7].Roles = []string{"compliance"}
			id := h.request("ines", draft(person(1)))
			return h.Decide(h.t.Context(), olga, true, id, h.digest(id), true)
		}},
		{"the requester has left", NotPermitted, func(h *house) error {
			id := h.request("ines", draft(person(1)))
			h.offices.Offices[1].Holder = ""
			olga := h.as("olga")
			if err := h.Decide(h.t.Context(), olga, true, id, h.digest(id), true); err != nil {
				return err
			}
			c := h.ask("ines", "C-7", about(person(1)))
			return c.Err()
		}},
		{"an old login", NotFresh, func(h *house) error {
			id := h.request("ines", draft(person(1)))
			return h.Decide(h.t.Context(), h.as("olga"), false, id, h.digest(id), true)
		}},
		{"a request changed after it was read", Altered, func(h *house) error {
			read := h.request("ines", draft(person(1)))
			other := h.request("ines", draft(person(1), person(2)))
			return h.Decide(h.t.Context(), h.as("olga"), true, other, h.digest(read), true)
		}},
		{"no digest", Altered, func(h *house) error {
			return h.Decide(h.t.Context(), h.as("olga"), true, h.request("ines", draft(person(1))), "", true)
		}},
		{"an unknown request", Unknown, func(h *house) error {
			return h.Decide(h.t.Context(), h.as("olga"), true, "018f0000-0000-7000-8000-000000000000", "", true)
		}},
		{"a decision replayed", Settled, func(h *house) error {
			return h.decide("olga", h.authorised("ines", draft(person(1)), "olga"), true)
		}},
		{"an approval after a refusal", Settled, func(h *house) error {
			id := h.request("ines", draft(person(1)))
			h.must(h.decide("olga", id, false))
			return h.decide("pia", id, true)
		}},
		{"an approval after the end", Over, func(h *house) error {
			id := h.request("ines", draft(person(1)))
			h.clock = noon.AddDate(0, 0, 30)
			return h.decide("olga", id, true)
		}},
		{"an approval of what was taken back", Settled, func(h *house) error {
			id := h.request("ines", draft(person(1)))
			h.must(h.End(h.t.Context(), h.as("ines"), id, Withdrawn))
			return h.decide("olga", id, true)
		}},
		{"the same person twice", Again, func(h *house) error {
			return h.decide("olga", h.authorised("ines", draft(people(25)...), "olga"), true)
		}},
		{"the same person from a second office", Again, func(h *house) error {
			h.offices.Offices[9].Holder = "olga"
			id := h.authorised("ines", draft(people(25)...), "olga")
			by, _ := h.offices.Person("privacy-two")
			return h.Decide(h.t.Context(), by, true, id, h.digest(id), true)
		}},
		{"the same office, a new holder", Again, func(h *house) error {
			id := h.authorised("ines", draft(people(25)...), "pia")
			h.offices.Offices[8].Holder = "peer"
			return h.decide("peer", id, true)
		}},
		{"two privacy officers as counsel", Useless, func(h *house) error {
			return h.decide("paul", h.authorised("ines", draft(people(25)...), "pia"), true)
		}},
		{"101 without an office outside", Undecided, func(h *house) error {
			h.authorised("ines", draft(people(101)...), "olga", "pia")
			c := h.ask("ines", "C-7", about(person(1)))
			return c.Err()
		}},
		{"an inner third where an outer is missing", Useless, func(h *house) error {
			return h.decide("paul", h.authorised("ines", draft(people(101)...), "olga", "pia"), true)
		}},

		// Ending.
		{"a colleague ends it", NotPermitted, func(h *house) error {
			return h.End(h.t.Context(), h.as("rita"), h.authorised("ines", draft(person(1)), "olga"), Done)
		}},
		{"ended twice", Settled, func(h *house) error {
			id := h.authorised("ines", draft(person(1)), "olga")
			h.must(h.End(h.t.Context(), h.as("ines"), id, Done))
			return h.End(h.t.Context(), h.as("ines"), id, Done)
		}},
		{"ended with a sentence", BadInput, func(h *house) error {
			return h.End(h.t.Context(), h.as("ines"), h.authorised("ines", draft(person(1)), "olga"), "it is over")
		}},

		// The glass.
		{"an analyst breaks the glass", NotPermitted, func(h *house) error { return h.tryGlass("anna", "C-7", person(1)) }},
		{"an investigator breaks the glass", NotPermitted, func(h *house) error { return h.tryGlass("ines", "C-7", person(1)) }},
		{"an untrained responder", NotPermitted, func(h *house) error {
			h.offices.Offices[3].Trained = noon
			return h.tryGlass("rita", "C-7", person(1))
		}},
		{"a responder's role that is only claimed", NotPermitted, func(h *house) error {
			p := h.as("sven")
			p.Roles = append(p.Roles, "responder")
			_, err := h.BreakGlass(h.t.Context(), p, "C-7", named(person(1)))
			return err
		}},
		{"a glass without a case", BadInput, func(h *house) error { return h.tryGlass("rita", "", person(1)) }},
		{"a glass on nobody", BadInput, func(h *house) error { return h.tryGlass("rita", "C-7") }},
		{"a glass on a name", BadInput, func(h *house) error { return h.tryGlass("rita", "C-7", "some one") }},
		{"a glass on 21", TooMany, func(h *house) error { return h.tryGlass("rita", "C-7", people(21)...) }},
		{"a second in the case", OneGlass, func(h *house) error {
			h.glass("rita", "C-7", person(1))
			return h.tryGlass("rita", "C-7", person(2))
		}},
		{"21 by two cases", TooMany, func(h *house) error {
			h.glass("rita", "C-7", people(11)...)
			return h.tryGlass("rita", "C-8", people(10)...)
		}},
		{"an old one that nobody reviewed", Unreviewed, func(h *house) error {
			h.glass("rita", "C-7", person(1))
			h.clock = h.clock.Add(ReviewWithin + time.Second)
			return h.tryGlass("rita", "C-8", person(1))
		}},

		// Reviews.
		{"an own glass", NotPermitted, func(h *house) error {
			id := h.glass("rita", "C-7", person(1))
			return h.Review(h.t.Context(), h.as("rita"), id, Justified)
		}},
		{"a glass of the own chain", NotPermitted, func(h *house) error {
			h.offices.Offices[2].Roles, h.offices.Offices[2].Authority = []string{"privacy_officer"}, "elsewhere"
			return h.Review(h.t.Context(), h.as("sven"), h.glass("rita", "C-7", person(1)), Justified)
		}},
		{"a glass of who has left the chain", NotPermitted, func(h *house) error {
			h.offices.Offices[2].Roles, h.offices.Offices[2].Authority = []string{"privacy_officer"}, "elsewhere"
			id := h.glass("rita", "C-7", person(1))
			h.offices.Offices[3].Holder = ""
			return h.Review(h.t.Context(), h.as("sven"), id, Justified)
		}},
		{"a colleague reviews", NotPermitted, func(h *house) error {
			return h.Review(h.t.Context(), h.as("remo"), h.glass("rita", "C-7", person(1)), Justified)
		}},
		{"reviewed twice", Settled, func(h *house) error {
			id := h.glass("rita", "C-7", person(1))
			h.must(h.Review(h.t.Context(), h.as("olga"), id, Misuse))
			return h.Review(h.t.Context(), h.as("pia"), id, Justified)
		}},
		{"a review that says nothing", BadInput, func(h *house) error {
			return h.Review(h.t.Context(), h.as("olga"), h.glass("rita", "C-7", person(1)), "fine")
		}},
		{"a review of nothing", Unknown, func(h *house) error { return h.Review(h.t.Context(), h.as("olga"), "x", Justified) }},

		// Inquiries.
		{"an analyst receives an inquiry", NotPermitted, func(h *house) error {
			_, err := h.Receive(h.t.Context(), h.as("anna"), Inquiry{Case: "C-7", From: "a court", Text: "all", Due: noon.AddDate(0, 0, 9)})
			return err
		}},
		{"due yesterday", BadInput, func(h *house) error {
			_, err := h.Receive(h.t.Context(), h.as("pia"), Inquiry{Case: "C-7", From: "a court", Text: "all", Due: noon.AddDate(0, 0, -1)})
			return err
		}},
		{"answered twice", Settled, func(h *house) error {
			id, err := h.Receive(h.t.Context(), h.as("pia"), Inquiry{Case: "C-7", From: "a court", Text: "all", Due: noon.AddDate(0, 0, 9)})
			h.must(err)
			h.must(h.Answer(h.t.Context(), h.as("pia"), id, Answered, "here"))
			return h.Answer(h.t.Context(), h.as("pia"), id, Declined, "")
		}},

		// Rules.
		{"one person stands for a rule set", NotPermitted, func(h *house) error {
			return h.ApproveRules(h.t.Context(), "Remo", h.as("remo"), ruleSet(1, RuleOrigin{Digest: ruleOne}))
		}},
		{"an investigator approves rules", NotPermitted, func(h *house) error {
			return h.ApproveRules(h.t.Context(), "anna", h.as("ines"), ruleSet(1, RuleOrigin{Digest: ruleOne}))
		}},
		{"a rule twice in a set", BadInput, func(h *house) error {
			return h.ApproveRules(h.t.Context(), "anna", h.as("remo"), ruleSet(1, RuleOrigin{Digest: ruleOne}, RuleOrigin{Digest: ruleOne}))
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			h := newHouse(t)
			err := test.try(h)
			if got := code(t, err); got != test.want {
				t.Fatalf("got %q (%v), want %q", got, err, test.want)
			}
			for _, secret := range []string{"ines", "rita", "olga", "p1_", "srv-1"} {
				var r *Refusal
				if errors.As(err, &r) && strings.Contains(r.Reason+r.Hint, secret) {
					t.Errorf("the refusal says %q: %s; %s", secret, r.Reason, r.Hint)
				}
			}
			if before := h.everything(); h.reopened() != before {
				t.Error("a Book that is opened again is another one")
			}
		})
	}
	t.Logf("%d attacks", len(tests))
}

func (h *house) reopened() string {
	h.open()
	return h.everything()
}

func (h *house) tryRequest(who string, a Authorisation) error {
	_, err := h.Request(h.t.Context(), h.as(who), a)
	if n := h.s.count("authorisation.requested"); err != nil && n != 0 {
		h.t.Errorf("refused, and %d statements stand", n)
	}
	return err
}

func (h *house) tryGlass(who, caseID string, values ...string) error {
	before := h.s.count("glass.broken")
	_, err := h.BreakGlass(h.t.Context(), h.as(who), caseID, named(values...))
	if n := h.s.count("glass.broken"); err != nil && n != before {
		h.t.Errorf("refused, and %d statements stand", n)
	}
	return err
}

// TestChosenEvent: an analyst fails a logon as somebody from an own host. The pivot is
// refused, and the overseer sees who tried and whom it named.
func TestChosenEvent(t *testing.T) {
	h := incident(t)
	planted := person(9)
	h.finding(func(f *GrantFinding) { f.Subjects = subjects([]string{"own-host"}, []string{planted}) })
	h.finding(func(f *GrantFinding) { f.Subjects = subjects([]string{"own-host"}, []string{planted}) }) // twice is no better
	for _, who := range []string{"anna", "rita"} {
		c := h.ask(who, "C-7", about(planted))
		if c.Code != Planted || !c.Planted || c.Grant == Covers {
			t.Fatalf("%s: %+v", who, c)
		}
	}
	reports, err := h.Reports(t.Context())
	if err != nil || len(reports) != 2 || reports[0].Asker != "rita" || reports[1].Asker != "anna" || reports[0].Reason != Planted ||
		len(reports[0].Subjects) != 1 || reports[0].Subjects[0] != planted || reports[0].Finding != "finding-1" {
		t.Fatalf("reports %+v, %v", reports, err)
	}
	// Where the same person acted in another finding, that one opens them.
	h.finding(func(f *GrantFinding) { f.Subjects = subjects([]string{planted}, []string{planted}) })
	if c := h.ask("rita", "C-7", about(planted)); c.Kind != KindGrant {
		t.Fatalf("%+v", c)
	}
}

// TestGrantOnce: the first use is stated, once for a finding and responder; a finding that
// has grown is another look.
func TestGrantOnce(t *testing.T) {
	h := incident(t)
	steps := []struct {
		who  string
		q    Question
		want int
	}{
		{"rita", about(person(1)), 1},
		{"rita", about("srv-1", "0x3e7"), 1},
		{"remo", about(person(1)), 2},
		{"rita", about(person(1)), 2},
	}
	for i, s := range steps {
		if c := h.ask(s.who, "", s.q); c.Kind != KindGrant {
			t.Fatalf("step %d: %+v", i, c)
		}
		if n := h.s.count("grant.opened"); n != s.want {
			t.Fatalf("step %d: %d grants, want %d", i, n, s.want)
		}
		h.open() // also after a restart
	}
	h.findings[0].Subjects = subjects([]string{person(1), person(2)}, nil)
	if c := h.ask("rita", "", about(person(2))); c.Kind != KindGrant || h.s.count("grant.opened") != 3 {
		t.Fatalf("a finding that has grown: %+v, %d grants", c, h.s.count("grant.opened"))
	}
	h.must(h.Review(t.Context(), h.as("olga"), h.review(0).ID, Excessive))
	h.findings[0].Subjects = subjects([]string{person(1), person(2), person(3)}, nil)
	if c := h.ask("rita", "", about(person(3))); c.Code != Over {
		t.Fatalf("one that has grown after its review: %+v", c)
	}
	h.findings = nil // withdrawn
	if c := h.ask("rita", "", about(person(1))); c.Code != Uncovered {
		t.Fatalf("a finding that was withdrawn: %+v", c)
	}
}

// TestGrantOfTwoFindings: what one finding has not, another of the incident has; times and
// end are those that both have.
func TestGrantOfTwoFindings(t *testing.T) {
	h := incident(t)
	h.finding(func(f *GrantFinding) {
		f.From, f.To, f.Subjects = h.clock.Add(-10*time.Hour), h.clock.Add(-9*time.Hour), subjects([]string{person(5)}, nil)
	})
	c := h.ask("rita", "C-7", about(person(1), person(5)))
	if c.Kind != KindGrant || !c.Scope.From.Equal(h.clock.Add(-2*time.Hour-Around)) || !c.Scope.To.Equal(h.clock.Add(-9*time.Hour+Around)) || !c.Until.Equal(c.Scope.To) {
		t.Fatalf("%+v", c)
	}
	if n := h.s.count("grant.opened"); n != 2 {
		t.Fatalf("%d grants", n)
	}
}

// TestRuleHistory: a rule counts from where two people stood for it without a break.
func TestRuleHistory(t *testing.T) {
	h := newHouse(t)
	at := func(days int, set RuleSet) { h.clock = noon.AddDate(0, 0, days); h.approve(set) }
	one, other := RuleOrigin{Digest: ruleOne}, RuleOrigin{Digest: strings.Repeat("2", 64), Authors: []string{"Rita"}}
	at(-100, ruleSet(1, one))
	at(-20, ruleSet(2, one, other)) // the same rule goes on: remo approved it 100 days ago
	h.clock = noon
	h.finding(nil)
	if c := h.ask("remo", "", about(person(1))); c.Kind != KindGrant {
		t.Fatalf("a rule that went on: %+v", c)
	}
	h.findings[0].RuleDigest = other.Digest
	if c := h.ask("rita", "", about(person(1))); c.Code != FreshRule {
		t.Fatalf("who wrote it: %+v", c)
	}
	if c := h.ask("ruth", "", about(person(1))); c.Kind != KindGrant {
		t.Fatalf("who had no part: %+v", c)
	}
	h.findings[0].RuleDigest = ruleOne
	at(-10, ruleSet(3, other)) // the rule was taken out
	h.clock = noon
	if c := h.ask("ruth", "", about(person(1))); c.Code != Uncovered {
		t.Fatalf("a rule that was taken out: %+v", c)
	}
	at(-5, ruleSet(1, one)) // and put in again
	h.clock = noon
	if c := h.ask("remo", "", about(person(1))); c.Code != FreshRule {
		t.Fatalf("a rule that was put in again: %+v", c)
	}
	act, ok, err := h.Approved(t.Context(), ruleOne)
	if err != nil || !ok || !act.At.Equal(noon.AddDate(0, 0, -5)) || strings.Join(act.By, " ") != "anna remo" {
		t.Fatalf("%+v %v %v", act, ok, err)
	}
	// A set that one person alone states, past this package, stops all rules.
	raw, err := approval.Canonical(&rulesForm{Approved: "anna", Asked: "anna", Digest: strings.Repeat("4", 64), Form: rulesName, ID: "018f0000-0000-7000-8000-000000000000", Rules: []ruleForm{{Authors: []string{}, Digest: ruleOne}}})
	if err != nil {
		t.Fatal(err)
	}
	d, _ := h.s.PutPayload(raw)
	h.must(h.Book.state(t.Context(), h.as("anna"), "rules.approved", "x", "", map[string]any{"digest": strings.Repeat("4", 64), "rules": d}))
	if _, ok, _ := h.Approved(t.Context(), ruleOne); ok {
		t.Fatal("one person stands for a rule set")
	}
}

// TestClock walks the ends of everything, and clocks that are wrong.
func TestClock(t *testing.T) {
	t.Run("an authorisation ends by itself, and it is stated", func(t *testing.T) {
		h := newHouse(t)
		id := h.authorised("ines", draft(person(1)), "olga")
		h.clock = noon.AddDate(0, 0, 30).Add(-time.Nanosecond)
		if c := h.ask("ines", "C-7", about(person(1))); c.Kind != KindAuthorisation {
			t.Fatalf("%+v", c)
		}
		h.clock = noon.AddDate(0, 0, 30)
		if c := h.ask("ines", "C-7", about(person(1))); c.Authorisation != Expired || h.s.count("authorisation.ended") != 1 {
			t.Fatalf("%+v, %d statements", c, h.s.count("authorisation.ended"))
		}
		h.clock = noon // set back: the end stands
		if c := h.ask("ines", "C-7", about(person(1))); c.Authorisation != Expired || h.Book.must(t, id) != Lapsed {
			t.Fatalf("a clock set back: %+v", c)
		}
	})
	t.Run("Expire states all", func(t *testing.T) {
		h := newHouse(t)
		h.authorised("ines", draft(person(1)), "olga")
		h.request("ines", draft(person(2)))
		h.must(h.decide("olga", h.request("ines", draft(person(3))), false))
		h.clock = noon.AddDate(0, 0, 31)
		for i, want := range []int{2, 0} {
			if n, err := h.Expire(t.Context()); n != want || err != nil {
				t.Fatalf("call %d: %d, %v", i, n, err)
			}
		}
	})
	t.Run("a clock that ran ahead", func(t *testing.T) {
		h := newHouse(t)
		h.clock = noon.AddDate(0, 0, 7)
		h.authorised("ines", draft(person(1)), "olga")
		h.glass("rita", "C-7", person(1))
		h.clock = noon
		if c := h.ask("ines", "C-7", about(person(1))); c.Code != Future {
			t.Errorf("an authorisation: %+v", c)
		}
		if c := h.ask("rita", "C-7", about(person(1))); c.Grant != Expired {
			t.Errorf("a glass: %+v", c)
		}
	})
	t.Run("a grant ends 72 hours after its finding", func(t *testing.T) {
		h := incident(t)
		h.ask("rita", "", about(person(1)))
		h.clock = h.findings[0].To.Add(Around - time.Second)
		if c := h.ask("rita", "", about(person(1))); c.Kind != KindGrant {
			t.Fatalf("%+v", c)
		}
		h.clock = h.findings[0].To.Add(Around)
		if c := h.ask("rita", "", about(person(1))); c.Code != Uncovered {
			t.Fatalf("%+v", c)
		}
	})
	t.Run("a finding that is 5 minutes ahead", func(t *testing.T) {
		h := incident(t)
		h.findings[0].To = h.clock.Add(Skew)
		if c := h.ask("rita", "", about(person(1))); c.Kind != KindGrant {
			t.Fatalf("%+v", c)
		}
	})
	t.Run("a glass closes after 4 hours", func(t *testing.T) {
		h := newHouse(t)
		h.glass("rita", "C-7", person(1))
		h.clock = noon.Add(Glass - time.Second)
		if c := h.ask("rita", "C-7", about(person(1))); c.Kind != KindGlass {
			t.Fatalf("%+v", c)
		}
		h.clock = noon.Add(Glass)
		if c := h.ask("rita", "C-7", about(person(1))); c.Grant != Expired {
			t.Fatalf("%+v", c)
		}
		h.glass("rita", "C-7", person(1)) // another one, as the first is closed
	})
	t.Run("an inquiry is overdue", func(t *testing.T) {
		h := newHouse(t)
		var ids []string
		for _, days := range []int{20, 10} {
			id, err := h.Receive(t.Context(), h.as("pia"), Inquiry{Case: "C-7", From: "a court", Reference: "12 Js 1", Text: "what there is", Due: noon.AddDate(0, 0, days)})
			h.must(err)
			ids = append(ids, id)
		}
		h.clock = noon.AddDate(0, 0, 10)
		all, err := h.Inquiries(t.Context())
		if err != nil || len(all) != 2 || all[0].ID != ids[1] || !all[0].Overdue || all[1].Overdue {
			t.Fatalf("%+v, %v", all, err)
		}
		h.must(h.Answer(t.Context(), h.as("pia"), ids[1], Partly, "some"))
		all, _ = h.Inquiries(t.Context())
		if all[0].ID != ids[0] || all[1].Overdue || all[1].Answer != "some" || all[1].Outcome != Partly {
			t.Fatalf("%+v", all)
		}
	})
}

func (b *Book) must(t *testing.T, id string) State {
	t.Helper()
	a, err := b.Authorisation(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return a.State
}

// TestReviewsAreLoud: broken glasses come first, and what is reviewed is gone.
func TestReviewsAreLoud(t *testing.T) {
	h := incident(t)
	h.ask("rita", "", about(person(1)))
	glass := h.glass("remo", "C-7", person(2))
	all, err := h.Reviews(t.Context())
	if err != nil || len(all) != 2 || all[0].ID != glass || all[0].Responder != "remo" || all[1].Finding != "finding-0" || all[0].Overdue {
		t.Fatalf("%+v, %v", all, err)
	}
	h.clock = h.clock.Add(ReviewWithin + time.Minute)
	if all[0] = h.review(0); !all[0].Overdue {
		t.Fatal("not overdue")
	}
	h.must(h.Review(t.Context(), h.as("pia"), glass, Justified))
	if r := h.review(0); r.Kind != KindGrant {
		t.Fatalf("%+v", r)
	}
	h.glass("remo", "C-8", person(2)) // allowed again
}

// TestWhatTheLedgerSees: no leaf holds whom a look is about, nor a sentence.
func TestWhatTheLedgerSees(t *testing.T) {
	h := incident(t)
	a := draft(person(1), "srv-1", "0x3e7")
	a.Readers = []string{"ruth"}
	h.authorised("ines", a, "olga")
	h.ask("rita", "", about(person(1)))
	h.must(h.Review(t.Context(), h.as("olga"), h.glass("remo", "C-9", person(2)), Misuse))
	h.must(h.Report(t.Context(), h.as("anna"), "no case at all", "protected", "url:union\x00 user:planted-name"))
	id, err := h.Receive(t.Context(), h.as("pia"), Inquiry{Case: "C-7", From: "planted-name", Text: "planted-name", Due: noon.AddDate(0, 0, 9)})
	h.must(err)
	h.must(h.Answer(t.Context(), h.as("pia"), id, Answered, "planted-name"))
	for _, leaf := range h.s.leaves {
		for _, secret := range []string{person(1), person(2), "srv-1", "0x3e7", "planted-name", "director", "privacy", ruleOne} {
			if strings.Contains(leaf, secret) {
				t.Errorf("a leaf holds %q: %s", secret, leaf)
			}
		}
	}
	if len(h.s.leaves) != 9 {
		t.Fatalf("%d leaves", len(h.s.leaves))
	}
	if r, err := h.Reports(t.Context()); err != nil || r[0].Question != "url:union? user:planted-name" || r[0].Asker != "anna" {
		t.Fatalf("%+v, %v", r, err)
	}
}

// TestPayloadGone: what was dropped or swapped covers nothing, and does not disappear.
func TestPayloadGone(t *testing.T) {
	ruin := map[string]func(h *house, was []byte) []byte{
		"dropped": func(*house, []byte) []byte { return nil },
		"broken":  func(_ *house, was []byte) []byte { return was[:len(was)-1] },
		"of others": func(h *house, was []byte) []byte {
			return []byte(strings.Replace(string(was), `"id":"01`, `"id":"02`, 1))
		},
	}
	for name, f := range ruin {
		t.Run(name, func(t *testing.T) {
			h := incident(t)
			id := h.authorised("ines", draft(person(1)), "olga")
			h.glass("remo", "C-7", person(1))
			h.ask("rita", "", about(person(1)))
			for k, was := range h.s.payloads {
				if b := f(h, was); b == nil {
					delete(h.s.payloads, k)
				} else {
					h.s.payloads[k] = b
				}
			}
			h.open()
			h.findings = nil // a finding opens by itself what it shows
			if got := h.state(id); got != Unread {
				t.Errorf("the authorisation is %s", got)
			}
			for _, who := range []string{"ines", "remo", "rita"} {
				if c := h.ask(who, "C-7", about(person(1))); c.Code == "" {
					t.Errorf("%s: %+v", who, c)
				}
			}
			all, err := h.Reviews(t.Context())
			if err != nil || len(all) != 2 || !all[0].Unread || !all[1].Unread || all[0].Kind != KindGlass {
				t.Errorf("%+v, %v", all, err)
			}
			if got := code(t, h.Review(t.Context(), h.as("pia"), all[0].ID, Justified)); got != NotPermitted {
				t.Errorf("a review of what nobody can read: %q", got)
			}
			if got := code(t, h.decide("pia", id, true)); got != Altered {
				t.Errorf("a decision about it: %q", got)
			}
		})
	}
}

// TestForgedDecision: statements that others wrote past this package approve nothing.
func TestForgedDecision(t *testing.T) {
	forge := map[string]func(p *decisionForm){
		"about another request": func(p *decisionForm) { p.Digest = strings.Repeat("0", 64) },
		"by who asked":          func(p *decisionForm) { p.By = "ines" },
		"of another id":         func(p *decisionForm) { p.ID = "018f0000-0000-7000-8000-000000000000" },
		"a refusal inside":      func(p *decisionForm) { p.Decision = refuse },
	}
	for name, f := range forge {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			id := h.request("ines", draft(person(1)))
			p := &decisionForm{Authority: "parliament", By: "olga", Decision: approve, Digest: h.digest(id), Form: decisionName, ID: id, Office: "inspector", Overseer: true}
			f(p)
			d, _, err := h.put(p)
			h.must(err)
			h.must(h.Book.state(t.Context(), h.as("olga"), "authorisation.decided", id+"/1", "", decidedDetail{Authorisation: id, Decision: approve, Payload: d}))
			if got := h.state(id); got != Requested {
				t.Errorf("it is %s", got)
			}
			h.must(h.decide("pia", id, true)) // and the next decision has a key of its own
			if got := h.state(id); got != Approved {
				t.Errorf("after a true one it is %s", got)
			}
		})
	}
}

// TestStatementLost: where the ledger does not answer, nothing takes effect; what stands
// all the same is there with the next call.
func TestStatementLost(t *testing.T) {
	lost := errors.New("the answer got lost")
	for _, stands := range []bool{false, true} {
		h := newHouse(t)
		h.s.fail, h.s.lost = lost, stands
		if _, err := h.BreakGlass(t.Context(), h.as("rita"), "C-7", named(person(1))); !errors.Is(err, lost) {
			t.Fatalf("got %v", err)
		}
		h.s.fail = nil
		if c := h.ask("rita", "C-7", about(person(1))); (c.Kind == KindGlass) != stands {
			t.Errorf("stands %v: %+v", stands, c)
		}
		if all, err := h.Reviews(t.Context()); err != nil || (len(all) == 1) != stands {
			t.Errorf("stands %v: %+v, %v", stands, all, err)
		}
	}
	// A grant whose statement fails is no answer.
	h := incident(t)
	h.s.fail, h.s.lost = lost, false
	if c, err := h.Covers(t.Context(), h.as("rita"), "", about(person(1))); !errors.Is(err, lost) || c.Grant == Covers {
		t.Fatalf("%+v, %v", c, err)
	}
}

// TestNothingIsConfigured: without policies, without offices, without findings nothing is
// opened.
func TestNothingIsConfigured(t *testing.T) {
	h := incident(t)
	h.authorised("ines", draft(person(1)), "olga")
	full := h.o
	for name, change := range map[string]func(*Options){
		"policies": func(o *Options) { o.Policy = nil },
		"offices":  func(o *Options) { o.Offices = nil },
		"findings": func(o *Options) { o.Recent = nil },
	} {
		o := full
		change(&o)
		b, err := Open(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		if c, err := b.Covers(t.Context(), h.as("rita"), "", about(person(1))); err != nil || c.Grant == Covers {
			t.Errorf("without %s: %+v, %v", name, c, err)
		}
		if name == "findings" {
			continue
		}
		if _, err := b.BreakGlass(t.Context(), h.as("rita"), "C-7", named(person(1))); code(t, err) != NotPermitted {
			t.Errorf("without %s: %v", name, err)
		}
	}
	o := full
	o.Recent = func(context.Context, time.Time) ([]GrantFinding, error) { return nil, errors.New("no index") }
	b, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if c, err := b.Covers(t.Context(), h.as("rita"), "", about(person(1))); err == nil || c.Grant == Covers {
		t.Errorf("findings that cannot be read: %+v, %v", c, err)
	}
}

// TestFree: what selects nobody needs no cover, and a Book says nothing about it.
func TestFree(t *testing.T) {
	h := newHouse(t)
	if c, err := h.Covers(t.Context(), policy.Person{}, "", Question{Verdict: access.Verdict{Standing: true}}); err != nil || c.Code != "" || c.Kind != "" {
		t.Fatalf("%+v, %v", c, err)
	}
	if _, err := h.s.Payload(ledger.Digest{}); !errors.Is(err, ledger.ErrNoPayload) {
		t.Fatal(err)
	}
}
