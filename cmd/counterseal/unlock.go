package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/counterseal/counterseal/internal/approval"
	"github.com/counterseal/counterseal/internal/attest"
	"github.com/counterseal/counterseal/internal/evidence"
	"github.com/counterseal/counterseal/internal/ledger"
	"github.com/counterseal/counterseal/internal/officer"
	"github.com/counterseal/counterseal/internal/web"
)

// unlockRequest is what travels from the server to the officers: what they are asked,
// and the sealed keys. Nothing in it is secret.
type unlockRequest struct {
	Segments  []sealedSegment `json:"segments"`
	Statement string          `json:"statement"`
	V         int             `json:"v"`

	sealed []*evidence.SealedKey
}

// sealedSegment is one segment of a request: its card and the first bytes of its file,
// unpadded base64url.
type sealedSegment struct {
	Card string `json:"card"`
	Head string `json:"head"`
}

func (s *sealedSegment) key() (*evidence.SealedKey, error) {
	head, herr := base64.RawURLEncoding.DecodeString(s.Head)
	card, cerr := base64.RawURLEncoding.DecodeString(s.Card)
	if herr != nil || cerr != nil {
		return nil, errors.New("not a request to unlock")
	}
	return evidence.ParseSealedKey(head, card)
}

// maxUnlock is how many segments one statement can name, and maxRequest the bytes of the
// request about them: a sealed card and its head are some 11 KiB.
const (
	maxUnlock    = 32
	maxRequest   = maxUnlock * 32 << 10
	actionUnlock = "evidence.unlock"
)

func parseRequest(b []byte) (*unlockRequest, *approval.Statement, error) {
	bad := errors.New("not a request to unlock")
	var r unlockRequest
	if err := approval.DecodeUpTo(maxRequest, b, &r); err != nil || r.V != 2 || len(r.Segments) == 0 || len(r.Segments) > maxUnlock {
		return nil, nil, bad
	}
	for i := range r.Segments {
		k, err := r.Segments[i].key()
		if err != nil {
			return nil, nil, err
		}
		r.sealed = append(r.sealed, k)
	}
	s, err := approval.Parse([]byte(r.Statement))
	if err != nil {
		return nil, nil, err
	}
	return &r, s, nil
}

func readRequest(path string) (*unlockRequest, *approval.Statement, error) {
	b, err := readFile(path, "the request", "counterseal evidence unlock writes one")
	if err != nil {
		return nil, nil, err
	}
	r, s, err := parseRequest(b)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	return r, s, nil
}

// objects are what a statement about these keys must name.
func (r *unlockRequest) objects() []string {
	var out []string
	for _, k := range r.sealed {
		out = append(out, k.Objects()...)
	}
	return out
}

// unlockAsk is what a person asks the server for.
type unlockAsk struct {
	Segments    []string  `json:"segments,omitempty"`
	Compartment string    `json:"compartment,omitempty"`
	From        time.Time `json:"from"`
	To          time.Time `json:"to"`
	Case        string    `json:"case"`
	Purpose     string    `json:"purpose"`
	Requester   string    `json:"requester"`
	Minutes     int       `json:"minutes"`
}

// unlockRequest makes a request to the officers and states it under the eyes of the
// witnesses. It opens nothing: this server cannot.
func (s *server) unlockRequest(ctx context.Context, actor string, body []byte) (any, error) {
	var ask unlockAsk
	if err := json.Unmarshal(body, &ask); err != nil {
		return nil, web.BadRequest("this is no request to unlock", "")
	}
	ids, err := s.asked(&ask)
	if err != nil {
		return nil, err
	}
	r := unlockRequest{V: 2}
	if r.Segments, r.sealed, err = s.sealedSegments(ids); err != nil {
		return nil, err
	}
	var subject []string
	for _, id := range ids {
		subject = append(subject, id.String())
	}
	org, err := uuid.Parse(r.sealed[0].Org())
	if err != nil {
		return nil, err
	}
	st, statement, err := approval.New(approval.Ask{
		Action: actionUnlock, Case: ask.Case, Purpose: ask.Purpose, Requester: ask.Requester, Objects: r.objects(), Org: org, Grant: time.Duration(ask.Minutes) * time.Minute,
	}, s.now())
	if err != nil {
		return nil, web.BadRequest(err.Error(), "")
	}
	r.Statement = string(statement)
	if err := s.requested(ctx, actor, st, statement, nil, subject...); err != nil {
		return nil, err
	}
	return &r, nil
}

// sealedSegments reads the sealed keys of segments.
func (s *server) sealedSegments(ids []uuid.UUID) (out []sealedSegment, keys []*evidence.SealedKey, err error) {
	b64 := base64.RawURLEncoding.EncodeToString
	for _, id := range ids {
		k, err := evidence.ReadSealedKey(s.cfg.Data, id)
		if err != nil {
			return nil, nil, web.BadRequest(err.Error(), "counterseal verify --format jsonl lists segments; those of the stream originals are sealed")
		}
		keys, out = append(keys, k), append(out, sealedSegment{Card: b64(k.Card), Head: b64(k.Head)})
	}
	return out, keys, nil
}

// asked finds the segments that a request is about.
func (s *server) asked(ask *unlockAsk) ([]uuid.UUID, error) {
	var ids []uuid.UUID
	for _, text := range ask.Segments {
		id, err := uuid.Parse(text)
		if err != nil {
			return nil, web.BadRequest("a segment is named by its id", "")
		}
		ids = append(ids, id)
	}
	if ask.Compartment != "" {
		if ask.From.IsZero() || !ask.From.Before(ask.To) {
			return nil, web.BadRequest("a range has a beginning and an end", "name them with --from and --to")
		}
		more, err := s.pipe.Originals(ask.Compartment, ask.From, ask.To)
		if err != nil {
			return nil, err
		}
		ids = append(ids, more...)
	}
	switch {
	case len(ids) == 0:
		return nil, web.BadRequest("no segment of originals was sealed in this range", "counterseal verify --format jsonl lists segments")
	case len(ids) > maxUnlock:
		return nil, web.BadRequest(fmt.Sprintf("%d segments are in this range; one statement names %d", len(ids), maxUnlock), "ask for a shorter range")
	}
	return ids, nil
}

// word is a text as the purpose of a statement, empty where it is no word.
func word(text string) string {
	if ledger.IsWord(text) {
		return text
	}
	return ""
}

// unlockDecided brings the decisions of the officers to the server.
type unlockDecided struct {
	Statement string            `json:"statement"`
	Decisions []approval.Signed `json:"decisions"`
}

// receipt shows that witnesses have seen the statement about an opening.
type receipt struct {
	Leaf  string `json:"leaf"`  // the statement, as it stands in the ledger
	Proof string `json:"proof"` // c2sp.org/tlog-proof
	V     int    `json:"v"`
}

// unlockApprove checks the decisions, states them, and states the opening under the
// eyes of the witnesses. What it answers lets the officers' machines open.
func (s *server) unlockApprove(ctx context.Context, actor string, body []byte) (any, error) {
	return s.approve(ctx, actor, body, ceremony{
		action: actionUnlock, kind: "unlock.opened", hint: "ask with counterseal evidence unlock; two people of two offices sign it: counterseal officer sign",
		state: func(st *approval.Statement, digest string) ([]string, any, error) {
			subject := []string{st.ID}
			for _, o := range st.Objects {
				if i := strings.LastIndexByte(o, '/'); i >= 0 {
					subject = append(subject, o[i+1:])
				}
			}
			return subject, map[string]any{"request": st.ID, "statement": digest, "minutes": st.Minutes}, nil
		},
	})
}

// ceremony is an act that two officers approve on their machines, and that lets them open
// something there.
type ceremony struct {
	action, kind, hint string // of the statement, of the one about the opening, and what to do where it is refused
	// check, where it is set, must hold beside the decisions. Its error wraps
	// attest.ErrNotApproved where it says no.
	check func(ctx context.Context, st *approval.Statement, signed []approval.Signed, roster *officer.Roster) error
	// inside is set for an inspector's office: its case stands in no leaf.
	inside bool
	// state gives subject and detail of the statement about the opening.
	state func(st *approval.Statement, digest string) ([]string, any, error)
}

// approve checks the decisions, states them, and states the opening under the eyes of the
// witnesses. Asked again after an answer that got lost, it gives the same receipt.
func (s *server) approve(ctx context.Context, actor string, body []byte, c ceremony) (any, error) {
	var in unlockDecided
	if err := json.Unmarshal(body, &in); err != nil {
		return nil, web.BadRequest("these are no decisions", "")
	}
	s.approving.Lock()
	defer s.approving.Unlock()
	statement := []byte(in.Statement)
	digest := approval.HexDigest(statement)
	rec := s.pipe.Recorder()
	roster, err := s.cfg.roster()
	if err != nil {
		return nil, err
	}
	st, err := approval.Parse(statement)
	if err == nil { // or Approve says what it is not
		opened, ok, err := rec.Fact(ctx, c.kind, st.ID)
		if err != nil {
			return nil, err
		}
		if ok && strings.Contains(string(opened.Detail), digest) {
			if err := attest.Use(ctx, rec, actor, st.ID); err != nil {
				return nil, err
			}
			return s.receiptOf(ctx, opened.Index)
		}
		if c.check != nil && roster != nil && st.Action == c.action {
			err = c.check(ctx, st, in.Decisions, roster)
		}
		if err != nil {
			return nil, c.refused(err)
		}
	}
	st, err = attest.Approve(ctx, rec, attest.Approval{
		Statement: statement, Action: c.action, Org: s.pipe.Org().String(), Signed: in.Decisions, Roster: roster, Actor: actor, Now: s.now(),
	})
	if err != nil {
		return nil, c.refused(err)
	}
	act := attest.Act{Kind: c.kind, Actor: actor}
	if !c.inside {
		act.Purpose = word(st.Case)
	}
	if act.Subject, act.Detail, err = c.state(st, digest); err != nil {
		return nil, err
	}
	got, err := rec.Critical(ctx, act)
	if err != nil {
		return nil, err
	}
	if err := attest.Use(ctx, rec, actor, st.ID); err != nil {
		return nil, err
	}
	return s.receiptOf(ctx, got.Index)
}

func (c *ceremony) refused(err error) error {
	if errors.Is(err, attest.ErrNotApproved) {
		return &web.Refused{Reason: err.Error(), Hint: c.hint}
	}
	return err
}

// receiptOf proves a statement that witnesses have seen.
func (s *server) receiptOf(ctx context.Context, index uint64) (*receipt, error) {
	l := s.pipe.Recorder()
	if seen, _ := l.Witnessed(); seen <= index {
		return nil, fmt.Errorf("the statement stands and waits: %w", ledger.ErrUnwitnessed)
	}
	leaf, err := l.Leaf(ctx, index)
	if err != nil {
		return nil, err
	}
	proof, err := l.Prove(ctx, index)
	if err != nil {
		return nil, err
	}
	return &receipt{Leaf: string(leaf), Proof: string(proof), V: 1}, nil
}

func readReceipt(path string) (*receipt, error) {
	b, err := readFile(path, "--receipt", "the approve command of this request writes it, such as counterseal evidence approve")
	if err != nil {
		return nil, err
	}
	var r receipt
	if err := approval.Decode(b, &r); err != nil || r.V != 1 {
		return nil, fmt.Errorf("%s is not a receipt", path)
	}
	return &r, nil
}

// proved gives the statement of a receipt, if it is of a kind and witnesses have seen it. It
// trusts the keys of v alone.
func (r *receipt) proved(kind string, v ledger.Verifiers) (*ledger.Statement, error) {
	s, _, _, err := r.seen(kind, v)
	return s, err
}

// seen is proved and tells where the statement stands in its log, and when witnesses had
// signed the checkpoint.
func (r *receipt) seen(kind string, v ledger.Verifiers) (*ledger.Statement, uint64, time.Time, error) {
	index, at, err := ledger.VerifyProofAt([]byte(r.Leaf), []byte(r.Proof), v)
	if err != nil {
		return nil, 0, at, err
	}
	s, err := ledger.Parse([]byte(r.Leaf))
	if err != nil {
		return nil, 0, at, err
	}
	if s.Kind != kind {
		return nil, 0, at, errors.New("it is about another act")
	}
	return &s, index, at, nil
}

// check proves that the ledger has a statement of a kind about this statement.
func (r *receipt) check(kind string, st *approval.Statement, statement []byte, v ledger.Verifiers) (*ledger.Statement, error) {
	s, err := r.proved(kind, v)
	if err != nil {
		return nil, fmt.Errorf("the receipt: %w", err)
	}
	if err := about(s, st, statement); err != nil {
		return nil, fmt.Errorf("the receipt: %w", err)
	}
	return s, nil
}

// about says whether a statement of the ledger is about this one.
func about(s *ledger.Statement, st *approval.Statement, statement []byte) error {
	var d struct{ Request, Statement string }
	if json.Unmarshal(s.Detail, &d) != nil || d.Request != st.ID || d.Statement != approval.HexDigest(statement) {
		return errors.New("it is of another act")
	}
	return nil
}

func newEvidenceUnlock(env *environment) *cobra.Command {
	var f configFlags
	var ask unlockAsk
	var from, to, out string
	var grant time.Duration
	cmd := &cobra.Command{Use: "unlock --segment ID | --compartment C --from TIME --to TIME --case C --purpose TEXT --requester NAME -o FILE", Short: "Ask two officers to open originals", Args: cobra.NoArgs,
		Long: "Unlock writes a request and opens nothing: this server cannot. The request is a statement\n" +
			"that witnesses have seen. Both officers sign it on their machines (officer sign), the\n" +
			"server takes both decisions (evidence approve), oversight opens its layer, then\n" +
			"investigation its own (officer open). What comes out opens copies of the segment files\n" +
			"(evidence read) for a time.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if ask.From, err = flagTime("from", from); err != nil {
				return err
			}
			if ask.To, err = flagTime("to", to); err != nil {
				return err
			}
			if len(ask.Segments) == 0 && ask.Compartment == "" {
				return misused(cmd, "--segment, or --compartment with --from and --to, is missing: what to open")
			}
			if ask.Compartment != "" {
				if err := need(cmd, "from", "to"); err != nil {
					return err
				}
			}
			if err := errors.Join(need(cmd, "case", "purpose", "requester", "output"), free(out)); err != nil {
				return err
			}
			ask.Minutes = int(grant / time.Minute)
			var r unlockRequest
			if err := doAct(cmd, env, &f, "unlock.request", &ask, &r); err != nil {
				return err
			}
			return sendRequest(env, out, &r, r.Statement)
		}}
	f.add(cmd)
	cmd.Flags().StringArrayVar(&ask.Segments, "segment", nil, "`id` of a segment; repeats")
	cmd.Flags().StringVar(&ask.Compartment, "compartment", "", "`name` of a compartment, with a range")
	cmd.Flags().StringVar(&from, "from", "", "earliest `time` of sealing, RFC 3339")
	cmd.Flags().StringVar(&to, "to", "", "latest `time` of sealing, RFC 3339")
	cmd.Flags().StringVar(&ask.Case, "case", "", "`number` of the case")
	cmd.Flags().StringVar(&ask.Purpose, "purpose", "", "why, in a sentence")
	cmd.Flags().StringVar(&ask.Requester, "requester", "", "`name` of who asks")
	cmd.Flags().DurationVar(&grant, "for", 8*time.Hour, "how long the keys may be used")
	cmd.Flags().StringVarP(&out, "output", "o", "", "`file` of the request, which must not be there")
	return cmd
}

func newEvidenceApprove(env *environment) *cobra.Command {
	cmd := newBringDecisions(env, "unlock.approve", "", func(path string) (string, error) {
		r, _, err := readRequest(path)
		if err != nil {
			return "", err
		}
		return r.Statement, nil
	})
	cmd.Long = "Approve checks both decisions, states them and the opening in the ledger, waits for the\n" +
		"witnesses, and writes the receipt. A refusal is stated as well, and final."
	return cmd
}

// newBringDecisions is the command that brings the decisions of two officers about a
// request to an act, and writes the receipt with which they open. statement reads the
// request; next is what is printed behind the name of the receipt.
func newBringDecisions(env *environment, act, next string, statement func(path string) (string, error)) *cobra.Command {
	var f configFlags
	var decisions []string
	var out string
	cmd := &cobra.Command{Use: "approve REQUEST --decision FILE --decision FILE -o FILE", Short: "Bring the decisions of two officers and get the receipt with which they open", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := errors.Join(need(cmd, "output"), free(out)); err != nil {
				return err
			}
			var in unlockDecided
			var err error
			if in.Statement, err = statement(args[0]); err != nil {
				return err
			}
			if in.Decisions, err = readDecisions(decisions); err != nil {
				return err
			}
			var got json.RawMessage
			if err := doAct(cmd, env, &f, act, &in, &got); err != nil {
				return err
			}
			b, err := approval.Canonical(got)
			if err != nil {
				return err
			}
			if err := writeNew(out, b); err != nil {
				return err
			}
			_, err = fmt.Fprintf(env.stdout, "wrote %s%s\n", out, next)
			return err
		}}
	f.add(cmd)
	cmd.Flags().StringArrayVar(&decisions, "decision", nil, "`file` of a decision; repeats")
	cmd.Flags().StringVarP(&out, "output", "o", "", "`file` of the receipt, which must not be there")
	return cmd
}

// doAct asks the running server, or one in this process, for an act.
func doAct(cmd *cobra.Command, env *environment, f *configFlags, name string, in, out any) (err error) {
	cfg, err := f.load()
	if err != nil {
		return err
	}
	c, err := dial(cmd.Context(), env, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	return c.act(cmd.Context(), name, in, out)
}
