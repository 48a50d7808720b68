package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/counterseal/counterseal/internal/pipeline"
)

// reloadEvery is how often serve looks whether a document has changed.
const reloadEvery = 2 * time.Second

// reload puts changed rules, assessments, lists, policies and offices in force while the server runs:
// on SIGHUP, and when a file of them was added, removed or written. Documents that
// cannot be read leave the old ones in force; the log says which and why.
func (s *server) reload(ctx context.Context) error {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	tick := time.NewTicker(reloadEvery)
	defer tick.Stop()
	last, err := s.stamp()
	if err != nil {
		return err
	}
	for {
		forced := false
		select {
		case <-ctx.Done():
			return nil
		case <-hup:
			forced = true
		case <-tick.C:
		}
		now, err := s.stamp()
		if err != nil {
			s.log.Error("documents cannot be read; the old ones stay in force", "err", err)
			continue
		}
		if now == last && !forced {
			continue
		}
		last = now
		err = s.reloadForce(ctx) // first: who is in office decides on rules that select somebody
		if err == nil {
			var docs pipeline.Documents
			if docs, err = s.documents(ctx); err == nil {
				err = s.pipe.SetDocuments(docs)
			}
		}
		if err != nil {
			s.log.Error("documents cannot be read; the old ones stay in force", "err", err)
			continue
		}
		aside, _ := s.pipe.Standing()
		s.log.Info("documents reloaded", "rules", len(s.pipe.Rules().Rules()), "problems", len(s.pipe.Problems()), "set_aside", len(aside))
		s.logAside(aside)
	}
}

// logAside names the rules that are set aside, by id and reason.
func (s *server) logAside(aside []pipeline.Aside) {
	for i := range aside {
		s.log.Warn("a rule is set aside", "rule", aside[i].Rule, "code", aside[i].Code, "why", aside[i].Reason)
	}
}

// stamp changes when a document was added, removed or written.
func (c *config) stamp() (string, error) {
	var b strings.Builder
	roots := append(append([]string{}, c.PIAs...), c.Rules...)
	for _, p := range []string{c.Protected, c.Directory, c.Policies, c.Offices} {
		if p != "" {
			roots = append(roots, p)
		}
	}
	for _, root := range roots {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if d.IsDir() {
				return nil
			}
			info, err := d.Info()
			if errors.Is(err, fs.ErrNotExist) { // gone between listing and looking
				return nil
			}
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, "%s %d %d\n", path, info.Size(), info.ModTime().UnixNano())
			return nil
		})
		if err != nil {
			return "", err
		}
	}
	return b.String(), nil
}
