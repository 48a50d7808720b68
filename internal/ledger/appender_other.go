//go:build !unix

package ledger

import (
	"context"
	"errors"
	"log/slog"

	"golang.org/x/mod/sumdb/note"
)

// RouteLibraryLog does nothing here: the log library is not in this build.
func RouteLibraryLog(*slog.Logger) {}

// newAppender refuses: the log needs the locks of a POSIX file system. Verifying
// and witnessing work everywhere.
func newAppender(context.Context, string, note.Signer, []note.Signer) (*appender, error) {
	return nil, errors.New("a ledger can be written on Unix only")
}
