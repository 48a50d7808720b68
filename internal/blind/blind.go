// Package blind lets somebody look words up in a table of somebody else, who does not learn
// which words, and gives nothing about any other one. docs/formats/disclosers.md has the
// bytes.
//
// It promises: a point that is asked tells nothing of its word, whatever the other side
// does, since it is a random point of the curve; a row of the table opens only with the
// answer to its own word, so that whoever asked n points opens the rows of n words at most.
//
// It is the oblivious function of Jarecki, Kiayias and Krawczyk (2HashDH, the base mode of
// RFC 9497 in its shape) on P-256, with the x-coordinates that ECDH gives: a sign that is lost
// makes no difference, since x(k·P) = x(-k·P). Whoever answers makes a key for one table and
// forgets it.
//
// Limits. Who answers can answer falsely, and then rows do not open or hold other values. What
// Answered and Open do takes a time that depends on the words: the caller has the whole table
// by then, and whoever answered sees nothing of it any more. So does Ask, before anything is sent.
// Words are brought to one spelling by the callers.
package blind

import (
	"crypto/ecdh"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/big"
)

const (
	// PointLen is the length of a Point, ValueLen that of a value.
	PointLen = 32
	ValueLen = 16

	// MaxWidth is how many values a row has at most.
	MaxWidth = 256

	indexLen  = 16
	pointText = "counterseal/blind/v1/point\x00"
	rowText   = "counterseal/blind/v1/row\x00"
)

// Point is the x-coordinate of a point of P-256, big-endian.
type Point [PointLen]byte

// Value is what a row holds several of. The zero Value is none.
type Value [ValueLen]byte

var errPoint = errors.New("not a point of the curve")

// key gives the point with this x and an even y.
func (p Point) key() (*ecdh.PublicKey, error) {
	compressed := append([]byte{2}, p[:]...)
	x, y := elliptic.UnmarshalCompressed(elliptic.P256(), compressed)
	if x == nil {
		return nil, errPoint
	}
	var whole [1 + 2*PointLen]byte
	whole[0] = 4
	x.FillBytes(whole[1 : 1+PointLen])
	y.FillBytes(whole[1+PointLen:])
	return ecdh.P256().NewPublicKey(whole[:])
}

// pointOf gives the point of a word: the first of SHA-256(label ‖ u8 try ‖ word) that is one.
func pointOf(word []byte) (*ecdh.PublicKey, error) {
	for try := range 256 {
		b := append([]byte(pointText), byte(try))
		if p, err := Point(sha256.Sum256(append(b, word...))).key(); err == nil {
			return p, nil
		}
	}
	return nil, errors.New("no point for this word") // once in 2²⁵⁶ words
}

func times(k *ecdh.PrivateKey, p *ecdh.PublicKey) (Point, error) {
	x, err := k.ECDH(p)
	if err != nil {
		return Point{}, err
	}
	return Point(x), nil
}

// mask is what opens the row of a word: where it stands and what its values are hidden with.
func mask(word []byte, answer Point, width int) (index [indexLen]byte, pad []byte, err error) {
	b, err := hkdf.Key(sha256.New, answer[:], word, rowText, indexLen+width*ValueLen)
	if err != nil {
		return index, nil, err
	}
	return [indexLen]byte(b), b[indexLen:], nil
}

// Key is of whoever answers, for one table.
type Key struct{ k *ecdh.PrivateKey }

// NewKey makes one.
func NewKey() (*Key, error) {
	k, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making a key for a table: %w", err)
	}
	return &Key{k}, nil
}

// Answer answers a point that was asked. Its error says that it is none.
func (k *Key) Answer(asked Point) (Point, error) {
	p, err := asked.key()
	if err != nil {
		return Point{}, err
	}
	return times(k.k, p)
}

// RowLen is the length of a row of so many values.
func RowLen(width int) int { return indexLen + width*ValueLen }

// Row appends the row of a word to b: RowLen(width) bytes. There are at most width values.
func (k *Key) Row(b, word []byte, values []Value, width int) ([]byte, error) {
	if len(values) > width || width < 1 || width > MaxWidth {
		return nil, fmt.Errorf("a row has at most %d values", min(width, MaxWidth))
	}
	p, err := pointOf(word)
	if err != nil {
		return nil, err
	}
	answer, err := times(k.k, p)
	if err != nil {
		return nil, err
	}
	index, pad, err := mask(word, answer, width)
	if err != nil {
		return nil, err
	}
	for i, v := range values {
		for j := range v {
			pad[i*ValueLen+j] ^= v[j]
		}
	}
	return append(append(b, index[:]...), pad...), nil
}

// Asked are words under way. Who asked keeps it.
type Asked struct {
	words [][]byte
	undo  []*ecdh.PrivateKey // of each point, those of no word too
	all   []Point
}

// Ask blinds words, in as many points as places; those beyond the words are of no word and
// look like the others.
func Ask(words [][]byte, places int) (*Asked, error) {
	if len(words) > places {
		return nil, fmt.Errorf("%d words and %d places", len(words), places)
	}
	a := &Asked{words: words}
	for i := range places {
		var word []byte
		if i < len(words) {
			word = words[i]
		}
		p, err := pointOf(word)
		if err != nil {
			return nil, err
		}
		r, err := ecdh.P256().GenerateKey(rand.Reader)
		if err != nil {
			return nil, fmt.Errorf("asking blindly: %w", err)
		}
		asked, err := times(r, p)
		if err != nil {
			return nil, err
		}
		inverse, err := invert(r)
		if err != nil {
			return nil, err
		}
		a.all, a.undo = append(a.all, asked), append(a.undo, inverse)
	}
	return a, nil
}

// invert gives 1/r in the group of the curve. math/big takes a time that depends on r, which is
// used once and on the machine of who asks.
func invert(r *ecdh.PrivateKey) (*ecdh.PrivateKey, error) {
	inverse := new(big.Int).ModInverse(new(big.Int).SetBytes(r.Bytes()), elliptic.P256().Params().N)
	var b [PointLen]byte
	return ecdh.P256().NewPrivateKey(inverse.FillBytes(b[:]))
}

// Points are what goes to whoever answers.
func (a *Asked) Points() []Point { return append([]Point{}, a.all...) }

// Rows opens rows of a table.
type Rows struct {
	width int
	at    map[[indexLen]byte]opens
}

type opens struct {
	word int
	pad  []byte
}

// Answered takes the answers, in the order of Points. The rows of the table have width values.
func (a *Asked) Answered(answers []Point, width int) (*Rows, error) {
	if len(answers) != len(a.all) {
		return nil, fmt.Errorf("%d points were asked and %d answered", len(a.all), len(answers))
	}
	if width < 1 || width > MaxWidth {
		return nil, fmt.Errorf("a row has 1 to %d values", MaxWidth)
	}
	r := &Rows{width: width, at: map[[indexLen]byte]opens{}}
	for i := range answers { // those to points of no word are judged as the others are
		p, err := answers[i].key()
		if err != nil {
			return nil, err
		}
		answer, err := times(a.undo[i], p)
		if err != nil {
			return nil, err
		}
		if i >= len(a.words) {
			continue
		}
		word := a.words[i]
		index, pad, err := mask(word, answer, width)
		if err != nil {
			return nil, err
		}
		r.at[index] = opens{i, pad}
	}
	return r, nil
}

// Open opens a row, if it is of a word that was asked, and says of which.
func (r *Rows) Open(row []byte) (word int, values []Value, ok bool) {
	if len(row) != RowLen(r.width) {
		return 0, nil, false
	}
	o, ok := r.at[[indexLen]byte(row)]
	if !ok {
		return 0, nil, false
	}
	for i := range r.width {
		var v Value
		for j := range v {
			v[j] = row[indexLen+i*ValueLen+j] ^ o.pad[i*ValueLen+j]
		}
		if v != (Value{}) {
			values = append(values, v)
		}
	}
	return o.word, values, true
}
