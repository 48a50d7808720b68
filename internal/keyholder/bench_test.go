package keyholder

import (
	"bytes"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/keyring"
	"github.com/counterseal/counterseal/internal/pseudonym"
)

// BenchmarkTokens compares the way over a unix socket with a key in this process: new
// names one by one by one and by many goroutines, in batches, and names that are
// remembered. Both sides keep what they remember; the quota is out of the way.
func BenchmarkTokens(b *testing.B) {
	wide := Limits{Minute: 1e9, Hour: 1e9, Day: 1e9}
	w := newBench(b, Setup{Quota: &Quota{Names: wide, Addresses: wide}})
	w.begin()
	c := w.client(ClientOptions{Timeout: time.Minute})
	ring, err := keyring.Load(filepath.Join(w.dir, "keys", "keyring"), nil)
	if err != nil {
		b.Fatal(err)
	}
	local, err := pseudonym.NewLocal(ring.MACKey(keyPurpose), org, 1)
	if err != nil {
		b.Fatal(err)
	}
	var next atomic.Int64
	name := func() []byte { return fmt.Appendf(nil, "invented-%012d", next.Add(1)) }
	for _, m := range []struct {
		word  string
		maker pseudonym.Tokenizer
	}{{"local", local}, {"holder", c}} {
		b.Run(m.word+"/known", func(b *testing.B) {
			same := name()
			for b.Loop() {
				if _, err := m.maker.Token(event.Person, same); err != nil {
					b.Fatal(err)
				}
			}
			rate(b, 1)
		})
		b.Run(m.word+"/new", func(b *testing.B) {
			for b.Loop() {
				if _, err := m.maker.Token(event.Person, name()); err != nil {
					b.Fatal(err)
				}
			}
			rate(b, 1)
		})
		b.Run(m.word+"/new-64-goroutines", func(b *testing.B) {
			b.SetParallelism(32)
			b.RunParallel(func(p *testing.PB) {
				for p.Next() {
					if _, err := m.maker.Token(event.Person, name()); err != nil {
						b.Error(err)
						return
					}
				}
			})
			rate(b, 1)
		})
	}
	b.Run("holder/new-batch-64", func(b *testing.B) {
		for b.Loop() {
			names := make([]Name, 64)
			for i := range names {
				names[i] = Name{event.Person, bytes.Clone(name())}
			}
			if _, err := c.Tokens(names); err != nil {
				b.Fatal(err)
			}
		}
		rate(b, 64)
	})
}

func rate(b *testing.B, each int) {
	b.ReportMetric(float64(b.N*each)/b.Elapsed().Seconds(), "tokens/s")
}

// BenchmarkQuestion is one question about one name: the way over the socket, two signatures,
// the canonical form, the file that is durable before the answer. What the proof of the
// ledger costs is not in it.
func BenchmarkQuestion(b *testing.B) {
	keys, roster := offices(b)
	q := DefaultQuota()
	q.Questions = maxAsked
	w := newBench(b, Setup{Officers: roster, Ledger: inventedLedger, Quota: &q})
	w.begin()
	for b.Loop() {
		b.StopTimer()
		a := newAsking(b, keys, spoken("alice"))
		c := a.capability()
		w.h.questions.mu.Lock()
		clear(w.h.questions.waiting) // nobody fetches here
		w.h.questions.mu.Unlock()
		b.StartTimer()
		if err := w.askBytes(c, a); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "questions/s")
}
