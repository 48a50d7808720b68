package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/counterseal/counterseal/internal/broker"
	"github.com/counterseal/counterseal/internal/demo"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/ledger"
	"github.com/counterseal/counterseal/internal/pseudonym"
)

// The broker of a demo has its folder beside the data. What its commands would do to the
// directory service of the agency is a line in accountsName: there alone stands who it was.
const (
	brokerFolder = "broker"
	brokerOrders = brokerFolder + "/orders.sock"
	accountsName = "directory-service.ndjson"
)

// startDemoBroker takes orders until stop is called.
func startDemoBroker(ctx context.Context, s *server, in *demo.Incident, root string, now func() time.Time, log *slog.Logger) (stop func() error, err error) {
	dir, err := pseudonym.ParseDirectory(in.Directory)
	if err != nil {
		return nil, err
	}
	known, err := pseudonym.Known(s.tokens.maker, dir)
	if err != nil {
		return nil, err
	}
	vkey, err := os.ReadFile(filepath.Join(root, "data", "ledger", "log.vkey"))
	if err != nil {
		return nil, fmt.Errorf("the key of the log: %w", err)
	}
	folder := filepath.Join(root, brokerFolder)
	b, err := broker.Open(broker.Options{
		Dir: folder, Org: s.pipe.Org().String(), Ledger: ledger.Verifiers{Log: []string{strings.TrimSpace(string(vkey))}},
		MaxDay: 20, MaxAlone: 5, MaxNotices: 200, Now: now, Log: log, Can: func(string) bool { return true },
		Resolve: func(t event.Token) (broker.Account, bool) {
			e, ok := known[t]
			return broker.Account{Names: e.Names, Mails: e.Mails, SIDs: e.SIDs, Devices: e.Devices}, ok
		},
		Do: func(_ context.Context, t broker.Task) error {
			line, err := json.Marshal(t)
			if err != nil {
				return errors.New("the task is none")
			}
			f, err := os.OpenFile(filepath.Join(folder, accountsName), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
			if err != nil {
				return errors.New("the directory service cannot be reached")
			}
			_, err = f.Write(append(line, '\n'))
			if err := errors.Join(err, f.Close()); err != nil {
				return errors.New("the directory service did not take it")
			}
			return nil
		},
	})
	if err != nil {
		return nil, err
	}
	l, err := broker.Listen(filepath.Join(root, brokerOrders))
	if err != nil {
		return nil, errors.Join(err, b.Close())
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- b.Serve(ctx, l) }()
	return func() error {
		cancel()
		return errors.Join(<-done, b.Close())
	}, nil
}
