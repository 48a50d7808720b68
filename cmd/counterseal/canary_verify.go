package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/counterseal/counterseal/internal/approval"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/officer"
)

const (
	actionCanary     = "canary.check"
	canaryResultForm = "canary.result/v1"
	maxCanaryResult  = 1 << 20
)

// parseCanarySigned reads the file of a result that an officer signed. Its errors quote
// nothing.
func parseCanarySigned(b []byte) (*canarySigned, *canaryResult, error) {
	bad := errors.New("this is no result that counterseal channels canary check wrote with -o")
	var s canarySigned
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if len(b) > maxCanaryResult || dec.Decode(&s) != nil || dec.More() {
		return nil, nil, bad
	}
	var r canaryResult
	if approval.DecodeUpTo(maxCanaryResult, s.Result, &r) != nil || r.Form != canaryResultForm || len(r.Lines) == 0 {
		return nil, nil, bad
	}
	found, lost := 0, 0
	for i := range r.Lines {
		v := &r.Lines[i]
		hits := v.Events + v.Findings + v.Elsewhere + v.Files
		traces := min(v.Events, v.Findings, v.Elsewhere, v.Files) >= 0 && (v.Verdict == canaryFound) == (hits > 0)
		classes := map[string][]string{canaryFound: {markChannel, markPerson, markRefused}, canaryGone: {markChannel, markRefused}, canaryToken: {markPerson}, canaryLost: {markPerson, markRefused}, canaryClear: {markPerson}}
		if !traces || !slices.Contains(classes[v.Verdict], v.Class) {
			return nil, nil, fmt.Errorf("line %d of the result says two things", i+1)
		}
		switch v.Verdict {
		case canaryFound:
			found++
		case canaryLost, canaryClear:
			lost++
		}
	}
	if r.Planted != len(r.Lines) || r.Found != found || r.Lost != lost {
		return nil, nil, errors.New("the counts of the result are not those of its lines")
	}
	return &s, &r, nil
}

// verify checks that an officer of oversight signed exactly this result, and gives which.
func (s *canarySigned) verify(r *canaryResult, roster *officer.Roster) (*officer.Appointed, error) {
	if s.Statement == "" || s.Signed == nil {
		return nil, errors.New("nobody signed this result: check --key does")
	}
	st, err := approval.Parse([]byte(s.Statement))
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(s.Result)
	switch {
	case st.Action != actionCanary || !slices.Equal(st.Objects, []string{"result " + hex.EncodeToString(sum[:])}):
		return nil, errors.New("the statement is about another result")
	case st.Org != r.Org || !st.MadeAt().Equal(r.At):
		return nil, errors.New("the statement is of another data directory or time than the result")
	case s.Signed.Decision != approval.Approve:
		return nil, errors.New("it was signed as a refusal")
	}
	who := roster.Find(s.Signed.Key)
	if who == nil {
		return nil, errors.New("no officer of --officers has the key that signed it")
	}
	if _, err := roster.VoterFor(s.Signed.Key, actionCanary); err != nil || who.Office != officer.Oversight {
		return nil, errors.New("who signed it is not an officer of oversight of this house")
	}
	if !s.Signed.Verify([]byte(s.Statement), who.Sign) {
		return nil, errors.New("the signature is not that of this key over this statement")
	}
	return who, nil
}

func newCanaryVerify(env *environment) *cobra.Command {
	var roster string
	cmd := &cobra.Command{Use: "verify FILE --officers FILE", Short: "Check a signed result without a server: its sums, and who signed it", Args: cobra.ExactArgs(1),
		Long: "Verify is for whoever is handed a result: it holds the counts against the lines, and the\n" +
			"signature against the officers, in a copy of officers.yaml known from elsewhere. It says\n" +
			"what an overseer saw and signed, whatever that was: read the lines.",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := need(cmd, "officers"); err != nil {
				return err
			}
			b, err := readFile(args[0], "the result", "counterseal channels canary check --key FILE -o FILE writes one")
			if err != nil {
				return err
			}
			s, r, err := parseCanarySigned(b)
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			data, err := readFile(roster, "--officers", "a copy of officers.yaml")
			if err != nil {
				return err
			}
			officers, err := officer.ParseRoster(roster, data)
			if err != nil {
				return err
			}
			who, err := s.verify(r, officers)
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			if err := tableOfCanaries(env.stdout, r); err != nil {
				return err
			}
			return printCanaryVerified(env.stdout, r, who)
		}}
	cmd.Flags().StringVar(&roster, "officers", "", "`file` of the officers (officers/v1), known from elsewhere")
	return cmd
}

func printCanaryVerified(w io.Writer, r *canaryResult, who *officer.Appointed) error {
	fmt.Fprintf(w, "sent     %s\nchecked  %s, by office %s\ndata of  %s\n", r.From.UTC().Format(time.RFC3339), r.At.UTC().Format(time.RFC3339), event.Printable(r.Office), event.Printable(r.Org))
	fmt.Fprintf(w, "lines    %d; %d left what must not be there, %d prove nothing\n", r.Planted, r.Found, r.Lost)
	_, err := fmt.Fprintf(w, "the result holds: signed by %s of oversight, key %s\n", event.Printable(who.Name), who.ID())
	return err
}
