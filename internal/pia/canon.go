package pia

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
)

// appendCanonical appends the form of RFC 8785: keys sorted by UTF-16 code units,
// numbers as ECMAScript prints them, no spaces. v is what decode gives: map, slice,
// string, json.Number, bool, nil.
func appendCanonical(b []byte, v any) ([]byte, error) {
	switch v := v.(type) {
	case nil:
		return append(b, "null"...), nil
	case bool:
		return strconv.AppendBool(b, v), nil
	case string:
		return appendCanonicalText(b, v), nil
	case json.Number:
		return appendCanonicalNumber(b, v)
	case []any:
		b = append(b, '[')
		for i, x := range v {
			if i > 0 {
				b = append(b, ',')
			}
			var err error
			if b, err = appendCanonical(b, x); err != nil {
				return nil, err
			}
		}
		return append(b, ']'), nil
	case map[string]any:
		keys := make([]string, 0, len(v))
		for k := range v {
			keys = append(keys, k)
		}
		slices.SortFunc(keys, func(x, y string) int {
			return slices.Compare(utf16.Encode([]rune(x)), utf16.Encode([]rune(y)))
		})
		b = append(b, '{')
		for i, k := range keys {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(appendCanonicalText(b, k), ':')
			var err error
			if b, err = appendCanonical(b, v[k]); err != nil {
				return nil, err
			}
		}
		return append(b, '}'), nil
	}
	return nil, fmt.Errorf("no canonical form of %T", v)
}

func appendCanonicalText(b []byte, s string) []byte {
	const hexa = "0123456789abcdef"
	b = append(b, '"')
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c >= 0x20:
			b = append(b, c)
		default:
			if j := strings.IndexByte("\b\t\n\f\r", c); j >= 0 {
				b = append(b, '\\', "btnfr"[j])
			} else {
				b = append(b, '\\', 'u', '0', '0', hexa[c>>4], hexa[c&15])
			}
		}
	}
	return append(b, '"')
}

const maxSafeInteger = 1<<53 - 1

func appendCanonicalNumber(b []byte, n json.Number) ([]byte, error) {
	f, err := n.Float64()
	if err != nil || math.IsInf(f, 0) || math.IsNaN(f) {
		return nil, fmt.Errorf("a number without a canonical form")
	}
	if f == math.Trunc(f) && math.Abs(f) > maxSafeInteger {
		return nil, fmt.Errorf("an integer beyond 2^53")
	}
	if f == 0 {
		return append(b, '0'), nil
	}
	// ECMAScript: plain between 1e-6 and 1e21, else exponent without leading zero.
	if a := math.Abs(f); a >= 1e-6 && a < 1e21 {
		return strconv.AppendFloat(b, f, 'f', -1, 64), nil
	}
	s := strconv.FormatFloat(f, 'e', -1, 64)
	mant, exp, _ := strings.Cut(s, "e")
	return append(b, mant+"e"+exp[:1]+strings.TrimLeft(exp[1:], "0")...), nil
}

// bodyDigest hashes the document less what comes after the signatures.
func bodyDigest(doc map[string]any) ([32]byte, error) {
	body := make(map[string]any, len(doc))
	for k, v := range doc {
		body[k] = v
	}
	without := func(key string, drop ...string) {
		m, ok := doc[key].(map[string]any)
		if !ok {
			return
		}
		c := make(map[string]any, len(m))
		for k, v := range m {
			if !slices.Contains(drop, k) {
				c[k] = v
			}
		}
		body[key] = c
	}
	without("approval", "signers")
	without("publication", "url", "digest", "published_at")
	b, err := appendCanonical(nil, body)
	if err != nil {
		return [32]byte{}, err
	}
	return sha256.Sum256(b), nil
}
