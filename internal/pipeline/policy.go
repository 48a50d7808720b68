package pipeline

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/counterseal/counterseal/internal/access"
	"github.com/counterseal/counterseal/internal/admit"
	"github.com/counterseal/counterseal/internal/detect"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/parse"
	"github.com/counterseal/counterseal/internal/pia"
	"github.com/counterseal/counterseal/internal/pseudonym"
)

// Documents is everything people wrote that decides about records: it is read from
// the configuration and becomes the context in force.
type Documents struct {
	PIAs      []Document
	Protected []byte // protected/v1: proposes, once there are offices; empty: no channel is named
	Directory []byte // directory/v1; empty: no names are joined
	Rules     []detect.File
}

// Document is a file with the name that errors give it.
type Document struct {
	Name string
	Data []byte
}

// Problem is one thing wrong with a document.
type Problem struct {
	Document string
	Text     string
}

// policy is the compiled form of Documents.
type policy struct {
	context   event.Context
	digest    string // of the context
	pias      *pia.Set
	protected *admit.Protected
	names     *pseudonym.Pseudonymiser // of ingest: whom it meets is sealed
	quiet     *pseudonym.Pseudonymiser // of everything else: it leaves no trace
	rules     *detect.RuleSet
	sources   map[string]string // source to a compartment of it, from every valid assessment
	blobs     map[string][]byte // digest to document, of what a rebuild reads
	standing  forms             // what selects somebody
	channels  Channels          // what protected is made of
	firstList bool              // the ledger has no list yet, and offices have come
	from      Documents

	sightMu sync.Mutex
	sights  map[sightKey]detect.Sight
}

type sightKey struct {
	source, dataset string
	day             int64
}

// compile turns documents into a policy. A PIA with a problem is left out and
// named; it opens no gate. A protected list or a directory that cannot be read
// refuses the whole: leaving it out would store what must not be.
func (p *Pipeline) compile(ctx context.Context, d Documents) (*policy, []Problem, error) {
	var problems []Problem
	pol := &policy{from: d, blobs: make(map[string][]byte), sources: make(map[string]string), sights: make(map[sightKey]detect.Sight)}

	var err error
	if err = p.compileChannels(ctx, pol); err != nil {
		return nil, nil, err
	}
	dir, err := pseudonym.ParseDirectory(d.Directory)
	if err != nil {
		return nil, nil, fmt.Errorf("reading the directory: %w", err)
	}
	pol.names = pseudonym.New(p.vault.Tokenizer(p.tokens), dir, p.hash)
	pol.quiet = pseudonym.New(p.tokens, dir, p.hash)

	var good []*pia.PIA
	for _, doc := range d.PIAs {
		a, bad := pia.Parse(doc.Name, doc.Data)
		for _, b := range bad {
			if b.Code == "unsigned" { // doctor says so of every assessment
				continue
			}
			problems = append(problems, Problem{Document: doc.Name, Text: strings.TrimPrefix(strings.TrimPrefix(b.String(), doc.Name), ":")})
		}
		if a == nil || !a.Valid() {
			continue
		}
		good = append(good, a)
		digest := pol.blob(doc.Data)
		pol.context.PIAs = append(pol.context.PIAs, digest)
		for _, src := range a.Sources {
			pol.sources[src.Selector.Source] = src.Compartment
		}
	}
	set, bad := pia.NewSet(good, p.now())
	for _, b := range bad {
		problems = append(problems, Problem{Document: b.File, Text: b.String()})
	}
	pol.pias = set

	var files []detect.File
	if files, pol.standing, err = p.stand(ctx, d.Rules, pol.asking()); err != nil {
		return nil, nil, err
	}
	if pol.rules, err = detect.Compile(files, pol.standing.bounds()...); err != nil {
		return nil, nil, err
	}
	for _, r := range pol.rules.Refused() {
		problems = append(problems, Problem{Document: r.Path, Text: r.Error()})
	}
	pol.blobs[pol.rules.Digest()] = pol.rules.Blob()

	pol.context.RuleSet = pol.rules.Digest()
	// The directory holds names, so only a keyed digest of it is stored.
	pol.context.Directory = hex.EncodeToString(p.hash(append([]byte("directory\x00"), d.Directory...)))
	pol.context.Epoch = p.epoch
	pol.context.Parsers = make(map[string]int)
	for _, f := range parse.Formats() {
		pol.context.Parsers[f.Name] = f.Version
	}
	doc, err := json.Marshal(pol.context)
	if err != nil {
		return nil, nil, fmt.Errorf("writing the context: %w", err)
	}
	pol.digest = pol.blob(doc)
	return pol, problems, nil
}

// asking is what a question is judged with under the lists of a policy.
func (pol *policy) asking() access.Options {
	return access.Options{
		Protected: pol.protected.Mentions,
		Known: func(text string) bool {
			label, err := pol.quiet.Label(text)
			return err != nil || label != text
		},
	}
}

func (pol *policy) blob(data []byte) string {
	sum := sha256.Sum256(data)
	digest := hex.EncodeToString(sum[:])
	pol.blobs[digest] = data
	return digest
}

// sight says what the assessment in force left to be seen of a dataset.
func (pol *policy) sight(source, dataset string, at time.Time) detect.Sight {
	return cachedSight(&pol.sightMu, pol.sights, pol.pias, source, dataset, at)
}

func cachedSight(mu *sync.Mutex, cache map[sightKey]detect.Sight, set *pia.Set, source, dataset string, at time.Time) detect.Sight {
	key := sightKey{source, dataset, at.Unix() / 86400}
	mu.Lock()
	defer mu.Unlock()
	if s, ok := cache[key]; ok {
		return s
	}
	if len(cache) > 10_000 {
		clear(cache)
	}
	var s detect.Sight
	if rule, refusal := set.Find(source, dataset, "", at); refusal == nil {
		s = sightOfRule(rule)
	}
	cache[key] = s
	return s
}

func sightOfRule(rule *pia.Rule) detect.Sight {
	return detect.Sight{
		Blind: func(field string) bool { a, _, _ := rule.Action(field); return a == pia.Drop },
		Hidden: func(field string) bool {
			a, _, _ := rule.Action(field)
			return a == pia.DetectOnly || a == pia.HashKeyed
		},
	}
}

// past is the part of a policy that a rebuild needs, made again from blobs.
type past struct {
	rules *detect.RuleSet
	pias  *pia.Set
	mu    sync.Mutex
	sees  map[sightKey]detect.Sight
}

func (s *past) sight(e *event.Event) detect.Sight {
	return cachedSight(&s.mu, s.sees, s.pias, e.Source, e.Dataset, time.Unix(0, e.Received))
}

// recall compiles the rules and assessments that a context names.
func (p *Pipeline) recall(c *event.Context) (*past, error) {
	digest, err := contextDigest(c)
	if err != nil {
		return nil, err
	}
	p.pastMu.Lock()
	defer p.pastMu.Unlock()
	if s, ok := p.pasts[digest]; ok {
		return s, nil
	}
	blob, err := p.blobs.get(c.RuleSet)
	if err != nil {
		return nil, fmt.Errorf("the rule set in force then: %w", err)
	}
	s := &past{sees: make(map[sightKey]detect.Sight)}
	for _, have := range p.pasts {
		if have.rules.Digest() == c.RuleSet {
			s.rules = have.rules
		}
	}
	if s.rules == nil {
		if s.rules, err = detect.FromBlob(blob); err != nil {
			return nil, err
		}
	}
	var all []*pia.PIA
	for _, d := range c.PIAs {
		doc, err := p.blobs.get(d)
		if err != nil {
			return nil, fmt.Errorf("an assessment in force then: %w", err)
		}
		a, bad := pia.Parse("blob "+d[:12], doc)
		if a == nil {
			return nil, fmt.Errorf("an assessment in force then: %s", bad[0].String())
		}
		all = append(all, a)
	}
	s.pias, _ = pia.NewSet(all, p.now())
	if len(p.pasts) >= 8 { // contexts change rarely; a rebuild walks them in order
		clear(p.pasts)
	}
	p.pasts[digest] = s
	return s, nil
}

func contextDigest(c *event.Context) (string, error) {
	doc, err := json.Marshal(c)
	if err != nil {
		return "", fmt.Errorf("writing the context: %w", err)
	}
	sum := sha256.Sum256(doc)
	return hex.EncodeToString(sum[:]), nil
}

func decodeContext(doc []byte) (*event.Context, error) {
	c := new(event.Context)
	dec := json.NewDecoder(bytes.NewReader(doc))
	if err := dec.Decode(c); err != nil {
		return nil, errors.Join(errors.New("reading a context"), err)
	}
	return c, nil
}
