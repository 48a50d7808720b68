package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/counterseal/counterseal/internal/approval"
	"github.com/counterseal/counterseal/internal/attest"
	"github.com/counterseal/counterseal/internal/durable"
	"github.com/counterseal/counterseal/internal/keyholder"
	"github.com/counterseal/counterseal/internal/keyring"
	"github.com/counterseal/counterseal/internal/pipeline"
	"github.com/counterseal/counterseal/internal/pseudonym"
)

// tokens is who makes the tokens of a server. nil makes none.
type tokens struct {
	maker  pseudonym.Tokenizer
	epoch  int
	client *keyholder.Client // nil: the key of the data directory itself
	dir    string            // the holder's folder on this machine; empty: another host
	dial   keyholder.Dial
	own    bool                // epoch 1 was made with the key of the data directory
	before pseudonym.Tokenizer // that key, where own
	stop   func() error        // what was started for it

	mu   sync.Mutex
	from time.Time // of the window that the ledger has not heard of
	told keyholder.Stats
}

func (t *tokens) close() error {
	if t == nil {
		return nil
	}
	var err error
	if t.client != nil {
		err = t.client.Close()
	}
	if t.stop != nil {
		err = errors.Join(err, t.stop())
	}
	t.client, t.stop = nil, nil
	return err
}

// tokensFile is tokens.json in the data directory: by whose key its tokens were made.
const tokensFile = "tokens.json"

// tokensForm is the file. Check tells a key again and nothing about it.
type tokensForm struct {
	Check string `json:"check"`
	Epoch int    `json:"epoch"`
	Org   string `json:"org"`
	Own   bool   `json:"own"` // epoch 1 is of the data directory's own key
	V     int    `json:"v"`
}

func readTokensFile(data string) (*tokensForm, *keyholder.Identity, error) {
	b, err := os.ReadFile(filepath.Join(data, tokensFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("reading %s: %w", tokensFile, err)
	}
	var f tokensForm
	if err := approval.Decode(b, &f); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", tokensFile, err)
	}
	org, err := uuid.Parse(f.Org)
	check, herr := hex.DecodeString(f.Check)
	if err != nil || herr != nil || len(check) != 16 || f.Epoch < 1 || f.V != 1 {
		return nil, nil, fmt.Errorf("%s is damaged: restore it from the backup of the data directory", tokensFile)
	}
	return &f, &keyholder.Identity{Org: org, Epoch: f.Epoch, Check: [16]byte(check)}, nil
}

// hasTokens reports whether a data directory was in use.
func hasTokens(data string) (bool, error) {
	_, err := os.Stat(filepath.Join(data, "VERSION"))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// openTokens finds who makes tokens: the key holder of the configuration; for data that
// never had tokens a new one; for data from before there were any, its own key.
func (s *server) openTokens(ctx context.Context, keys *keyring.Keyring, o serverOptions) error {
	c := s.cfg.Keyholder
	form, known, err := readTokensFile(s.cfg.Data)
	if err != nil {
		return err
	}
	begun, err := hasTokens(s.cfg.Data)
	if err != nil {
		return err
	}
	if version, err := os.ReadFile(filepath.Join(s.cfg.Data, "VERSION")); err == nil && form == nil && strings.HasSuffix(string(version), holderVersion) {
		return &exitError{code: exitFailed, err: fmt.Errorf("%s is gone from %s, which says whose tokens these are", tokensFile, s.cfg.Data), hint: "restore it from the backup of the data directory"}
	}
	if form == nil && begun && c.Dir == "" && c.Address == "" {
		local, err := pseudonym.NewLocal(keys.MACKey("token/1"), keys.ID(), 1)
		s.tokens = &tokens{maker: local, epoch: 1}
		return err
	}
	t := &tokens{from: s.now().UTC(), own: form == nil && begun || form != nil && form.Own}
	s.tokens = t
	if t.own {
		if t.before, err = pseudonym.NewLocal(keys.MACKey("token/1"), keys.ID(), 1); err != nil {
			return err
		}
	}
	co := keyholder.ClientOptions{Known: known, Timeout: 10 * time.Second, Log: s.log}
	if known == nil {
		co.Known = &keyholder.Identity{Org: keys.ID()}
	} else if known.Org != keys.ID() {
		return fmt.Errorf("%s is of another data directory", tokensFile)
	}
	hint := "counterseal keyholder init --dir DIR --data " + s.cfg.Data
	if c.Address != "" {
		if co.Dial, err = c.dial("keyholder."); err != nil {
			return err
		}
		hint = "it must run there with a folder made by: counterseal keyholder init --org " + keys.ID().String()
	} else {
		if c.Dir == "" {
			c.Dir = filepath.Clean(s.cfg.Data) + "-keyholder"
		}
		t.dir = c.Dir
		if err := keyholder.Apart(c.Dir, s.cfg.Data); err != nil {
			return usage("keyholder.dir: %v", err)
		}
		there, err := keyholder.Exists(c.Dir)
		switch {
		case err != nil:
			return fmt.Errorf("keyholder.dir: %w", err)
		case !there && form == nil && !begun:
			set := keyholder.Setup{Org: keys.ID()}
			if c.PassphraseFile != "" {
				if set.Passphrase, err = keyring.PassphraseFrom(c.PassphraseFile)(); err != nil {
					return err
				}
			}
			if err := keyholder.Create(c.Dir, set); err != nil {
				return err
			}
		case !there && form != nil:
			return &exitError{code: exitFailed, err: fmt.Errorf("the folder of the key holder that made the tokens of %s is not at %s", s.cfg.Data, c.Dir),
				hint: "restore it from its backup, or name it under keyholder.dir: another key would make other tokens"}
		case !there:
			return &exitError{code: exitFailed, err: errors.New("keyholder.dir: there is no folder of a key holder"), hint: hint}
		}
		if co.Dial, t.stop, err = s.startHolder(ctx, c, o); err != nil {
			return err
		}
	}
	t.dial = co.Dial
	if t.client, err = connectHolder(ctx, co); err != nil {
		if c.Address != "" && known != nil {
			hint = "the folder that made the tokens must run there: that of the host of before, or " + filepath.Clean(s.cfg.Data) + "-keyholder of this one"
		}
		return &exitError{code: exitFailed, err: fmt.Errorf("keyholder: %w", err), hint: hint}
	}
	who := t.client.Identity()
	if form == nil && begun && who.Epoch < 2 {
		return &exitError{code: exitFailed, err: errors.New("keyholder: the data has tokens of epoch 1 already, made with another key"), hint: hint}
	}
	t.maker, t.epoch = t.client, who.Epoch
	text, err := approval.Canonical(tokensForm{Check: hex.EncodeToString(who.Check[:]), Epoch: who.Epoch, Org: who.Org.String(), Own: t.own, V: 1})
	if err != nil {
		return err
	}
	if known != nil && *known == who {
		return nil
	}
	var d durable.FS
	return d.WriteFile(filepath.Join(s.cfg.Data, tokensFile), text, 0o600)
}

// makerOf gives who makes the tokens of an epoch, to compare a name with one that was made
// then. keyholder.ErrEpoch says that the key of that epoch is gone. done is called after.
func (t *tokens) makerOf(ctx context.Context, epoch int) (m pseudonym.Tokenizer, done func(), err error) {
	switch {
	case epoch == t.epoch:
		return t.maker, func() {}, nil
	case epoch == 1 && t.own:
		return t.before, func() {}, nil
	case t.client == nil || epoch < 1:
		return nil, nil, keyholder.ErrEpoch
	}
	c, err := t.connect(ctx, epoch)
	if err != nil {
		return nil, nil, err
	}
	return c, func() { c.Close() }, nil
}

// connect reaches the key of another epoch, at the holder of this one.
func (t *tokens) connect(ctx context.Context, epoch int) (*keyholder.Client, error) {
	now := t.client.Identity()
	return keyholder.Connect(ctx, keyholder.ClientOptions{Dial: t.dial, Known: &now, Epoch: epoch, Timeout: 10 * time.Second})
}

// connectHolder knows the holder by the epoch that the data has, and then takes its newest.
func connectHolder(ctx context.Context, o keyholder.ClientOptions) (*keyholder.Client, error) {
	o.Epoch = o.Known.Epoch
	c, err := keyholder.Connect(ctx, o)
	if err != nil || o.Epoch == 0 {
		return c, err
	}
	st, err := c.Stats(ctx)
	if err == nil && st.Epoch <= o.Epoch {
		return c, nil
	}
	if err := errors.Join(err, c.Close()); err != nil {
		return nil, err
	}
	o.Epoch = st.Epoch
	return keyholder.Connect(ctx, o)
}

// startHolder starts the key holder of a folder: a process of its own under serve, and
// else in this process, for as long as a command lasts.
func (s *server) startHolder(ctx context.Context, c keyholderConfig, o serverOptions) (keyholder.Dial, func() error, error) {
	if o.child != nil {
		exe, err := os.Executable()
		if err != nil {
			return nil, nil, fmt.Errorf("finding this program: %w", err)
		}
		args := []string{"keyholder", "serve", "--child", "--dir", c.Dir}
		if c.PassphraseFile != "" {
			args = append(args, "--passphrase-file", c.PassphraseFile)
		}
		p := &childProcess{program: exe, args: args, stderr: o.child, log: s.log, done: make(chan struct{})}
		go p.run()
		dir := c.Dir
		return func(ctx context.Context) (net.Conn, error) { return dialUnix(ctx, dir, "ingest.sock") }, p.close, nil
	}
	h, err := openHolder(ctx, c.Dir, keyholder.Options{Passphrase: keyring.PassphraseFrom(c.PassphraseFile), Log: s.log, Now: s.now, Ledger: holderLedger})
	if err != nil {
		return nil, nil, err
	}
	q, err := unixSocket(c.Dir, "question.sock")
	if err != nil {
		return nil, nil, errors.Join(err, h.Close())
	}
	l := newPipeListener()
	run, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	var serr, qerr error
	group.Go(func() { serr = h.Ingest(run, l) })
	group.Go(func() { qerr = h.Questions(run, q) })
	group.Go(func() { h.Watch(run) }) // ends without an error
	return l.dial, func() error {
		cancel()
		group.Wait()
		os.Remove(filepath.Join(c.Dir, "run", "question.sock"))
		return errors.Join(serr, qerr, h.Close())
	}, nil
}

// childProcess keeps a process alive that ends when its standard input does, so also when
// this process is killed.
type childProcess struct {
	program string
	args    []string
	stderr  io.Writer
	log     *slog.Logger
	done    chan struct{}

	mu     sync.Mutex
	ending bool
	stdin  io.Closer
	cmd    *exec.Cmd
}

func (p *childProcess) run() {
	defer close(p.done)
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, 2*time.Second) {
		began := time.Now()
		err := p.start()
		if err == nil {
			err = p.cmd.Wait()
		}
		p.mu.Lock()
		ending := p.ending
		p.mu.Unlock()
		if ending {
			return
		}
		p.log.Error("the key holder ended; it is started again", "err", err)
		if time.Since(began) > time.Minute {
			wait = 50 * time.Millisecond
		}
		time.Sleep(wait)
	}
}

func (p *childProcess) start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ending {
		return errors.New("it is to end")
	}
	cmd := exec.Command(p.program, p.args...)
	cmd.Stderr = p.stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	p.cmd, p.stdin = cmd, in
	return cmd.Start()
}

// close ends the process, in order first.
func (p *childProcess) close() error {
	p.mu.Lock()
	p.ending = true
	if p.stdin != nil {
		p.stdin.Close()
	}
	cmd := p.cmd
	p.mu.Unlock()
	select {
	case <-p.done:
		return nil
	case <-time.After(10 * time.Second):
	}
	if cmd != nil && cmd.Process != nil {
		cmd.Process.Kill()
	}
	<-p.done
	return errors.New("the key holder did not end by itself")
}

// pipeListener takes connections of this process.
type pipeListener struct {
	conns chan net.Conn
	once  sync.Once
	done  chan struct{}
}

func newPipeListener() *pipeListener {
	return &pipeListener{conns: make(chan net.Conn), done: make(chan struct{})}
}

func (l *pipeListener) dial(ctx context.Context) (net.Conn, error) {
	mine, theirs := net.Pipe()
	select {
	case l.conns <- theirs:
		return mine, nil
	case <-l.done:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

func (l *pipeListener) Addr() net.Addr { return pipeAddr{} }

type pipeAddr struct{}

func (pipeAddr) Network() string { return "pipe" }
func (pipeAddr) String() string  { return "this process" }

// documents are those of the configuration, with the directory file of the key holder,
// which is in memory only.
func (s *server) documents(ctx context.Context) (pipeline.Documents, error) {
	d, err := s.cfg.documents()
	if err != nil || s.cfg.Directory != "" || s.tokens.client == nil {
		return d, err
	}
	d.Directory, err = s.tokens.client.Directory(ctx)
	if err != nil {
		return d, fmt.Errorf("reading the directory of the key holder: %w", err)
	}
	return d, nil
}

// stamp changes when a document does, those of the key holder included.
func (s *server) stamp() (string, error) {
	files, err := s.cfg.stamp()
	if err == nil && s.tokens.client != nil {
		files += fmt.Sprintf("%x", s.tokens.client.Digest())
	}
	return files, err
}

// stateTokens tells the ledger every 10 minutes, and at the end, what the key holder was
// asked for.
func (s *server) stateTokens(ctx context.Context) error {
	if s.tokens.client == nil {
		return nil
	}
	if st, err := s.tokens.client.Stats(ctx); err == nil { // a key may have been destroyed while nobody ran
		if err := s.stateDestroyed(ctx, st); err != nil && ctx.Err() == nil {
			s.log.Error("that a key of tokens was destroyed could not be stated; tried again", "err", err)
		}
	}
	tick := time.NewTicker(10 * time.Minute)
	defer tick.Stop()
	for {
		ended := false
		select {
		case <-ctx.Done():
			ended = true
		case <-tick.C:
		}
		c, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		err := s.stateTokenWindow(c)
		cancel()
		if err != nil {
			s.log.Error("what the key holder was asked could not be stated", "err", err)
		}
		if ended {
			return nil
		}
	}
}

func (s *server) stateTokenWindow(ctx context.Context) error {
	t := s.tokens
	st, err := t.client.Stats(ctx)
	if err != nil {
		return err
	}
	if err := s.stateDestroyed(ctx, st); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	last := t.told
	if last.Since != st.Since { // another process, which counts anew
		last = keyholder.Stats{}
	}
	now := s.now().UTC()
	d := map[string]any{
		"from": t.from.Format(time.RFC3339Nano), "to": now.Format(time.RFC3339Nano),
		"asked": st.Asked - last.Asked, "new": st.New - last.New, "refused": st.Refused - last.Refused,
		"questions": st.Questions - last.Questions, "questions_refused": st.QuestionsRefused - last.QuestionsRefused,
		"question_names": st.QuestionNames - last.QuestionNames,
		"lists":          st.Lists - last.Lists, "lists_recent": st.ListsRecent, "lists_refused": st.ListsRefused - last.ListsRefused,
	}
	if d["asked"] == int64(0) && d["questions"] == int64(0) && d["questions_refused"] == int64(0) && d["lists"] == int64(0) && st.ListsRecent <= last.ListsRecent && d["lists_refused"] == int64(0) {
		t.from, t.told = now, st
		return nil
	}
	if _, err := s.pipe.Recorder().Record(ctx, attest.Act{Kind: "keyholder.window", Actor: attest.System, Subject: []string{st.Org}, Detail: d}); err != nil {
		return err
	}
	t.from, t.told = now, st
	return nil
}

// tokenChecks says who can turn names into tokens.
func (s *server) tokenChecks(ctx context.Context) []pipeline.Check {
	var out []pipeline.Check
	add := func(state, text, hint string) {
		out = append(out, pipeline.Check{Name: "tokens", State: state, Text: text, Hint: hint})
	}
	t := s.tokens
	if t.client == nil {
		add("warn", "whoever reads this disk can undo tokens: the key lies in the data directory", "counterseal keyholder init --dir DIR --data "+s.cfg.Data+"; it begins a new epoch")
		return out
	}
	if t.dir != "" {
		add("warn", "a process of its own has the key; whoever reads its folder on this machine can undo tokens", "run counterseal keyholder serve on another host")
	} else {
		add("ok", "another host has the key", "")
	}
	if t.own {
		add("warn", "tokens of epoch 1 were made with the key of the data directory: whoever reads it can test names against them", "they stay so until their retention ends")
	}
	if s.cfg.Directory != "" {
		add("warn", "the directory file lies on the server", "give it to the key holder as directory.yaml and leave `directory` out: it is then in memory only")
	}
	n, at, _ := s.pipe.NoTokens()
	if n > 0 && s.now().Sub(at) < 24*time.Hour {
		add("warn", fmt.Sprintf("%d requests had to wait for a token, the last at %s", n, at.UTC().Format(time.RFC3339)), "the log of the server says why")
	}
	st, err := t.client.Stats(ctx)
	if err != nil {
		add("fail", "the key holder does not answer, so nothing with a new name is taken", "look at its log")
		return out
	}
	if last, err := time.Parse(time.RFC3339, st.LastRefused); err == nil && s.now().Sub(last) < 24*time.Hour {
		add("fail", fmt.Sprintf("the quota of new names was used up at %s and %d were refused since %s: somebody tests names, or a source brings many", st.LastRefused, st.Refused, st.Since),
			"find out who asked; keyholder.yaml has the quota")
	}
	return out
}
