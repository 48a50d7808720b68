package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"github.com/counterseal/counterseal/internal/approval"
	"github.com/counterseal/counterseal/internal/attest"
	"github.com/counterseal/counterseal/internal/broker"
	"github.com/counterseal/counterseal/internal/cases"
	"github.com/counterseal/counterseal/internal/discloser"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/keyring"
	"github.com/counterseal/counterseal/internal/ledger"
	"github.com/counterseal/counterseal/internal/state"
	"github.com/counterseal/counterseal/internal/web"
)

// An authorisation that lists people names none of them: whom it showed is known from the
// answers alone. Who was shown is kept until they are told, in a box that takes two to open: a
// key of the overseers, and then the keyring of this server. Neither learns whom it is about
// from the other; told, the box is destroyed, and so is whom each order was about. The overseers'
// layer has veils of the same people too, which a list of protected disclosers is compared with.

const (
	shownName    = "notice.shown/v2"
	shownFirst   = "notice.shown/v1" // without veils
	shownPurpose = "notice/shown"
	aboutListed  = "listed"
	listedSuffix = ".listed" // after the id of the authorisation: what such a notice is about
	maxShown     = 1 << 20   // bytes of a form
	maxLists     = 5000      // of one notice
)

type (
	// shownForm is the payload of look.shown.
	shownForm struct {
		Boxes []keyring.Box `json:"boxes"`
		Epoch int           `json:"epoch"`
		Form  string        `json:"form"`
		Look  string        `json:"look"`
		Org   string        `json:"org"`
	}
	// shownDetail is the detail of look.shown.
	shownDetail struct {
		Authorisation string         `json:"authorisation"`
		Kept          bool           `json:"kept"` // false: no overseer holds a key
		Shown         *ledger.Digest `json:"shown,omitempty"`
	}
	shownSealed struct {
		Look   string `json:"look"`
		Sealed []byte `json:"sealed"` // notice.shown/v1
	}
	// shownInside is what the overseers' seal of notice.shown/v2 has.
	shownInside struct {
		Closed string           `json:"closed"` // a box of the keyring, unpadded base64url
		Veils  []discloser.Veil `json:"veils"`
	}
	shownOpened struct {
		Look string `json:"look"`
		Open []byte `json:"open"` // what was in the seal; this server alone reads it
	}
)

func parseShown(b []byte) (*shownForm, error) {
	var f shownForm
	if err := approval.DecodeUpTo(maxShown, b, &f); err != nil {
		return nil, err
	}
	look, err := uuid.Parse(f.Look)
	org, oerr := uuid.Parse(f.Org)
	switch {
	case f.Form != shownName && f.Form != shownFirst:
		return nil, errors.New("form is another one")
	case err != nil || look.String() != f.Look || oerr != nil || org.String() != f.Org:
		return nil, errors.New("look and org are UUIDs")
	case f.Epoch < 1:
		return nil, errors.New("epoch is a number from 1")
	}
	_, err = keyring.ParseEach(f.Boxes, 0)
	return &f, err
}

func shownInfo(org uuid.UUID, epoch int, look string) keyring.SealInfo {
	return keyring.SealInfo{Purpose: shownPurpose, Org: org, Epoch: epoch, Subject: look}
}

// openShown is the part of an overseer. What it gives is still closed to them, but for veils.
func openShown(k keyring.Opener, raw []byte) (closed []byte, veils []discloser.Veil, err error) {
	closed, veils, err = openedShown(k, raw)
	if err != nil {
		err = fmt.Errorf("whom an answer showed: %w", err)
	}
	return closed, veils, err
}

func openedShown(k keyring.Opener, raw []byte) (closed []byte, veils []discloser.Veil, err error) {
	f, err := parseShown(raw)
	if err != nil {
		return nil, nil, err
	}
	plain, err := keyring.OpenEach(k, shownInfo(uuid.MustParse(f.Org), f.Epoch, f.Look), f.Boxes)
	if err != nil || f.Form == shownFirst {
		return plain, nil, err
	}
	var in shownInside
	if err := approval.DecodeUpTo(maxShown, plain, &in); err != nil {
		return nil, nil, err
	}
	closed, err = base64.RawURLEncoding.Strict().DecodeString(in.Closed)
	return closed, in.Veils, err
}

// keepShown keeps whom an answer under an authorisation that lists people showed.
func (s *server) keepShown(ctx context.Context, actor, look, authorisation string, tokens []string) error {
	d := shownDetail{Authorisation: authorisation}
	keys, epoch, err := s.overseerKeys()
	if err != nil {
		return err
	}
	rec := s.pipe.Recorder()
	if len(keys) > 0 {
		plain, err := json.Marshal(tokens)
		if err != nil {
			return err
		}
		blob, err := s.pipe.WrapShown(plain, []byte(look))
		if err != nil {
			return err
		}
		in := shownInside{Closed: base64.RawURLEncoding.EncodeToString(blob), Veils: []discloser.Veil{}}
		for _, t := range tokens {
			in.Veils = append(in.Veils, discloser.VeilOf(event.Token(t)))
		}
		inside, err := approval.Canonical(&in)
		if err != nil {
			return err
		}
		f := shownForm{Epoch: epoch, Form: shownName, Look: look, Org: s.pipe.Org().String()}
		if f.Boxes, err = keyring.SealEach(keys, shownInfo(s.pipe.Org(), epoch, look), inside); err != nil {
			return err
		}
		raw, err := approval.Canonical(&f)
		if err != nil {
			return err
		}
		digest, err := rec.PutPayload(raw)
		if err != nil {
			return err
		}
		d.Kept, d.Shown = true, &digest
	}
	_, err = rec.Record(ctx, attest.Act{Kind: "look.shown", Actor: actor, Subject: []string{look}, Detail: d})
	return err
}

// shownList is one answer's list as the ledger has it.
type shownList struct {
	fact   state.Fact
	detail shownDetail
	kept   bool // its payload is there: nobody was told yet, and it was not taken away
}

// lists gives what is kept of each authorisation.
func (s *server) lists(ctx context.Context) (map[string][]shownList, error) {
	rec := s.pipe.Recorder()
	facts, err := rec.Facts(ctx, "look.shown")
	if err != nil {
		return nil, err
	}
	out := map[string][]shownList{}
	for _, f := range facts {
		l := shownList{fact: f}
		if err := json.Unmarshal(f.Detail, &l.detail); err != nil {
			return nil, fmt.Errorf("statement %d: %w", f.Index, err)
		}
		if l.detail.Shown != nil {
			_, err := rec.Payload(*l.detail.Shown)
			if err != nil && !errors.Is(err, ledger.ErrNoPayload) {
				return nil, err
			}
			l.kept = err == nil
		}
		out[l.detail.Authorisation] = append(out[l.detail.Authorisation], l)
	}
	return out, nil
}

// listed adds the notices about authorisations that listed people. How many they are nobody
// knows before an overseer opens the lists.
func (s *server) listed(ctx context.Context, book *noticeBook, ended []noticeRow, all []cases.Authorisation, rows *[]noticeRow) error {
	lists, err := s.lists(ctx)
	if err != nil {
		return err
	}
	for _, e := range ended {
		i := slices.IndexFunc(all, func(a cases.Authorisation) bool { return a.ID == e.Authorisation })
		if i < 0 || all[i].Inspector || len(lists[e.Authorisation]) == 0 {
			continue
		}
		id := e.Authorisation + listedSuffix
		r, _ := book.row(id, aboutListed, e.Ended, nil)
		sent, ok, err := s.pipe.Recorder().Fact(ctx, "notice.sent", id)
		if err != nil {
			return err
		}
		if ok {
			var d struct{ Told, Left string }
			_ = json.Unmarshal(sent.Detail, &d) // what it does not say is 0
			told, _ := strconv.Atoi(d.Told)
			left, _ := strconv.Atoi(d.Left)
			r.Told, r.People = told, told+left
		}
		missing := 0
		for _, l := range lists[e.Authorisation] {
			switch {
			case l.kept:
				r.Lists++
			case !ok || sent.Index < l.fact.Index: // never kept, or taken away before anybody was told
				missing++
			}
		}
		switch {
		case r.Lists > 0 && book.now.After(r.Due):
			r.State = "overdue"
		case r.Lists > 0:
			r.State = "due"
		case missing > 0:
			r.State = "gone"
		default:
			r.State = "told"
		}
		*rows = append(*rows, r)
	}
	return nil
}

// noticeShown gives an overseer the lists of a notice that is due, sealed.
func (s *server) noticeShown(ctx context.Context, _ string, body []byte) (any, error) {
	row, _, err := s.noticeOf(ctx, body)
	if err != nil {
		return nil, err
	}
	out := []shownSealed{}
	if row.About != aboutListed {
		return out, nil
	}
	lists, err := s.lists(ctx)
	if err != nil {
		return nil, err
	}
	room := maxShownBytes // those beyond it come when these are told
	for _, l := range lists[strings.TrimSuffix(row.Authorisation, listedSuffix)] {
		if !l.kept || len(out) == maxLists {
			continue
		}
		sealed, err := s.pipe.Recorder().Payload(*l.detail.Shown)
		if err != nil {
			return nil, err
		}
		if room -= len(sealed); room < 0 && len(out) > 0 {
			break
		}
		out = append(out, shownSealed{l.fact.Key, sealed})
	}
	return out, nil
}

// tellListed tells those of the lists that an overseer has opened, each once. A list is
// destroyed when all of it are told; of those who could not be told a new one is kept.
func (s *server) tellListed(ctx context.Context, actor string, row noticeRow, opened []shownOpened) (noticeRow, error) {
	authorisation := strings.TrimSuffix(row.Authorisation, listedSuffix)
	lists, err := s.lists(ctx)
	if err != nil {
		return row, err
	}
	if len(opened) == 0 || len(opened) > maxLists {
		return row, web.BadRequest("whom it showed is sealed to the overseers, and nobody has opened it", "counterseal oversight notices send ID --key FILE")
	}
	tokens := make([][]string, len(opened))
	of := make([]shownList, len(opened))
	for i, o := range opened {
		at := slices.IndexFunc(lists[authorisation], func(l shownList) bool { return l.fact.Key == o.Look && l.kept })
		plain, err := s.pipe.UnwrapShown(o.Open, []byte(o.Look))
		if at < 0 || err != nil || json.Unmarshal(plain, &tokens[i]) != nil || slices.ContainsFunc(opened[:i], func(before shownOpened) bool { return before.Look == o.Look }) {
			return row, web.BadRequest("what was opened is of none of these lists", "counterseal oversight notices send ID --key FILE")
		}
		of[i] = lists[authorisation][at]
	}
	rec, a := s.pipe.Recorder(), web.AskerOf(ctx)
	failed, told := map[string]bool{}, map[string]bool{}
	var why *web.Refused
	for i := range tokens {
		var left []string
		for _, token := range tokens[i] {
			if !event.IsToken([]byte(token)) || told[token] {
				continue
			}
			if !failed[token] {
				_, err := s.order(ctx, actor, a, broker.Order{Act: broker.Notify, Case: row.Authorisation, Target: token}, "")
				switch {
				case err == nil:
					told[token] = true
					continue
				case !errors.As(err, &why):
					return row, err
				}
				failed[token] = true
			}
			left = append(left, token)
		}
		if len(left) > 0 && len(left) < len(tokens[i]) {
			if err := s.keepShown(ctx, actor, of[i].fact.Key, authorisation, left); err != nil {
				return row, err
			}
		}
		if len(left) < len(tokens[i]) {
			if err := rec.Ledger().DropPayload(*of[i].detail.Shown); err != nil {
				return row, err
			}
		}
	}
	if _, err := rec.Record(ctx, attest.Act{Kind: "notice.sent", Actor: actor, Subject: []string{row.Authorisation},
		Detail: map[string]any{"authorisation": row.Authorisation, "told": strconv.Itoa(len(told)), "left": strconv.Itoa(len(failed))}}); err != nil {
		return row, err
	}
	if len(told) == 0 && why != nil {
		return row, why
	}
	rows, _, err := s.notices(ctx)
	if err != nil {
		return row, err
	}
	if i := slices.IndexFunc(rows, func(r noticeRow) bool { return r.Authorisation == row.Authorisation }); i >= 0 {
		return rows[i], nil
	}
	return row, nil
}
