package ledger

import (
	"encoding/json"
	"fmt"
)

// Kind is what a kind of statement is about and which names its detail must have.
// More names are allowed; their values obey the form of every statement.
type Kind struct {
	Name   string
	About  string
	Detail []string
}

// Kinds is the closed list: Add refuses a kind that is not here. Digests are lower
// case hex of SHA-256, or a Digest where they would confirm a guess. docs/formats/ledger.md
// says the same in prose.
func Kinds() []Kind {
	return []Kind{
		{"server.start", "the server started; digests of what runs", []string{"binary", "config", "rules", "policy"}},
		{"server.stop", "the server stopped in order", []string{"reason"}},

		{"segment.opened", "a segment takes records; progress is stated only when something was written", []string{"compartment", "stream"}},
		{"segment.progress", "how far the open segments are", []string{"segments"}},
		{"segment.closed", "a segment is complete; its roots", []string{"compartment", "stream", "records", "root"}},
		{"segment.damaged", "a segment does not verify", []string{"compartment", "stream", "reason"}},

		{"source.admitted", "records taken from a source in a window", []string{"source", "from", "to", "records"}},
		{"source.refused", "records refused at the door in a window", []string{"source", "from", "to", "records", "reason"}},
		{"keyholder.window", "how many names the key holder was asked for in a window", []string{"from", "to", "asked", "new", "refused", "questions", "lists"}},

		{"pia.activated", "an assessment opens the gate", []string{"digest"}},
		{"pia.retired", "an assessment closes the gate again", []string{"digest"}},
		{"rules.activated", "a rule set is in force", []string{"digest"}},
		{"rules.approved", "two people stand for a rule set; its rules are a payload", []string{"digest", "rules"}},
		{"standing.aside", "a rule of the configuration that selects somebody is not in force", []string{"reason"}},
		{"standing.begun", "a rule that selects somebody is in force under an authorisation", []string{"authorisation", "rule", "until"}},
		{"standing.ended", "it is so no more", []string{"authorisation", "reason"}},
		{"policy.activated", "an access policy is in force", []string{"digest"}},
		{"offices.activated", "a record of offices is in force", []string{"digest"}},
		{"offices.approved", "two officers approved the record of offices in force; from then on none is that they did not approve", []string{"asked", "digest"}},
		{"config.activated", "a configuration is in force", []string{"digest"}},
		{"lists.activated", "protected channels or the directory changed", []string{"list", "digest"}},
		{"channels.approved", "the list of protected channels that people agreed on; the list is a payload", []string{"added", "removed", "entries", "list", "payload", "reason"}},
		{"canary.checked", "an overseer's canaries: how many were planted and what was found of them", []string{"planted", "found"}},

		{"login.accepted", "somebody came in", []string{"way"}},
		{"login.refused", "somebody did not", []string{"way", "reason"}},
		{"login.passkey_added", "a passkey was added to an account, or is stated `again`; `record`: `login.md`", []string{"account"}},
		{"login.ended", "a session ended before its time", []string{"session", "reason"}},
		{"account.made", "an account exists", []string{"account", "way"}},
		{"account.changed", "roles or state of an account changed", []string{"account", "change"}},
		{"token.made", "a machine may ask, within scopes and until a date", []string{"token", "scopes", "until"}},
		{"token.revoked", "a machine may ask no more", []string{"token"}},
		{"request.served", "one request of a person; the question is a payload", []string{"route", "status"}},
		{"request.refused", "a request that policy refused", []string{"route", "rule"}},
		{"export.made", "data left the system", []string{"format", "records"}},

		{"approval.requested", "an act that needs two people; `signed`: by a passkey, `login.md`", []string{"act", "expires"}},
		{"approval.decided", "one of them has answered", []string{"request", "decision"}},
		{"approval.expired", "nobody answered in time", []string{"request"}},
		{"approval.used", "the act was done, once", []string{"request"}},

		{"vault.sealed", "names were sealed to two officers; the root of a window of them", []string{"window", "n", "root"}},
		{"erasure.approved", "two officers agreed that the sealed names of somebody are erased, as soon as nothing keeps them", []string{"request", "statement", "case"}},
		{"vault.erased", "rows of sealed names are erased; which ones is a payload", []string{"reason", "rows", "windows", "list"}},
		{"name.approved", "two officers let names be asked for", []string{"request", "statement", "case"}},
		{"name.answered", "the key holder gave the server the tokens of the names; the payload says which are one person in the case", []string{"request", "payload"}},
		{"unmask.approved", "two officers let a name be opened", []string{"request", "statement", "case"}},
		{"unmask.opened", "a name was shown", []string{"request"}},
		{"unmask.mismatch", "the opened name does not give its token", []string{"request"}},
		{"duty.warranted", "two officers let a duty host open a few names at night", []string{"request", "statement", "from", "until", "night", "names"}},
		{"duty.asked", "a responder asks a duty host for a name; it waits for a review", []string{"request", "statement", "warrant", "cover"}},
		{"duty.opened", "the duty host has opened it; what it signed is a payload", []string{"request", "signed"}},
		{"duty.ended", "a warrant lets nothing be asked any more", []string{"warrant"}},
		{"inspector.read", "an inspector's office opened what it had asked itself", []string{"request"}},
		{"unlock.opened", "originals were unlocked for a range", []string{"request"}},
		{"unlock.closed", "the time of an unlock is over", []string{"request"}},
		{"replay.done", "unlocked originals were parsed again", []string{"context", "records"}},

		{"retention.changed", "how long a stream of a compartment is kept from now on", []string{"compartment", "stream", "days"}},
		{"hold.placed", "a legal hold", []string{"scope", "authority"}},
		{"hold.released", "a legal hold ended, by two people", []string{"hold", "request"}},
		{"destruction.intended", "what will be destroyed, and under which rule", []string{"rule", "after"}},
		{"destruction.done", "keys and derived copies were destroyed", []string{"rule", "destroyed"}},

		{"key.made", "a key exists; its public half or id", []string{"purpose", "key"}},
		{"key.rotated", "a new epoch", []string{"purpose", "key", "epoch"}},
		{"key.sealed", "keys were put under another passphrase", []string{"purpose", "key"}},
		{"key.backed_up", "a copy of keys left the server, sealed", []string{"recipients"}},
		{"key.rehearsed", "recovery was rehearsed", []string{"result"}},
		{"tokenkey.approved", "two officers agreed that the key of an epoch of tokens is destroyed", []string{"request", "statement", "epoch", "check", "records"}},
		{"key.destroyed", "a key is gone", []string{"purpose", "key"}},
		{"officer.enrolled", "a public key of an officer", []string{"office", "key"}},
		{"officer.retired", "an officer or a key left office", []string{"office", "key"}},

		{"case.opened", "a case", []string{"case"}},
		{"case.closed", "a case ended", []string{"case"}},
		{"authorisation.requested", "somebody asks to look at people; the scope is a payload", []string{"case", "scope", "ends"}},
		{"authorisation.decided", "somebody of another chain of command has answered", []string{"authorisation", "decision"}},
		{"authorisation.ended", "it covers nothing any more", []string{"authorisation", "reason"}},
		{"grant.opened", "a finding opened its people to a responder, without asking", []string{"finding", "until"}},
		{"glass.broken", "a responder looked beyond a grant, at once", []string{"case", "scope", "until"}},
		{"grant.reviewed", "somebody looked at a grant or a broken glass afterwards", []string{"grant", "outcome"}},
		{"containment.ordered", "somebody asks the broker to do something to an account or a host", []string{"act", "order"}},
		{"containment.agreed", "a second person stands for it", []string{"order"}},
		{"containment.done", "what the broker says came of it", []string{"order", "state"}},
		{"notice.sent", "the people of an authorisation that has ended were told; how many, and how many could not be", []string{"authorisation", "told", "left"}},
		{"notice.postponed", "an overseer lets them be told later", []string{"authorisation", "until"}},
		{"complaint.received", "somebody complained to the overseers; what and who is not in the ledger", []string{"sealed"}},
		{"complaint.closed", "an overseer answered a complaint", []string{"complaint", "outcome", "sealed"}},
		{"inquiry.received", "an investigating office asks for something", []string{"case", "due"}},
		{"inquiry.answered", "its answer", []string{"inquiry", "outcome"}},
		{"question.reported", "a refused question that overseers are told about", []string{"reason", "question"}},
		{"look.answered", "how much a look at people showed: the lower ends of classes", []string{"look", "rows", "people"}},
		{"look.shown", "whom an answer that lists people showed is kept for the overseers, until they are told; a payload", []string{"authorisation", "kept"}},
		{"look.reviewed", "an overseer has looked at a look", []string{"look", "outcome"}},
		{"oversight.heartbeat", "an independent overseer is there", []string{"office"}},
		{"oversight.silent", "none is there: looking at people has stopped", []string{"reason", "since"}},
		{"oversight.back", "one is there: people may be looked at", []string{"reason"}},
		{"package.made", "a package for named recipients", []string{"digest", "bag", "recipients", "due"}},
		{"package.received", "the recipient has it", []string{"package"}},
		{"package.returned", "outcome, return or destruction at the recipient", []string{"package", "outcome"}},
		{"package.overdue", "not returned in time", []string{"package"}},

		{"witness.added", "a witness is asked from now on", []string{"vkey"}},
		{"witness.removed", "a witness is asked no more", []string{"vkey"}},
		{"log.succeeded", "entry 0 of a log that follows another", []string{"origin", "size", "root", "reason"}},
		{"state.rebuilt", "views were made again from the truths", []string{"views"}},
		{"alarm.raised", "something that a person must look at", []string{"alarm"}},
	}
}

// kindTable is Kinds by name.
func kindTable() map[string]Kind {
	m := map[string]Kind{}
	for _, k := range Kinds() {
		m[k.Name] = k
	}
	return m
}

// checkKind refuses unknown kinds and missing names of the detail.
func checkKind(kinds map[string]Kind, s *Statement) error {
	k, ok := kinds[s.Kind]
	if !ok {
		return fmt.Errorf("%w: kind %q is not in the list", ErrForm, s.Kind)
	}
	var have map[string]json.RawMessage
	if len(s.Detail) > 0 {
		if err := json.Unmarshal(s.Detail, &have); err != nil {
			return fmt.Errorf("%w: detail is no JSON object", ErrForm)
		}
	}
	for _, name := range k.Detail {
		if _, ok := have[name]; !ok {
			return fmt.Errorf("%w: detail of %s lacks %q", ErrForm, s.Kind, name)
		}
	}
	return nil
}
