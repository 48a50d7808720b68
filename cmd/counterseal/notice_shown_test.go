package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/counterseal/counterseal/internal/broker"
	"github.com/counterseal/counterseal/internal/keyring"
	"github.com/counterseal/counterseal/internal/ledger"
	"github.com/counterseal/counterseal/internal/officer"
)

// TestListedTold: whom an authorisation showed that lists people is told after it has ended. What
// is kept for it opens neither to the server alone nor to an overseer alone; afterwards nothing
// in the ledger, in the facts or with the broker says whom. Who could not be told is told another
// day, and nobody twice.
func TestListedTold(t *testing.T) {
	t.Parallel()
	b := readers(t)
	tasks := b.broker(6) // notices a day
	listing := func() authorisationRow {
		now := b.now()
		var r authorisationRow
		b.does(0, "authorise.request", authoriseAsk{Sources: []string{"linux"}, From: now.AddDate(0, 0, -30), To: now.Add(time.Hour), Reverse: true, Predicate: "finding-1", Basis: "law-1", Ends: now.AddDate(0, 0, 2)}, &r, 200, "")
		b.does(privacyOfficer, "authorise", authoriseNamed{ID: r.ID, Digest: r.Digest, Approve: true}, &r, 200, "approved")
		return r
	}
	unkept := listing()
	b.asks(readFew, 200, "person-") // nobody holds a key
	b.does(0, "authorise.end", authoriseNamed{ID: unkept.ID, Reason: "done"}, nil, 200, "")

	keys := layInspectorKeys(t, b.dir)
	b.s.cfg.Officers = filepath.Join(b.dir, "officers.yaml")
	r := listing()
	b.asks(readFew, 200, "person-")
	b.asks(readFew+" and source = linux", 200, "person-")
	b.later(49 * time.Hour)
	var rows []noticeRow
	list := func() noticeRow {
		t.Helper()
		rows = nil
		b.does(overseer, "notice.list", struct{}{}, &rows, 200, "")
		for _, row := range rows {
			if row.Authorisation == r.ID+listedSuffix {
				return row
			}
		}
		t.Fatalf("no notice: %+v", rows)
		return noticeRow{}
	}
	if row := list(); row.About != aboutListed || row.State != "due" || row.Lists != 2 || row.Due.Sub(row.Ended) != noticeWithin {
		t.Fatalf("got %+v", row)
	}
	if len(rows) != 2 || rows[1].State != "gone" || rows[1].Authorisation != unkept.ID+listedSuffix {
		t.Errorf("without a key: %+v", rows)
	}
	id := noticeNamed{Authorisation: r.ID + listedSuffix}
	b.does(overseer, "notice.send", id, nil, 400, "nobody has opened it")
	b.does(0, "notice.shown", id, nil, 403, "")

	// opened is the part of an overseer, on a machine of their own.
	opened := func(k *officer.Key) (out []shownOpened) {
		t.Helper()
		var sealed []shownSealed
		b.does(overseer, "notice.shown", id, &sealed, 200, "")
		for _, one := range sealed {
			open, veils, err := openShown(k, one.Sealed)
			if err != nil {
				t.Fatal(err)
			}
			if len(veils) == 0 || len(veils) > 9 {
				t.Errorf("%d veils", len(veils))
			}
			if hasToken(open) || hasToken(one.Sealed) {
				t.Error("an overseer, or the server, sees whom it is about")
			}
			out = append(out, shownOpened{one.Look, open})
		}
		for _, other := range []*officer.Key{keys[0], keys[5]} {
			if _, _, err := openShown(other, sealed[0].Sealed); !errors.Is(err, keyring.ErrNotForKey) {
				t.Errorf("another key: %v", err)
			}
		}
		return out
	}
	var tokens []string
	for _, one := range opened(keys[3]) {
		plain, err := b.s.pipe.UnwrapShown(one.Open, []byte(one.Look))
		if err != nil {
			t.Fatal(err)
		}
		var some []string
		if err := json.Unmarshal(plain, &some); err != nil {
			t.Fatal(err)
		}
		tokens = append(tokens, some...)
	}

	// An overseer's list finds its people among those who were shown, in the look that showed
	// them, and their machine learns of nobody else.
	disclosers := listOf(t, keys[1], tokens[0])
	targets := b.queue().queueTargets
	matches, closed := compare(disclosers, keys[1], &targets)
	if closed > 0 || len(matches) == 0 || matches[0].Kind != "listed" || matches[0].Person != "" || !slices.ContainsFunc(opened(keys[1]), func(o shownOpened) bool { return o.Look == matches[0].ID }) {
		t.Errorf("somebody on a list was shown: %+v, %d closed", matches, closed)
	}
	if some, closed := compare(listOf(t, keys[1], "p1_aaaaaaaaaaaaaaaaaaaaaaaaaa"), keys[1], &targets); closed > 0 || len(some) != 0 {
		t.Errorf("somebody else is taken for one: %+v", some)
	}
	spoilt := targets
	spoilt.Shown = append([]targetShown{{ID: "x", Sealed: []byte("{}")}}, targets.Shown...)
	if some, closed := compare(disclosers, keys[1], &spoilt); closed != 1 || len(some) != len(matches) {
		t.Errorf("one list that does not open: %+v, %d closed", some, closed)
	}
	forged := opened(keys[1])
	forged[0].Look, forged[1].Look = forged[1].Look, forged[0].Look
	b.does(overseer, "notice.send", noticeNamed{id.Authorisation, forged}, nil, 400, "none of these lists")
	b.does(overseer, "notice.send", noticeNamed{id.Authorisation, append(opened(keys[1]), opened(keys[1])...)}, nil, 400, "none of these lists")
	for day, want := range []struct {
		tasks int
		state string
	}{{6, "due"}, {9, "told"}} {
		var row noticeRow
		b.does(overseer, "notice.send", noticeNamed{id.Authorisation, opened(keys[1])}, &row, 200, "")
		if tasks() != want.tasks || row.State != want.state {
			t.Fatalf("day %d: %d told in all, %+v", day+1, tasks(), row)
		}
		b.later(25 * time.Hour)
	}
	if row := list(); row.Lists != 0 || row.State != "told" {
		t.Errorf("got %+v", row)
	}
	b.does(overseer, "notice.shown", id, nil, 403, "told already")
	orders, err := b.s.pipe.Recorder().Facts(t.Context(), broker.KindOrdered)
	if err != nil || len(orders) < 9 {
		t.Fatalf("%d orders, %v", len(orders), err)
	}
	for _, f := range orders {
		if _, err := b.s.readOrder(f); !errors.Is(err, ledger.ErrNoPayload) {
			t.Errorf("an order says whom it was about: %v", err)
		}
	}
	b.stop()
	if told := ledgerTold(t, filepath.Join(b.dir, "data")); !strings.Contains(told, "look.shown "+ownActor()) || hasToken([]byte(told)) {
		t.Error("the ledger does not say that it was kept, or says whom")
	}
	for _, folder := range []string{"data/ledger", "data/state/state.db", "broker"} {
		err := filepath.WalkDir(filepath.Join(b.dir, folder), func(path string, d os.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			raw, err := os.ReadFile(path)
			for _, token := range tokens {
				if bytes.Contains(raw, []byte(token)) {
					t.Errorf("%s holds whom a list was about", path)
				}
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
}

// FuzzShown: what is taken has bounds, and what was altered does not open.
func FuzzShown(f *testing.F) {
	k, err := officer.New("Officer", officer.Oversight, false)
	if err != nil {
		f.Fatal(err)
	}
	org, look := uuid.MustParse("01900000-0000-7000-8000-000000000001"), "01900000-0000-7000-8000-000000000002"
	box, err := keyring.SealTo(k.Card().Seal, shownInfo(org, 1, look), keyring.RoleOnly, []byte(`{"closed":"eA","veils":[]}`))
	if err != nil {
		f.Fatal(err)
	}
	form := shownForm{Boxes: []keyring.Box{{Box: base64.RawURLEncoding.EncodeToString(box), Key: k.SealKey().String()}}, Epoch: 1, Form: shownName, Look: look, Org: org.String()}
	raw, err := json.Marshal(&form)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	form.Form = shownFirst
	if box, err = keyring.SealTo(k.Card().Seal, shownInfo(org, 1, look), keyring.RoleOnly, []byte("x")); err != nil {
		f.Fatal(err)
	}
	form.Boxes[0].Box = base64.RawURLEncoding.EncodeToString(box)
	if raw, err = json.Marshal(&form); err != nil {
		f.Fatal(err)
	}
	if got, _, err := openShown(k, raw); err != nil || string(got) != "x" {
		f.Fatal("a list of an earlier version does not open", err)
	}
	f.Add(raw)
	f.Add([]byte(`{"boxes":[],"epoch":1,"form":"notice.shown/v1","look":"","org":""}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if got, _, err := openShown(k, b); err == nil && string(got) != "x" {
			t.Error("an altered list opens")
		}
	})
}
