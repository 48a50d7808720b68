package pipeline

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/counterseal/counterseal/internal/attest"
	"github.com/counterseal/counterseal/internal/keyring"
	"github.com/counterseal/counterseal/internal/vault"
)

// sealEvery is how long a window of the vault is open: a name that was sealed can be
// proved at the latest then.
const sealEvery = 10 * time.Second

// openVault opens the vault. The ledger is open.
func (p *Pipeline) openVault(ctx context.Context, escrow *keyring.Escrow) error {
	var err error
	p.vault, err = vault.Open(ctx, vault.Options{Dir: p.dir, Org: p.keyring.ID(), Escrow: escrow, State: p.stateSealed, Now: p.now})
	if err != nil {
		return err
	}
	return p.restateSealed(ctx)
}

// stateSealed states a window, once.
func (p *Pipeline) stateSealed(ctx context.Context, w vault.Window) error {
	root := hex.EncodeToString(w.Root[:])
	f, ok, err := p.recorder.Fact(ctx, "vault.sealed", w.ID)
	if err != nil {
		return err
	}
	if ok {
		if !strings.Contains(string(f.Detail), `"`+root+`"`) {
			return errors.New("the ledger knows a window of the vault otherwise than the vault")
		}
		if _, current := p.recorder.Own(f.Index); current {
			return nil
		}
	}
	_, err = p.recorder.Record(ctx, attest.Act{
		Kind: "vault.sealed", Actor: attest.System, Subject: []string{w.ID},
		Detail: map[string]any{"window": w.ID, "n": w.N, "root": root},
	})
	return err
}

// restateSealed states the windows of logs that were succeeded in the current one, so that
// they are proven by keys and witnesses of today.
func (p *Pipeline) restateSealed(ctx context.Context) error {
	if _, current := p.recorder.Own(0); current {
		return nil
	}
	all, err := p.vault.Windows(ctx)
	if err != nil {
		return err
	}
	facts, err := p.recorder.Facts(ctx, "vault.sealed")
	if err != nil {
		return err
	}
	today := make(map[string]bool)
	for _, f := range facts {
		_, today[f.Key] = p.recorder.Own(f.Index)
	}
	for _, w := range all {
		if !today[w.ID] {
			if err := p.stateSealed(ctx, w); err != nil {
				return err
			}
		}
	}
	return nil
}

// tendVault closes the windows of the vault until ctx ends. The caller has added it to
// p.record.
func (p *Pipeline) tendVault(ctx context.Context) {
	defer p.record.Done()
	tick := time.NewTicker(sealEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if err := p.vault.CloseWindow(ctx); err != nil && ctx.Err() == nil {
				p.log.Error("what was sealed in the vault could not be stated; tried again", "err", err)
			}
		}
	}
}

// Vault holds the names behind tokens, sealed.
func (p *Pipeline) Vault() *vault.Vault { return p.vault }

// vaultChecks says which names could be opened, and which are lost.
func (p *Pipeline) vaultChecks(ctx context.Context, thorough bool, add func(name, state, text, hint string)) {
	c, err := p.vault.Counts(ctx)
	if err != nil {
		add("names", "fail", "the vault cannot be read", "put a copy of vault/ in its place; docs/operations.md tells how")
		return
	}
	if !p.escrow {
		add("names", "warn", fmt.Sprintf("names are not sealed, so nobody can open one: %d tokens have no seal", c.Unsealed), "name the officers in the file `officers`")
	} else {
		add("names", "ok", fmt.Sprintf("%d tokens have a seal to the officers of now", c.Sealed), "")
		if c.Unsealed > 0 {
			add("names", "warn", fmt.Sprintf("%d tokens have no seal: they were seen before there were officers, or are no names", c.Unsealed), "each is sealed when it is seen again")
		}
		if c.Former > 0 {
			add("names", "warn", fmt.Sprintf("%d tokens have a seal to former officers alone", c.Former), "each is sealed anew when it is seen again; until then the former officers open it")
		}
	}
	if !thorough {
		return
	}
	lost, err := p.lostWindows(ctx)
	var r vault.Report
	var bad []attest.Problem
	if err == nil && lost == 0 { // else nearly all of it is about these
		r, bad, err = p.checkVault(ctx)
	}
	switch wrong := len(r.Findings) + r.More + len(bad); {
	case errors.Is(err, context.DeadlineExceeded):
		add("names", "warn", "there are too many sealed names to compare with the ledger here", "counterseal verify")
	case err != nil:
		add("names", "fail", "the vault cannot be compared with the ledger", "counterseal verify")
	case lost > 0:
		add("names", "warn", fmt.Sprintf("%d windows of the ledger are not in the vault: the names that were sealed in them are lost until they are seen again", lost), "put a newer copy of vault/ in its place, if there is one")
	case wrong > 0:
		add("names", "fail", fmt.Sprintf("%d places of the vault are not as the ledger says: somebody changed the file, or it is damaged", wrong), "counterseal verify names them")
	case len(r.Notes) > 0:
		add("names", "warn", r.Notes[0], "counterseal doctor in a minute")
	}
}

// checkFor is how long somebody who asks the doctor waits for the vault: some 400,000 rows.
const checkFor = 20 * time.Second

// checkVault holds each row of the vault against the ledger.
func (p *Pipeline) checkVault(ctx context.Context) (r vault.Report, bad []attest.Problem, err error) {
	ctx, cancel := context.WithTimeout(ctx, checkFor)
	defer cancel()
	s, err := vault.Look(ctx, p.dir)
	if err != nil {
		return r, nil, err
	}
	defer s.Close()
	sealed, err := p.recorder.Facts(ctx, "vault.sealed")
	if err != nil {
		return r, nil, err
	}
	erased, err := p.recorder.Facts(ctx, "vault.erased")
	if err != nil {
		return r, nil, err
	}
	known, bad := attest.Stated(sealed, erased, p.recorder.Payload)
	known.Org = p.keyring.ID()
	if r, err = s.Check(ctx, known); err != nil && ctx.Err() != nil {
		err = ctx.Err()
	}
	return r, bad, err
}

// lostWindows counts the windows that the ledger knows and the vault does not.
func (p *Pipeline) lostWindows(ctx context.Context) (int, error) {
	facts, err := p.recorder.Facts(ctx, "vault.sealed")
	if err != nil {
		return 0, err
	}
	all, err := p.vault.Windows(ctx)
	if err != nil {
		return 0, err
	}
	have := make(map[string]bool, len(all))
	for _, w := range all {
		have[w.ID] = true
	}
	lost := 0
	for _, f := range facts {
		if !have[f.Key] {
			lost++
		}
	}
	return lost, nil
}
