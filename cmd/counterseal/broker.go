package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"

	"github.com/counterseal/counterseal/internal/broker"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/keyholder"
	"github.com/counterseal/counterseal/internal/ledger"
	"github.com/counterseal/counterseal/internal/pseudonym"
)

// brokerConfig is broker.yaml: what the broker believes and what it may do. It belongs to
// those who run the directory, and not to the server. Relative paths start from its folder.
type brokerConfig struct {
	// Socket is where it takes orders.
	Socket string `yaml:"socket"`
	// Dir holds its journal.
	Dir string `yaml:"dir"`
	// Org is the id of the server whose orders it takes: counterseal keys list.
	Org string `yaml:"org"`
	// Log are the vkeys of the ledger of that server, the newest first.
	Log []string `yaml:"log"`
	// Witnesses are those that it believes, and Threshold how many must have cosigned.
	Witnesses []witness `yaml:"witnesses"`
	Threshold int       `yaml:"threshold"`
	// Keyholder is the socket of the key holder at which ingest asks: it gives the
	// directory, and the tokens by which the broker finds somebody in it.
	Keyholder string `yaml:"keyholder"`
	// Epochs are the older epochs of tokens that orders may still name.
	Epochs []int `yaml:"epochs"`
	// Acts names a command or a webhook for each act.
	Acts map[string]brokerWay `yaml:"acts"`
	// MaxDay is how many orders it does in 24 hours, MaxAlone how many of one person alone.
	MaxDay   int `yaml:"max_day"`
	MaxAlone int `yaml:"max_alone"`
	// MaxNotices is how many people it tells in 24 hours that they were looked at.
	MaxNotices int `yaml:"max_notices"`
}

type brokerWay struct {
	broker.Way `yaml:",inline"`
	// SecretFile holds the secret of the signature of a webhook.
	SecretFile string `yaml:"secret_file"`
}

// readBroker reads broker.yaml, strictly.
func readBroker(path string) (*brokerConfig, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	c := &brokerConfig{MaxDay: 20, MaxAlone: 5, MaxNotices: 200}
	if err := yaml.UnmarshalWithOptions(data, c, yaml.Strict()); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Base(path), err)
	}
	from := filepath.Dir(path)
	for _, p := range []*string{&c.Socket, &c.Dir, &c.Keyholder} {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(from, *p)
		}
	}
	switch {
	case c.Socket == "" || c.Dir == "" || c.Org == "" || c.Keyholder == "":
		return nil, fmt.Errorf("%s: socket, dir, org and keyholder belong in it", filepath.Base(path))
	case len(c.Log) == 0:
		return nil, fmt.Errorf("%s: log has the vkey of the ledger whose orders it believes", filepath.Base(path))
	case len(c.Acts) == 0:
		return nil, fmt.Errorf("%s: acts names a command or a webhook for each act", filepath.Base(path))
	case c.MaxDay < 1 || c.MaxAlone < 0 || c.MaxNotices < 0:
		return nil, fmt.Errorf("%s: max_day is at least 1, max_alone and max_notices at least 0", filepath.Base(path))
	}
	known := map[string]bool{}
	for _, act := range broker.Acts() {
		known[act] = true
	}
	for act, way := range c.Acts {
		if !known[act] {
			return nil, fmt.Errorf("%s: acts: there is no act of this name", filepath.Base(path))
		}
		if way.SecretFile != "" {
			if !filepath.IsAbs(way.SecretFile) {
				way.SecretFile = filepath.Join(from, way.SecretFile)
			}
			if way.Secret, err = os.ReadFile(way.SecretFile); err != nil {
				return nil, fmt.Errorf("%s: acts: %s: %w", filepath.Base(path), act, err)
			}
		}
		if err := way.Check(); err != nil {
			return nil, fmt.Errorf("%s: acts: %s: %w", filepath.Base(path), act, err)
		}
		c.Acts[act] = way
	}
	return c, nil
}

// people asks the key holder who is who. The answer stays in memory.
func (c *brokerConfig) people(ctx context.Context) (map[event.Token]pseudonym.Entry, error) {
	known := map[event.Token]pseudonym.Entry{}
	for _, epoch := range append([]int{0}, c.Epochs...) {
		if err := c.peopleOf(ctx, epoch, known); err != nil {
			return nil, fmt.Errorf("key holder: %w", err)
		}
	}
	return known, nil
}

func (c *brokerConfig) peopleOf(ctx context.Context, epoch int, known map[event.Token]pseudonym.Entry) (err error) {
	k, err := keyholder.Connect(ctx, keyholder.ClientOptions{Epoch: epoch, Dial: func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", c.Keyholder)
	}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, k.Close()) }()
	if id := k.Identity(); id.Org.String() != c.Org {
		return errors.New("it is that of another server than org names")
	}
	data, err := k.Directory(ctx)
	if err != nil {
		return err
	}
	dir, err := pseudonym.ParseDirectory(data)
	if err != nil {
		return err
	}
	of, err := pseudonym.Known(k, dir)
	maps.Copy(known, of)
	return err
}

// openBroker opens a broker that finds people by the tokens of the key holder.
func openBroker(ctx context.Context, c *brokerConfig, o broker.Options) (*broker.Broker, error) {
	known, err := c.people(ctx)
	if err != nil {
		return nil, err
	}
	if len(known) == 0 {
		o.Log.Warn("the key holder has no directory: only hosts can be isolated")
	}
	o.Dir, o.Org, o.MaxDay, o.MaxAlone, o.MaxNotices = c.Dir, c.Org, c.MaxDay, c.MaxAlone, c.MaxNotices
	o.Ledger = ledger.Verifiers{Log: c.Log, Threshold: c.Threshold}
	for _, w := range c.Witnesses {
		o.Ledger.Witnesses = append(o.Ledger.Witnesses, ledger.Witness{VKey: w.VKey, URL: w.URL, Group: w.RunBy})
	}
	var mu sync.Mutex // guards known and read
	read := time.Now()
	o.Resolve = func(t event.Token) (broker.Account, bool) {
		mu.Lock()
		defer mu.Unlock()
		e, ok := known[t]
		if !ok && time.Since(read) > time.Minute { // somebody may be new in the directory
			read = time.Now()
			fresh, err := c.people(context.WithoutCancel(ctx))
			if err != nil {
				o.Log.Error("the key holder does not say who is who", "err", err)
			} else {
				known = fresh
				e, ok = known[t]
			}
		}
		return broker.Account{Names: e.Names, Mails: e.Mails, SIDs: e.SIDs, Devices: e.Devices}, ok
	}
	o.Can = func(act string) bool { _, ok := c.Acts[act]; return ok }
	o.Do = func(ctx context.Context, t broker.Task) error {
		way := c.Acts[t.Act]
		return way.Do(ctx, t)
	}
	return broker.Open(o)
}

func newBroker(env *environment) *cobra.Command {
	var path string
	cmd := &cobra.Command{Use: "broker --config FILE", Short: "Do what was ordered to an account or a machine, and tell nobody whose it is", Args: cobra.NoArgs,
		Long: "Broker takes orders of one server at a unix socket until stopped. It belongs to those who\n" +
			"run the directory, beside the key holder. It believes two statements of the ledger, by the\n" +
			"keys in its own file, and nothing that the server says. docs/operations.md has the file.",
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if err := need(cmd, "config"); err != nil {
				return err
			}
			c, err := readBroker(path)
			if err != nil {
				return &exitError{code: exitUsage, err: err}
			}
			b, err := openBroker(cmd.Context(), c, broker.Options{Log: newLog(env.stderr, false)})
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, b.Close()) }()
			l, err := broker.Listen(c.Socket)
			if err != nil {
				return err
			}
			fmt.Fprintf(env.stdout, "takes orders at %s\n", c.Socket)
			return b.Serve(cmd.Context(), l)
		}}
	cmd.Flags().StringVar(&path, "config", "", "broker.yaml, its own `file`")
	return cmd
}
