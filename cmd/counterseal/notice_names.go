package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/counterseal/counterseal/internal/cases"
	"github.com/counterseal/counterseal/internal/vault"
)

// namesOpened adds the people whose names two officers of the organisation let be opened, when
// the time of the opening is over. An approval counts, whatever was stated of the opening
// itself: from then on the officers' machines can open it without this server. An opening of
// an inspector's office is not here: nobody but that office knows whose name it was.
func (s *server) namesOpened(ctx context.Context, book *noticeBook, all []cases.Authorisation, rows *[]noticeRow, left map[string][]string) error {
	rec := s.pipe.Recorder()
	facts, err := rec.Facts(ctx, "unmask.approved")
	if err != nil {
		return err
	}
	for _, f := range facts {
		var d unmaskApproved
		if err := json.Unmarshal(f.Detail, &d); err != nil {
			return fmt.Errorf("statement %d: %w", f.Index, err)
		}
		if d.Inspector {
			continue
		}
		ended := f.Time.Add(time.Duration(d.Minutes) * time.Minute)
		if book.now.Before(ended) {
			continue
		}
		asked, ok, err := rec.Fact(ctx, "approval.requested", f.Key)
		if err != nil {
			return err
		}
		var under struct{ Authorisation string }
		_ = json.Unmarshal(asked.Detail, &under) // what names none is of no authorisation
		i := slices.IndexFunc(all, func(a cases.Authorisation) bool { return a.ID == under.Authorisation })
		token, err := "", vault.ErrNoSeal
		if ok && i >= 0 {
			token, err = s.whoseName(ctx, &d)
		}
		if err != nil && !errors.Is(err, vault.ErrNoSeal) {
			return err
		}
		r, who := book.row(f.Key, aboutName, ended, []string{token})
		switch told := book.told[f.Key]; {
		case err != nil && len(told) > 0: // before the seal went
			r.State, r.Told, who = "told", 1, nil
		case err != nil:
			r.State, who = "gone", nil
		}
		*rows, left[f.Key] = append(*rows, r), who
	}
	return nil
}

// whoseName gives the token behind a name that was opened. Its error wraps vault.ErrNoSeal
// where the seal went with the last record.
func (s *server) whoseName(ctx context.Context, d *unmaskApproved) (string, error) {
	o, err := s.askedFor(ctx, d, "")
	if err != nil {
		return "", err
	}
	row, _, err := s.pipe.Vault().At(ctx, o.window, o.index)
	if err != nil {
		return "", err
	}
	return string(row.Token), nil
}
