package blind

import (
	"bytes"
	"crypto/ecdh"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"math/big"
	"math/bits"
	"testing"
)

// table makes one of words, each with a value of its own.
func table(t testing.TB, words []string, width int) (*Key, [][]byte) {
	t.Helper()
	k, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	var rows [][]byte
	for i, w := range words {
		row, err := k.Row(nil, []byte(w), valuesOf(i, width), width)
		if err != nil {
			t.Fatal(err)
		}
		if len(row) != RowLen(width) {
			t.Fatalf("a row of %d bytes, want %d", len(row), RowLen(width))
		}
		rows = append(rows, row)
	}
	return k, rows
}

func valuesOf(i, width int) []Value {
	var out []Value
	for j := range min(width, 1+i%3) {
		out = append(out, Value{1, byte(i), byte(i >> 8), byte(j)})
	}
	return out
}

func answers(t testing.TB, k *Key, points []Point) []Point {
	t.Helper()
	var out []Point
	for _, p := range points {
		a, err := k.Answer(p)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, a)
	}
	return out
}

// TestLookUp: who asks gets the rows of their words and of no other one.
func TestLookUp(t *testing.T) {
	var words []string
	for i := range 300 {
		words = append(words, fmt.Sprintf("person-%d", i))
	}
	k, rows := table(t, words, 3)
	mine := [][]byte{[]byte("person-7"), []byte("nobody"), []byte("person-299"), []byte("person-0")}
	a, err := Ask(mine, 16)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(a.Points()); n != 16 {
		t.Fatalf("%d points, want 16", n)
	}
	r, err := a.Answered(answers(t, k, a.Points()), 3)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string][]Value{}
	for _, row := range rows {
		if w, v, ok := r.Open(row); ok {
			got[string(mine[w])] = v
		}
	}
	if len(got) != 3 {
		t.Fatalf("%d rows open, want those of 3 words", len(got))
	}
	for _, i := range []int{7, 299, 0} {
		if have, want := got[words[i]], valuesOf(i, 3); fmt.Sprint(have) != fmt.Sprint(want) {
			t.Errorf("%s holds %v, want %v", words[i], have, want)
		}
	}
}

// TestAnotherKey: the answers to one table open no row of another one.
func TestAnotherKey(t *testing.T) {
	words := []string{"alice", "bob"}
	_, rows := table(t, words, 1)
	other, _ := table(t, nil, 1)
	a, err := Ask([][]byte{[]byte("alice"), []byte("bob")}, 2)
	if err != nil {
		t.Fatal(err)
	}
	r, err := a.Answered(answers(t, other, a.Points()), 1)
	if err != nil {
		t.Fatal(err)
	}
	for i, row := range rows {
		if _, _, ok := r.Open(row); ok {
			t.Errorf("row %d opens with the answers of another key", i)
		}
	}
}

// TestPointsTellNothing: the same word is another point each time, a point of no word is like
// the others, and none is the point of the word itself.
func TestPointsTellNothing(t *testing.T) {
	own, err := pointOf([]byte("alice"))
	if err != nil {
		t.Fatal(err)
	}
	seen := map[Point]bool{Point(own.Bytes()[1 : 1+PointLen]): true}
	ones := make([]int, 8*PointLen)
	const rounds, places = 60, 8
	for range rounds {
		a, err := Ask([][]byte{[]byte("alice")}, places)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range a.Points() {
			if seen[p] {
				t.Fatal("a point came twice")
			}
			seen[p] = true
			for i := range ones {
				ones[i] += int(p[i/8]>>(7-i%8)) & 1
			}
		}
	}
	for i, n := range ones { // 480 fair coins: beyond six standard deviations once in 10⁹
		if all := rounds * places; n < all/2-66 || n > all/2+66 {
			t.Errorf("bit %d is set in %d of %d points", i, n, all)
		}
	}
}

// TestRowsTellNothing: rows look random: two tables of the same words have no row in common, and the values
// of a row do not show.
func TestRowsTellNothing(t *testing.T) {
	words := []string{"alice", "bob", "carol"}
	_, one := table(t, words, 2)
	_, two := table(t, words, 2)
	set := 0
	for i := range one {
		for j := range two {
			if bytes.Equal(one[i][:indexLen], two[j][:indexLen]) {
				t.Errorf("row %d of one table stands in the other", i)
			}
		}
		for _, b := range one[i] {
			set += bits.OnesCount8(b)
		}
	}
	if all := 8 * RowLen(2) * len(words); set < all*2/5 || set > all*3/5 {
		t.Errorf("%d of %d bits are set", set, all)
	}
}

// TestAgainstTheCurve computes what a word becomes with the affine formulas of math/big, and
// not with those of the package.
func TestAgainstTheCurve(t *testing.T) {
	k, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	p, err := pointOf([]byte("alice"))
	if err != nil {
		t.Fatal(err)
	}
	x, _ := multiply(p.Bytes(), new(big.Int).SetBytes(k.k.Bytes()))
	a, err := Ask([][]byte{[]byte("alice")}, 1)
	if err != nil {
		t.Fatal(err)
	}
	answered, err := k.Answer(a.Points()[0])
	if err != nil {
		t.Fatal(err)
	}
	q, err := answered.key()
	if err != nil {
		t.Fatal(err)
	}
	got, err := times(a.undo[0], q)
	if err != nil {
		t.Fatal(err)
	}
	var want Point
	x.FillBytes(want[:])
	if got != want {
		t.Errorf("unblinded to %x, want x(k·P) = %x", got, want)
	}
}

// multiply gives k times a point of P-256, by doubling and adding.
func multiply(point []byte, k *big.Int) (x, y *big.Int) {
	prime := elliptic.P256().Params().P
	mod := func(v *big.Int) *big.Int { return v.Mod(v, prime) }
	mul := func(a, b *big.Int) *big.Int { return mod(new(big.Int).Mul(a, b)) }
	sub := func(a, b *big.Int) *big.Int { return mod(new(big.Int).Sub(a, b)) }
	add := func(ax, ay, bx, by *big.Int) (*big.Int, *big.Int) {
		if ax == nil {
			return bx, by
		}
		var slope *big.Int
		if ax.Cmp(bx) == 0 && ay.Cmp(by) == 0 { // the curve has a = -3
			up := sub(mul(big.NewInt(3), mul(ax, ax)), big.NewInt(3))
			slope = mul(up, new(big.Int).ModInverse(mul(big.NewInt(2), ay), prime))
		} else {
			slope = mul(sub(by, ay), new(big.Int).ModInverse(sub(bx, ax), prime))
		}
		cx := sub(sub(mul(slope, slope), ax), bx)
		return cx, sub(mul(slope, sub(ax, cx)), ay)
	}
	px, py := new(big.Int).SetBytes(point[1:1+PointLen]), new(big.Int).SetBytes(point[1+PointLen:])
	for i := k.BitLen() - 1; i >= 0; i-- {
		if x != nil {
			x, y = add(x, y, x, y)
		}
		if k.Bit(i) == 1 {
			x, y = add(x, y, px, py)
		}
	}
	return x, y
}

// TestFormat holds the bytes of docs/formats/disclosers.md. The row was computed by another program,
// in another language, from that page alone.
func TestFormat(t *testing.T) {
	raw, _ := hex.DecodeString("0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20")
	priv, err := ecdh.P256().NewPrivateKey(raw)
	if err != nil {
		t.Fatal(err)
	}
	row, err := (&Key{priv}).Row(nil, []byte("alice"), []Value{{0xaa}}, 1)
	if err != nil {
		t.Fatal(err)
	}
	const want = "3ccdb240a7e8905f2064e2e6d5fa89cf9474b766960a945517ccefdff3ddfd8b"
	if got := hex.EncodeToString(row); got != want {
		t.Errorf("the row of alice is\n%s, want\n%s", got, want)
	}
}

func TestRefusals(t *testing.T) {
	k, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	var off Point
	for off[31] = 1; ; off[31]++ {
		if _, err := off.key(); err != nil {
			break
		}
	}
	big := Point(bytes.Repeat([]byte{0xff}, PointLen)) // beyond the prime
	for _, p := range []Point{off, big} {
		if _, err := k.Answer(p); err == nil {
			t.Errorf("%x is answered", p)
		}
	}
	if _, err := Ask([][]byte{{1}, {2}}, 1); err == nil {
		t.Error("two words go into one place")
	}
	if _, err := k.Row(nil, []byte("a"), make([]Value, 2), 1); err == nil {
		t.Error("two values go into a row of one")
	}
	a, err := Ask([][]byte{[]byte("a")}, 2)
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range [][]Point{nil, {off, off}, {big, big}} {
		if _, err := a.Answered(bad, 1); err == nil {
			t.Errorf("%d answers that are none are taken", len(bad))
		}
	}
	if _, err := a.Answered(answers(t, k, a.Points()), MaxWidth+1); err == nil {
		t.Error("a row may have any width")
	}
}

func FuzzPoint(f *testing.F) {
	k, err := NewKey()
	if err != nil {
		f.Fatal(err)
	}
	a, err := Ask([][]byte{[]byte("alice")}, 1)
	if err != nil {
		f.Fatal(err)
	}
	p := a.Points()[0]
	f.Add(p[:])
	f.Add(make([]byte, PointLen))
	f.Add(bytes.Repeat([]byte{0xff}, PointLen))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) != PointLen {
			return
		}
		got, err := k.Answer(Point(b))
		if err != nil {
			return
		}
		// What is answered is a point again, and 1/k brings back what was asked.
		back, err := invert(k.k)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := (&Key{back}).Answer(got); err != nil || again != Point(b) {
			t.Errorf("1/k · k · %x = %x, %v", b, again, err)
		}
	})
}

// BenchmarkRow compares a row of a table with the one exchange of keys that is in it.
func BenchmarkRow(b *testing.B) {
	k, err := NewKey()
	if err != nil {
		b.Fatal(err)
	}
	b.Run("ecdh", func(b *testing.B) {
		p, err := pointOf([]byte("alice"))
		if err != nil {
			b.Fatal(err)
		}
		for b.Loop() {
			if _, err := k.k.ECDH(p); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("row", func(b *testing.B) {
		var row []byte
		var err error
		word := make([]byte, 8)
		for b.Loop() {
			rand.Read(word)
			if row, err = k.Row(row[:0], word, []Value{{1}}, 4); err != nil {
				b.Fatal(err)
			}
		}
	})
}
