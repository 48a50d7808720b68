// Package pipeline holds the order of the steps: Accept takes a batch from the way
// in to durable evidence, and Follow takes the event stream from there to index,
// findings and state, the same for live traffic, restart and rebuild.
//
// It promises: no answer before evidence is durable; nothing of a record that is
// withheld for a protected channel, not even a number; each record of the event
// stream once in the index; the same findings from the same evidence, whoever
// reads it and when. ARCHITECTURE.md tells the way of one log line.
package pipeline

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"github.com/counterseal/counterseal/internal/attest"
	"github.com/counterseal/counterseal/internal/detect"
	"github.com/counterseal/counterseal/internal/durable"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/evidence"
	"github.com/counterseal/counterseal/internal/index"
	"github.com/counterseal/counterseal/internal/keyring"
	"github.com/counterseal/counterseal/internal/pseudonym"
	"github.com/counterseal/counterseal/internal/state"
	"github.com/counterseal/counterseal/internal/vault"
)

// Options of a pipeline.
type Options struct {
	Dir       string // data directory, locked by the caller
	Documents Documents
	Log       *slog.Logger
	Now       func() time.Time // nil: time.Now
	Reserve   int64            // bytes of disk that stay free; below, nothing is accepted
	Memory    int64            // budget of the index
	InFlight  int64            // bytes of frames under way at once; 0: 64 MiB
	Segment   evidence.Options // limits of segments and the escrow; the rest is filled here
	Ledger    LedgerOptions

	// Tokens makes the tokens of an epoch; Epoch 0 is the first. Whoever has the key, it is
	// not the pipeline.
	Tokens pseudonym.Tokenizer
	Epoch  int

	// Opened is called once the ledger is open and before the documents are judged: what
	// Standing asks is opened on it. It may use Recorder, AliasMAC and Org alone.
	Opened func(context.Context, *Pipeline) error
	// Standing says what covers a rule that selects somebody; nil: nothing does.
	Standing func(context.Context, *Standing) (Ruling, error)
	// Offices tells whether a record of offices is in force: then the file of protected
	// channels proposes, and people agree. nil: there is none.
	Offices func() bool

	Keys       *keyring.Keyring   // of the data directory; nil: it is opened
	Passphrase keyring.Passphrase // of a sealed keyring; asked only then
}

// Pipeline is the running system of one data directory.
type Pipeline struct {
	dir     string
	log     *slog.Logger
	now     func() time.Time
	reserve int64

	keys     keyLocks
	keyring  *keyring.Keyring
	escrow   bool // new originals are sealed to officers
	tokens   pseudonym.Tokenizer
	vault    *vault.Vault
	epoch    int
	evidence *evidence.Store
	recorder *attest.Recorder
	segments *attest.Segments
	state    *state.DB
	index    *index.Index
	indexOpt index.Options
	blobs    blobs

	watch      LedgerOptions
	compared   compared
	windows    windows
	record     sync.WaitGroup // what states segments and windows
	stopRecord context.CancelFunc
	leaving    string // why the server stops, once it has stated that it started

	budget      *semaphore.Weighted
	budgetBytes int64
	waiting     atomic.Bool // the index waits for room on the disk

	standing    func(context.Context, *Standing) (Ruling, error)
	offices     func() bool
	documentsMu sync.Mutex // held while documents are judged and put in force

	policyMu sync.RWMutex // held for reading by a batch on its way
	policy   *policy
	problems []Problem

	contextMu sync.Mutex
	contexts  map[string]contextAt // compartment to the last context written

	running  running
	sequence sequence
	pending  pending // holes in running numbers: sealed with the next record of the source
	breaks   pending // what ways in saw: sealed soon, also where no record follows
	refusals refusals
	noTokens noTokens
	marks    watermarks
	accepted atomic.Int64
	tail     tail
	today    today

	found map[string]evidence.Position // ends of the streams when the process began
	topMu sync.Mutex
	tops  map[string]evidence.Position // ends of the streams now

	recentMu sync.Mutex
	recent   map[string]map[string]*event.Card // key, compartment: cards not yet projected

	pastMu sync.Mutex
	pasts  map[string]*past

	zoneMu sync.Mutex
	zones  map[string]*time.Location

	damageMu  sync.Mutex
	damage    []string             // sealed records that could not be read
	destroyed map[uuid.UUID]uint64 // segments without a key, by statement: records passed over

	followMu  sync.Mutex
	followers map[string]*follower
	group     *errgroup.Group
	groupCtx  context.Context
	stop      context.CancelFunc
	followed  bool // Follow has begun
}

// Open opens the data directory, recovers what a crash left, and reads the tails
// of the event streams into the state, so that every request key is known before
// the first request. Follow must run for index and findings to grow.
func Open(ctx context.Context, o Options) (*Pipeline, error) {
	p := &Pipeline{
		dir: o.Dir, log: o.Log, now: o.Now, reserve: o.Reserve, tokens: o.Tokens, epoch: max(o.Epoch, 1), keyring: o.Keys,
		blobs:       blobs{dir: filepath.Join(o.Dir, "blobs")},
		keys:        keyLocks{held: make(map[string]*keyLock)},
		contexts:    make(map[string]contextAt),
		running:     running{last: make(map[string]uint64)},
		sequence:    sequence{last: make(map[string]uint64)},
		pending:     pending{gaps: make(map[string][]event.Gap)},
		breaks:      pending{gaps: make(map[string][]event.Gap)},
		refusals:    refusals{n: make(map[[2]string]int64)},
		marks:       watermarks{last: make(map[[2]string]time.Time), imports: make(map[string]map[string]time.Time)},
		found:       make(map[string]evidence.Position),
		tops:        make(map[string]evidence.Position),
		tail:        tail{have: make(map[tailKey]int)},
		recent:      make(map[string]map[string]*event.Card),
		pasts:       make(map[string]*past),
		zones:       make(map[string]*time.Location),
		followers:   make(map[string]*follower),
		destroyed:   make(map[uuid.UUID]uint64),
		budgetBytes: o.InFlight, standing: o.Standing, offices: o.Offices,
	}
	if p.now == nil {
		p.now = time.Now
	}
	if p.log == nil {
		p.log = slog.New(slog.DiscardHandler)
	}
	if p.budgetBytes == 0 {
		p.budgetBytes = 64 << 20
	}
	p.budget = semaphore.NewWeighted(p.budgetBytes)
	var err error
	if p.tokens == nil {
		return nil, errors.New("a pipeline without a maker of tokens")
	}
	if p.keyring == nil {
		if p.keyring, err = keyring.OpenSealed(o.Dir, o.Passphrase); err != nil {
			return nil, err
		}
	}
	seg := o.Segment
	p.escrow = seg.Escrow != nil
	seg.Dir, seg.Keys, seg.Now = o.Dir, p.keyring, p.now
	if err := p.openRecord(ctx, o.Ledger); err != nil {
		return nil, err
	}
	if err := p.openVault(ctx, seg.Escrow); err != nil {
		return nil, errors.Join(err, p.recorder.Close(), p.state.Close())
	}
	opened := false
	defer func() {
		if !opened {
			p.vault.Close() // nothing was put into it
		}
	}()
	if o.Opened != nil {
		if err := o.Opened(ctx, p); err != nil {
			return nil, errors.Join(err, p.recorder.Close(), p.state.Close())
		}
	}
	if p.policy, p.problems, err = p.compile(ctx, o.Documents); err != nil {
		return nil, errors.Join(err, p.recorder.Close(), p.state.Close())
	}
	seg.Opened, seg.Settled = p.segments.Opened, p.segments.Settled
	if p.evidence, err = evidence.Open(seg); err != nil {
		return nil, errors.Join(err, p.recorder.Close(), p.state.Close())
	}
	for _, r := range p.evidence.Recovered() {
		p.log.Warn("evidence recovered after an unclean stop", "what", r.String())
	}
	p.tail.until = p.now().Add(tailLife)
	if err := p.catchUp(ctx); err != nil {
		return nil, errors.Join(err, p.evidence.Close(), p.recorder.Close(), p.state.Close())
	}
	p.indexOpt = index.Options{Dir: filepath.Join(o.Dir, "index"), Logger: p.log, MemoryBytes: int(o.Memory), ReserveBytes: o.Reserve / 2, Now: p.now}
	if p.index, err = index.Open(p.indexOpt); err != nil {
		return nil, errors.Join(err, p.evidence.Close(), p.recorder.Close(), p.state.Close())
	}
	if err := p.startRecord(ctx, o.Ledger); err != nil {
		return nil, errors.Join(err, p.index.Close(), p.evidence.Close(), p.recorder.Close(), p.state.Close())
	}
	opened = true
	return p, nil
}

// SetDocuments puts other documents in force between two batches, once the ledger
// has them. A new context record follows in each stream.
func (p *Pipeline) SetDocuments(d Documents) error {
	p.documentsMu.Lock()
	defer p.documentsMu.Unlock()
	return p.setDocuments(context.Background(), d) // bounded by the ledger
}

func (p *Pipeline) setDocuments(ctx context.Context, d Documents) error {
	pol, problems, err := p.compile(ctx, d)
	if err != nil {
		return err
	}
	if err := p.stateDocuments(ctx, pol); err != nil {
		return err
	}
	p.policyMu.Lock()
	defer p.policyMu.Unlock()
	p.policy, p.problems = pol, problems
	return nil
}

// Problems lists what is wrong with the documents in force.
func (p *Pipeline) Problems() []Problem {
	p.policyMu.RLock()
	defer p.policyMu.RUnlock()
	return p.problems
}

// Rules is the rule set in force.
func (p *Pipeline) Rules() *detect.RuleSet {
	p.policyMu.RLock()
	defer p.policyMu.RUnlock()
	return p.policy.rules
}

// Index answers questions. It is replaced by Rebuild.
func (p *Pipeline) Index() *index.Index { return p.index }

// State answers what was kept, dropped and missed.
func (p *Pipeline) State() *state.DB { return p.state }

// Refused lists what the door refused since the process began.
func (p *Pipeline) Refused() []Refused { return p.refusals.list() }

// CannotTell counts, by rule id, the events that a rule could not be answered on.
func (p *Pipeline) CannotTell() map[string]int64 {
	p.pastMu.Lock()
	defer p.pastMu.Unlock()
	out := make(map[string]int64)
	seen := make(map[*detect.RuleSet]bool)
	add := func(r *detect.RuleSet) {
		if seen[r] {
			return
		}
		seen[r] = true
		for id, n := range r.CannotTell() {
			out[id] += n
		}
	}
	add(p.Rules())
	for _, s := range p.pasts {
		add(s.rules)
	}
	return out
}

// Ready says why nothing can be accepted now, or nil.
func (p *Pipeline) Ready() error { return p.ready() }

// Accepted counts the events sealed since the process began.
func (p *Pipeline) Accepted() int64 { return p.accepted.Load() }

// Gap records a break that a way in saw. It travels with the next card of its
// source, or within a second goes alone.
func (p *Pipeline) Gap(g event.Gap) {
	if g.At.IsZero() {
		g.At = p.now().UTC()
	}
	g.At = g.At.UTC()
	p.breaks.add([]event.Gap{g})
}

// hash is the keyed digest of values that no one may read back.
func (p *Pipeline) hash(b []byte) []byte { return p.keyring.MAC("field/1", b) }

func (p *Pipeline) zone(name string) (*time.Location, error) {
	p.zoneMu.Lock()
	defer p.zoneMu.Unlock()
	if l, ok := p.zones[name]; ok {
		return l, nil
	}
	l, err := time.LoadLocation(name)
	if err != nil {
		return nil, fmt.Errorf("time zone %q is not known", name)
	}
	p.zones[name] = l
	return l, nil
}

// storageError answers a failed write: the request was not accepted, and if the
// disk is full the source is told to wait.
func (p *Pipeline) storageError(err error) error {
	switch {
	case errors.Is(err, vault.ErrAgain):
		return &event.Refusal{Code: codeBusy, Reason: "a name of this request was erased at this moment", Hint: "send it again", After: time.Second}
	case errors.Is(err, evidence.ErrTooLarge):
		return &event.Refusal{Code: codeLarge, Reason: "the request is larger than one durable unit", Hint: "send fewer lines at once"}
	case durable.IsFull(err):
		return &event.Refusal{Code: codeDisk, Reason: "the disk is full", Hint: "free space on the data disk", After: 30 * time.Second}
	}
	return fmt.Errorf("sealing evidence: %w", err)
}

// cards looks a key up in what is sealed and not yet projected, then in what is
// projected: a card leaves memory only after the state has it, so it is seen in one
// of them.
func (p *Pipeline) cards(ctx context.Context, key string) (map[string]*event.Card, error) {
	p.recentMu.Lock()
	recent := maps.Clone(p.recent[key])
	p.recentMu.Unlock()
	cards, err := p.state.Cards(ctx, key, p.now())
	if err != nil {
		return nil, err
	}
	for comp, c := range recent {
		if cards == nil {
			cards = make(map[string]*event.Card)
		}
		cards[comp] = c
	}
	return cards, nil
}

func (p *Pipeline) remember(key, compartment string, c *event.Card) {
	if key == "" {
		return
	}
	p.recentMu.Lock()
	defer p.recentMu.Unlock()
	if p.recent[key] == nil {
		p.recent[key] = make(map[string]*event.Card)
	}
	p.recent[key][compartment] = c
}

// forget takes back what was remembered of a card that was not sealed.
func (p *Pipeline) forget(key, compartment string) {
	p.projected(compartment, []*event.Card{{Key: key}})
}

func (p *Pipeline) projected(compartment string, cards []*event.Card) {
	p.recentMu.Lock()
	defer p.recentMu.Unlock()
	for _, c := range cards {
		if m := p.recent[c.Key]; m != nil {
			delete(m, compartment)
			if len(m) == 0 {
				delete(p.recent, c.Key)
			}
		}
	}
}
