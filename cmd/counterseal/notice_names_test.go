package main

import (
	"testing"
	"time"

	"github.com/counterseal/counterseal/internal/approval"
)

// TestNamesTold: whoever's name two officers let be opened is told when its time is over, also
// where nobody stated that it was opened; whose seal is gone is shown so; what an inspector's
// office had opened is in no list.
func TestNamesTold(t *testing.T) {
	t.Parallel()
	n := openNames(t)
	tasks := n.broker(10)
	n.authorised(n.who[0])
	n.asked(n.who[0], "Ines Vogel") // nobody approves it
	first := n.asked(n.who[0], "Ines Vogel")
	n.approved(first)
	list := func() (rows []noticeRow) {
		t.Helper()
		n.does(overseer, "notice.list", struct{}{}, &rows, 200, "")
		return rows
	}
	if rows := list(); len(rows) != 0 {
		t.Fatalf("while it may be opened: %+v", rows)
	}
	n.later(61 * time.Minute)
	rows := list()
	st, err := approval.Parse([]byte(first.Statement))
	if err != nil {
		t.Fatal(err)
	}
	if len(rows) != 1 || rows[0].Authorisation != st.ID || rows[0].About != aboutName || rows[0].State != "due" || rows[0].People != 1 || rows[0].Due.Sub(rows[0].Ended) != noticeWithin {
		t.Fatalf("got %+v", rows)
	}
	var r noticeRow
	n.does(0, "notice.send", noticeNamed{Authorisation: st.ID}, nil, 403, "")
	n.does(overseer, "notice.postpone", noticeNamed{Authorisation: st.ID}, &r, 200, "")
	if r.Postponed != 1 || r.Due.Sub(r.Ended) != 2*noticeWithin {
		t.Errorf("got %+v", r)
	}
	n.does(overseer, "notice.send", noticeNamed{Authorisation: st.ID}, &r, 200, "")
	if r.State != "told" || tasks() != 1 {
		t.Errorf("got %+v, %d tasks", r, tasks())
	}
	n.does(overseer, "notice.send", noticeNamed{Authorisation: st.ID}, nil, 403, "told already")

	second := n.asked(n.who[0], "Ines Vogel")
	n.approved(second)
	n.later(61 * time.Minute)
	n.erases(second.row.Token)
	if st, err = approval.Parse([]byte(second.Statement)); err != nil {
		t.Fatal(err)
	}
	rows = list()
	if len(rows) != 2 || !rows[0].settled() || !rows[1].settled() || rows[0].State+rows[1].State != "toldgone" && rows[0].State+rows[1].State != "gonetold" {
		t.Errorf("when the seal is gone: %+v", rows)
	}
	n.does(overseer, "notice.send", noticeNamed{Authorisation: st.ID}, nil, 403, "nobody can find them")

	all, err := n.s.cases.Authorisations(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i := range all {
		all[i].Inspector = true
	}
	book, err := n.s.noticeBook(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var inside []noticeRow
	if err := n.s.namesOpened(t.Context(), book, all, &inside, map[string][]string{}); err != nil || len(inside) != 0 {
		t.Errorf("of an inspector's office: %+v %v", inside, err)
	}
}
