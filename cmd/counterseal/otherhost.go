package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/counterseal/counterseal/internal/collect"
)

// OtherHost is a process of ours on another host. It is reached by TLS 1.3, and both sides
// show a certificate. The YAML library sets an embedded struct only where its name is
// exported.
type OtherHost struct {
	// Address is host:port of the process on another host, with the three files below.
	Address string `yaml:"address"`
	// Cert and Key are PEM files by which it knows who asks.
	Cert string `yaml:"cert"`
	Key  string `yaml:"key"`
	// CA is the PEM file of who signed its certificate.
	CA string `yaml:"ca"`
}

// dialTimeout bounds connection and handshake.
const dialTimeout = 10 * time.Second

// check refuses what cannot work, naming the setting. here is what the setting called key
// says, which is the way to such a process on this machine.
func (o *OtherHost) check(key, here string) error {
	switch {
	case here != "" && o.Address != "":
		return fmt.Errorf("%s: one on this machine or an address elsewhere, not both", key)
	case o.Address != "" && (o.Cert == "" || o.Key == "" || o.CA == ""):
		return errors.New("address: needs cert, key and ca")
	case o.Address == "" && o.Cert+o.Key+o.CA != "":
		return errors.New("address: cert, key and ca are for another host, which it names")
	case o.Address != "":
		if _, _, err := net.SplitHostPort(o.Address); err != nil {
			return fmt.Errorf("address: %w", err)
		}
	}
	return nil
}

// dial gives a way to open connections. The files are read now, so that what is wrong with
// them shows at the start; below is what stands before the names of the settings in errors.
func (o *OtherHost) dial(below string) (func(context.Context) (net.Conn, error), error) {
	conf, err := o.tls(below)
	if err != nil {
		return nil, err
	}
	d := tls.Dialer{NetDialer: &net.Dialer{Timeout: dialTimeout}, Config: conf}
	address := o.Address
	return func(ctx context.Context) (net.Conn, error) { return d.DialContext(ctx, "tcp", address) }, nil
}

func (o *OtherHost) tls(below string) (*tls.Config, error) {
	host, _, err := net.SplitHostPort(o.Address)
	if err != nil {
		return nil, fmt.Errorf("%saddress: %w", below, err)
	}
	pem, err := os.ReadFile(o.CA)
	if err != nil {
		return nil, fmt.Errorf("%sca: %w", below, err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%sca: no certificate in it", below)
	}
	cert, key := o.Cert, o.Key
	if _, err := tls.LoadX509KeyPair(cert, key); err != nil {
		return nil, fmt.Errorf("%scert: %w", below, err)
	}
	return &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: pool, ServerName: host,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { // a renewed one is read again
			pair, err := tls.LoadX509KeyPair(cert, key)
			return &pair, err
		}}, nil
}

// atSocket gives a way to open connections to a unix socket of this machine.
func atSocket(path string) func(context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	}
}

// listenTLS takes connections from other hosts, of who shows a certificate of the authority
// in files.
func listenTLS(address string, files collect.TLSFiles) (net.Listener, error) {
	conf, err := files.Config()
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	return tls.NewListener(l, conf), nil
}
