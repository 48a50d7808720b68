package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/counterseal/counterseal/internal/collect"
	"github.com/counterseal/counterseal/internal/durable"
	"github.com/counterseal/counterseal/internal/keyholder"
	"github.com/counterseal/counterseal/internal/keyring"
)

func newKeyholder(env *environment) *cobra.Command {
	cmd := &cobra.Command{Use: "keyholder", Short: "The process that alone has the token keys: init, serve, rotate, destroy", Args: cobra.NoArgs,
		Long: "A key holder turns names into tokens for a server that has no key to do so. serve starts\n" +
			"one by itself on this machine, with a folder beside the data directory. On another host,\n" +
			"under other hands, it keeps its promise also where the whole server is stolen.",
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(newKeyholderInit(env), newKeyholderServe(env), newKeyholderRotate(env), newKeyholderDestroy(env))
	return cmd
}

func newKeyholderInit(env *environment) *cobra.Command {
	var dir, data, org, directory, officers, pass string
	var ledger keyholder.Witnesses
	var clear bool
	cmd := &cobra.Command{
		Use:   "init --dir DIR (--data DATA | --org ID)",
		Short: "Make the folder of a key holder: its keys and its settings",
		Long: "Init makes a key that nobody else has. For a data directory that has tokens already, made\n" +
			"with the key in it, it begins a new epoch: tokens from then on are others than before, and\n" +
			"those from before can still be tested by whoever has the data directory. Then name the\n" +
			"folder under `keyholder` in the configuration of the server, as dir, or run keyholder\n" +
			"serve on another host and name its address.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := need(cmd, "dir"); err != nil {
				return err
			}
			if (data == "") == (org == "") {
				return usage("one of --data and --org says whose names are asked")
			}
			s := keyholder.Setup{FirstEpoch: 1, Ledger: ledger}
			var err error
			if (ledger.Log == "") != (len(ledger.Witnesses) == 0) {
				return usage("--log and --witness go together: by both it knows that an approval stands in the ledger")
			}
			if ledger.Log != "" {
				if _, err := holderLedger(ledger); err != nil {
					return err
				}
			}
			if data != "" {
				if err := keyholder.Apart(dir, data); err != nil {
					return usage("--dir: %v", err)
				}
				if s.Org, err = keyringID(data); err != nil {
					return err
				}
				if begun, err := hasTokens(data); err != nil {
					return err
				} else if begun {
					s.FirstEpoch = 2
				}
			} else if s.Org, err = uuid.Parse(org); err != nil {
				return usage("--org: the id that counterseal keys list prints")
			}
			for path, to := range map[string]*[]byte{directory: &s.Directory, officers: &s.Officers} {
				if path == "" {
					continue
				}
				if *to, err = os.ReadFile(path); err != nil {
					return fmt.Errorf("reading a file of the key holder: %w", err)
				}
			}
			if !clear {
				if s.Passphrase, err = passphrase(env, pass, "passphrase of the key holder's keys", true)(); err != nil {
					return err
				}
				if len(s.Passphrase) < keyring.MinPassphrase {
					return usage("a passphrase has at least %d bytes; --no-passphrase makes the keys readable to whoever reads the folder", keyring.MinPassphrase)
				}
			}
			if err := keyholder.Create(dir, s); err != nil {
				return err
			}
			fmt.Fprintf(env.stdout, "folder    %s\norg       %s\nepoch     %d\n", dir, s.Org, s.FirstEpoch)
			if s.FirstEpoch > 1 {
				fmt.Fprintf(env.stdout, "tokens of epoch 1 stay as they are: whoever has the data directory can test names against them\n")
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&dir, "dir", "", "`folder` to make, apart from the data directory")
	cmd.Flags().StringVar(&data, "data", "", "data `directory` on this machine")
	cmd.Flags().StringVar(&org, "org", "", "`id` of the data directory on another machine")
	cmd.Flags().StringVar(&directory, "directory", "", "`file` that joins the names of one person (directory/v1)")
	cmd.Flags().StringVar(&officers, "officers", "", "`file` of the officers who let names be asked for (officers/v1); without it and the keys of the ledger nobody does")
	cmd.Flags().StringVar(&ledger.Log, "log", "", "`vkey` of the ledger, known from elsewhere")
	cmd.Flags().StringArrayVar(&ledger.Witnesses, "witness", nil, "`vkey` of a witness; repeats")
	cmd.Flags().IntVar(&ledger.Threshold, "threshold", 0, "how many witnesses must have cosigned (default all that are named)")
	cmd.Flags().StringVar(&pass, "passphrase-file", "", "`file` with the passphrase of its keys")
	cmd.Flags().BoolVar(&clear, "no-passphrase", false, "leave the keys readable to whoever reads the folder")
	return cmd
}

// keyringID is the id of a data directory's keyring; no passphrase is needed for it.
func keyringID(data string) (uuid.UUID, error) {
	path := filepath.Join(data, "keys", "keyring")
	b, err := os.ReadFile(path)
	if err != nil {
		return uuid.Nil, &exitError{code: exitFailed, err: fmt.Errorf("reading the keyring of the data directory: %w", err), hint: "a new data directory gets its key holder from serve"}
	}
	if f, err := keyring.ParseSealed(b); err == nil {
		var public struct {
			ID uuid.UUID `json:"id"`
		}
		if err := json.Unmarshal(f.Public, &public); err == nil && public.ID != uuid.Nil {
			return public.ID, nil
		}
	}
	k, err := keyring.Load(path, nil)
	if err != nil {
		return uuid.Nil, err
	}
	return k.ID(), nil
}

type keyholderServe struct {
	dir, pass, listen, question, cert, key, ca, questionCA string
	child                                                  bool
}

func newKeyholderServe(env *environment) *cobra.Command {
	var f keyholderServe
	cmd := &cobra.Command{
		Use:   "serve --dir DIR",
		Short: "Answer ingest, and questions under a capability, until stopped",
		Long: "Serve answers on run/ingest.sock and run/question.sock in its folder. With --listen it\n" +
			"answers ingest by TLS 1.3 instead, to who shows a certificate of --client-ca, and\n" +
			"questions on --question-listen, to who shows one of --question-client-ca.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := need(cmd, "dir"); err != nil {
				return err
			}
			if (f.listen != "" || f.question != "") && (f.cert == "" || f.key == "") {
				return usage("--listen and --question-listen need --tls-cert and --tls-key")
			}
			if f.listen != "" && f.ca == "" || f.question != "" && f.questionCA == "" {
				return usage("--listen needs --client-ca, and --question-listen --question-client-ca: who may ask shows a certificate")
			}
			return f.run(cmd.Context(), env)
		},
	}
	cmd.Flags().StringVar(&f.dir, "dir", "", "`folder` of the key holder")
	cmd.Flags().StringVar(&f.pass, "passphrase-file", "", "`file` with the passphrase of its keys")
	cmd.Flags().StringVar(&f.listen, "listen", "", "`address` for ingest from another host")
	cmd.Flags().StringVar(&f.question, "question-listen", "", "`address` for questions from another host")
	cmd.Flags().StringVar(&f.cert, "tls-cert", "", "certificate `file`; a renewed one is read again")
	cmd.Flags().StringVar(&f.key, "tls-key", "", "key `file` of the certificate")
	cmd.Flags().StringVar(&f.ca, "client-ca", "", "`file` of who signs the certificates of ingest")
	cmd.Flags().StringVar(&f.questionCA, "question-client-ca", "", "`file` of who signs the certificates of those who ask")
	cmd.Flags().BoolVar(&f.child, "child", false, "end when standard input ends")
	if err := cmd.Flags().MarkHidden("child"); err != nil {
		panic(err) // the flag is there
	}
	return cmd
}

func (f *keyholderServe) run(ctx context.Context, env *environment) (err error) {
	if f.child {
		// A Ctrl-C reaches every process of a terminal. The server still seals what it has
		// accepted, so its holder ends with it and not before.
		var stop context.CancelFunc
		ctx, stop = context.WithCancel(context.WithoutCancel(ctx))
		defer stop()
		go func() {
			io.Copy(io.Discard, env.stdin)
			stop()
		}()
	}
	pass := passphrase(env, f.pass, "passphrase of the key holder's keys", false)
	if f.child {
		pass = keyring.PassphraseFrom(f.pass)
	}
	h, err := openHolder(ctx, f.dir, keyholder.Options{Passphrase: pass, Log: newLog(env.stderr, false), Ledger: holderLedger})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.Close()) }()
	who, err := h.Identity(0)
	if err != nil {
		return err
	}
	group, gctx := errgroup.WithContext(ctx)
	for _, i := range []struct {
		word, name, listen, ca string
		serve                  func(context.Context, net.Listener) error
	}{{"ingest", "ingest.sock", f.listen, f.ca, h.Ingest}, {"question", "question.sock", f.question, f.questionCA, h.Questions}} {
		var l net.Listener
		if i.listen == "" {
			if l, err = unixSocket(f.dir, i.name); err != nil {
				return err
			}
			defer os.Remove(filepath.Join(f.dir, "run", i.name))
		} else {
			if l, err = listenTLS(i.listen, collect.TLSFiles{Cert: f.cert, Key: f.key, ClientCA: i.ca}); err != nil {
				return err
			}
		}
		group.Go(func() error { return i.serve(gctx, l) })
		if !f.child {
			fmt.Fprintf(env.stdout, "%-9s %s\n", i.word, l.Addr())
		}
	}
	if !f.child {
		fmt.Fprintf(env.stdout, "org       %s\nepoch     %d\n", who.Org, who.Epoch)
	}
	group.Go(func() error { return h.Watch(gctx) })
	return group.Wait()
}

// openHolder takes the folder of a key holder. One that ended this moment still has it.
func openHolder(ctx context.Context, dir string, o keyholder.Options) (*keyholder.Holder, error) {
	for end := time.Now().Add(5 * time.Second); ; {
		h, err := keyholder.Open(dir, o)
		if !errors.Is(err, durable.ErrLocked) || time.Now().After(end) {
			return h, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func newKeyholderRotate(env *environment) *cobra.Command {
	var dir, pass string
	cmd := &cobra.Command{
		Use:   "rotate --dir DIR",
		Short: "Begin a new epoch of tokens, after stopping the key holder",
		Long: "Rotate makes a new key. A server takes it at its next start: from then on one person has\n" +
			"another token. Tokens of before stay as they are. Two officers join them for one person in\n" +
			"one case: counterseal name.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := need(cmd, "dir"); err != nil {
				return err
			}
			n, err := keyholder.Rotate(dir, time.Now(), passphrase(env, pass, "passphrase of the key holder's keys", false))
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(env.stdout, "epoch     %d\nback the folder up: what this epoch names is lost without it\n", n)
			return err
		},
	}
	cmd.Flags().StringVar(&dir, "dir", "", "`folder` of the key holder")
	cmd.Flags().StringVar(&pass, "passphrase-file", "", "`file` with the passphrase of its keys")
	return cmd
}
