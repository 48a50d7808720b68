package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/counterseal/counterseal/internal/approval"
	"github.com/counterseal/counterseal/internal/ledger"
	"github.com/counterseal/counterseal/internal/officer"
	"github.com/counterseal/counterseal/internal/passkey"
)

// freshness is how old the cosignature may be under which an officer signs a request: a
// request that was true once may have been taken back since.
const freshness = 5 * time.Minute

// signedBy travels with a statement and shows, to whoever trusts the keys of log and
// witnesses alone, that the holder of a passkey signed it who was enrolled before, and that
// the ledger knows the signature.
type signedBy struct {
	Enrolled  receipt        `json:"enrolled"`  // login.passkey_added, which has the digest of the record
	Requested receipt        `json:"requested"` // approval.requested, which has the digest of the signature
	Signed    passkey.Signed `json:"signed"`
	V         int            `json:"v"`
}

// signer is what a machine knows of who signed, once it has checked.
type signer struct {
	account, passkey string
	synced           bool
	enrolled, stated time.Time // by the ledger
	seen             time.Time // by witnesses: the checkpoint with the request
}

// check refuses what cannot be one. It verifies nothing.
func (b *signedBy) check() error {
	if b.V != 1 || b.Enrolled.V != 1 || b.Requested.V != 1 {
		return errors.New("the request is not signed by passkey")
	}
	return b.Signed.Check()
}

// verify checks that the account signed the statement with a passkey of its own, at an
// origin. v and origin come from elsewhere than the request.
func (b *signedBy) verify(st *approval.Statement, statement []byte, account, origin string, v ledger.Verifiers, now time.Time) (*signer, error) {
	if b == nil {
		return nil, errors.New("the request is not signed by passkey")
	}
	if err := b.check(); err != nil {
		return nil, err
	}
	if b.Signed.Record.Account != account {
		return nil, errors.New("the passkey is of another account than the statement says")
	}
	if err := b.Signed.Verify(statement, origin); err != nil {
		return nil, err
	}
	who := &signer{account: account, synced: b.Signed.Record.BackupEligible}

	enrolled, first, _, err := b.Enrolled.seen("login.passkey_added", v)
	if err != nil {
		return nil, fmt.Errorf("the enrolment of the passkey: %w", err)
	}
	record, err := b.Signed.Record.Digest()
	if err != nil {
		return nil, err
	}
	var e struct{ Account, Passkey, Record string }
	if json.Unmarshal(enrolled.Detail, &e) != nil || e.Account != account || e.Record != record {
		return nil, errors.New("the enrolment is of another passkey or account")
	}
	who.passkey, who.enrolled = e.Passkey, enrolled.Time

	requested, second, seen, err := b.Requested.seen("approval.requested", v)
	if err != nil {
		return nil, fmt.Errorf("the request in the ledger: %w", err)
	}
	digest, err := b.Signed.Digest()
	if err != nil {
		return nil, err
	}
	var r struct{ Signed string }
	if err := about(requested, st, statement); err != nil {
		return nil, fmt.Errorf("the request in the ledger: %w", err)
	}
	if json.Unmarshal(requested.Detail, &r) != nil || r.Signed != digest || requested.Actor != "account:"+account {
		return nil, errors.New("the ledger has the request with another signature")
	}
	who.stated, who.seen = requested.Time, seen

	switch {
	case first >= second || enrolled.Time.After(st.MadeAt().Add(time.Second)): // times of statements are whole seconds
		return nil, errors.New("the passkey was enrolled after the request was made")
	case !requested.Time.Before(st.ExpiresAt()):
		return nil, errors.New("the request was signed after it had expired")
	case !now.Before(st.ExpiresAt()):
		return nil, fmt.Errorf("request %s: %w", st.ID, approval.ErrExpired)
	}
	return who, nil
}

// fresh refuses a request under a checkpoint that witnesses signed too long ago.
func (w *signer) fresh(now time.Time) error {
	if age := now.Sub(w.seen); w.seen.IsZero() || age > freshness || age < -freshness {
		return fmt.Errorf("witnesses signed the ledger with this request longer than %d minutes ago, or their clock and this one differ", int(freshness/time.Minute))
	}
	return nil
}

// show says who signed.
func (w *signer) show(to io.Writer) {
	kind := "bound to one device"
	if w.synced {
		kind = "copies of it may lie on other devices"
	}
	fmt.Fprintf(to, "  signed by  passkey %s of account %s, %s\n  enrolled   %s\n  stated     %s, seen by witnesses %s\n", w.passkey, w.account, kind,
		w.enrolled.UTC().Format(time.RFC3339), w.stated.UTC().Format(time.RFC3339), w.seen.UTC().Format(time.RFC3339))
}

// addOrigin gives a command of an officer's machine the address at which people sign.
func addOrigin(cmd *cobra.Command, origin *string) {
	cmd.Flags().StringVar(origin, "origin", "", "`address` at which people sign in to the server, https://host[:port], known from elsewhere")
}

// again is what to do with a request that does not hold.
func again(err error) error {
	return &exitError{code: exitRefused, err: err, hint: "let who asks fetch it anew: counterseal unmask collect ID -o FILE; where that does not help, ask anew, and tell the overseer"}
}

// signable checks all that an officer's machine can know about a request for a name before
// its officer signs.
func (r *unmaskRequest) signable(st *approval.Statement, origin string, v ledger.Verifiers, now time.Time) (*signer, error) {
	if _, err := r.verify(st, v); err != nil {
		return nil, err
	}
	o, err := parseUnmaskObjects(st.Objects)
	if err != nil {
		return nil, err
	}
	by, err := r.By.verify(st, []byte(r.Statement), o.account, origin, v, now)
	if err != nil {
		return nil, err
	}
	return by, by.fresh(now)
}

// decidesAlone gives what refuses an officer who is the one that asks: by name, and by the
// account that a roster, where one is named, has of the officer.
func decidesAlone(st *approval.Statement, account, path string) (func(*officer.Card) error, error) {
	roster := &officer.Roster{}
	if path != "" {
		data, err := readFile(path, "--officers", "this machine's own copy of officers.yaml")
		if err != nil {
			return nil, err
		}
		if roster, err = officer.ParseRoster(path, data); err != nil {
			return nil, err
		}
	}
	return func(c *officer.Card) error {
		a := roster.Find(c.ID())
		switch {
		case path != "" && a == nil:
			return errors.New("no officer of the roster has this key")
		case officer.Person(c.Name) == officer.Person(st.Requester) || a != nil && a.Account == account:
			return errors.New("who asks for a name does not decide on it")
		}
		return nil
	}, nil
}
