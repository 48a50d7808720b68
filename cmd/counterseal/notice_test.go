package main

import (
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestNotices: whoever was looked at under an authorisation is told after it has ended, by
// an overseer, who may put it off; and nobody else sees whom it is about.
func TestNotices(t *testing.T) {
	b, tasks := brokered(t)
	who := b.people()
	used := func(alias string, ask bool) string {
		t.Helper()
		r := b.request(alias)
		b.does(privacyOfficer, "authorise", authoriseNamed{ID: r.ID, Digest: r.Digest, Approve: true}, nil, 200, "approved")
		if ask {
			b.asks("class_uid = 3002 and user.uid = "+alias, 200, alias)
		}
		return r.ID
	}
	first, second := used(who[0], true), used(who[1], true)
	unused := used(who[2], false)
	var rows []noticeRow
	b.does(overseer, "notice.list", struct{}{}, &rows, 200, "")
	if len(rows) != 0 {
		t.Errorf("while they go on: %+v", rows)
	}
	b.later(49 * time.Hour)
	b.does(0, "notice.list", struct{}{}, nil, 403, "")
	b.does(privacyOfficer, "notice.send", noticeNamed{Authorisation: first}, nil, 403, "")
	b.does(overseer, "notice.list", struct{}{}, &rows, 200, "")
	if len(rows) != 2 || rows[0].State != "due" || rows[0].People != 1 || rows[0].Due.Sub(rows[0].Ended) != noticeWithin {
		t.Fatalf("got %+v", rows)
	}
	b.does(overseer, "notice.send", noticeNamed{Authorisation: unused}, nil, 400, "nobody is to be told")

	var r noticeRow
	b.does(overseer, "notice.send", noticeNamed{Authorisation: first}, &r, 200, "")
	if r.State != "told" || tasks() != 1 {
		t.Errorf("got %+v, %d tasks", r, tasks())
	}
	b.does(overseer, "notice.send", noticeNamed{Authorisation: first}, nil, 403, "told already")
	b.does(overseer, "notice.postpone", noticeNamed{Authorisation: first}, nil, 403, "told already")

	b.does(overseer, "notice.postpone", noticeNamed{Authorisation: second}, &r, 200, "")
	if r.Postponed != 1 || r.Due.Sub(r.Ended) != 2*noticeWithin {
		t.Errorf("got %+v", r)
	}
	b.does(overseer, "notice.postpone", noticeNamed{Authorisation: second}, nil, 403, "put off already")
	doctor := func(want string) {
		t.Helper()
		checks, err := b.s.noticeChecks(t.Context())
		if err != nil || len(checks) != 1 || checks[0].State != want {
			t.Errorf("got %+v, %v; want %s", checks, err, want)
		}
	}
	doctor("ok")
	b.later(181 * 24 * time.Hour)
	doctor("warn")

	// What was told stands in the orders, which nobody else is shown.
	var orders []containRow
	b.does(overseer, "contain.list", struct{}{}, &orders, 200, "")
	if len(orders) != 0 {
		t.Errorf("got %+v", orders)
	}
	b.does(0, "contain.order", containAsk{whom: whom{People: who[:1]}, Act: "notify"}, nil, 400, "")
	b.stop()
	told := ledgerTold(t, filepath.Join(b.dir, "data"))
	for _, want := range []string{"notice.sent", "notice.postponed", `"told":"1"`} {
		if !strings.Contains(told, want) {
			t.Errorf("the ledger does not say %s", want)
		}
	}
}
