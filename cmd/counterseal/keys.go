package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/counterseal/counterseal/internal/attest"
	"github.com/counterseal/counterseal/internal/durable"
	"github.com/counterseal/counterseal/internal/evidence"
	"github.com/counterseal/counterseal/internal/keyring"
	"github.com/counterseal/counterseal/internal/pipeline"
	"github.com/counterseal/counterseal/internal/web"
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

// state makes a statement about the keyring while no server runs: before the act.
func (f *keyFlags) state(ctx context.Context, dir string, k *keyring.Keyring, a attest.Act) error {
	cfg, err := f.load()
	if err != nil {
		return err
	}
	r, err := pipeline.OpenRecord(ctx, dir, k, cfg.ledger(), nil, nil)
	if err != nil {
		return err
	}
	a.Actor, a.Subject = ownActor(), []string{k.ID().String()}
	_, err = r.Record(ctx, a)
	return errors.Join(err, r.Close())
}

// stateCopy makes a statement about a copy of the keyring: by the running server, else
// with the keyring at hand.
func (f *keyFlags) stateCopy(ctx context.Context, dir string, k *keyring.Keyring, kind string) error {
	if c := dialRunning(ctx, dir); c != nil {
		return errors.Join(c.act(ctx, "key.state", &keyStated{Kind: kind}, &struct{}{}), c.close())
	}
	detail, err := copyDetail(kind)
	if err != nil {
		return err
	}
	return locked(dir, func() error { return f.state(ctx, dir, k, attest.Act{Kind: kind, Detail: detail}) })
}

// copyDetail is what is stated about a copy of the keyring.
func copyDetail(kind string) (map[string]any, error) {
	switch kind {
	case "key.backed_up":
		return map[string]any{"recipients": 1, "sealed": "passphrase"}, nil
	case "key.rehearsed":
		return map[string]any{"result": "opens"}, nil
	}
	return nil, web.BadRequest("this is nothing about a key", "")
}

// keyStated asks a server to state what was done with a copy of its keyring.
type keyStated struct {
	Kind string `json:"kind"`
}

// keyState states that a copy of the keyring leaves, or that one was rehearsed.
func (s *server) keyState(ctx context.Context, actor string, body []byte) (any, error) {
	var in keyStated
	if err := json.Unmarshal(body, &in); err != nil {
		return nil, web.BadRequest("this is nothing about a key", "")
	}
	detail, err := copyDetail(in.Kind)
	if err != nil {
		return nil, err
	}
	_, err = s.pipe.Recorder().Record(ctx, attest.Act{Kind: in.Kind, Actor: actor, Subject: []string{s.pipe.Org().String()}, Detail: detail})
	return struct{}{}, err
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
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, k, pass, err := f.open(env)
			if err != nil {
				return err
			}
			return locked(dir, func() error {
				next := k.Epoch() + 1
				if err := f.state(cmd.Context(), dir, k, attest.Act{Kind: "key.rotated", Detail: map[string]any{"purpose": "keyring", "key": k.ID().String(), "epoch": next}}); err != nil {
					return err
				}
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
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, k, _, err := f.open(env)
			if err != nil {
				return err
			}
			return locked(dir, func() error {
				b, err := passphrase(env, fresh, "new passphrase (--new-passphrase-file)", true)()
				if err != nil {
					return err
				}
				defer clear(b)
				if err := f.state(cmd.Context(), dir, k, attest.Act{Kind: "key.sealed", Detail: map[string]any{"purpose": "keyring", "key": k.ID().String()}}); err != nil {
					return err
				}
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
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := errors.Join(need(cmd, "output"), free(out)); err != nil { // before it is stated
				return err
			}
			dir, k, _, err := f.open(env)
			if err != nil {
				return err
			}
			b, err := passphrase(env, fresh, "passphrase of the backup (--new-passphrase-file)", true)()
			if err != nil {
				return err
			}
			defer clear(b)
			if err := f.stateCopy(cmd.Context(), dir, k, "key.backed_up"); err != nil {
				return err
			}
			if err := k.Backup(out, b); err != nil {
				return err
			}
			fmt.Fprintf(env.stdout, "wrote %s with %d epochs; try it: counterseal keys rehearse --backup %s --segment ID\n", out, len(k.Epochs()), out)
			return nil
		}}
	f.add(cmd)
	cmd.Flags().StringVarP(&out, "output", "o", "", "`file` to write, which must not be there")
	cmd.Flags().StringVar(&fresh, "new-passphrase-file", "", "`file` with the passphrase of the backup")
	return cmd
}

// rehearsable says where ids of segments stand.
const rehearsable = "The ids are the names of the files below evidence/events, without .seg"

func newKeysRehearse(env *environment) *cobra.Command {
	var f keyFlags
	var backup, segment string
	cmd := &cobra.Command{Use: "rehearse --backup FILE --segment ID", Short: "Try whether a backup of the keyring opens what is sealed", Args: cobra.NoArgs,
		Long: "Rehearse opens the key of one segment with a backup that keys backup wrote, as one would\n" +
			"after a loss of keys/keyring, and changes nothing but the ledger, which says that it was\n" +
			"done. Do it after each backup and once a quarter: a backup that nobody tried is a hope.\n" +
			"Take a segment of the event stream, the newest best, since a backup from before a\n" +
			"rotation does not open what came after. The passphrase is that of the backup.\n\n" +
			rehearsable + ".",
		Example: "  counterseal keys backup -o keyring.bak\n  counterseal keys rehearse --backup keyring.bak --segment 01a212e8-e7f0-7660-8428-47d44a371ff0",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := errors.Join(need(cmd, "backup", "segment"), there([]string{backup})); err != nil {
				return err
			}
			id, err := uuid.Parse(segment)
			if err != nil {
				return &exitError{code: exitUsage, err: errors.New("--segment is no id of a segment"), hint: rehearsable}
			}
			cfg, err := f.load()
			if err != nil {
				return err
			}
			k, err := keyring.Load(backup, passphrase(env, f.file, "passphrase of the backup", false))
			if err != nil {
				return err
			}
			if err := evidence.Opens(cfg.Data, k, id); errors.Is(err, fs.ErrNotExist) {
				return &exitError{code: exitUsage, err: fmt.Errorf("--segment: there is no segment %s in %s", id, cfg.Data), hint: rehearsable}
			} else if err != nil {
				return err
			}
			if err := f.stateCopy(cmd.Context(), cfg.Data, k, "key.rehearsed"); err != nil {
				return err
			}
			fmt.Fprintf(env.stdout, "the backup of keyring %s opens segment %s\n", k.ID(), id)
			return nil
		}}
	f.add(cmd)
	cmd.Flags().Lookup("passphrase-file").Usage = "`file` with the passphrase of the backup"
	cmd.Flags().StringVar(&backup, "backup", "", "`file` that keys backup wrote")
	cmd.Flags().StringVar(&segment, "segment", "", "`id` of a segment of the event stream")
	return cmd
}
