package ledger

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"

	fnote "github.com/transparency-dev/formats/note"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/counterseal/counterseal/internal/durable"
)

// sizeType is the content type of the one 409 that a log may answer by itself.
const sizeType = "text/x.tlog.size"

// WitnessServer is a witness (c2sp.org/tlog-witness): it remembers, for each log it
// knows, the last checkpoint that it cosigned, and cosigns another only when the
// log proves that it has grown from it. It belongs on another host, under other
// hands.
//
// Layout of its directory: key (the signing key, 0600), logs/<SHA-256 of the
// origin> (the last checkpoint cosigned), incidents/ (refused forks).
type WitnessServer struct {
	dir    string
	fs     durable.FS
	log    *slog.Logger
	lock   *durable.Locked
	sign   *fnote.Signer
	vkey   string
	logs   map[string][]note.Verifier // by origin
	refuse func(what string)
	mu     map[string]*sync.Mutex // by origin: check and store are one step
}

// WitnessOptions say where a witness keeps its state and whom it knows.
type WitnessOptions struct {
	Dir  string
	Name string   // of its key, used when the key is made; no space, no plus
	Logs []string // vkeys of the logs that it knows
	Log  *slog.Logger
	FS   durable.FS
	// OnFork is told of each refused fork; nil: nobody but the log.
	OnFork func(what string)
}

// OpenWitness opens the directory of a witness and makes its key on the first call.
func OpenWitness(o WitnessOptions) (w *WitnessServer, err error) {
	w = &WitnessServer{dir: o.Dir, fs: o.FS, log: o.Log, logs: map[string][]note.Verifier{}, mu: map[string]*sync.Mutex{}, refuse: o.OnFork}
	if w.log == nil {
		w.log = slog.New(slog.DiscardHandler)
	}
	for i, k := range o.Logs {
		v, err := note.NewVerifier(k)
		if err != nil {
			return nil, fmt.Errorf("log %d: %w", i+1, err)
		}
		w.logs[v.Name()] = append(w.logs[v.Name()], v)
		w.mu[v.Name()] = &sync.Mutex{}
	}
	if err := o.FS.MkdirAll(filepath.Join(o.Dir, "logs"), 0o700); err != nil {
		return nil, fmt.Errorf("opening the witness: %w", err)
	}
	if w.lock, err = durable.Lock(o.Dir); err != nil {
		return nil, fmt.Errorf("opening the witness: %w", err)
	}
	lock := w.lock
	defer func() {
		if err != nil {
			lock.Release()
		}
	}()
	skey, err := w.key(o.Name)
	if err != nil {
		return nil, err
	}
	if w.sign, err = fnote.NewSignerForCosignatureV1(skey); err != nil {
		return nil, fmt.Errorf("the key of the witness in %s is broken", o.Dir)
	}
	parts := strings.SplitN(skey, "+", 5) // base64 has a + too
	raw, err := base64.StdEncoding.DecodeString(parts[len(parts)-1])
	if err != nil || len(raw) != 1+ed25519.SeedSize {
		return nil, fmt.Errorf("the key of the witness in %s is broken", o.Dir)
	}
	pub := ed25519.NewKeyFromSeed(raw[1:]).Public().(ed25519.PublicKey)
	plain, err := note.NewEd25519VerifierKey(w.sign.Name(), pub)
	if err != nil {
		return nil, fmt.Errorf("the key of the witness in %s is broken", o.Dir)
	}
	if w.vkey, err = fnote.VKeyToCosignatureV1(plain); err != nil {
		return nil, fmt.Errorf("the key of the witness in %s is broken", o.Dir)
	}
	return w, nil
}

// key reads the signing key, or makes it where the witness has cosigned nothing.
func (w *WitnessServer) key(name string) (string, error) {
	path := filepath.Join(w.dir, "key")
	b, err := os.ReadFile(path)
	if err == nil {
		return strings.TrimSuffix(string(b), "\n"), nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("reading the key of the witness: %w", err)
	}
	des, err := os.ReadDir(filepath.Join(w.dir, "logs"))
	if err != nil {
		return "", fmt.Errorf("opening the witness: %w", err)
	}
	if len(des) > 0 {
		return "", fmt.Errorf("%s has state and no key: restore the key", w.dir)
	}
	if err := checkOrigin(name); err != nil {
		return "", errors.New("the name of a witness is letters, digits and . _ - : / only")
	}
	skey, _, err := note.GenerateKey(rand.Reader, name)
	if err != nil {
		return "", fmt.Errorf("making the key of the witness: %w", err)
	}
	if err := w.fs.WriteNew(path, []byte(skey+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("keeping the key of the witness: %w", err)
	}
	return skey, nil
}

// VKey is the public key to give to logs and verifiers.
func (w *WitnessServer) VKey() string { return w.vkey }

// Close gives the directory back. No request may be under way.
func (w *WitnessServer) Close() error { return w.lock.Release() }

// refusal is an answer other than 200.
type refusal struct {
	status int
	size   bool // the body is a size
	body   string
}

// ServeHTTP answers POST …/add-checkpoint and nothing else.
func (w *WitnessServer) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/add-checkpoint" && !strings.HasSuffix(r.URL.Path, "/add-checkpoint") {
		http.Error(rw, "POST add-checkpoint", http.StatusNotFound)
		return
	}
	if r.Method != http.MethodPost {
		rw.Header().Set("Allow", http.MethodPost)
		http.Error(rw, "POST add-checkpoint", http.StatusMethodNotAllowed)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(rw, r.Body, maxCheckpoint))
	var large *http.MaxBytesError
	if errors.As(err, &large) {
		http.Error(rw, "more than 64 KiB", http.StatusRequestEntityTooLarge)
		return
	}
	if err != nil {
		http.Error(rw, "the body broke off", http.StatusBadRequest)
		return
	}
	sig, no, err := w.add(body)
	switch {
	case err != nil:
		w.log.Error("cannot keep a checkpoint", "error", err)
		http.Error(rw, "cannot keep the checkpoint", http.StatusInternalServerError)
	case no != nil && no.size:
		rw.Header().Set("Content-Type", sizeType)
		rw.WriteHeader(no.status)
		io.WriteString(rw, no.body+"\n")
	case no != nil:
		http.Error(rw, no.body, no.status)
	default:
		rw.Header().Set("Content-Type", "text/plain; charset=utf-8")
		rw.Write(sig)
	}
}

// request is the body of add-checkpoint.
type request struct {
	old        int64
	proof      []tlog.Hash
	checkpoint []byte
	origin     string
	tree
}

// parseRequest reads the body: "old <size>", at most 63 hashes, an empty line, a
// signed checkpoint.
func parseRequest(body []byte) (q request, err error) {
	head, cp, ok := bytes.Cut(body, []byte("\n\n"))
	if !ok {
		return q, errors.New("no empty line before the checkpoint")
	}
	lines := strings.Split(string(head), "\n")
	old, ok := strings.CutPrefix(lines[0], "old ")
	if !ok {
		return q, errors.New("the first line is not: old <size>")
	}
	if q.old, err = parseSize(old); err != nil {
		return q, err
	}
	if q.proof, err = parseHashes(lines[1:]); err != nil {
		return q, err
	}
	q.checkpoint = cp
	text, ok := noteText(cp)
	if !ok {
		return q, errors.New("the checkpoint is no signed note")
	}
	if q.origin, q.tree, err = parseCheckpoint(text); err != nil {
		return q, err
	}
	if q.old > q.size {
		return q, errors.New("old is larger than the checkpoint")
	}
	return q, nil
}

// add decides about one checkpoint. It stores before it signs.
func (w *WitnessServer) add(body []byte) (sig []byte, no *refusal, err error) {
	q, err := parseRequest(body)
	if err != nil {
		return nil, &refusal{status: http.StatusBadRequest, body: err.Error()}, nil
	}
	keys, ok := w.logs[q.origin]
	if !ok {
		return nil, &refusal{status: http.StatusNotFound, body: "this log is not known here"}, nil
	}
	n, err := note.Open(q.checkpoint, note.VerifierList(keys...))
	if err != nil {
		return nil, &refusal{status: http.StatusForbidden, body: "no signature by a key of the log"}, nil
	}
	w.mu[q.origin].Lock()
	defer w.mu[q.origin].Unlock()
	last, err := w.last(q.origin, keys)
	if err != nil {
		return nil, nil, err
	}
	if q.old != last.size {
		return nil, &refusal{status: http.StatusConflict, size: true, body: fmt.Sprint(last.size)}, nil
	}
	switch {
	case last.known && q.size == last.size:
		if q.root != last.root {
			return w.fork(q.origin, body, http.StatusConflict, "two roots of one size", last)
		}
		if len(q.proof) > 0 {
			return nil, &refusal{status: http.StatusUnprocessableEntity, body: "a proof where none belongs"}, nil
		}
	case q.old == 0:
		if len(q.proof) > 0 {
			return nil, &refusal{status: http.StatusUnprocessableEntity, body: "a proof where none belongs"}, nil
		}
	default:
		if tlog.CheckTree(q.proof, q.size, q.root, last.size, last.root) != nil {
			return w.fork(q.origin, body, http.StatusUnprocessableEntity, "the proof does not lead from the last checkpoint to this one", last)
		}
	}
	// The note as opened: signatures by strangers, and what they might say, are
	// neither kept nor repeated.
	kept, err := note.Sign(&note.Note{Text: n.Text, Sigs: n.Sigs})
	if err != nil {
		return nil, nil, err
	}
	if !last.known || q.size != last.size {
		if err := w.fs.WriteFile(w.path(q.origin), kept, 0o600); err != nil {
			return nil, nil, err
		}
	}
	signed, err := note.Sign(&note.Note{Text: n.Text}, w.sign)
	if err != nil {
		return nil, nil, err
	}
	return signed[len(n.Text)+1:], nil, nil
}

// fork keeps both sides of a fork and refuses.
func (w *WitnessServer) fork(origin string, body []byte, status int, why string, last lastSeen) ([]byte, *refusal, error) {
	w.log.Error("a fork is refused", "log", origin, "why", why)
	if err := keepIncident(w.fs, filepath.Join(w.dir, incidentDir), "fork-"+origin, body, why, last.raw); err != nil {
		w.log.Error("keeping the evidence of a fork", "error", err)
	}
	if w.refuse != nil {
		w.refuse(origin + ": " + why)
	}
	return nil, &refusal{status: status, body: why}, nil
}

// lastSeen is what a witness remembers of a log.
type lastSeen struct {
	tree
	known bool
	raw   []byte
}

func (w *WitnessServer) path(origin string) string {
	sum := sha256.Sum256([]byte(origin))
	return filepath.Join(w.dir, "logs", hex.EncodeToString(sum[:]))
}

// last reads the state of a log. State that does not verify is an error, never
// "nothing seen yet".
func (w *WitnessServer) last(origin string, keys []note.Verifier) (lastSeen, error) {
	raw, err := os.ReadFile(w.path(origin))
	if errors.Is(err, fs.ErrNotExist) {
		return lastSeen{}, nil
	}
	if err != nil {
		return lastSeen{}, err
	}
	n, err := note.Open(raw, note.VerifierList(keys...))
	if err != nil {
		return lastSeen{}, fmt.Errorf("the state of %s is broken: %w", origin, err)
	}
	o, t, err := parseCheckpoint(n.Text)
	if err != nil || o != origin {
		return lastSeen{}, fmt.Errorf("the state of %s is broken", origin)
	}
	return lastSeen{tree: t, known: true, raw: raw}, nil
}
