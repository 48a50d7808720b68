package evtx_test

import (
	"bytes"
	"fmt"
	"io"
	"log"

	"github.com/counterseal/counterseal/evtx"
)

// Print who each event is about, and what was damaged. A file of os.Open serves
// as well as the bytes here.
func Example() {
	data := evtx.SampleLog() // stands for a file
	r, err := evtx.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		log.Fatal(err)
	}
	err = r.Records(func(rec *evtx.Record) error {
		if err := rec.Err(); err != nil {
			fmt.Println(err)
		}
		for _, field := range rec.Fields() {
			if field.Name == "User" {
				fmt.Printf("%v %d %s\n", rec.Written, rec.ID, field.Value)
			}
		}
		return nil
	})
	if err != nil {
		log.Fatal(err)
	}
	// Output:
	// 2021-12-23T08:45:55.1234567Z 1 usera
	// 2021-12-23T08:45:55.1234568Z 2 userb
	// 2021-12-23T08:45:55.1234569Z 3 userc
}

// One cache serves all files, one chunk is all the memory.
func ExampleReader_Use() {
	files := [][]byte{evtx.SampleLog(), evtx.SampleLog()}
	var templates evtx.Cache
	var chunk evtx.Chunk
	events := 0
	for _, data := range files {
		r, err := evtx.NewReader(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			log.Fatal(err)
		}
		r.Use(&templates)
		for i := range r.NumChunks() {
			if err := r.ReadChunk(i, &chunk); err != nil {
				log.Fatal(err)
			}
			if chunk.State.Damaged() {
				fmt.Printf("chunk %d at %d: %v\n", i, chunk.Offset, chunk.State)
			}
			_ = chunk.Records(func(*evtx.Record) error { events++; return nil })
		}
	}
	fmt.Println(events, "events")
	// Output: 6 events
}

// Read a log of any length from a stream that cannot go back.
func ExampleChunk_Load() {
	var stream io.Reader = bytes.NewReader(evtx.SampleLog())
	head := make([]byte, 4096)
	if _, err := io.ReadFull(stream, head); err != nil {
		log.Fatal(err)
	}
	r, err := evtx.NewReader(bytes.NewReader(head), int64(len(head)))
	if err != nil {
		log.Fatal(err)
	}
	at := r.Header().ChunksAt // 4096 for all that Windows writes
	var chunk evtx.Chunk
	buf := make([]byte, evtx.ChunkSize)
	for i := 0; ; i++ {
		n, err := io.ReadFull(stream, buf)
		if n > 0 {
			chunk.Load(i, at+int64(i)*evtx.ChunkSize, buf[:n])
			_ = chunk.Records(func(rec *evtx.Record) error {
				fmt.Println(rec.Offset, rec.State)
				return nil
			})
		}
		if err != nil {
			break // io.EOF, or io.ErrUnexpectedEOF where the last chunk is cut
		}
	}
	// Output:
	// 4608 ok
	// 5480 ok
	// 5592 ok
}

func ExampleRecord_AppendJSON() {
	data := evtx.SampleLog()
	r, err := evtx.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		log.Fatal(err)
	}
	stop := fmt.Errorf("one is enough")
	var line []byte // used again for each record
	_ = r.Records(func(rec *evtx.Record) error {
		line = rec.AppendJSON(line[:0])
		fmt.Printf("%s\n", line)
		return stop
	})
	// Output: {"Provider_Name":"Test & Co","Provider_Guid":"{04030201-0605-0807-090A-0B0C0D0E0F10}","EventID":4624,"Version":"7","TimeCreated_SystemTime":"2021-12-23T08:45:55.1234567Z","Channel":"Security","User":"usera"}
}
