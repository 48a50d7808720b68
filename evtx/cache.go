package evtx

import (
	"bytes"
	"encoding/binary"
	"sync"
)

// Bounds of a cache.
const (
	cacheBytes  = 32 << 20 // of memory, by estimate
	maxVariants = 16       // definitions of one GUID and size
)

// Cache keeps compiled template definitions for all chunks and files that are
// given it. A few hundred definitions make up nearly every event log, while each
// chunk repeats those that it uses: with a cache they are compiled once.
//
// A definition is found by its GUID and size and used only if it is the same,
// byte for byte, with every name that it refers to: offsets of names differ from
// chunk to chunk, the names themselves must not. So a file that reuses the GUID
// of another's definition cannot change how that other file is read, and reading
// never depends on what was read before.
//
// A cache holds at most about 32 MiB; what was not used for long goes first. The
// zero value is empty and ready. A Cache is safe for concurrent use.
type Cache struct {
	mu         sync.RWMutex
	young, old map[cacheKey][]*definition // the lists are never changed, only replaced
	used       int                        // bytes in young
}

type cacheKey struct {
	guid [16]byte
	size uint32
}

// nameRef is a reference to a name inside a definition: the position of the
// offset and, behind the name's own chain offset, its hash, length and
// characters.
type nameRef struct {
	pos    int // from the start of the definition
	inline bool
	bytes  []byte
}

// key reads the key of the definition at a position of the chunk.
func (c *Chunk) key(at int) (k cacheKey, ok bool) {
	if at+definitionHeader > c.size {
		return k, false
	}
	copy(k.guid[:], c.buf[at+4:])
	k.size = binary.LittleEndian.Uint32(c.buf[at+20:])
	return k, int64(at)+definitionHeader+int64(k.size) <= int64(c.size)
}

// find returns the cached definition that equals the one at a position of chunk;
// that one has the key and lies inside the chunk.
func (h *Cache) find(k cacheKey, chunk []byte, at int) *definition {
	h.mu.RLock()
	young, old := h.young[k], h.old[k]
	h.mu.RUnlock()
	for _, d := range young {
		if d.equals(chunk, at) {
			return d
		}
	}
	for _, d := range old {
		if d.equals(chunk, at) {
			h.add(k, d)
			return d
		}
	}
	return nil
}

func (h *Cache) add(k cacheKey, d *definition) {
	cost := d.cost()
	if cost > cacheBytes/8 {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	list := h.young[k]
	for _, have := range list {
		if have == d {
			return
		}
	}
	if h.used+cost > cacheBytes/2 {
		h.old, h.young, h.used, list = h.young, nil, 0, nil
	}
	if h.young == nil {
		h.young = make(map[cacheKey][]*definition)
	}
	from := 0
	if len(list) >= maxVariants {
		h.used -= list[0].cost()
		from = 1
	}
	h.young[k] = append(append(make([]*definition, 0, len(list)+1), list[from:]...), d)
	h.used += cost
}

// cost estimates the memory of a definition with both of its plans.
func (d *definition) cost() int {
	const perDefinition, perOp, perName = 1024, 320, 64
	return perDefinition + 2*len(d.raw) + 8*d.lits + perOp*len(d.ops) + perName*len(d.names)
}

// equals reports whether compiling the definition at a position of the chunk
// would give d: all bytes are the same but the offsets of names and of chains,
// and each of those leads to the same name by a legal offset. The bytes of a name
// hold its hash, which was checked when d was compiled.
func (d *definition) equals(chunk []byte, at int) bool {
	b := chunk[at : at+len(d.raw)]
	from := 4 // behind the offset of the next definition in the chain
	for i := range d.names {
		n := &d.names[i]
		if !bytes.Equal(b[from:n.pos], d.raw[from:n.pos]) {
			return false
		}
		off, q := binary.LittleEndian.Uint32(b[n.pos:]), at+n.pos+4
		from = n.pos + 4
		if inline := int64(off) == int64(q); inline != n.inline {
			return false
		} else if inline {
			from += 4 // the name's own chain; its bytes are compared with the rest
			continue
		}
		if int64(off) > int64(q) || off < recordsStart || int(off)+4+len(n.bytes) > len(chunk) {
			return false
		}
		if !bytes.Equal(chunk[off+4:int(off)+4+len(n.bytes)], n.bytes) {
			return false
		}
	}
	return bytes.Equal(b[from:], d.raw[from:])
}

// Use makes the reader's chunks keep compiled templates in h, which may serve
// many readers at once. Without it each chunk that is read into has a cache of
// its own. Call it before the first chunk is read.
func (r *Reader) Use(h *Cache) { r.cache = h }

// Use makes the chunk keep compiled templates in h, for callers that load it
// themselves.
func (c *Chunk) Use(h *Cache) { c.cache = h }
