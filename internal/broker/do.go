package broker

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os/exec"
	"time"
)

// Way is how an act is done: a command, or a webhook. Both get the Task as JSON, the
// command on its standard input, so that no name stands in a list of processes.
type Way struct {
	Command []string `yaml:"command"`
	Webhook string   `yaml:"webhook"` // https, or http on this machine
	Secret  []byte   `yaml:"-"`       // of the signature of a webhook
}

// Check refuses what cannot be done.
func (w *Way) Check() error {
	switch {
	case (len(w.Command) == 0) == (w.Webhook == ""):
		return errors.New("an act has a command or a webhook, one of them")
	case w.Webhook == "":
		return nil
	}
	u, err := url.Parse(w.Webhook)
	switch {
	case err != nil || u.Host == "" || u.User != nil:
		return errors.New("the webhook is no address")
	case u.Scheme == "https", u.Scheme == "http" && (u.Hostname() == "127.0.0.1" || u.Hostname() == "::1"):
	default:
		return errors.New("a webhook is https, or http at 127.0.0.1")
	}
	if len(w.Secret) < 32 {
		return errors.New("the secret of a webhook has at least 32 bytes")
	}
	return nil
}

// SignatureHeader holds the HMAC-SHA256 of the body under the secret of the webhook, hex.
const SignatureHeader = "Counterseal-Signature"

// doLimit is how long an act may take.
const doLimit = 30 * time.Second

// Do does a task. What the command writes is not kept: it may say a name.
func (w *Way) Do(ctx context.Context, t Task) error {
	ctx, cancel := context.WithTimeout(ctx, doLimit)
	defer cancel()
	body, err := json.Marshal(t)
	if err != nil {
		return errors.New("the task is none")
	}
	if w.Webhook != "" {
		return w.post(ctx, body)
	}
	cmd := exec.CommandContext(ctx, w.Command[0], w.Command[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(body), io.Discard, io.Discard
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"}
	cmd.WaitDelay = time.Second
	err = cmd.Run()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return errors.New("it took longer than 30 seconds")
	case errors.As(err, &exit):
		return fmt.Errorf("exit code %d", exit.ExitCode())
	case err != nil:
		return errors.New("it cannot be started")
	}
	return nil
}

func (w *Way) post(ctx context.Context, body []byte) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, w.Webhook, bytes.NewReader(body))
	if err != nil {
		return errors.New("the webhook is no address")
	}
	mac := hmac.New(sha256.New, w.Secret)
	mac.Write(body)
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set(SignatureHeader, hex.EncodeToString(mac.Sum(nil)))
	c := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	answer, err := c.Do(r)
	if err != nil {
		return errors.New("the webhook does not answer")
	}
	defer answer.Body.Close()
	if answer.StatusCode/100 != 2 {
		return fmt.Errorf("the webhook answers with status %d", answer.StatusCode)
	}
	return nil
}
