package state

import (
	"context"
	"database/sql"
	"errors"
	"testing"
	"time"

	"github.com/counterseal/counterseal/internal/durable"
)

// TestCommitAfterTheEnd: a transaction whose context ended says so, also where it was rolled
// back already; one that is over for another reason is a fault.
func TestCommitAfterTheEnd(t *testing.T) {
	db, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	ctx, cancel := context.WithCancel(t.Context())
	tx, err := db.db.BeginTx(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	for { // database/sql rolls back beside us
		if _, err := tx.ExecContext(context.Background(), "SELECT 1"); errors.Is(err, sql.ErrTxDone) {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if err := durable.Commit(ctx, tx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if tx, err = db.db.Begin(); err != nil {
		t.Fatal(err)
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	if err := durable.Commit(t.Context(), tx); !errors.Is(err, sql.ErrTxDone) {
		t.Errorf("got %v", err)
	}
}
