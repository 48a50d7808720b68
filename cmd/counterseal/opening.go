package main

import (
	"time"

	"github.com/spf13/cobra"

	"github.com/counterseal/counterseal/internal/approval"
	"github.com/counterseal/counterseal/internal/officer"
)

// openingFlags are of a command with which the machine of an officer opens its layer.
type openingFlags struct {
	key, pass, officers, receipt, handover, records string
	decisions                                       []string
	trust                                           trustFlags
}

// add declares them; receipt is the command that wrote the receipt.
func (f *openingFlags) add(cmd *cobra.Command, receipt string) {
	cmd.Flags().StringVar(&f.key, "key", "", "`file` of the officer's key")
	cmd.Flags().StringVar(&f.pass, "passphrase-file", "", "`file` with the passphrase of the key")
	cmd.Flags().StringVar(&f.officers, "officers", "", "`file` of the officers (officers/v1), this machine's own copy; of an earlier epoch for what was sealed in it")
	cmd.Flags().StringArrayVar(&f.decisions, "decision", nil, "`file` of a decision; two are needed")
	cmd.Flags().StringVar(&f.receipt, "receipt", "", "`file` that "+receipt+" wrote")
	cmd.Flags().StringVar(&f.handover, "handover", "", "`file` from oversight, for investigation")
	cmd.Flags().StringVar(&f.records, "records", "", "`folder` in which this machine keeps the statements that it opened for (default beside the key)")
	f.trust.add(cmd)
}

// check refuses what is missing or malformed; more are flags that this command needs too.
func (f *openingFlags) check(cmd *cobra.Command, more ...string) error {
	if err := need(cmd, append([]string{"key", "officers", "decision", "receipt", "log", "witness"}, more...)...); err != nil {
		return err
	}
	if err := f.trust.check(); err != nil {
		return err
	}
	if f.trust.verifiers().Threshold <= 0 {
		return misused(cmd, "--threshold: at least one witness must have cosigned")
	}
	return nil
}

// openingFacts are what the machine of an officer goes by: what it has from elsewhere, and
// what it was brought.
type openingFacts struct {
	trust   *trustFlags
	roster  *officer.Roster // its own copy
	signed  []approval.Signed
	receipt *receipt
	records string
	now     time.Time
}

// load reads the files. The key is none of them.
func (f *openingFlags) load() (m openingFacts, err error) {
	m = openingFacts{trust: &f.trust, records: f.records, now: time.Now()}
	if m.records == "" {
		m.records = f.key + ".statements"
	}
	data, err := readFile(f.officers, "--officers", "this machine's own copy of officers.yaml")
	if err != nil {
		return m, err
	}
	if m.roster, err = officer.ParseRoster(f.officers, data); err != nil {
		return m, err
	}
	if m.signed, err = readDecisions(f.decisions); err != nil {
		return m, err
	}
	m.receipt, err = readReceipt(f.receipt)
	return m, err
}
