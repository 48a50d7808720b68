package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/counterseal/counterseal/internal/access"
	"github.com/counterseal/counterseal/internal/admit"
	"github.com/counterseal/counterseal/internal/attest"
	"github.com/counterseal/counterseal/internal/cases"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/oversight"
	"github.com/counterseal/counterseal/internal/pipeline"
	"github.com/counterseal/counterseal/internal/policy"
	"github.com/counterseal/counterseal/internal/web"
)

// actionChannels is the act of the request that one office makes and another approves.
const (
	actionChannels    = "channels.propose"
	channelsAskedForm = "channels.request/v1"
)

// What the acts about protected channels are given and answer.
type (
	channelsState struct {
		Agreed   bool              `json:"agreed"` // two offices keep the list; false: the file does
		Since    time.Time         `json:"since,omitzero"`
		Channels []channelRow      `json:"channels"`
		Digest   string            `json:"digest,omitempty"` // of what waits
		Waiting  []wordGiven       `json:"waiting"`          // whose word for it holds
		Until    time.Time         `json:"until,omitzero"`
		Offices  []string          `json:"offices,omitempty"` // that can decide
		Removed  []channelsRemoved `json:"removed"`
	}
	channelRow struct {
		ID    string `json:"id"`
		List  string `json:"list"`
		Value string `json:"value"`
		Name  string `json:"name"`
		Kind  string `json:"kind"`
		State string `json:"state"`
	}
	channelsRemoved struct {
		At      time.Time        `json:"at"`
		Entries int              `json:"entries"`
		Kinds   map[string]int64 `json:"kinds"`
	}
	channelsNamed struct {
		Digest string   `json:"digest,omitempty"`
		IDs    []string `json:"ids,omitempty"`
	}
)

// The states of a channel.
const (
	channelIs      = "protected"
	channelMissing = "protected, not in the file"
	channelWaits   = "waits, protects nothing"
)

// channelsDigest names what waits for the second word.
func channelsDigest(list []admit.Channel) string {
	if len(list) == 0 {
		return ""
	}
	h := sha256.New()
	for i := range list {
		fmt.Fprintf(h, "%s\x00%s\x00%s\x00", list[i].List, list[i].Value, list[i].Kind)
	}
	return hex.EncodeToString(h.Sum(nil))
}

func (s *server) channelsNow(ctx context.Context) (channelsState, pipeline.Channels, error) {
	c := s.pipe.Channels()
	st := channelsState{Agreed: c.Agreed, Since: c.Since, Channels: []channelRow{}, Digest: channelsDigest(c.Waiting), Waiting: []wordGiven{}, Removed: []channelsRemoved{}}
	missing := map[string]bool{}
	for i := range c.Missing {
		missing[c.Missing[i].ID()] = true
	}
	add := func(list []admit.Channel, state string) {
		for i := range list {
			row := channelRow{ID: list[i].ID(), List: list[i].List, Value: list[i].Value, Name: list[i].Name, Kind: cmp.Or(list[i].Kind, admit.OtherChannel), State: state}
			if missing[row.ID] {
				row.State = channelMissing
			}
			st.Channels = append(st.Channels, row)
		}
	}
	add(c.InForce, channelIs)
	add(c.Waiting, channelWaits)
	removed, err := s.pipe.RemovedChannels(ctx)
	if err != nil {
		return st, c, err
	}
	for _, r := range removed {
		st.Removed = append(st.Removed, channelsRemoved(r))
	}
	if st.Digest != "" {
		st.Waiting, err = s.wordsFor(ctx, actionChannels, channelsAskedForm, st.Digest)
	}
	return st, c, err
}

func (s *server) channelsShow(ctx context.Context, _ string, _ []byte) (any, error) {
	st, _, err := s.channelsNow(ctx)
	return st, err
}

// inOffice refuses who holds no office.
func (s *server) inOffice(a web.Asker) error {
	if s.force.Load().offices == nil || a.Person.Office == "" {
		return &web.Refused{Reason: "the holder of an office does this, and the record of offices does not have this one so", Hint: "counterseal offices show tells who does; before there is a record the file of protected channels counts as it is"}
	}
	return nil
}

// channelsPropose takes the word of security for what is new in the file.
func (s *server) channelsPropose(ctx context.Context, _ string, _ []byte) (any, error) {
	a := web.AskerOf(ctx)
	s.approving.Lock()
	defer s.approving.Unlock()
	if err := s.inOffice(a); err != nil {
		return nil, err
	}
	st, _, err := s.channelsNow(ctx)
	if err != nil {
		return nil, err
	}
	if st.Digest == "" {
		return nil, web.BadRequest("the file of protected channels names none that is not protected", "write the channel into the file `protected` first")
	}
	me := strings.ToLower(a.Person.ID)
	st.Offices = s.couldDecide("channels.approve", me)
	for _, w := range st.Waiting {
		if w.Asked == me { // their word holds already
			st.Until = w.Until
			return st, nil
		}
	}
	if st.Until, err = s.giveWord(ctx, a, actionChannels, channelsAskedForm, st.Digest); err != nil {
		return nil, err
	}
	st.Waiting = append(st.Waiting, wordGiven{Asked: me, Until: st.Until})
	return st, nil
}

// channelsApprove takes the word of the overseer: about what they name, which is what waits,
// and which somebody of another chain has asked for.
func (s *server) channelsApprove(ctx context.Context, _ string, body []byte) (any, error) {
	var in channelsNamed
	if json.Unmarshal(body, &in) != nil {
		return nil, web.BadRequest("this names no channels", "")
	}
	a := web.AskerOf(ctx)
	s.approving.Lock()
	defer s.approving.Unlock()
	st, c, err := s.channelsNow(ctx)
	if err != nil {
		return nil, err
	}
	asked, err := s.agreeToChannels(ctx, a, in.Digest, &st)
	if err := decided(ctx, err); err != nil {
		return nil, err
	}
	if err := s.changeChannels(ctx, pipeline.ChannelsChange{Add: c.Waiting, Asked: asked.Asked, Approved: strings.ToLower(a.Person.ID), Actor: a.Actor}); err != nil {
		return nil, err
	}
	if _, err := s.pipe.Recorder().Record(ctx, attest.Act{Kind: "approval.used", Actor: a.Actor, Subject: []string{asked.id}, Detail: map[string]any{"request": asked.id}}); err != nil {
		return nil, err
	}
	st, _, err = s.channelsNow(ctx)
	return st, err
}

// agreeToChannels gives the word that an overseer may join, or a refusal.
func (s *server) agreeToChannels(ctx context.Context, a web.Asker, digest string, st *channelsState) (asked wordGiven, err error) {
	switch {
	case digest == "" || digest != st.Digest:
		return asked, &cases.Refusal{Code: cases.Altered, Reason: "what waits is something else than what this digest names", Hint: "see what waits: counterseal channels show"}
	case len(st.Waiting) == 0:
		return asked, &cases.Refusal{Code: cases.Over, Reason: "nobody has asked for these channels in the last 24 hours, or they are approved", Hint: "an office of security asks: counterseal channels propose"}
	case !a.Fresh:
		return asked, &cases.Refusal{Code: cases.NotFresh, Reason: "the login is too old to decide", Hint: "log in again: counterseal login"}
	}
	for _, w := range st.Waiting { // one whose word this overseer may join, where there is one
		if asked, err = w, s.cases.Decides(ctx, w.Asked, a.Person, "channels.approve", digest); err == nil {
			return asked, nil
		}
	}
	return asked, err
}

// independent refuses who does not hold an office of an overseer that is independent.
func (s *server) independent(a web.Asker, does string) error {
	if slices.Contains(oversight.Independent(s.force.Load().offices), a.Person.Office) {
		return nil
	}
	return &web.Refused{Reason: "only an independent office of an overseer " + does + ": held by nobody who reads events or runs the machines, of another chain of command and appointing authority", Hint: "counterseal oversight status tells which are"}
}

// channelsRemove takes channels off the list by the word of an overseer. How many, when and
// of what kind is for everybody to see.
func (s *server) channelsRemove(ctx context.Context, _ string, body []byte) (any, error) {
	var in channelsNamed
	if json.Unmarshal(body, &in) != nil || len(in.IDs) == 0 {
		return nil, web.BadRequest("this names no channels", "")
	}
	a := web.AskerOf(ctx)
	s.approving.Lock()
	defer s.approving.Unlock()
	if err := s.inOffice(a); err != nil {
		return nil, err
	}
	// An overseer whom the house appointed over those it watches would be no second owner.
	if err := s.independent(a, "takes a channel off"); err != nil {
		return nil, err
	}
	if !a.Fresh {
		return nil, &web.Refused{Reason: "the login is too old to decide", Hint: "log in again: counterseal login"}
	}
	have := s.pipe.Channels().InForce
	change := pipeline.ChannelsChange{Approved: strings.ToLower(a.Person.ID), Actor: a.Actor}
	named := map[string]bool{}
	for _, id := range in.IDs {
		named[strings.ToLower(id)] = true
	}
	for i := range have {
		if id := have[i].ID(); named[id] {
			change.Remove = append(change.Remove, have[i])
			delete(named, id)
		}
	}
	if len(named) > 0 {
		return nil, web.BadRequest("a channel that is named is not on the list", "counterseal channels show tells the ids")
	}
	if err := s.changeChannels(ctx, change); err != nil {
		return nil, err
	}
	st, _, err := s.channelsNow(ctx)
	return st, err
}

func (s *server) changeChannels(ctx context.Context, c pipeline.ChannelsChange) error {
	err := s.pipe.ChangeChannels(ctx, c)
	if errors.Is(err, pipeline.ErrChannels) {
		return &web.Refused{Reason: pipeline.ErrChannels.Error(), Hint: "see it: counterseal channels show"}
	}
	return err
}

// channelChecks tells the doctor where the file of protected channels says something else
// than the list in force, and who can decide.
func (s *server) channelChecks() []pipeline.Check {
	c := s.pipe.Channels()
	if !c.Agreed {
		return nil
	}
	out := []pipeline.Check{}
	if n := len(c.Waiting); n > 0 {
		text := fmt.Sprintf("%s of the file %s nothing until two offices have agreed; ", counted(n, "entry", "entries"), map[bool]string{true: "protects", false: "protect"}[n == 1])
		if who := s.couldAgree(); len(who) > 0 {
			text += "security proposes, and can decide: " + strings.Join(who, ", ")
		} else {
			text += "nobody in office can decide"
		}
		out = append(out, pipeline.Check{Name: "protected", State: "warn", Text: text, Hint: "counterseal channels propose; then an overseer: counterseal channels approve"})
	}
	if n := len(c.Missing); n > 0 {
		text := fmt.Sprintf("%s not in the file and stays protected", counted(n, "entry is", "entries are"))
		if n > 1 {
			text = strings.Replace(text, "stays", "stay", 1)
		}
		out = append(out, pipeline.Check{Name: "protected", State: "warn", Text: text, Hint: "write it into the file again; or an overseer takes it off: counterseal channels remove"})
	}
	return out
}

// couldAgree names the offices that could agree to what some office of security asks for.
func (s *server) couldAgree() []string {
	force := s.force.Load()
	if force.offices == nil {
		return nil
	}
	seen := map[string]bool{}
	for i := range force.offices.Offices {
		p, ok := force.offices.Person(force.offices.Offices[i].ID)
		if !ok || !force.policy.Decide(policy.Request{Principal: p, Action: actionChannels, Context: policy.Context{Now: s.now(), Offices: "kept", Crowd: string(access.CrowdNone)}}).Allow {
			continue
		}
		for _, office := range s.couldDecide("channels.approve", p.ID) {
			seen[office] = true
		}
	}
	return slices.Sorted(maps.Keys(seen))
}

func counted(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

func newChannels(env *environment) *cobra.Command {
	cmd := &cobra.Command{Use: "channels", Short: "Protected channels: what is on the list, two offices that keep it, canaries", Args: cobra.NoArgs,
		Long: "Contact with a protected channel leaves no trace. Where people are in office, a channel that\n" +
			"is new in the file `protected` protects nobody until an office of security and an overseer of\n" +
			"another chain of command have agreed; an overseer alone takes one off, and everybody sees\n" +
			"that. docs/for-privacy-officers.md tells more.",
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(newChannelsShow(env), newChannelsPropose(env), newChannelsApprove(env), newChannelsRemove(env), newChannelsCanary(env))
	return cmd
}

func newChannelsShow(env *environment) *cobra.Command {
	var f configFlags
	var l look
	var format string
	cmd := &cobra.Command{Use: "show", Short: "Show the list in force, and what of the file waits", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if format != "table" && format != "jsonl" {
				return usage("--format is table or jsonl")
			}
			var st channelsState
			if err := doActIn(cmd, env, &f, &l, "channels.show", struct{}{}, &st); err != nil {
				return err
			}
			if format == "jsonl" {
				return printLines(env, st.Channels)
			}
			return printChannels(env.stdout, &st)
		}}
	f.add(cmd)
	l.add(cmd)
	cmd.Flags().StringVar(&format, "format", "table", "table or jsonl")
	return cmd
}

func newChannelsPropose(env *environment) *cobra.Command {
	var f configFlags
	var l look
	cmd := &cobra.Command{Use: "propose", Short: "Give the word of security for what is new in the file", Args: cobra.NoArgs,
		Long: "Propose gives your word for every channel that the file `protected` names and the list has\n" +
			"not. It counts when an overseer of another chain of command agrees within 24 hours:\n" +
			"counterseal channels approve. Only then are they protected.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			var st channelsState
			if err := doActIn(cmd, env, &f, &l, "channels.propose", struct{}{}, &st); err != nil {
				return err
			}
			if err := printChannels(env.stdout, &st); err != nil {
				return err
			}
			printDeciders(env.stdout, st.Offices, "decide", "")
			_, err := fmt.Fprintf(env.stdout, "until    %s\nnext     an overseer: counterseal channels approve --digest %s\n", st.Until.Format(time.RFC3339), st.Digest)
			return err
		}}
	f.add(cmd)
	l.add(cmd)
	return cmd
}

func newChannelsApprove(env *environment) *cobra.Command {
	var f configFlags
	var l look
	var in channelsNamed
	cmd := &cobra.Command{Use: "approve [--digest D]", Short: "Agree, as an overseer, to what security proposed; without --digest: show it", Args: cobra.NoArgs,
		Long: "Approve adds what waits to the list. Look at each entry first: whose server is it? Whoever\n" +
			"gets their own server onto the list hides what they do with it.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			var st channelsState
			if in.Digest == "" {
				if err := doActIn(cmd, env, &f, &l, "channels.show", struct{}{}, &st); err != nil {
					return err
				}
				return printChannels(env.stdout, &st)
			}
			if err := doActIn(cmd, env, &f, &l, "channels.approve", &in, &st); err != nil {
				return err
			}
			return printChannels(env.stdout, &st)
		}}
	f.add(cmd)
	l.add(cmd)
	cmd.Flags().StringVar(&in.Digest, "digest", "", "`digest` of what waits, as channels show prints it")
	return cmd
}

func newChannelsRemove(env *environment) *cobra.Command {
	var f configFlags
	var l look
	var in channelsNamed
	cmd := &cobra.Command{Use: "remove ID…", Short: "Take channels off the list, as an overseer, for everybody to see", Args: cobra.MinimumNArgs(1),
		Long: "Remove takes entries off the list, by their ids in channels show. From then on contact with\n" +
			"them is stored like any other. The public page and the reports tell\n" +
			"when, how many and of what kind, and not which.",
		RunE: func(cmd *cobra.Command, args []string) error {
			in.IDs = args
			var st channelsState
			if err := doActIn(cmd, env, &f, &l, "channels.remove", &in, &st); err != nil {
				return err
			}
			return printChannels(env.stdout, &st)
		}}
	f.add(cmd)
	l.add(cmd)
	return cmd
}

func printChannels(w io.Writer, st *channelsState) error {
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintln(t, "ID\tKIND\tLIST\tENTRY\tCHANNEL\tSTATE")
	for i := range st.Channels {
		r := &st.Channels[i]
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", r.ID, r.Kind, r.List, shorten(event.Printable(r.Value), 50), shorten(event.Printable(r.Name), 30), r.State)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	switch {
	case !st.Agreed:
		fmt.Fprintln(w, "list     the file, as long as nobody is in office")
	default:
		fmt.Fprintf(w, "list     kept by two offices; this one since %s\n", st.Since.UTC().Format(time.RFC3339))
	}
	for _, r := range st.Removed {
		fmt.Fprintf(w, "removed  %s on %s\n", counted(r.Entries, "entry", "entries"), r.At.UTC().Format(time.DateOnly))
	}
	if st.Digest != "" {
		fmt.Fprintf(w, "waits    %s\n", st.Digest)
		for _, one := range st.Waiting {
			fmt.Fprintf(w, "asked by %s, until %s\n", event.Printable(one.Asked), one.Until.UTC().Format(time.RFC3339))
		}
		if len(st.Waiting) == 0 {
			fmt.Fprintln(w, "nobody asks for them: counterseal channels propose")
		}
	}
	return nil
}
