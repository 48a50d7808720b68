package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/evidence"
)

func newEvidence(env *environment) *cobra.Command {
	cmd := &cobra.Command{Use: "evidence", Short: "Originals sealed to two officers: ask for some, read them", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(newEvidenceUnlock(env), newEvidenceApprove(env), newEvidenceRead(env))
	return cmd
}

func newEvidenceRead(env *environment) *cobra.Command {
	var key string
	cmd := &cobra.Command{Use: "read SEGMENT --key FILE", Short: "Print the originals of a segment file with an unlocked key, as lines of JSON", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			r, _, err := openUnlocked(args[0], key)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, r.Close()) }()
			enc := json.NewEncoder(env.stdout)
			enc.SetEscapeHTML(false)
			return r.Read(cmd.Context(), func(n uint64, rec []byte) error {
				line := struct {
					Ordinal uint64 `json:"ordinal"`
					Text    string `json:"text,omitempty"`
					Bytes   []byte `json:"bytes,omitempty"` // where it is no UTF-8
				}{Ordinal: n}
				if len(rec) < 2 || rec[0] != 1 || event.Type(rec[1]) != event.TypeOriginal {
					return fmt.Errorf("record %d is not an original", n)
				}
				if raw := rec[2:]; utf8.Valid(raw) {
					line.Text = event.Printable(string(raw))
				} else {
					line.Bytes = raw
				}
				return enc.Encode(line)
			})
		}}
	cmd.Flags().StringVar(&key, "key", "", "`file` of the unlocked key")
	return cmd
}

// openUnlocked opens a segment file with a key file, while its time lasts.
func openUnlocked(segment, key string) (*evidence.SegmentReader, *evidence.UnlockedKey, error) {
	if key == "" {
		return nil, nil, usage("--key is missing: the file that counterseal officer open wrote")
	}
	if err := there([]string{segment}); err != nil {
		return nil, nil, err
	}
	b, err := readFile(key, "--key", "counterseal officer open writes it, after two officers approved")
	if err != nil {
		return nil, nil, err
	}
	defer clear(b)
	k, err := keyFor(b, segment)
	if errors.Is(err, evidence.ErrOver) {
		return nil, nil, &exitError{code: exitRefused, err: err}
	}
	if err != nil {
		return nil, nil, err
	}
	r, err := evidence.OpenSegmentWithKey(segment, k, time.Now)
	return r, k, err
}

// keyFor picks the key of a segment file out of a key file, which has a line for each
// segment.
func keyFor(file []byte, segment string) (*evidence.UnlockedKey, error) {
	name := strings.TrimSuffix(filepath.Base(segment), filepath.Ext(segment))
	lines := bytes.SplitAfter(file, []byte("\n"))
	var first *evidence.UnlockedKey
	for _, line := range lines {
		if len(line) == 0 {
			continue
		}
		k, err := evidence.ParseKeyFile(line, time.Now())
		if err != nil {
			return nil, err
		}
		if k.Segment.String() == name {
			return k, nil
		}
		if first == nil {
			first = k
		}
	}
	if first == nil {
		return nil, errors.New("the key file is empty")
	}
	return first, nil // of a renamed file; the reader compares
}
