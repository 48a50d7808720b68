package keyholder

import (
	"encoding/hex"
	"errors"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/counterseal/counterseal/internal/approval"
	"github.com/counterseal/counterseal/internal/keyring"
	"github.com/counterseal/counterseal/internal/pseudonym"
)

// DestroyAction is the action of a statement about the key of an epoch of tokens.
const DestroyAction = "tokenkey.destroy"

// Destruction is what two officers agree to: that the key of an epoch is destroyed. Nobody
// tests a name against a token of it afterwards, who has the key holder neither.
type Destruction struct {
	Epoch int
	Check [16]byte // by which the key is known
	Kept  bool     // records with tokens of it are kept, and it is destroyed all the same
}

// Objects are those of the statement.
func (d Destruction) Objects() []string {
	records := "records none is kept"
	if d.Kept {
		records = "records are kept"
	}
	return []string{"epoch " + strconv.Itoa(d.Epoch), "check " + hex.EncodeToString(d.Check[:]), records}
}

// ParseDestruction reads what a statement is about.
func ParseDestruction(s *approval.Statement) (*Destruction, error) {
	bad := errors.New("the statement is not about the key of an epoch of tokens")
	if s.Action != DestroyAction || len(s.Objects) != 3 {
		return nil, bad
	}
	n, ok1 := strings.CutPrefix(s.Objects[0], "epoch ")
	c, ok2 := strings.CutPrefix(s.Objects[1], "check ")
	epoch, err := strconv.Atoi(n)
	check, herr := hex.DecodeString(c)
	if !ok1 || !ok2 || err != nil || herr != nil || len(check) != 16 || epoch < 1 || epoch > pseudonym.MaxEpoch {
		return nil, bad
	}
	for _, kept := range []bool{false, true} {
		if d := (Destruction{epoch, [16]byte(check), kept}); slices.Equal(d.Objects(), s.Objects) {
			return &d, nil
		}
	}
	return nil, bad
}

// Destroyed is an epoch whose key is gone.
type Destroyed struct {
	Epoch int    `json:"epoch"`
	At    string `json:"at"` // RFC 3339
}

// Destroy destroys the key of an epoch in a folder, under an order: a statement of
// Destruction with the decisions of two officers of the holder's own roster and what shows
// that witnesses have seen their approval, joined by Capability. The newest key stays. The
// holder must not run. It returns when the destruction is durable; done twice it does
// nothing more. epoch is what the caller means.
func Destroy(dir string, epoch int, order []byte, o Options) (err error) {
	h, err := Open(dir, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.Close()) }()
	if h.roster == nil || h.seen == nil {
		return ErrRoster
	}
	now := h.now()
	j := judgement{roster: h.roster, org: h.conf.org, now: now, seen: func(s *approval.Statement, statement []byte, seen Seen) error {
		return h.seen(s, statement, seen, now)
	}}
	var d *Destruction
	if _, err := j.approved(order, func(s *approval.Statement) (err error) {
		d, err = ParseDestruction(s)
		return err
	}); err != nil {
		return err
	}
	m := h.makers[d.Epoch]
	switch {
	case d.Epoch != epoch:
		return errors.New("the order is about another epoch")
	case slices.ContainsFunc(h.destroyed, func(x Destroyed) bool { return x.Epoch == d.Epoch }):
		return nil
	case m == nil:
		return ErrEpoch
	case d.Epoch == h.newest:
		return errors.New("this is the key that tokens are made with: begin another epoch first")
	case m.Bits(0, []byte("check")) != d.Check:
		return errors.New("the officers agreed to destroy another key")
	}
	keys, err := keyring.Load(filepath.Join(dir, "keys", "keyring"), o.Passphrase)
	if err != nil {
		return err
	}
	if err := keys.Destroy(dir, d.Epoch-h.conf.FirstEpoch+1, now, o.Passphrase); err != nil {
		return err
	}
	h.log.Info("the key of an epoch of tokens was destroyed", "epoch", d.Epoch, "at", now.UTC().Format(time.RFC3339))
	return nil
}
