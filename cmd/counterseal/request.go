package main

import (
	"context"
	"fmt"
	"maps"
	"strings"

	"github.com/counterseal/counterseal/internal/approval"
	"github.com/counterseal/counterseal/internal/attest"
	"github.com/counterseal/counterseal/internal/event"
)

// officerRequest is what travels to the officers where a statement is all that they are
// asked about: releasing a hold, closing a log.
type officerRequest struct {
	Statement string `json:"statement"`
	V         int    `json:"v"`
}

// signable is what an officer is asked to sign: a statement, and, where it must be signed by
// passkey first, the request that shows it.
type signable struct {
	statement string
	st        *approval.Statement
	name      *unmaskRequest // nil: it is about something else
}

// requested states under the eyes of the witnesses that officers are asked about a
// statement. Subjects are others than its id.
func (s *server) requested(ctx context.Context, actor string, st *approval.Statement, statement []byte, more map[string]any, subjects ...string) error {
	rec := s.pipe.Recorder()
	payload, err := rec.PutPayload(statement)
	if err != nil {
		return err
	}
	detail := map[string]any{"request": st.ID, "act": st.Action, "expires": st.Expires, "statement": approval.HexDigest(statement), "payload": payload}
	maps.Copy(detail, more)
	_, err = rec.Critical(ctx, attest.Act{Kind: "approval.requested", Actor: actor, Purpose: word(st.Case), Subject: append([]string{st.ID}, subjects...), Detail: detail})
	return err
}

// readStatement reads the statement out of a request of any kind.
func readStatement(path string) (string, *approval.Statement, error) {
	q, err := readSignable(path)
	if err != nil {
		return "", nil, err
	}
	return q.statement, q.st, nil
}

// statementIn reads the statement of a request that is nothing but one.
func statementIn(path string) (string, error) {
	statement, _, err := readStatement(path)
	return statement, err
}

// readSignable reads what an officer is asked to sign out of a request of any kind.
func readSignable(path string) (*signable, error) {
	b, err := readFile(path, "the request", "the command that asks the officers wrote it with -o")
	if err != nil {
		return nil, err
	}
	var r officerRequest
	if approval.Decode(b, &r) == nil && r.V == 1 {
		s, err := approval.Parse([]byte(r.Statement))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		if s.Action == actionUnmask {
			return nil, again(fmt.Errorf("%s: a request for a name is signed by passkey, and this one is not", path))
		}
		return &signable{r.Statement, s, nil}, nil
	}
	if u, s, err := parseInside(b); err == nil {
		return &signable{u.Statement, s, nil}, nil
	}
	if u, s, err := parseUnmask(b); err == nil {
		return &signable{u.Statement, s, u}, nil
	}
	if r, s, err := parseNameRequest(b); err == nil {
		return &signable{r.Statement, s, nil}, nil
	}
	u, s, err := parseRequest(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if s.Action == actionUnmask {
		return nil, again(fmt.Errorf("%s: a request for a name is signed by passkey, and this one is not", path))
	}
	return &signable{u.Statement, s, nil}, nil
}

// showStatement says a statement in words.
func showStatement(env *environment, s *approval.Statement) {
	for _, line := range strings.Split(strings.TrimSuffix(s.Words(), "\n"), "\n") {
		fmt.Fprintln(env.stdout, event.Printable(line))
	}
}

// sendRequest writes a request for the officers into a file, shows what they are asked,
// and says what comes next: the command of the officers, with more flags where they need them.
func sendRequest(env *environment, out string, request any, statement string, more ...string) error {
	b, err := approval.Canonical(request)
	if err != nil {
		return err
	}
	s, err := approval.Parse([]byte(statement))
	if err != nil {
		return err
	}
	if err := writeNew(out, b); err != nil {
		return err
	}
	showStatement(env, s)
	_, err = fmt.Fprintf(env.stdout, "wrote %s; both officers: counterseal officer sign %s\n", out, strings.Join(append([]string{out, "--key FILE -o FILE"}, more...), " "))
	return err
}

// readDecisions reads the decisions that officers signed.
func readDecisions(paths []string) ([]approval.Signed, error) {
	var out []approval.Signed
	for _, path := range paths {
		b, err := readFile(path, "--decision", "counterseal officer sign writes one for each officer")
		if err != nil {
			return nil, err
		}
		d, err := approval.ParseSigned(b)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		out = append(out, d)
	}
	return out, nil
}

// openWith opens a file that lies under a passphrase.
func openWith[T any](env *environment, path, pass string, open func(file, secret []byte) (T, error)) (key T, err error) {
	b, err := readFile(path, "--key", "counterseal officer init or counterseal package key writes one, on its owner's machine")
	if err != nil {
		return key, err
	}
	secret, err := passphrase(env, pass, "passphrase of the key", false)()
	if err != nil {
		return key, err
	}
	defer clear(secret)
	return open(b, secret)
}
