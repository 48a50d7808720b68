package complaint

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/counterseal/counterseal/internal/keyring"
)

var org = uuid.MustParse("01900000-0000-7000-8000-000000000001")

// holder is a key of the overseers.
type holder struct{ k *keyring.PrivateKey }

func newHolder(t testing.TB) holder {
	t.Helper()
	k, err := keyring.NewPrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	return holder{k}
}

func (h holder) OpenOnly(info keyring.SealInfo, box []byte) ([]byte, error) {
	return keyring.OpenWith(h.k, info, keyring.RoleOnly, box)
}

func (h holder) SealKey() keyring.KeyID { return h.k.Public().ID() }

func sealed(t testing.TB, c Code, text string, to ...holder) *Sealed {
	t.Helper()
	var keys []keyring.PublicKey
	for _, h := range to {
		keys = append(keys, h.k.Public())
	}
	s, err := Seal(c, text, org, 3, keys)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestThereAndBack: each key of the overseers opens a complaint and nobody else's does; the
// code opens the answer and no other code does.
func TestThereAndBack(t *testing.T) {
	main, spare, stranger := newHolder(t), newHolder(t), newHolder(t)
	code := NewCode()
	const text = "Somebody looked at me.\nTwice. ä"
	s := sealed(t, code, text, main, spare)
	if id, err := code.ID(); err != nil || s.ID != id || !IsID(id) || strings.Contains(strings.ReplaceAll(code.Text(), "-", ""), id) {
		t.Errorf("id %s, %v", s.ID, err)
	}
	for _, h := range []holder{main, spare} {
		o, err := s.Open(h)
		if err != nil || o.Text != text {
			t.Fatalf("got %+v, %v", o, err)
		}
	}
	if _, err := s.Open(stranger); !errors.Is(err, keyring.ErrNotForKey) {
		t.Errorf("a stranger: %v", err)
	}
	o, err := s.Open(spare)
	if err != nil {
		t.Fatal(err)
	}
	a, err := o.Answer(Partly, "We have looked into it.")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := a.Open(code); err != nil || got != "We have looked into it." {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := a.Open(NewCode()); !errors.Is(err, keyring.ErrNotForKey) {
		t.Errorf("another code: %v", err)
	}
	// The outcome that is counted is the one that was sealed.
	other, err := ParseAnswer(bytes.Replace(a.Bytes(), []byte(`"outcome":"partly"`), []byte(`"outcome":"upheld"`), 1))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Open(code); !errors.Is(err, keyring.ErrNotForKey) {
		t.Errorf("another outcome: %v", err)
	}
}

// TestOneLength: what lies there tells nothing by its length, and holds no word of the text.
func TestOneLength(t *testing.T) {
	h, code := newHolder(t), NewCode()
	short, long := sealed(t, code, "x", h), sealed(t, code, strings.Repeat("harassment ", 1400), h)
	if len(short.Bytes()) != len(long.Bytes()) || bytes.Contains(long.Bytes(), []byte("harassment")) {
		t.Errorf("%d and %d bytes", len(short.Bytes()), len(long.Bytes()))
	}
	var answers []int
	for _, text := range []string{"x", strings.Repeat("y", MaxText)} {
		o, err := short.Open(h)
		if err != nil {
			t.Fatal(err)
		}
		a, err := o.Answer(Upheld, text)
		if err != nil {
			t.Fatal(err)
		}
		answers = append(answers, len(a.Bytes()))
	}
	if answers[0] != answers[1] {
		t.Errorf("answers of %v bytes", answers)
	}
}

// TestBounds: what cannot be sealed is refused before, and a code is printed by nothing but
// Text.
func TestBounds(t *testing.T) {
	h := newHolder(t)
	for name, text := range map[string]string{"empty": "", "blank": " \n", "long": strings.Repeat("x", MaxText+1), "zero": "a\x00b", "bytes": "a\xff"} {
		if _, err := Seal(NewCode(), text, org, 1, []keyring.PublicKey{h.k.Public()}); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
	if _, err := Seal(NewCode(), "x", org, 1, nil); err == nil {
		t.Error("sealed to nobody")
	}
	c := NewCode()
	got, err := ParseCode(" " + strings.ToUpper(strings.ReplaceAll(c.Text(), "-", " ")) + "\n")
	if err != nil || got != c {
		t.Errorf("%v", err)
	}
	for _, bad := range []string{"", "abcd", c.Text() + "a", strings.Replace(c.Text(), c.Text()[:1], "1", 1), strings.Repeat("a", 1000)} {
		if _, err := ParseCode(bad); err == nil {
			t.Errorf("a code of %d characters is taken", len(bad))
		}
	}
	if text := fmt.Sprintf("%v %+v %s %#v", c, c, c, c); strings.Contains(text, c.Text()[:4]) || strings.Contains(text, fmt.Sprint(c.raw[0], c.raw[1])) {
		t.Error("a code is printed")
	}
}

// FuzzParse: what is taken is canonical, is taken again as it was, and no altered byte opens.
func FuzzParse(f *testing.F) {
	h, code := newHolder(f), NewCode()
	s := sealed(f, code, "x", h)
	o, err := s.Open(h)
	if err != nil {
		f.Fatal(err)
	}
	a, err := o.Answer(Elsewhere, "y")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(s.Bytes())
	f.Add(a.Bytes())
	f.Add([]byte(`{"boxes":[],"epoch":1,"form":"complaint/v1","id":"","org":""}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if got, err := Parse(b); err == nil {
			if !bytes.Equal(got.Bytes(), bytes.TrimSuffix(b, []byte("\n"))) {
				t.Error("another form is taken")
			}
			if o, err := got.Open(h); err == nil && (o.Text != "x" || got.ID != s.ID) {
				t.Error("an altered complaint opens")
			}
		}
		if got, err := ParseAnswer(b); err == nil {
			if !bytes.Equal(got.Bytes(), bytes.TrimSuffix(b, []byte("\n"))) {
				t.Error("another form is taken")
			}
			if text, err := got.Open(code); err == nil && (text != "y" || got.Outcome != Elsewhere) {
				t.Error("an altered answer opens")
			}
		}
	})
}
