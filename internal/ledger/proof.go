package ledger

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	fnote "github.com/transparency-dev/formats/note"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// ErrUnwitnessed is wrapped where a checkpoint lacks the cosignatures that the
// threshold asks for.
var ErrUnwitnessed = errors.New("not witnessed")

// ErrProof is wrapped where a proof does not show what it should.
var ErrProof = errors.New("the proof does not hold")

// Witness is one party that cosigns checkpoints.
type Witness struct {
	VKey string // as "counterseal witness" prints it
	URL  string // asked by the server; not needed to verify
	// Group names who runs it. Several witnesses of one group count once; an empty
	// group is a group of its own.
	Group string
}

// Verifiers is what a verifier trusts: keys that did not come with the proof.
type Verifiers struct {
	Log       []string // vkeys of the log, all of one name, which is its origin; the first is the newest
	Witnesses []Witness
	Threshold int // how many groups must have cosigned; 0: none
	// Known is a checkpoint kept elsewhere, or nil. The log must hold at least it.
	Known []byte
	// Each, if set, is given every statement that VerifyDir can read, in order. One
	// that was added twice comes twice.
	Each func(index uint64, s Statement)
}

// VKey is the public half of a log key, an Ed25519 key, to give to verifiers and
// witnesses.
func VKey(origin string, pub crypto.PublicKey) (string, error) {
	if err := checkOrigin(origin); err != nil {
		return "", err
	}
	key, ok := pub.(ed25519.PublicKey)
	if !ok {
		return "", errors.New("the key of a ledger is no Ed25519 key")
	}
	return note.NewEd25519VerifierKey(origin, key)
}

// checkOrigin holds the origin to a name that notes can carry.
func checkOrigin(origin string) error {
	if !IsWord(origin) {
		return errors.New("the origin of a ledger is letters, digits and . _ - : / only")
	}
	return nil
}

// logSigner signs notes by the name of a log. It takes any crypto.Signer, so that the key
// need not be in memory.
type logSigner struct {
	note.Verifier
	key crypto.Signer
}

func (s *logSigner) Sign(msg []byte) ([]byte, error) {
	return s.key.Sign(nil, msg, crypto.Hash(0)) // Ed25519 takes the message itself and no randomness
}

// signer makes the note signer of a log key.
func signer(origin string, key crypto.Signer) (note.Signer, note.Verifier, error) {
	if k, plain := key.(ed25519.PrivateKey); key == nil || plain && len(k) != ed25519.PrivateKeySize {
		return nil, nil, errors.New("the ledger has no key")
	}
	vkey, err := VKey(origin, key.Public())
	if err != nil {
		return nil, nil, err
	}
	v, err := note.NewVerifier(vkey)
	if err != nil {
		return nil, nil, err
	}
	return &logSigner{v, key}, v, nil
}

// cosigner is a witness as a verifier sees it.
type cosigner struct {
	note.Verifier
	group string
}

// trust is Verifiers, parsed.
type trust struct {
	origin    string
	log       []note.Verifier
	witnesses []cosigner
	threshold int
}

func (v Verifiers) parse() (*trust, error) {
	t := &trust{threshold: v.Threshold}
	if len(v.Log) == 0 {
		return nil, errors.New("no key of the log is given")
	}
	for _, k := range v.Log {
		lv, err := note.NewVerifier(k)
		if err != nil {
			return nil, fmt.Errorf("key of the log: %w", err)
		}
		if t.origin != "" && lv.Name() != t.origin {
			return nil, errors.New("the keys of the log have different names")
		}
		t.origin = lv.Name()
		t.log = append(t.log, lv)
	}
	groups := map[string]bool{}
	names := map[string]bool{}
	for i, w := range v.Witnesses {
		wv, err := fnote.NewVerifierForCosignatureV1(w.VKey)
		if err != nil {
			return nil, fmt.Errorf("key of witness %d: %w", i+1, err)
		}
		// One key under two names would count twice.
		key := strings.SplitN(w.VKey, "+", 3)[2]
		if names[wv.Name()] || names[key] {
			return nil, fmt.Errorf("witness %d is given twice", i+1)
		}
		names[wv.Name()], names[key] = true, true
		c := cosigner{Verifier: wv, group: "g " + w.Group}
		if w.Group == "" {
			c.group = "w " + wv.Name()
		}
		groups[c.group] = true
		t.witnesses = append(t.witnesses, c)
	}
	if t.threshold < 0 || t.threshold > len(groups) {
		return nil, fmt.Errorf("the threshold is %d and there are %d independent witnesses", t.threshold, len(groups))
	}
	return t, nil
}

// Cosignature is a verified cosignature.
type Cosignature struct {
	Witness string
	Group   string
	Time    time.Time // as the witness says
}

// opened is a checkpoint whose log signature holds.
type opened struct {
	tree
	raw   []byte
	cosig []Cosignature
	count int // groups
	// at is the earliest time by which the threshold was reached.
	at time.Time
}

// open verifies a checkpoint: the signature of the log must be there, and every
// signature by a known key must hold. It does not ask for the threshold.
func (t *trust) open(raw []byte) (opened, error) {
	o := opened{raw: raw}
	if len(raw) > maxCheckpoint {
		return o, fmt.Errorf("%w: longer than %d bytes", errCheckpoint, maxCheckpoint)
	}
	known := slices.Clone(t.log)
	for _, w := range t.witnesses {
		known = append(known, w.Verifier)
	}
	n, err := note.Open(raw, note.VerifierList(known...))
	if err != nil {
		var inv *note.InvalidSignatureError
		if errors.As(err, &inv) {
			return o, fmt.Errorf("%w: a signature by the name of %s is wrong", errCheckpoint, inv.Name)
		}
		return o, fmt.Errorf("%w: no signature by a known key", errCheckpoint)
	}
	// Unused bits of base64 would let a changed byte verify.
	for _, s := range append(slices.Clone(n.Sigs), n.UnverifiedSigs...) {
		b, err := base64.StdEncoding.Strict().DecodeString(s.Base64)
		if err != nil || base64.StdEncoding.EncodeToString(b) != s.Base64 {
			return o, fmt.Errorf("%w: a signature is not plain base64", errCheckpoint)
		}
	}
	origin, tr, err := parseCheckpoint(n.Text)
	if err != nil {
		return o, err
	}
	if origin != t.origin {
		return o, fmt.Errorf("%w: it is of another log", errCheckpoint)
	}
	o.tree = tr
	byLog := false
	groups := map[string]time.Time{} // its earliest
	for _, s := range n.Sigs {
		if slices.ContainsFunc(t.log, func(v note.Verifier) bool { return v.Name() == s.Name && v.KeyHash() == s.Hash }) {
			byLog = true
			continue
		}
		i := slices.IndexFunc(t.witnesses, func(c cosigner) bool { return c.Name() == s.Name && c.KeyHash() == s.Hash })
		at, err := fnote.CoSigV1Timestamp(s)
		if i < 0 || err != nil {
			continue
		}
		w := t.witnesses[i]
		o.cosig = append(o.cosig, Cosignature{Witness: w.Name(), Group: strings.TrimPrefix(strings.TrimPrefix(w.group, "w "), "g "), Time: at.UTC()})
		if old, ok := groups[w.group]; !ok || at.Before(old) {
			groups[w.group] = at
		}
	}
	if !byLog {
		return o, fmt.Errorf("%w: the log has not signed it", errCheckpoint)
	}
	o.count = len(groups)
	var times []time.Time
	for _, at := range groups {
		times = append(times, at.UTC())
	}
	slices.SortFunc(times, time.Time.Compare)
	if t.threshold > 0 && len(times) >= t.threshold {
		o.at = times[t.threshold-1]
	}
	return o, nil
}

// witnessed reports whether the threshold is met. A threshold of 0 is never met:
// nobody was asked.
func (t *trust) witnessed(o opened) bool { return t.threshold > 0 && o.count >= t.threshold }

const proofHeader = "c2sp.org/tlog-proof@v1"

// formatProof is a tlog-proof.
func formatProof(index int64, p tlog.RecordProof, checkpoint []byte) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s\nindex %d\n", proofHeader, index)
	for _, h := range p {
		fmt.Fprintf(&b, "%s\n", base64.StdEncoding.EncodeToString(h[:]))
	}
	b.WriteByte('\n')
	b.Write(checkpoint)
	return b.Bytes()
}

// parseProof takes a tlog-proof apart. An extra line is skipped: nothing
// authenticates it.
func parseProof(raw []byte) (index int64, p tlog.RecordProof, checkpoint []byte, err error) {
	bad := func(what string) (int64, tlog.RecordProof, []byte, error) {
		return 0, nil, nil, fmt.Errorf("%w: %s", ErrProof, what)
	}
	if len(raw) > maxCheckpoint+8192 {
		return bad("too long")
	}
	head, checkpoint, ok := bytes.Cut(raw, []byte("\n\n"))
	if !ok {
		return bad("no empty line")
	}
	lines := strings.Split(string(head), "\n")
	if lines[0] != proofHeader {
		return bad("the first line is not " + proofHeader)
	}
	lines = lines[1:]
	if len(lines) > 0 && strings.HasPrefix(lines[0], "extra ") {
		lines = lines[1:]
	}
	if len(lines) == 0 || !strings.HasPrefix(lines[0], "index ") {
		return bad("no index")
	}
	if index, err = parseSize(strings.TrimPrefix(lines[0], "index ")); err != nil {
		return bad("the index is no decimal number")
	}
	if p, err = parseHashes(lines[1:]); err != nil {
		return bad(err.Error())
	}
	return index, p, checkpoint, nil
}

// parseHashes reads hashes in base64, one a line, at most 63.
func parseHashes(lines []string) ([]tlog.Hash, error) {
	if len(lines) > 63 {
		return nil, errors.New("more than 63 hashes")
	}
	var out []tlog.Hash
	for i, l := range lines {
		h, err := base64.StdEncoding.Strict().DecodeString(l)
		if err != nil || len(h) != tlog.HashSize || base64.StdEncoding.EncodeToString(h) != l {
			return nil, errors.New("line " + strconv.Itoa(i+1) + " is no hash")
		}
		out = append(out, tlog.Hash(h))
	}
	return out, nil
}

// VerifyProof checks that leaf stands in the log under a checkpoint with the
// signature of the log and the cosignatures that v asks for. It needs no file and
// no network. ErrUnwitnessed means that all but the cosignatures hold.
func VerifyProof(leaf, proof []byte, v Verifiers) (index uint64, err error) {
	index, _, err = VerifyProofAt(leaf, proof, v)
	return index, err
}

// VerifyProofAt is VerifyProof and tells when enough witnesses had cosigned the checkpoint,
// by their own clocks; zero where v asks for none.
func VerifyProofAt(leaf, proof []byte, v Verifiers) (index uint64, at time.Time, err error) {
	t, err := v.parse()
	if err != nil {
		return 0, at, err
	}
	i, p, cp, err := parseProof(proof)
	if err != nil {
		return 0, at, err
	}
	o, err := t.open(cp)
	if err != nil {
		return 0, at, fmt.Errorf("%w: %w", ErrProof, err)
	}
	if err := tlog.CheckRecord(p, o.size, o.root, i, tlog.RecordHash(leaf)); err != nil {
		return 0, at, fmt.Errorf("%w: the leaf does not stand at %d", ErrProof, i)
	}
	if t.threshold > 0 && !t.witnessed(o) {
		return uint64(i), at, fmt.Errorf("%w: %d of %d cosignatures", ErrUnwitnessed, o.count, t.threshold)
	}
	return uint64(i), o.at, nil
}
