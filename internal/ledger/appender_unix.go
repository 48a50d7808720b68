//go:build unix

package ledger

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/transparency-dev/tessera"
	"github.com/transparency-dev/tessera/storage/posix"
	"golang.org/x/mod/sumdb/note"
	"k8s.io/klog/v2"
)

// The rhythm of the log. A batch is what the one writer hands over at once, so its
// age is only the wait of a lone statement. 100 ms between checkpoints is the least
// that the driver takes.
const (
	batchSize       = 1024
	batchAge        = time.Millisecond
	publishEvery    = 100 * time.Millisecond
	republishEvery  = time.Minute
	shutdownTimeout = 10 * time.Second
)

// RouteLibraryLog sends what the log library says to log. It sets the one logger
// that the library has for the whole process: call it once, before Open.
func RouteLibraryLog(log *slog.Logger) { klog.SetSlogLogger(log) }

// newAppender starts the library on a directory. It publishes checkpoints signed
// by the log alone; cosignatures are collected by cosign.go, so a missing witness
// neither stops checkpoints nor holds the lock of publishing.
func newAppender(ctx context.Context, dir string, signer note.Signer, others []note.Signer) (*appender, error) {
	drv, err := posix.New(ctx, posix.Config{Path: dir, HTTPClient: &http.Client{Transport: noNetwork{}}})
	if err != nil {
		return nil, err
	}
	opts := tessera.NewAppendOptions().
		WithCheckpointSigner(signer, others...).
		WithBatching(batchSize, batchAge).
		WithCheckpointInterval(publishEvery).
		WithCheckpointRepublishInterval(republishEvery).
		WithShutdownTimeout(shutdownTimeout)
	app, shutdown, _, err := tessera.NewAppender(ctx, drv, opts)
	if err != nil {
		return nil, err
	}
	return &appender{
		add: func(ctx context.Context, leaf []byte) func() (uint64, error) {
			f := app.Add(ctx, tessera.NewEntry(leaf))
			return func() (uint64, error) {
				i, err := f()
				return i.Index, err
			}
		},
		shutdown: shutdown,
	}, nil
}

// noNetwork is the network of the library: none.
type noNetwork struct{}

func (noNetwork) RoundTrip(*http.Request) (*http.Response, error) {
	return nil, errors.New("the log library asks nobody")
}
