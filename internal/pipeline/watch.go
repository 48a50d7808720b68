package pipeline

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/counterseal/counterseal/internal/evidence"
	"github.com/counterseal/counterseal/internal/ledger"
)

// watchChecks says how the ledger stands: whether others have seen it, whether they
// are others, and whether the state says what it says.
func (p *Pipeline) watchChecks(ctx context.Context, thorough bool, add func(name, state, text, hint string)) {
	l := p.recorder.Ledger()
	size := l.Size()
	witnessed, at := l.Witnessed()
	since, lacking := l.UnwitnessedSince()
	switch {
	case len(p.watch.Witnesses) == 0:
		add("ledger", "warn", fmt.Sprintf("%d statements, and no witness: showing names, unlocking, destroying and packages wait", size),
			"counterseal witness on another host, then name it under `witnesses`")
	case lacking:
		add("ledger", "warn", fmt.Sprintf("unwitnessed since %s: %d of %d statements are cosigned; showing names, unlocking, destroying and packages wait", since.UTC().Format(time.RFC3339), min(witnessed, size), size),
			"find out why the witness does not answer")
	default:
		add("ledger", "ok", fmt.Sprintf("%d statements, cosigned up to %d at %s", size, min(witnessed, size), at.UTC().Format(time.RFC3339)), "")
	}
	for _, a := range l.Alarms() {
		state := "warn"
		switch a.Kind {
		case ledger.AlarmFork, ledger.AlarmRollback, ledger.AlarmDouble, ledger.AlarmGap, ledger.AlarmOutbox:
			state = "fail"
		}
		add("ledger", state, fmt.Sprintf("%s at %s: %s", a.Kind, a.Time.UTC().Format(time.RFC3339), a.What), "docs/operations.md says what each alarm means")
	}
	c := p.compare(ctx, thorough)
	if c.forged != nil {
		add("ledger", "fail", "it succeeds another log, and not as two officers signed: "+c.forged.Error(), "keep a copy of ledger/ and ledger.before/, then counterseal verify")
	}
	switch {
	case c.err != nil:
		add("state", "fail", "the state cannot be compared with the ledger", "counterseal verify")
	case len(c.differ) > 0:
		add("state", "fail", fmt.Sprintf("the state says otherwise than the ledger in %d places: %s", len(c.differ), c.differ[0]), "counterseal rebuild makes it again from the ledger")
	default:
		add("state", "ok", "says what the ledger says", "")
	}
	for _, text := range c.dependent {
		add("witness", "warn", text, "let others run it, on their own host")
	}
}

// compared is the last comparison of the state with the ledger, of the ledger with the
// logs that it succeeds, and what witnesses have in common with this server. It reads
// whole logs and asks the network, so a page that is looked at often shows what was found
// in the last minutes.
type compared struct {
	mu sync.Mutex
	at time.Time
	comparison
}

type comparison struct {
	differ    []string
	dependent []string
	unsealed  int   // segments of originals that the keyring opens
	forged    error // the succession
	err       error // of comparing
}

const comparedFor = 10 * time.Minute

func (p *Pipeline) compare(ctx context.Context, thorough bool) comparison {
	c := &p.compared
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := p.now(); thorough || c.at.IsZero() || now.Sub(c.at) > comparedFor || now.Before(c.at) {
		// Who asked may go away: what is found is for the next one as well.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		c.comparison = comparison{forged: p.recorder.Succession(ctx)}
		c.differ, c.err = p.recorder.Differences(ctx)
		c.unsealed = p.unsealed()
		for _, w := range p.watch.Witnesses {
			if why := p.dependent(ctx, w); len(why) > 0 {
				c.dependent = append(c.dependent, fmt.Sprintf("%s is not independent: %s", witnessName(w), strings.Join(why, "; ")))
			}
		}
		if c.at = now; c.err != nil {
			c.at = time.Time{}
		}
	}
	return c.comparison
}

// unsealed counts the segments of originals that no officer is needed for. What cannot
// be described, verify names.
func (p *Pipeline) unsealed() int {
	n := 0
	for _, c := range p.evidence.Compartments(evidence.Originals) {
		segments, err := p.evidence.Segments(evidence.Originals, c)
		if err != nil {
			continue
		}
		for i := range segments {
			if segments[i].HasKey && !segments[i].Sealed() {
				n++
			}
		}
	}
	return n
}

func witnessName(w ledger.Witness) string {
	name, _, _ := strings.Cut(w.VKey, "+")
	return name
}

// dependent says why a witness is not another party: it shares its administrator, its
// host or its certificate authority with this server. It asks the name service and the
// witness itself; what cannot be found out is not held against it.
func (p *Pipeline) dependent(ctx context.Context, w ledger.Witness) []string {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	var why []string
	switch {
	case w.Group == "" || p.watch.RunBy == "":
		why = append(why, "`run_by` does not say who administers it, or who this server")
	case strings.EqualFold(strings.TrimSpace(w.Group), strings.TrimSpace(p.watch.RunBy)):
		why = append(why, "it has the administrator of this server")
	}
	u, err := url.Parse(w.URL)
	if err != nil {
		return append(why, "its address cannot be read")
	}
	if sameHost(ctx, u.Hostname()) {
		why = append(why, "it runs on the host of this server")
	}
	if u.Scheme == "https" && p.sameAuthority(ctx, u) {
		why = append(why, "the certificate authority of this server signed its certificate")
	}
	return why
}

// sameHost tells whether a host is this machine: by name, or by an address that one of
// its interfaces has.
func sameHost(ctx context.Context, host string) bool {
	if own, err := os.Hostname(); err == nil && strings.EqualFold(own, host) {
		return true
	}
	addrs, err := net.DefaultResolver.LookupIPAddr(ctx, host)
	if err != nil {
		return false
	}
	own, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	for _, a := range addrs {
		if a.IP.IsLoopback() {
			return true
		}
		for _, o := range own {
			if n, ok := o.(*net.IPNet); ok && n.IP.Equal(a.IP) {
				return true
			}
		}
	}
	return false
}

// sameAuthority tells whether the certificate of a witness and one of this server have
// an issuer in common.
func (p *Pipeline) sameAuthority(ctx context.Context, u *url.URL) bool {
	ours := map[string]bool{}
	for _, path := range p.watch.Certificates {
		data, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		for _, c := range certificates(data) {
			ours[string(c.RawIssuer)] = true
		}
	}
	if len(ours) == 0 {
		return false
	}
	address := u.Host
	if u.Port() == "" {
		address = net.JoinHostPort(u.Hostname(), "443")
	}
	// Who signed it is asked, not whether it is trusted: nothing is sent over it.
	d := tls.Dialer{Config: &tls.Config{ServerName: u.Hostname(), InsecureSkipVerify: true, MinVersion: tls.VersionTLS13}}
	c, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return false
	}
	defer c.Close()
	for _, cert := range c.(*tls.Conn).ConnectionState().PeerCertificates {
		if ours[string(cert.RawIssuer)] {
			return true
		}
	}
	return false
}

func certificates(data []byte) []*x509.Certificate {
	var out []*x509.Certificate
	for {
		var block *pem.Block
		if block, data = pem.Decode(bytes.TrimSpace(data)); block == nil {
			return out
		}
		if c, err := x509.ParseCertificate(block.Bytes); err == nil {
			out = append(out, c)
		}
	}
}

// Agree says where the state differs from the ledger, nil where it does not.
func (p *Pipeline) Agree(ctx context.Context) error {
	differ, err := p.recorder.Differences(ctx)
	if err == nil && len(differ) > 0 {
		err = fmt.Errorf("the state says otherwise than the ledger in %d places, %s: counterseal rebuild makes it again", len(differ), differ[0])
	}
	return err
}
