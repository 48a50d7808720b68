package main

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/counterseal/counterseal/internal/approval"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/evidence"
)

func newEvidence(env *environment) *cobra.Command {
	cmd := &cobra.Command{Use: "evidence", Short: "Originals sealed to two officers: ask for one, read one", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(newEvidenceUnlock(env), newEvidenceRead(env))
	return cmd
}

func newEvidenceUnlock(env *environment) *cobra.Command {
	var f configFlags
	var segment, number, purpose, requester, out string
	var grant time.Duration
	cmd := &cobra.Command{Use: "unlock --segment ID --case C --purpose TEXT --requester NAME -o FILE", Short: "Ask two officers to open the originals of a segment", Args: cobra.NoArgs,
		Long: "Unlock writes a request and opens nothing: this server cannot. Both officers sign it on\n" +
			"their machines (officer sign), oversight opens its layer, then investigation its own\n" +
			"(officer open). What comes out opens a copy of the segment file (evidence read).",
		RunE: func(*cobra.Command, []string) error {
			id, err := uuid.Parse(segment)
			if err != nil || out == "" {
				return usage("--segment is the id of a segment of originals and -o the file of the request")
			}
			cfg, err := f.load()
			if err != nil {
				return err
			}
			k, err := evidence.ReadSealedKey(cfg.Data, id)
			if err != nil {
				return err
			}
			org, err := uuid.Parse(k.Org())
			if err != nil {
				return err
			}
			s, statement, err := approval.New(approval.Ask{
				Action: "evidence.unlock", Case: number, Purpose: purpose, Requester: requester, Objects: k.Objects(), Org: org, Grant: grant,
			}, time.Now())
			if err != nil {
				return usage("%v", err)
			}
			b64 := base64.RawURLEncoding.EncodeToString
			b, err := approval.Canonical(unlockRequest{Card: b64(k.Card), Head: b64(k.Head), Statement: string(statement), V: 1})
			if err != nil {
				return err
			}
			if err := writeNew(out, b); err != nil {
				return err
			}
			for _, line := range strings.Split(strings.TrimSuffix(s.Words(), "\n"), "\n") {
				fmt.Fprintln(env.stdout, event.Printable(line))
			}
			return nil
		}}
	f.add(cmd)
	cmd.Flags().StringVar(&segment, "segment", "", "`id` of the segment")
	cmd.Flags().StringVar(&number, "case", "", "`number` of the case")
	cmd.Flags().StringVar(&purpose, "purpose", "", "why, in a sentence")
	cmd.Flags().StringVar(&requester, "requester", "", "`name` of who asks")
	cmd.Flags().DurationVar(&grant, "for", 8*time.Hour, "how long the key may be used")
	cmd.Flags().StringVarP(&out, "output", "o", "", "`file` of the request, which must not be there")
	return cmd
}

func newEvidenceRead(env *environment) *cobra.Command {
	var key string
	cmd := &cobra.Command{Use: "read SEGMENT --key FILE", Short: "Print the originals of a segment file with an unlocked key, as lines of JSON", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if key == "" {
				return usage("--key is the file that officer open wrote")
			}
			b, err := os.ReadFile(key)
			if err != nil {
				return err
			}
			defer clear(b)
			k, err := evidence.ParseKeyFile(b, time.Now())
			if errors.Is(err, evidence.ErrOver) {
				return &exitError{code: exitRefused, err: err}
			}
			if err != nil {
				return err
			}
			r, err := evidence.OpenSegmentWithKey(args[0], k, time.Now)
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
