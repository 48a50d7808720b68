package evtx

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
)

// forms is everything that a record gives, in one text.
func forms(rec *Record) string {
	var b strings.Builder
	created, ok := rec.Created()
	fmt.Fprintln(&b, rec.ID, rec.Written, rec.Offset, rec.State, rec.Err(), created, ok)
	for _, f := range rec.Fields() {
		fmt.Fprintf(&b, "%q %d %d %v %q\n", f.Name, f.Kind, f.Type, f.Lossy, f.Value)
	}
	fmt.Fprintf(&b, "%s\n%s\n", rec.AppendJSON(nil), rec.AppendXML(nil))
	return b.String()
}

// byTokens is forms by the way that foresees nothing.
func byTokens(t *testing.T, rec *Record) string {
	t.Helper()
	c := rec.chunk
	c.isQuick, c.toked, rec.collected = false, true, false
	c.toks = c.toks[:0]
	c.steps, c.spent = 0, 0
	if _, err := c.fragment(int(rec.Offset-c.Offset)+24, c.end, 0); err != nil {
		t.Errorf("record %d took the quick way, by tokens: %v", rec.ID, err)
	}
	return forms(rec)
}

// same holds the two ways against each other, if the record took the quick one.
func same(t *testing.T, rec *Record) (quick bool) {
	t.Helper()
	if !rec.chunk.isQuick {
		return false
	}
	got := forms(rec)
	if want := byTokens(t, rec); got != want {
		t.Errorf("record %d: the quick way gives\n%s\nthe way by tokens\n%s", rec.ID, got, want)
	}
	return true
}

// TestQuickWay reads every real record both ways.
func TestQuickWay(t *testing.T) {
	records, quick := 0, 0
	for _, path := range packFiles(t) {
		r, _ := openFile(t, path)
		err := r.Records(func(rec *Record) error {
			records++
			if same(t, rec) {
				quick++
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if quick*100 < records*95 {
		t.Errorf("%d of %d records take the quick way", quick, records)
	}
}

// TestShapes builds the shapes that decide between the two ways, and those of
// which only one is real. Each is read both ways.
func TestShapes(t *testing.T) {
	str := func(s string) testValue { return testValue{TypeString, utf16le(s)} }
	null := testValue{TypeNull, le16(0)}
	list := testValue{TypeString | arrayBit, utf16le("one\x00<two>\x00")}
	for _, x := range []struct {
		name   string
		quick  bool
		data   func(w *builder) []func() // inside of EventData
		values []testValue
	}{
		{"values", true, func(w *builder) []func() {
			return []func(){func() { w.element(true, "Data", []attr{{"Name", w.text("A B")}}, w.sub(4)) }}
		}, []testValue{str("a<b>\"&\t\r\n\x01\uffff é😀")}},
		{"null", true, func(w *builder) []func() {
			return []func(){func() { w.element(true, "Data", nil, w.sub(4)) }, func() { w.element(true, "Data", nil, w.optional(4)) }}
		}, []testValue{null}},
		{"array", true, func(w *builder) []func() {
			return []func(){func() { w.element(true, "Data", []attr{{"Name", w.text("L")}}, w.sub(4)) }, func() { w.element(true, "Data", nil, w.optional(5)) }}
		}, []testValue{list, {TypeUint32 | arrayBit, nil}}},
		{"array under an attribute", false, func(w *builder) []func() {
			return []func(){func() { w.element(true, "Data", []attr{{"Kind", w.text("k")}}, w.sub(4)) }}
		}, []testValue{list}},
		{"array in an attribute", false, func(w *builder) []func() {
			return []func(){func() { w.element(true, "Data", []attr{{"Kind", w.sub(4)}}) }}
		}, []testValue{list}},
		{"array of many", false, func(w *builder) []func() {
			return []func(){func() { w.element(true, "Data", nil, w.sub(4)) }}
		}, []testValue{{TypeUint8 | arrayBit, make([]byte, maxItems+1)}}},
		{"mixed", false, func(w *builder) []func() {
			return []func(){func() { w.element(true, "Data", nil, w.text("x"), w.sub(4)) }}
		}, []testValue{str("y")}},
		{"two in one", false, func(w *builder) []func() {
			return []func(){func() { w.element(true, "Data", nil, w.sub(4), w.sub(4)) }}
		}, []testValue{str("y")}},
		{"name by a value", false, func(w *builder) []func() {
			return []func(){func() { w.element(true, "Data", []attr{{"Name", w.sub(4)}}, w.sub(5)) }}
		}, []testValue{str("N"), str("v")}},
		{"attributes", true, func(w *builder) []func() {
			return []func(){
				func() { w.element(true, "E", []attr{{"xmlns:p", w.text("u")}, {"a", w.optional(4)}, {"b", w.sub(5)}}) },
				func() { w.element(true, "E", []attr{{"a", w.optional(4)}}) },
				func() { w.element(true, "E", []attr{{"a", w.optional(5)}, {"c", w.text("l&")}}, w.optional(5)) },
				func() { w.element(true, "E", []attr{{"a", w.optional(5)}}, w.optional(4)) },
			}
		}, []testValue{null, str("v\"")}},
		{"children left out", true, func(w *builder) []func() {
			return []func(){
				func() {
					w.element(true, "P", nil, func() { w.element(true, "c", nil, w.optional(4)) }, func() { w.element(true, "d", nil, w.optional(4)) })
				},
				func() {
					w.element(true, "P", []attr{{"a", w.optional(4)}}, func() { w.element(true, "c", nil, w.optional(4)) })
				},
				func() {
					w.element(true, "P", nil, func() { w.element(true, "c", nil, w.optional(4)) }, func() { w.element(true, "d", nil, w.optional(5)) })
				},
				func() {
					w.element(true, "P", nil, func() { w.element(true, "c", nil, w.optional(4)) }, func() { w.element(true, "d", nil) })
				},
			}
		}, []testValue{null, str("v")}},
		{"names of System", true, func(w *builder) []func() {
			return []func(){
				func() { w.element(true, "Data", []attr{{"Name", w.text("Channel")}}, w.sub(4)) },
				func() { w.element(true, "Data", []attr{{"Name", w.text("EventID_Qualifiers")}}, w.sub(4)) },
			}
		}, []testValue{str("v")}},
		{"all types", true, func(w *builder) []func() {
			var out []func()
			for i := range 8 {
				out = append(out, func() { w.element(true, "Data", nil, w.sub(4+i)) })
			}
			return out
		}, []testValue{
			{TypeAnsiString, []byte("a\x80<\x00")}, {TypeSize, le64(5)}, {TypeSID, []byte{1, 1, 0, 0, 0, 0, 0, 5, 18, 0, 0, 0}}, {TypeGUID, testGUID[:]},
			{TypeFloat64, le64(0x7ff0000000000000)}, {TypeInt64, le64(1 << 63)}, {TypeHex32, le32(99999)}, {TypeUint32, le32(100000)},
		}},
		{"wrong width", false, func(w *builder) []func() {
			return []func(){func() { w.element(true, "Data", nil, w.sub(4)) }}
		}, []testValue{{TypeUint32, le16(1)}}},
		{"wrong width of an unused value", false, func(w *builder) []func() {
			return []func(){func() { w.element(true, "Data", nil, w.sub(4)) }}
		}, []testValue{str("v"), {TypeUint32, le16(1)}}},
		{"odd text", false, func(w *builder) []func() {
			return []func(){func() { w.element(true, "Data", nil, w.sub(4)) }}
		}, []testValue{{TypeString, []byte("abc")}}},
	} {
		w := newBuilder(1)
		w.record(testTime, func() {
			w.instance(0, w.eventTemplate(func() {
				for _, f := range x.data(w) {
					f()
				}
			}), append(append([]testValue{}, testSystem...), x.values...)...)
		})
		var c Chunk
		c.Load(0, firstChunk, w.chunk())
		_ = c.Records(func(rec *Record) error {
			if got := same(t, rec); got != x.quick {
				t.Errorf("%s: quick way %v, want %v (%v)", x.name, got, x.quick, rec.Err())
			}
			checkForms(t, rec)
			return nil
		})
	}
}

// TestForwarded reads an event as a collector stores it: the sections after
// System are BinXML values, and RenderingInfo holds the texts of the sender.
func TestForwarded(t *testing.T) {
	text := func(w *builder, name, s string) func() {
		return func() { w.element(true, name, nil, w.text(s)) }
	}
	w := newBuilder(1)
	w.record(testTime, func() {
		w.bytes(0x0c, 1)
		w.b = append(w.b, testGUID[:4]...)
		w.u32(len(w.b) + 4)
		w.u32(0)
		w.b = append(w.b, testGUID[:]...)
		w.sized(func() {
			w.bytes(0x0f, 1, 1, 0)
			w.element(true, "Event", []attr{{"xmlns", w.text("urn:e")}},
				func() {
					w.element(true, "System", nil, func() { w.element(true, "EventID", nil, w.sub(0)) },
						text(w, "Level", "0"), text(w, "Channel", "Security"),
						func() { w.element(true, "TimeCreated", []attr{{"SystemTime", w.sub(1)}}) })
				},
				w.optional(2), w.optional(3), w.optional(4))
			w.bytes(0)
		})
		w.u32(5)
		at := len(w.b)
		w.b = append(w.b, make([]byte, 20)...)
		put := func(i int, typ ValueType, body func()) {
			from := len(w.b)
			body()
			binary.LittleEndian.PutUint16(w.b[at+4*i:], uint16(len(w.b)-from))
			w.b[at+4*i+2] = byte(typ)
		}
		raw := func(b []byte) func() { return func() { w.b = append(w.b, b...) } }
		put(0, TypeUint16, raw(le16(4624)))
		put(1, TypeFileTime, raw(le64(testTime)))
		section := func(guid byte, def func(), values ...testValue) func() {
			return func() {
				w.bytes(0x0f, 1, 1, 0, 0x0c, 1, guid, 2, 3, 4)
				w.u32(len(w.b) + 4)
				w.u32(0)
				w.b = append(w.b, guid, 2, 3, 4)
				w.b = append(w.b, testGUID[4:]...)
				w.sized(func() {
					w.bytes(0x0f, 1, 1, 0)
					def()
					w.bytes(0)
				})
				w.u32(len(values))
				for _, v := range values {
					w.u16(len(v.data))
					w.bytes(byte(v.typ), 0)
				}
				for _, v := range values {
					w.b = append(w.b, v.data...)
				}
				w.bytes(0)
			}
		}
		put(2, TypeBinXML, section(7, func() {
			w.element(true, "EventData", nil, func() { w.element(true, "Data", []attr{{"Name", w.text("User")}}, w.sub(0)) })
		}, testValue{TypeString, utf16le("anna")}))
		put(3, TypeNull, func() {})
		put(4, TypeBinXML, section(9, func() {
			w.element(true, "RenderingInfo", []attr{{"Culture", w.text("en-US")}}, func() { w.element(true, "Message", nil, w.sub(0)) },
				text(w, "Level", "Information"), text(w, "Channel", "Security"), text(w, "Opcode", "Info"),
				func() {
					w.element(true, "Keywords", nil, text(w, "Keyword", "Audit Success"), text(w, "Keyword", "Classic"))
				})
		}, testValue{TypeString, utf16le("An account was logged on.")}))
	})
	var c Chunk
	c.Load(0, firstChunk, w.chunk())
	n := 0
	_ = c.Records(func(rec *Record) error {
		n++
		if err := rec.Err(); err != nil || !c.isQuick {
			t.Errorf("quick way %v: %v", c.isQuick, err)
		}
		got := string(rec.AppendJSON(nil))
		want := `{"EventID":4624,"Level":"0","Channel":"Security","TimeCreated_SystemTime":"2021-12-23T08:45:55.1234567Z","User":"anna",` +
			`"RenderingInfo_Culture":"en-US","Message":"An account was logged on.","RenderingInfo.Level":"Information","RenderingInfo.Channel":"Security",` +
			`"Opcode":"Info","Keyword":["Audit Success","Classic"]}`
		if got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
		same(t, rec)
		return nil
	})
	if n != 1 {
		t.Errorf("%d records", n)
	}
}

// named is a chunk whose template holds one named field. Chunks of names of equal
// length differ in the characters and the hash of that name alone.
func named(element, data, value string) []byte {
	w := newBuilder(1)
	w.record(testTime, func() { w.element(false, element, nil) }) // the name stands before the template
	w.record(testTime, func() {
		w.instance(0, w.eventTemplate(func() {
			w.element(true, element, nil, w.sub(4))
			w.element(true, "Data", []attr{{"Name", w.text(data)}}, w.sub(4))
		}), append(append([]testValue{}, testSystem...), testValue{TypeString, utf16le(value)})...)
	})
	delete(w.names, element)
	w.record(testTime, func() { w.element(false, element, nil) }) // and once more behind it
	return w.chunk()
}

func readWith(h *Cache, chunk []byte) string {
	var c Chunk
	c.Use(h)
	c.Load(0, firstChunk, chunk)
	var b strings.Builder
	_ = c.Records(func(rec *Record) error { b.WriteString(forms(rec)); return nil })
	return b.String()
}

// TestPoison lets hostile files reuse the GUID, the size and nearly every byte of
// a good file's definition. Whatever was read before through the same cache, each
// file reads as it does alone.
func TestPoison(t *testing.T) {
	good := named("Good", "User", "x")
	files := [][]byte{good, named("Evil", "User", "x"), named("Good", "Usar", "x"), named("Good", "User", "y")}
	// The name that the template refers to is another one of the same length; the
	// bytes of the definition are the same.
	swapped := bytes.Clone(good)
	at := bytes.Index(swapped, utf16le("Good"))
	copy(swapped[at:], utf16le("Evil"))
	binary.LittleEndian.PutUint16(swapped[at-4:], nameHash(utf16le("Evil")))
	files = append(files, seal(swapped))
	// A name with a wrong hash, though the definition is known.
	damaged := bytes.Clone(good)
	copy(damaged[at:], utf16le("Evil"))
	files = append(files, seal(damaged))
	// The definition's offset of a name points forward, to the same name.
	forward := bytes.Clone(good)
	ref := bytes.LastIndex(forward, le32(uint32(at-8)))
	later := bytes.LastIndex(forward, utf16le("Good")) - 8
	if ref < at || later < ref {
		t.Fatalf("name at %d, referred to at %d, again at %d", at-8, ref, later)
	}
	binary.LittleEndian.PutUint32(forward[ref:], uint32(later))
	files = append(files, seal(forward))
	// A record that says another template id than its definition has.
	id := bytes.Clone(good)
	i := bytes.Index(id, append([]byte{0x0c, 1}, testGUID[:4]...))
	id[i+2]++
	files = append(files, seal(id))

	alone := make([]string, len(files))
	different := map[string]bool{}
	for i, b := range files {
		alone[i] = readWith(new(Cache), b)
		different[alone[i]] = true
	}
	if len(different) < 7 {
		t.Fatalf("only %d different readings", len(different))
	}
	for first := range files {
		h := new(Cache)
		for k := range files {
			i := (first + k) % len(files)
			if got := readWith(h, files[i]); got != alone[i] {
				t.Errorf("file %d after %d: got\n%s\nalone\n%s", i, first, got, alone[i])
			}
		}
	}
}

// TestCacheHits shows that equal definitions are compiled once, wherever their
// names stand, and that a cache is bounded.
func TestCacheHits(t *testing.T) {
	h := new(Cache)
	one, _ := threeRecords(1)
	w := newBuilder(1)
	w.record(testTime, func() { w.element(false, "Padding", nil) }) // moves everything behind it
	w.record(testTime, func() {
		w.instance(0, w.eventTemplate(func() {
			w.element(true, "Data", []attr{{"Name", w.text("User")}}, w.sub(4))
		}), append(append([]testValue{}, testSystem...), testValue{TypeString, utf16le("v")})...)
	})
	readWith(h, one)
	readWith(h, w.chunk())
	if n := held(h); n != 1 {
		t.Errorf("%d definitions for one", n)
	}
	for i := range 200 {
		readWith(h, named("Good", fmt.Sprintf("N%03d", i), "v"))
	}
	if n := held(h); n > 2*(maxVariants+1) {
		t.Errorf("%d definitions of one GUID", n)
	}
	// Definitions of many GUIDs: memory stays below the bound, also as measured.
	big := func(i int) []byte {
		w := newBuilder(1)
		w.record(testTime, func() {
			at := w.instance(0, func() {
				w.element(true, "Event", nil, func() {
					for k := range 400 {
						w.element(true, "E", []attr{{"a", w.text("v")}}, w.sub(k))
					}
				})
			}, make([]testValue, 400)...)
			binary.LittleEndian.PutUint32(w.b[at+4:], uint32(i)) // the GUID
			binary.LittleEndian.PutUint32(w.b[at-8:], uint32(i)) // and the id
		})
		return w.chunk()
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	var c Chunk
	c.Use(h)
	for i := range 600 {
		c.Load(0, firstChunk, big(i))
		_ = c.Records(func(rec *Record) error {
			if !rec.State.OK() {
				t.Fatal(rec.Err())
			}
			rec.Fields()
			return nil
		})
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if used := int64(after.HeapAlloc) - int64(before.HeapAlloc); used > cacheBytes+2<<20 {
		t.Errorf("a cache of at most %d bytes takes %d, of %d definitions", cacheBytes, used, held(h))
	} else {
		t.Logf("%d bytes for %d definitions, %d by its own estimate in the young half", used, held(h), h.used)
	}
	if n := held(h); n == 600 || n < 10 {
		t.Errorf("%d definitions of 600 are held", n)
	}
	runtime.KeepAlive(h)
}

func held(h *Cache) (n int) {
	for _, m := range []map[cacheKey][]*definition{h.young, h.old} {
		for _, list := range m {
			n += len(list)
		}
	}
	return n
}

// TestSharedCache reads different files through one cache on many goroutines.
func TestSharedCache(t *testing.T) {
	var files [][]byte
	var alone []string
	for i := range 12 {
		files = append(files, named("Good", fmt.Sprintf("N%d", i%6), "v"))
		alone = append(alone, readWith(new(Cache), files[i]))
	}
	h := new(Cache)
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for k := range 200 {
				i := (g*5 + k) % len(files)
				if readWith(h, files[i]) != alone[i] {
					t.Errorf("file %d reads differently", i)
					return
				}
			}
		})
	}
	wg.Wait()
}

// TestChunkBudget overlaps definitions so that a chunk asks for more operations
// than it may have. A definition that the cache knows from elsewhere is refused
// behind them as it is without the cache.
func TestChunkBudget(t *testing.T) {
	good := func(w *builder) {
		w.record(testTime, func() {
			at := w.instance(0, func() { w.element(true, "Event", nil, w.sub(0)) }, testValue{TypeString, utf16le("v")})
			binary.LittleEndian.PutUint32(w.b[at+4:], 77)
			binary.LittleEndian.PutUint32(w.b[at-8:], 77)
		})
	}
	w := newBuilder(1)
	var inside []int
	w.record(testTime, func() {
		w.instance(0, func() {
			w.element(true, "Event", nil, func() {
				for range 4 { // headers of further definitions, as the data of processing instructions
					w.bytes(0x0a)
					w.name("pi")
					w.bytes(0x0b)
					w.u16((definitionHeader + 4) / 2)
					inside = append(inside, len(w.b))
					w.u32(0)
					w.b = append(w.b, testGUID[:]...)
					w.u32(55000)
					w.bytes(0x0f, 1, 1, 0)
				}
				w.element(true, "Many", nil, func() {
					for range 17000 {
						w.bytes(0x48, 'a', 0)
					}
				})
			})
		})
	})
	for _, at := range inside {
		w.record(testTime, func() { w.instance(at, nil) })
	}
	good(w)
	chunk := w.chunk()
	alone := readWith(new(Cache), chunk)
	if n := strings.Count(alone, "too much BinXML for one chunk"); n != 3 {
		t.Fatalf("%d records are refused, want 3", n)
	}
	h := new(Cache)
	elsewhere := newBuilder(1)
	elsewhere.record(testTime, func() { elsewhere.element(false, "Event", nil) })
	good(elsewhere)
	readWith(h, elsewhere.chunk())
	for range 2 {
		if got := readWith(h, chunk); got != alone {
			t.Error("reading through a cache differs")
		}
	}
}

// TestAllocations reads a chunk again and again: nothing is left to allocate.
func TestAllocations(t *testing.T) {
	chunk, _ := threeRecords(1)
	var c Chunk
	var buf []byte
	n := testing.AllocsPerRun(100, func() {
		c.Load(0, firstChunk, chunk)
		_ = c.Records(func(rec *Record) error {
			rec.Fields()
			rec.Created()
			buf = rec.AppendXML(rec.AppendJSON(buf[:0]))
			return nil
		})
	})
	if n != 0 {
		t.Errorf("%.2f allocations for three records", n)
	}
}
