package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/counterseal/counterseal/internal/approval"
	"github.com/counterseal/counterseal/internal/duty"
	"github.com/counterseal/counterseal/internal/ledger"
	"github.com/counterseal/counterseal/internal/officer"
	"github.com/counterseal/counterseal/internal/strict"
	"github.com/counterseal/counterseal/internal/vault"
)

// The files of a duty host's folder: docs/formats/duty.md.
const (
	dutySettingsFile = "duty.yaml"
	dutyOfficersFile = "officers.yaml"
	dutyInnerFile    = "investigation.key"
	dutyOuterFile    = "oversight.key"
	dutyWarrants     = "warrants"
	dutyForm         = "duty/v1"
)

// dutySettings is duty.yaml: what a duty host believes, and whom it answers.
type dutySettings struct {
	Form string `yaml:"apiVersion"`
	// Org is the data directory whose names it opens.
	Org string `yaml:"org"`
	// Log and Witnesses are the keys that it believes, Threshold how many of the witnesses
	// must have cosigned.
	Log       []string      `yaml:"log"`
	Witnesses []dutyWitness `yaml:"witnesses"`
	Threshold int           `yaml:"threshold"`
	// Responders are the accounts that may ask, as their certificates name them.
	Responders []string `yaml:"responders"`
	// Origin is the address at which people sign in to the server, https://host[:port]. Where
	// it is set, a request is signed by the passkey of who asks.
	Origin string `yaml:"origin"`
}

type dutyWitness struct {
	VKey  string `yaml:"vkey"`
	RunBy string `yaml:"run_by"`
}

// readDutySettings reads duty.yaml, strictly.
func readDutySettings(dir string) (*dutySettings, error) {
	data, err := os.ReadFile(filepath.Join(dir, dutySettingsFile))
	if err != nil {
		return nil, err
	}
	return parseDutySettings(data)
}

func parseDutySettings(data []byte) (*dutySettings, error) {
	s := &dutySettings{Threshold: 1}
	if len(data) > 64<<10 {
		return nil, fmt.Errorf("%s: longer than 64 KiB", dutySettingsFile)
	}
	if err := strict.NewDecoder(data).Decode(s); err != nil {
		return nil, fmt.Errorf("%s: a key that is not known, or of another form", dutySettingsFile)
	}
	id, err := uuid.Parse(s.Org)
	switch {
	case s.Form != dutyForm:
		return nil, fmt.Errorf("%s: apiVersion is not %s", dutySettingsFile, dutyForm)
	case err != nil || id.String() != s.Org:
		return nil, fmt.Errorf("%s: org is the id that counterseal keys list prints", dutySettingsFile)
	case s.Threshold < 1:
		return nil, fmt.Errorf("%s: threshold: at least one witness must have cosigned", dutySettingsFile)
	}
	if err := s.verifiers().Check(); err != nil {
		return nil, fmt.Errorf("%s: log, witnesses, threshold: %w", dutySettingsFile, err)
	}
	return s, nil
}

func (s *dutySettings) verifiers() ledger.Verifiers {
	v := ledger.Verifiers{Log: s.Log, Threshold: s.Threshold}
	for _, w := range s.Witnesses {
		v.Witnesses = append(v.Witnesses, ledger.Witness{VKey: w.VKey, Group: w.RunBy})
	}
	return v
}

// answers reports whether an account may ask.
func (s *dutySettings) answers(account string) bool {
	return account != "" && slices.ContainsFunc(s.Responders, func(a string) bool { return strings.EqualFold(a, account) })
}

// dutyHost opens names at night. It asks nobody: what it believes lies in its folder.
type dutyHost struct {
	dir          string
	inner, outer *officer.Key
	journal      *duty.Journal
	now          func() time.Time
	log          *slog.Logger
	// counted, in tests, runs when a name was counted and is not opened yet.
	counted func()

	opening sync.Mutex // one at a time
}

// warrant reads and checks the warrant of an id.
func (h *dutyHost) warrant(id string, set *dutySettings) (*warranted, error) {
	none := &duty.Refusal{Reason: "the duty host has no such warrant", Hint: "who runs the host brings it: counterseal duty install"}
	if _, err := uuid.Parse(id); err != nil {
		return nil, none
	}
	b, err := os.ReadFile(filepath.Join(h.dir, dutyWarrants, id+".json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, none
	}
	if err != nil {
		return nil, err
	}
	w, err := checkWarrant(h.dir, set, h.inner.Card(), h.outer.Card(), b)
	if err == nil && w.ID != id {
		err = errors.New("the file has another warrant than its name says")
	}
	if err != nil {
		return nil, &duty.Refusal{Reason: err.Error(), Hint: "who runs the host looks at its officers and its warrant: counterseal duty install"}
	}
	return w, nil
}

// checkWarrant checks the bytes of a warrant by the files of a duty host's folder and its
// two cards.
func checkWarrant(dir string, set *dutySettings, inner, outer *officer.Card, b []byte) (*warranted, error) {
	w, st, err := parseDutyWarrant(b)
	if err != nil {
		return nil, err
	}
	data, err := os.ReadFile(filepath.Join(dir, dutyOfficersFile))
	if err != nil {
		return nil, fmt.Errorf("the host's own copy of the officers: %w", err)
	}
	roster, err := officer.ParseRoster(dutyOfficersFile, data)
	if err != nil {
		return nil, err
	}
	p, err := w.verify(st, roster, set.verifiers(), set.Org)
	if err == nil && (p.Inner != inner.ID() || p.Outer != outer.ID()) {
		err = errors.New("the warrant is of another duty host than this one: counterseal duty card prints the entries that belong into the officers")
	}
	return p, err
}

// dutyCards reads the two cards of a duty host, which needs no passphrase.
func dutyCards(dir string) (cards [2]*officer.Card, err error) {
	for i, file := range []string{dutyInnerFile, dutyOuterFile} {
		b, err := readFile(filepath.Join(dir, file), "--dir", "counterseal duty init makes one")
		if err != nil {
			return cards, err
		}
		if cards[i], err = officer.CardOf(b); err != nil {
			return cards, err
		}
	}
	return cards, nil
}

// settingsFor gives the settings of now, for an account that the host answers.
func (h *dutyHost) settingsFor(account string) (*dutySettings, error) {
	set, err := readDutySettings(h.dir)
	if err == nil && !set.answers(account) {
		err = &duty.Refusal{Reason: "the duty host does not answer this account", Hint: "who runs the host names responders in " + dutySettingsFile}
	}
	return set, err
}

// open opens one name for the account that a certificate names. The name is counted before
// it is opened, so that a host that is killed in between has counted it.
func (h *dutyHost) open(account string, body []byte) (*dutyAnswer, error) {
	refuse := func(err error) (*dutyAnswer, error) {
		var no *duty.Refusal
		if errors.As(err, &no) {
			return nil, no
		}
		return nil, &duty.Refusal{Reason: err.Error(), Hint: "ask again: counterseal duty ask; by day two officers open a name: counterseal unmask request"}
	}
	set, err := h.settingsFor(account)
	if err != nil {
		return nil, err
	}
	r, err := parseDuty(body)
	if err != nil {
		return refuse(err)
	}
	h.opening.Lock()
	defer h.opening.Unlock()
	now := h.now().UTC()
	w, err := h.warrant(r.objects.warrant, set)
	if err != nil {
		return nil, err
	}
	night, err := w.At(now)
	if err != nil {
		return nil, err
	}
	if r.st.Org != set.Org {
		return refuse(errors.New("the request is of another data directory"))
	}
	v := set.verifiers()
	if err := r.verify(account, w, v, now); err != nil {
		return refuse(err)
	}
	if set.Origin != "" {
		by, err := r.By.verify(r.st, []byte(r.Statement), r.objects.account, set.Origin, v, now)
		if err == nil {
			err = by.fresh(now)
		}
		if err != nil {
			return refuse(err)
		}
	}
	if err := h.reviewed(w, append(slices.Clone(w.reviews), r.Reviews...), v, now); err != nil {
		return refuse(err)
	}
	number := 0
	plain, err := officer.OpenBoth(h.inner, h.outer, r.row.Info(), r.row.Boxes(), func() (err error) {
		number, err = h.journal.Take(duty.Release{ID: r.st.ID, At: now, Night: night, Warrant: w.ID}, w.Names)
		if err == nil && h.counted != nil {
			h.counted()
		}
		return err
	})
	switch {
	case errors.Is(err, officer.ErrOtherOfficer):
		return nil, &duty.Refusal{Reason: "the name was sealed before there was this duty host", Hint: "two officers open it: counterseal unmask request"}
	case number == 0 && err != nil:
		return nil, err
	case err != nil:
		return refuse(err)
	}
	defer clear(plain)
	id, err := vault.ParseIdentity(plain)
	if err != nil {
		return refuse(err)
	}
	signed, err := h.inner.Sign(approval.Approve, []byte(r.Statement))
	if err != nil {
		return nil, err
	}
	h.log.Info("a name was opened", "request", r.st.ID, "night", night, "number", number)
	return &dutyAnswer{Identity: id.Canonical, Kind: string(rune(id.Kind)), Number: number, Signed: signed}, nil
}

// reviewed notes the reviews that a server proves, and refuses where one is missing.
func (h *dutyHost) reviewed(w *warranted, proofs []receipt, v ledger.Verifiers, now time.Time) error {
	missing := w.unreviewed(h.journal.All(), now)
	if len(missing) == 0 {
		return nil
	}
	done, err := provenReviews(proofs, missing, v)
	if err != nil {
		return err
	}
	for _, id := range missing {
		if !done[id] {
			continue
		}
		if err := h.journal.Review(id); err != nil {
			return err
		}
	}
	return stillUnreviewed(missing, done)
}

// stillUnreviewed is the refusal where a review is missing.
func stillUnreviewed(missing []string, done map[string]bool) error {
	if n := len(missing) - len(done); n > 0 {
		return &duty.Refusal{Reason: fmt.Sprintf("%d names that were opened before are not reviewed", n), Hint: "an overseer: counterseal oversight queue, counterseal oversight review; until then two officers open a name: counterseal unmask request"}
	}
	return nil
}

// dutyReady is what a duty host answers before it is asked.
type dutyReady struct {
	Signed bool `json:"signed"` // a request is signed by passkey
}

// dutyNo is what a duty host answers where it opens nothing.
type dutyNo struct {
	Reason string `json:"reason"`
	Hint   string `json:"hint,omitempty"`
}

// ServeHTTP answers GET /ready to a responder, and POST /open with a request.
func (h *dutyHost) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	say := func(status int, answer any) {
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(answer) // who asked may have gone
	}
	account := ""
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		account = r.TLS.PeerCertificates[0].Subject.CommonName
	}
	var answer *dutyAnswer
	var ready dutyReady
	var err error
	switch r.Method + " " + r.URL.Path {
	case "GET /ready":
		var set *dutySettings
		if set, err = h.settingsFor(account); err == nil {
			ready.Signed = set.Origin != ""
		}
	case "POST /open":
		var body []byte
		if body, err = io.ReadAll(http.MaxBytesReader(w, r.Body, maxDuty)); err != nil {
			say(http.StatusBadRequest, dutyNo{Reason: "the request is too large or was broken off"})
			return
		}
		answer, err = h.open(account, body)
	default:
		say(http.StatusNotFound, dutyNo{Reason: "a duty host opens a name and does nothing else"})
		return
	}
	var no *duty.Refusal
	switch {
	case errors.As(err, &no):
		h.log.Warn("refused", "reason", no.Reason)
		say(http.StatusForbidden, dutyNo{no.Reason, no.Hint})
	case err != nil:
		h.log.Error("the duty host cannot open names", "err", err)
		say(http.StatusInternalServerError, dutyNo{Reason: "the duty host has a fault of its own", Hint: "its log says which"})
	case answer == nil:
		say(http.StatusOK, ready)
	default:
		say(http.StatusOK, answer)
		clear(answer.Identity)
	}
}

// serve answers on a listener until ctx ends.
func (h *dutyHost) serve(ctx context.Context, l net.Listener) error {
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 20 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(h.log.Handler(), slog.LevelDebug)}
	done := make(chan error, 1) // the goroutine below ends with the listener
	go func() { done <- srv.Serve(l) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if err := srv.Shutdown(stop); err != nil {
		return err
	}
	if err := <-done; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// dutyClient reaches a duty host with the certificate of a responder.
type dutyClient struct {
	http *http.Client
	base string
}

func dialDuty(address, cert, key, ca string) (*dutyClient, error) {
	conf, err := (&OtherHost{address, cert, key, ca}).tls("the duty host: ")
	if err != nil {
		return nil, err
	}
	t := &http.Transport{TLSClientConfig: conf, DisableKeepAlives: true, Proxy: nil}
	return &dutyClient{&http.Client{Transport: t, Timeout: 40 * time.Second, CheckRedirect: noRedirect}, "https://" + address}, nil
}

// do asks the host. What it refuses is an exitError with what to do next.
func (c *dutyClient) do(ctx context.Context, method, path string, body []byte, out any) error {
	r, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	w, err := c.http.Do(r)
	if err != nil {
		var op *net.OpError
		if errors.As(err, &op) && op.Op == "remote error" { // an alert of TLS
			return &exitError{code: exitRefused, err: errors.New("the duty host does not take this certificate"), hint: "--tls-cert is the one that its authority signed for your account"}
		}
		return &exitError{code: exitFailed, err: errors.New("the duty host does not answer"), hint: "look at --host and --host-ca, and ask who runs it; two officers open a name: counterseal unmask request"}
	}
	defer w.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(w.Body, 1<<20))
	if err != nil {
		return errors.New("the answer of the duty host was broken off: it has counted the name")
	}
	defer clear(raw)
	if w.StatusCode != http.StatusOK {
		var no dutyNo
		if json.Unmarshal(raw, &no) != nil || no.Reason == "" {
			return errors.New("the duty host answers with nonsense")
		}
		code := exitFailed
		if w.StatusCode == http.StatusForbidden {
			code = exitRefused
		}
		return &exitError{code: code, err: errors.New("the duty host: " + no.Reason), hint: no.Hint}
	}
	if json.Unmarshal(raw, out) != nil {
		return errors.New("the duty host answers with nonsense")
	}
	return nil
}
