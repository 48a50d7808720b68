package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"sort"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"

	"github.com/counterseal/counterseal/internal/broker"
	"github.com/counterseal/counterseal/internal/detect"
	"github.com/counterseal/counterseal/internal/keyring"
	"github.com/counterseal/counterseal/internal/ledger"
	"github.com/counterseal/counterseal/internal/lifecycle"
	"github.com/counterseal/counterseal/internal/officer"
	"github.com/counterseal/counterseal/internal/pipeline"
	"github.com/counterseal/counterseal/internal/strict"
	"github.com/counterseal/counterseal/rules"
)

// config is counterseal.yaml, whole. An unknown key is an error. Relative paths
// start from the folder of the file. docs/config.schema.json describes it.
type config struct {
	// Data is the data directory.
	Data string `yaml:"data"`
	// HTTP is the loopback address of API and start page; "off" serves none.
	HTTP string `yaml:"http"`
	// PIAs are files or folders of privacy impact assessments (pia/v1).
	PIAs []string `yaml:"pias"`
	// Protected is the file of protected channels (protected/v1).
	Protected string `yaml:"protected"`
	// Directory is the file that joins the names of one person (directory/v1).
	Directory string `yaml:"directory"`
	// Officers is the file of the officers to whom originals are sealed (officers/v1).
	Officers string `yaml:"officers"`
	// Offices is the record of who is in which office (offices/v1); without it the owner
	// of this machine runs the house and looks at nobody.
	Offices string `yaml:"offices"`
	// Policies is the folder of the policies; without it those in the program judge.
	Policies string `yaml:"policies"`
	// PassphraseFile holds the passphrase of a sealed keyring; without it the systemd
	// credential counterseal-passphrase and COUNTERSEAL_PASSPHRASE are asked.
	PassphraseFile string `yaml:"passphrase_file"`
	// Keyholder is who makes tokens. Without it a new data directory gets a key holder with
	// a folder beside it.
	Keyholder keyholderConfig `yaml:"keyholder"`
	// Rules are folders of Sigma rules beside our own.
	Rules []string `yaml:"rules"`
	// OwnRules says whether our own rules run.
	OwnRules bool `yaml:"own_rules"`
	// Listeners are the syslog ways in.
	Listeners []listener `yaml:"listeners"`
	// Witnesses cosign the ledger; they run on other hosts, under other hands.
	Witnesses []witness `yaml:"witnesses"`
	// WitnessThreshold is how many parties must have cosigned; 0 asks all.
	WitnessThreshold int `yaml:"witness_threshold"`
	// RunBy names who administers this server, to tell independent witnesses from own.
	RunBy string `yaml:"run_by"`
	// Login is where people sign in; without it only the owner of the machine asks.
	Login loginConfig `yaml:"login"`
	// Broker is the process that does things to accounts; without it nobody orders any.
	Broker brokerSettings `yaml:"broker"`
	// Oversight is what overseers can do and when people work.
	Oversight oversightConfig `yaml:"oversight"`
	// RetentionGrace lies between announcing a destruction and destroying, such as 72h.
	RetentionGrace string `yaml:"retention_grace"`
	// Reserve is the disk space that stays free, such as 1GiB; below, nothing is accepted.
	Reserve string `yaml:"reserve"`
	// Memory is the budget of the index, such as 512MiB.
	Memory string `yaml:"memory"`

	path string // of the file, empty for defaults
}

// listener is one syslog way in.
type listener struct {
	// Way is syslog-udp, syslog-tcp, syslog-tls or relp.
	Way string `yaml:"way"`
	// Address is host:port.
	Address string `yaml:"address"`
	// Source is the name under which a PIA knows what arrives here.
	Source string `yaml:"source"`
	// Zone is the time zone of records without one, such as Europe/Berlin.
	Zone string `yaml:"zone"`
	// Cert, Key and ClientCA are PEM files of syslog-tls.
	Cert     string `yaml:"cert"`
	Key      string `yaml:"key"`
	ClientCA string `yaml:"client_ca"`
}

// witness is one party that cosigns the ledger.
type witness struct {
	// VKey is what counterseal witness printed as vkey.
	VKey string `yaml:"vkey"`
	// URL is where it answers.
	URL string `yaml:"url"`
	// RunBy names who administers it; several of one party count once.
	RunBy string `yaml:"run_by"`
}

// brokerSettings is where the broker takes orders: at a socket, or on another host.
type brokerSettings struct {
	// Socket is its unix socket.
	Socket    string `yaml:"socket"`
	OtherHost `yaml:",inline"`
}

// client gives what reaches the broker, nil where none is configured.
func (b *brokerSettings) client() (*broker.Client, error) {
	switch {
	case b.Socket != "":
		return &broker.Client{Dial: atSocket(b.Socket)}, nil
	case b.Address == "":
		return nil, nil
	}
	dial, err := b.dial("broker.")
	return &broker.Client{Dial: dial}, err
}

// keyholderConfig is who has the token keys.
type keyholderConfig struct {
	// Dir is the folder of a key holder on this machine, which serve starts; it lies apart
	// from the data directory.
	Dir string `yaml:"dir"`
	// PassphraseFile holds the passphrase of its keyring.
	PassphraseFile string `yaml:"passphrase_file"`
	OtherHost      `yaml:",inline"`
}

// loginConfig is the door for people, in a browser or at a terminal.
type loginConfig struct {
	// Address is host:port; beyond loopback it needs cert and key.
	Address string `yaml:"address"`
	// Cert and Key are PEM files; a renewed certificate is read again.
	Cert string `yaml:"cert"`
	Key  string `yaml:"key"`
	// Origin is how browsers reach it: https://host or https://host:port.
	Origin string `yaml:"origin"`
	// RPID is the name that passkeys are bound to: the host of origin, or a domain above it.
	RPID string `yaml:"rp_id"`
	// OIDC is the JSON file of the provider; without it there are passkeys alone.
	OIDC string `yaml:"oidc"`
	// Proxy are the networks of reverse proxies, such as 192.0.2.0/28. The last hop that
	// one of them writes into X-Forwarded-For is believed to be the source.
	Proxy []string `yaml:"proxy"`
}

const configName = "counterseal.yaml"

func defaultConfig() config {
	return config{
		Data: "counterseal-data", HTTP: "127.0.0.1:8420", OwnRules: true,
		Reserve: "1GiB", Memory: "512MiB", RetentionGrace: lifecycle.DefaultGrace.String(),
	}
}

// configFlags are the flags of every command that opens a data directory.
type configFlags struct{ file, data string }

func (f *configFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.file, "config", "", "configuration `file` (default ./"+configName+" if there)")
	cmd.Flags().StringVar(&f.data, "data", "", "data `directory`, or the folder of the "+configName+" that names it (default ./counterseal-data)")
}

// load reads the configuration: the file named, or the one beside or in the data
// directory, or the defaults.
func (f *configFlags) load() (config, error) {
	path := f.file
	if path == "" {
		for _, try := range []string{filepath.Join(f.data, configName), filepath.Join(filepath.Dir(f.data), configName), configName} {
			if f.data == "" && try != configName {
				continue
			}
			if _, err := os.Stat(try); err == nil {
				path = try
				break
			}
		}
	}
	c := defaultConfig()
	if path != "" {
		var err error
		if c, err = readConfig(path); err != nil {
			return config{}, err
		}
	}
	// A folder that holds a configuration, such as a demo's, says itself where its
	// data lies.
	if f.data != "" && (path == "" || f.file != "" || filepath.Dir(path) != filepath.Clean(f.data)) {
		c.Data = f.data
		if strange(f.data) {
			return config{}, &exitError{code: exitUsage, err: fmt.Errorf("--data: %s holds other things, and neither data nor a %s", f.data, configName),
				hint: "name the data directory, the folder of the " + configName + " that names it, or an empty folder to begin one"}
		}
	}
	return c, nil
}

// strange reports whether a folder is in use for something else: to begin a data
// directory there would mix the two.
func strange(dir string) bool {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return false // not there yet, or said where it is opened
	}
	other := false
	for _, e := range entries {
		switch e.Name() {
		case "VERSION", "evidence", "keys", "ledger", "login":
			return false
		case "lost+found": // of a fresh disk
		default:
			other = true
		}
	}
	return other
}

func readConfig(path string) (config, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return config{}, usage("reading the configuration: %v", err)
	}
	return parseConfig(path, data)
}

func parseConfig(path string, data []byte) (config, error) {
	c := defaultConfig()
	read := c
	err := strict.NewDecoder(data).Decode(&read)
	switch {
	case errors.Is(err, io.EOF): // nothing but comments
	case err != nil:
		text := strings.TrimSpace(yaml.FormatError(err, false, false))
		return config{}, usage("%s: %s", path, goField.ReplaceAllStringFunc(text, func(s string) string { return strings.ToLower(s[strings.LastIndexByte(s, '.')+1:]) }))
	default:
		c = read
	}
	c.path = path
	base := filepath.Dir(path)
	abs := func(p *string) {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(base, *p)
		}
	}
	abs(&c.Data)
	abs(&c.Protected)
	abs(&c.Directory)
	abs(&c.Officers)
	abs(&c.Offices)
	abs(&c.Policies)
	abs(&c.Broker.Socket)
	abs(&c.Broker.Cert)
	abs(&c.Broker.Key)
	abs(&c.Broker.CA)
	abs(&c.PassphraseFile)
	abs(&c.Keyholder.Dir)
	abs(&c.Keyholder.PassphraseFile)
	abs(&c.Keyholder.Cert)
	abs(&c.Keyholder.Key)
	abs(&c.Keyholder.CA)
	abs(&c.Login.Cert)
	abs(&c.Login.Key)
	abs(&c.Login.OIDC)
	for i := range c.PIAs {
		abs(&c.PIAs[i])
	}
	for i := range c.Rules {
		abs(&c.Rules[i])
	}
	for i := range c.Listeners {
		l := &c.Listeners[i]
		abs(&l.Cert)
		abs(&l.Key)
		abs(&l.ClientCA)
	}
	return c, c.check()
}

// minReserve is what the index library needs to write down what it holds; with less
// it ends the process on a full disk.
const minReserve = 16 << 20

// goField is how the YAML library names a key.
var goField = regexp.MustCompile(`Go struct field \w+\.\w+`)

// check refuses what cannot work, naming the key.
func (c *config) check() error {
	where := c.path
	if where == "" {
		where = "configuration"
	}
	if n, err := parseSize(c.Reserve); err != nil {
		return usage("%s: reserve: %v", where, err)
	} else if n < minReserve {
		return usage("%s: reserve: at least 16MiB, so that the index can write what it holds in memory", where)
	}
	if _, err := parseSize(c.Memory); err != nil {
		return usage("%s: memory: %v", where, err)
	}
	if _, err := c.grace(); err != nil {
		return fmt.Errorf("%s: %w", where, err)
	}
	if c.HTTP != "off" {
		if err := loopback(c.HTTP); err != nil {
			return usage("%s: http: %v", where, err)
		}
	}
	for i, l := range c.Listeners {
		key := fmt.Sprintf("%s: listeners[%d]", where, i)
		switch l.Way {
		case "syslog-udp", "syslog-tcp", "relp":
			if err := loopback(l.Address); err != nil {
				return usage("%s.address: %v", key, err)
			}
		case "syslog-tls":
			if l.Cert == "" || l.Key == "" {
				return usage("%s: syslog-tls needs cert and key", key)
			}
			if _, _, err := net.SplitHostPort(l.Address); err != nil {
				return usage("%s.address: %v", key, err)
			}
			if l.ClientCA == "" {
				if err := loopback(l.Address); err != nil {
					return usage("%s.address: without client_ca, %v", key, err)
				}
			}
		default:
			return usage("%s.way: %q is none of syslog-udp, syslog-tcp, syslog-tls, relp", key, l.Way)
		}
		if l.Source == "" {
			return usage("%s.source: the name under which a PIA knows it is missing", key)
		}
	}
	if err := c.Keyholder.check("dir", c.Keyholder.Dir); err != nil {
		return usage("%s: keyholder.%v", where, err)
	}
	if err := c.Broker.check("socket", c.Broker.Socket); err != nil {
		return usage("%s: broker.%v", where, err)
	}
	if err := c.Login.check(); err != nil {
		return usage("%s: login.%v", where, err)
	}
	if _, err := c.Oversight.settings(); err != nil {
		return usage("%s: oversight.%v", where, err)
	}
	for i, w := range c.Witnesses {
		if w.VKey == "" || w.URL == "" {
			return usage("%s: witnesses[%d]: vkey and url are what counterseal witness printed; both are needed", where, i)
		}
		if err := checkWitnessVKey(fmt.Sprintf("%s: witnesses[%d].vkey", where, i), w.VKey); err != nil {
			return err
		}
		if u, err := url.Parse(w.URL); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			return usage("%s: witnesses[%d].url: an http or https address", where, i)
		}
	}
	if c.WitnessThreshold < 0 || c.WitnessThreshold > len(c.Witnesses) {
		return usage("%s: witness_threshold: from 0 to the %d witnesses", where, len(c.Witnesses))
	}
	return nil
}

// ledger says who watches the ledger.
func (c *config) ledger() pipeline.LedgerOptions {
	o := pipeline.LedgerOptions{Threshold: c.WitnessThreshold, RunBy: c.RunBy}
	for _, w := range c.Witnesses {
		o.Witnesses = append(o.Witnesses, ledger.Witness{VKey: w.VKey, URL: strings.TrimSuffix(w.URL, "/"), Group: w.RunBy})
	}
	for _, l := range c.Listeners {
		if l.Cert != "" {
			o.Certificates = append(o.Certificates, l.Cert)
		}
	}
	for _, cert := range []string{c.Login.Cert, c.Keyholder.Cert, c.Broker.Cert} {
		if cert != "" {
			o.Certificates = append(o.Certificates, cert)
		}
	}
	return o
}

// loopback accepts an address that only this machine reaches. Beyond it listens what knows
// who asks: the login over TLS, and syslog-tls with client certificates.
func loopback(address string) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	if host == "localhost" {
		return nil
	}
	if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
		return fmt.Errorf("%q is not a loopback address: this listens on 127.0.0.1 or [::1] alone; people reach the server by `login:` with TLS, machines by syslog-tls with client_ca or with a token by the login", host)
	}
	return nil
}

// parseSize reads 512MiB, 1GiB, 100MB or plain bytes.
func parseSize(s string) (int64, error) {
	units := []struct {
		suffix string
		n      int64
	}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}, {"B", 1}, {"", 1}}
	for _, u := range units {
		num, ok := strings.CutSuffix(s, u.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(num), 10, 64)
		if err != nil || n < 0 || n > (1<<62)/u.n {
			return 0, fmt.Errorf("%q is no size; write it like 512MiB", s)
		}
		return n * u.n, nil
	}
	return 0, fmt.Errorf("%q is no size", s)
}

// roster reads the officers, nil where none are named.
func (c *config) roster() (*officer.Roster, error) {
	if c.Officers == "" {
		return nil, nil
	}
	data, err := os.ReadFile(c.Officers)
	if err != nil {
		return nil, c.unread("officers", c.Officers, err)
	}
	return officer.ParseRoster(c.Officers, data)
}

// escrow is the officers to whom originals are sealed, nil where none are named.
func (c *config) escrow() (*keyring.Escrow, error) {
	r, err := c.roster()
	if r == nil || err != nil {
		return nil, err
	}
	return r.Escrow(), nil
}

// unread says which key of the configuration names a file that cannot be read.
func (c *config) unread(key, path string, err error) error {
	if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: reading the file: %w", key, err)
	}
	where := c.path
	if where == "" {
		where = "the configuration"
	}
	return &exitError{code: exitFailed, err: fmt.Errorf("%s: %s names %s, which is not there", where, key, path),
		hint: "make it, or leave out the key; docs/formats says what is in it"}
}

// documents reads everything that decides about records.
func (c *config) documents() (pipeline.Documents, error) {
	var d pipeline.Documents
	for _, path := range c.PIAs {
		files, err := listFiles(path, ".yaml", ".yml", ".json")
		if err != nil {
			return d, c.unread("pias", path, err)
		}
		for _, f := range files {
			data, err := os.ReadFile(f)
			if err != nil {
				return d, fmt.Errorf("reading an assessment: %w", err)
			}
			d.PIAs = append(d.PIAs, pipeline.Document{Name: f, Data: data})
		}
	}
	var err error
	if c.Protected != "" {
		if d.Protected, err = os.ReadFile(c.Protected); err != nil {
			return d, c.unread("protected", c.Protected, err)
		}
	}
	if c.Directory != "" {
		if d.Directory, err = os.ReadFile(c.Directory); err != nil {
			return d, c.unread("directory", c.Directory, err)
		}
	}
	d.Rules, err = ruleFiles(c.OwnRules, c.Rules)
	return d, err
}

// ruleFiles reads our own rules and those below the folders named.
func ruleFiles(own bool, folders []string) ([]detect.File, error) {
	var all []detect.File
	if own {
		files, err := detect.ReadFiles(rules.Files(), "rules")
		if err != nil {
			return nil, err
		}
		all = append(all, files...)
	}
	for _, dir := range folders {
		st, err := os.Stat(dir)
		if err != nil {
			return nil, fmt.Errorf("reading rules: %w", err)
		}
		if !st.IsDir() {
			data, err := os.ReadFile(dir)
			if err != nil {
				return nil, fmt.Errorf("reading rules: %w", err)
			}
			all = append(all, detect.File{Path: dir, Data: data})
			continue
		}
		files, err := detect.ReadFiles(os.DirFS(dir), dir)
		if err != nil {
			return nil, err
		}
		all = append(all, files...)
	}
	return all, nil
}

// listFiles lists a file, or the files of a folder with one of the endings, sorted.
func listFiles(path string, endings ...string) ([]string, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !st.IsDir() {
		return []string{path}, nil
	}
	var out []string
	err = filepath.WalkDir(path, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		for _, e := range endings {
			if !d.IsDir() && filepath.Ext(p) == e {
				out = append(out, p)
			}
		}
		return nil
	})
	sort.Strings(out)
	return out, err
}

func newConfig(env *environment) *cobra.Command {
	cmd := &cobra.Command{Use: "config", Short: "Show the configuration", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	var f configFlags
	show := &cobra.Command{Use: "print", Short: "Print the configuration in force, defaults included", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			c, err := f.load()
			if err != nil {
				return err
			}
			out, err := yaml.Marshal(c)
			if err != nil {
				return fmt.Errorf("printing the configuration: %w", err)
			}
			if c.path == "" {
				fmt.Fprintln(env.stdout, "# defaults; no "+configName+" was found")
			} else {
				fmt.Fprintln(env.stdout, "# from "+c.path)
			}
			_, err = env.stdout.Write(out)
			return err
		}}
	f.add(show)
	cmd.AddCommand(show)
	return cmd
}
