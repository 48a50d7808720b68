package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/counterseal/counterseal/internal/attest"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/index"
	"github.com/counterseal/counterseal/internal/query"
	"github.com/counterseal/counterseal/internal/web"
)

// A canary is a random word that an overseer sent from outside. The server is told salted
// digests of the words and the time of sending; it looks through what it has of that time
// and answers in counts. So the words stay on the overseer's machine, and the answer tells
// nothing of anybody: a digest fits a word of markLen letters alone, and what stands in
// tokens is not looked at, or who has a token could ask when it was seen.

// The classes of what is planted.
const (
	markChannel = "channel" // in a record that names a protected channel: nothing of it may be there
	markPerson  = "person"  // an invented person in a field of identity: a token has to stand there
	markRefused = "refused" // in a field that the assessment refuses: it must not be there
	markKept    = "kept"    // in a field that is kept, beside one of the others: it tells that the record came
)

const (
	markLen        = 24 // letters of base32, 120 bits
	maxMarks       = 300
	maxCanarySpan  = 48 * time.Hour
	maxCanaryRows  = 2_000_000
	maxCanaryGaps  = 100_000
	canarySaltLen  = 16
	markAlphabet   = "abcdefghijklmnopqrstuvwxyz234567"
	canaryAskLimit = 1 << 20
)

type (
	canaryAsk struct {
		Salt  string       `json:"salt"` // hex
		From  time.Time    `json:"from"`
		To    time.Time    `json:"to"`
		Marks []canaryMark `json:"marks"`
	}
	canaryMark struct {
		Class  string `json:"class"`
		Digest string `json:"digest"` // of salt and word, hex
	}
	canaryAnswer struct {
		Planted int          `json:"planted"`
		Found   int          `json:"found"` // of what must not be there
		Looked  int          `json:"looked"`
		Marks   []canaryHits `json:"marks"` // in the order of the question
	}
	canaryHits struct {
		Events    int `json:"events"`
		Findings  int `json:"findings"`
		Elsewhere int `json:"elsewhere"` // gaps, refusals, names of sources, counts
		Tokens    int `json:"tokens"`    // events that hold it and a token
	}
)

// gone says that nothing of it is there.
func (h *canaryHits) gone() bool { return h.Events+h.Findings+h.Elsewhere == 0 }

// newMark makes a random word.
func newMark(random []byte) string {
	return base32.NewEncoding(markAlphabet).WithPadding(base32.NoPadding).EncodeToString(random)
}

func markDigest(salt []byte, word []byte) [32]byte {
	return sha256.Sum256(append(append(make([]byte, 0, len(salt)+len(word)), salt...), word...))
}

// seeker finds words by their digests.
type seeker struct {
	salt []byte
	at   map[[32]byte]int
	hits map[int]bool // of the text that is looked at
}

// look finds every word of the form in a text, also inside of a longer one, a token apart.
func (k *seeker) look(text string) {
	b := bytes.ToLower([]byte(text))
	for rest := b; ; {
		from, to := event.NextToken(rest)
		if from < 0 {
			break
		}
		clear(rest[from:to])
		rest = rest[to:]
	}
	run := 0
	for i := range b {
		if c := b[i]; c >= 'a' && c <= 'z' || c >= '2' && c <= '7' {
			run++
		} else {
			run = 0
		}
		if run >= markLen {
			if n, ok := k.at[markDigest(k.salt, b[i+1-markLen:i+1])]; ok {
				k.hits[n] = true
			}
		}
	}
}

func (k *seeker) row(r *index.Row) (token bool) {
	clear(k.hits)
	for _, text := range []string{r.Source, r.Dataset, r.Ref} {
		k.look(text)
	}
	for _, attrs := range [][]index.Attr{r.OCSF, r.Native} {
		for _, a := range attrs {
			k.look(a.Name)
			k.look(a.Value)
			token = token || event.IsToken([]byte(a.Value))
		}
	}
	return token
}

// newSeeker checks a question.
func newSeeker(in *canaryAsk, now time.Time) (*seeker, error) {
	salt, err := hex.DecodeString(in.Salt)
	switch {
	case err != nil || len(salt) != canarySaltLen:
		return nil, errors.New("salt is 16 bytes in hexadecimal")
	case len(in.Marks) == 0 || len(in.Marks) > maxMarks:
		return nil, fmt.Errorf("marks are 1 to %d", maxMarks)
	case !in.From.Before(in.To) || in.To.Sub(in.From) > maxCanarySpan || in.From.After(now):
		return nil, errors.New("from and to are a time of up to 48 hours")
	}
	k := &seeker{salt: salt, at: map[[32]byte]int{}, hits: map[int]bool{}}
	for i, m := range in.Marks {
		sum, err := hex.DecodeString(m.Digest)
		if err != nil || len(sum) != 32 {
			return nil, fmt.Errorf("mark %d: digest is SHA-256 in hexadecimal", i+1)
		}
		switch m.Class {
		case markChannel, markPerson, markRefused, markKept:
		default:
			return nil, fmt.Errorf("mark %d: class is channel, person, refused or kept", i+1)
		}
		if _, twice := k.at[[32]byte(sum)]; twice {
			return nil, fmt.Errorf("mark %d is there twice", i+1)
		}
		k.at[[32]byte(sum)] = i
	}
	return k, nil
}

// canaryCheck looks for an overseer's canaries in events, findings, gaps, refusals and counts.
// How many were asked about and found becomes a statement.
func (s *server) canaryCheck(ctx context.Context, _ string, body []byte) (any, error) {
	var in canaryAsk
	if len(body) > canaryAskLimit || json.Unmarshal(body, &in) != nil {
		return nil, web.BadRequest("this is no question about canaries", "make one: counterseal channels canary")
	}
	a := web.AskerOf(ctx)
	if err := s.inOffice(a); err != nil {
		return nil, err
	}
	k, err := newSeeker(&in, s.now())
	if err != nil {
		return nil, web.BadRequest(err.Error(), "")
	}
	s.counting.Lock() // one at a time: it reads much
	defer s.counting.Unlock()
	settle, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if err := s.pipe.Settle(settle); err != nil {
		return nil, fmt.Errorf("waiting for what was sent: %w", err)
	}
	out := canaryAnswer{Marks: make([]canaryHits, len(in.Marks))}
	all, err := query.Parse("*")
	if err != nil {
		return nil, err
	}
	err = s.pipe.Index().Query(ctx, all, index.Scope{From: in.From, To: in.To}, maxCanaryRows+1, func(r index.Row) bool {
		out.Looked++
		token := k.row(&r)
		for n := range k.hits {
			h := &out.Marks[n]
			if r.Kind == index.KindFinding {
				h.Findings++
				continue
			}
			h.Events++
			if token {
				h.Tokens++
			}
		}
		return ctx.Err() == nil
	})
	if err != nil {
		return nil, err
	}
	if out.Looked > maxCanaryRows {
		return nil, &web.Refused{Reason: fmt.Sprintf("there are more than %d events of that time", maxCanaryRows), Hint: "check sooner after planting"}
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := s.canaryElsewhere(ctx, k, &in, &out); err != nil {
		return nil, err
	}
	for i, m := range in.Marks {
		out.Planted++
		if m.Class != markKept && !out.Marks[i].gone() {
			out.Found++
		}
	}
	id, err := uuid.NewV7()
	if err != nil {
		return nil, err
	}
	_, err = s.pipe.Recorder().Record(ctx, attest.Act{Kind: "canary.checked", Actor: a.Actor, Subject: []string{id.String()}, Detail: map[string]any{"planted": out.Planted, "found": out.Found}})
	return out, err
}

// canaryElsewhere looks at what is kept beside events: gaps, refusals, and what the metrics
// are made of.
func (s *server) canaryElsewhere(ctx context.Context, k *seeker, in *canaryAsk, out *canaryAnswer) error {
	gaps, err := s.pipe.Gaps(ctx, maxCanaryGaps)
	if err != nil {
		return err
	}
	counts, err := s.pipe.Index().Counts(ctx, index.Scope{From: in.From, To: in.To})
	if err != nil {
		return err
	}
	kept, err := s.pipe.State().Counts(ctx)
	if err != nil {
		return err
	}
	for _, what := range []any{gaps, counts, s.pipe.Refused(), s.pipe.Problems(), s.pipe.CannotTell(), kept} {
		text, err := json.Marshal(what)
		if err != nil {
			return err
		}
		clear(k.hits)
		k.look(string(text))
		for n := range k.hits {
			out.Marks[n].Elsewhere++
		}
	}
	return nil
}
