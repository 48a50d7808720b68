package main

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/counterseal/counterseal/internal/approval"
	"github.com/counterseal/counterseal/internal/durable"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/evidence"
	"github.com/counterseal/counterseal/internal/keyholder"
	"github.com/counterseal/counterseal/internal/keyring"
	"github.com/counterseal/counterseal/internal/officer"
)

func newOfficer(env *environment) *cobra.Command {
	cmd := &cobra.Command{Use: "officer", Short: "An officer's own machine: keys, statements, openings", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(newOfficerInit(env), newOfficerCard(env), newOfficerSign(env), newOfficerOpen(env))
	return cmd
}

func newOfficerInit(env *environment) *cobra.Command {
	var office, name, out, pass string
	var spare, asJSON bool
	cmd := &cobra.Command{Use: "init --office OFFICE --name TEXT -o FILE", Short: "Make a key pair for an officer", Args: cobra.NoArgs,
		Long: "Init makes a pair for signing and one for opening, on this machine, under a passphrase.\n" +
			"It prints the public card and its id. The server gets the card; the id is read out\n" +
			"by another way, such as the telephone. Nobody can bring a lost key back: there is a\n" +
			"spare officer for that.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := need(cmd, "office"); err != nil {
				return err
			}
			o, err := officer.ParseOffice(office)
			if err != nil {
				return usage("--office: %v", err)
			}
			if err := errors.Join(need(cmd, "name", "output"), free(out)); err != nil {
				return err
			}
			k, err := officer.New(name, o, spare)
			if err != nil {
				return usage("%v", err)
			}
			secret, err := passphrase(env, pass, "new passphrase of the key", true)()
			if err != nil {
				return err
			}
			defer clear(secret)
			b, err := k.File(secret)
			if err != nil {
				return err
			}
			if err := writeNew(out, b); err != nil {
				return err
			}
			whole := ""
			if !asJSON {
				whole = "counterseal officer card " + out + " --json"
			}
			return printCard(env, k.Card(), "", "", "", whole)
		}}
	cmd.Flags().StringVar(&office, "office", "", "investigation or oversight")
	cmd.Flags().StringVar(&name, "name", "", "name of the officer")
	cmd.Flags().BoolVar(&spare, "spare", false, "the spare officer of this office")
	cmd.Flags().BoolVar(&asJSON, "json", false, cardJSON)
	cmd.Flags().StringVarP(&out, "output", "o", "", "`file` of the key, which must not be there")
	cmd.Flags().StringVar(&pass, "passphrase-file", "", "`file` with the passphrase of the key")
	return cmd
}

// printCard prints a card and its id, or its place in officers.yaml, where of says what it
// is of that is no office of the house. The card is long: on a
// terminal stands who it is of and, where whole names it, the command that prints all of it.
func printCard(env *environment, c *officer.Card, authority, account, of, whole string) error {
	var err error
	mark := ""
	if account != "" {
		mark = "    account: " + account + "\n"
	}
	if of != "" {
		mark += "    " + of + ": true\n"
	}
	if whole != "" && authority == "" && terminal(env.stdout) {
		_, err = fmt.Fprintf(env.stdout, "officer  %s\noffice   %s\nid       %s\nthe whole card: %s\n", event.Printable(c.Name), c.Office, c.ID(), whole)
	} else if authority != "" {
		_, err = fmt.Fprintf(env.stdout, "  - id: %s\n    authority: '%s'\n%s    card: '%s'\n", c.ID(), quoted(authority), mark, quoted(string(c.Bytes())))
	} else {
		_, err = fmt.Fprintf(env.stdout, "%s\nid %s\n", c.Bytes(), c.ID())
	}
	return err
}

const cardJSON = "print the whole card on a terminal, too; into a file or a pipe it always goes whole"

// quoted is text inside single quotes of YAML.
func quoted(s string) string { return strings.ReplaceAll(s, "'", "''") }

func newOfficerCard(env *environment) *cobra.Command {
	var authority, account string
	var asJSON, inspector bool
	cmd := &cobra.Command{Use: "card FILE", Short: "Print the public card in a key file, and its id", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			b, err := readFile(args[0], "the key file of an officer", "counterseal officer init writes one")
			if err != nil {
				return err
			}
			c, err := officer.CardOf(b)
			if err != nil {
				return err
			}
			whole := ""
			if !asJSON {
				whole = "counterseal officer card " + args[0] + " --json"
			}
			return printCard(env, c, authority, account, map[bool]string{true: "inspector"}[inspector], whole)
		}}
	cmd.Flags().BoolVar(&asJSON, "json", false, cardJSON)
	cmd.Flags().StringVar(&authority, "authority", "", "print an entry of officers.yaml, with who appointed the officer")
	cmd.Flags().StringVar(&account, "account", "", "the entry has the `id` of the account with which the officer signs in, so that it never asks for what the officer decides")
	cmd.Flags().BoolVar(&inspector, "inspector", false, "the entry is of an inspector's office")
	return cmd
}

// openKey opens an officer's key file.
func openKey(env *environment, path, pass string) (*officer.Key, error) {
	return openWith(env, path, pass, officer.OpenKey)
}

func newOfficerSign(env *environment) *cobra.Command {
	var key, pass, out, origin, roster, disclosers string
	var refuse, yes, although bool
	var trust trustFlags
	cmd := &cobra.Command{Use: "sign REQUEST --key FILE -o FILE [--origin URL --log VKEY --witness VKEY]", Short: "Show a statement in words and sign the decision about it", Args: cobra.ExactArgs(1),
		Long: fmt.Sprintf("Sign shows what is asked for, on this machine, and signs the decision about exactly that.\n"+
			"A request for a name must be signed by the passkey of who asks. This machine checks that\n"+
			"by itself, with the origin and the keys of log and witnesses that it knows from elsewhere:\n"+
			"the signature and what it is over, that the passkey was enrolled for this account before,\n"+
			"that the ledger knows the signature and witnesses have seen that within %d minutes, that\n"+
			"the seal is the one of the first sighting, and that you are not who asks: by your name, and\n"+
			"with --officers by your account. With --disclosers it is compared with your list of\n"+
			"protected disclosers first; nobody else learns of that.", int(freshness/time.Minute)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := errors.Join(need(cmd, "key", "output"), free(out)); err != nil {
				return err
			}
			if although && disclosers == "" {
				return misused(cmd, "--although-listed is about a list: --disclosers names it")
			}
			q, err := readSignable(args[0])
			if err != nil {
				return err
			}
			statement, s := q.statement, q.st
			var by *signer
			var decides func(*officer.Card) error
			if q.name != nil {
				if err := errors.Join(need(cmd, "origin", "log", "witness"), trust.check()); err != nil {
					return err
				}
				if trust.verifiers().Threshold <= 0 {
					return misused(cmd, "--threshold: at least one witness must have cosigned")
				}
				if by, err = q.name.signable(s, origin, trust.verifiers(), time.Now()); err != nil {
					return again(err)
				}
				if decides, err = decidesAlone(s, by.account, roster); err != nil {
					return err
				}
			}
			d := approval.Approve
			if refuse {
				d = approval.Refuse
			}
			showStatement(env, s)
			if by != nil {
				by.show(env.stdout)
			}
			var k *officer.Key
			var names []keyholder.Spoken
			if s.Action == keyholder.Action || disclosers != "" {
				if k, err = openKey(env, key, pass); err != nil {
					return err
				}
			}
			if s.Action == keyholder.Action { // whom it is about only the officer's key opens
				if names, err = showNames(env, args[0], k); err != nil {
					return err
				}
			}
			if disclosers != "" {
				l, err := openList(disclosers, k)
				if err != nil {
					return err
				}
				var token event.Token
				if q.name != nil {
					token = q.name.row.Token
				}
				if err := l.judge(env.stdout, s.Org, token, names, !refuse, although); err != nil {
					return err
				}
			}
			if !yes {
				fmt.Fprintf(env.stdout, "To %s this, type %s: ", d, d)
				line, err := bufio.NewReader(env.stdin).ReadString('\n')
				if err != nil || strings.TrimSpace(line) != string(d) {
					return &exitError{code: exitRefused, err: errors.New("nothing was signed")}
				}
			}
			if k == nil {
				if k, err = openKey(env, key, pass); err != nil {
					return err
				}
			}
			if decides != nil {
				if err := decides(k.Card()); err != nil {
					return &exitError{code: exitRefused, err: err, hint: "the other officer of your office, or its spare, decides on this"}
				}
			}
			signed, err := k.Sign(d, []byte(statement))
			if err != nil {
				return err
			}
			b, err := approval.Canonical(signed)
			if err != nil {
				return err
			}
			if err := writeNew(out, b); err != nil {
				return err
			}
			_, err = fmt.Fprintf(env.stdout, "signed: %s, by %s\n", d, k.Card().ID())
			return err
		}}
	cmd.Flags().StringVar(&key, "key", "", "`file` of the officer's key")
	cmd.Flags().StringVar(&pass, "passphrase-file", "", "`file` with the passphrase of the key")
	cmd.Flags().StringVarP(&out, "output", "o", "", "`file` of the decision, which must not be there")
	cmd.Flags().BoolVar(&refuse, "refuse", false, "refuse instead of approve")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	cmd.Flags().StringVar(&roster, "officers", "", "`file` of the officers (officers/v1), this machine's own copy; for a name")
	cmd.Flags().StringVar(&disclosers, "disclosers", "", disclosersHelp)
	cmd.Flags().BoolVar(&although, "although-listed", false, althoughHelp)
	addOrigin(cmd, &origin)
	trust.add(cmd)
	return cmd
}

func writeNew(path string, b []byte) error {
	var disk durable.FS
	err := disk.WriteNew(path, b, 0o600)
	switch {
	case errors.Is(err, fs.ErrExist):
		return taken(path)
	case err != nil:
		return unwritable(path, err)
	}
	return nil
}

func newOfficerOpen(env *environment) *cobra.Command {
	var f openingFlags
	var out string
	cmd := &cobra.Command{Use: "open REQUEST --key FILE --officers FILE --decision FILE --decision FILE --receipt FILE --log VKEY --witness VKEY -o FILE", Short: "Open the officer's own layer of sealed keys, after two officers approved", Args: cobra.ExactArgs(1),
		Long: "Oversight opens first and gets a handover that is still sealed to investigation.\n" +
			"Investigation opens the handover and gets the key file of the segments, for a time.\n" +
			"This machine checks both decisions with its own copy of the officers, and the receipt:\n" +
			"witnesses have seen the statement about this opening in the ledger. It opens for one\n" +
			"statement once. The keys of log and witnesses come by another way than the request.",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := errors.Join(f.check(cmd, "output"), free(out)); err != nil {
				return err
			}
			r, s, err := readRequest(args[0])
			if err != nil {
				return err
			}
			m, err := f.load()
			if err != nil {
				return err
			}
			k, err := openKey(env, f.key, f.pass)
			if err != nil {
				return err
			}
			once := recordIn(m.records)
			o := officer.Opening{Roster: m.roster, Statement: []byte(r.Statement), Signed: m.signed, Objects: r.objects(), Org: r.sealed[0].Org(), Now: m.now, Record: func(statement []byte) error {
				if _, err := m.receipt.check("unlock.opened", s, statement, m.trust.verifiers()); err != nil {
					return err
				}
				return once(statement)
			}}
			b, err := openLayers(k, &o, r.sealed, f.handover)
			if err != nil {
				return err
			}
			defer clear(b)
			if err := writeNew(out, b); err != nil {
				return err
			}
			_, err = fmt.Fprintf(env.stdout, "wrote %s\n", out)
			return err
		}}
	cmd.Flags().StringVarP(&out, "output", "o", "", "`file` to write, which must not be there")
	f.add(cmd, "evidence approve")
	return cmd
}

// sealedThing is something sealed to officers, as their machines open it.
type sealedThing struct {
	info  keyring.SealInfo
	boxes []keyring.Sealed
}

// openOuters gives the handovers of oversight, a line each.
func openOuters(k *officer.Key, o *officer.Opening, things []sealedThing) ([]byte, error) {
	var out []byte
	for _, s := range things {
		h, err := k.OpenOuter(o, s.info, s.boxes)
		if err != nil {
			return nil, err
		}
		b, err := approval.Canonical(h)
		if err != nil {
			return nil, err
		}
		out = append(append(out, b...), '\n')
	}
	return out, nil
}

// openInners gives what was sealed, to investigation, which clears it, and until when it
// may be used.
func openInners(k *officer.Key, o *officer.Opening, things []sealedThing, handover string) (secrets [][]byte, until time.Time, err error) {
	if handover == "" {
		return nil, until, usage("--handover is missing: the file that oversight wrote with -o")
	}
	b, err := readFile(handover, "--handover", "oversight writes it with -o")
	if err != nil {
		return nil, until, err
	}
	lines := strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
	if len(lines) != len(things) {
		return nil, until, fmt.Errorf("%s hands %d keys over and the request is about %d", handover, len(lines), len(things))
	}
	for i, s := range things {
		h, err := officer.ParseHandover([]byte(lines[i]))
		if err != nil {
			return nil, until, err
		}
		var secret []byte
		if secret, until, err = k.OpenInner(o, s.info, h); err != nil {
			return nil, until, err
		}
		secrets = append(secrets, secret)
	}
	return secrets, until, nil
}

// openLayers opens the layer of an officer on each sealed key: oversight gives a
// handover for each, investigation the key file, a line each.
func openLayers(k *officer.Key, o *officer.Opening, sealed []*evidence.SealedKey, handover string) ([]byte, error) {
	var things []sealedThing
	for _, s := range sealed {
		things = append(things, sealedThing{s.Info(), s.Boxes()})
	}
	if k.Card().Office == officer.Oversight {
		return openOuters(k, o, things)
	}
	secrets, until, err := openInners(k, o, things, handover)
	if err != nil {
		return nil, err
	}
	var out []byte
	for i, s := range sealed {
		line, err := s.KeyFile(secrets[i], until, approval.Digest(o.Statement))
		clear(secrets[i])
		if err != nil {
			return nil, err
		}
		out = append(out, line...)
	}
	return out, nil
}

// recordIn keeps the statements that this machine opened something for, each once.
func recordIn(dir string) func(statement []byte) error {
	return func(statement []byte) error {
		s, err := approval.Parse(statement)
		if err != nil {
			return err
		}
		var disk durable.FS
		if err := disk.MkdirAll(dir, 0o700); err != nil {
			return err
		}
		err = disk.WriteNew(filepath.Join(dir, s.ID+".json"), statement, 0o600)
		if errors.Is(err, fs.ErrExist) {
			return approval.ErrUsed
		}
		return err
	}
}
