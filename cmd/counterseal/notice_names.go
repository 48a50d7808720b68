package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/counterseal/counterseal/internal/approval"
	"github.com/counterseal/counterseal/internal/cases"
	"github.com/counterseal/counterseal/internal/duty"
	"github.com/counterseal/counterseal/internal/ledger"
	"github.com/counterseal/counterseal/internal/vault"
)

// namesOpened adds the people whose names two officers of the organisation let be opened, when
// the time of the opening is over. An approval counts, whatever was stated of the opening
// itself: from then on the officers' machines can open it without this server; and so does what
// a duty host was asked at night. An opening of an inspector's office is not here: which those
// are the authorisation says.
func (s *server) namesOpened(ctx context.Context, book *noticeBook, all []cases.Authorisation, rows *[]noticeRow, left map[string][]string) error {
	rec := s.pipe.Recorder()
	add := func(id string, ended time.Time, whose func() (string, error)) error {
		if book.now.Before(ended) {
			return nil
		}
		token, err := whose()
		if err != nil && !errors.Is(err, vault.ErrNoSeal) && !errors.Is(err, ledger.ErrNoPayload) {
			return err
		}
		r, who := book.row(id, aboutName, ended, []string{token})
		switch told := book.told[id]; {
		case err != nil && len(told) > 0: // before the seal went
			r.State, r.Told, who = "told", 1, nil
		case err != nil:
			r.State, who = "gone", nil
		}
		*rows, left[id] = append(*rows, r), who
		return nil
	}
	facts, err := rec.Facts(ctx, "unmask.approved")
	if err != nil {
		return err
	}
	for _, f := range facts {
		var d unmaskApproved
		if err := json.Unmarshal(f.Detail, &d); err != nil {
			return fmt.Errorf("statement %d: %w", f.Index, err)
		}
		asked, ok, err := rec.Fact(ctx, "approval.requested", f.Key)
		if err != nil {
			return err
		}
		var under struct{ Authorisation string }
		_ = json.Unmarshal(asked.Detail, &under) // what names none is of no authorisation
		i := slices.IndexFunc(all, func(a cases.Authorisation) bool { return a.ID == under.Authorisation })
		if d.Inspector || ok && i >= 0 && all[i].Inspector {
			continue
		}
		if err := add(f.Key, f.Time.Add(time.Duration(d.Minutes)*time.Minute), func() (string, error) {
			if !ok || i < 0 {
				return "", vault.ErrNoSeal
			}
			o, err := s.askedFor(ctx, &d, "")
			if err != nil {
				return "", err
			}
			return s.behind(ctx, o)
		}); err != nil {
			return err
		}
	}
	if facts, err = rec.Facts(ctx, "duty.asked"); err != nil {
		return err
	}
	for _, f := range facts {
		var d dutyAsked
		if err := json.Unmarshal(f.Detail, &d); err != nil {
			return fmt.Errorf("statement %d: %w", f.Index, err)
		}
		if err := add(f.Key, f.Time.Add(duty.Fresh), func() (string, error) {
			raw, err := rec.Payload(d.Payload)
			if err != nil {
				return "", err
			}
			st, err := approval.Parse(raw)
			if err != nil {
				return "", fmt.Errorf("statement %d: %w", f.Index, err)
			}
			o, err := parseDutyObjects(st.Objects)
			if err != nil {
				return "", fmt.Errorf("statement %d: %w", f.Index, err)
			}
			return s.behind(ctx, &o.unmaskObjects)
		}); err != nil {
			return err
		}
	}
	return nil
}

// behind gives the token of the seal that a statement names. Its error wraps vault.ErrNoSeal
// where the seal went with the last record.
func (s *server) behind(ctx context.Context, o *unmaskObjects) (string, error) {
	row, _, err := s.pipe.Vault().At(ctx, o.window, o.index)
	if err != nil {
		return "", err
	}
	return string(row.Token), nil
}
