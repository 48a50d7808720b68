package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/counterseal/counterseal/internal/ledger"
)

func newWitness(env *environment) *cobra.Command {
	var dir, listen, name, cert, key string
	var logs []string
	cmd := &cobra.Command{
		Use:   "witness --dir DIR --listen ADDRESS --log VKEY...",
		Short: "Cosign the checkpoints of ledgers that others run",
		Long: "Witness remembers the last checkpoint of each log that it knows and cosigns the next\n" +
			"only when the log proves that nothing before it has changed. Run it on another host,\n" +
			"under other hands than the server that it witnesses. It makes its key on the first\n" +
			"start, prints the public half and its address, and serves c2sp.org/tlog-witness until\n" +
			"stopped. Keep its directory: a witness that forgets is no witness.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := need(cmd, "dir", "log"); err != nil {
				return err
			}
			for _, k := range logs {
				if err := checkVKey("--log", k); err != nil {
					return err
				}
			}
			if (cert == "") != (key == "") {
				return usage("--tls-cert and --tls-key go together")
			}
			if name == "" {
				host, err := os.Hostname()
				if err != nil {
					return fmt.Errorf("naming the witness: %w", err)
				}
				name = "counterseal-witness/" + host
			}
			log := newLog(env.stderr, false)
			w, err := ledger.OpenWitness(ledger.WitnessOptions{Dir: dir, Name: name, Logs: logs, Log: log})
			if err != nil {
				return err
			}
			l, err := net.Listen("tcp", listen)
			if err != nil {
				return errors.Join(err, w.Close())
			}
			scheme := "http"
			if cert != "" {
				pair, err := tls.LoadX509KeyPair(cert, key)
				if err != nil {
					return errors.Join(fmt.Errorf("--tls-cert and --tls-key: %w", err), l.Close(), w.Close())
				}
				scheme = "https"
				l = tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS13})
			}
			fmt.Fprintf(env.stdout, "vkey      %s\n", w.VKey())
			fmt.Fprintf(env.stdout, "url       %s://%s\n", scheme, l.Addr())
			return errors.Join(serveWitness(cmd.Context(), l, w), w.Close())
		},
	}
	cmd.Flags().StringVar(&dir, "dir", "", "`directory` of key and state; one process at a time")
	cmd.Flags().StringVar(&listen, "listen", "127.0.0.1:7380", "`address` to listen on")
	cmd.Flags().StringArrayVar(&logs, "log", nil, "`vkey` of a log to witness; repeats")
	cmd.Flags().StringVar(&name, "name", "", "`name` of the key that the first start makes (default counterseal-witness/HOST)")
	cmd.Flags().StringVar(&cert, "tls-cert", "", "certificate `file`; without one, plain HTTP: the answers are signed, not secret")
	cmd.Flags().StringVar(&key, "tls-key", "", "key `file` of the certificate")
	return cmd
}

// serveWitness answers until ctx ends, and then finishes what it has begun.
func serveWitness(ctx context.Context, l net.Listener, w http.Handler) error {
	srv := &http.Server{
		Handler:           w,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
	}
	done := make(chan error, 1) // the goroutine below ends with the listener
	go func() { done <- srv.Serve(l) }()
	select {
	case err := <-done:
		return fmt.Errorf("serving the witness: %w", err)
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	err := srv.Shutdown(stop)
	<-done
	if err != nil {
		return fmt.Errorf("stopping the witness: %w", err)
	}
	return nil
}
