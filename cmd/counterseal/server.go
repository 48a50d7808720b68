package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/counterseal/counterseal/internal/alias"
	"github.com/counterseal/counterseal/internal/broker"
	"github.com/counterseal/counterseal/internal/cases"
	"github.com/counterseal/counterseal/internal/collect"
	"github.com/counterseal/counterseal/internal/durable"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/evidence"
	"github.com/counterseal/counterseal/internal/keyring"
	"github.com/counterseal/counterseal/internal/lifecycle"
	"github.com/counterseal/counterseal/internal/oversight"
	"github.com/counterseal/counterseal/internal/pipeline"
	"github.com/counterseal/counterseal/internal/web"
)

// server is everything that runs on one data directory: the lock, the pipeline,
// the handlers and the listeners. Commands without a running server make one too,
// without listeners.
type server struct {
	cfg  config
	log  *slog.Logger
	now  func() time.Time
	lock *durable.Locked
	pipe *pipeline.Pipeline
	web  *web.Server
	http *collect.HTTP
	life *lifecycle.Lifecycle

	tokens *tokens        // who makes them
	broker *broker.Client // nil: none is configured

	force     atomic.Pointer[inForce] // who may do what
	cases     *cases.Book
	oversight *oversight.Book
	aliases   *alias.Book
	signin    *signIn // nil: nobody can log in

	approving   sync.Mutex // one act of approval at a time
	complaining sync.Mutex // one complaint at a time

	counting   sync.Mutex                // one reads the whole ledger at a time
	publishing sync.Mutex                // one counts for the public page at a time
	public     atomic.Pointer[published] // what it tells

	listeners []running // open, in the order of the configuration
	loopback  net.Listener
	socket    net.Listener
}

// running is a listener of collect.
type running interface {
	Run(ctx context.Context) error
	Addr() net.Addr
	Stats() collect.Stats
}

// serverOptions are what differs between commands.
type serverOptions struct {
	log   *slog.Logger
	now   func() time.Time
	demo  bool
	child io.Writer // a key holder is a process of its own, which says this; nil: it runs here
	story func() []web.StoryLine
}

// formatVersion is the number in VERSION for the layout of a data directory.
const formatVersion = "counterseal data 1\nrecord 1\nsegment 1\nkeyring 1\nledger 1\nindex 1\nstate 1\n"

// holderVersion is the line more where a key holder makes the tokens: a version that does
// not know it would make others.
const holderVersion = "keyholder 1\n"

// beforeLedger is VERSION of a data directory from before there was a ledger. The first
// start makes one and states the segments that are there.
const beforeLedger = "counterseal data 1\nrecord 1\nsegment 1\nkeyring 1\nindex 1\nstate 1\n"

// openServer opens the data directory. The caller closes the server.
func openServer(ctx context.Context, cfg config, o serverOptions) (*server, error) {
	if err := os.MkdirAll(cfg.Data, 0o700); err != nil {
		return nil, fmt.Errorf("making the data directory: %w", err)
	}
	lock, err := durable.Lock(cfg.Data)
	if err != nil {
		return nil, err
	}
	s := &server{cfg: cfg, log: o.log, now: o.now, lock: lock}
	if s.now == nil {
		s.now = time.Now
	}
	if err := s.open(ctx, o); err != nil {
		return nil, errors.Join(err, s.tokens.close(), lock.Release())
	}
	return s, nil
}

func (s *server) open(ctx context.Context, o serverOptions) error {
	if err := errors.Join(pipeline.SettleSuccession(s.cfg.Data), checkVersion(s.cfg.Data)); err != nil {
		return err
	}
	reserve, err := parseSize(s.cfg.Reserve)
	if err != nil {
		return err
	}
	memory, err := parseSize(s.cfg.Memory)
	if err != nil {
		return err
	}
	escrow, err := s.cfg.escrow()
	if err != nil {
		return err
	}
	force, err := s.cfg.inForce()
	if err != nil {
		return err
	}
	s.force.Store(force)
	keys, err := keyring.OpenSealed(s.cfg.Data, keyring.PassphraseFrom(s.cfg.PassphraseFile))
	if err != nil {
		return err
	}
	if s.broker, err = s.cfg.Broker.client(); err != nil {
		return err
	}
	if err := s.openTokens(ctx, keys, o); err != nil {
		return err
	}
	docs, err := s.documents(ctx)
	if err != nil {
		return err
	}
	s.pipe, err = pipeline.Open(ctx, pipeline.Options{
		Dir: s.cfg.Data, Documents: docs, Log: s.log, Now: s.now, Reserve: reserve, Memory: memory,
		Segment: evidence.Options{Escrow: escrow}, Keys: keys, Tokens: s.tokens.maker, Epoch: s.tokens.epoch,
		Ledger: s.cfg.ledger(), Standing: s.ruleStands,
		Offices: func() bool { return s.force.Load().offices != nil },
		Opened: func(ctx context.Context, p *pipeline.Pipeline) error { // the gate judges the rules, and stands on the ledger
			s.pipe = p
			bound := *force
			if err := s.bindOffices(ctx, &bound); err != nil {
				return err
			}
			s.force.Store(&bound)
			return s.openGate(ctx)
		},
	})
	if err != nil {
		return errors.Join(err, s.closeGate())
	}
	if err := errors.Join(writeVersion(s.cfg.Data, s.tokens), s.started(ctx)); err != nil {
		return errors.Join(err, s.closeGate(), s.pipe.Close())
	}
	if s.signin, err = s.openLogin(ctx); err != nil {
		return errors.Join(err, s.closeGate(), s.pipe.Close())
	}
	if err := s.openLife(ctx); err != nil {
		return errors.Join(err, s.pipe.Close())
	}
	s.http, err = collect.NewHTTP(collect.HTTPOptions{Sink: s.pipe.Accept, Log: s.log, Now: s.now})
	if err != nil {
		return errors.Join(err, s.pipe.Close())
	}
	s.web, err = web.New(web.Options{
		Pipeline: s.pipe, Gate: s.gate(), Ingest: s.http.Ingest(), Bulk: s.http.Bulk(), Import: s.importFiles, Log: s.log,
		Acts: s.acts(), Checks: s.checks, Public: s.publicFacts, People: s.people(),
		Version: version(), Demo: o.demo, Story: o.story, Now: s.now, Collectors: []prometheus.Collector{wayMetrics{s}},
	})
	if err != nil {
		return errors.Join(err, s.pipe.Close())
	}
	return nil
}

// started states what runs here, before anything is answered or accepted.
func (s *server) started(ctx context.Context) error {
	binary, err := binaryDigest()
	if err != nil {
		return err
	}
	text, err := yaml.Marshal(s.cfg)
	if err != nil {
		return fmt.Errorf("writing down the configuration: %w", err)
	}
	sum := sha256.Sum256(text)
	roster, err := s.cfg.roster()
	if err != nil {
		return err
	}
	if err := s.pipe.Officers(ctx, roster); err != nil {
		return err
	}
	force := s.force.Load()
	if err := s.pipe.Started(ctx, pipeline.Start{
		Binary: hex.EncodeToString(binary[:]), Config: hex.EncodeToString(sum[:]),
		Policy: force.policy.Digest(), Offices: force.digest, Version: version(), Actor: ownActor(),
	}); err != nil {
		return err
	}
	return s.putInForce(ctx, *force)
}

// ownActor is the user of this process, as the ledger names users until there is a
// login.
func ownActor() string { return "os:" + strconv.Itoa(os.Getuid()) }

// checkVersion refuses a data directory whose formats this program does not know, and
// one whose ledger is gone: a new one would hide that.
func checkVersion(dir string) error {
	path := filepath.Join(dir, "VERSION")
	have, err := os.ReadFile(path)
	switch {
	case errors.Is(err, os.ErrNotExist), string(have) == beforeLedger:
		return nil
	case err != nil:
		return fmt.Errorf("reading VERSION: %w", err)
	case string(have) != formatVersion && string(have) != formatVersion+holderVersion:
		return fmt.Errorf("%s names formats that this version does not know: use the version that wrote it", path)
	}
	if _, err := os.Stat(filepath.Join(dir, "ledger", "log")); err != nil {
		return &exitError{code: exitFailed, err: fmt.Errorf("the ledger of %s is gone: %w", dir, err), hint: "restore ledger/ from a copy; docs/operations.md tells how"}
	}
	return nil
}

// writeVersion names the formats, once all of them are there.
func writeVersion(dir string, t *tokens) error {
	want := formatVersion
	if t.client != nil {
		want += holderVersion
	}
	path := filepath.Join(dir, "VERSION")
	if have, err := os.ReadFile(path); err == nil && string(have) == want {
		return nil
	}
	var disk durable.FS
	return disk.WriteFile(path, []byte(want), 0o600)
}

// importFiles is the import behind the API.
func (s *server) importFiles(ctx context.Context, r web.ImportRequest, progress func(collect.Progress)) (collect.Report, error) {
	return collect.Import(ctx, collect.ImportOptions{
		Paths: r.Paths, Source: r.Source, Dataset: r.Dataset, Zone: r.Zone, Sink: s.pipe.Accept,
		Withhold: s.pipe.Withholds(r.Source, r.Dataset), Progress: progress, Now: s.now,
	})
}

// listen opens every way in of the configuration, the API socket and, where the
// configuration has one, the loopback address.
func (s *server) listen() error {
	for i, l := range s.cfg.Listeners {
		o := collect.Options{Sink: s.pipe.Accept, Source: l.Source, Zone: l.Zone, Gap: s.pipe.Gap, Log: s.log, Now: s.now}
		var r running
		var err error
		switch l.Way {
		case collect.WayUDP:
			r, err = collect.ListenUDP(l.Address, o)
		case collect.WayTCP:
			r, err = collect.ListenTCP(l.Address, o)
		case collect.WayTLS:
			o.TLS = &collect.TLSFiles{Cert: l.Cert, Key: l.Key, ClientCA: l.ClientCA}
			r, err = collect.ListenTCP(l.Address, o)
		case collect.WayRELP:
			r, err = collect.ListenRELP(l.Address, o)
		}
		if err != nil {
			return fmt.Errorf("listeners[%d]: %w", i, err)
		}
		s.listeners = append(s.listeners, r)
	}
	if err := errors.Join(s.listenSocket(), s.signin.listenLogin()); err != nil {
		return err
	}
	if s.cfg.HTTP != "off" {
		var err error
		if s.loopback, err = net.Listen("tcp", s.cfg.HTTP); err != nil {
			return fmt.Errorf("http: %w", err)
		}
	}
	return nil
}

func (s *server) listenSocket() error {
	l, err := unixSocket(s.cfg.Data, "api.sock")
	if err != nil {
		return err
	}
	s.socket = l
	return nil
}

// run follows the streams and serves until the context ends. It drains in order:
// listeners first, so that nothing new arrives, then the pipeline.
func (s *server) run(ctx context.Context) error {
	aside, _ := s.pipe.Standing()
	s.logAside(aside)
	// The streams are followed until everything accepted has been read.
	following, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	followed := make(chan error, 1)
	go func() { followed <- s.pipe.Follow(following) }()

	group, gctx := errgroup.WithContext(ctx)
	for _, l := range s.listeners {
		group.Go(func() error { return l.Run(gctx) })
	}
	for l, h := range map[net.Listener]http.Handler{s.loopback: s.web.Loopback(), s.socket: s.signin.socket(s.web.Socket())} {
		if l == nil {
			continue
		}
		srv := &http.Server{
			Handler: h, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 5 * time.Minute, IdleTimeout: 2 * time.Minute,
			MaxHeaderBytes: 64 << 10, ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
		}
		if l == s.socket {
			srv.ConnContext = func(ctx context.Context, c net.Conn) context.Context { return web.WithActor(ctx, peerActor(c)) }
		}
		group.Go(func() error {
			if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				return err
			}
			return nil
		})
		group.Go(func() error {
			<-gctx.Done()
			c, cancel := context.WithTimeout(context.WithoutCancel(gctx), 5*time.Second)
			defer cancel()
			if err := srv.Shutdown(c); err != nil {
				return srv.Close()
			}
			return nil
		})
	}
	group.Go(func() error { return s.signin.run(gctx, s.web.People()) })
	group.Go(func() error { return s.reload(gctx) })
	group.Go(func() error { return s.tendCases(gctx) })
	group.Go(func() error { return s.life.Run(gctx) })
	group.Go(func() error { return s.watchPackages(gctx) })
	group.Go(func() error { return s.stateTokens(gctx) })
	group.Go(func() error { // an error of the follower ends the server
		select {
		case err := <-followed:
			followed <- err
			if err == nil && gctx.Err() == nil {
				err = errors.New("the event streams are no longer followed")
			}
			return err
		case <-gctx.Done():
			return nil
		}
	})
	err := group.Wait()
	settle, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	serr := s.pipe.Settle(settle)
	for serr != nil && errors.As(serr, new(*event.Refusal)) { // the disk is low: room may come back in time
		select {
		case <-settle.Done():
		case <-time.After(100 * time.Millisecond):
			serr = s.pipe.Settle(settle)
			continue
		}
		break
	}
	if serr != nil && err == nil {
		s.log.Warn("stopped before everything sealed was indexed; the next start goes on there", "err", serr)
	}
	stop()
	if ferr := <-followed; err == nil {
		err = ferr
	}
	return err
}

// close closes what open opened. run has returned.
func (s *server) close() error {
	return errors.Join(s.signin.close(), s.closeGate(), s.pipe.Close(), s.tokens.close(), s.lock.Release())
}

// unixSocket listens on run/NAME of a directory that this process has the lock of, for
// its owner alone.
func unixSocket(of, name string) (net.Listener, error) {
	dir := filepath.Join(of, "run")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making run/: %w", err)
	}
	path, done, err := socketPath(of, name)
	if err != nil {
		return nil, err
	}
	defer done()
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) { // of a dead process
		return nil, fmt.Errorf("removing an old socket: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("opening run/%s: %w", name, err)
	}
	if u, ok := l.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false)
	}
	if err := os.Chmod(filepath.Join(dir, name), 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("guarding run/%s: %w", name, err), l.Close())
	}
	return l, nil
}

// dialUnix reaches run/NAME of a directory.
func dialUnix(ctx context.Context, of, name string) (net.Conn, error) {
	path, done, err := socketPath(of, name)
	if err != nil {
		return nil, err
	}
	defer done()
	var d net.Dialer
	return d.DialContext(ctx, "unix", path)
}

// socketPath gives a path for run/NAME that fits the 108 bytes that the system allows,
// through a descriptor of its folder where the plain path is longer.
func socketPath(of, name string) (path string, done func(), err error) {
	path = filepath.Join(of, "run", name)
	if len(path) < 100 {
		return path, func() {}, nil
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return "", nil, err
	}
	return "/proc/self/fd/" + strconv.Itoa(int(dir.Fd())) + "/" + name, func() { dir.Close() }, nil
}
