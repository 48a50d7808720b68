// Package evtx reads Windows event log files (.evtx): every event as named,
// typed values, as JSON and as XML, fast, with every check that the format
// allows, and without trusting a byte.
//
// # A first look
//
//	f, _ := os.Open("Security.evtx")
//	st, _ := f.Stat()
//	r, err := evtx.NewReader(f, st.Size())
//	...
//	err = r.Records(func(rec *evtx.Record) error {
//		for _, field := range rec.Fields() {
//			fmt.Printf("%s = %s\n", field.Name, field.Value)
//		}
//		return nil
//	})
//
// # The format in short
//
// A file is a header and chunks of 64 KiB. A chunk has a header with two
// checksums, and records one behind the other. A record has an id, the time at
// which it was written, and its event in BinXML, a binary form of XML. Most
// records are a reference to a template and the values for its gaps; templates
// and names stand once in each chunk, where they are first used. So a chunk can be
// read alone and a record cannot.
//
// [Reader] stands for a file, [Chunk] for a chunk, [Record] for a record.
// [Reader.Records] walks all of them; [Reader.ReadChunk] reads any one chunk, for
// those who read on several cores; [Chunk.Load] takes a chunk out of a stream,
// for those who have no file. Sizes and offsets are in bytes and of 64 bits: the
// size of a file does not matter.
//
// # What comes out
//
// [Record.Fields] is the view that Sigma rules are written for: EventID, Channel,
// Provider_Name, CommandLine. [Record.AppendJSON] is the same as one flat object.
// [Record.AppendXML] is the event as Windows shows it, structure and all.
//
// An event that another machine forwarded has a section RenderingInfo with the
// texts of its sender. Its elements are fields as well: Message, and, because
// System has one of that name, RenderingInfo.Level.
//
// Values are text as Windows writes it:
//
//   - GUIDs with braces and capitals, SIDs as S-1-5-18, binary as capital
//     hexadecimal digits, booleans as true and false;
//   - hexadecimal types as 0x17, without padding, all other integers decimal;
//   - times in RFC 3339, UTC, with seven decimals. They count ticks of 100 ns
//     since 1601-01-01 UTC; [FileTime] keeps the count, and no tick is lost on the
//     way to text or time.Time;
//   - text as UTF-8, without the NULs at its end. Half a surrogate pair becomes
//     U+FFFD. Text in a code page, which the file does not name, is read as
//     Windows-1252. Both set [Field.Lossy].
//
// NULL is no field; empty text is a field without characters; an array is a
// field for each item.
//
// Each record has two times, [Record.Written] and [Record.Created], and two
// numbers, [Record.ID] and the field EventRecordID. They differ more often than
// not: logs are renumbered when they are exported. To cite an event, give the
// file's hash, the chunk, the offset and both numbers.
//
// # What is checked, and errors
//
// The CRC32 of file header, chunk header and record area; the second copy of a
// record's size; the id of a template against its GUID; the hash of every name
// that is used; every offset, which may only point back; the exact size of every
// element; the width of every value.
//
// Only three things end a walk: an error of the caller's io.ReaderAt, wrapped
// with chunk and offset; an error of the caller's function, returned as it is;
// and, before the walk begins, [ErrNotEVTX] or [ErrVersion].
//
// All else is damage, and damage is told where it is and read around: a bit in
// [FileHeader.CRCWrong], in [Chunk.State] or in [Record.State], and a
// [DamageError] from [Record.Err] that names chunk, record and offset and holds no
// value of the event. A bad record costs itself. Bytes inside the record area
// that hold no record are handed out as one of state [RecordUnreadable], so that
// no byte is dropped unseen. A checksum that does not hold is a finding, not a
// reason to stop: its records are handed out, and the chunk says what is wrong.
//
// Records behind a chunk's free-space offset are left over from an earlier use of
// the place. They are not read: their names and templates are mostly overwritten,
// and reading them shows wrong events as evidence. Records come in the order of
// the file. A log that has wrapped does not keep them in order of their ids;
// sorting is the caller's.
//
// # Hostile files
//
// Input causes no panic, no endless work and no memory without bound. Elements
// may be 16 deep, a template may have 4,096 values, one record may expand to
// 2 MiB of text and 262,144 operations, one chunk to 65,536 compiled operations.
// Each is far above what Windows writes; more is damage. Memory is one chunk of
// 64 KiB, one record, and the cache.
//
// # Speed
//
// Templates are compiled once for a [Cache], not for each chunk. Give one cache
// to all readers ([Reader.Use], [Chunk.Use]). Values are checked when a record is
// read, and become text only when Fields, AppendJSON or AppendXML asks for them.
// In steady state a record costs no allocation.
//
// # Lifetime and concurrency
//
// A record, its fields and their values are valid until the function that got the
// record returns, and are the reader's memory: copy what is to stay. Names of
// fields stay. A [Cache] is safe for concurrent use, and so is a Reader; a Chunk
// and its records belong to one goroutine at a time.
//
// The package imports nothing outside the standard library and does no input or
// output but the ReadAt of its caller.
//
// # Sources
//
// BinXML, its tokens and its types: [MS-EVEN6], the EventLog Remoting Protocol
// Version 6.0, section 2.2.12 and following. The layout of file, chunk and record,
// which Microsoft does not publish: the documentation of libevtx, "Windows XML
// Event Log (EVTX) format". Where both are silent, what 17,159 records of real
// logs show; the tests count it.
//
// [MS-EVEN6]: https://learn.microsoft.com/openspecs/windows_protocols/ms-even6
package evtx
