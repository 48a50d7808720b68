package pseudonym

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash"
	"sync"

	"github.com/google/uuid"
	"golang.org/x/sync/singleflight"

	"github.com/counterseal/counterseal/internal/event"
)

// Tokenizer makes tokens. Equal kind and canonical give the same token for as long
// as the epoch lasts. It is called from many goroutines and once or more for each
// identity of a record, so an implementation keeps what it has seen, in memory and
// nowhere else: on disk that would be the table which undoes all tokens. An error
// means that no token can be had now (the key holder is away, a quota is used up);
// the caller stores nothing of the record and tries again. It must not keep
// canonical, and must not say it in an error.
type Tokenizer interface {
	Token(kind event.TokenKind, canonical []byte) (event.Token, error)
}

// KeySize is the length of the key of a Maker, and MaxEpoch the last epoch.
const (
	KeySize  = 32
	MaxEpoch = 9999
)

// Maker makes the tokens of one epoch with its key: HMAC-SHA256 over organisation,
// epoch, kind and identity, cut to 128 bits. It remembers nothing of what it is asked.
// Whoever has the key can test names against tokens at a million a second, so it belongs
// into a key holder (internal/keyholder).
type Maker struct {
	epoch  int
	prefix []byte
	macs   sync.Pool
}

// NewMaker takes a key of KeySize bytes, the organisation and the epoch from 1 on.
func NewMaker(key []byte, org uuid.UUID, epoch int) (*Maker, error) {
	if len(key) != KeySize {
		return nil, errors.New("the token key has not 32 bytes")
	}
	if epoch < 1 || epoch > MaxEpoch {
		return nil, errors.New("the token epoch is not from 1 to 9999")
	}
	own := append([]byte(nil), key...)
	m := &Maker{epoch: epoch}
	m.prefix = append(m.prefix, "counterseal/token/v1\x00"...)
	m.prefix = append(m.prefix, org[:]...)
	m.prefix = binary.BigEndian.AppendUint32(m.prefix, uint32(epoch))
	m.macs.New = func() any { return hmac.New(sha256.New, own) }
	return m, nil
}

// Bits are what a token holds. Kind 0 is of no token: it makes a value by which a key is
// known again.
func (m *Maker) Bits(kind event.TokenKind, canonical []byte) [16]byte {
	h := m.macs.Get().(hash.Hash)
	h.Reset()
	h.Write(m.prefix)
	h.Write([]byte{byte(kind)})
	h.Write(canonical)
	var sum [sha256.Size]byte
	h.Sum(sum[:0])
	m.macs.Put(h)
	return [16]byte(sum[:16])
}

// Token never fails.
func (m *Maker) Token(kind event.TokenKind, canonical []byte) (event.Token, error) {
	return event.NewToken(kind, m.epoch, m.Bits(kind, canonical)), nil
}

// Remembering asks another Tokenizer once for each identity, as long as it has room, and
// keeps the answers in memory. Who asks while an answer is under way waits for that one:
// how often the other is asked depends on the identities, not on how the asking fell.
type Remembering struct {
	from  Tokenizer
	seen  cache
	under singleflight.Group
}

// Remember puts a memory before a Tokenizer.
func Remember(t Tokenizer) *Remembering { return &Remembering{from: t} }

// Token answers from memory or asks.
func (r *Remembering) Token(kind event.TokenKind, canonical []byte) (event.Token, error) {
	var room [128]byte
	key := append(append(room[:0], byte(kind)), canonical...)
	if hit, ok := r.seen.get(key); ok {
		return event.Token(hit.text), nil
	}
	name := string(key)
	t, err, _ := r.under.Do(name, func() (any, error) {
		if hit, ok := r.seen.get([]byte(name)); ok { // one that ended between the look and now
			return event.Token(hit.text), nil
		}
		t, err := r.from.Token(kind, canonical)
		if err == nil {
			r.seen.put(name, cached{text: string(t)})
		}
		return t, err
	})
	if err != nil {
		return "", err
	}
	return t.(event.Token), nil
}

// Local is a Maker in this process, with a memory before it: for data that has no key
// holder, and the product says so.
type Local struct{ *Remembering }

// NewLocal takes what NewMaker takes.
func NewLocal(key []byte, org uuid.UUID, epoch int) (*Local, error) {
	m, err := NewMaker(key, org, epoch)
	if err != nil {
		return nil, err
	}
	return &Local{Remember(m)}, nil
}

// cache keeps up to two generations of maxCached entries in memory: when the young
// one is full it becomes the old one, and what is asked for again moves over.
type cache struct {
	mu         sync.RWMutex
	young, old map[string]cached
}

type cached struct {
	text string
	stay bool
}

const (
	maxCached    = 1 << 16
	maxCachedKey = 512 // longer values are rare and would fill memory
)

func (c *cache) get(key []byte) (cached, bool) {
	c.mu.RLock()
	v, ok := c.young[string(key)]
	var aged bool
	if !ok {
		v, aged = c.old[string(key)]
	}
	c.mu.RUnlock()
	if aged {
		c.put(string(key), v)
	}
	return v, ok || aged
}

func (c *cache) put(key string, v cached) {
	if len(key) > maxCachedKey {
		return
	}
	c.mu.Lock()
	if c.young == nil || len(c.young) >= maxCached {
		c.young, c.old = make(map[string]cached, 64), c.young
	}
	c.young[key] = v
	c.mu.Unlock()
}
