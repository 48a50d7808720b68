package main

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// trust is what the caller trusts, as ledger.md names it.
type trust struct {
	origin    string
	log       []note.Verifier
	witnesses []*cosigner
	threshold int
}

// cosigner verifies c2sp.org/tlog-cosignature, which note.NewVerifier does not know.
type cosigner struct {
	name string
	hash uint32
	key  ed25519.PublicKey
}

func (c *cosigner) Name() string    { return c.name }
func (c *cosigner) KeyHash() uint32 { return c.hash }

func (c *cosigner) Verify(msg, sig []byte) bool {
	if len(sig) != 8+ed25519.SignatureSize {
		return false
	}
	text := fmt.Sprintf("cosignature/v1\ntime %d\n%s", binary.BigEndian.Uint64(sig), msg)
	return ed25519.Verify(c.key, []byte(text), sig[8:])
}

// newCosigner reads the vkey of a witness.
func newCosigner(vkey string) (*cosigner, error) {
	part := strings.SplitN(vkey, "+", 3)
	if len(part) != 3 || part[0] == "" {
		return nil, errors.New("the vkey of a witness is name+hash+key")
	}
	raw, err := base64.StdEncoding.DecodeString(part[2])
	if err != nil || len(raw) != 1+ed25519.PublicKeySize || raw[0] != 0x04 {
		return nil, errors.New("the vkey of a witness has algorithm 4 and an Ed25519 key")
	}
	sum := sha256.Sum256(append([]byte(part[0]+"\n"), raw...))
	hash := binary.BigEndian.Uint32(sum[:])
	if part[1] != fmt.Sprintf("%08x", hash) {
		return nil, errors.New("the hash in the vkey of a witness is of another key")
	}
	return &cosigner{part[0], hash, raw[1:]}, nil
}

func newTrust(logs, witnesses []string, threshold int) (*trust, error) {
	t := &trust{threshold: threshold}
	for _, k := range logs {
		v, err := note.NewVerifier(k)
		if err != nil {
			return nil, fmt.Errorf("key of the log: %w", err)
		}
		if t.origin != "" && t.origin != v.Name() {
			return nil, errors.New("the keys of the log have different names")
		}
		t.origin, t.log = v.Name(), append(t.log, v)
	}
	for _, k := range witnesses {
		c, err := newCosigner(k)
		if err != nil {
			return nil, err
		}
		for _, o := range t.witnesses {
			if o.name == c.name || o.key.Equal(c.key) {
				return nil, errors.New("a witness is given twice")
			}
		}
		t.witnesses = append(t.witnesses, c)
	}
	if threshold > len(t.witnesses) {
		return nil, errors.New("the threshold is above the number of witnesses")
	}
	return t, nil
}

// proven checks a tlog-proof of a leaf and gives its index.
func (t *trust) proven(leaf, proof []byte) (int64, error) {
	head, checkpoint, ok := strings.Cut(string(proof), "\n\n")
	lines := strings.Split(head, "\n")
	if !ok || lines[0] != "c2sp.org/tlog-proof@v1" {
		return 0, errors.New("not a proof")
	}
	lines = lines[1:]
	if len(lines) > 0 && strings.HasPrefix(lines[0], "extra ") {
		lines = lines[1:]
	}
	if len(lines) == 0 {
		return 0, errors.New("a proof without index")
	}
	text, ok := strings.CutPrefix(lines[0], "index ")
	index, err := strconv.ParseInt(text, 10, 64)
	if !ok || err != nil || index < 0 || strconv.FormatInt(index, 10) != text {
		return 0, errors.New("a proof without index")
	}
	if len(lines) > 64 {
		return 0, errors.New("a proof that is too long")
	}
	var path tlog.RecordProof
	for _, l := range lines[1:] {
		h, err := hash64(l)
		if err != nil {
			return 0, err
		}
		path = append(path, tlog.Hash(h))
	}
	size, root, err := t.checkpoint([]byte(checkpoint))
	if err != nil {
		return 0, err
	}
	if err := tlog.CheckRecord(path, size, root, index, tlog.RecordHash(leaf)); err != nil {
		return 0, errors.New("the statement does not stand in the log at the place of its proof")
	}
	return index, nil
}

func hash64(s string) (h [32]byte, err error) {
	b, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil || len(b) != 32 || base64.StdEncoding.EncodeToString(b) != s {
		return h, errors.New("not a hash in base64")
	}
	return [32]byte(b), nil
}

// checkpoint verifies the signature of the log and counts cosignatures.
func (t *trust) checkpoint(raw []byte) (size int64, root tlog.Hash, err error) {
	known := append([]note.Verifier(nil), t.log...)
	for _, w := range t.witnesses {
		known = append(known, w)
	}
	n, err := note.Open(raw, note.VerifierList(known...))
	if err != nil {
		return 0, root, errors.New("the checkpoint has no signature by a known key, or a wrong one")
	}
	for _, s := range append(n.Sigs, n.UnverifiedSigs...) {
		if b, err := base64.StdEncoding.Strict().DecodeString(s.Base64); err != nil || base64.StdEncoding.EncodeToString(b) != s.Base64 {
			return 0, root, errors.New("a signature is not plain base64")
		}
	}
	lines := strings.Split(n.Text, "\n")
	if len(lines) < 4 || lines[0] != t.origin {
		return 0, root, errors.New("the checkpoint is of another log")
	}
	size, err = strconv.ParseInt(lines[1], 10, 64)
	if err != nil || size < 0 || strconv.FormatInt(size, 10) != lines[1] {
		return 0, root, errors.New("the checkpoint has no size")
	}
	h, err := hash64(lines[2])
	if err != nil {
		return 0, root, err
	}
	log, cosigned := false, 0
	for _, s := range n.Sigs {
		for _, v := range t.log {
			log = log || v.Name() == s.Name && v.KeyHash() == s.Hash
		}
		for _, w := range t.witnesses {
			if w.name == s.Name && w.hash == s.Hash {
				cosigned++
			}
		}
	}
	switch {
	case !log:
		return 0, root, errors.New("the log has not signed the checkpoint")
	case cosigned < t.threshold:
		return 0, root, fmt.Errorf("%d of %d cosignatures", cosigned, t.threshold)
	}
	return size, tlog.Hash(h), nil
}

// statement is a leaf of the ledger.
type statement struct {
	Type    string          `json:"_type"`
	Actor   string          `json:"actor"`
	Detail  json.RawMessage `json:"detail"`
	ID      string          `json:"id"`
	Kind    string          `json:"kind"`
	Node    string          `json:"node"`
	Purpose string          `json:"purpose"`
	Seq     string          `json:"seq"`
	Subject []string        `json:"subject"`
	Time    string          `json:"time"`
}

func parseStatement(b []byte) (*statement, error) {
	s := new(statement)
	if len(b) > 32<<10 || strictJSON(b, s) != nil || s.Type != "counterseal/statement/v1" {
		return nil, errors.New("not a statement")
	}
	return s, nil
}

// leads follows a path of RFC 9162, 2.1.3.2.
func leads(leaf [32]byte, index, size uint64, path [][32]byte, root [32]byte) error {
	if index >= size {
		return errors.New("a record outside its segment")
	}
	fn, sn, r := index, size-1, leaf
	for _, p := range path {
		if sn == 0 {
			return errors.New("a path that is too long")
		}
		if fn&1 == 1 || fn == sn {
			r = node(p, r)
			for fn&1 == 0 && fn != 0 {
				fn >>= 1
				sn >>= 1
			}
		} else {
			r = node(r, p)
		}
		fn >>= 1
		sn >>= 1
	}
	if sn != 0 || r != root {
		return errors.New("the path does not lead to the root of the segment")
	}
	return nil
}

func node(a, b [32]byte) [32]byte {
	return sha256.Sum256(append(append([]byte{1}, a[:]...), b[:]...))
}
