package evidence

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/counterseal/counterseal/internal/event"
)

// TestRandomLife drives a store by random steps against a list of records: appends,
// turns of segments, clean stops, crashes with a torn end, jumps of the clock. After
// each restart the list and the store must agree, from any position.
func TestRandomLife(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	for round := range 6 {
		t.Run(fmt.Sprint(round), func(t *testing.T) { randomLife(t, seed+uint64(round)) })
	}
}

func randomLife(t *testing.T, seed uint64) {
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	now := time.Now()
	change := func(o *Options) {
		o.MaxSegmentRecords = int64(5 + rng.IntN(40))
		o.BlockBytes = 1 << (8 + rng.IntN(8))
		o.Now = func() time.Time { return now }
	}
	dir := quickDir(t)
	s := open(t, dir, change)
	type rec struct {
		ref  event.Ref
		text string
	}
	var model []rec
	n, lastCall := 0, 0 // records of the last call
	check := func() {
		t.Helper()
		from, at := Position{}, 0
		if len(model) > 0 && rng.IntN(2) == 0 {
			at = rng.IntN(len(model))
			from = Position{Segment: model[at].ref.Segment, Ordinal: model[at].ref.Ordinal}
		}
		var got []rec
		if _, err := s.Read(context.Background(), Events, "a", from, func(ref event.Ref, b []byte) error {
			got = append(got, rec{ref, string(b)})
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(model[at:], got, cmp.AllowUnexported(rec{}), cmp.Transformer("nil", func(r []rec) []rec {
			if len(r) == 0 {
				return nil
			}
			return r
		})); diff != "" {
			t.Fatalf("from %d: %s", at, diff)
		}
		if r := verify(t, dir); !r.OK() {
			t.Fatal(r.Problems)
		}
	}
	for range 150 {
		switch k := rng.IntN(20); {
		case k < 12:
			var rs [][]byte
			for range 1 + rng.IntN(6) {
				rs = append(rs, []byte(fmt.Sprint(n)+strings.Repeat("y", rng.IntN(300))))
				n++
			}
			var ref event.Ref
			var err error
			if rng.IntN(2) == 0 {
				ref, err = s.Append(context.Background(), Events, "a", rs)
			} else {
				ref, err = s.AppendFunc(context.Background(), Events, "a", len(rs), func(event.Ref) ([][]byte, error) { return rs, nil })
			}
			if err != nil {
				t.Fatal(err)
			}
			for i, r := range rs {
				model = append(model, rec{ref.Next(uint64(i)), string(r)})
			}
			lastCall = len(rs)
		case k < 14:
			if err := s.Rotate(); err != nil {
				t.Fatal(err)
			}
			lastCall = 0
		case k < 15:
			now = now.Add(time.Duration(rng.IntN(400*24)-200*24) * time.Hour)
		case k < 17:
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = open(t, dir, change)
			if len(s.Recovered()) != 0 {
				t.Fatal(s.Recovered())
			}
			lastCall = 0
			check()
		default: // a crash: another directory gets what is on the disk now
			crashed := quickDir(t)
			copyDir(t, dir, crashed)
			s.Close()
			dir = crashed
			if o := files(t, dir, "a", extOpen); len(o) == 1 && lastCall > 0 && rng.IntN(2) == 0 {
				b, err := os.ReadFile(o[0])
				if err != nil {
					t.Fatal(err)
				}
				rewrite(t, o[0], b[:len(b)-1-rng.IntN(40)])
				model = model[:len(model)-lastCall]
			}
			s = open(t, dir, change)
			lastCall = 0
			check()
		}
	}
	check()
}
