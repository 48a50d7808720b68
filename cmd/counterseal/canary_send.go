package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"
)

// canaryWay is a way in that the overseer can reach, with the lines to send there.
type canaryWay struct {
	Name  string `yaml:"name"`
	To    string `yaml:"to"`    // https://…/api/v1/ingest/SOURCE, udp://, tcp://, tls:// or relp://host:port
	Token string `yaml:"token"` // file with the token of a machine, for https
	CA    string `yaml:"ca"`    // file of the authority of the server
	Cert  string `yaml:"cert"`  // files of a certificate of the sender
	Key   string `yaml:"key"`
	Lines struct {
		Channel string `yaml:"channel"`
		Person  string `yaml:"person"`
		Refused string `yaml:"refused"`
	} `yaml:"lines"`
}

// canaryTimeout bounds one way.
const canaryTimeout = 20 * time.Second

func (w *canaryWay) tls() (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS13}
	if w.CA != "" {
		pem, err := os.ReadFile(w.CA)
		if err != nil {
			return nil, err
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, errors.New("ca holds no certificate")
		}
	}
	if w.Cert != "" {
		pair, err := tls.LoadX509KeyPair(w.Cert, w.Key)
		if err != nil {
			return nil, errors.New("cert and key are no pair")
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

// send sends lines over a way. Its errors name the way and not where it leads.
func (w *canaryWay) send(ctx context.Context, lines []string) error {
	ctx, cancel := context.WithTimeout(ctx, canaryTimeout)
	defer cancel()
	u, err := url.Parse(w.To)
	if err != nil || u.Host == "" {
		return errors.New("to is no address such as tls://logs.agency.example:6514")
	}
	conf, err := w.tls()
	if err != nil {
		return err
	}
	if u.Scheme == "http" || u.Scheme == "https" {
		return w.post(ctx, u, conf, lines)
	}
	network := map[string]string{"udp": "udp", "tcp": "tcp", "tls": "tcp", "relp": "tcp"}[u.Scheme]
	if network == "" {
		return errors.New("to begins with http, https, udp, tcp, tls or relp")
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, network, u.Host)
	if err != nil {
		return errors.New("nobody answers there")
	}
	defer c.Close()
	if at, ok := ctx.Deadline(); ok {
		if err := c.SetDeadline(at); err != nil {
			return err
		}
	}
	switch u.Scheme {
	case "udp":
		for _, l := range lines {
			if _, err := io.WriteString(c, l); err != nil {
				return errors.New("a line was not sent")
			}
		}
		return nil
	case "relp":
		return relpSend(c, lines)
	case "tls":
		conf.ServerName = u.Hostname()
		t := tls.Client(c, conf)
		if err := t.HandshakeContext(ctx); err != nil {
			return fmt.Errorf("the TLS handshake: %w", err)
		}
		return framed(t, lines)
	}
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return errors.New("to is no address of TCP")
	}
	return framed(tcp, lines)
}

// framed sends lines with their lengths, and ends the connection in order.
func framed(c interface {
	io.ReadWriter
	CloseWrite() error
}, lines []string) error {
	var b bytes.Buffer
	for _, l := range lines {
		fmt.Fprintf(&b, "%d %s", len(l), l)
	}
	if _, err := b.WriteTo(c); err != nil {
		return errors.New("the lines were not sent")
	}
	if err := c.CloseWrite(); err != nil {
		return errors.New("the connection broke off")
	}
	_, _ = io.Copy(io.Discard, c) // the other side closes once it has read all
	return nil
}

func (w *canaryWay) post(ctx context.Context, u *url.URL, conf *tls.Config, lines []string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), strings.NewReader(strings.Join(lines, "\n")+"\n"))
	if err != nil {
		return errors.New("to is no address")
	}
	req.Header.Set("Content-Type", "text/plain")
	if strings.HasPrefix(lines[0], "{") {
		req.Header.Set("Content-Type", "application/x-ndjson")
	}
	if w.Token != "" {
		secret, err := os.ReadFile(w.Token)
		if err != nil {
			return err
		}
		if u.Scheme != "https" {
			return errors.New("a token goes over https alone")
		}
		req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(secret)))
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: conf, DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	if err != nil {
		return errors.New("nobody answers there, or not with the certificate that was expected")
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 300 && resp.StatusCode != http.StatusMultiStatus {
		return fmt.Errorf("the answer was %d", resp.StatusCode)
	}
	return nil
}

// relpSend opens a session, sends each line, waits for every answer and closes.
func relpSend(c net.Conn, lines []string) error {
	r := bufio.NewReader(io.LimitReader(c, 1<<20))
	answer := func(want string) error {
		head, err := r.ReadString(' ')
		if err != nil || strings.TrimSpace(head) != want {
			return errors.New("RELP: no answer to a line")
		}
		if word, err := r.ReadString(' '); err != nil || word != "rsp " {
			return errors.New("RELP: an answer is none")
		}
		var digits []byte
		for {
			b, err := r.ReadByte()
			if err != nil || len(digits) > 6 {
				return errors.New("RELP: an answer broke off")
			}
			if b == ' ' || b == '\n' {
				n, err := strconv.Atoi(string(digits))
				if err != nil {
					return errors.New("RELP: an answer has no length")
				}
				if b == '\n' {
					return nil
				}
				data := make([]byte, n+1)
				if _, err := io.ReadFull(r, data); err != nil {
					return errors.New("RELP: an answer broke off")
				}
				if !bytes.HasPrefix(data, []byte("200")) {
					return errors.New("RELP: a line was refused")
				}
				return nil
			}
			digits = append(digits, b)
		}
	}
	say := func(n int, command, data string) error {
		if _, err := fmt.Fprintf(c, "%d %s %d %s\n", n, command, len(data), data); err != nil {
			return errors.New("RELP: the connection broke off")
		}
		return answer(strconv.Itoa(n))
	}
	if err := say(1, "open", "relp_version=0\nrelp_software=counterseal\ncommands=syslog"); err != nil {
		return err
	}
	for i, l := range lines {
		if err := say(i+2, "syslog", l); err != nil {
			return err
		}
	}
	_, _ = fmt.Fprintf(c, "%d close 0\n", len(lines)+2) // all is answered: what follows is a courtesy
	return nil
}
