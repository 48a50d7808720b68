package keyholder

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/counterseal/counterseal/internal/approval"
	"github.com/counterseal/counterseal/internal/blind"
	"github.com/counterseal/counterseal/internal/discloser"
	"github.com/counterseal/counterseal/internal/durable"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/officer"
	"github.com/counterseal/counterseal/internal/pseudonym"
)

const (
	// ListAction is that of the statement with which oversight asks for the tags of its list
	// of protected disclosers.
	ListAction = "disclosers.ask"
	// Places is how many names such a question has room for. It has all of them whether the
	// list is empty or full.
	Places = discloser.MaxNames
	// ListWindow is the time in which quota.lists of them are answered.
	ListWindow = 30 * 24 * time.Hour

	maxLists    = 100 // quota.lists at most
	listedLimit = 64 << 10
	maxTokens   = 16        // identities of one person: further ones have no tags
	maxRows     = 1 << 24   // of a table
	maxTable    = 256 << 20 // bytes of a table
	partRows    = 1024      // rows in one frame
	partWait    = 30 * time.Second
	listWait    = 15 * time.Minute // for all of an answer
	turnWait    = 5 * time.Second  // for the end of another one
)

// PointsDigest is what the statement of a question about a list names: SHA-256 of its points.
func PointsDigest(points []blind.Point) [32]byte {
	h := sha256.New()
	for _, p := range points {
		h.Write(p[:])
	}
	return [32]byte(h.Sum(nil))
}

func listObjects(points []blind.Point) []string {
	sum := PointsDigest(points)
	return []string{"places " + strconv.Itoa(len(points)), "points " + hex.EncodeToString(sum[:])}
}

// NewListQuestion makes the statement with which oversight asks, in the form of
// internal/approval. It names nobody.
func NewListQuestion(points []blind.Point, by string, org uuid.UUID, now time.Time) ([]byte, error) {
	_, raw, err := approval.New(approval.Ask{
		Action: ListAction, Case: "oversight", Purpose: "the tags of the overseer's list of protected disclosers", Requester: by, Objects: listObjects(points), Org: org, Life: time.Hour, Grant: time.Minute,
	}, now)
	return raw, err
}

// listCapability is a statement of NewListQuestion under the key of one officer of oversight.
type listCapability struct {
	Signed    approval.Signed `json:"signed"`
	Statement string          `json:"statement"`
	V         int             `json:"v"`
}

// ListCapability joins the statement with its signature.
func ListCapability(statement []byte, signed approval.Signed) ([]byte, error) {
	return approval.Canonical(listCapability{Signed: signed, Statement: string(statement), V: 1})
}

// judgeList says whether oversight asks these points, by the holder's own roster, and when.
func judgeList(b []byte, points []blind.Point, roster *officer.Roster, org uuid.UUID, now time.Time) (*approval.Statement, error) {
	var c listCapability
	if err := approval.DecodeUpTo(maxCapability, b, &c); err != nil || c.V != 1 {
		return nil, errors.New("capability: not one about a list")
	}
	var book approval.Book // its rules of form and time
	s, err := book.Request([]byte(c.Statement), now)
	if err != nil {
		return nil, err
	}
	if s.Action != ListAction || s.Org != org.String() || len(points) != Places || !slices.Equal(s.Objects, listObjects(points)) {
		return nil, errors.New("capability: of another action, organisation or list")
	}
	by := roster.Overseer(c.Signed.Key)
	if by == nil {
		return nil, errors.New("capability: not of an officer of oversight")
	}
	if c.Signed.Decision != approval.Approve || !c.Signed.Verify([]byte(c.Statement), by.Sign) {
		return nil, errors.New("capability: the signature is not that of the officer")
	}
	return s, nil
}

// lists keeps which questions about lists were answered, durable before the answer.
type lists struct {
	path  string
	limit int // in ListWindow
	now   func() time.Time

	making chan struct{} // full while a table is made: one at a time

	mu   sync.Mutex
	used map[string]time.Time // when, by the digest of the nonce

	answered, refused int64 // since the start
}

// recent is how many were answered in ListWindow.
func (l *lists) recent() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	n, now := int64(0), l.now()
	for _, at := range l.used {
		if now.Sub(at) < ListWindow {
			n++
		}
	}
	return n
}

type listedForm struct {
	Used []listedUsed `json:"used"`
	V    int          `json:"v"`
}

type listedUsed struct {
	At     string `json:"at"`
	Digest string `json:"digest"` // SHA-256 of the nonce
}

func openLists(dir string, limit int, now func() time.Time) (*lists, error) {
	l := &lists{path: filepath.Join(dir, "listed.json"), limit: limit, now: now, making: make(chan struct{}, 1), used: map[string]time.Time{}}
	var f listedForm
	damaged := fmt.Errorf("%s is damaged: restore it, or wait a month after its last write and remove it", l.path)
	if there, err := readUsed(l.path, listedLimit, &f, damaged); err != nil || !there {
		return l, err
	}
	if f.V != 1 {
		return nil, damaged
	}
	for _, u := range f.Used {
		at, err := time.Parse(time.RFC3339, u.At)
		if err != nil {
			return nil, damaged
		}
		l.used[u.Digest] = at
	}
	return l, nil
}

// unused refuses a question that was used.
func (l *lists) unused(s *approval.Statement) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, was := l.used[nonceOf(s)]; was {
		return errors.New("capability: it was used")
	}
	return nil
}

// spend uses a question up, before anything is answered.
func (l *lists) spend(s *approval.Statement) error {
	key := nonceOf(s)
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, was := l.used[key]; was {
		return errors.New("capability: it was used")
	}
	now := l.now().UTC()
	kept := map[string]time.Time{}
	for k, at := range l.used {
		// A clock that goes back gives nothing back.
		if now.Sub(at) < ListWindow {
			kept[k] = at
		}
	}
	if over := len(kept) - l.limit; over >= 0 {
		no := &QuotaError{}
		if l.limit > 0 {
			no.After = max(0, slices.SortedFunc(maps.Values(kept), time.Time.Compare)[over].Add(ListWindow).Sub(now))
		}
		return fmt.Errorf("%d lists were answered in 30 days: %w", len(kept), no)
	}
	kept[key] = now
	f := listedForm{V: 1}
	for _, k := range sortedKeys(kept) {
		f.Used = append(f.Used, listedUsed{At: kept[k].UTC().Format(time.RFC3339), Digest: k})
	}
	b, err := approval.Canonical(f)
	if err != nil {
		return err
	}
	var d durable.FS
	if err := d.WriteFile(l.path, b, 0o600); err != nil {
		return fmt.Errorf("%w: %w", errDisk, err)
	}
	l.used = kept
	l.answered++
	return nil
}

// broken is an answer that could not be sent.
type broken struct{ error }

func (b broken) Unwrap() error { return b.error }

// list answers a question about a list: the points, and a table of the whole directory, in
// parts. send puts a frame on the wire. Who asked opens the rows of their own names; the
// holder does not learn which.
func (h *Holder) list(body []byte, send func(frame, bool) error) error {
	err := h.listing(body, send)
	var gone broken
	switch {
	case err == nil:
		h.log.Info("a question about a list was answered", "places", Places)
	case !errors.As(err, &gone):
		h.lists.mu.Lock()
		h.lists.refused++
		h.lists.mu.Unlock()
		h.log.Warn("a question about a list was refused", "why", err)
	}
	return err
}

func (h *Holder) listing(body []byte, send func(frame, bool) error) error {
	q, err := parseListAsk(body)
	if err != nil {
		return err
	}
	h.mu.Lock()
	roster, known := h.roster, h.known
	h.mu.Unlock()
	if roster == nil {
		return ErrRoster
	}
	s, err := judgeList(q.capability, q.points, roster, h.conf.org, h.now())
	if err != nil {
		return err
	}
	if known.Len() == 0 {
		return ErrDirectory
	}
	if err := h.lists.unused(s); err != nil { // before it keeps others waiting
		return err
	}
	turn := time.NewTimer(turnWait)
	defer turn.Stop()
	select {
	case h.lists.making <- struct{}{}:
		defer func() { <-h.lists.making }()
	case <-turn.C:
		return ErrBusy
	}
	key, err := blind.NewKey()
	if err != nil {
		return err
	}
	head := listHead{}
	for _, p := range q.points {
		answer, err := key.Answer(p)
		if err != nil {
			return errFrame
		}
		head.points = append(head.points, answer)
	}
	people := known.Spelt()
	type word struct{ person, word int }
	var words []word
	for i := range people {
		head.width = max(head.width, min(len(people[i].Identities), maxTokens))
		for j := range people[i].Words {
			words = append(words, word{i, j})
		}
	}
	epochs := slices.Sorted(maps.Keys(h.makers))
	slices.Reverse(epochs) // the newest first
	epochs = epochs[:min(len(epochs), blind.MaxWidth/maxTokens)]
	head.rows = len(words)
	for len(epochs) > 1 && head.rows*blind.RowLen(head.width*len(epochs)) > maxTable {
		epochs = epochs[:len(epochs)-1]
	}
	head.epochs = epochs
	if head.width *= len(epochs); head.rows > maxRows || head.rows*blind.RowLen(head.width) > maxTable {
		return fmt.Errorf("%w: a table of %d spellings is larger than %d bytes", ErrDirectory, head.rows, maxTable)
	}
	if err := h.lists.spend(s); err != nil {
		return err
	}
	head.left = max(0, h.lists.limit-int(h.lists.recent()))
	// A row that opens has a place that says nothing about the others.
	rand.Shuffle(len(words), func(i, j int) { words[i], words[j] = words[j], words[i] })
	if err := send(frame{op: opListHead, body: head.encode()}, true); err != nil {
		return broken{err}
	}
	var part []byte
	end := time.Now().Add(listWait) // somebody who reads slowly does not keep others away for ever
	for i, w := range words {
		if time.Now().After(end) {
			return broken{errors.New("the answer was not read in time")}
		}
		who := &people[w.person]
		if part, err = key.Row(part, []byte(who.Words[w.word]), h.tags(who, epochs), head.width); err != nil {
			return broken{err}
		}
		if (i+1)%partRows == 0 || i == len(words)-1 {
			if err := send(frame{op: opListPart, body: part}, true); err != nil {
				return broken{err}
			}
			part = part[:0]
		}
	}
	return nil
}

// tags are those of somebody, in every epoch, the newest first.
func (h *Holder) tags(who *pseudonym.Spelt, epochs []int) []blind.Value {
	var out []blind.Value
	for _, epoch := range epochs {
		for _, id := range who.Identities[:min(len(who.Identities), maxTokens)] {
			out = append(out, discloser.TagOf(event.NewToken(id.Kind, epoch, h.makers[epoch].Bits(id.Kind, id.Canonical))))
		}
	}
	return out
}

// Listed is what a key holder gave to a list.
type Listed struct {
	Org    uuid.UUID
	Epochs []int             // of the tags, the newest first
	Left   int               // how many further questions it answers in ListWindow
	Tags   [][]discloser.Tag // of each word, nil for one that its directory does not know
}

// AskList asks the question interface for the tags of words, without saying which. sign signs
// the statement with the key of an officer of oversight, by whose name it asks. progress is
// told how many rows of how many have come. All of the answer is read, and the connection is
// closed, before any of it is looked at: what that takes, and whether the answer is a false
// one, depends on the words, and the holder must not see it.
func AskList(ctx context.Context, dial Dial, words [][]byte, by string, now time.Time, sign func(statement []byte) (approval.Signed, error), progress func(done, all int)) (*Listed, error) {
	asked, err := blind.Ask(words, Places)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, listWait)
	defer cancel()
	conn, in, who, err := greet(ctx, dial, hello{faceQuestion, 0})
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	points := asked.Points()
	statement, err := NewListQuestion(points, by, who.Org, now)
	if err != nil {
		return nil, err
	}
	signed, err := sign(statement)
	if err != nil {
		return nil, err
	}
	capability, err := ListCapability(statement, signed)
	if err != nil {
		return nil, err
	}
	body, err := listAsk{capability, points}.encode()
	if err != nil {
		return nil, err
	}
	if _, err := conn.Write(appendFrame(nil, frame{opList, 1, body})); err != nil {
		return nil, ErrAway
	}
	f, err := nextPart(conn, in, opListHead)
	if err != nil {
		return nil, err
	}
	head, err := parseListHead(f)
	if err != nil {
		return nil, err
	}
	size := blind.RowLen(head.width)
	var table [][]byte
	for done := 0; done < head.rows; {
		part, err := nextPart(conn, in, opListPart)
		if err != nil {
			return nil, err
		}
		if len(part) == 0 || len(part)%size != 0 || len(part) > partRows*size || done+len(part)/size > head.rows {
			return nil, errFrame
		}
		table = append(table, part)
		if done += len(part) / size; progress != nil {
			progress(done, head.rows)
		}
	}
	conn.Close()
	rows, err := asked.Answered(head.points, head.width)
	if err != nil {
		return nil, errFrame
	}
	out := &Listed{Org: who.Org, Epochs: head.epochs, Left: head.left, Tags: make([][]discloser.Tag, len(words))}
	for _, part := range table {
		for ; len(part) > 0; part = part[size:] {
			// A row that comes twice is no error: it would be one for a word of the list alone, and
			// whoever asks again after it tells so.
			if word, tags, ok := rows.Open(part[:size]); ok && len(out.Tags[word]) == 0 {
				out.Tags[word] = tags
			}
		}
	}
	return out, nil
}

// nextPart reads the next frame of an answer, which has to be of this kind.
func nextPart(conn net.Conn, in *bufio.Reader, want op) ([]byte, error) {
	if err := conn.SetReadDeadline(time.Now().Add(partWait)); err != nil {
		return nil, ErrAway
	}
	f, err := readFrame(in)
	switch {
	case err != nil:
		return nil, ErrAway
	case f.op == opNo:
		return nil, parseRefusal(f.body)
	case f.op != want:
		return nil, errFrame
	}
	return f.body, nil
}

// listAsk is a question about a list.
type listAsk struct {
	capability []byte
	points     []blind.Point
}

func (a listAsk) encode() ([]byte, error) {
	if len(a.capability) > maxCapability || len(a.points) != Places {
		return nil, fmt.Errorf("a question about a list is a capability of at most %d bytes and %d points", maxCapability, Places)
	}
	b := binary.BigEndian.AppendUint32(nil, uint32(len(a.capability)))
	return appendPoints(append(b, a.capability...), a.points), nil
}

func parseListAsk(b []byte) (listAsk, error) {
	c := cursor{b: b}
	var a listAsk
	n := c.uint(4)
	if n > maxCapability {
		return a, fmt.Errorf("%w: its capability", errFrame)
	}
	a.capability = c.take(int(n))
	a.points = c.points()
	return a, c.done()
}

// listHead is the begin of its answer. rows rows of width values follow.
type listHead struct {
	points            []blind.Point
	rows, width, left int   // left: further ones of ListWindow
	epochs            []int // of the tags, the newest first
}

func (h listHead) encode() []byte {
	b := appendPoints(nil, h.points)
	b = binary.BigEndian.AppendUint32(b, uint32(h.rows))
	b = binary.BigEndian.AppendUint16(b, uint16(h.width))
	b = binary.BigEndian.AppendUint16(b, uint16(h.left))
	b = binary.BigEndian.AppendUint16(b, uint16(len(h.epochs)))
	for _, e := range h.epochs {
		b = binary.BigEndian.AppendUint32(b, uint32(e))
	}
	return b
}

func parseListHead(b []byte) (listHead, error) {
	c := cursor{b: b}
	h := listHead{points: c.points(), rows: int(c.uint(4)), width: int(c.uint(2)), left: int(c.uint(2))}
	n := c.uint(2)
	if n < 1 || n > blind.MaxWidth {
		c.bad = true
	}
	for range n {
		e := int(c.uint(4))
		if e < 1 || e > maxEpoch || len(h.epochs) > 0 && e >= h.epochs[len(h.epochs)-1] {
			c.bad = true
		}
		if c.bad {
			break
		}
		h.epochs = append(h.epochs, e)
	}
	if err := c.done(); err != nil {
		return listHead{}, err
	}
	if h.width < 1 || h.width > blind.MaxWidth || h.rows > maxRows || h.rows*blind.RowLen(h.width) > maxTable {
		return listHead{}, fmt.Errorf("%w: its table", errFrame)
	}
	return h, nil
}

func appendPoints(b []byte, points []blind.Point) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(len(points)))
	for i := range points {
		b = append(b, points[i][:]...)
	}
	return b
}

// points takes Places of them.
func (c *cursor) points() []blind.Point {
	if c.uint(2) != Places {
		c.bad = true
	}
	var out []blind.Point
	for range Places {
		p := c.take(blind.PointLen)
		if c.bad {
			return nil
		}
		out = append(out, blind.Point(p))
	}
	return out
}
