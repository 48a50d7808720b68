package attest

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"github.com/counterseal/counterseal/internal/ledger"
	"github.com/counterseal/counterseal/internal/state"
	"github.com/counterseal/counterseal/internal/vault"
)

// Erased is the detail of vault.erased. The list of places is a payload: which rows were of
// one person stands in no leaf.
type Erased struct {
	List    ledger.Digest `json:"list"`
	Reason  string        `json:"reason"` // ErasedByRequest, or ErasedByRetention
	Request string        `json:"request,omitempty"`
	Rows    int           `json:"rows"`
	Windows int           `json:"windows"`
}

// The reasons of vault.erased.
const (
	ErasedByRequest   = "request"   // two officers approved it
	ErasedByRetention = "retention" // no record is left that it belongs to
)

// Stated is what statements say of a vault. sealed and erased are the facts of vault.sealed
// and vault.erased, payload reads a list. bad are statements that cannot be read.
func Stated(sealed, erased []state.Fact, payload func(ledger.Digest) ([]byte, error)) (known vault.Stated, bad []Problem) {
	known.Windows = make(map[string]vault.StatedWindow, len(sealed))
	for _, f := range sealed {
		var d struct {
			N    int64
			Root string
		}
		err := decode(f, &d)
		root, herr := hex.DecodeString(d.Root)
		if err != nil || herr != nil || len(root) != 32 || d.N < 1 {
			bad = append(bad, Problem{vault.File, int64(f.Index), "the statement about a window cannot be read"})
			continue
		}
		known.Windows[f.Key] = vault.StatedWindow{N: d.N, Root: [32]byte(root), Index: f.Index}
	}
	for _, f := range erased {
		var d Erased
		err := decode(f, &d)
		var b []byte
		if err == nil {
			b, err = payload(d.List)
		}
		e := vault.StatedErasure{ID: f.Key, Index: f.Index}
		if err == nil {
			e.Places, err = vault.ParseList(b)
		}
		if err != nil || len(e.Places) != d.Rows {
			bad = append(bad, Problem{vault.File, int64(f.Index), "the list of the rows that were erased cannot be read"})
			continue
		}
		known.Erased = append(known.Erased, e)
	}
	slices.SortFunc(known.Erased, func(a, b vault.StatedErasure) int { return cmp.Compare(a.Index, b.Index) })
	return known, bad
}

// ofKind gives the facts of a kind.
func (f *Folded) ofKind(kind string) (out []state.Fact) {
	for key, fact := range f.Facts {
		if key[0] == kind {
			out = append(out, fact)
		}
	}
	return out
}

// vault holds the vault against the ledger. names is a moment before the ledger was read.
func (r *Report) vault(ctx context.Context, dir string, known *Folded, names *vault.Snapshot, lookErr error) error {
	stated, bad := Stated(known.ofKind("vault.sealed"), known.ofKind("vault.erased"), r.payloads(dir))
	r.Problems = append(r.Problems, bad...)
	if name, ok := strings.CutPrefix(r.Ledger.Origin, "counterseal/"); ok {
		name, _, _ = strings.Cut(name, "/")
		stated.Org, _ = uuid.Parse(name) // of a log that is named otherwise it is not known
	}
	switch {
	case errors.Is(lookErr, fs.ErrNotExist) && len(stated.Windows) == 0:
		return nil
	case errors.Is(lookErr, fs.ErrNotExist):
		r.Problems = append(r.Problems, Problem{vault.File, -1, "it is not there, and the ledger knows " + strconv.Itoa(len(stated.Windows)) + " windows of it"})
		return nil
	case lookErr != nil:
		r.Problems = append(r.Problems, Problem{vault.File, -1, lookErr.Error()})
		return nil
	}
	var err error
	if r.Vault, err = names.Check(ctx, stated); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		r.Problems = append(r.Problems, Problem{vault.File, -1, err.Error()})
		return nil
	}
	for _, f := range r.Vault.Findings {
		r.Problems = append(r.Problems, Problem{vault.File + ", " + f.Place, f.Index, f.What})
	}
	if r.Vault.More > 0 {
		r.Problems = append(r.Problems, Problem{vault.File, -1, strconv.Itoa(r.Vault.More) + " more"})
	}
	return nil
}
