package event

import (
	"encoding/base32"
	"strconv"
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

// NextToken finds the first token in b and returns where it begins and ends, or
// -1, -1. Text of a source that has the shape of a token never passes the door
// unchanged, so what is found in an Event is a token.
func NextToken(b []byte) (start, end int) {
	for i := 0; i+2+1+tokenBody <= len(b); i++ {
		switch TokenKind(b[i]) {
		case Person, Mail, Device, Address:
		default:
			continue
		}
		j := i + 1
		for j < len(b) && j < i+5 && b[j] >= '0' && b[j] <= '9' {
			j++
		}
		if j == i+1 || j+1+tokenBody > len(b) || b[j] != '_' {
			continue
		}
		j++
		k := 0
		for k < tokenBody && isTokenChar(b[j+k]) {
			k++
		}
		if k == tokenBody {
			return i, j + k
		}
	}
	return -1, -1
}

// IsToken reports whether the whole text is one token.
func IsToken(b []byte) bool {
	s, e := NextToken(b)
	return s == 0 && e == len(b)
}

func isTokenChar(c byte) bool { return c >= 'a' && c <= 'z' || c >= '2' && c <= '7' }
