package pseudonym

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash"
	"sync"

	"github.com/google/uuid"

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

// KeySize is the length of the key of Local.
const KeySize = 32

// Local makes tokens with a key in this process: HMAC-SHA256 over organisation,
// epoch, kind and identity, cut to 128 bits. Whoever has the key can test names
// against tokens at a million a second, so it is the stand-in for a separate key
// holder, and the product says so.
type Local struct {
	epoch  int
	prefix []byte
	macs   sync.Pool
	seen   cache
}

// NewLocal takes a key of KeySize bytes, the organisation and the epoch from 1 on.
func NewLocal(key []byte, org uuid.UUID, epoch int) (*Local, error) {
	if len(key) != KeySize {
		return nil, errors.New("the token key has not 32 bytes")
	}
	if epoch < 1 || epoch > 9999 {
		return nil, errors.New("the token epoch is not from 1 to 9999")
	}
	own := append([]byte(nil), key...)
	l := &Local{epoch: epoch}
	l.prefix = append(l.prefix, "counterseal/token/v1\x00"...)
	l.prefix = append(l.prefix, org[:]...)
	l.prefix = binary.BigEndian.AppendUint32(l.prefix, uint32(epoch))
	l.macs.New = func() any { return hmac.New(sha256.New, own) }
	return l, nil
}

// Token never fails.
func (l *Local) Token(kind event.TokenKind, canonical []byte) (event.Token, error) {
	var room [128]byte
	key := append(append(room[:0], byte(kind)), canonical...)
	if hit, ok := l.seen.get(key); ok {
		return event.Token(hit.text), nil
	}
	h := l.macs.Get().(hash.Hash)
	h.Reset()
	h.Write(l.prefix)
	h.Write(key)
	var sum [sha256.Size]byte
	h.Sum(sum[:0])
	l.macs.Put(h)
	t := event.NewToken(kind, l.epoch, [16]byte(sum[:16]))
	l.seen.put(string(key), cached{text: string(t)})
	return t, nil
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
