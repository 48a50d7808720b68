package evtx

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"unicode/utf16"
)

// builder writes a chunk the way Windows does, so that tests and fuzz seeds need
// no foreign file.
type builder struct {
	b     []byte
	names map[string]uint32
	first uint64
	n     uint64
	last  int
}

func newBuilder(firstID uint64) *builder {
	return &builder{b: make([]byte, recordsStart), names: map[string]uint32{}, first: firstID}
}

func (w *builder) bytes(b ...byte) { w.b = append(w.b, b...) }
func (w *builder) u16(v int)       { w.b = binary.LittleEndian.AppendUint16(w.b, uint16(v)) }
func (w *builder) u32(v int)       { w.b = binary.LittleEndian.AppendUint32(w.b, uint32(v)) }
func (w *builder) u64(v uint64)    { w.b = binary.LittleEndian.AppendUint64(w.b, v) }

func utf16le(s string) []byte {
	var out []byte
	for _, u := range utf16.Encode([]rune(s)) {
		out = binary.LittleEndian.AppendUint16(out, u)
	}
	return out
}

func (w *builder) name(s string) {
	if off, ok := w.names[s]; ok {
		w.u32(int(off))
		return
	}
	w.u32(len(w.b) + 4)
	w.names[s] = uint32(len(w.b))
	chars := utf16le(s)
	w.u32(0)
	w.u16(int(nameHash(chars)))
	w.u16(len(chars) / 2)
	w.b = append(append(w.b, chars...), 0, 0)
}

// sized writes what body writes behind its size.
func (w *builder) sized(body func()) {
	at := len(w.b)
	w.u32(0)
	body()
	binary.LittleEndian.PutUint32(w.b[at:], uint32(len(w.b)-at-4))
}

type attr struct {
	name string
	body func()
}

func (w *builder) text(s string) func() {
	return func() {
		w.bytes(0x05, 0x01)
		w.u16(len(utf16le(s)) / 2)
		w.b = append(w.b, utf16le(s)...)
	}
}

func (w *builder) sub(i int) func()      { return func() { w.bytes(0x0d); w.u16(i); w.bytes(0x01) } }
func (w *builder) optional(i int) func() { return func() { w.bytes(0x0e); w.u16(i); w.bytes(0x01) } }

// element writes an element; dep says whether it stands in a template.
func (w *builder) element(dep bool, name string, attrs []attr, body ...func()) {
	tok := byte(0x01)
	if len(attrs) > 0 {
		tok = 0x41
	}
	w.bytes(tok)
	if dep {
		w.u16(0xffff)
	}
	w.sized(func() {
		w.name(name)
		if len(attrs) > 0 {
			w.sized(func() {
				for i, a := range attrs {
					tok := byte(0x46)
					if i == len(attrs)-1 {
						tok = 0x06
					}
					w.bytes(tok)
					w.name(a.name)
					a.body()
				}
			})
		}
		if len(body) == 0 {
			w.bytes(0x03)
			return
		}
		w.bytes(0x02)
		for _, f := range body {
			f()
		}
		w.bytes(0x04)
	})
}

type testValue struct {
	typ  ValueType
	data []byte
}

var testGUID = [16]byte{0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x09, 0x0a, 0x0b, 0x0c, 0x0d, 0x0e, 0x0f, 0x10}

// instance writes a template instance with its definition inline (at = 0) or
// referred to, and returns where the definition stands.
func (w *builder) instance(at int, def func(), values ...testValue) int {
	w.bytes(0x0c, 0x01)
	w.b = append(w.b, testGUID[:4]...)
	if at == 0 {
		at = len(w.b) + 4
		w.u32(at)
		w.u32(0)
		w.b = append(w.b, testGUID[:]...)
		w.sized(func() {
			w.bytes(0x0f, 1, 1, 0)
			def()
			w.bytes(0)
		})
	} else {
		w.u32(at)
	}
	w.u32(len(values))
	for _, v := range values {
		w.u16(len(v.data))
		w.bytes(byte(v.typ), 0)
	}
	for _, v := range values {
		w.b = append(w.b, v.data...)
	}
	return at
}

func (w *builder) record(written uint64, body func()) {
	w.last = len(w.b)
	w.u32(recordMagic)
	w.u32(0)
	w.u64(w.first + w.n)
	w.n++
	w.u64(written)
	w.bytes(0x0f, 1, 1, 0)
	body()
	w.bytes(0)
	for len(w.b)%8 != 4 {
		w.bytes(0)
	}
	size := len(w.b) + 4 - w.last
	w.u32(size)
	binary.LittleEndian.PutUint32(w.b[w.last+4:], uint32(size))
}

// chunk closes the chunk: header, checksums, padding.
func (w *builder) chunk() []byte {
	b := append(bytes.Clone(w.b), make([]byte, ChunkSize-len(w.b))...)
	copy(b, chunkMagic)
	le := binary.LittleEndian
	le.PutUint64(b[8:], w.first)
	le.PutUint64(b[16:], w.first+w.n-1)
	le.PutUint64(b[24:], w.first)
	le.PutUint64(b[32:], w.first+w.n-1)
	le.PutUint32(b[40:], 128)
	le.PutUint32(b[44:], uint32(w.last))
	le.PutUint32(b[48:], uint32(len(w.b)))
	le.PutUint32(b[120:], 1)
	return seal(b)
}

// seal makes the checksums of a chunk right again.
func seal(b []byte) []byte {
	le := binary.LittleEndian
	if free := le.Uint32(b[48:]); free >= recordsStart && free <= ChunkSize {
		le.PutUint32(b[52:], crc32.ChecksumIEEE(b[recordsStart:free]))
	}
	le.PutUint32(b[124:], crc32.Update(crc32.ChecksumIEEE(b[:120]), crc32.IEEETable, b[128:recordsStart]))
	return b
}

func file(flags uint32, count int, chunks ...[]byte) []byte {
	b := make([]byte, firstChunk)
	copy(b, fileMagic)
	le := binary.LittleEndian
	le.PutUint32(b[32:], 128)
	le.PutUint16(b[36:], 1)
	le.PutUint16(b[38:], 3)
	le.PutUint16(b[40:], firstChunk)
	le.PutUint16(b[42:], uint16(count))
	le.PutUint32(b[120:], flags)
	le.PutUint32(b[124:], crc32.ChecksumIEEE(b[:120]))
	for _, c := range chunks {
		b = append(b, c...)
	}
	return b
}

// event writes a usual event: System by template, data by the values.
func (w *builder) eventTemplate(data func()) func() {
	return func() {
		w.element(true, "Event", []attr{{"xmlns", w.text("http://schemas.microsoft.com/win/2004/08/events/event")}},
			func() {
				w.element(true, "System", nil,
					func() {
						w.element(true, "Provider", []attr{{"Name", w.text("Test & Co")}, {"Guid", w.sub(2)}})
					},
					func() { w.element(true, "EventID", []attr{{"Qualifiers", w.optional(3)}}, w.sub(0)) },
					func() { w.element(true, "Version", nil, w.text("7")) },
					func() { w.element(true, "TimeCreated", []attr{{"SystemTime", w.sub(1)}}) },
					func() { w.element(true, "Channel", nil, w.text("Security")) },
					func() { w.element(true, "Correlation", nil) },
				)
			},
			func() { w.element(true, "EventData", nil, data) },
		)
	}
}

func le16(v uint16) []byte { return binary.LittleEndian.AppendUint16(nil, v) }
func le32(v uint32) []byte { return binary.LittleEndian.AppendUint32(nil, v) }
func le64(v uint64) []byte { return binary.LittleEndian.AppendUint64(nil, v) }

const testTime = 132_847_227_551_234_567 // 2021-12-23T08:45:55.1234567Z

var testSystem = []testValue{
	{TypeUint16, le16(4624)}, {TypeFileTime, le64(testTime)}, {TypeGUID, testGUID[:]}, {TypeNull, le16(0)},
}

// threeRecords is a chunk of three equal-shaped events.
func threeRecords(firstID uint64) (chunk []byte, offsets []int) {
	w := newBuilder(firstID)
	at := 0
	for i := range 3 {
		offsets = append(offsets, len(w.b))
		w.record(testTime+uint64(i), func() {
			at = w.instance(at, w.eventTemplate(func() {
				w.element(true, "Data", []attr{{"Name", w.text("User")}}, w.sub(4))
			}), append(append([]testValue{}, testSystem...), testValue{TypeString, utf16le("user" + string(rune('a'+i)))})...)
		})
	}
	return w.chunk(), offsets
}

// SampleLog is a small event log for the examples.
func SampleLog() []byte {
	chunk, _ := threeRecords(1)
	return file(0, 1, chunk)
}
