package lifecycle

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/counterseal/counterseal/internal/attest"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/evidence"
	"github.com/counterseal/counterseal/internal/ledger"
	"github.com/counterseal/counterseal/internal/state"
	"github.com/counterseal/counterseal/internal/vault"
)

// Sealed names end in two ways: no record is left that holds their token, or two officers
// agreed that those of one person are erased. Both state first which rows go, and the rows
// go then; what a crash cuts off between the two is ended by the next start. Decision record
// 0027 says why.

// ErasureAction is the action of a statement about an erasure.
const ErasureAction = "vault.erase"

// MaxErasure bounds the tokens of one statement.
const MaxErasure = 32

// Erasure is one token whose rows are to be erased: as the case of the statement shows it,
// and a place of the vault where a row of it stands. No token is in it.
type Erasure struct {
	Alias string
	At    vault.Place
}

// ErasureObjects are the objects of a statement: alias and place, by turns.
func ErasureObjects(all []Erasure) []string {
	var out []string
	for _, e := range all {
		out = append(out, "alias "+e.Alias, "row "+e.At.Window+" "+strconv.FormatInt(e.At.Index, 10))
	}
	return out
}

// ParseErasure reads the objects of a statement and refuses every other form.
func ParseErasure(objects []string) ([]Erasure, error) {
	bad := errors.New("the statement does not name sealed names to erase")
	if len(objects) == 0 || len(objects)%2 != 0 || len(objects) > 2*MaxErasure {
		return nil, bad
	}
	var out []Erasure
	for i := 0; i < len(objects); i += 2 {
		var e Erasure
		var rest, n string
		var ok, more bool
		e.Alias, ok = strings.CutPrefix(objects[i], "alias ")
		rest, more = strings.CutPrefix(objects[i+1], "row ")
		e.At.Window, n, _ = strings.Cut(rest, " ")
		id, uerr := uuid.Parse(e.At.Window)
		at, err := strconv.ParseInt(n, 10, 64)
		if !ok || !more || e.Alias == "" || err != nil || uerr != nil || id.String() != e.At.Window || at < 0 || strconv.FormatInt(at, 10) != n {
			return nil, bad
		}
		e.At.Index = at
		out = append(out, e)
	}
	return out, nil
}

// ErasureApproved is the detail of erasure.approved.
type ErasureApproved struct {
	Case      string `json:"case"`
	Request   string `json:"request"`
	Statement string `json:"statement"` // SHA-256 of the statement, which is a payload
}

// ErasureState is an erasure that two officers approved.
type ErasureState struct {
	Request  string     `json:"request"`
	Case     string     `json:"case"`
	Approved time.Time  `json:"approved"`
	Erased   *time.Time `json:"erased,omitempty"` // when it was stated; nil: something keeps it, or witnesses are awaited
	Rows     int        `json:"rows"`
}

// Erasures lists what was approved, oldest first. It does not say what keeps the rest: the
// hold of an inspector's office is not for others to know.
func (l *Lifecycle) Erasures(ctx context.Context) ([]ErasureState, error) {
	facts, err := l.o.Statements.Facts(ctx, "erasure.approved")
	if err != nil {
		return nil, err
	}
	slices.SortFunc(facts, func(a, b state.Fact) int { return cmp.Compare(a.Index, b.Index) })
	out := []ErasureState{}
	for _, f := range facts {
		var d ErasureApproved
		if err := json.Unmarshal(f.Detail, &d); err != nil {
			return nil, fmt.Errorf("statement %d: %w", f.Index, err)
		}
		e := ErasureState{Request: f.Key, Case: d.Case, Approved: f.Time}
		done, ok, err := l.o.Statements.Fact(ctx, "vault.erased", f.Key)
		if err != nil {
			return nil, err
		}
		if ok {
			var d attest.Erased
			if err := json.Unmarshal(done.Detail, &d); err != nil {
				return nil, fmt.Errorf("statement %d: %w", done.Index, err)
			}
			e.Erased, e.Rows = &done.Time, d.Rows
		}
		out = append(out, e)
	}
	return out, nil
}

// EraseApproved erases what two officers approved, as far as no hold of any kind keeps it.
// What is kept stays approved, and every pass tries it again.
func (l *Lifecycle) EraseApproved(ctx context.Context) error {
	if l.o.Agree != nil {
		if err := l.o.Agree(ctx); err != nil { // as a pass
			return fmt.Errorf("nothing is erased: %w", err)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	_, err := l.eraseApproved(ctx)
	return err
}

// eraseApproved is EraseApproved; it answers how many rows went. The caller holds mu.
func (l *Lifecycle) eraseApproved(ctx context.Context) (rows int64, err error) {
	if l.o.Vault == nil {
		return 0, nil
	}
	all, err := l.Erasures(ctx)
	if err != nil {
		return 0, err
	}
	for _, e := range all {
		if e.Erased == nil {
			if err := l.stateErasure(ctx, e.Request); err != nil {
				return rows, fmt.Errorf("erasing for request %s: %w", e.Request, err)
			}
		}
	}
	return l.eraseStated(ctx)
}

// stateErasure states which rows are erased for a request, unless a hold keeps them. The
// caller holds mu.
func (l *Lifecycle) stateErasure(ctx context.Context, request string) error {
	seen, _ := l.o.Ledger.Witnessed()
	approved, ok, err := l.o.Statements.Fact(ctx, "erasure.approved", request)
	if err != nil || !ok || approved.Index >= seen {
		return err // what no witness has seen is not approved yet
	}
	tokens, err := l.erasureTokens(ctx, approved)
	if err != nil {
		return err
	}
	for _, t := range tokens {
		if held, err := l.nameHeld(ctx, t); err != nil || held {
			return err
		}
	}
	if err := l.o.Vault.CloseWindow(ctx); err != nil { // each row has a place
		return err
	}
	places, err := l.o.Vault.Places(ctx, tokens)
	if err != nil {
		return err
	}
	act, err := l.erasedAct(places, attest.ErasedByRequest, request)
	if err != nil {
		return err
	}
	_, err = l.o.Statements.Critical(ctx, act)
	if errors.Is(err, ledger.ErrUnwitnessed) { // it stands and waits, or is made at another time
		return nil
	}
	return err
}

// erasedAct is the statement about rows that are erased.
func (l *Lifecycle) erasedAct(places []vault.Place, reason, id string) (attest.Act, error) {
	list, err := vault.EncodeList(places)
	if err != nil {
		return attest.Act{}, err
	}
	d := attest.Erased{Reason: reason, Rows: len(places)}
	if reason == attest.ErasedByRequest {
		d.Request = id
	}
	windows := map[string]bool{}
	for _, p := range places {
		windows[p.Window] = true
	}
	d.Windows = len(windows)
	if d.List, err = l.o.Ledger.PutPayload(list); err != nil {
		return attest.Act{}, err
	}
	return attest.Act{Kind: "vault.erased", Actor: attest.System, Subject: []string{id}, Detail: d}, nil
}

// erasureTokens gives the tokens of an approved request of which a row is left.
func (l *Lifecycle) erasureTokens(ctx context.Context, approved state.Fact) ([]event.Token, error) {
	var d ErasureApproved
	if err := json.Unmarshal(approved.Detail, &d); err != nil {
		return nil, fmt.Errorf("statement %d: %w", approved.Index, err)
	}
	st, err := attest.Requested(ctx, struct {
		Statements
		Ledger
	}{l.o.Statements, l.o.Ledger}, d.Request, d.Statement)
	if err != nil {
		return nil, err
	}
	all, err := ParseErasure(st.Objects)
	if err != nil {
		return nil, err
	}
	var out []event.Token
	for _, e := range all {
		t, err := l.o.Vault.TokenAt(ctx, e.At)
		if err != nil {
			return nil, err
		}
		if t != "" && !slices.Contains(out, t) {
			out = append(out, t)
		}
	}
	return out, nil
}

// nameHeld reports whether a hold in force keeps the name of a token: records that hold it
// may have been sealed in a compartment and week that the hold covers. As for segments, a
// source, a case or a token narrows nothing.
func (l *Lifecycle) nameHeld(ctx context.Context, t event.Token) (bool, error) {
	holds, err := l.Holds(ctx)
	if err != nil {
		return false, err
	}
	seen, err := l.o.Vault.Seen(ctx, t)
	if err != nil {
		return false, err
	}
	for i := range holds {
		if h := &holds[i]; h.InForce() && (h.Unread || slices.ContainsFunc(seen, h.Scope.saw)) {
			return true, nil
		}
	}
	return false, nil
}

// saw says whether a scope covers a week in which records with a token were sealed.
func (s *Scope) saw(v vault.Seen) bool {
	if s.Compartment != "" && v.Compartment != "" && s.Compartment != v.Compartment {
		return false
	}
	for _, w := range v.Weeks {
		until := !s.from.IsZero() && w < vault.Week(s.from)
		behind := !s.to.IsZero() && w > vault.Week(s.to) && v.Compartment != "" // else: up to this week
		if !until && !behind {
			return true
		}
	}
	return false
}

// eraseStated deletes the rows that a statement says are erased, where it was not done. What
// a person asked for waits for witnesses, and for a hold that was placed since. The caller
// holds mu.
func (l *Lifecycle) eraseStated(ctx context.Context) (rows int64, err error) {
	if l.o.Vault == nil {
		return 0, nil
	}
	facts, err := l.o.Statements.Facts(ctx, "vault.erased")
	if err != nil || len(facts) == 0 {
		return 0, err
	}
	done, err := l.o.Vault.Done(ctx)
	if err != nil {
		return 0, err
	}
	if facts = slices.DeleteFunc(facts, func(f state.Fact) bool { return done[f.Key] }); len(facts) == 0 {
		return 0, nil
	}
	if l.o.Agree != nil {
		if err := l.o.Agree(ctx); err != nil { // what was stated may be what somebody wrote into the state
			l.log.Error("nothing is erased that seems to have been stated", "err", err)
			return 0, nil
		}
	}
	seen, _ := l.o.Ledger.Witnessed()
	slices.SortFunc(facts, func(a, b state.Fact) int { return cmp.Compare(a.Index, b.Index) })
	for _, f := range facts {
		known, bad := attest.Stated(nil, []state.Fact{f}, l.o.Ledger.Payload)
		if len(bad) > 0 { // verify says it as well
			l.log.Error("rows of the vault are not erased: the list of a statement cannot be read", "statement", f.Index)
			continue
		}
		var d attest.Erased
		if err := json.Unmarshal(f.Detail, &d); err != nil {
			return rows, fmt.Errorf("statement %d: %w", f.Index, err)
		}
		places := known.Erased[0].Places
		if d.Reason == attest.ErasedByRequest {
			wait := f.Index >= seen
			for _, p := range places {
				if wait {
					break
				}
				t, err := l.o.Vault.TokenAt(ctx, p)
				if err != nil {
					return rows, err
				}
				if t == "" {
					continue
				}
				if wait, err = l.nameHeld(ctx, t); err != nil {
					return rows, err
				}
			}
			if wait {
				continue
			}
		}
		n, err := l.o.Vault.Erase(ctx, f.Key, places)
		rows += n
		if err != nil {
			return rows, err
		}
	}
	return rows, nil
}

// sealedNames erases what was approved, and, where something was destroyed, the names that
// outlived their records.
func (l *Lifecycle) sealedNames(ctx context.Context, w *world) (rows int64, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if rows, err = l.eraseApproved(ctx); err != nil || !l.names {
		return rows, err
	}
	n, err := l.outlived(ctx, w)
	l.names = err != nil
	return rows + n, err
}

// outlived erases the names of which no record is left. The caller holds mu.
func (l *Lifecycle) outlived(ctx context.Context, w *world) (int64, error) {
	if l.o.Vault == nil {
		return 0, nil
	}
	gone, err := l.goneWeeks(ctx, w)
	if err != nil {
		return 0, err
	}
	tokens, err := l.o.Vault.Outlived(ctx, gone, l.now())
	if err != nil || len(tokens) == 0 {
		return 0, err
	}
	if err := l.o.Vault.CloseWindow(ctx); err != nil {
		return 0, err
	}
	return l.o.Vault.EraseOutlived(ctx, tokens, func(places []vault.Place) (string, error) {
		id, err := uuid.NewV7()
		if err != nil {
			return "", err
		}
		act, err := l.erasedAct(places, attest.ErasedByRetention, id.String())
		if err == nil {
			_, err = l.o.Statements.Record(ctx, act)
		}
		return id.String(), err
	})
}

// goneWeeks tells of which weeks of a compartment no record of the event stream is left: the
// ledger says that each segment of it was destroyed. One that it knows and that is not there
// may come back, from a backup say, and keeps its names. The empty compartment asks about all
// of them, up to a week.
func (l *Lifecycle) goneWeeks(ctx context.Context, w *world) (func(compartment string, week int) bool, error) {
	type span struct{ from, to int }
	live := map[string][]span{}
	there := map[string]bool{}
	for _, comp := range l.o.Evidence.Compartments(evidence.Events) {
		infos, err := l.o.Evidence.Segments(evidence.Events, comp)
		if err != nil {
			return nil, fmt.Errorf("looking at the evidence: %w", err)
		}
		for i := range infos {
			s := describe(&infos[i], l.now())
			there[s.Segment.String()] = true
			if s.State == "open" || !w.isGone(s) {
				live[comp] = append(live[comp], span{vault.Week(s.first), vault.Week(s.last)})
			}
		}
	}
	opened, err := l.o.Statements.Facts(ctx, "segment.opened")
	if err != nil {
		return nil, err
	}
	for _, f := range opened {
		if _, done := w.done[f.Key]; done || there[f.Key] {
			continue
		}
		var d struct{ Compartment, Stream string }
		id, err := uuid.Parse(f.Key)
		if err == nil {
			err = json.Unmarshal(f.Detail, &d)
		}
		if err != nil {
			return nil, fmt.Errorf("reading statement %d: %w", f.Index, err)
		}
		if d.Stream == evidence.Events.String() { // it ended with its week, or the next
			made := vault.Week(time.Unix(id.Time().UnixTime()))
			live[d.Compartment] = append(live[d.Compartment], span{made, made + 1})
		}
	}
	now := vault.Week(l.now())
	return func(compartment string, week int) bool {
		if week >= now {
			return false
		}
		for comp, spans := range live {
			for _, s := range spans {
				if compartment == "" && s.from <= week || compartment == comp && s.from <= week && week <= s.to {
					return false
				}
			}
		}
		return true
	}, nil
}
