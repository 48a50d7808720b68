package ledger

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"github.com/counterseal/counterseal/internal/durable"
)

// The outbox holds each statement before the log does. A statement is synced here
// first, with its number; a crash, a full disk or an answer of the log that says
// neither yes nor no leaves it here, and it is added again with the same bytes.
// What the outbox holds can stand in the log only from its base on, so a start
// reads that part of the log and no more.
//
// The form: a head, then a line per statement, each with a CRC-32C.
//
//	counterseal-outbox/1 <crc> <base index> <last number before>
//	<crc> <canonical statement>
type outbox struct {
	fs     durable.FS
	path   string
	f      *durable.File
	size   int64
	broken error // the last write failed: the file must be made anew
}

const (
	outboxHead = "counterseal-outbox/1"
	outboxFull = 1 << 20 // bytes after which it is made anew
	maxOutbox  = 256 << 20
)

func crc(b []byte) string {
	return hex.EncodeToString(binary.BigEndian.AppendUint32(nil, crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli))))
}

// outboxContent is what an outbox held.
type outboxContent struct {
	base   int64
	last   uint64
	leaves [][]byte
	// damage says what is wrong with the file other than a torn end.
	damage string
	torn   bool // the end is a write that was cut short, or was changed
}

// readOutbox reads an outbox. A torn last line was never acknowledged and is left
// out. It fails with fs.ErrNotExist where there is none.
func readOutbox(path string) (outboxContent, error) {
	st, err := os.Stat(path)
	if err != nil {
		return outboxContent{}, err
	}
	if st.Size() > maxOutbox {
		return outboxContent{damage: "it is too long"}, nil
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return outboxContent{}, err
	}
	return parseOutbox(raw), nil
}

func parseOutbox(raw []byte) (c outboxContent) {
	line, rest, ok := bytes.Cut(raw, []byte{'\n'})
	words := strings.Split(string(line), " ")
	if !ok || len(words) != 4 || words[0] != outboxHead || crc([]byte(words[2]+" "+words[3])) != words[1] {
		c.damage = "its head is broken"
		return c
	}
	var err, err2 error
	c.base, err = parseSize(words[2])
	c.last, err2 = strconv.ParseUint(words[3], 10, 64)
	if err != nil || err2 != nil {
		c.damage = "its head is broken"
		return c
	}
	for n := 1; len(rest) > 0; n++ {
		line, rest, ok = bytes.Cut(rest, []byte{'\n'})
		sum, leaf, _ := bytes.Cut(line, []byte{' '})
		good := crc(leaf) == string(sum)
		if !ok || !good {
			c.torn = true
			// A line that was synced whole is followed by its own end. What comes
			// behind a broken line in the same write was not acknowledged either;
			// but a good line there is more than a torn write explains.
			for len(rest) > 0 {
				line, rest, _ = bytes.Cut(rest, []byte{'\n'})
				if sum, leaf, _ := bytes.Cut(line, []byte{' '}); crc(leaf) == string(sum) {
					c.damage = "line " + strconv.Itoa(n) + " is broken"
				}
			}
			return c
		}
		c.leaves = append(c.leaves, leaf)
	}
	return c
}

// reset makes the file anew, with nothing in it: everything below base is in the
// log and last is the number of the last statement.
func (b *outbox) reset(base int64, last uint64) error {
	if b.f != nil {
		b.f.Close() // given up: its content is in the log or was not acknowledged
		b.f = nil
	}
	b.broken = errors.New("the outbox is not open")
	words := strconv.FormatInt(base, 10) + " " + strconv.FormatUint(last, 10)
	head := outboxHead + " " + crc([]byte(words)) + " " + words + "\n"
	if err := b.fs.WriteFile(b.path, []byte(head), 0o600); err != nil {
		return fmt.Errorf("writing the outbox: %w", err)
	}
	f, err := b.fs.OpenFile(b.path)
	if err != nil {
		return fmt.Errorf("opening the outbox: %w", err)
	}
	// Truncate also puts the position at the end.
	if err := f.Truncate(int64(len(head))); err != nil {
		f.Close()
		return fmt.Errorf("opening the outbox: %w", err)
	}
	b.f, b.size, b.broken = f, int64(len(head)), nil
	return nil
}

// append makes leaves durable, all or, on an error, none for sure.
func (b *outbox) append(leaves [][]byte) error {
	if b.broken != nil {
		return b.broken
	}
	var buf bytes.Buffer
	for _, l := range leaves {
		buf.WriteString(crc(l))
		buf.WriteByte(' ')
		buf.Write(l)
		buf.WriteByte('\n')
	}
	_, err := b.f.Write(buf.Bytes())
	if err == nil {
		err = b.f.Sync()
	}
	if err != nil {
		b.broken = fmt.Errorf("writing the outbox: %w", err)
		return b.broken
	}
	b.size += int64(buf.Len())
	return nil
}

func (b *outbox) close() error {
	if b.f == nil {
		return nil
	}
	err := b.f.Close()
	b.f = nil
	if errors.Is(err, fs.ErrClosed) {
		return nil
	}
	return err
}
