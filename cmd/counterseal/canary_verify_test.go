package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/counterseal/counterseal/internal/approval"
	"github.com/counterseal/counterseal/internal/officer"
)

// canaries sends canaries over https with the token of a machine, checks them through the
// login of an overseer, signs what came of them, and verifies that without the server.
func (d *desk) canaries(at, ca, token string) {
	d.t.Helper()
	s := &shell{d.t, d.folder}
	s.write("token", token+"\n")
	s.write("other", "cst_"+strings.Repeat("A", 43)+"\n")
	plan := func(name, to, token string) string {
		return s.write(name, fmt.Sprintf(`apiVersion: canary/v1
channels: [hotline.oig.example]
ways:
  - name: applications
    to: %s/api/v1/ingest/app
    ca: %s
    token: %s
    lines:
      person: '{"time":"{now}","n":2,"who":"{mark}","text":"kept {kept}"}'
      refused: '{"time":"{now}","n":3,"text":"kept {kept}","secret":"{mark}"}'
`, to, ca, s.at(token)))
	}
	d.run(exitFailed, "the answer was 401", "channels", "canary", plan("refused.yaml", at, "other"), "--keep", "none")
	d.run(exitFailed, "over https alone", "channels", "canary", plan("bare.yaml", strings.Replace(at, "https:", "http:", 1), "token"), "--keep", "none")
	d.run(0, "2 lines", "channels", "canary", plan("plan.yaml", at, "token"), "--keep", "kept")
	_, pass := s.office()
	d.run(0, "nothing of 2 lines is there", "channels", "canary", "check", "kept", "--key", s.at("ovs"), "--passphrase-file", pass, "-o", "result")
	d.run(0, "nothing of 2 lines is there", "channels", "canary", "check", "kept", "--key", s.at("inv"), "--passphrase-file", pass, "-o", "by-investigation")
	d.run(0, "nothing of 2 lines is there", "channels", "canary", "check", "kept", "-o", "unsigned")

	verify := func(code int, says, file string) {
		d.t.Helper()
		d.run(code, says, "channels", "canary", "verify", file, "--officers", "officers.yaml")
	}
	verify(0, "2; 0 left what must not be there, 0 prove nothing", "result")
	verify(exitFailed, "not an officer of oversight", "by-investigation")
	verify(exitFailed, "nobody signed", "unsigned")
	raw := read(d.t, s.at("result"))
	forge := func(name, from, to string) {
		d.t.Helper()
		if !bytes.Contains(raw, []byte(from)) {
			d.t.Fatalf("the result does not say %s", from)
		}
		s.write(name, string(bytes.Replace(raw, []byte(from), []byte(to), 1)))
	}
	forge("counts", `"planted":2`, `"planted":9`)
	verify(exitFailed, "counts of the result", "counts")
	forge("verdict", `"verdict":"no trace"`, `"verdict":"a token"`)
	verify(exitFailed, "says two things", "verdict")
	forge("office", `"office":"inspector"`, `"office":"inspectors"`)
	verify(exitFailed, "about another result", "office")
	var signed canarySigned
	if err := json.Unmarshal(raw, &signed); err != nil {
		d.t.Fatal(err)
	}
	forge("key", signed.Signed.Signature, strings.Repeat("A", len(signed.Signed.Signature)))
	verify(exitFailed, "signature", "key")
}

// FuzzCanarySigned: what is read as a result adds up, and no key but its own verifies it.
func FuzzCanarySigned(f *testing.F) {
	result := []byte(`{"at":"2026-11-25T12:00:00Z","files":0,"form":"canary.result/v1","found":0,"from":"2026-11-25T11:00:00Z","lines":[{"class":"channel","elsewhere":0,"events":0,"files":0,"findings":0,"verdict":"no trace","way":"w"}],"lost":0,"office":"o","org":"01900000-0000-7000-8000-000000000000","planted":1}`)
	b, err := json.Marshal(&canarySigned{Result: result, Statement: "{}", Signed: &approval.Signed{Decision: approval.Approve}})
	if err != nil {
		f.Fatal(err)
	}
	if _, _, err := parseCanarySigned(b); err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"result":{}}`))
	var cards strings.Builder
	cards.WriteString("apiVersion: officers/v1\nepoch: 1\nofficers:\n")
	for i, o := range []officer.Office{officer.Investigation, officer.Oversight, officer.Investigation, officer.Oversight} {
		k, err := officer.New(fmt.Sprint("Officer ", i), o, i > 1)
		if err != nil {
			f.Fatal(err)
		}
		fmt.Fprintf(&cards, "  - id: %s\n    authority: %s\n    card: '%s'\n", k.Card().ID(), o, k.Card().Bytes())
	}
	roster, err := officer.ParseRoster("officers.yaml", []byte(cards.String()))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s, r, err := parseCanarySigned(b)
		if err != nil {
			return
		}
		if r.Planted != len(r.Lines) || r.Found+r.Lost > r.Planted {
			t.Error("a result that does not add up")
		}
		if _, err := s.verify(r, roster); err == nil {
			t.Error("it verifies with keys that signed nothing")
		}
	})
}
