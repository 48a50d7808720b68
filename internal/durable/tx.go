package durable

import (
	"context"
	"database/sql"
	"errors"
)

// Commit ends a transaction that was begun with ctx. Where ctx ended before it, the error is
// that of ctx: what database/sql says then, that the transaction is over, tells nobody why.
func Commit(ctx context.Context, tx *sql.Tx) error {
	err := tx.Commit()
	if errors.Is(err, sql.ErrTxDone) && ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}
