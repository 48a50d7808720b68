package evtx

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// read lists the records of a file as one line each.
func read(t *testing.T, b []byte) (chunks, records []string) {
	t.Helper()
	r, err := NewReader(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	err = r.Chunks(func(c *Chunk) error {
		chunks = append(chunks, c.State.String())
		return c.Records(func(rec *Record) error {
			user := ""
			for _, f := range rec.Fields() {
				if f.Name == "User" {
					user = string(f.Value)
				}
			}
			if rec.State.OK() != (rec.Err() == nil) {
				t.Errorf("state %v and error %v", rec.State, rec.Err())
			}
			records = append(records, fmt.Sprintf("%d %v %s", rec.ID, rec.State, user))
			return nil
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	return chunks, records
}

func expect(t *testing.T, what string, got, want []string) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("%s (-want +got):\n%s", what, d)
	}
}

func TestValues(t *testing.T) {
	sid := []byte{1, 2, 0, 0, 0, 0, 0, 5, 32, 0, 0, 0, 32, 2, 0, 0}
	for _, x := range []struct {
		typ  ValueType
		data []byte
		want string
		kind Kind
	}{
		{TypeString, utf16le("héllo\x00\x00"), "héllo", String},
		{TypeString, utf16le("😀K"), "😀K", String},
		{TypeString, nil, "", String},
		{TypeAnsiString, []byte("abc\x00"), "abc", String},
		{TypeInt8, []byte{0xff}, "-1", Number},
		{TypeUint8, []byte{0xff}, "255", Number},
		{TypeInt16, le16(0x8000), "-32768", Number},
		{TypeUint16, le16(0x8000), "32768", Number},
		{TypeInt32, le32(0xffffffff), "-1", Number},
		{TypeUint32, le32(0xffffffff), "4294967295", Number},
		{TypeInt64, le64(1 << 63), "-9223372036854775808", Number},
		{TypeUint64, le64(1<<64 - 1), "18446744073709551615", Number},
		{TypeFloat32, le32(0x3fc00000), "1.5", Number},
		{TypeFloat64, le64(0x7ff8000000000001), "NaN", Number},
		{TypeBool, le32(1), "true", Bool},
		{TypeBool, le32(0), "false", Bool},
		{TypeBinary, []byte{0xab, 0x01}, "AB01", Binary},
		{TypeGUID, testGUID[:], "{04030201-0605-0807-090A-0B0C0D0E0F10}", String},
		{TypeSize, le32(16), "0x10", String},
		{TypeSize, le64(16), "0x10", String},
		{TypeFileTime, le64(testTime), "2021-12-23T08:45:55.1234567Z", String},
		{TypeFileTime, le64(0), "1601-01-01T00:00:00.0000000Z", String},
		{TypeSystemTime, bytes.Join([][]byte{le16(2020), le16(2), le16(6), le16(29), le16(1), le16(2), le16(3), le16(45)}, nil), "2020-02-29T01:02:03.045Z", String},
		{TypeSID, sid, "S-1-5-32-544", String},
		{TypeHex32, le32(0x17), "0x17", String},
		{TypeHex64, le64(0x3e7), "0x3e7", String},
	} {
		got, lossy, err := appendValue(nil, x.typ, x.data)
		if err != nil || lossy || string(got) != x.want || x.typ.kind() != x.kind {
			t.Errorf("type %#x: %q %v %v, kind %d; want %q, kind %d", x.typ, got, lossy, err, x.typ.kind(), x.want, x.kind)
		}
		if w := x.typ.width(); w != 0 {
			if _, _, err := appendValue(nil, x.typ, x.data[:w-1]); err == nil {
				t.Errorf("type %#x: a short value is accepted", x.typ)
			}
		}
	}
	for _, b := range [][]byte{{0x00, 0xd8}, {0x00, 0xdc, 0x41, 0x00}, {0x00, 0xd8, 0x41, 0x00}} {
		if got, lossy, err := appendValue(nil, TypeString, b); !lossy || err != nil || !bytes.Contains(got, []byte("\ufffd")) {
			t.Errorf("unpaired surrogate % x: %q %v %v", b, got, lossy, err)
		}
	}
	if got, lossy, _ := appendValue(nil, TypeAnsiString, []byte{0x80}); string(got) != "€" || !lossy {
		t.Errorf("code page byte: %q %v", got, lossy)
	}
	if _, _, err := appendValue(nil, 0x77, []byte{1}); !errors.Is(err, errType) {
		t.Errorf("unknown type: %v", err)
	}
}

// TestFields pins the view that Sigma rules expect.
func TestFields(t *testing.T) {
	w := newBuilder(1)
	w.record(testTime, func() {
		w.instance(0, w.eventTemplate(func() {
			data := func(name string, body ...func()) {
				w.element(true, "Data", []attr{{"Name", w.text(name)}}, body...)
			}
			data("Threat Name", w.sub(4))
			data("Absent", w.sub(5))
			data("AbsentToo", w.optional(5))
			data("Empty", w.sub(6))
			data("Literal")
			data("Version", w.sub(7))
			data("List", w.sub(8))
			data("Mixed", w.text("a"), w.sub(7), func() { w.bytes(0x08); w.u16('&') }, func() { w.bytes(0x09); w.name("lt") })
			data("EmptyList", w.sub(9))
			data("Ports", w.sub(10))
			w.element(true, "Data", nil, w.sub(4))
			w.element(true, "Data", nil, w.sub(7))
			w.element(true, "Binary", nil, w.sub(11))
		}), append(append([]testValue{}, testSystem...),
			testValue{TypeString, utf16le("x <y>\x01")},
			testValue{TypeNull, le16(0)},
			testValue{TypeString, nil},
			testValue{TypeUint64, le64(1<<64 - 1)},
			testValue{TypeString | arrayBit, utf16le("one\x00\x00two\x00")},
			testValue{TypeString | arrayBit, nil},
			testValue{TypeUint16 | arrayBit, append(le16(80), le16(443)...)},
			testValue{TypeBinary, []byte{0xde, 0xad}},
		)...)
	})
	w.record(testTime, func() { // no template, UserData, names with a prefix
		w.element(false, "Event", nil,
			func() { w.element(false, "System", nil, func() { w.element(false, "Channel", nil, w.text("Setup")) }) },
			func() {
				w.element(false, "UserData", nil, func() {
					w.element(false, "EventXML", []attr{{"xmlns:e", w.text("urn:x")}},
						func() { w.element(false, "e:Channel", nil, w.text("Other")) },
						func() { w.element(false, "Error", []attr{{"Code", w.text("5")}}) },
						func() { w.element(false, "Nothing", nil) },
					)
				})
			})
	})
	b := file(0, 1, w.chunk())
	r, err := NewReader(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	var got, docs []string
	err = r.Records(func(rec *Record) error {
		if err := rec.Err(); err != nil {
			t.Error(err)
		}
		for _, f := range rec.Fields() {
			got = append(got, f.Name+"="+string(f.Value))
		}
		docs = append(docs, string(rec.AppendJSON(nil)), string(rec.AppendXML(nil)))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	expect(t, "fields", got, []string{
		"Provider_Name=Test & Co", "Provider_Guid={04030201-0605-0807-090A-0B0C0D0E0F10}", "EventID=4624", "Version=7",
		"TimeCreated_SystemTime=2021-12-23T08:45:55.1234567Z", "Channel=Security",
		"ThreatName=x <y>\x01", "Empty=", "Literal=", "EventData.Version=18446744073709551615",
		"List=one", "List=", "List=two", "Mixed=a18446744073709551615&<", "EmptyList=", "Ports=80", "Ports=443",
		"Data=x <y>\x01", "Data=18446744073709551615", "Binary=DEAD",
		"Channel=Setup", "UserData.Channel=Other", "Error_Code=5", "Nothing=",
	})
	expect(t, "documents", docs, []string{
		`{"Provider_Name":"Test & Co","Provider_Guid":"{04030201-0605-0807-090A-0B0C0D0E0F10}","EventID":4624,"Version":"7","TimeCreated_SystemTime":"2021-12-23T08:45:55.1234567Z","Channel":"Security","ThreatName":"x <y>\u0001","Empty":"","Literal":"","EventData.Version":18446744073709551615,"List":["one","","two"],"Mixed":"a18446744073709551615&<","EmptyList":"","Ports":[80,443],"Data":["x <y>\u0001",18446744073709551615],"Binary":"DEAD"}`,
		`<Event xmlns="http://schemas.microsoft.com/win/2004/08/events/event"><System><Provider Name="Test &amp; Co" Guid="{04030201-0605-0807-090A-0B0C0D0E0F10}"/><EventID>4624</EventID><Version>7</Version><TimeCreated SystemTime="2021-12-23T08:45:55.1234567Z"/><Channel>Security</Channel><Correlation/></System><EventData><Data Name="Threat Name">x &lt;y&gt;` + "\ufffd" + `</Data><Data Name="Absent"/><Data Name="Empty"></Data><Data Name="Literal"/><Data Name="Version">18446744073709551615</Data><Data Name="List">one</Data><Data Name="List"></Data><Data Name="List">two</Data><Data Name="Mixed">a18446744073709551615&amp;&lt;</Data><Data Name="EmptyList"></Data><Data Name="Ports">80</Data><Data Name="Ports">443</Data><Data>x &lt;y&gt;` + "\ufffd" + `</Data><Data>18446744073709551615</Data><Binary>DEAD</Binary></EventData></Event>`,
		`{"Channel":"Setup","UserData.Channel":"Other","Error_Code":"5","Nothing":""}`,
		`<Event><System><Channel>Setup</Channel></System><UserData><EventXML xmlns:e="urn:x"><e:Channel>Other</e:Channel><Error Code="5"/><Nothing/></EventXML></UserData></Event>`,
	})
}

// TestFlippedBits flips one bit anywhere under a checksum: it always shows.
func TestFlippedBits(t *testing.T) {
	chunk, _ := threeRecords(1)
	clean := file(0, 1, chunk)
	free := int(binary.LittleEndian.Uint32(chunk[48:]))
	damaged := func(b []byte) bool {
		r, err := NewReader(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return true
		}
		bad := r.Header().CRCWrong
		if err := r.Chunks(func(c *Chunk) error { bad = bad || c.State.Damaged(); return nil }); err != nil {
			t.Fatal(err)
		}
		return bad
	}
	if damaged(clean) {
		t.Fatal("the clean file shows damage")
	}
	var places []int
	for i := range 120 {
		places = append(places, i, firstChunk+i)
	}
	for i := 128; i < free; i++ {
		places = append(places, firstChunk+i)
	}
	for _, at := range places {
		b := bytes.Clone(clean)
		b[at] ^= 1 << rand.IntN(8)
		if !damaged(b) {
			t.Errorf("a flipped bit in byte %d does not show", at)
		}
	}
}

// TestDamage damages one thing of a file of two chunks: everything else is read.
func TestDamage(t *testing.T) {
	one, at := threeRecords(1)
	two, _ := threeRecords(4)
	rest := []string{"4 ok usera", "5 ok userb", "6 ok userc"}
	all := append([]string{"1 ok usera", "2 ok userb", "3 ok userc"}, rest...)
	le := binary.LittleEndian
	size := int(le.Uint32(one[at[1]+4:]))
	free := int(le.Uint32(one[48:]))
	at3 := at[2] + 24 + 4 // the template instance of the third record
	for _, x := range []struct {
		name   string
		break_ func(b []byte)
		sealed bool // checksums made right again: only the content is wrong
		state  string
		want   []string
	}{
		{"nothing", func(b []byte) {}, true, "ok", all},
		{"binxml", func(b []byte) { b[at[1]+24] = 0x77 }, false, "record-crc", []string{"1 ok usera", "2 binxml ", "3 ok userc"}},
		{"size copy", func(b []byte) { b[at[1]+size-4]++ }, true, "ok", []string{"1 ok usera", "2 size-copy userb", "3 ok userc"}},
		{"size too large", func(b []byte) { le.PutUint32(b[at[1]+4:], 1<<31) }, true, "ok", []string{"1 ok usera", "2 unreadable ", "3 ok userc"}},
		{"size too small", func(b []byte) { le.PutUint32(b[at[1]+4:], 32) }, true, "ok", []string{"1 ok usera", "2 size-copy,binxml ", "3 ok userc"}},
		{"size swallows the next", func(b []byte) { le.PutUint32(b[at[1]+4:], uint32(size+8)) }, true, "ok", []string{"1 ok usera", "2 size-copy userb", "3 ok userc"}},
		{"record magic", func(b []byte) { b[at[1]] = 0 }, true, "ok", []string{"1 ok usera", "0 unreadable ", "3 ok userc"}},
		{"zero run", func(b []byte) { clear(b[at[1]:at[2]]) }, false, "record-crc", []string{"1 ok usera", "0 unreadable ", "3 ok userc"}},
		{"chunk header zero", func(b []byte) { clear(b[:recordsStart]) }, false, "not-a-chunk", all[:3]},
		{"free offset", func(b []byte) { le.PutUint32(b[48:], 1<<20) }, false, "header-crc,record-crc", all[:3]},
		{"free offset beyond, header wrong", func(b []byte) { le.PutUint32(b[48:], uint32(free+80)) }, false, "header-crc,record-crc", all[:3]},
		{"all zero", func(b []byte) { clear(b) }, false, "empty", nil},
		{"garbage", func(b []byte) {
			for i := range b {
				b[i] = byte(i*7 + 1)
			}
		}, false, "not-a-chunk", []string{"0 unreadable "}},
		{"name hash", func(b []byte) {
			i := bytes.Index(b, utf16le("EventData"))
			b[i] = 'F'
		}, true, "ok", []string{"1 binxml ", "2 binxml ", "3 binxml "}},
		{"template id", func(b []byte) { b[at3+2]++ }, true, "ok", []string{"1 ok usera", "2 ok userb", "3 binxml "}},
		{"template forward", func(b []byte) { le.PutUint32(b[at3+6:], 60000) }, true, "ok", []string{"1 ok usera", "2 ok userb", "3 binxml "}},
		{"template in the header", func(b []byte) { le.PutUint32(b[at3+6:], 128) }, true, "ok", []string{"1 ok usera", "2 ok userb", "3 binxml "}},
		{"too many values", func(b []byte) { le.PutUint32(b[at3+10:], 1<<30) }, true, "ok", []string{"1 ok usera", "2 ok userb", "3 binxml "}},
		{"value too long", func(b []byte) { le.PutUint16(b[at3+14:], 0xffff) }, true, "ok", []string{"1 ok usera", "2 ok userb", "3 binxml "}},
		{"value of the wrong width", func(b []byte) { b[at3+14+2] = byte(TypeUint64) }, true, "ok", []string{"1 ok usera", "2 ok userb", "3 binxml "}},
		{"unknown value type", func(b []byte) { b[at3+14+4*4+2] = 0x70 }, true, "ok", []string{"1 ok usera", "2 ok userb", "3 binxml "}},
		{"values missing", func(b []byte) { le.PutUint32(b[at3+10:], 1) }, true, "ok", []string{"1 ok usera", "2 ok userb", "3 binxml "}},
	} {
		b := bytes.Clone(one)
		x.break_(b)
		if x.sealed {
			seal(b)
		}
		chunks, records := read(t, file(0, 2, b, two))
		expect(t, x.name+": chunks", chunks, []string{x.state, "ok"})
		if x.name != "nothing" {
			x.want = append(x.want[:len(x.want):len(x.want)], rest...)
		}
		expect(t, x.name+": records", records, x.want)
	}
}

// TestOldRecords leaves whole records behind the free-space offset, as Windows
// does: they are not read, also where the header cannot be trusted.
func TestOldRecords(t *testing.T) {
	b, at := threeRecords(10)
	le := binary.LittleEndian
	le.PutUint32(b[48:], uint32(at[2]))
	le.PutUint64(b[at[2]+8:], 3)
	seal(b)
	live := []string{"10 ok usera", "11 ok userb"}
	chunks, records := read(t, file(0, 1, b))
	expect(t, "chunks", chunks, []string{"ok"})
	expect(t, "records", records, live)
	clear(b[:128])
	chunks, records = read(t, file(0, 1, b))
	expect(t, "chunks", chunks, []string{"not-a-chunk"})
	expect(t, "records", records, live)
}

func TestFiles(t *testing.T) {
	one, at := threeRecords(1)
	two, _ := threeRecords(4)
	all := []string{"1 ok usera", "2 ok userb", "3 ok userc", "4 ok usera", "5 ok userb", "6 ok userc"}

	chunks, records := read(t, file(1, 1, one, two, make([]byte, ChunkSize)))
	expect(t, "dirty chunks", chunks, []string{"ok", "ok", "empty"})
	expect(t, "dirty records", records, all)

	b := file(0, 2, one, two)
	cut := firstChunk + ChunkSize + at[2] + 10
	chunks, records = read(t, b[:cut])
	expect(t, "cut chunks", chunks, []string{"ok", "record-crc,truncated"})
	expect(t, "cut records", records, append(all[:5:5], "0 unreadable "))

	for n := range len(b) / 97 {
		r, err := NewReader(bytes.NewReader(b[:n*97]), int64(n*97))
		if err != nil {
			if n*97 >= fileHeaderBytes {
				t.Fatalf("cut at %d: %v", n*97, err)
			}
			continue
		}
		if err := r.Records(func(rec *Record) error { rec.Fields(); return nil }); err != nil {
			t.Fatalf("cut at %d: %v", n*97, err)
		}
	}

	h := bytes.Clone(b)
	clear(h[:firstChunk])
	_, records = read(t, h)
	expect(t, "zero header", records, all)
	for _, x := range []struct {
		b    []byte
		want error
	}{
		{nil, ErrNotEVTX}, {[]byte("ElfFile\x00"), ErrNotEVTX}, {bytes.Repeat([]byte("x"), 100000), ErrNotEVTX},
	} {
		if _, err := NewReader(bytes.NewReader(x.b), int64(len(x.b))); !errors.Is(err, x.want) {
			t.Errorf("%d bytes: %v, want %v", len(x.b), err, x.want)
		}
	}
	v4 := file(0, 0)
	v4[38] = 4
	copy(v4[124:], le32(crcIEEE(v4[:120])))
	bare := file(0, 0)
	if _, err := NewReader(bytes.NewReader(v4), int64(len(v4))); !errors.Is(err, ErrVersion) {
		t.Errorf("version 4: %v", err)
	}
	r, err := NewReader(bytes.NewReader(bare), int64(len(bare)))
	if err != nil || r.NumChunks() != 0 {
		t.Errorf("file without chunks: %v", err)
	}
	var c Chunk
	if err := r.ReadChunk(0, &c); err == nil {
		t.Error("a chunk that is not there is read")
	}
}

// TestForward refers from the first record to names and definitions that only a
// later record holds, all of them right otherwise.
func TestForward(t *testing.T) {
	for _, x := range []struct {
		what string
		body func(w *builder, name, def int)
	}{
		{"name offset points forward", func(w *builder, name, _ int) {
			w.bytes(0x01)
			w.sized(func() { w.u32(name); w.bytes(0x03) })
		}},
		{"template offset points forward", func(w *builder, _, def int) { w.instance(def, nil) }},
	} {
		var name, def int
		for range 2 { // the second time with the offsets that the first found
			w := newBuilder(1)
			w.record(testTime, func() { x.body(w, max(name, 60000), max(def, 60000)) })
			w.record(testTime, func() {
				def = w.instance(0, func() { w.element(true, "Event", nil) })
				name = int(w.names["Event"])
			})
			b := file(0, 1, w.chunk())
			r, err := NewReader(bytes.NewReader(b), int64(len(b)))
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			_ = r.Records(func(rec *Record) error {
				what := ""
				if rec.err != nil {
					what = rec.err.What
				}
				got = append(got, what)
				return nil
			})
			expect(t, x.what, got, []string{x.what, ""})
		}
	}
}

// TestFirstChunk honours a file header of another size.
func TestFirstChunk(t *testing.T) {
	chunk, _ := threeRecords(1)
	b := append(make([]byte, 2*firstChunk), chunk...)
	copy(b, file(0, 1)[:fileHeaderBytes])
	binary.LittleEndian.PutUint16(b[40:], 2*firstChunk)
	copy(b[124:], le32(crcIEEE(b[:120])))
	chunks, records := read(t, b)
	expect(t, "chunks", chunks, []string{"ok"})
	expect(t, "records", records, []string{"1 ok usera", "2 ok userb", "3 ok userc"})
}

// far is a file with one chunk behind 4 GiB of zeros.
type far struct{ head, chunk []byte }

const farAt = firstChunk + 70000*ChunkSize

func (f far) ReadAt(b []byte, off int64) (int, error) {
	clear(b)
	switch {
	case off < firstChunk:
		copy(b, f.head[off:])
	case off >= farAt:
		copy(b, f.chunk[off-farAt:])
	}
	return len(b), nil
}

func TestLargeFile(t *testing.T) {
	chunk, _ := threeRecords(1)
	r, err := NewReader(far{file(0, 0), chunk}, farAt+ChunkSize)
	if err != nil {
		t.Fatal(err)
	}
	if r.NumChunks() != 70001 {
		t.Fatalf("%d chunks", r.NumChunks())
	}
	var c Chunk
	if err := r.ReadChunk(70000, &c); err != nil {
		t.Fatal(err)
	}
	n := 0
	_ = c.Records(func(rec *Record) error {
		n++
		if rec.Offset <= 1<<32 || !rec.State.OK() {
			t.Errorf("record at %d: %v", rec.Offset, rec.Err())
		}
		return nil
	})
	if n != 3 {
		t.Errorf("%d records", n)
	}
}

// TestLoad reads a chunk without a file.
func TestLoad(t *testing.T) {
	b, at := threeRecords(1)
	var c Chunk
	for _, n := range []int{len(b), at[2]} { // the second time less than the first
		c.Load(5, 1<<40, b[:n])
		var got []string
		_ = c.Records(func(rec *Record) error {
			got = append(got, fmt.Sprintf("%d %d %d %v", rec.ID, rec.Chunk, rec.Offset-1<<40, rec.State))
			return nil
		})
		want := []string{"1 5 512 ok", fmt.Sprintf("2 5 %d ok", at[1])}
		if n == len(b) {
			want = append(want, fmt.Sprintf("3 5 %d ok", at[2]))
		}
		expect(t, "loaded", got, want)
	}
}

// TestStops shows that an error of the caller and of the disk ends the walk.
func TestStops(t *testing.T) {
	chunk, _ := threeRecords(1)
	b := file(0, 1, chunk)
	stop := errors.New("stop")
	r, err := NewReader(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	if err := r.Records(func(*Record) error { n++; return stop }); !errors.Is(err, stop) || n != 1 {
		t.Errorf("%v after %d records", err, n)
	}
	r.size += ChunkSize // the file shrank after it was opened
	if err := r.Records(func(*Record) error { return nil }); !errors.Is(err, io.EOF) {
		t.Errorf("short file: %v", err)
	}
}

// TestHostile builds BinXML that a trusting parser would follow without end.
func TestHostile(t *testing.T) {
	nest := func(n int) func(w *builder) {
		return func(w *builder) {
			var deeper func(int) func()
			deeper = func(i int) func() {
				return func() {
					if i == 0 {
						w.text("x")()
						return
					}
					w.element(true, "a", nil, deeper(i-1))
				}
			}
			w.instance(0, deeper(n))
		}
	}
	bomb := bytes.Repeat(utf16le("A"), 10000)
	for _, x := range []struct {
		name, what string
		body       func(w *builder)
	}{
		{"sixteen deep", "", nest(16)},
		{"seventeen deep", "elements too deep", nest(17)},
		{"instance in a template", "template instance inside an element", func(w *builder) {
			w.instance(0, func() { w.element(true, "a", nil, func() { w.bytes(0x0c, 1) }) })
		}},
		{"instance at the top of a template", "template instance inside a template", func(w *builder) {
			w.instance(0, func() { w.bytes(0x0c, 1) })
		}},
		{"template in its own value", "elements too deep", func(w *builder) {
			// The value of type 21 refers to the definition that substitutes it.
			w.bytes(0x0c, 1)
			w.b = append(w.b, testGUID[:4]...)
			at := len(w.b) + 4
			w.u32(at)
			w.u32(0)
			w.b = append(w.b, testGUID[:]...)
			w.sized(func() {
				w.bytes(0x0f, 1, 1, 0)
				w.element(true, "a", nil, w.sub(0))
				w.bytes(0)
			})
			inner := &builder{}
			var prev []byte
			for range 20 {
				inner = &builder{}
				inner.bytes(0x0f, 1, 1, 0)
				inner.instance(at, nil, testValue{TypeBinXML, prev})
				inner.bytes(0)
				prev = inner.b
			}
			w.u32(1)
			w.u16(len(prev))
			w.bytes(byte(TypeBinXML), 0)
			w.b = append(w.b, prev...)
		}},
		{"one value many times", "expands beyond all measure", func(w *builder) {
			w.instance(0, func() {
				w.element(true, "a", nil, func() {
					for range 1000 {
						w.sub(0)()
					}
				})
			}, testValue{TypeString, bomb})
		}},
		{"many empty steps", "expands beyond all measure", func(w *builder) {
			w.instance(0, func() {
				for range 40 {
					w.element(true, "a", nil, w.sub(0))
				}
			}, testValue{TypeString | arrayBit, make([]byte, 20000)})
		}},
		{"more values than allowed", "too many values", func(w *builder) {
			w.instance(0, func() { w.element(true, "a", nil) }, make([]testValue, maxArguments+1)...)
		}},
		{"as many values as allowed", "", func(w *builder) {
			w.instance(0, func() { w.element(true, "a", nil) }, make([]testValue, maxArguments)...)
		}},
		{"no name", "not an XML name", func(w *builder) { w.element(false, "a b", nil) }},
		{"markup as name", "not an XML name", func(w *builder) { w.element(false, "a><b", nil) }},
		{"unknown entity", "unknown entity", func(w *builder) {
			w.element(false, "a", nil, func() { w.bytes(0x09); w.name("nbsp") })
		}},
		{"substitution without template", "substitution outside a template", func(w *builder) { w.element(false, "a", nil, w.sub(0)) }},
		{"element larger than the record", "element is larger than what holds it", func(w *builder) {
			w.bytes(0x01)
			w.u32(60000)
		}},
		{"element smaller than its content", "element does not fill its size", func(w *builder) {
			w.bytes(0x01)
			n := len(w.b)
			w.sized(func() { w.name("a"); w.bytes(0x03) })
			binary.LittleEndian.PutUint32(w.b[n:], binary.LittleEndian.Uint32(w.b[n:])+1)
			w.bytes(0)
		}},
		{"processing instruction", "", func(w *builder) {
			w.bytes(0x0a)
			w.name("go")
			w.bytes(0x0b)
			w.u16(2)
			w.b = append(w.b, utf16le("hi")...)
			w.element(false, "a", nil)
		}},
		{"processing instruction that ends", "processing instruction that ends inside", func(w *builder) {
			w.bytes(0x0a)
			w.name("go")
			w.bytes(0x0b)
			w.u16(2)
			w.b = append(w.b, utf16le("?>")...)
		}},
	} {
		w := newBuilder(7)
		w.record(testTime, func() { x.body(w) })
		w.record(testTime, func() { w.element(false, "Event", nil) })
		b := file(0, 1, w.chunk())
		r, err := NewReader(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			t.Fatal(err)
		}
		var errs []string
		err = r.Records(func(rec *Record) error {
			what := ""
			if err := rec.Err(); err != nil {
				var d *DamageError
				if !errors.As(err, &d) || d.Record != rec.ID || d.Offset < rec.Offset-ChunkSize {
					t.Errorf("%s: error %v of record %d", x.name, err, rec.ID)
				}
				what = d.What
			}
			errs = append(errs, what)
			checkForms(t, rec)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		expect(t, x.name, errs, []string{x.what, ""})
	}
}

// checkForms asserts what must hold for any record, damaged or not.
func checkForms(t *testing.T, rec *Record) {
	t.Helper()
	if b := rec.AppendJSON(nil); !json.Valid(b) {
		t.Errorf("invalid JSON: %q", b)
	}
	b := rec.AppendXML(nil)
	d := xml.NewDecoder(bytes.NewReader(b))
	for {
		_, err := d.Token()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			// encoding/xml knows the names of XML 1.0's fourth edition only.
			if !strings.Contains(err.Error(), "invalid XML name") && !nonASCIIName(rec) {
				t.Errorf("XML: %v: %q", err, b)
			}
			return
		}
	}
}

func nonASCIIName(rec *Record) bool {
	for _, tok := range rec.chunk.tokens() {
		for i := range len(tok.name) {
			if tok.name[i] >= 0x80 {
				return true
			}
		}
	}
	return false
}

func TestFileTime(t *testing.T) {
	for range 20000 {
		ft := FileTime(rand.Uint64N(1 << 63))
		got, ok := ParseFileTime([]byte(ft.String()))
		if ft.Time().Year() <= 99999 && (!ok || got != ft) {
			t.Fatalf("%d prints as %v and reads as %d %v", ft, ft, got, ok)
		}
		if want := ft.Time().Format("2006-01-02T15:04:05.0000000Z"); want != ft.String() {
			t.Fatalf("%d: %v, want %s", ft, ft, want)
		}
	}
	if ns, ok := FileTime(testTime).UnixNano(); !ok || ns != FileTime(testTime).Time().UnixNano() {
		t.Errorf("UnixNano %d %v", ns, ok)
	}
	if _, ok := FileTime(1 << 63).UnixNano(); ok {
		t.Error("a time beyond int64 has nanoseconds")
	}
	if ft, ok := ParseFileTime([]byte("2021-12-23T08:45:55.123456700Z")); !ok || ft != testTime {
		t.Errorf("nine decimals: %d %v", ft, ok)
	}
	for _, s := range []string{"", "Z", "2021-12-23T08:45:55.123456701Z", "2021-13-01T00:00:00Z", "2021-02-29T00:00:00Z", "2021-12-23 08:45:55Z", "2021-12-23T08:45:55.Z", "2021-12-23T24:00:00Z", "1600-01-01T00:00:00Z", "2021-12-23T08:45:55"} {
		if _, ok := ParseFileTime([]byte(s)); ok {
			t.Errorf("%q is accepted", s)
		}
	}
}
