package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"

	"github.com/counterseal/counterseal/internal/collect"
	"github.com/counterseal/counterseal/internal/demo"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/index"
	"github.com/counterseal/counterseal/internal/keyholder"
	"github.com/counterseal/counterseal/internal/keyring"
	"github.com/counterseal/counterseal/internal/web"
)

// demoOptions are the flags of demo.
type demoOptions struct {
	dir       string
	at        string
	seed      uint64
	noServe   bool
	noHotline bool
	noOffices bool
	http      string
	scale     float64
}

func newDemo(env *environment) *cobra.Command {
	var o demoOptions
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Play a built-in incident on a fresh data directory and look at it",
		Long: "Demo makes a data directory, starts Counterseal on it, and plays two days of an invented\n" +
			"agency of 40 people into it, as raw log text over loopback syslog and HTTP and from files:\n" +
			"about 50,000 benign events and an intrusion over three hosts. Then it stays up. Equal seed\n" +
			"and time give equal bytes and equal finding ids. You are the responder on duty, invented\n" +
			"people hold the other offices, and two of them stood for the rules before it began. Its\n" +
			"keys are made of the seed: send nothing real to it.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runDemo(cmd.Context(), env, o) },
	}
	cmd.Flags().StringVar(&o.dir, "data", "", "`directory` to make (default: a new temporary one)")
	cmd.Flags().StringVar(&o.at, "at", "", "`time` at which the two days end, RFC 3339 (default: now)")
	cmd.Flags().Uint64Var(&o.seed, "seed", 1, "`number` that everything is drawn from")
	cmd.Flags().BoolVar(&o.noServe, "no-serve", false, "play, print and exit")
	cmd.Flags().BoolVar(&o.noHotline, "no-hotline", false, "leave out one person's contact with the inspector general, to see that nothing changes")
	cmd.Flags().BoolVar(&o.noOffices, "no-offices", false, "put nobody in office: you are the founder, who asks about nobody in particular")
	cmd.Flags().Float64Var(&o.scale, "scale", 1, "how much goes on beside the intrusion; 1 is about 50,000 events")
	cmd.Flags().StringVar(&o.http, "http", "127.0.0.1:8420", "loopback `address` of the start page; a free port is taken where it is in use")
	return cmd
}

// demoClock runs from the end of the play, so that a play of last year is sealed
// as it would have been last year. Before the play it runs behind.
type demoClock struct {
	at, start time.Time
	behind    atomic.Int64
}

func (c *demoClock) now() time.Time {
	return c.at.Add(time.Since(c.start) - time.Duration(c.behind.Load()))
}

// demoRulesAge is how long before the end of the play two people stood for the rules: a
// day before its first event.
const demoRulesAge = demo.Window + 24*time.Hour

func runDemo(ctx context.Context, env *environment, o demoOptions) (err error) {
	began := time.Now()
	at := began.UTC().Truncate(time.Second)
	if o.at != "" {
		if at, err = time.Parse(time.RFC3339, o.at); err != nil {
			return usage("--at: write a time like 2026-03-01T12:00:00Z")
		}
	}
	if err := loopback(o.http); err != nil {
		return usage("--http: %v", err)
	}
	if !(o.scale > 0 && o.scale <= 100) {
		return usage("--scale: write a number above 0 and up to 100")
	}
	root, err := demoFolder(o.dir)
	if err != nil {
		return err
	}
	incident := demo.Play(demo.Options{Seed: o.seed, At: at, Hotline: !o.noHotline, Scale: o.scale})
	cfg, err := layDemo(root, incident, o)
	if err != nil {
		return err
	}
	clock := &demoClock{at: at, start: time.Now()}
	clock.behind.Store(int64(demoRulesAge))
	told := demoStory(incident)
	var story atomic.Pointer[[]web.StoryLine]
	story.Store(&told)
	s, err := openServer(ctx, cfg, serverOptions{
		log: slog.New(slog.NewTextHandler(env.stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
		now: clock.now, demo: true, story: func() []web.StoryLine { return *story.Load() },
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	if !o.noOffices {
		if err := standForDemo(ctx, s); err != nil {
			return fmt.Errorf("standing for the rules: %w", err)
		}
	}
	clock.behind.Store(0)
	if s.cfg.HTTP = freeAddress(s.cfg.HTTP); o.noServe { // nobody looks at the page
		s.cfg.HTTP = "127.0.0.1:0"
	}
	if err := s.listen(); err != nil {
		return err
	}
	stop := s.background(ctx)
	defer func() { err = errors.Join(err, stop()) }()
	if s.hasBroker() {
		end, err := startDemoBroker(ctx, s, incident, root, clock.now, slog.New(slog.NewTextHandler(env.stderr, &slog.HandlerOptions{Level: slog.LevelWarn})))
		if err != nil {
			return fmt.Errorf("starting the broker: %w", err)
		}
		defer func() { err = errors.Join(err, end()) }()
	}

	if err := playDemo(ctx, s, incident, root); err != nil {
		return fmt.Errorf("playing the incident: %w", err)
	}
	if err := s.pipe.Settle(ctx); err != nil {
		return err
	}
	var way *pivot
	// Who asks a play of long ago tomorrow has neither its aliases nor its grants.
	if !o.noOffices && (!o.noServe || time.Since(at) < 24*time.Hour) {
		if way, err = demoPivot(ctx, s); err != nil {
			return fmt.Errorf("following the findings: %w", err)
		}
		told = append(slices.Clip(told), way.story()...)
		story.Store(&told)
	}
	if err := demoSummary(ctx, env.stdout, s, way, root, time.Since(began)); err != nil {
		return err
	}
	if o.noServe {
		return nil
	}
	fmt.Fprintf(env.stdout, "\nStart page: %s\nCtrl-C stops it; the data stays in %s\n", s.pageAddress(), root)
	<-ctx.Done()
	return nil
}

// maxSocket bounds the path of a unix socket; where the folder of a demo lies too deep it
// has no broker.
const maxSocket = 100

// demoFolder makes the folder of a demo, or refuses one that holds something.
func demoFolder(dir string) (string, error) {
	if dir == "" {
		return os.MkdirTemp("", "counterseal-demo-")
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	entries, err := os.ReadDir(abs)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	if len(entries) > 0 {
		return "", &exitError{code: exitUsage, err: fmt.Errorf("%s is not empty", dir), hint: "a demo begins with a fresh directory: name another one"}
	}
	return abs, os.MkdirAll(abs, 0o700)
}

// layDemo writes what an operator would have written: assessments, protected
// channels, directory, configuration; and the keys, from the seed.
func layDemo(root string, in *demo.Incident, o demoOptions) (config, error) {
	write := func(name string, data []byte) error {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return err
		}
		return os.WriteFile(path, data, 0o600)
	}
	for name, data := range in.PIAs {
		if err := write(filepath.Join("pias", name), data); err != nil {
			return config{}, err
		}
	}
	if err := write("protected.yaml", in.Protected); err != nil {
		return config{}, err
	}
	c := defaultConfig()
	c.Data, c.PIAs, c.Protected, c.Keyholder.Dir = "data", []string{"pias"}, "protected.yaml", "keyholder"
	if !o.noOffices && len(filepath.Join(root, brokerOrders)) < maxSocket {
		c.Broker.Socket = brokerOrders
	}
	if !o.noOffices {
		c.Offices = "offices.yaml"
		if err := write(c.Offices, in.Offices(owner())); err != nil {
			return config{}, err
		}
	}
	c.Reserve = "64MiB"
	c.Memory = "192MiB"
	c.HTTP = freeAddress(o.http)
	ways := map[string]bool{}
	for _, st := range in.Streams {
		if st.Way == "http" || st.Way == "file" || ways[st.Way+st.Source] {
			continue
		}
		ways[st.Way+st.Source] = true
		c.Listeners = append(c.Listeners, listener{Way: st.Way, Address: "127.0.0.1:0", Source: st.Source})
	}
	text, err := yaml.Marshal(c)
	if err != nil {
		return config{}, err
	}
	if err := write(configName, text); err != nil {
		return config{}, err
	}
	if err := os.MkdirAll(filepath.Join(root, "data"), 0o700); err != nil {
		return config{}, err
	}
	secret := sha256.Sum256([]byte("counterseal/demo/v1\x00" + strconv.FormatUint(o.seed, 10)))
	if err := keyring.CreateFrom(filepath.Join(root, "data"), secret); err != nil {
		return config{}, err
	}
	org, err := keyringID(filepath.Join(root, "data"))
	if err != nil {
		return config{}, err
	}
	secret = sha256.Sum256([]byte("counterseal/demo/keyholder/v1\x00" + strconv.FormatUint(o.seed, 10)))
	if err := keyholder.Create(filepath.Join(root, "keyholder"), keyholder.Setup{Org: org, Directory: in.Directory, Secret: &secret}); err != nil {
		return config{}, err
	}
	return readConfig(filepath.Join(root, configName))
}

// standForDemo lets two people in office stand for the rules, as the commands rules
// activate and rules approve do. Neither is whoever runs the demo: the findings of a rule
// open nobody to those who had a hand in it.
func standForDemo(ctx context.Context, s *server) error {
	in := func(office string) (web.Asker, error) {
		p, ok := s.force.Load().offices.Person(office)
		if !ok {
			return web.Asker{}, fmt.Errorf("nobody is in office as %s", office)
		}
		return web.Asker{Person: p, Actor: "account:" + p.ID, Fresh: true}, nil
	}
	asks, err := in(demo.RulesAskedBy)
	approves, aerr := in(demo.RulesApprovedBy)
	if err := errors.Join(err, aerr); err != nil {
		return err
	}
	if _, err := s.askForRules(ctx, asks); err != nil {
		return err
	}
	_, err = s.standForRules(ctx, approves, s.pipe.Rules().Digest())
	return err
}

// freeAddress takes another port where the one asked for is in use.
func freeAddress(want string) string {
	l, err := net.Listen("tcp", want)
	if err != nil {
		host, _, _ := net.SplitHostPort(want)
		return net.JoinHostPort(host, "0")
	}
	l.Close()
	return want
}

// playDemo sends every stream by its way in: HTTP, syslog and RELP over loopback,
// and files through an import.
func playDemo(ctx context.Context, s *server, in *demo.Incident, root string) error {
	var files []*demo.Stream
	sent := make(map[running]uint64)
	for _, st := range in.Streams {
		switch st.Way {
		case "file":
			files = append(files, st)
		case "http":
			if err := postStream(ctx, s, st); err != nil {
				return fmt.Errorf("%s: %w", st.Name, err)
			}
		default:
			i := slices.IndexFunc(s.cfg.Listeners, func(l listener) bool { return l.Way == st.Way && l.Source == st.Source })
			l := s.listeners[i]
			var err error
			if st.Way == collect.WayRELP {
				err = sendRELP(ctx, l.Addr().String(), st)
			} else {
				err = sendSyslog(ctx, l.Addr().String(), st)
			}
			if err != nil {
				return fmt.Errorf("%s: %w", st.Name, err)
			}
			sent[l] += uint64(st.Len())
		}
	}
	for l, n := range sent { // syslog by TCP has no acknowledgement
		for st := l.Stats(); st.Frames+st.Refused < n; st = l.Stats() {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(2 * time.Millisecond):
			}
		}
	}
	for _, st := range files {
		if err := importStream(ctx, s, st, root); err != nil {
			return fmt.Errorf("%s: %w", st.Name, err)
		}
	}
	return nil
}

// postStream posts JSON lines, each request with a key of its own.
func postStream(ctx context.Context, s *server, st *demo.Stream) error {
	base := fmt.Sprintf("http://%s/api/v1/ingest/%s", s.loopback.Addr(), st.Source)
	var body bytes.Buffer
	part := 0
	flush := func() error {
		if body.Len() == 0 {
			return nil
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, base, bytes.NewReader(body.Bytes()))
		if err != nil {
			return err
		}
		part++
		req.Header.Set("Content-Type", "application/x-ndjson")
		req.Header.Set("Idempotency-Key", "demo-"+st.Name+"-"+strconv.Itoa(part))
		body.Reset()
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		answer, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
		if err != nil {
			return err
		}
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("the server answered %s: %s", resp.Status, answer)
		}
		var a collect.Answer
		if err := json.Unmarshal(answer, &a); err != nil {
			return err
		}
		if len(a.Errors) > 0 {
			return fmt.Errorf("line %d was refused: %s", a.Errors[0].Line, a.Errors[0].Reason)
		}
		return nil
	}
	// Requests are cut by time, not by size, so that a record more or less moves no
	// other record into another request.
	var cut time.Time
	for f := range st.Frames() {
		if f.At.After(cut) || body.Len() > 8<<20 {
			if err := flush(); err != nil {
				return err
			}
			cut = f.At.Truncate(6 * time.Hour).Add(6 * time.Hour)
		}
		body.Write(f.Bytes)
		body.WriteByte('\n')
	}
	return flush()
}

// sendSyslog sends octet-counted frames over TCP, or a datagram each over UDP.
func sendSyslog(ctx context.Context, addr string, st *demo.Stream) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	var b []byte
	for f := range st.Frames() {
		b = strconv.AppendInt(b, int64(len(f.Bytes)), 10)
		b = append(b, ' ')
		b = append(b, f.Bytes...)
		if len(b) > 64<<10 {
			if _, err := conn.Write(b); err != nil {
				return errors.Join(err, conn.Close())
			}
			b = b[:0]
		}
	}
	_, err = conn.Write(b)
	return errors.Join(err, conn.Close())
}

// sendRELP sends frames by RELP and waits for every acknowledgement.
func sendRELP(ctx context.Context, addr string, st *demo.Stream) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	const window = 256
	c := relpClient{conn: conn, in: newRELPReader(conn)}
	if err := c.command("open", []byte("relp_version=0\nrelp_software=counterseal-demo\ncommands=syslog")); err != nil {
		return err
	}
	if err := c.await(0); err != nil {
		return err
	}
	for f := range st.Frames() {
		if err := c.command("syslog", f.Bytes); err != nil {
			return err
		}
		if c.open >= window {
			if err := c.await(window / 2); err != nil {
				return err
			}
		}
	}
	if err := c.await(0); err != nil {
		return err
	}
	if err := c.command("close", nil); err != nil {
		return err
	}
	return c.await(0)
}

// importStream writes a stream to a file and imports it.
func importStream(ctx context.Context, s *server, st *demo.Stream, root string) error {
	path := filepath.Join(root, "logs", st.Name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	var b bytes.Buffer
	for f := range st.Frames() {
		b.Write(f.Bytes)
		b.WriteByte('\n')
	}
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		return err
	}
	report, err := s.importFiles(ctx, web.ImportRequest{Paths: []string{path}, Source: st.Source}, nil)
	if err != nil {
		return err
	}
	for _, f := range report.Files {
		if f.Err != "" {
			return errors.New(f.Err)
		}
		if len(f.Errors) > 0 {
			return fmt.Errorf("line %d was refused: %s", f.Errors[0].Line, f.Errors[0].Reason)
		}
	}
	return nil
}

// demoStory is what the start page tells of the play.
func demoStory(in *demo.Incident) []web.StoryLine {
	first, last := in.Truth.Steps[0].Time, in.Truth.Steps[len(in.Truth.Steps)-1].Time
	return []web.StoryLine{
		{Text: fmt.Sprintf("An intrusion of %d steps ran from %s to %s.", len(in.Truth.Steps), first.UTC().Format(time.RFC3339), last.UTC().Format(time.RFC3339))},
		{Text: fmt.Sprintf("Between %s and %s the records of %s are missing: the intruder destroyed them.", in.Truth.Gap.From.UTC().Format(time.RFC3339), in.Truth.Gap.To.UTC().Format(time.RFC3339), in.Truth.Gap.Host)},
	}
}

// pivot is where a responder goes on from the findings: the account behind the most
// serious one that names somebody, and somebody whom none of them names. Both are aliases
// as whoever runs the demo sees them.
type pivot struct{ rule, account, uninvolved string }

// all asks for everything that somebody did or that was done to them.
func (p *pivot) all(alias string) string {
	return "user.uid = " + alias + " or actor.user.uid = " + alias
}

func (p *pivot) story() []web.StoryLine {
	return []web.StoryLine{
		{Text: "You are the responder on duty. “" + p.rule + "” opens the account behind it to you, 72 hours around it:", Query: p.all(p.account)},
		{Text: "Whom no finding names stays closed, and you are told what to do instead:", Query: p.all(p.uninvolved)},
		{Text: "Both questions stand in the ledger. Somebody else reviews the first."},
	}
}

// demoPivot asks as whoever runs the demo asks: over the same handlers, with a statement
// in the ledger for each question.
func demoPivot(ctx context.Context, s *server) (*pivot, error) {
	c := &client{http: &http.Client{Transport: handlerTransport{s.signin.socket(s.web.Socket())}}}
	ask := func(q string, each func(*web.Row)) error {
		resp, err := c.do(ctx, http.MethodGet, "/api/v1/search", url.Values{"q": {q}, "limit": {"10000"}}, nil)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		for dec := json.NewDecoder(resp.Body); ; {
			var r web.Row
			if err := dec.Decode(&r); errors.Is(err, io.EOF) {
				return nil
			} else if err != nil {
				return err
			}
			each(&r)
		}
	}
	var p pivot
	level := ""
	found := map[string]bool{}
	err := ask("kind = finding | sort by time", func(r *web.Row) {
		who := ""
		for _, field := range [...]string{"user.uid", "actor.user.uid"} { // who acted comes first
			if id := r.Get(field); strings.HasPrefix(id, "person-") {
				who, found[id] = id, true
			}
		}
		if l := r.Get("rule.level"); who != "" && (l == "critical" && level != l || l == "high" && level == "") {
			p.rule, p.account, level = r.Get("rule.title"), who, l
		}
	})
	if err != nil {
		return nil, err
	}
	var others []string
	failed := map[string]bool{} // a finding of a correlation may be about them, and does not say so
	err = ask("source = idp | sort by time", func(r *web.Row) {
		id := r.Get("user.uid")
		if !strings.HasPrefix(id, "person-") || found[id] {
			return
		}
		if r.Get("status_id") != "1" {
			failed[id] = true
		}
		others = append(others, id)
	})
	for _, id := range others {
		if !failed[id] {
			p.uninvolved = id
			break
		}
	}
	switch {
	case err != nil:
		return nil, err
	case p.account == "" || p.uninvolved == "":
		return nil, errors.New("the findings name nobody, or everybody")
	}
	return &p, nil
}

// demoSummary prints the finished incident on one page.
func demoSummary(ctx context.Context, w io.Writer, s *server, way *pivot, root string, took time.Duration) error {
	counts, err := s.pipe.State().Counts(ctx)
	if err != nil {
		return err
	}
	findings, err := s.pipe.Index().Findings(ctx, nil, index.Scope{}, 0)
	if err != nil {
		return err
	}
	slices.SortStableFunc(findings, func(a, b event.Finding) int { return a.From.Compare(b.From) })
	gaps, err := s.pipe.Gaps(ctx, 10_000)
	if err != nil {
		return err
	}
	var events int64
	for _, c := range counts {
		events += c.Kept
	}
	levels := map[string]int{}
	for _, f := range findings {
		levels[f.Rule.Level]++
	}
	var by []string
	for _, l := range []string{"critical", "high", "medium", "low", "informational"} {
		if levels[l] > 0 {
			by = append(by, fmt.Sprintf("%d %s", levels[l], l))
		}
	}
	fmt.Fprintf(w, "%d events of %d datasets sealed, searched by %d rules: %d findings (%s), %d gaps\n\n",
		events, len(counts), len(s.pipe.Rules().Rules()), len(findings), strings.Join(by, ", "), len(gaps))
	seen := map[string]int{}
	for _, f := range findings {
		if f.Rule.Level != "critical" && f.Rule.Level != "high" && f.Rule.Level != "medium" {
			continue
		}
		seen[f.Rule.ID]++
		if seen[f.Rule.ID] == 1 {
			fmt.Fprintf(w, "  %s  %-8s  %-60s %s\n", f.From.UTC().Format("2006-01-02T15:04:05Z"), f.Rule.Level, event.Printable(shorten(f.Rule.Title, 60)), f.Dataset)
		}
	}
	fmt.Fprintln(w)
	for _, g := range gaps {
		if g.To >= g.From && g.To > 0 {
			fmt.Fprintf(w, "  gap: %d records of %s %s are missing\n", g.To-g.From+1, g.Source, event.Printable(g.Stream))
		}
	}
	as := "You are the founder: nobody is in office."
	asks := [][2]string{{"what was found", "timeline --data " + root}, {"how often", "search --data " + root + " 'kind = finding | top 10 by rule.title'"}}
	if way != nil {
		as = "You are the responder on duty."
		asks = append(asks, [2]string{"what the account did", "search --data " + root + " '" + way.all(way.account) + "'"},
			[2]string{"refused: uninvolved", "search --data " + root + " 'user.uid = " + way.uninvolved + "'"})
	} else if s.force.Load().offices != nil {
		as = ""
	}
	asks = append(asks, [2]string{"nothing was altered", "verify --data " + root})
	fmt.Fprintf(w, "\n%s\n", joinNonEmpty(" ", fmt.Sprintf("Played and answered in %.1f s.", took.Seconds()), as, "Ask it yourself:"))
	for _, a := range asks {
		fmt.Fprintf(w, "  %-22s counterseal %s\n", a[0], a[1])
	}
	if way != nil {
		fmt.Fprintf(w, "“%s” opens that account to you, 72 hours around it; both looks stand in the ledger.\n", event.Printable(way.rule))
	}
	return nil
}
