package pipeline

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/counterseal/counterseal/internal/attest"
	"github.com/counterseal/counterseal/internal/durable"
	"github.com/counterseal/counterseal/internal/keyring"
	"github.com/counterseal/counterseal/internal/ledger"
)

// A log that cannot be continued, such as one restored from an old backup, is closed as
// it was found, and another follows it under a new origin. The closed ones lie in
// ledger.before/1, /2 and so on; ledger.next is one that is being made.
const (
	beforeDir = "ledger.before"
	nextDir   = "ledger.next"
)

// Origin names the log of an organisation: the first one, or the one that follows
// after so many others.
func Origin(org string, before int) string {
	if before == 0 {
		return "counterseal/" + org
	}
	return "counterseal/" + org + "/" + strconv.Itoa(before+1)
}

// SettleSuccession finishes what a crash left of a succession: either the new log takes
// its place, or what was made of it goes. The caller holds the lock of the directory.
func SettleSuccession(dir string) error {
	var disk durable.FS
	next, now := filepath.Join(dir, nextDir), filepath.Join(dir, ledgerDir)
	if _, err := os.Stat(next); errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return fmt.Errorf("finishing a succession: %w", err)
	}
	switch _, err := os.Stat(now); {
	case errors.Is(err, fs.ErrNotExist): // the old one is in its place already
		return disk.Rename(next, now)
	case err != nil:
		return fmt.Errorf("finishing a succession: %w", err)
	}
	if err := os.RemoveAll(next); err != nil {
		return fmt.Errorf("removing a log that was never used: %w", err)
	}
	return nil
}

// logKey is the signing key of every log of a data directory.
func logKey(keys keyring.Holder) (crypto.Signer, error) { return keys.Signer("ledger", 1) }

// openBefore opens the logs that were succeeded, oldest first.
func openBefore(dir string, keys keyring.Holder, o LedgerOptions) ([]*ledger.Closed, error) {
	key, err := logKey(keys)
	if err != nil {
		return nil, err
	}
	var out []*ledger.Closed
	for n := 1; ; n++ {
		at := filepath.Join(dir, beforeDir, strconv.Itoa(n))
		if _, err := os.Stat(at); errors.Is(err, fs.ErrNotExist) {
			return out, nil
		} else if err != nil {
			return nil, fmt.Errorf("opening an earlier log: %w", err)
		}
		c, err := openClosed(at, Origin(keys.ID().String(), n-1), key, o)
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
}

func openClosed(at, origin string, key crypto.Signer, o LedgerOptions) (*ledger.Closed, error) {
	vkey, err := ledger.VKey(origin, key.Public())
	if err != nil {
		return nil, err
	}
	return ledger.OpenClosed(at, ledger.Verifiers{Log: []string{vkey}, Witnesses: o.Witnesses, Threshold: o.Threshold})
}

// Ending is where the current log of a data directory ends.
type Ending struct {
	Origin     string
	Size       uint64
	Root       string // hex
	Checkpoint string // the newest that is kept
}

// Objects are what the statement of a succession must name.
func (e *Ending) Objects() []string { return attest.SucceedObjects(e.Origin, e.Size, e.Root) }

// LedgerEnd finds where the log ends, while no server runs. The caller holds the lock of
// the directory.
func LedgerEnd(dir string, keys keyring.Holder, o LedgerOptions) (*Ending, error) {
	if err := SettleSuccession(dir); err != nil {
		return nil, err
	}
	before, err := openBefore(dir, keys, o)
	if err != nil {
		return nil, err
	}
	key, err := logKey(keys)
	if err != nil {
		return nil, err
	}
	c, err := openClosed(filepath.Join(dir, ledgerDir), Origin(keys.ID().String(), len(before)), key, o)
	if err != nil {
		return nil, err
	}
	cp, err := c.Checkpoint()
	if err != nil {
		return nil, fmt.Errorf("reading the last checkpoint: %w", err)
	}
	return &Ending{Origin: c.Origin(), Size: c.Size(), Root: c.Root(), Checkpoint: string(cp)}, nil
}

// Succeed closes the log as it ends and begins another, whose first statement says so.
// What the old one says still holds: the state is folded from both. Witnesses must be
// given the key of the new log by hand. The caller holds the lock of the directory and
// has checked the consent of two people, which payloads carry: statement, decision_1,
// decision_2, and officers, the file by which they are in office.
func Succeed(ctx context.Context, dir string, keys keyring.Holder, end *Ending, actor, request string, payloads map[string][]byte) (vkey string, err error) {
	before, err := openBefore(dir, keys, LedgerOptions{})
	if err != nil {
		return "", err
	}
	key, err := logKey(keys)
	if err != nil {
		return "", err
	}
	origin := Origin(keys.ID().String(), len(before)+1)
	next := filepath.Join(dir, nextDir)
	l, err := ledger.Open(ctx, ledger.Options{Dir: next, Origin: origin, Key: key, Node: node})
	if err != nil {
		return "", err
	}
	all := map[string]any{"origin": end.Origin, "size": int64(end.Size), "root": end.Root, "checkpoint": end.Checkpoint, "request": request, "reason": "approved"}
	for name, b := range payloads {
		if all[name], err = l.PutPayload(b); err != nil {
			return "", errors.Join(err, l.Close())
		}
	}
	s, err := ledger.New("log.succeeded", actor, time.Now(), all)
	if err == nil {
		s.Subject = []string{end.Origin}
		_, err = l.Add(ctx, s)
	}
	if err = errors.Join(err, l.Close()); err != nil {
		return "", fmt.Errorf("beginning another log: %w", err)
	}
	if vkey, err = ledger.VKey(origin, key.Public()); err != nil {
		return "", err
	}
	var disk durable.FS
	if err := disk.WriteFile(filepath.Join(next, vkeyName), []byte(vkey+"\n"), 0o644); err != nil {
		return "", fmt.Errorf("writing the public key of the log: %w", err)
	}
	if err := disk.MkdirAll(filepath.Join(dir, beforeDir), 0o700); err != nil {
		return "", fmt.Errorf("putting the old log away: %w", err)
	}
	if err := disk.Rename(filepath.Join(dir, ledgerDir), filepath.Join(dir, beforeDir, strconv.Itoa(len(before)+1))); err != nil {
		return "", fmt.Errorf("putting the old log away: %w", err)
	}
	return vkey, SettleSuccession(dir)
}
