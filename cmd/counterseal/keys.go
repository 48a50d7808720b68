package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/counterseal/counterseal/internal/durable"
	"github.com/counterseal/counterseal/internal/evidence"
	"github.com/counterseal/counterseal/internal/keyring"
)

// passphrase looks where keyring.PassphraseFrom looks, and asks at a terminal where
// nothing is there. A new one is asked for twice.
func passphrase(env *environment, file, what string, fresh bool) keyring.Passphrase {
	return func() ([]byte, error) {
		b, err := keyring.PassphraseFrom(file)()
		if err != nil || len(b) > 0 {
			return b, err
		}
		in, ok := env.stdin.(*os.File)
		if !ok || !term.IsTerminal(int(in.Fd())) {
			return nil, fmt.Errorf("%s: %w", what, keyring.ErrNoPassphrase)
		}
		ask := func(prompt string) ([]byte, error) {
			fmt.Fprintf(env.stderr, "%s: ", prompt)
			defer fmt.Fprintln(env.stderr)
			return term.ReadPassword(int(in.Fd()))
		}
		if b, err = ask(what); err != nil || !fresh {
			return b, err
		}
		again, err := ask("the same again")
		if err != nil {
			return nil, err
		}
		if !bytes.Equal(b, again) {
			return nil, errors.New("the two passphrases differ")
		}
		return b, nil
	}
}

func newKeys(env *environment) *cobra.Command {
	cmd := &cobra.Command{Use: "keys", Short: "The keys of this server: list, rotate, seal, back up, rehearse", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(newKeysList(env), newKeysRotate(env), newKeysSeal(env), newKeysBackup(env), newKeysRehearse(env))
	return cmd
}

// keyFlags are those of every keys command.
type keyFlags struct {
	configFlags
	file string
}

func (f *keyFlags) add(cmd *cobra.Command) {
	f.configFlags.add(cmd)
	cmd.Flags().StringVar(&f.file, "passphrase-file", "", "`file` with the passphrase of the keyring")
}

// open loads the keyring of the configuration; it never makes one.
func (f *keyFlags) open(env *environment) (dir string, k *keyring.Keyring, pass keyring.Passphrase, err error) {
	cfg, err := f.load()
	if err != nil {
		return "", nil, nil, err
	}
	if f.file == "" {
		f.file = cfg.PassphraseFile
	}
	pass = passphrase(env, f.file, "passphrase of the keyring", false)
	k, err = keyring.Load(filepath.Join(cfg.Data, "keys", "keyring"), pass)
	return cfg.Data, k, pass, err
}

// locked runs fn while no server runs on the data directory.
func locked(dir string, fn func() error) error {
	lock, err := durable.Lock(dir)
	if err != nil {
		return err
	}
	return errors.Join(fn(), lock.Release())
}

func newKeysList(env *environment) *cobra.Command {
	var f keyFlags
	cmd := &cobra.Command{Use: "list", Short: "Say what the keyring is, and what needs it", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			dir, k, _, err := f.open(env)
			if err != nil {
				return err
			}
			sealed, err := keyring.IsSealed(dir)
			if err != nil {
				return err
			}
			cards, err := evidence.CountCards(dir)
			if err != nil {
				return err
			}
			how := "in clear: whoever reads the disk has every key; counterseal keys seal"
			if sealed {
				how = "under a passphrase"
			}
			fmt.Fprintf(env.stdout, "keyring   %s\nstored    %s\n", k.ID(), how)
			for _, e := range k.Epochs() {
				made := "with the keyring"
				if !e.Made.IsZero() {
					made = e.Made.Format(time.RFC3339)
				}
				fmt.Fprintf(env.stdout, "epoch %-3d made %s, %d key cards\n", e.N, made, cards.ByEpoch[e.N])
			}
			fmt.Fprintf(env.stdout, "officers  %d key cards that this server cannot open\n", cards.Sealed)
			if cards.Unknown > 0 {
				fmt.Fprintf(env.stdout, "unknown   %d key cards are not readable\n", cards.Unknown)
			}
			return nil
		}}
	f.add(cmd)
	return cmd
}

func newKeysRotate(env *environment) *cobra.Command {
	var f keyFlags
	cmd := &cobra.Command{Use: "rotate", Short: "Begin a new epoch: new segments get keys that older copies of the keyring do not open", Args: cobra.NoArgs,
		Long: "Rotate adds a master secret for what is made from now on. What was made before stays\n" +
			"readable, and tokens stay the same. A running server must be stopped first.",
		RunE: func(*cobra.Command, []string) error {
			dir, k, pass, err := f.open(env)
			if err != nil {
				return err
			}
			return locked(dir, func() error {
				n, err := k.Rotate(dir, time.Now(), pass)
				if err != nil {
					return err
				}
				fmt.Fprintf(env.stdout, "epoch %d is in force; backups of before do not open what comes now: counterseal keys backup\n", n)
				return nil
			})
		}}
	f.add(cmd)
	return cmd
}

func newKeysSeal(env *environment) *cobra.Command {
	var f keyFlags
	var fresh string
	cmd := &cobra.Command{Use: "seal", Short: "Put the keyring under a passphrase, or under another one", Args: cobra.NoArgs,
		Long: "Seal replaces keys/keyring by a file that opens with a passphrase only. It does not\n" +
			"erase what disk and backups keep of the old file: where that matters, rotate afterwards.\n" +
			"A running server must be stopped first.",
		RunE: func(*cobra.Command, []string) error {
			dir, k, _, err := f.open(env)
			if err != nil {
				return err
			}
			return locked(dir, func() error {
				b, err := passphrase(env, fresh, "new passphrase", true)()
				if err != nil {
					return err
				}
				defer clear(b)
				if err := k.Seal(dir, b); err != nil {
					return err
				}
				fmt.Fprintln(env.stdout, "the keyring is sealed; without the passphrase, or a backup with its own, everything is lost")
				return nil
			})
		}}
	f.add(cmd)
	cmd.Flags().StringVar(&fresh, "new-passphrase-file", "", "`file` with the new passphrase")
	return cmd
}

func newKeysBackup(env *environment) *cobra.Command {
	var f keyFlags
	var out, fresh string
	cmd := &cobra.Command{Use: "backup -o FILE", Short: "Write the keyring to one file, sealed by a passphrase of its own", Args: cobra.NoArgs,
		Long: "Backup holds the keyring and no key cards, so that destroyed segments stay destroyed.\n" +
			"To restore, stop the server and copy the file to keys/keyring with mode 0600.",
		RunE: func(*cobra.Command, []string) error {
			if out == "" {
				return usage("-o names the file of the backup")
			}
			_, k, _, err := f.open(env)
			if err != nil {
				return err
			}
			b, err := passphrase(env, fresh, "passphrase of the backup", true)()
			if err != nil {
				return err
			}
			defer clear(b)
			if err := k.Backup(out, b); err != nil {
				return err
			}
			fmt.Fprintf(env.stdout, "wrote %s with %d epochs; rehearse it: counterseal keys rehearse\n", out, len(k.Epochs()))
			return nil
		}}
	f.add(cmd)
	cmd.Flags().StringVarP(&out, "output", "o", "", "`file` to write, which must not be there")
	cmd.Flags().StringVar(&fresh, "new-passphrase-file", "", "`file` with the passphrase of the backup")
	return cmd
}

func newKeysRehearse(env *environment) *cobra.Command {
	var f keyFlags
	var backup, segment string
	cmd := &cobra.Command{Use: "rehearse --backup FILE --segment ID", Short: "Prove that a backup opens a segment, without writing anything", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			id, err := uuid.Parse(segment)
			if err != nil || backup == "" {
				return usage("--backup names the file and --segment the id of a segment")
			}
			cfg, err := f.load()
			if err != nil {
				return err
			}
			k, err := keyring.Load(backup, passphrase(env, f.file, "passphrase of the backup", false))
			if err != nil {
				return err
			}
			if err := evidence.Opens(cfg.Data, k, id); err != nil {
				return err
			}
			fmt.Fprintf(env.stdout, "the backup of keyring %s opens segment %s\n", k.ID(), id)
			return nil
		}}
	f.add(cmd)
	cmd.Flags().StringVar(&backup, "backup", "", "`file` of the backup")
	cmd.Flags().StringVar(&segment, "segment", "", "`id` of a segment of the event stream")
	return cmd
}
