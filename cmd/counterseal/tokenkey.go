package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/counterseal/counterseal/internal/approval"
	"github.com/counterseal/counterseal/internal/attest"
	"github.com/counterseal/counterseal/internal/keyholder"
	"github.com/counterseal/counterseal/internal/officer"
	"github.com/counterseal/counterseal/internal/web"
)

// tokenkeyAsk asks two officers to destroy the key of an epoch of tokens.
type tokenkeyAsk struct {
	Epoch     int    `json:"epoch"`
	Case      string `json:"case"`
	Reason    string `json:"reason"`
	Requester string `json:"requester"`
	Kept      bool   `json:"kept"` // also where records of it are kept
}

// tokenkeyApproved is the detail of tokenkey.approved.
type tokenkeyApproved struct {
	Case      string `json:"case"`
	Check     string `json:"check"`
	Epoch     int    `json:"epoch"`
	Minutes   int    `json:"minutes"`
	Records   string `json:"records"` // kept or none
	Request   string `json:"request"`
	Statement string `json:"statement"`
}

// orderFor is how long an approved destruction can be carried out.
const orderFor = 24 * time.Hour

// tokenkeyRequest makes a request to the officers. It destroys nothing: the holder does.
func (s *server) tokenkeyRequest(ctx context.Context, actor string, body []byte) (any, error) {
	var ask tokenkeyAsk
	if json.Unmarshal(body, &ask) != nil || ask.Epoch < 1 {
		return nil, web.BadRequest("this is no request to destroy the key of an epoch", "epochs are numbers from 1")
	}
	t := s.tokens
	switch {
	case t.client == nil || t.own && ask.Epoch == 1:
		return nil, &web.Refused{Reason: "the key of this epoch is the one of the data directory, which everything else is made of", Hint: "counterseal keyholder init begins an epoch whose key can be destroyed"}
	case ask.Epoch >= t.epoch:
		return nil, &web.Refused{Reason: fmt.Sprintf("tokens are made with the key of epoch %d, and later ones are not begun", t.epoch), Hint: "begin another epoch first: counterseal keyholder rotate, and start the server"}
	}
	who, err := s.epochKey(ctx, ask.Epoch)
	if errors.Is(err, keyholder.ErrEpoch) {
		return nil, &web.Refused{Reason: "the key holder has no key of this epoch", Hint: "it may be destroyed already: the ledger says so (key.destroyed)"}
	}
	if err != nil {
		return nil, err
	}
	d := keyholder.Destruction{Epoch: ask.Epoch, Check: who.Check}
	if d.Kept, err = s.epochKept(ctx, ask.Epoch); err != nil {
		return nil, err
	}
	if d.Kept && !ask.Kept {
		return nil, &web.Refused{Reason: "records with tokens of this epoch are kept, by their retention or a hold", Hint: "wait until they are destroyed, or ask the officers to agree all the same: --although-kept"}
	}
	return s.askOfficers(ctx, actor, approval.Ask{Action: keyholder.DestroyAction, Case: ask.Case, Purpose: ask.Reason, Requester: ask.Requester, Objects: d.Objects(), Grant: orderFor})
}

// epochKept tells whether a record, or a sealed name, with a token of an epoch may be left.
// What a hold keeps is among them.
func (s *server) epochKept(ctx context.Context, epoch int) (bool, error) {
	n, err := s.pipe.Vault().OfEpoch(ctx, epoch)
	return n > 0, err
}

// epochKey asks the key holder by what the key of an epoch is known.
func (s *server) epochKey(ctx context.Context, epoch int) (keyholder.Identity, error) {
	c, err := s.tokens.connect(ctx, epoch)
	if err != nil {
		return keyholder.Identity{}, err
	}
	return c.Identity(), c.Close()
}

// tokenkeyApprove checks the decisions and states them. What it answers is, with them, the
// order that the key holder carries out.
func (s *server) tokenkeyApprove(ctx context.Context, actor string, body []byte) (any, error) {
	no := func(reason string) error { return fmt.Errorf("%w: %s", attest.ErrNotApproved, reason) }
	return s.approve(ctx, actor, body, ceremony{
		action: keyholder.DestroyAction, kind: "tokenkey.approved", hint: "ask with counterseal keyholder destroy EPOCH -o FILE; two people of two offices sign it: counterseal officer sign",
		check: func(ctx context.Context, st *approval.Statement, signed []approval.Signed, roster *officer.Roster) error {
			d, err := keyholder.ParseDestruction(st)
			if err != nil {
				return no(err.Error())
			}
			if err := apart(st, signed, roster); err != nil {
				return no(err.Error())
			}
			kept, err := s.epochKept(ctx, d.Epoch)
			if err == nil && kept && !d.Kept {
				err = no("records with tokens of this epoch are kept, and the statement says that none is")
			}
			return err
		},
		state: func(st *approval.Statement, digest string) ([]string, any, error) {
			d, err := keyholder.ParseDestruction(st)
			if err != nil {
				return nil, nil, err
			}
			records := "none"
			if d.Kept {
				records = "kept"
			}
			return []string{st.ID}, tokenkeyApproved{Case: st.Case, Check: hex.EncodeToString(d.Check[:]), Epoch: d.Epoch, Minutes: st.Minutes, Records: records, Request: st.ID, Statement: digest}, nil
		},
	})
}

// stateDestroyed states which keys the holder says are gone, once each. One that nobody
// approved alarms.
func (s *server) stateDestroyed(ctx context.Context, st keyholder.Stats) error {
	rec := s.pipe.Recorder()
	for _, gone := range st.Destroyed {
		key := "token/" + strconv.Itoa(gone.Epoch)
		if _, told, err := rec.Fact(ctx, "key.destroyed", key); err != nil {
			return err
		} else if told {
			continue
		}
		all, err := rec.Facts(ctx, "tokenkey.approved")
		if err != nil {
			return err
		}
		detail := map[string]any{"purpose": "token", "key": key, "epoch": gone.Epoch, "at": gone.At}
		for _, f := range all {
			var d tokenkeyApproved
			if err := json.Unmarshal(f.Detail, &d); err != nil {
				return fmt.Errorf("statement %d: %w", f.Index, err)
			}
			if d.Epoch == gone.Epoch {
				detail["request"], detail["check"] = d.Request, d.Check
			}
		}
		if detail["request"] == nil {
			if _, err := rec.Record(ctx, attest.Act{Kind: "alarm.raised", Actor: attest.System, Subject: []string{key}, Detail: map[string]any{"alarm": "tokenkey.unapproved", "epoch": gone.Epoch}}); err != nil {
				return err
			}
		}
		if _, err := rec.Record(ctx, attest.Act{Kind: "key.destroyed", Actor: attest.System, Subject: []string{key}, Detail: detail}); err != nil {
			return err
		}
	}
	return nil
}

func newKeyholderDestroy(env *environment) *cobra.Command {
	var f configFlags
	var ask tokenkeyAsk
	var out, request, dir, order, pass string
	var decisions []string
	cmd := &cobra.Command{
		Use:   "destroy EPOCH --case C --reason TEXT --requester NAME -o REQUEST | EPOCH --request FILE --decision FILE --decision FILE -o ORDER | EPOCH --dir DIR --order FILE",
		Short: "Destroy the key of an old epoch of tokens, by two officers",
		Long: "Whoever has the key of an epoch tests known names against its tokens. Destroy ends that.\n" +
			"The server writes a request (-o), one officer of each office signs it (officer sign), the\n" +
			"server takes both decisions (--request) and writes an order, and on the machine of the key\n" +
			"holder, which must not run, the order destroys the key (--dir). The holder checks it by its\n" +
			"own officers.yaml and the keys of the ledger in its folder. The ledger says so at the next\n" +
			"start of the server (key.destroyed).\n\n" +
			"Where records or sealed names of the epoch are kept, by their retention or a hold, the\n" +
			"request is refused; --although-kept asks the officers to agree all the same. Backups of\n" +
			"the folder have the key still, and an SSD may remember it: that it is gone can be\n" +
			"attested and not proven. Original records and sealed names tell who it was as before.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			if ask.Epoch, err = strconv.Atoi(args[0]); err != nil || ask.Epoch < 1 {
				return usage("an epoch is a number from 1: counterseal keys list, or the start of the key holder, shows it")
			}
			if order != "" || dir != "" {
				if err := need(cmd, "dir", "order"); err != nil {
					return err
				}
				return destroyTokenKey(env, ask.Epoch, dir, order, pass)
			}
			if err := errors.Join(need(cmd, "output"), free(out)); err != nil {
				return err
			}
			if request == "" {
				if err := need(cmd, "case", "reason", "requester"); err != nil {
					return err
				}
				var r officerRequest
				if err := doAct(cmd, env, &f, "tokenkey.request", &ask, &r); err != nil {
					return err
				}
				return sendRequest(env, out, &r, r.Statement)
			}
			in := unlockDecided{}
			if in.Statement, _, err = readStatement(request); err != nil {
				return err
			}
			if in.Decisions, err = readDecisions(decisions); err != nil {
				return err
			}
			var got receipt
			if err := doAct(cmd, env, &f, "tokenkey.approve", &in, &got); err != nil {
				return err
			}
			b, err := keyholder.Capability([]byte(in.Statement), in.Decisions, keyholder.Seen(got))
			if err != nil {
				return err
			}
			if err := writeNew(out, b); err != nil {
				return err
			}
			_, err = fmt.Fprintf(env.stdout, "wrote %s; within a day, where the key holder is stopped: counterseal keyholder destroy %d --dir DIR --order %s\n", out, ask.Epoch, out)
			return err
		},
	}
	f.add(cmd)
	cmd.Flags().StringVar(&ask.Case, "case", "", "`number` of the case")
	cmd.Flags().StringVar(&ask.Reason, "reason", "", "why, in a sentence that names nobody")
	cmd.Flags().StringVar(&ask.Requester, "requester", "", "your `name`, as the officers know you")
	cmd.Flags().BoolVar(&ask.Kept, "although-kept", false, "ask also where records of the epoch are kept: the officers read it")
	cmd.Flags().StringVar(&request, "request", "", "`file` of the request that the officers signed")
	cmd.Flags().StringArrayVar(&decisions, "decision", nil, "`file` of a decision; two are needed")
	cmd.Flags().StringVar(&dir, "dir", "", "`folder` of the key holder, on its machine")
	cmd.Flags().StringVar(&order, "order", "", "`file` that the server wrote for the key holder")
	cmd.Flags().StringVar(&pass, "passphrase-file", "", "`file` with the passphrase of the key holder's keys")
	cmd.Flags().StringVarP(&out, "output", "o", "", "`file` of the request or the order, which must not be there")
	return cmd
}

func destroyTokenKey(env *environment, epoch int, dir, order, pass string) error {
	b, err := readFile(order, "--order", "counterseal keyholder destroy EPOCH --request FILE writes it, on the server")
	if err != nil {
		return err
	}
	err = keyholder.Destroy(dir, epoch, b, keyholder.Options{Passphrase: passphrase(env, pass, "passphrase of the key holder's keys", false), Ledger: holderLedger})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(env.stdout, "the key of epoch %d is destroyed here\ndestroy every backup of the folder from before, and start the server: it states key.destroyed\n", epoch)
	return err
}
