package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/counterseal/counterseal/internal/broker"
	"github.com/counterseal/counterseal/internal/collect"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/keyholder"
	"github.com/counterseal/counterseal/internal/ledger"
	"github.com/counterseal/counterseal/internal/pseudonym"
	"github.com/counterseal/counterseal/internal/strict"
)

// brokerConfig is broker.yaml: what the broker believes and what it may do. It belongs to
// those who run the directory, and not to the server. Relative paths start from its folder.
type brokerConfig struct {
	// Socket is where it takes orders of a server on this machine.
	Socket string `yaml:"socket"`
	// Listen is the address where it takes them from another host, by TLS 1.3.
	Listen string `yaml:"listen"`
	// Cert and Key are PEM files of listen; a renewed certificate is read again.
	Cert string `yaml:"cert"`
	Key  string `yaml:"key"`
	// ClientCA is the PEM file of who signs the certificate of the server.
	ClientCA string `yaml:"client_ca"`
	// Dir holds its journal.
	Dir string `yaml:"dir"`
	// Org is the id of the server whose orders it takes: counterseal keys list.
	Org string `yaml:"org"`
	// Log are the vkeys of the ledger of that server, the newest first.
	Log []string `yaml:"log"`
	// Witnesses are those that it believes, and Threshold how many must have cosigned.
	Witnesses []witness `yaml:"witnesses"`
	Threshold int       `yaml:"threshold"`
	// Keyholder is where the key holder answers ingest: it gives the directory, and the
	// tokens by which the broker finds somebody in it.
	Keyholder brokerHolder `yaml:"keyholder"`
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

// brokerHolder is the socket of a key holder, as text, or its address on another host with
// cert, key and ca.
type brokerHolder struct {
	socket string
	OtherHost
}

func (h *brokerHolder) UnmarshalYAML(read func(any) error) error {
	var socket string
	if read(&socket) == nil {
		h.socket = socket
		return nil
	}
	return read(&h.OtherHost)
}

func (h *brokerHolder) dial() (keyholder.Dial, error) {
	if h.socket != "" {
		return atSocket(h.socket), nil
	}
	return h.OtherHost.dial("keyholder.")
}

// maxBroker bounds broker.yaml.
const maxBroker = 1 << 20

// readBroker reads broker.yaml, strictly, and the secrets that it names.
func readBroker(path string) (*brokerConfig, error) {
	data, err := readBounded(path, maxBroker)
	if err != nil {
		return nil, err
	}
	c, err := parseBroker(filepath.Dir(path), data)
	if err == nil {
		err = c.readSecrets()
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Base(path), err)
	}
	return c, nil
}

// parseBroker makes the paths of broker.yaml start from a folder, and refuses what cannot
// work, naming the key.
func parseBroker(from string, data []byte) (*brokerConfig, error) {
	c := &brokerConfig{MaxDay: 20, MaxAlone: 5, MaxNotices: 200}
	if err := strict.NewDecoder(data).Decode(c); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	k := &c.Keyholder
	for _, p := range []*string{&c.Socket, &c.Cert, &c.Key, &c.ClientCA, &c.Dir, &k.socket, &k.Cert, &k.Key, &k.CA} {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(from, *p)
		}
	}
	if err := k.check("", ""); err != nil {
		return nil, fmt.Errorf("keyholder.%w", err)
	}
	switch {
	case c.Dir == "" || c.Org == "" || k.socket == "" && k.Address == "":
		return nil, errors.New("dir, org and keyholder belong in it")
	case (c.Socket == "") == (c.Listen == ""):
		return nil, errors.New("socket or listen says where it takes orders, one of them")
	case c.Listen != "" && (c.Cert == "" || c.Key == "" || c.ClientCA == ""):
		return nil, errors.New("listen: needs cert, key and client_ca: who may order shows a certificate")
	case c.Listen == "" && c.Cert+c.Key+c.ClientCA != "":
		return nil, errors.New("listen: cert, key and client_ca are for an address, which it names")
	case len(c.Log) == 0:
		return nil, errors.New("log has the vkey of the ledger whose orders it believes")
	case len(c.Acts) == 0:
		return nil, errors.New("acts names a command or a webhook for each act")
	case c.MaxDay < 1 || c.MaxAlone < 0 || c.MaxNotices < 0:
		return nil, errors.New("max_day is at least 1, max_alone and max_notices at least 0")
	}
	if c.Listen != "" {
		if _, _, err := net.SplitHostPort(c.Listen); err != nil {
			return nil, fmt.Errorf("listen: %w", err)
		}
	}
	known := map[string]bool{}
	for _, act := range broker.Acts() {
		known[act] = true
	}
	for act, way := range c.Acts {
		if !known[act] {
			return nil, errors.New("acts: there is no act of this name")
		}
		if way.SecretFile != "" && !filepath.IsAbs(way.SecretFile) {
			way.SecretFile = filepath.Join(from, way.SecretFile)
			c.Acts[act] = way
		}
	}
	return c, nil
}

// readSecrets reads the secrets of webhooks, and refuses an act that cannot be done.
func (c *brokerConfig) readSecrets() (err error) {
	for act, way := range c.Acts {
		if way.SecretFile != "" {
			if way.Secret, err = os.ReadFile(way.SecretFile); err != nil {
				return fmt.Errorf("acts: %s: %w", act, err)
			}
		}
		if err := way.Check(); err != nil {
			return fmt.Errorf("acts: %s: %w", act, err)
		}
		c.Acts[act] = way
	}
	return nil
}

// listener takes orders where the file says.
func (c *brokerConfig) listener() (net.Listener, error) {
	if c.Listen == "" {
		return broker.Listen(c.Socket)
	}
	l, err := listenTLS(c.Listen, collect.TLSFiles{Cert: c.Cert, Key: c.Key, ClientCA: c.ClientCA})
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	return l, nil
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
	dial, err := c.Keyholder.dial()
	if err != nil {
		return err
	}
	k, err := keyholder.Connect(ctx, keyholder.ClientOptions{Epoch: epoch, Dial: dial})
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
		Long: "Broker takes orders of one server until stopped: at a unix socket, or by TLS 1.3 of who shows\n" +
			"a certificate of client_ca. It belongs to those who run the directory. It believes two\n" +
			"statements of the ledger, by the keys in its own file, and nothing that the server says.\n" +
			"docs/operations.md has the file.",
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
			l, err := c.listener()
			if err != nil {
				return err
			}
			fmt.Fprintf(env.stdout, "takes orders at %s\n", l.Addr())
			return b.Serve(cmd.Context(), l)
		}}
	cmd.Flags().StringVar(&path, "config", "", "broker.yaml, its own `file`")
	return cmd
}
