package event

import (
	"bytes"
	"encoding/base32"
	"strconv"
	"strings"
)

// TokenKind is the letter that a token begins with.
type TokenKind byte

// The kinds of an identity.
const (
	Person  TokenKind = 'p'
	Mail    TokenKind = 'm'
	Device  TokenKind = 'd'
	Address TokenKind = 'a'
)

// tokenBody is the length of 128 bits in base32 without padding.
const tokenBody = 26

var tokenAlphabet = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// Token is the text that stands for an identity: kind, epoch, underscore and 26
// base32 characters that hold 128 bits. `p1_` is a person in epoch 1.
type Token string

// NewToken prints a token.
func NewToken(kind TokenKind, epoch int, bits [16]byte) Token {
	b := make([]byte, 0, 32)
	b = append(b, byte(kind))
	b = strconv.AppendInt(b, int64(epoch), 10)
	b = append(b, '_')
	return Token(tokenAlphabet.AppendEncode(b, bits[:]))
}

// Epoch is the epoch that a token says; 0 for what is none.
func (t Token) Epoch() int {
	head, _, ok := strings.Cut(string(t), "_")
	if !ok || len(head) < 2 {
		return 0
	}
	n, err := strconv.Atoi(head[1:])
	if err != nil {
		return 0
	}
	return n
}

// NextToken finds the first token in b and returns where it begins and ends, or
// -1, -1. Text of a source that has the shape of a token never passes the door
// unchanged, so what is found in an Event is a token.
func NextToken(b []byte) (start, end int) {
	for from := 0; ; { // behind the last underscore: text has few of them
		k := bytes.IndexByte(b[from:], '_')
		if k < 0 || len(b)-from-k-1 < tokenBody {
			return -1, -1
		}
		k += from
		from = k + 1
		i := k
		for i > 0 && k-i < 4 && b[i-1] >= '0' && b[i-1] <= '9' {
			i--
		}
		if i == k || i == 0 {
			continue
		}
		switch TokenKind(b[i-1]) {
		case Person, Mail, Device, Address:
		default:
			continue
		}
		n := 0
		for n < tokenBody && isTokenChar(b[from+n]) {
			n++
		}
		if n == tokenBody {
			return i - 1, from + n
		}
	}
}

// IsToken reports whether the whole text is one token.
func IsToken(b []byte) bool {
	s, e := NextToken(b)
	return s == 0 && e == len(b)
}

func isTokenChar(c byte) bool { return c >= 'a' && c <= 'z' || c >= '2' && c <= '7' }
