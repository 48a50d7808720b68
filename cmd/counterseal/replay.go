package main

import (
	"bufio"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/counterseal/counterseal/internal/attest"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/evidence"
	"github.com/counterseal/counterseal/internal/pipeline"
	"github.com/counterseal/counterseal/internal/web"
)

// replayAsk brings unlocked originals to the server, which has the keys of tokens. The
// key of the segment stays where it is.
type replayAsk struct {
	Compartment string            `json:"compartment"`
	Segment     string            `json:"segment"`
	Context     string            `json:"context,omitempty"`
	Originals   map[uint64][]byte `json:"originals"`
	Salts       map[uint64][]byte `json:"salts"` // that the key of the segment gives: they show that it holds these bytes
}

type replayAnswer struct {
	Records []replayed `json:"records"`
}

// replayed is a line of what replay prints.
type replayed struct {
	Ordinal uint64              `json:"ordinal"`
	Ref     string              `json:"ref"`
	Same    bool                `json:"same"`
	Refused string              `json:"refused,omitempty"`
	Source  string              `json:"source,omitempty"`
	Dataset string              `json:"dataset,omitempty"`
	Kind    string              `json:"kind,omitempty"`
	Time    string              `json:"time,omitempty"`
	Fields  map[string][]string `json:"fields,omitempty"`
}

// replay parses unlocked originals again. The ledger has it before anything is
// answered.
func (s *server) replay(ctx context.Context, actor string, body []byte) (any, error) {
	var ask replayAsk
	if err := json.Unmarshal(body, &ask); err != nil {
		return nil, web.BadRequest("these are no originals", "")
	}
	id, err := uuid.Parse(ask.Segment)
	if err != nil || event.CheckCompartment(ask.Compartment) != nil {
		return nil, web.BadRequest("the segment is named by compartment and id", "")
	}
	if ask.Context != "" && !isDigest(ask.Context) {
		return nil, web.BadRequest("a context is named by its digest, 64 hex digits", "")
	}
	open, err := s.pipe.Unlocked(ctx, id)
	if err != nil {
		return nil, err
	}
	if !open {
		return nil, &web.Refused{Reason: "the ledger knows no opening of this segment that is witnessed and whose time is not over", Hint: "ask with counterseal evidence unlock"}
	}
	for n, raw := range ask.Originals {
		if err := s.holds(event.Ref{Compartment: ask.Compartment, Segment: id, Ordinal: n}, raw, ask.Salts[n]); err != nil {
			return nil, &web.Refused{Reason: fmt.Sprintf("record %d is not in this segment as it was brought", n), Hint: "counterseal replay reads it from the segment file"}
		}
	}
	named := ask.Context
	if named == "" {
		named = "in-force"
	}
	if _, err := s.pipe.Recorder().Record(ctx, attest.Act{Kind: "replay.done", Actor: actor, Subject: []string{id.String()},
		Detail: map[string]any{"context": named, "records": len(ask.Originals)}}); err != nil {
		return nil, err
	}
	got, err := s.pipe.Replay(ctx, ask.Compartment, id, ask.Originals, ask.Context)
	if errors.Is(err, pipeline.ErrContext) {
		return nil, &web.Refused{Reason: err.Error(), Hint: "put the protected list and the directory of then in force, in a copy of the data directory"}
	}
	if err != nil {
		return nil, err
	}
	answer := replayAnswer{Records: []replayed{}}
	for _, r := range got {
		line := replayed{Ordinal: r.Ordinal, Ref: r.Ref.String(), Same: r.Same, Refused: r.Refused}
		if e := r.Event; e != nil {
			line.Source, line.Dataset, line.Kind, line.Time = e.Source, e.Dataset, "event", e.At().Format(time.RFC3339Nano)
			if e.Kind == event.Unparsed {
				line.Kind = "unparsed"
			}
			line.Fields = make(map[string][]string)
			for _, f := range e.Fields {
				line.Fields[f.Name] = append(line.Fields[f.Name], string(f.Value))
			}
		}
		answer.Records = append(answer.Records, line)
	}
	return answer, nil
}

// holds checks that a segment of originals holds exactly these bytes. Without it whoever
// may replay one segment could ask for the tokens of any name.
func (s *server) holds(ref event.Ref, raw, salt []byte) error {
	p, err := evidence.ProveLeaf(s.cfg.Data, evidence.Originals, ref)
	if err != nil {
		return err
	}
	if len(salt) != 32 || evidence.RecordLeaf([32]byte(salt), append([]byte{1, byte(event.TypeOriginal)}, raw...)) != p.Leaf {
		return errors.New("other bytes")
	}
	return nil
}

func isDigest(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == 32 && s == hex.EncodeToString(b)
}

// replayBytes bounds the originals of one request to the server.
const replayBytes = 12 << 20

func newReplay(env *environment) *cobra.Command {
	var f configFlags
	var key, named string
	cmd := &cobra.Command{Use: "replay SEGMENT --key FILE", Short: "Parse unlocked originals again, and say what comes out otherwise than was sealed", Args: cobra.ExactArgs(1),
		Long: "Replay reads a segment file of originals with an unlocked key and has the server parse\n" +
			"the bytes again: with the assessments and rules in force, or with those of the context\n" +
			"named. It prints events as lines of JSON, each with the Ref of the event that was sealed\n" +
			"from the same bytes, and stores nothing. The key stays with this command.",
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			r, k, err := openUnlocked(args[0], key)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, r.Close()) }()
			cfg, err := f.load()
			if err != nil {
				return err
			}
			c, err := dial(cmd.Context(), env, cfg)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, c.close()) }()
			w := bufio.NewWriter(env.stdout)
			enc := json.NewEncoder(w)
			enc.SetEscapeHTML(false)
			same, otherwise, refused := 0, 0, 0
			ask := replayAsk{Compartment: r.Compartment(), Segment: k.Segment.String(), Context: named, Originals: map[uint64][]byte{}, Salts: map[uint64][]byte{}}
			size := 0
			send := func() error {
				if len(ask.Originals) == 0 {
					return nil
				}
				var got replayAnswer
				if err := c.act(cmd.Context(), "replay", &ask, &got); err != nil {
					return err
				}
				for i := range got.Records {
					line := &got.Records[i]
					switch {
					case line.Refused != "":
						refused++
					case line.Same:
						same++
					default:
						otherwise++
					}
					if err := enc.Encode(line); err != nil {
						return err
					}
				}
				clear(ask.Originals)
				clear(ask.Salts)
				size = 0
				return nil
			}
			if err := r.Read(cmd.Context(), func(n uint64, rec []byte) error {
				if len(rec) < 2 || rec[0] != 1 || event.Type(rec[1]) != event.TypeOriginal {
					return fmt.Errorf("record %d is not an original", n)
				}
				if size > 0 && size+len(rec) > replayBytes {
					if err := send(); err != nil {
						return err
					}
				}
				proof, err := r.Prove(n, rec)
				if err != nil {
					return err
				}
				ask.Salts[n] = proof.Salt[:]
				ask.Originals[n] = append([]byte(nil), rec[2:]...)
				size += len(rec)
				return nil
			}); err != nil {
				return err
			}
			if err := errors.Join(send(), w.Flush()); err != nil {
				return err
			}
			_, err = fmt.Fprintf(env.stderr, "%d records of %s parsed again: %d as sealed, %d otherwise, %d refused now\n",
				same+otherwise+refused, strings.TrimSuffix(filepath.Base(args[0]), filepath.Ext(args[0])), same, otherwise, refused)
			return err
		}}
	f.add(cmd)
	cmd.Flags().StringVar(&key, "key", "", "`file` of the unlocked key")
	cmd.Flags().StringVar(&named, "context", "", "`digest` of a context that was in force")
	return cmd
}
