package admit

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// Words finds listed texts in other text as whole words, without regard to case,
// in one pass and without allocation. A word is a run of letters and digits; scripts
// that set no spaces (Han, Kana, Thai) count each character as a word. A listed text
// may be of several words: a mail address, a domain, a given and a family name.
//
// It is a tree of words in one hash table, not an automaton over bytes: a directory
// of 40,000 people costs some 50 MB, where a dense automaton would cost gigabytes.
// Once built it is read-only.
type Words struct {
	nodes map[uint64]wordNode
	items []string // folded
	seed  uint64
}

type wordNode struct {
	items []int32 // ids of the texts that end here
	more  bool    // longer texts begin like this
}

// Hit is a listed text found: its id and the offset after it.
type Hit struct{ ID, End int }

// maxWords bounds a listed text, and with it the work at each word of a text.
const maxWords = 16

// Add lists a text under the next id, from 0, and returns the id. A text begins and
// ends with a letter or digit; other characters at its ends are cut off.
func (w *Words) Add(text string) (int, error) {
	folded := strings.TrimFunc(Fold(text), func(r rune) bool { return !isWordRune(r) })
	if folded == "" {
		return 0, fmt.Errorf("holds no letter or digit")
	}
	if w.nodes == nil {
		w.nodes = map[uint64]wordNode{}
		w.seed = 0x9e3779b97f4a7c15
	}
	id := len(w.items)
	b := []byte(folded)
	h, pos := w.seed, 0
	for n := 0; ; n++ {
		if n == maxWords {
			return 0, fmt.Errorf("holds more than %d words", maxWords)
		}
		h, pos = hashWord(h, b, pos)
		node := w.nodes[h]
		if pos == len(b) {
			node.items = append(node.items, int32(id))
			w.nodes[h] = node
			break
		}
		node.more = true
		w.nodes[h] = node
		h, pos = hashGap(h, b, pos)
	}
	w.items = append(w.items, folded)
	return id, nil
}

// TooShort reports texts that would be found everywhere: fewer than three letters,
// or two of a script beyond ASCII.
func TooShort(text string) bool {
	f := Fold(text)
	return len(f) < 3 || utf8.RuneCountInString(f) < 2
}

// Len is the number of texts listed.
func (w *Words) Len() int {
	if w == nil {
		return 0
	}
	return len(w.items)
}

// Next finds the first word at or after offset i, and appends every listed text that
// begins there. start is -1 at the end of the text; next is where to go on.
func (w *Words) Next(hits []Hit, text []byte, i int) (start, next int, _ []Hit) {
	start = firstWord(text, i)
	if start < 0 {
		return -1, len(text), hits
	}
	if w.Len() == 0 {
		return start, endOfWord(text, start), hits
	}
	h, next := hashWord(w.seed, text, start)
	pos := next
	for {
		node, ok := w.nodes[h]
		if !ok {
			return start, next, hits
		}
		for _, id := range node.items {
			if foldedEqual(text[start:pos], w.items[id]) {
				hits = append(hits, Hit{int(id), pos})
			}
		}
		if !node.more {
			return start, next, hits
		}
		if h, pos = hashGap(h, text, pos); pos == len(text) {
			return start, next, hits
		}
		h, pos = hashWord(h, text, pos)
	}
}

// firstWord gives the beginning of the first word at or after i, or -1. i is 0 or the
// end of a word.
func firstWord(text []byte, i int) int {
	for i < len(text) {
		c := text[i]
		if c < utf8.RuneSelf {
			if asciiWord[c] == 0 {
				i++
				continue
			}
			return i
		}
		r, n := decode(text[i:])
		if isWordRune(r) {
			return i
		}
		i += n
	}
	return -1
}

func endOfWord(text []byte, i int) int {
	for first := true; i < len(text); first = false {
		c := text[i]
		if c < utf8.RuneSelf {
			if asciiWord[c] == 0 {
				return i
			}
			i++
			continue
		}
		r, n := decode(text[i:])
		if !isWordRune(r) {
			return i
		}
		if isAlone(r) {
			if first {
				i += n
			}
			return i
		}
		i += n
	}
	return i
}

const prime = 0x100000001b3

// hashWord hashes the word that begins at i, as endOfWord bounds it.
func hashWord(h uint64, text []byte, i int) (uint64, int) {
	for first := true; i < len(text); first = false {
		c := text[i]
		if c < utf8.RuneSelf {
			w := asciiWord[c]
			if w == 0 {
				break
			}
			h = (h ^ uint64(w)) * prime
			i++
			continue
		}
		r, n := decode(text[i:])
		alone := isAlone(r)
		if !isWordRune(r) || alone && !first {
			break
		}
		h = (h ^ uint64(FoldRune(r))) * prime
		i += n
		if alone {
			break
		}
	}
	return h ^ h>>29, i
}

// hashGap runs over what stands between two words; white space counts as one space.
func hashGap(h uint64, text []byte, i int) (uint64, int) {
	h = (h ^ 0x1f) * prime
	space := false
	for n := 0; i < len(text); n++ {
		r, size := decode(text[i:])
		if isWordRune(r) {
			return h, i
		}
		if n == maxWords {
			return h, len(text) // no listed text has such a gap
		}
		i += size
		if r = FoldRune(r); r == ' ' {
			if space {
				continue
			}
			space = true
		} else {
			space = false
		}
		h = (h ^ uint64(r)) * prime
	}
	return h, i
}

// foldedEqual reports whether text folds to folded.
func foldedEqual(text []byte, folded string) bool {
	space := false
	for len(text) > 0 {
		r, n := decode(text)
		text = text[n:]
		if r = FoldRune(r); r == ' ' {
			if space {
				continue
			}
			space = true
		} else {
			space = false
		}
		want, m := utf8.DecodeRuneInString(folded)
		if m == 0 || want != r {
			return false
		}
		folded = folded[m:]
	}
	return folded == ""
}

// decode reads one character; a byte that is not UTF-8 is read as Latin-1, which is
// what it is in the logs of old programs.
func decode(b []byte) (rune, int) {
	if b[0] < utf8.RuneSelf {
		return rune(b[0]), 1
	}
	r, n := utf8.DecodeRune(b)
	if r == utf8.RuneError && n == 1 {
		return rune(b[0]), 1
	}
	return r, n
}

// Fold is the one way in which identities are compared: NFC, then without case, then
// white space as single spaces. Names of users, domains, mails, devices and listed
// texts all pass through it.
func Fold(s string) string {
	ascii := true
	for i := 0; i < len(s); i++ {
		if c := s[i]; c >= utf8.RuneSelf || c >= 'A' && c <= 'Z' || c < ' ' || c == ' ' && (i == 0 || i == len(s)-1 || s[i-1] == ' ') {
			ascii = false
			break
		}
	}
	if ascii {
		return s
	}
	s = norm.NFC.String(latin1(s))
	var b strings.Builder
	b.Grow(len(s))
	space := true // leading space goes
	for _, r := range s {
		if r = FoldRune(r); r == ' ' {
			if space {
				continue
			}
			space = true
		} else {
			space = false
		}
		b.WriteRune(r)
	}
	return strings.TrimSuffix(b.String(), " ")
}

// latin1 reads bytes that are not UTF-8 as Latin-1.
func latin1(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		if r == utf8.RuneError && n == 1 {
			r = rune(s[0])
		}
		b.WriteRune(r)
		s = s[n:]
	}
	return b.String()
}

// Composed gives text in NFC, and the text itself where it holds no combining mark,
// which is nearly always: decomposed letters come from file systems of macOS.
func Composed(text []byte) []byte {
	for i, c := range text {
		if c == 0xCC || c == 0xCD && i+1 < len(text) && text[i+1] < 0xB0 {
			return norm.NFC.Bytes(text)
		}
	}
	return text
}

// FoldRune gives one character for all that differ in case only. The full stops of
// East Asian input count as a full stop, white space as a space.
func FoldRune(r rune) rune {
	if r < utf8.RuneSelf {
		if r >= 'A' && r <= 'Z' {
			return r + 'a' - 'A'
		}
		if r == '\t' || r == '\n' || r == '\r' || r == '\v' || r == '\f' {
			return ' '
		}
		return r
	}
	switch r {
	case '。', '．', '｡':
		return '.'
	case 0xA0, 0x2007, 0x202F:
		return ' '
	}
	low := r
	for x := unicode.SimpleFold(r); x != r; x = unicode.SimpleFold(x) {
		low = min(low, x)
	}
	return unicode.ToLower(low)
}

// asciiWord holds the folded form of ASCII letters and digits, 0 for the rest.
var asciiWord = func() (t [utf8.RuneSelf]byte) {
	for c := byte('0'); c <= '9'; c++ {
		t[c] = c
	}
	for c := byte('a'); c <= 'z'; c++ {
		t[c], t[c-'a'+'A'] = c, c
	}
	return t
}()

func isWordRune(r rune) bool {
	if r < utf8.RuneSelf {
		return r >= 0 && asciiWord[r] != 0
	}
	return unicode.IsLetter(r) || unicode.IsDigit(r) || unicode.IsMark(r)
}

// isAlone reports scripts that are written without spaces.
func isAlone(r rune) bool {
	return r >= 0x0E00 && unicode.In(r, unicode.Han, unicode.Hiragana, unicode.Katakana, unicode.Thai)
}

// WordBefore reports whether a letter or digit stands directly before offset i.
func WordBefore(text []byte, i int) bool {
	if i == 0 {
		return false
	}
	if c := text[i-1]; c < utf8.RuneSelf {
		return asciiWord[c] != 0
	}
	r, n := utf8.DecodeLastRune(text[:i])
	if r == utf8.RuneError && n == 1 {
		r = rune(text[i-1])
	}
	return isWordRune(r)
}

// WordAfter reports whether a letter or digit stands at offset i.
func WordAfter(text []byte, i int) bool {
	if i >= len(text) {
		return false
	}
	r, _ := decode(text[i:])
	return isWordRune(r)
}
