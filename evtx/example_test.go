package evtx_test

import (
	"fmt"
	"log"
	"os"

	"github.com/counterseal/counterseal/evtx"
)

// Print the command line of every started process, and what was damaged.
func Example() {
	f, err := os.Open("Security.evtx")
	if err != nil {
		log.Fatal(err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		log.Fatal(err)
	}
	r, err := evtx.NewReader(f, st.Size())
	if err != nil {
		log.Fatal(err)
	}
	err = r.Records(func(rec *evtx.Record) error {
		if err := rec.Err(); err != nil {
			fmt.Println(err)
		}
		for _, field := range rec.Fields() {
			if field.Name == "CommandLine" {
				fmt.Printf("%v %d %s\n", rec.Written, rec.ID, field.Value)
			}
		}
		return nil
	})
	if err != nil {
		log.Fatal(err)
	}
}
