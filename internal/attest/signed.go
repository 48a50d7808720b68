package attest

import (
	"cmp"
	"encoding/json"
	"errors"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/counterseal/counterseal/internal/approval"
	"github.com/counterseal/counterseal/internal/ledger"
	"github.com/counterseal/counterseal/internal/passkey"
	"github.com/counterseal/counterseal/internal/state"
)

// enrols remembers where a passkey of an account was stated first.
func (f *Folded) enrols(fact state.Fact) {
	var d struct{ Account, Record string }
	if decode(fact, &d) != nil || d.Record == "" {
		return
	}
	if f.enrolled == nil {
		f.enrolled = map[[2]string]uint64{}
	}
	if key := [2]string{d.Account, d.Record}; f.enrolled[key] == 0 {
		f.enrolled[key] = fact.Index + 1
	}
}

// payloads reads what statements have the digests of, in the ledger and in those that it
// follows.
func (r *Report) payloads(dir string) func(ledger.Digest) ([]byte, error) {
	logs := []string{"ledger"}
	for n := range r.Earlier {
		logs = append(logs, filepath.Join("ledger.before", strconv.Itoa(n+1)))
	}
	return func(d ledger.Digest) (b []byte, err error) {
		for _, at := range logs {
			if b, err = ledger.ReadPayload(filepath.Join(dir, at), d); !errors.Is(err, ledger.ErrNoPayload) {
				return b, err
			}
		}
		return b, err
	}
}

// signatures verifies what passkeys signed, with no key: each request that says so has a
// signature that holds, of the account that asked, by a passkey that was stated before; and
// from the first of them on no name was approved whose request nobody signed. A payload
// that was dropped is not missed.
func (r *Report) signatures(known *Folded, payload func(ledger.Digest) ([]byte, error)) {
	const object = "signature by passkey"
	bad := func(f state.Fact, what string) {
		r.Problems = append(r.Problems, Problem{object, int64(f.Index), what})
	}
	type detail struct {
		Signed, Statement  string
		Payload, Signature ledger.Digest
		Inspector          bool
	}
	requests := known.ofKind("approval.requested")
	slices.SortFunc(requests, func(a, b state.Fact) int { return cmp.Compare(a.Index, b.Index) })
	first := int64(-1)
	unsigned := map[string]uint64{} // by request
	for _, f := range requests {
		var d detail
		if json.Unmarshal(f.Detail, &d) != nil {
			continue // of a form that others judge
		}
		if d.Signed == "" {
			unsigned[f.Key] = f.Index
			continue
		}
		if first < 0 {
			first = int64(f.Index)
		}
		raw, err := payload(d.Signature)
		if errors.Is(err, ledger.ErrNoPayload) {
			continue
		}
		by, perr := passkey.Parse(raw)
		if err := errors.Join(err, perr); err != nil {
			bad(f, "its payload is no signature")
			continue
		}
		sum, serr := by.Digest()
		record, rerr := by.Record.Digest()
		at, ok := known.enrolled[[2]string{by.Record.Account, record}]
		switch {
		case errors.Join(serr, rerr) != nil || sum != d.Signed:
			bad(f, "its payload is another signature than the one that was stated")
		case f.Actor != "account:"+by.Record.Account:
			bad(f, "it is of another account than the one that asked")
		case !ok || at > f.Index:
			bad(f, "no statement before it knows the passkey")
		}
		statement, err := payload(d.Payload)
		if errors.Is(err, ledger.ErrNoPayload) {
			continue
		}
		switch {
		case err != nil || approval.HexDigest(statement) != d.Statement:
			bad(f, "the payload of the request is another statement")
		case by.Verify(statement, by.Record.Origin) != nil:
			bad(f, "it does not hold over the statement")
		}
	}
	for _, f := range known.ofKind("unmask.approved") {
		var d detail
		if at, ok := unsigned[f.Key]; ok && first >= 0 && int64(at) > first && json.Unmarshal(f.Detail, &d) == nil && !d.Inspector {
			bad(f, "a name was approved whose request nobody signed")
		}
	}
}
