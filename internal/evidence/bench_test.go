package evidence

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/counterseal/counterseal/internal/event"
)

// sampleRecords are n events of about 490 bytes with fields that do not compress
// well, like those of notes/storage.md.
func sampleRecords(n int) [][]byte {
	rng := rand.New(rand.NewPCG(4, 4))
	out := make([][]byte, n)
	for i := range out {
		out[i] = fmt.Appendf(nil, `{"time":"2026-11-25T09:%02d:%02d.%06dZ","host":"host-%03d","source":"sysmon","event_id":%d,"user":"p1_%016x%010x","image":"C:\\Windows\\System32\\svchost.exe","parent":"C:\\Windows\\System32\\services.exe","command":"svchost.exe -k netsvcs -p -s Schedule %d","sha256":"%016x%016x%016x%016x","dst":"10.%d.%d.%d","port":%d,"logon":"0x%x","integrity":"System","result":"success","pid":%d,"ppid":%d,"session":%d}`,
			i/60%60, i%60, rng.IntN(1e6), rng.IntN(200), rng.IntN(30), rng.Uint64(), rng.Uint64()>>24, rng.IntN(1e4), rng.Uint64(), rng.Uint64(), rng.Uint64(), rng.Uint64(), rng.IntN(256), rng.IntN(256), rng.IntN(256), rng.IntN(65536), rng.IntN(1e6), rng.IntN(60000), rng.IntN(60000), rng.IntN(8))
	}
	return out
}

func rawSize(rs [][]byte) (n int) {
	for _, r := range rs {
		n += 4 + len(r)
	}
	return n
}

// bareLoop is the work that nobody can leave out: join, compress, seal, chain,
// write, sync. It is what the writer is measured against.
func bareLoop(b *testing.B, dir string, batches func(yield func([][]byte))) {
	f, err := os.Create(filepath.Join(dir, "bare"))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderCRC(false))
	if err != nil {
		b.Fatal(err)
	}
	block, err := aes.NewCipher(newSecret())
	if err != nil {
		b.Fatal(err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		b.Fatal(err)
	}
	var raw, comp, out []byte
	var prev [32]byte
	batches(func(rs [][]byte) {
		raw = raw[:0]
		for _, r := range rs {
			raw = binary.BigEndian.AppendUint32(raw, uint32(len(r)))
			raw = append(raw, r...)
		}
		comp = enc.EncodeAll(raw, comp[:0])
		out = aead.Seal(append(out[:0], prev[:]...), nil, comp, prev[:])
		prev = sha256.Sum256(out)
		if _, err := f.Write(out); err != nil {
			b.Fatal(err)
		}
		if err := f.Sync(); err != nil {
			b.Fatal(err)
		}
	})
}

// BenchmarkBlocks: one sender after another with batches of 1 MiB, two senders so
// that the next batch waits while one is synced. The ratio to the bare loop in the
// same run is the figure of DESIGN.md (at least 0.7).
func BenchmarkBlocks(b *testing.B) {
	batch := sampleRecords(2150)
	size := rawSize(batch)
	s := open(b, b.TempDir(), nil)
	bare, ours := time.Duration(0), time.Duration(0)
	for b.Loop() {
		const n = 24
		start := time.Now()
		bareLoop(b, b.TempDir(), func(yield func([][]byte)) {
			for range n {
				yield(batch)
			}
		})
		bare += time.Since(start)
		start = time.Now()
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() {
				for range n / 2 {
					if _, err := s.Append(context.Background(), Events, "a", batch); err != nil {
						b.Error(err)
					}
				}
			})
		}
		wg.Wait()
		ours += time.Since(start)
	}
	n := float64(b.N) * 24 * float64(size) / 1e6
	b.ReportMetric(n/ours.Seconds(), "ours-MB/s")
	b.ReportMetric(n/bare.Seconds(), "bare-MB/s")
	b.ReportMetric(bare.Seconds()/ours.Seconds(), "ratio")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkSenders: 64 senders of 10 records each, against a plain group-commit
// loop that only chains, writes and syncs what waits (DESIGN.md: at least 0.4).
func BenchmarkSenders(b *testing.B) {
	sample := sampleRecords(640) // each sender has records of its own, or they would compress too well
	s := open(b, b.TempDir(), nil)
	plain := newPlain(b, b.TempDir())
	defer plain.close()
	const senders, calls = 64, 60
	run := func(send func(batch [][]byte) error) time.Duration {
		start := time.Now()
		var wg sync.WaitGroup
		for i := range senders {
			batch := sample[10*i : 10*i+10]
			wg.Go(func() {
				for range calls {
					if err := send(batch); err != nil {
						b.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
		return time.Since(start)
	}
	bare, ours := time.Duration(0), time.Duration(0)
	for b.Loop() {
		bare += run(plain.append)
		ours += run(func(batch [][]byte) error {
			_, err := s.Append(context.Background(), Events, "a", batch)
			return err
		})
	}
	n := float64(b.N) * senders * calls * 10
	st := s.Stats().Events
	b.ReportMetric(n/ours.Seconds(), "ours-records/s")
	b.ReportMetric(n/bare.Seconds(), "plain-records/s")
	b.ReportMetric(bare.Seconds()/ours.Seconds(), "ratio")
	b.ReportMetric(float64(st.Appends)/float64(st.Syncs), "calls/sync")
	b.ReportMetric(0, "ns/op")
}

// plain is group commit without compression and encryption.
type plain struct {
	mu    sync.Mutex
	queue []plainCall
	wake  chan struct{}
	done  chan struct{}
	f     *os.File
}

type plainCall struct {
	rs   [][]byte
	done chan error
}

func newPlain(b *testing.B, dir string) *plain {
	f, err := os.Create(filepath.Join(dir, "plain"))
	if err != nil {
		b.Fatal(err)
	}
	p := &plain{f: f, wake: make(chan struct{}, 1), done: make(chan struct{})}
	go p.run()
	return p
}

func (p *plain) close() {
	close(p.wake)
	<-p.done
	p.f.Close()
}

func (p *plain) append(rs [][]byte) error {
	c := plainCall{rs, make(chan error, 1)}
	p.mu.Lock()
	p.queue = append(p.queue, c)
	p.mu.Unlock()
	select {
	case p.wake <- struct{}{}:
	default:
	}
	return <-c.done
}

func (p *plain) run() {
	defer close(p.done)
	var buf []byte
	var prev [32]byte
	for range p.wake {
		for range 4 { // let the senders that were just answered come back
			runtime.Gosched()
		}
		p.mu.Lock()
		q := p.queue
		p.queue = nil
		p.mu.Unlock()
		if len(q) == 0 {
			continue
		}
		buf = append(buf[:0], prev[:]...)
		for _, c := range q {
			for _, r := range c.rs {
				buf = binary.BigEndian.AppendUint32(buf, uint32(len(r)))
				buf = append(buf, r...)
			}
		}
		prev = sha256.Sum256(buf)
		_, err := p.f.Write(buf)
		if err == nil {
			err = p.f.Sync()
		}
		for _, c := range q {
			c.done <- err
		}
	}
}

func bigDir(b *testing.B) (string, int64) {
	dir := b.TempDir()
	s := open(b, dir, nil)
	batch := sampleRecords(2150)
	for range 200 {
		if _, err := s.Append(context.Background(), Events, "a", batch); err != nil {
			b.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
	return dir, int64(200 * rawSize(batch))
}

// BenchmarkVerify reads files alone; MB/s are those of the files.
func BenchmarkVerify(b *testing.B) {
	dir, raw := bigDir(b)
	var r Report
	for b.Loop() {
		var err error
		if r, err = Verify(context.Background(), dir, VerifyOptions{}); err != nil || !r.OK() {
			b.Fatal(err, r.Problems)
		}
	}
	b.SetBytes(r.Bytes)
	b.ReportMetric(float64(r.Bytes)/float64(r.Records), "bytes/record")
	b.ReportMetric(float64(raw)/float64(r.Bytes), "raw/stored")
}

// BenchmarkRead is what a rebuild pays before it decodes.
func BenchmarkRead(b *testing.B) {
	dir, raw := bigDir(b)
	s := open(b, dir, nil)
	b.SetBytes(raw)
	for b.Loop() {
		n := 0
		if _, err := s.Read(context.Background(), Events, "a", Position{}, func(event.Ref, []byte) error { n++; return nil }); err != nil || n != 200*2150 {
			b.Fatal(n, err)
		}
	}
}

func BenchmarkProve(b *testing.B) {
	dir, _ := bigDir(b)
	s := open(b, dir, nil)
	infos, err := s.Segments(Events, "a")
	if err != nil {
		b.Fatal(err)
	}
	n := uint64(0)
	for b.Loop() {
		n = (n + 7919) % infos[0].Records
		if _, err := s.Prove(context.Background(), Events, event.Ref{Compartment: "a", Segment: infos[0].Segment, Ordinal: n}); err != nil {
			b.Fatal(err)
		}
	}
}
