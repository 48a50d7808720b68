package scan

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/counterseal/counterseal/evtx"
	"github.com/counterseal/counterseal/internal/collect"
	"github.com/counterseal/counterseal/internal/event"
)

// Sizes of a piece: enough work to be worth handing over, little enough that a few
// for each core are small.
const (
	pieceChunks = 16
	pieceBytes  = 1 << 20
	pieceFrames = 4096
)

// piece is a part of one file, and what was found in it.
type piece struct {
	path string

	// Either chunks of an event log …
	chunks     []byte
	firstChunk int
	offset     int64 // of chunks in the file
	// … or frames; frames point into bytes.
	frames []event.Frame
	bytes  []byte

	refused int   // lines that could not be framed
	problem error // the file cannot be read, or not to its end; such a piece holds nothing else
	opened  bool  // first piece of a file

	done chan struct{}
	answer
}

// produce walks the paths and cuts what it finds into pieces, in order.
func produce(ctx context.Context, o *Options, lend *buffers, send func(*piece) error) error {
	var files []string
	problems := map[string]error{}
	var total, done int64
	err := collect.Walk(o.Paths, func(path string, err error) error {
		if cerr := ctx.Err(); cerr != nil {
			return cerr
		}
		files = append(files, path)
		if err != nil {
			problems[path] = err
		} else if st, err := os.Stat(path); err == nil {
			total += st.Size()
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, path := range files {
		if err := problems[path]; err != nil {
			if err := send(&piece{path: path, problem: err}); err != nil {
				return err
			}
			continue
		}
		tell := func(int64) {}
		if o.Progress != nil {
			tell = func(n int64) { o.Progress(done+n, total) }
		}
		size, err := produceFile(ctx, path, lend, tell, send)
		if err != nil {
			return err
		}
		tell(size)
		done += size
	}
	return nil
}

// stopped is an error of send: the run ends, which is no fault of the file.
type stopped struct{ error }

func (s stopped) Unwrap() error { return s.error }

func produceFile(ctx context.Context, path string, lend *buffers, tell func(int64), send func(*piece) error) (size int64, err error) {
	f, err := collect.Open(path)
	if err != nil {
		return 0, send(&piece{path: path, problem: err})
	}
	defer f.Close()
	// What was read of a compressed file is more than the file: the bar waits then.
	read := int64(0)
	advance := func(n int64) {
		read += n
		tell(min(read, f.Size))
	}
	for _, m := range f.Members {
		p := producer{path: m.Name, buffers: lend, advance: advance, send: send}
		if m.Shape == collect.EVTX {
			err = p.log(ctx, m)
		} else {
			err = p.lines(ctx, m)
		}
		var stop stopped
		if errors.As(err, &stop) {
			return f.Size, stop.error
		}
		if err != nil {
			if cerr := ctx.Err(); cerr != nil {
				return f.Size, cerr
			}
			if err := send(&piece{path: m.Name, problem: err}); err != nil {
				return f.Size, err
			}
		}
	}
	return f.Size, nil
}

// buffers lends the memory for chunks of an event log.
type buffers struct{ pool sync.Pool }

func (b *buffers) get() []byte {
	if x, ok := b.pool.Get().(*[pieceChunks * evtx.ChunkSize]byte); ok {
		return x[:]
	}
	return make([]byte, pieceChunks*evtx.ChunkSize)
}

func (b *buffers) put(x []byte) {
	if cap(x) >= pieceChunks*evtx.ChunkSize {
		b.pool.Put((*[pieceChunks * evtx.ChunkSize]byte)(x[:pieceChunks*evtx.ChunkSize]))
	}
}

type producer struct {
	path    string
	buffers *buffers
	advance func(int64)
	send    func(*piece) error
	began   bool
}

func (p *producer) push(x *piece) error {
	x.path, x.opened = p.path, !p.began
	p.began = true
	n := int64(len(x.chunks) + len(x.bytes)) // a worker owns x once it is sent
	if err := p.send(x); err != nil {
		return stopped{err}
	}
	p.advance(n)
	return nil
}

// log cuts an event log at its chunks.
func (p *producer) log(ctx context.Context, m *collect.Member) error {
	r, err := m.Content()
	if err != nil {
		return err
	}
	defer r.Close()
	const headerBlock = 4096
	head := make([]byte, headerBlock)
	n, err := io.ReadFull(r, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("reading the header: %w", err)
	}
	head = head[:n]
	at := int64(headerBlock)
	switch log, err := evtx.NewReader(bytes.NewReader(head), int64(n)); {
	case err == nil:
		at = log.Header().ChunksAt
	case errors.Is(err, evtx.ErrVersion):
		return err
	}
	var rest []byte // of the first chunk
	if at < int64(n) {
		rest = head[at:]
	} else if _, err := io.CopyN(io.Discard, r, at-int64(n)); err != nil && err != io.EOF {
		return fmt.Errorf("reading the header: %w", err)
	}
	for chunk := 0; ; chunk += pieceChunks {
		if err := ctx.Err(); err != nil {
			return err
		}
		buf := p.buffers.get()
		have := copy(buf, rest)
		rest = nil
		n, err := io.ReadFull(r, buf[have:])
		have += n
		if have > 0 || chunk == 0 {
			if err := p.push(&piece{chunks: buf[:have], firstChunk: chunk, offset: at + int64(chunk)*evtx.ChunkSize}); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return nil
		case err != nil:
			return fmt.Errorf("reading chunk %d: %w", chunk+have/evtx.ChunkSize, err)
		}
	}
}

// lines cuts anything else at its records.
func (p *producer) lines(ctx context.Context, m *collect.Member) error {
	cur := &piece{}
	push := func() error {
		x := cur
		cur = &piece{}
		return p.push(x)
	}
	_, err := m.Frames(ctx, func(f *event.Frame) error {
		if len(cur.frames) > 0 && (len(cur.bytes)+len(f.Bytes) > pieceBytes || len(cur.frames) == pieceFrames) {
			if err := push(); err != nil {
				return err
			}
		}
		from := len(cur.bytes)
		cur.bytes = append(cur.bytes, f.Bytes...)
		own := *f
		own.Bytes = cur.bytes[from:len(cur.bytes):len(cur.bytes)]
		cur.frames = append(cur.frames, own)
		return nil
	}, func(event.LineError) { cur.refused++ })
	var stop stopped
	if errors.As(err, &stop) {
		return err
	}
	if perr := push(); perr != nil {
		return perr
	}
	return err
}
