package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/counterseal/counterseal/internal/approval"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/pia"
)

// canaryPlan is what an overseer writes: where canaries are sent, and as which lines.
type canaryPlan struct {
	APIVersion string      `yaml:"apiVersion"`
	Channels   []string    `yaml:"channels"`
	Ways       []canaryWay `yaml:"ways"`
}

const (
	maxCanaryPlan = 1 << 20
	maxCanaryWays = 50
)

// parseCanaryPlan reads a plan. Its errors name ways and lines, and quote nothing.
func parseCanaryPlan(data []byte) (*canaryPlan, error) {
	if len(data) > maxCanaryPlan {
		return nil, fmt.Errorf("the plan is longer than %d bytes", maxCanaryPlan)
	}
	var p canaryPlan
	if err := pia.DecodeStrict(data, &p); err != nil {
		return nil, fmt.Errorf("the plan: %w", err)
	}
	switch {
	case p.APIVersion != "canary/v1":
		return nil, errors.New("the plan: apiVersion is not canary/v1")
	case len(p.Ways) == 0 || len(p.Ways) > maxCanaryWays:
		return nil, fmt.Errorf("the plan: ways are 1 to %d", maxCanaryWays)
	}
	for i := range p.Ways {
		w := &p.Ways[i]
		in := func(format string, a ...any) error {
			return fmt.Errorf("the plan: way %d: %s", i+1, fmt.Sprintf(format, a...))
		}
		if w.Name == "" || w.To == "" {
			return nil, in("name and to are needed")
		}
		if w.Lines.Channel+w.Lines.Person+w.Lines.Refused == "" {
			return nil, in("lines are channel, person and refused, at least one of them")
		}
		for _, l := range w.lines() {
			switch {
			case l.text == "":
			case strings.ContainsAny(l.text, "\r\n"):
				return nil, in("line %s is more than one", l.class)
			case strings.Count(l.text, "{mark}") != 1:
				return nil, in("line %s holds {mark} once", l.class)
			case l.class == markChannel && (len(p.Channels) == 0 || !strings.Contains(l.text, "{channel}")):
				return nil, in("line channel holds {channel}, and the plan names channels")
			case l.class != markChannel && strings.Count(l.text, "{kept}") != 1:
				return nil, in("line %s holds {kept} once, in a field that is kept", l.class)
			}
		}
	}
	return &p, nil
}

type canaryLine struct{ class, text string }

func (w *canaryWay) lines() []canaryLine {
	return []canaryLine{{markChannel, w.Lines.Channel}, {markPerson, w.Lines.Person}, {markRefused, w.Lines.Refused}}
}

// canaryKept is what stays on the overseer's machine.
type canaryKept struct {
	Form  string         `json:"form"`
	Salt  string         `json:"salt"`
	From  time.Time      `json:"from"`
	To    time.Time      `json:"to"`
	Lines []canaryRecord `json:"lines"`
}

// canaryRecord is one line that was sent.
type canaryRecord struct {
	Way   string `json:"way"`
	Class string `json:"class"`
	Word  string `json:"word"`
	Kept  string `json:"kept,omitempty"` // the word in a field that is kept
}

const canaryKeptForm = "canary.kept/v1"

func readCanaryKept(b []byte) (*canaryKept, []byte, error) {
	var k canaryKept
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&k); err != nil || k.Form != canaryKeptForm || len(k.Lines) == 0 {
		return nil, nil, errors.New("this is no file that counterseal channels canary wrote")
	}
	for i := range k.Lines {
		if l := &k.Lines[i]; len(l.Word) != markLen || l.Kept != "" && len(l.Kept) != markLen || l.Kept == l.Word {
			return nil, nil, fmt.Errorf("line %d has no random word", i+1)
		}
	}
	salt, err := hex.DecodeString(k.Salt)
	if err != nil {
		return nil, nil, errors.New("the salt is not hexadecimal")
	}
	return &k, salt, nil
}

func randomMark() string {
	var b [15]byte
	rand.Read(b[:]) // never fails
	return newMark(b[:])
}

// plant fills the lines of a plan and sends them, way by way. What was sent is kept also
// where a way failed.
func (p *canaryPlan) plant(ctx context.Context, now time.Time) (*canaryKept, error) {
	var salt [canarySaltLen]byte
	rand.Read(salt[:])
	k := &canaryKept{Form: canaryKeptForm, Salt: hex.EncodeToString(salt[:]), From: now.UTC()}
	var failed error
	for i := range p.Ways {
		w := &p.Ways[i]
		var texts []string
		var records []canaryRecord
		for _, l := range w.lines() {
			if l.text == "" {
				continue
			}
			r := canaryRecord{Way: w.Name, Class: l.class, Word: randomMark()}
			if strings.Contains(l.text, "{kept}") {
				r.Kept = randomMark()
			}
			channel := ""
			if len(p.Channels) > 0 {
				n, err := rand.Int(rand.Reader, big.NewInt(int64(len(p.Channels))))
				if err != nil {
					return nil, err
				}
				channel = p.Channels[n.Int64()]
			}
			texts = append(texts, strings.NewReplacer("{mark}", r.Word, "{kept}", r.Kept, "{channel}", channel, "{now}", now.UTC().Format(time.RFC3339)).Replace(l.text))
			records = append(records, r)
		}
		if err := w.send(ctx, texts); err != nil {
			failed = errors.Join(failed, fmt.Errorf("way %d, %s: %w", i+1, w.Name, err))
			continue
		}
		k.Lines = append(k.Lines, records...)
	}
	return k, failed
}

func newChannelsCanary(env *environment) *cobra.Command {
	var out string
	cmd := &cobra.Command{Use: "canary PLAN --keep FILE", Short: "Send, as an overseer from outside, what must leave no trace", Args: cobra.ExactArgs(1),
		Long: "Canary sends the lines of a plan, each with random words that only the file of --keep holds:\n" +
			"contact with a protected channel, an invented person, a field that the assessment refuses.\n" +
			"Tell nobody, keep the file, and look some minutes later: counterseal channels canary check.\n" +
			"docs/formats/lists.md shows a plan.",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := errors.Join(need(cmd, "keep"), free(out)); err != nil {
				return err
			}
			data, err := readFile(args[0], "the plan", "docs/for-privacy-officers.md shows one")
			if err != nil {
				return err
			}
			p, err := parseCanaryPlan(data)
			if err != nil {
				return err
			}
			k, failed := p.plant(cmd.Context(), time.Now())
			if k == nil || len(k.Lines) == 0 {
				return failed
			}
			k.To = time.Now().UTC()
			b, err := json.Marshal(k)
			if err != nil {
				return err
			}
			if err := writeNew(out, b); err != nil {
				return err
			}
			fmt.Fprintf(env.stdout, "sent     %s\nkept     %s, and nowhere else\nnext     counterseal channels canary check %s\n", counted(len(k.Lines), "line", "lines"), out, out)
			return failed
		}}
	cmd.Flags().StringVar(&out, "keep", "", "`file` for the random words, which must not be there")
	cmd.AddCommand(newCanaryCheck(env), newCanaryVerify(env))
	return cmd
}

// The verdicts about a line.
const (
	canaryGone  = "no trace"
	canaryToken = "a token"
	canaryLost  = "DID NOT ARRIVE"
	canaryClear = "NO TOKEN"
	canaryFound = "FOUND"
)

type (
	canaryResult struct {
		Form    string          `json:"form"`
		At      time.Time       `json:"at"`
		From    time.Time       `json:"from"`
		Org     string          `json:"org"`
		Office  string          `json:"office"`
		Lines   []canaryVerdict `json:"lines"`
		Planted int             `json:"planted"`
		Found   int             `json:"found"`
		Lost    int             `json:"lost"`
		Files   int64           `json:"files"` // that were looked through; 0: none
	}
	canaryVerdict struct {
		Way       string `json:"way"`
		Class     string `json:"class"`
		Verdict   string `json:"verdict"`
		Events    int    `json:"events"`
		Findings  int    `json:"findings"`
		Elsewhere int    `json:"elsewhere"`
		Files     int    `json:"files"`
	}
	// canarySigned is a result with the statement that an officer signed about it.
	canarySigned struct {
		Result    json.RawMessage  `json:"result"`
		Statement string           `json:"statement,omitempty"`
		Signed    *approval.Signed `json:"signed,omitempty"`
	}
)

func newCanaryCheck(env *environment) *cobra.Command {
	var f configFlags
	var l look
	var key, pass, out, files string
	cmd := &cobra.Command{Use: "check FILE", Short: "Ask whether anything of the canaries exists", Args: cobra.ExactArgs(1),
		Long: "Check asks the server for counts of the words that canary kept: of a protected channel and of\n" +
			"a refused field nothing may be there, in place of an invented person a token. The server gets\n" +
			"salted digests and not the words. With --files it looks through a data directory as well.\n" +
			"The exit code is 1 where something was found and 4 where a line did not arrive.",
		RunE: func(cmd *cobra.Command, args []string) error {
			if out != "" {
				if err := free(out); err != nil {
					return err
				}
			}
			if key != "" && out == "" {
				return usage("--key signs a result: name its file with -o")
			}
			b, err := readFile(args[0], "the file of the canaries", "counterseal channels canary --keep wrote it")
			if err != nil {
				return err
			}
			k, salt, err := readCanaryKept(b)
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			found := map[string]int{}
			r := &canaryResult{Form: canaryResultForm, From: k.From}
			if files != "" {
				if found, r.Files, err = wordsInFiles(cmd.Context(), files, k); err != nil {
					return err
				}
			}
			var st oversightState
			if err := doActIn(cmd, env, &f, &l, "oversight.status", struct{}{}, &st); err != nil {
				return err
			}
			ask, lines := k.ask(salt)
			var answer canaryAnswer
			if err := doActIn(cmd, env, &f, &l, "canary.check", ask, &answer); err != nil {
				return err
			}
			if len(answer.Marks) != len(ask.Marks) {
				return errors.New("the server answers about other canaries than it was asked about")
			}
			r.At, r.Org, r.Office = time.Now().UTC().Truncate(time.Second), st.Org, st.Office
			r.judge(k, lines, &answer, found)
			if out != "" {
				if err := writeCanaryResult(env, r, out, key, pass); err != nil {
					return err
				}
			}
			return printCanaries(env.stdout, r)
		}}
	f.add(cmd)
	l.add(cmd)
	cmd.Flags().StringVar(&key, "key", "", "`file` of the officer's key, to sign the result")
	cmd.Flags().StringVar(&pass, "passphrase-file", "", "`file` with the passphrase of the key")
	cmd.Flags().StringVarP(&out, "output", "o", "", "`file` for the result, which must not be there")
	cmd.Flags().StringVar(&files, "files", "", "`folder` of a data directory to look through, where you can read it")
	return cmd
}

// ask is the question, and for each line where its words stand in it; -1: it has none.
func (k *canaryKept) ask(salt []byte) (in *canaryAsk, lines [][2]int) {
	in = &canaryAsk{Salt: k.Salt, From: k.From.Add(-10 * time.Minute), To: k.To.Add(10 * time.Minute)}
	add := func(class, word string) int {
		if word == "" {
			return -1
		}
		sum := markDigest(salt, []byte(word))
		in.Marks = append(in.Marks, canaryMark{Class: class, Digest: hex.EncodeToString(sum[:])})
		return len(in.Marks) - 1
	}
	for i := range k.Lines {
		l := &k.Lines[i]
		lines = append(lines, [2]int{add(l.Class, l.Word), add(markKept, l.Kept)})
	}
	return in, lines
}

// judge says of each line what came of it.
func (r *canaryResult) judge(k *canaryKept, lines [][2]int, a *canaryAnswer, files map[string]int) {
	for i := range k.Lines {
		l := &k.Lines[i]
		hits := a.Marks[lines[i][0]]
		v := canaryVerdict{Way: l.Way, Class: l.Class, Events: hits.Events, Findings: hits.Findings, Elsewhere: hits.Elsewhere, Files: files[l.Word], Verdict: canaryGone}
		var kept canaryHits
		if lines[i][1] >= 0 {
			kept = a.Marks[lines[i][1]]
		}
		switch {
		case !hits.gone() || v.Files > 0:
			v.Verdict = canaryFound
			r.Found++
		case l.Class != markChannel && kept.Events == 0:
			v.Verdict = canaryLost
			r.Lost++
		case l.Class == markPerson && kept.Tokens == 0:
			v.Verdict = canaryClear
			r.Lost++
		case l.Class == markPerson:
			v.Verdict = canaryToken
		}
		r.Planted++
		r.Lines = append(r.Lines, v)
	}
}

func writeCanaryResult(env *environment, r *canaryResult, out, key, pass string) error {
	raw, err := approval.Canonical(r)
	if err != nil {
		return err
	}
	signed := canarySigned{Result: raw}
	if key != "" {
		sum := sha256.Sum256(raw)
		org, err := uuid.Parse(r.Org)
		if err != nil {
			return errors.New("the server names no id of its data directory")
		}
		_, statement, err := approval.New(approval.Ask{Action: actionCanary, Case: "oversight", Purpose: "the result of canaries", Requester: cmp.Or(r.Office, "overseer"),
			Objects: []string{"result " + hex.EncodeToString(sum[:])}, Org: org, Grant: time.Minute}, r.At)
		if err != nil {
			return err
		}
		k, err := openKey(env, key, pass)
		if err != nil {
			return err
		}
		one, err := k.Sign(approval.Approve, statement)
		if err != nil {
			return err
		}
		signed.Statement, signed.Signed = string(statement), &one
	}
	b, err := json.Marshal(&signed)
	if err != nil {
		return err
	}
	return writeNew(out, b)
}

func tableOfCanaries(w io.Writer, r *canaryResult) error {
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintln(t, "WAY\tLINE\tRESULT\tEVENTS\tFINDINGS\tELSEWHERE\tFILES")
	for i := range r.Lines {
		v := &r.Lines[i]
		fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%d\t%d\t%d\n", shorten(event.Printable(v.Way), 30), v.Class, v.Verdict, v.Events, v.Findings, v.Elsewhere, v.Files)
	}
	return t.Flush()
}

func printCanaries(w io.Writer, r *canaryResult) error {
	if err := tableOfCanaries(w, r); err != nil {
		return err
	}
	if r.Files > 0 {
		fmt.Fprintf(w, "looked   through %d files\n", r.Files)
	}
	switch {
	case r.Found > 0:
		return &exitError{code: exitFailed, err: fmt.Errorf("%d of %d lines left what must not be there", r.Found, r.Planted), hint: "whoever runs the server cannot mend this by deleting: ask for the assessment, the list and the version in force then"}
	case r.Lost > 0:
		return &exitError{code: exitPartial, err: fmt.Errorf("%d of %d lines did not arrive as a token, so they prove nothing", r.Lost, r.Planted), hint: "look at the plan: the way, the time of the line, and {kept} in a field that the assessment keeps"}
	}
	_, err := fmt.Fprintf(w, "nothing of %s is there\n", counted(r.Planted, "line", "lines"))
	return err
}

// wordsInFiles counts in how many files of a folder each word stands as it was sent.
func wordsInFiles(ctx context.Context, root string, k *canaryKept) (found map[string]int, files int64, err error) {
	found = map[string]int{}
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) { // gone between listing and looking
			return nil
		}
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		files++
		for i := range k.Lines {
			if strings.Contains(path, k.Lines[i].Word) {
				found[k.Lines[i].Word]++
			}
		}
		return wordsInFile(path, k, found)
	})
	if err == nil && files == 0 {
		err = errors.New("--files names a folder without files")
	}
	return found, files, err
}

func wordsInFile(path string, k *canaryKept, found map[string]int) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	const step = 1 << 20
	buf := make([]byte, 0, step+markLen)
	seen := map[string]bool{}
	for {
		n, err := io.ReadFull(f, buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		for i := range k.Lines {
			if word := k.Lines[i].Word; !seen[word] && bytes.Contains(buf, []byte(word)) {
				seen[word] = true
				found[word]++
			}
		}
		if err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				return nil
			}
			return err
		}
		buf = append(buf[:0], buf[max(0, len(buf)-markLen):]...)
	}
}
