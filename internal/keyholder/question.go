package keyholder

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/counterseal/counterseal/internal/approval"
	"github.com/counterseal/counterseal/internal/durable"
	"github.com/counterseal/counterseal/internal/officer"
)

const (
	// Action is that of the statement of a capability.
	Action = "token.ask"

	maxCapability = 64 << 10
	maxAsked      = 10_000 // capabilities used and not expired
	askedLimit    = 2 << 20
)

// Question is what a capability is asked for.
type Question struct {
	Case, Purpose, Requester string
	Names                    int           // at most so many, from 1 to 256
	Org                      uuid.UUID     // of the holder
	Life                     time.Duration // 0: the longest, 24 hours
}

// NewQuestion makes the statement that an officer of oversight is to sign, in the form
// of internal/approval, so that the officer's own program shows it in words.
func NewQuestion(q Question, now time.Time) ([]byte, error) {
	if q.Names < 1 || q.Names > maxBatch {
		return nil, fmt.Errorf("a question is about 1 to %d names", maxBatch)
	}
	_, b, err := approval.New(approval.Ask{
		Action: Action, Case: q.Case, Purpose: q.Purpose, Requester: q.Requester, Org: q.Org, Life: q.Life, Grant: time.Minute,
		Objects: []string{objectPrefix + strconv.Itoa(q.Names)},
	}, now)
	return b, err
}

const objectPrefix = "names/"

// capabilityForm is a capability: a statement and the decision of one officer.
type capabilityForm struct {
	Signed    approval.Signed `json:"signed"`
	Statement string          `json:"statement"`
	V         int             `json:"v"`
}

// Capability joins the statement of NewQuestion with the approval of oversight.
func Capability(statement []byte, s approval.Signed) ([]byte, error) {
	return approval.Canonical(capabilityForm{Signed: s, Statement: string(statement), V: 1})
}

func parseCapability(b []byte) (capabilityForm, error) {
	var f capabilityForm
	if err := approval.DecodeUpTo(maxCapability, b, &f); err != nil {
		return f, fmt.Errorf("capability: %w", err)
	}
	if f.V != 1 {
		return f, errors.New("capability: unknown version")
	}
	return f, nil
}

// judge says whether a capability allows n names. What it gives names the capability
// for being used once.
func judge(r *officer.Roster, org uuid.UUID, now time.Time, b []byte, n int) (*approval.Statement, error) {
	f, err := parseCapability(b)
	if err != nil {
		return nil, err
	}
	var book approval.Book // its rules of form, time and signature, for this one statement
	s, err := book.Request([]byte(f.Statement), now)
	if err != nil {
		return nil, err
	}
	if s.Action != Action || s.Org != org.String() || len(s.Objects) != 1 {
		return nil, errors.New("capability: of another action or organisation")
	}
	text, ok := strings.CutPrefix(s.Objects[0], objectPrefix)
	most, err := strconv.Atoi(text)
	if !ok || err != nil || most < 1 || most > maxBatch || strconv.Itoa(most) != text {
		return nil, errors.New("capability: objects are not one number of names")
	}
	if n > most {
		return nil, errors.New("capability: more names than it allows")
	}
	by, err := r.Voter(f.Signed.Key)
	if err != nil {
		return nil, err
	}
	if by.Office != string(officer.Oversight) {
		return nil, errors.New("capability: not of oversight")
	}
	if state, err := book.Decide(s.ID, f.Signed, by, now); err != nil || state != approval.Requested {
		// Refused is a valid signature that says no; one approval leaves it Requested.
		return nil, errors.New("capability: no approval of this officer")
	}
	return s, nil
}

// questions keeps which capabilities were used, durable before the answer.
type questions struct {
	path string
	now  func() time.Time

	mu                sync.Mutex
	used              map[string]time.Time // digest of the nonce, until it expires
	answered, refused int64
	names             int64
}

type askedForm struct {
	Used []usedForm `json:"used"`
	V    int        `json:"v"`
}

type usedForm struct {
	Digest  string `json:"digest"` // SHA-256 of the nonce
	Expires string `json:"expires"`
}

func openQuestions(dir string, now func() time.Time) (*questions, error) {
	q := &questions{path: filepath.Join(dir, "asked.json"), now: now, used: map[string]time.Time{}}
	b, err := os.ReadFile(q.path)
	if errors.Is(err, fs.ErrNotExist) {
		return q, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the capabilities used: %w", err)
	}
	var f askedForm
	if err := approval.DecodeUpTo(askedLimit, b, &f); err != nil || f.V != 1 {
		return nil, fmt.Errorf("%s is damaged: restore it, or wait a day after its last write and remove it", q.path)
	}
	for _, u := range f.Used {
		at, err := time.Parse(time.RFC3339, u.Expires)
		if err != nil {
			return nil, fmt.Errorf("%s is damaged: restore it, or wait a day after its last write and remove it", q.path)
		}
		q.used[u.Digest] = at
	}
	return q, nil
}

// spend uses a capability up, once, before anything is answered.
func (q *questions) spend(s *approval.Statement, names int) error {
	sum := sha256.Sum256([]byte(s.Nonce))
	key := base64.RawURLEncoding.EncodeToString(sum[:])
	q.mu.Lock()
	defer q.mu.Unlock()
	if _, was := q.used[key]; was {
		return errors.New("capability: it was used")
	}
	now := q.now()
	f := askedForm{V: 1}
	kept := map[string]time.Time{key: s.ExpiresAt()}
	for k, until := range q.used {
		// A clock that goes back must not bring one back: they stay a day longer.
		if now.Before(until.Add(approval.MaxLife)) {
			kept[k] = until
		}
	}
	if len(kept) > maxAsked {
		return errors.New("capability: too many of one day")
	}
	for _, k := range sortedKeys(kept) {
		f.Used = append(f.Used, usedForm{Digest: k, Expires: kept[k].UTC().Format(time.RFC3339)})
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
	q.answered++
	q.names += int64(names)
	return nil
}
