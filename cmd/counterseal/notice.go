package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/counterseal/counterseal/internal/attest"
	"github.com/counterseal/counterseal/internal/broker"
	"github.com/counterseal/counterseal/internal/cases"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/pipeline"
	"github.com/counterseal/counterseal/internal/web"
)

// noticeWithin is when people are told after an authorisation about them has ended, and by
// how much an overseer may put it off, each time.
const noticeWithin = 90 * 24 * time.Hour

type (
	noticeRow struct {
		Authorisation string    `json:"authorisation"`   // or the request for a name
		About         string    `json:"about"`           // authorisation, name, or listed: people whom an authorisation showed
		Lists         int       `json:"lists,omitempty"` // of people shown, sealed to the overseers
		Ended         time.Time `json:"ended"`
		People        int       `json:"people"`
		Told          int       `json:"told"`
		Due           time.Time `json:"due"`
		Postponed     int       `json:"postponed"` // how often
		State         string    `json:"state"`     // due, overdue, told, or gone: nobody can find them any more
	}
	noticeNamed struct {
		Authorisation string        `json:"authorisation"`
		Shown         []shownOpened `json:"shown,omitempty"` // of a notice about people who were listed
	}
)

// noticeBook is what the ledger knows of notices: who was told, and what was put off.
type noticeBook struct {
	told      map[string]map[string]bool // by what it is about, by token
	postponed map[string][]time.Time
	now       time.Time
}

func (s *server) noticeBook(ctx context.Context) (*noticeBook, error) {
	b := &noticeBook{postponed: map[string][]time.Time{}, now: s.now()}
	var err error
	if b.told, err = s.toldPeople(ctx); err != nil {
		return nil, err
	}
	later, err := s.pipe.Recorder().Facts(ctx, "notice.postponed")
	if err != nil {
		return nil, err
	}
	for _, f := range later {
		var d struct{ Authorisation, Until string }
		if json.Unmarshal(f.Detail, &d) != nil {
			continue
		}
		if until, err := time.Parse(time.RFC3339, d.Until); err == nil {
			b.postponed[d.Authorisation] = append(b.postponed[d.Authorisation], until)
		}
	}
	return b, nil
}

// row is what is to be told about something that has ended, to whom, and who of them is left.
func (b *noticeBook) row(id, about string, ended time.Time, people []string) (r noticeRow, left []string) {
	r = noticeRow{Authorisation: id, About: about, Ended: ended.UTC().Truncate(time.Second), Due: ended.Add(noticeWithin).UTC().Truncate(time.Second), Postponed: len(b.postponed[id]), People: len(people), State: "due"}
	for _, until := range b.postponed[id] {
		if until.After(r.Due) {
			r.Due = until.UTC()
		}
	}
	for _, token := range people {
		if b.told[id][token] {
			r.Told++
		} else {
			left = append(left, token)
		}
	}
	switch {
	case r.Told == r.People:
		r.State = "told"
	case b.now.After(r.Due):
		r.State = "overdue"
	}
	return r, left
}

// What a notice is about.
const (
	aboutAuthorisation = "authorisation"
	aboutName          = "name"
)

// settled says that nothing is to be done about it.
func (r *noticeRow) settled() bool { return r.State == "told" || r.State == "gone" }

// notices lists the authorisations that have ended and were used, and the names that were
// opened: of each the people are told. left has those who are not, by what it is about.
func (s *server) notices(ctx context.Context) (rows []noticeRow, left map[string][]string, err error) {
	rec := s.pipe.Recorder()
	used := map[string]bool{}
	covers, err := rec.Facts(ctx, attest.CoverUsed)
	if err != nil {
		return nil, nil, err
	}
	for _, f := range covers {
		used[f.Key] = true
	}
	book, err := s.noticeBook(ctx)
	if err != nil {
		return nil, nil, err
	}
	all, err := s.cases.Authorisations(ctx)
	if err != nil {
		return nil, nil, err
	}
	rows, left = []noticeRow{}, map[string][]string{}
	var over []noticeRow
	for _, a := range all {
		if !used[a.ID] || a.State != cases.Ended && a.State != cases.Lapsed {
			continue
		}
		ended := a.Ends
		if f, ok, err := rec.Fact(ctx, "authorisation.ended", a.ID); err != nil {
			return nil, nil, err
		} else if ok && f.Time.Before(ended) {
			ended = f.Time
		}
		over = append(over, noticeRow{Authorisation: a.ID, Ended: ended})
		people := slices.DeleteFunc(slices.Clone(a.Scope.Subjects), func(subject string) bool { return !event.IsToken([]byte(subject)) }) // a server is told nothing
		if len(people) == 0 {
			// It lists people, or is an inspector's.
			continue
		}
		r, who := book.row(a.ID, aboutAuthorisation, ended, people)
		rows, left[a.ID] = append(rows, r), who
	}
	if err := s.namesOpened(ctx, book, all, &rows, left); err != nil {
		return nil, nil, err
	}
	if err := s.listed(ctx, book, over, all, &rows); err != nil {
		return nil, nil, err
	}
	slices.SortFunc(rows, func(a, b noticeRow) int {
		return cmp.Or(cmp.Compare(b2i(a.settled()), b2i(b.settled())), a.Due.Compare(b.Due))
	})
	return rows, left, nil
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// toldPeople gives, by authorisation, who was told: the orders of notices that were done.
func (s *server) toldPeople(ctx context.Context) (map[string]map[string]bool, error) {
	facts, err := s.pipe.Recorder().Facts(ctx, broker.KindOrdered)
	if err != nil {
		return nil, err
	}
	out := map[string]map[string]bool{}
	for _, f := range facts {
		var d broker.Ordered
		if json.Unmarshal(f.Detail, &d) != nil || d.Act != broker.Notify {
			continue
		}
		o, err := s.readOrder(f)
		if err != nil { // its payload is not kept: it was told to somebody, nobody knows whom
			continue
		}
		row, err := s.containRow(ctx, o)
		if err != nil {
			return nil, err
		}
		if row.State == broker.Done {
			if out[o.order.Case] == nil {
				out[o.order.Case] = map[string]bool{}
			}
			out[o.order.Case][o.order.Target] = true
		}
	}
	return out, nil
}

func (s *server) noticeList(ctx context.Context, _ string, _ []byte) (any, error) {
	rows, _, err := s.notices(ctx)
	return rows, err
}

// noticeOf finds one notice that is not told yet.
func (s *server) noticeOf(ctx context.Context, body []byte) (noticeRow, []string, error) {
	var in noticeNamed
	if json.Unmarshal(body, &in) != nil {
		return noticeRow{}, nil, web.BadRequest("this names no authorisation", "")
	}
	rows, left, err := s.notices(ctx)
	if err != nil {
		return noticeRow{}, nil, err
	}
	i := slices.IndexFunc(rows, func(r noticeRow) bool { return r.Authorisation == in.Authorisation })
	switch {
	case i < 0:
		return noticeRow{}, nil, web.BadRequest("nobody is to be told of this: it goes on, nobody used it, or there is none", "counterseal oversight notices")
	case rows[i].State == "told":
		return noticeRow{}, nil, &web.Refused{Reason: "everybody was told already", Hint: "counterseal oversight notices"}
	case rows[i].State == "gone":
		return noticeRow{}, nil, &web.Refused{Reason: "what was sealed of them is gone, or no overseer held a key then, so nobody can find them", Hint: "counterseal oversight notices lists the others"}
	}
	return rows[i], left[in.Authorisation], nil
}

// noticeSend has the people of an authorisation told, one by one. Who could not be told is
// tried again the next time.
func (s *server) noticeSend(ctx context.Context, actor string, body []byte) (any, error) {
	if !s.hasBroker() {
		return nil, &web.Refused{Reason: "no broker is configured, and nobody else knows whom to tell", Hint: brokerHint}
	}
	s.approving.Lock()
	defer s.approving.Unlock()
	row, left, err := s.noticeOf(ctx, body)
	if err != nil {
		return nil, err
	}
	if row.About == aboutListed {
		var in noticeNamed
		if json.Unmarshal(body, &in) != nil {
			return nil, web.BadRequest("this names no authorisation", "")
		}
		return s.tellListed(ctx, actor, row, in.Shown)
	}
	a, failed := web.AskerOf(ctx), 0
	var why *web.Refused
	for _, token := range left {
		_, err := s.order(ctx, actor, a, broker.Order{Act: broker.Notify, Case: row.Authorisation, Target: token}, "")
		switch {
		case errors.As(err, &why):
			failed++
		case err != nil:
			return nil, err
		}
	}
	detail := map[string]any{"authorisation": row.Authorisation, "told": strconv.Itoa(len(left) - failed), "left": strconv.Itoa(failed)}
	if _, err := s.pipe.Recorder().Record(ctx, attest.Act{Kind: "notice.sent", Actor: actor, Subject: []string{row.Authorisation}, Detail: detail}); err != nil {
		return nil, err
	}
	if failed == len(left) {
		return nil, why
	}
	row.Told += len(left) - failed
	if row.Told == row.People {
		row.State = "told"
	}
	return row, nil
}

// noticePostpone puts a notice off by 90 days.
func (s *server) noticePostpone(ctx context.Context, actor string, body []byte) (any, error) {
	if err := s.independent(web.AskerOf(ctx), "puts a notice off"); err != nil {
		return nil, err
	}
	s.approving.Lock()
	defer s.approving.Unlock()
	row, _, err := s.noticeOf(ctx, body)
	if err != nil {
		return nil, err
	}
	if now := s.now(); row.Due.After(now.Add(noticeWithin)) {
		return nil, &web.Refused{Reason: "it is put off already, and due in more than 90 days", Hint: "look at it again then"}
	}
	row.Due = row.Due.Add(noticeWithin)
	row.Postponed++
	// Each has a key of its own, so that they are counted.
	if _, err := s.pipe.Recorder().Record(ctx, attest.Act{Kind: "notice.postponed", Actor: actor, Subject: []string{row.Authorisation + "/" + strconv.Itoa(row.Postponed)},
		Detail: map[string]any{"authorisation": row.Authorisation, "until": row.Due.Format(time.RFC3339)}}); err != nil {
		return nil, err
	}
	row.State = "due"
	return row, nil
}

// noticeChecks tells the doctor who waits to be told.
func (s *server) noticeChecks(ctx context.Context) ([]pipeline.Check, error) {
	rows, _, err := s.notices(ctx)
	if err != nil {
		return nil, err
	}
	due, over := 0, 0
	for _, r := range rows {
		switch r.State {
		case "due":
			due++
		case "overdue":
			over++
		}
	}
	switch {
	case over > 0:
		return []pipeline.Check{{Name: "notices", State: "warn", Text: fmt.Sprintf("the people of %d authorisations and opened names should have been told by now", over), Hint: "an overseer: counterseal oversight notices"}}, nil
	case due > 0:
		return []pipeline.Check{{Name: "notices", State: "ok", Text: fmt.Sprintf("the people of %d authorisations and opened names wait to be told, none overdue", due)}}, nil
	}
	return nil, nil
}

func newNotices(env *environment) *cobra.Command {
	var f configFlags
	var l look
	cmd := &cobra.Command{Use: "notices", Short: "Whose people are to be told that they were looked at", Args: cobra.NoArgs,
		Long: "Notices lists the authorisations that were used and have ended, and the names that were\n" +
			"opened. Their people are told within 90 days, by the broker, which alone knows who they are.\n" +
			"The command that tells them says where to complain: to you. What an inspector's office did\n" +
			"is not here: that office tells people itself.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			var rows []noticeRow
			if err := doActIn(cmd, env, &f, &l, "notice.list", struct{}{}, &rows); err != nil {
				return err
			}
			if len(rows) == 0 {
				_, err := fmt.Fprintln(env.stdout, "nobody is to be told of anything")
				return err
			}
			w := tabwriter.NewWriter(env.stdout, 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "STATE\tDUE\tTOLD\tPUT OFF\tENDED\tABOUT\tID")
			for _, r := range rows {
				told := fmt.Sprintf("%d of %d", r.Told, r.People)
				if r.Lists > 0 {
					told = fmt.Sprintf("%d, and %s", r.Told, counted(r.Lists, "list", "lists"))
				}
				fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\t%s\t%s\n", r.State, r.Due.Format(time.RFC3339), told, r.Postponed, r.Ended.Format(time.RFC3339), r.About, r.Authorisation)
			}
			return w.Flush()
		}}
	f.add(cmd)
	l.add(cmd)
	cmd.AddCommand(newNoticeSend(env), newNoticePostpone(env))
	return cmd
}

func newNoticeSend(env *environment) *cobra.Command {
	var f configFlags
	var l look
	var key, pass string
	cmd := &cobra.Command{Use: "send ID [--key FILE]", Short: "Have its people told", Args: cobra.ExactArgs(1),
		Long: "Send has the broker tell people, one by one. Whom an authorisation listed is sealed to the\n" +
			"overseers: --key opens it, here. What is in the seal is closed to you too, and goes back to\n" +
			"the server, which destroys it when they are told.",
		RunE: func(cmd *cobra.Command, args []string) error {
			in := noticeNamed{Authorisation: args[0]}
			var sealed []shownSealed
			if err := doActIn(cmd, env, &f, &l, "notice.shown", &in, &sealed); err != nil {
				return err
			}
			if len(sealed) > 0 {
				if key == "" {
					return usage("--key is the file of the overseer's key: whom this showed is sealed to it")
				}
				k, err := openKey(env, key, pass)
				if err != nil {
					return err
				}
				for _, one := range sealed {
					open, _, err := openShown(k, one.Sealed)
					if err != nil {
						return &exitError{code: exitFailed, err: err, hint: "the key of oversight that was enrolled then opens it, or its spare"}
					}
					in.Shown = append(in.Shown, shownOpened{one.Look, open})
				}
			}
			var r noticeRow
			if err := doActIn(cmd, env, &f, &l, "notice.send", &in, &r); err != nil {
				return err
			}
			return printNotice(env, &r)
		}}
	f.add(cmd)
	l.add(cmd)
	cmd.Flags().StringVar(&key, "key", "", "`file` of the officer's key, for people whom an authorisation listed")
	cmd.Flags().StringVar(&pass, "passphrase-file", "", "`file` with the passphrase of the key")
	return cmd
}

func printNotice(env *environment, r *noticeRow) error {
	_, err := fmt.Fprintf(env.stdout, "%s  %d of %d told; due %s, put off %d times\n", r.State, r.Told, r.People, r.Due.Format(time.RFC3339), r.Postponed)
	return err
}

func newNoticePostpone(env *environment) *cobra.Command {
	var f configFlags
	var l look
	cmd := &cobra.Command{Use: "postpone ID", Short: "Put it off by 90 days; that is counted, and stands in the ledger", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var r noticeRow
			if err := doActIn(cmd, env, &f, &l, "notice.postpone", &noticeNamed{Authorisation: args[0]}, &r); err != nil {
				return err
			}
			return printNotice(env, &r)
		}}
	f.add(cmd)
	l.add(cmd)
	return cmd
}
