package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/evidence"
	"github.com/counterseal/counterseal/internal/ledger"
	"github.com/counterseal/counterseal/internal/report"
	"github.com/counterseal/counterseal/internal/web"
)

// proveRequest asks for the proof of one record.
type proveRequest struct {
	Ref    string `json:"ref"`
	Stream string `json:"stream"`
	Open   bool   `json:"open"`
}

type proveAnswer struct {
	Proof     string `json:"proof"`
	Witnessed bool   `json:"witnessed"`
}

func newProve(env *environment) *cobra.Command {
	var f configFlags
	var trust trustFlags
	var out, check string
	var q proveRequest
	cmd := &cobra.Command{
		Use:   "prove REF [-o FILE] | prove --verify FILE --log VKEY...",
		Short: "Prove that a record was sealed, or check such a proof",
		Long: "Prove writes the way from the hash of one record to the root of its segment, to the\n" +
			"statement about the segment and to a checkpoint that witnesses have signed. It says\n" +
			"nothing about what is in the record; with --open the record goes along, and the ledger\n" +
			"knows that it was looked at. A reference is what search prints as ref. A finding is\n" +
			"derived: what is proved are the events that it cites, its finding.ref.\n" +
			"With --verify it checks a proof and needs no data directory, no server and no network:\n" +
			"only the public keys of log and witnesses, which come by another way.",
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if check != "" {
				if len(args) > 0 || out != "" {
					return usage("--verify goes without a reference and without -o")
				}
				v, err := trust.named()
				if err != nil {
					return err
				}
				return verifyProof(env, check, v)
			}
			if len(args) != 1 {
				return usage("name a record by its reference, as search prints it, or a proof with --verify")
			}
			if id, ok := findingID(args[0]); ok {
				return &exitError{code: exitUsage, err: errors.New("a finding is derived from events and is not sealed itself: what is proved are the events that it cites"),
					hint: "counterseal search --jsonl - 'finding.id = " + id + "' shows them as finding.ref; then: counterseal prove REF"}
			}
			if _, err := event.ParseRef(args[0]); err != nil {
				return &exitError{code: exitUsage, err: err, hint: "counterseal search prints it as ref"}
			}
			q.Ref = args[0]
			cfg, err := f.load()
			if err != nil {
				return err
			}
			c, err := dial(cmd.Context(), env, cfg)
			if err != nil {
				return err
			}
			var a proveAnswer
			if err := errors.Join(c.act(cmd.Context(), "prove", q, &a), c.close()); err != nil {
				return err
			}
			if !a.Witnessed {
				fmt.Fprintln(env.stderr, "counterseal: no witness has signed over this yet: the proof rests on the log alone")
			}
			if out == "" {
				_, err = io.WriteString(env.stdout, a.Proof)
				return err
			}
			if err := writeNew(out, []byte(a.Proof)); err != nil {
				return err
			}
			_, err = fmt.Fprintf(env.stdout, "wrote %s\ncheck it with: counterseal prove --verify %s %s\n", out, out, trustOf(cfg))
			return err
		},
	}
	f.add(cmd)
	trust.add(cmd)
	cmd.Flags().StringVarP(&out, "output", "o", "", "`file` to write, which must not be there (default standard output)")
	cmd.Flags().StringVar(&q.Stream, "stream", "events", "events or originals")
	cmd.Flags().BoolVar(&q.Open, "open", false, "add the record and its salt: a look at it")
	cmd.Flags().StringVar(&check, "verify", "", "`file` of a proof to check")
	return cmd
}

// findingID reads the reference of a finding, or its id alone.
func findingID(text string) (id string, ok bool) {
	id, named := strings.CutPrefix(text, "finding/")
	if id, _, _ = strings.Cut(id, "/"); !named && id != text {
		return "", false
	}
	b, err := hex.DecodeString(id)
	return id, err == nil && len(b) == 16
}

// trustOf gives the flags that name log and witnesses of a data directory. Whoever
// checks something takes them from elsewhere: what comes with a thing vouches for
// nothing.
func trustOf(cfg config) string {
	log := "VKEY"
	if b, err := os.ReadFile(filepath.Join(cfg.Data, "ledger", "log.vkey")); err == nil {
		log = strings.TrimSpace(string(b))
	}
	s := "--log " + log
	for _, w := range cfg.Witnesses {
		s += " --witness " + w.VKey
	}
	return s
}

// named is what the flags trust, for a check that trusts nothing else.
func (t *trustFlags) named() (ledger.Verifiers, error) {
	if len(t.logs) == 0 {
		return ledger.Verifiers{}, &exitError{code: exitUsage, err: errors.New("--log is missing: the public key of the log, which came by another way than what is checked"),
			hint: "the operator reads it out: the file ledger/log.vkey of the data directory has it"}
	}
	if err := t.check(); err != nil {
		return ledger.Verifiers{}, err
	}
	v := t.verifiers()
	if err := v.Check(); err != nil {
		return v, usage("%v", err)
	}
	return v, nil
}

// decodeAct reads the request of an act.
func decodeAct(body []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return web.BadRequest("the request is not the one of this act", "")
	}
	return nil
}

// maker makes proofs and packages of this server.
func (s *server) maker() *report.Maker {
	return &report.Maker{
		Dir: s.cfg.Data, Org: s.pipe.Org(), Log: s.pipe.Recorder().Origin(), Evidence: s.pipe.Evidence(), Recorder: s.pipe.Recorder(),
		Settle: s.pipe.CloseSegments, Now: s.now,
	}
}

// prove answers the proof of one record.
func (s *server) prove(ctx context.Context, _ string, body []byte) (any, error) {
	var q proveRequest
	if err := decodeAct(body, &q); err != nil {
		return nil, err
	}
	ref, err := event.ParseRef(q.Ref)
	if err != nil {
		return nil, web.BadRequest(err.Error(), "see: counterseal search --help")
	}
	stream, err := evidence.ParseStream(q.Stream)
	if err != nil {
		return nil, web.BadRequest(err.Error(), "")
	}
	if err := s.web.JudgeRecord(ctx, ref.String(), q.Open); err != nil {
		return nil, err
	}
	b, witnessed, err := s.maker().Prove(ctx, stream, ref, q.Open)
	switch {
	case errors.Is(err, evidence.ErrNotClosed):
		return nil, &web.Refused{Reason: "the segment of this record is still being written, so there is no root yet that a proof could lead to",
			Hint: "it is closed after an hour, after 128 MiB, when the server stops, and before a package is made: ask again then"}
	case errors.Is(err, evidence.ErrPosition):
		return nil, web.BadRequest("no sealed record has this reference", "search prints references as ref")
	case errors.Is(err, evidence.ErrSealed):
		return nil, &web.Refused{Reason: "the original is sealed to two officers, so its proof can be had without it only", Hint: "leave --open out, or see: counterseal evidence unlock"}
	case errors.Is(err, evidence.ErrNoKey):
		return nil, &web.Refused{Reason: "the key of this record was destroyed: its proof can be had without it only", Hint: "leave --open out"}
	case err != nil:
		return nil, err
	}
	return proveAnswer{string(b), witnessed}, nil
}

func verifyProof(env *environment, path string, v ledger.Verifiers) error {
	b, err := readFile(path, "--verify", "counterseal prove REF -o FILE writes a proof")
	if err != nil {
		return err
	}
	p, err := report.VerifyProof(b, v)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	text, err := p.Text()
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	fmt.Fprintf(env.stdout, "record     %s, one of %d in its segment of %s\n", p.Ref, p.Size, p.Stream)
	fmt.Fprintf(env.stdout, "statement  %d of the ledger, %s\n", p.Index, p.Statement.Time.Format("2006-01-02T15:04:05.000000Z"))
	if v.Threshold > 0 {
		fmt.Fprintf(env.stdout, "witnesses  at least %d of %d have cosigned\n", v.Threshold, len(v.Witnesses))
	} else {
		fmt.Fprintln(env.stdout, "witnesses  none was named: the log alone vouches for it")
	}
	if text != "" {
		fmt.Fprintf(env.stdout, "content    %s\n", event.Printable(text))
	}
	_, err = fmt.Fprintln(env.stdout, "the proof holds")
	return err
}
