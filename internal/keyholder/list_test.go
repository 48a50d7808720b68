package keyholder

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/counterseal/counterseal/internal/approval"
	"github.com/counterseal/counterseal/internal/blind"
	"github.com/counterseal/counterseal/internal/discloser"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/officer"
)

const listedDirectory = `apiVersion: directory/v1
domains: [CORP, corp.example]
people:
  - id: E-1
    names: ['CORP\alice', Alice Example]
    mails: [alice@corp.example]
    devices: [ALICE-LAPTOP]
  - id: E-2
    names: [bob]
  - id: E-3
    names: [carol]
    mails: [carol@corp.example]
`

func words(names ...string) (out [][]byte) {
	for _, n := range names {
		out = append(out, []byte(n))
	}
	return out
}

// signs gives what signs with an officer's key, after a test has changed the statement.
func signs(t testing.TB, k *officer.Key, d approval.Decision, change ...func([]byte) []byte) func([]byte) (approval.Signed, error) {
	return func(statement []byte) (approval.Signed, error) {
		for _, f := range change {
			statement = f(statement)
		}
		return k.Sign(d, statement)
	}
}

func (b *bench) askList(k *officer.Key, names ...string) (*Listed, error) {
	return AskList(b.t.Context(), b.dial("question.sock"), words(names...), "O. Versight", b.now(), signs(b.t, k, approval.Approve), nil)
}

// TestList: an overseer's list gets the tags of its own people, in every spelling and epoch
// and with their devices, and of nobody else; what the holder is asked tells nothing of it.
func TestList(t *testing.T) {
	keys, roster := offices(t)
	b := newBench(t, Setup{Officers: roster, Directory: []byte(listedDirectory)})
	if _, err := Rotate(b.dir, noon, nil); err != nil {
		t.Fatal(err)
	}
	b.begin()
	got, err := b.askList(keys["O. Versight"], "alice@corp.example", "nobody", "alice example")
	if err != nil {
		t.Fatal(err)
	}
	if got.Org != org || !slices.Equal(got.Epochs, []int{2, 1}) || len(got.Tags) != 3 || got.Tags[1] != nil {
		t.Fatalf("%+v", got)
	}
	want := map[discloser.Tag]bool{}
	for epoch := 1; epoch <= 2; epoch++ {
		c := b.client(ClientOptions{Epoch: epoch})
		tokens, err := c.Tokens([]Name{{event.Person, []byte("alice")}, {event.Device, []byte("alice-laptop")}, {event.Mail, []byte("alice@corp.example")}, {event.Person, []byte("alice example")}})
		if err != nil {
			t.Fatal(err)
		}
		for _, token := range tokens {
			want[discloser.TagOf(token)] = true
		}
	}
	for _, word := range []int{0, 2} {
		have := map[discloser.Tag]bool{}
		for _, tag := range got.Tags[word] {
			have[tag] = true
			if !want[tag] {
				t.Errorf("word %d has the tag of somebody else", word)
			}
		}
		if len(have) != len(want) {
			t.Errorf("word %d has %d tags, want %d: of a person, a laptop and what was there before the directory, in two epochs", word, len(have), len(want))
		}
	}
	spare, err := b.askList(keys["O. Spare"])
	if err != nil || len(spare.Tags) != 0 {
		t.Errorf("an empty list of the spare officer: %v, %v", spare, err)
	}
	if s := b.h.Stats(); s.Lists != 2 || s.ListsRefused != 0 || s.Questions != 0 || s.New != 2*4 {
		t.Errorf("%+v", s)
	}
	for _, name := range []string{"alice", "bob", "carol", "nobody"} {
		if strings.Contains(strings.ToLower(b.log.String()), name) {
			t.Errorf("the log says %s", name)
		}
	}
}

// TestListRefused: whatever is not the word of one officer of oversight of the holder's own
// roster, over just these points, in time, once, is refused, and uses nothing up.
func TestListRefused(t *testing.T) {
	keys, roster := offices(t)
	strange, _ := offices(t)
	b := newBench(t, Setup{Officers: roster, Directory: []byte(listedDirectory)})
	b.begin()
	asked, err := blind.Ask(words("alice"), Places)
	if err != nil {
		t.Fatal(err)
	}
	points := asked.Points()
	statement := func(points []blind.Point, house uuid.UUID, at time.Time) []byte {
		s, err := NewListQuestion(points, "O. Versight", house, at)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	right := statement(points, org, noon)
	swapped := append([]blind.Point{}, points...)
	swapped[0], swapped[1] = swapped[1], swapped[0]
	_, anotherAct, err := approval.New(approval.Ask{Action: "unmask", Case: "C-1", Purpose: "why", Requester: "somebody", Org: org, Grant: time.Hour, Objects: listObjects(points)}, noon)
	if err != nil {
		t.Fatal(err)
	}
	by := func(k *officer.Key, d approval.Decision, s []byte) approval.Signed {
		signed, err := k.Sign(d, s)
		if err != nil {
			t.Fatal(err)
		}
		return signed
	}
	versight := keys["O. Versight"]
	turned := by(versight, approval.Refuse, right)
	turned.Decision = approval.Approve
	n := int64(0)
	for name, c := range map[string]struct {
		statement []byte
		signed    approval.Signed
		points    []blind.Point
	}{
		"investigation":                 {right, by(keys["I. Vestigator"], approval.Approve, right), points},
		"an officer of another roster":  {right, by(strange["O. Versight"], approval.Approve, right), points},
		"a refusal":                     {right, by(versight, approval.Refuse, right), points},
		"a refusal called an approval":  {right, turned, points},
		"signed for another one":        {right, by(versight, approval.Approve, statement(points, org, noon)), points},
		"other points":                  {right, by(versight, approval.Approve, right), swapped},
		"of another house":              {statement(points, uuid.New(), noon), by(versight, approval.Approve, statement(points, uuid.New(), noon)), points},
		"late":                          {statement(points, org, noon.Add(-time.Hour)), approval.Signed{}, points},
		"from the future":               {statement(points, org, noon.Add(time.Hour)), approval.Signed{}, points},
		"of another act":                {anotherAct, by(versight, approval.Approve, anotherAct), points},
		"a statement that is none":      {[]byte("{}"), by(versight, approval.Approve, right), points},
		"a statement with a space more": {append(bytes.Clone(right), ' '), by(versight, approval.Approve, right), points},
	} {
		if c.signed == (approval.Signed{}) {
			c.signed = by(versight, approval.Approve, c.statement)
		}
		capability, err := ListCapability(c.statement, c.signed)
		if err != nil {
			t.Fatal(err)
		}
		if err := b.sendList(capability, c.points); !errors.Is(err, ErrCapability) {
			t.Errorf("%s: %v", name, err)
		}
		n++
	}
	if s := b.h.Stats(); s.Lists != 0 || s.ListsRefused != n {
		t.Errorf("%d refused of %d, %d answered", s.ListsRefused, n, s.Lists)
	}
	capability, err := ListCapability(right, by(versight, approval.Approve, right))
	if err != nil {
		t.Fatal(err)
	}
	bad := append([]blind.Point{}, points...)
	bad[3] = blind.Point(bytes.Repeat([]byte{0xff}, blind.PointLen))
	forBad := statement(bad, org, noon)
	notPoints, err := ListCapability(forBad, by(versight, approval.Approve, forBad))
	if err != nil {
		t.Fatal(err)
	}
	if err := b.sendList(notPoints, bad); !errors.Is(err, errFrame) {
		t.Errorf("a point beside the curve: %v", err)
	}
	if err := b.sendList(capability, points); err != nil {
		t.Fatal(err)
	}
	if err := b.sendList(capability, points); !errors.Is(err, ErrCapability) {
		t.Errorf("repeated: %v", err)
	}
	b.crash()
	removeSockets(b)
	b.begin()
	if err := b.sendList(capability, points); !errors.Is(err, ErrCapability) {
		t.Errorf("repeated after a crash: %v", err)
	}
}

// sendList asks and reads all of the answer.
func (b *bench) sendList(capability []byte, points []blind.Point) error {
	conn, in, _, err := greet(b.t.Context(), b.dial("question.sock"), hello{faceQuestion, 0})
	if err != nil {
		return err
	}
	defer conn.Close()
	body, err := listAsk{capability, points}.encode()
	if err != nil {
		return err
	}
	if _, err := conn.Write(appendFrame(nil, frame{opList, 1, body})); err != nil {
		return err
	}
	first, err := nextPart(conn, in, opListHead)
	if err != nil {
		return err
	}
	head, err := parseListHead(first)
	if err != nil {
		return err
	}
	for rows := 0; rows < head.rows; {
		part, err := nextPart(conn, in, opListPart)
		if err != nil {
			return err
		}
		rows += len(part) / blind.RowLen(head.width)
	}
	return nil
}

// TestListQuota: who holds the key of oversight tests a bounded number of names a month, over
// restarts and clocks that go back.
func TestListQuota(t *testing.T) {
	keys, roster := offices(t)
	q := DefaultQuota()
	q.Lists = 2
	b := newBench(t, Setup{Officers: roster, Directory: []byte(listedDirectory), Quota: &q})
	b.begin()
	k := keys["O. Versight"]
	day := int64(24 * 60 * 60)
	for i := range 2 {
		b.at.Store(int64(i) * day)
		if _, err := b.askList(k, "alice"); err != nil {
			t.Fatal(err)
		}
	}
	for name, at := range map[string]int64{"the same day": day, "a clock that goes back": -90 * day, "the last hour": 30*day - 3600} {
		b.at.Store(at)
		var quota *QuotaError
		if _, err := b.askList(k, "alice"); !errors.As(err, &quota) {
			t.Errorf("%s: %v", name, err)
		}
		b.crash()
		removeSockets(b)
		b.begin()
		if _, err := b.askList(k, "alice"); !errors.Is(err, ErrQuota) {
			t.Errorf("%s, after a crash: %v", name, err)
		}
	}
	b.at.Store(30 * day)
	if _, err := b.askList(k, "alice"); err != nil {
		t.Errorf("30 days after the first: %v", err)
	}
	if _, err := b.askList(k, "alice"); !errors.Is(err, ErrQuota) {
		t.Errorf("the second of the window is used yet: %v", err)
	}
}

// TestListWithout: without officers, without a directory, and on the interface of ingest.
func TestListWithout(t *testing.T) {
	keys, roster := offices(t)
	none := newBench(t, Setup{Directory: []byte(listedDirectory)})
	none.begin()
	if _, err := none.askList(keys["O. Versight"], "alice"); !errors.Is(err, ErrRoster) {
		t.Errorf("without officers: %v", err)
	}
	empty := newBench(t, Setup{Officers: roster})
	empty.begin()
	if _, err := empty.askList(keys["O. Versight"], "alice"); !errors.Is(err, ErrDirectory) {
		t.Errorf("without a directory: %v", err)
	}
	conn, in, _, err := greet(t.Context(), empty.dial("ingest.sock"), hello{faceIngest, 0})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write(appendFrame(nil, frame{opList, 1, make([]byte, 8)})); err != nil {
		t.Fatal(err)
	}
	if _, err := nextPart(conn, in, opListHead); !errors.Is(err, errFace) {
		t.Errorf("on ingest: %v", err)
	}
}

// TestListTellsTheHolderNothing puts itself between: two lists, one empty and one full of
// names, send the same number of bytes, and no byte of either comes again in the next ask of
// the same list, beside the words of the statement.
func TestListTellsTheHolderNothing(t *testing.T) {
	keys, roster := offices(t)
	q := DefaultQuota()
	q.Lists = 4
	b := newBench(t, Setup{Officers: roster, Directory: []byte(listedDirectory), Quota: &q})
	b.begin()
	sent := func(names ...string) []byte {
		var tap bytes.Buffer
		var mu sync.Mutex
		dial := func(ctx context.Context) (net.Conn, error) {
			c, err := b.dial("question.sock")(ctx)
			return tapped{c, &tap, &mu}, err
		}
		if _, err := AskList(t.Context(), dial, words(names...), "O. Versight", b.now(), signs(t, keys["O. Versight"], approval.Approve), nil); err != nil {
			t.Fatal(err)
		}
		mu.Lock()
		defer mu.Unlock()
		return bytes.Clone(tap.Bytes())
	}
	full := make([]string, Places)
	for i := range full {
		full[i] = fmt.Sprintf("discloser-%d", i)
	}
	empty, one, again, all := sent(), sent("alice"), sent("alice"), sent(full...)
	if len(empty) != len(one) || len(one) != len(all) || len(one) != len(again) {
		t.Errorf("%d bytes of an empty list, %d and %d of one name, %d of a full one", len(empty), len(one), len(again), len(all))
	}
	points := func(b []byte) []byte { return b[len(b)-Places*blind.PointLen:] }
	for i := 0; i < Places*blind.PointLen; i += blind.PointLen {
		if p := points(one)[i : i+blind.PointLen]; bytes.Contains(points(again), p) || bytes.Contains(points(all), p) {
			t.Fatal("a point comes again")
		}
	}
}

// tapped keeps what is written.
type tapped struct {
	net.Conn
	tap *bytes.Buffer
	mu  *sync.Mutex
}

func (t tapped) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.tap.Write(b)
	return t.Conn.Write(b)
}

// TestListCutShort: an answer that ends in the middle, or is none, is an error and no list
// with fewer people on it.
func TestListCutShort(t *testing.T) {
	keys, _ := offices(t)
	k, err := blind.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	row, err := k.Row(nil, []byte("alice"), []blind.Value{{1}}, 1)
	if err != nil {
		t.Fatal(err)
	}
	answer := func(q listAsk, rows int, parts ...[]byte) []byte {
		h := listHead{rows: rows, width: 1, epochs: []int{1}}
		for _, p := range q.points {
			a, err := k.Answer(p)
			if err != nil {
				t.Error(err)
			}
			h.points = append(h.points, a)
		}
		b := appendFrame(nil, frame{opListHead, 1, h.encode()})
		for _, p := range parts {
			b = appendFrame(b, frame{opListPart, 1, p})
		}
		return b
	}
	for name, make := range map[string]func(listAsk) []byte{
		"nothing":              func(listAsk) []byte { return nil },
		"a row too few":        func(q listAsk) []byte { return answer(q, 2, row) },
		"a row too many":       func(q listAsk) []byte { return answer(q, 1, row, row)[:] },
		"two rows of one":      func(q listAsk) []byte { return answer(q, 1, append(bytes.Clone(row), row...)) },
		"an empty part":        func(q listAsk) []byte { return answer(q, 1, nil) },
		"half a row":           func(q listAsk) []byte { return answer(q, 1, row[:len(row)-1]) },
		"a table of no bounds": func(q listAsk) []byte { return answer(q, maxRows+1, row) },
		"a row twice":          func(q listAsk) []byte { return answer(q, 2, row, row) },
		"a false answer":       func(q listAsk) []byte { return falsely(answer(q, 1, row), 0) },
		"one to no word":       func(q listAsk) []byte { return falsely(answer(q, 1, row), Places-1) },
	} {
		here := playHolder(t, func(q listAsk, conn net.Conn) {
			conn.Write(make(q))
			conn.SetReadDeadline(time.Now().Add(time.Second))
			io.Copy(io.Discard, conn)
		})
		got, err := AskList(t.Context(), func(context.Context) (net.Conn, error) { return here, nil }, words("alice"), "O. Versight", noon, signs(t, keys["O. Versight"], approval.Approve), nil)
		if (err == nil) != (name == "a row too many" || name == "a row twice") { // the end of the table is the end of the answer
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}

// playHolder takes a question about a list, as a holder in other hands may.
func playHolder(t *testing.T, answer func(q listAsk, conn net.Conn)) (here net.Conn) {
	here, there := net.Pipe()
	go func() {
		defer there.Close()
		in := bufio.NewReader(there)
		readFrame(in)
		there.Write(appendFrame(nil, frame{op: opHelloOK, body: welcome{Identity: Identity{Org: org, Epoch: 1}}.encode()}))
		f, err := readFrame(in)
		if err != nil {
			t.Error(err)
			return
		}
		q, err := parseListAsk(f.body)
		if err != nil {
			t.Error(err)
		}
		answer(q, there)
	}()
	return here
}

// falsely puts bytes that are no point in the place of one of the points of an answer.
func falsely(answer []byte, place int) []byte {
	at := 4 + frameHead + 2 + place*blind.PointLen
	copy(answer[at:], bytes.Repeat([]byte{0xff}, blind.PointLen))
	return answer
}

// TestListIsReadWhole: the holder sees the connection close when all of the table is there, and
// nothing of what becomes of it: not of a row that opens, nor that one of its points is none.
func TestListIsReadWhole(t *testing.T) {
	keys, _ := offices(t)
	k, err := blind.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	row, err := k.Row(nil, []byte("alice"), []blind.Value{{1}}, 1)
	if err != nil {
		t.Fatal(err)
	}
	for _, place := range []int{0, 1, Places - 1} { // the first one is of a word
		took := make(chan int, 1)
		here := playHolder(t, func(q listAsk, conn net.Conn) {
			h := listHead{points: q.points, rows: 3, width: 1, epochs: []int{1}}
			parts := 0
			if _, err := conn.Write(falsely(appendFrame(nil, frame{opListHead, 1, h.encode()}), place)); err == nil {
				for range 3 { // the row of a word among them, twice
					if _, err := conn.Write(appendFrame(nil, frame{opListPart, 1, row})); err == nil {
						parts++
					}
				}
			}
			took <- parts
		})
		_, err := AskList(t.Context(), func(context.Context) (net.Conn, error) { return here, nil }, words("alice"), "O. Versight", noon, signs(t, keys["O. Versight"], approval.Approve), nil)
		if parts := <-took; err == nil || parts != 3 {
			t.Errorf("a false point at place %d: %d parts were taken, %v", place, parts, err)
		}
	}
}

// BenchmarkList is one question about a full list, by people of the directory with four
// spellings each: two signatures, the points, and a table of everybody.
func BenchmarkList(b *testing.B) {
	for _, people := range []int{1_000, 10_000} {
		b.Run(fmt.Sprint(people), func(b *testing.B) {
			keys, roster := offices(b)
			var dir strings.Builder
			dir.WriteString("apiVersion: directory/v1\npeople:\n")
			for i := range people {
				fmt.Fprintf(&dir, "  - id: E-%d\n    names: [person%d, Person Number %d]\n    mails: [person%d@corp.example]\n    sids: [S-1-5-21-1-2-3-%d]\n", i, i, i, i, 2000+i)
			}
			w := newBench(b, Setup{Officers: roster, Directory: []byte(dir.String())})
			w.begin()
			k := keys["O. Versight"]
			names := make([]string, Places)
			for i := range names {
				names[i] = fmt.Sprintf("person%d", i)
			}
			for b.Loop() {
				got, err := w.askList(k, names...)
				if err != nil {
					b.Fatal(err)
				}
				if len(got.Tags[0]) == 0 {
					b.Fatal("no tag")
				}
				w.h.lists.mu.Lock()
				clear(w.h.lists.used)
				w.h.lists.mu.Unlock()
			}
			b.ReportMetric(float64(b.N*people*4)/b.Elapsed().Seconds(), "spellings/s")
		})
	}
}

// TestAskersKeepNobodyOut: who holds every connection that questions may have does not keep
// ingest out.
func TestAskersKeepNobodyOut(t *testing.T) {
	b := newBench(t, Setup{})
	b.begin()
	for range maxConns {
		conn, _, _, err := greet(t.Context(), b.dial("question.sock"), hello{faceQuestion, 0})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	if _, _, _, err := greet(t.Context(), b.dial("question.sock"), hello{faceQuestion, 0}); !errors.Is(err, errRoom) {
		t.Errorf("one more: %v", err)
	}
	if _, err := b.client(ClientOptions{}).Tokens([]Name{person(1)}); err != nil {
		t.Errorf("ingest: %v", err)
	}
}
