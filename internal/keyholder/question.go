package keyholder

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/counterseal/counterseal/internal/approval"
	"github.com/counterseal/counterseal/internal/durable"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/officer"
	"github.com/counterseal/counterseal/internal/pseudonym"
)

const (
	// Action is that of the statement of a capability.
	Action = "token.ask"
	// MaxNames is how many names one question is about: two people read them.
	MaxNames = 20
	// SaltSize is the length of the salt of a commitment.
	SaltSize = 32

	maxCapability = 128 << 10
	maxAsked      = 10_000 // capabilities used and not expired
	askedLimit    = 2 << 20

	// AnswerKept is how long an answer waits in memory for the server to fetch it.
	AnswerKept = 10 * time.Minute
	maxWaiting = 64
)

// Spoken is one name as somebody writes it, and what it is: one of pseudonym.Categories.
type Spoken struct {
	Category string `json:"category"`
	Text     string `json:"text"`
}

// Commitment is a salted digest of names. With the names and the salt everybody finds it
// again; without the salt, of SaltSize random bytes, nobody tests a name against it.
func Commitment(salt []byte, names []Spoken) [32]byte {
	b := append([]byte("counterseal/question/v1\x00"), salt...)
	b = binary.BigEndian.AppendUint16(b, uint16(len(names)))
	for _, n := range names {
		b = append(b, byte(len(n.Category)))
		b = append(b, n.Category...)
		b = binary.BigEndian.AppendUint32(b, uint32(len(n.Text)))
		b = append(b, n.Text...)
	}
	return sha256.Sum256(b)
}

// Commit makes the commitment of names, with a fresh salt. It refuses what no holder could
// answer; its errors name the place of a name and nothing of it.
func Commit(names []Spoken) (salt []byte, commitment [32]byte, err error) {
	if _, err := identities(nil, names); err != nil {
		return nil, commitment, err
	}
	salt = make([]byte, SaltSize)
	rand.Read(salt)
	return salt, Commitment(salt, names), nil
}

// identities are what names stand for in a directory; nil knows nobody.
func identities(d *pseudonym.Directory, names []Spoken) ([]Name, error) {
	if len(names) < 1 || len(names) > MaxNames {
		return nil, fmt.Errorf("a question is about 1 to %d names", MaxNames)
	}
	if d == nil {
		d = &pseudonym.Directory{}
	}
	out := make([]Name, len(names))
	for i, n := range names {
		k, canonical, err := d.Identity(n.Category, n.Text)
		if err != nil {
			return nil, fmt.Errorf("name %d: %w", i+1, err)
		}
		out[i] = Name{k, canonical}
	}
	return out, nil
}

// Question is what a capability is asked for. Its statement names nobody.
type Question struct {
	Case, Purpose, Requester string
	Account                  string // who asks, as the server knows them
	Names                    int
	Commitment               [32]byte
	Org                      uuid.UUID     // of the holder
	Life                     time.Duration // 0: the longest, 24 hours
	Grant                    time.Duration // how long it can be asked, from its approval
}

// joins is the last object of a statement: what the officers agree to beside the names.
const joins = "tokens of every epoch, which this case then takes for one person each"

func (q *Question) objects() []string {
	return []string{"names " + strconv.Itoa(q.Names), "commitment " + hex.EncodeToString(q.Commitment[:]), "account " + q.Account, joins}
}

// NewQuestion makes the statement that two officers are to sign, in the form of
// internal/approval, so that their own programs show it in words.
func NewQuestion(q Question, now time.Time) (*approval.Statement, []byte, error) {
	if q.Names < 1 || q.Names > MaxNames {
		return nil, nil, fmt.Errorf("a question is about 1 to %d names", MaxNames)
	}
	if q.Account == "" {
		return nil, nil, errors.New("a question says which account asks")
	}
	return approval.New(approval.Ask{
		Action: Action, Case: q.Case, Purpose: q.Purpose, Requester: q.Requester, Org: q.Org, Life: q.Life, Grant: q.Grant, Objects: q.objects(),
	}, now)
}

// ParseQuestion reads what a statement of NewQuestion is about.
func ParseQuestion(s *approval.Statement) (*Question, error) {
	bad := errors.New("the statement is no question about names")
	if s.Action != Action || len(s.Objects) != 4 {
		return nil, bad
	}
	q := &Question{Case: s.Case, Purpose: s.Purpose, Requester: s.Requester, Grant: s.Grant()}
	var ok1, ok2, ok3 bool
	var number, digest string
	number, ok1 = strings.CutPrefix(s.Objects[0], "names ")
	digest, ok2 = strings.CutPrefix(s.Objects[1], "commitment ")
	q.Account, ok3 = strings.CutPrefix(s.Objects[2], "account ")
	raw, herr := hex.DecodeString(digest)
	n, nerr := strconv.Atoi(number)
	if !ok1 || !ok2 || !ok3 || herr != nil || nerr != nil || len(raw) != 32 || n < 1 || n > MaxNames || q.Account == "" {
		return nil, bad
	}
	q.Names, q.Commitment = n, [32]byte(raw)
	var err error
	if q.Org, err = uuid.Parse(s.Org); err != nil || !slices.Equal(q.objects(), s.Objects) {
		return nil, bad
	}
	return q, nil
}

// Fits reports whether these are the names that the question is about.
func (q *Question) Fits(salt []byte, names []Spoken) bool {
	c := Commitment(salt, names)
	return len(salt) == SaltSize && len(names) == q.Names && subtle.ConstantTimeCompare(c[:], q.Commitment[:]) == 1
}

// Seen shows that witnesses have seen the ledger's statement that a question was approved.
type Seen struct {
	Leaf  string `json:"leaf"`  // the statement, as it stands in the ledger
	Proof string `json:"proof"` // c2sp.org/tlog-proof
	V     int    `json:"v"`
}

// capabilityForm is a capability: a statement, the decisions of two officers, and what
// shows that the ledger has it.
type capabilityForm struct {
	Seen      Seen              `json:"seen"`
	Signed    []approval.Signed `json:"signed"`
	Statement string            `json:"statement"`
	V         int               `json:"v"`
}

// Capability joins the statement of NewQuestion with the approval of both offices and what
// shows that the ledger knows of it.
func Capability(statement []byte, signed []approval.Signed, seen Seen) ([]byte, error) {
	return approval.Canonical(capabilityForm{Seen: seen, Signed: signed, Statement: string(statement), V: 2})
}

func parseCapability(b []byte) (capabilityForm, error) {
	var f capabilityForm
	if err := approval.DecodeUpTo(maxCapability, b, &f); err != nil {
		return f, fmt.Errorf("capability: %w", err)
	}
	if f.V != 2 || f.Seen.V != 1 {
		return f, errors.New("capability: unknown version")
	}
	return f, nil
}

// judgement is what a holder judges a capability by: all of it its own.
type judgement struct {
	roster *officer.Roster
	seen   func(s *approval.Statement, statement []byte, seen Seen) error
	org    uuid.UUID
	now    time.Time
}

// judge says whether a capability allows to ask these names. What it gives names the
// capability for being used once.
func (j *judgement) judge(b, salt []byte, names []Spoken) (*approval.Statement, error) {
	var q *Question
	s, err := j.approved(b, func(s *approval.Statement) (err error) {
		q, err = ParseQuestion(s)
		return err
	})
	if err == nil && !q.Fits(salt, names) {
		err = errors.New("capability: other names than two officers agreed to")
	}
	return s, err
}

// approved says whether two officers approved what a capability is about, and the ledger
// knows of it. about reads the statement.
func (j *judgement) approved(b []byte, about func(*approval.Statement) error) (*approval.Statement, error) {
	f, err := parseCapability(b)
	if err != nil {
		return nil, err
	}
	var book approval.Book // its rules of form, time and signature, for this one statement
	s, err := book.Request([]byte(f.Statement), j.now)
	if err != nil {
		return nil, err
	}
	if err := about(s); err != nil || s.Org != j.org.String() {
		return nil, errors.New("capability: of another action or organisation")
	}
	if len(f.Signed) != 2 {
		return nil, errors.New("capability: two decisions belong to it")
	}
	for _, d := range f.Signed {
		by, err := j.roster.VoterFor(d.Key, s.Action)
		if err != nil {
			return nil, err
		}
		if by.Person == officer.Person(s.Requester) {
			return nil, errors.New("capability: who asks does not decide")
		}
		if _, err := book.Decide(s.ID, d, by, j.now); err != nil {
			return nil, fmt.Errorf("capability: %w", err)
		}
	}
	if _, err := book.Use(s.ID, j.now); err != nil { // a refusal is a valid signature too
		return nil, fmt.Errorf("capability: %w", err)
	}
	if err := j.seen(s, []byte(f.Statement), f.Seen); err != nil {
		return nil, fmt.Errorf("capability: the ledger: %w", err)
	}
	return s, nil
}

// Answer is what one name of a question gives: its tokens, the oldest epoch first.
type Answer struct{ Tokens []event.Token }

// answered waits until the server fetches it.
type answered struct {
	names []Answer
	until time.Time
}

// questions keeps which capabilities were used, durable before the answer, and in memory
// the answers that wait.
type questions struct {
	path string
	day  int // names that a day may be asked for
	now  func() time.Time

	mu                sync.Mutex
	used              map[string]usedUp // by the digest of the nonce, until it expires
	waiting           map[uuid.UUID]answered
	answered, refused int64
	names             int64
}

type usedUp struct {
	at, expires time.Time
	names       int
}

type askedForm struct {
	Used []usedForm `json:"used"`
	V    int        `json:"v"`
}

type usedForm struct {
	At      string `json:"at"`
	Digest  string `json:"digest"` // SHA-256 of the nonce
	Expires string `json:"expires"`
	Names   int    `json:"names"`
}

func openQuestions(dir string, day int, now func() time.Time) (*questions, error) {
	q := &questions{path: filepath.Join(dir, "asked.json"), day: day, now: now, used: map[string]usedUp{}, waiting: map[uuid.UUID]answered{}}
	var f askedForm
	damaged := fmt.Errorf("%s is damaged: restore it, or wait two days after its last write and remove it", q.path)
	if there, err := readUsed(q.path, askedLimit, &f, damaged); err != nil || !there {
		return q, err
	}
	if f.V != 1 {
		return nil, damaged
	}
	for _, u := range f.Used {
		at, aerr := time.Parse(time.RFC3339, u.At)
		expires, eerr := time.Parse(time.RFC3339, u.Expires)
		if aerr != nil || eerr != nil || u.Names < 1 || u.Names > MaxNames {
			return nil, damaged
		}
		q.used[u.Digest] = usedUp{at, expires, u.Names}
	}
	return q, nil
}

// readUsed reads what was used, if anything was.
func readUsed(path string, limit int, v any, damaged error) (there bool, err error) {
	b, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("reading the capabilities used: %w", err)
	case approval.DecodeUpTo(limit, b, v) != nil:
		return false, damaged
	}
	return true, nil
}

// nonceOf names a statement that is used once.
func nonceOf(s *approval.Statement) string {
	sum := sha256.Sum256([]byte(s.Nonce))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// spend uses a capability up, once, before anything is answered.
func (q *questions) spend(s *approval.Statement, names []Answer) error {
	key := nonceOf(s)
	id, err := uuid.Parse(s.ID)
	if err != nil {
		return err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if _, was := q.used[key]; was {
		return errors.New("capability: it was used")
	}
	now := q.now().UTC()
	q.drop(now)
	if len(q.waiting) >= maxWaiting {
		return errRoom
	}
	f := askedForm{V: 1}
	kept := map[string]usedUp{key: {now, s.ExpiresAt(), len(names)}}
	today := len(names)
	for k, u := range q.used {
		// A clock that goes back must not bring one back: they stay a day longer.
		if now.Before(u.expires.Add(approval.MaxLife)) {
			kept[k] = u
			if u.at.UTC().Format(time.DateOnly) == now.Format(time.DateOnly) {
				today += u.names
			}
		}
	}
	if today > q.day {
		return &QuotaError{After: now.Truncate(24 * time.Hour).Add(24 * time.Hour).Sub(now)}
	}
	if len(kept) > maxAsked {
		return errors.New("capability: too many of one day")
	}
	for _, k := range sortedKeys(kept) {
		u := kept[k]
		f.Used = append(f.Used, usedForm{At: u.at.UTC().Format(time.RFC3339), Digest: k, Expires: u.expires.UTC().Format(time.RFC3339), Names: u.names})
	}
	b, err := approval.Canonical(f)
	if err != nil {
		return err
	}
	var d durable.FS
	if err := d.WriteFile(q.path, b, 0o600); err != nil {
		return fmt.Errorf("%w: %w", errDisk, err)
	}
	q.used = kept
	q.waiting[id] = answered{names, now.Add(AnswerKept)}
	q.answered++
	q.names += int64(len(names))
	return nil
}

// drop forgets the answers that nobody fetched.
func (q *questions) drop(now time.Time) {
	for id, a := range q.waiting {
		if !now.Before(a.until) {
			delete(q.waiting, id)
		}
	}
}

// fetch gives the answer to a question, until its time is over: a server that lost it on
// the way asks again.
func (q *questions) fetch(id uuid.UUID) ([]Answer, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.drop(q.now())
	a, ok := q.waiting[id]
	if !ok {
		return nil, ErrNoAnswer
	}
	return a.names, nil
}
