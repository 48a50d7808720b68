package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/counterseal/counterseal/internal/collect"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/parse"
	"github.com/counterseal/counterseal/internal/pia"
)

func newPIA(env *environment) *cobra.Command {
	cmd := &cobra.Command{Use: "pia", Short: "Privacy impact assessments, which open the gate", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(newPIACheck(env), newPIADraft(env), newPIATemplates(env))
	return cmd
}

func newPIACheck(env *environment) *cobra.Command {
	return &cobra.Command{
		Use:   "check FILE...",
		Short: "Say what is wrong with assessments and whether they open the gate",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if err := there(args); err != nil {
				return err
			}
			now := time.Now()
			closed := 0
			var good []*pia.PIA
			for _, arg := range args {
				files, err := listFiles(arg, ".yaml", ".yml", ".json")
				if err != nil {
					return err
				}
				for _, file := range files {
					data, err := os.ReadFile(file)
					if err != nil {
						return err
					}
					a, problems := pia.Parse(file, data)
					if a != nil {
						problems = append(problems, a.Dates(now)...)
					}
					for _, p := range problems {
						fmt.Fprintln(env.stdout, event.Printable(p.String()))
					}
					if a == nil || !a.Valid() {
						fmt.Fprintf(env.stdout, "%s: the gate stays shut\n", file)
						closed++
						continue
					}
					if ok, why, hint := a.Opens(now); !ok {
						fmt.Fprintf(env.stdout, "%s: the gate stays shut: %s; %s\n", file, why, hint)
						closed++
						continue
					}
					good = append(good, a)
					fmt.Fprintf(env.stdout, "%s: opens the gate for %d sources; unsigned: signatures are not checked yet\n", file, len(a.Sources))
				}
			}
			if _, problems := pia.NewSet(good, now); len(problems) > 0 {
				for _, p := range problems {
					fmt.Fprintln(env.stdout, event.Printable(p.String()))
				}
			}
			if closed > 0 {
				return &exitError{code: exitRefused, err: fmt.Errorf("%d assessments do not open the gate", closed)}
			}
			return nil
		},
	}
}

// sampleFrames bounds how much of a sample is read.
const sampleFrames = 20_000

func newPIADraft(env *environment) *cobra.Command {
	var source, sample, compartment string
	cmd := &cobra.Command{
		Use:   "draft --source NAME --sample FILE",
		Short: "Propose an assessment for what a sample holds",
		Long: "Draft reads a sample in memory, finds its datasets and fields by our parsers, and prints\n" +
			"an assessment with a careful proposal for each field. It opens no gate until a person\n" +
			"has filled in the marked places, published it and had it signed.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := errors.Join(need(cmd, "source", "sample"), there([]string{sample})); err != nil {
				return err
			}
			if err := event.CheckCompartment(compartment); err != nil {
				return usage("--compartment: %v", err)
			}
			found, read, err := readSample(cmd, sample)
			if err != nil {
				return err
			}
			if len(found) == 0 {
				return &exitError{code: exitUnknown, err: fmt.Errorf("no parser takes a record of the sample (%d read)", read)}
			}
			d := pia.Draft{}
			for _, s := range found {
				s.Source, s.Compartment = source, compartment
				d.Sources = append(d.Sources, s)
			}
			fmt.Fprintf(env.stderr, "read %d records: %d datasets\n", read, len(found))
			_, err = env.stdout.Write(d.YAML())
			return err
		},
	}
	cmd.Flags().StringVar(&source, "source", "", "`name` of the source")
	cmd.Flags().StringVar(&sample, "sample", "", "`file` of its records")
	cmd.Flags().StringVar(&compartment, "compartment", "general", "compartment to keep it in")
	return cmd
}

// readSample finds datasets and fields of a file, in order of appearance. Nothing
// of it is kept.
func readSample(cmd *cobra.Command, path string) ([]pia.DraftSource, int, error) {
	f, err := collect.Open(path)
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	var out []pia.DraftSource
	at := map[string]int{}
	seen := map[string]bool{}
	read := 0
	enough := errors.New("enough")
	for _, m := range f.Members {
		_, err := m.Frames(cmd.Context(), func(fr *event.Frame) error {
			if read++; read > sampleFrames {
				return enough
			}
			format, dataset, ok := parse.Identify(fr, collect.WayImport)
			if !ok {
				return nil
			}
			var rec event.Record
			rec.Dataset = dataset
			if format.Parse(fr, parse.Context{Received: time.Now()}, &rec) != nil {
				return nil
			}
			i, known := at[rec.Dataset]
			if !known {
				i = len(out)
				at[rec.Dataset] = i
				src := datasetDraft(format, rec.Dataset)
				for _, fl := range src.Fields {
					seen[rec.Dataset+"\x00"+fl.Path] = true
				}
				out = append(out, src)
			}
			for _, fl := range rec.Fields {
				key := rec.Dataset + "\x00" + fl.Name
				if seen[key] || len(out[i].Fields) >= event.MaxFields {
					continue
				}
				seen[key] = true
				out[i].Fields = append(out[i].Fields, pia.DraftField{Path: fl.Name, Action: "drop", Reason: "seen in the sample; nobody has looked at it yet"})
			}
			return nil
		}, func(event.LineError) {})
		if err != nil && !errors.Is(err, enough) {
			return nil, read, err
		}
		if errors.Is(err, enough) {
			read--
			break
		}
	}
	return out, read, nil
}

// datasetDraft is the template of one dataset.
func datasetDraft(f *parse.Format, dataset string) pia.DraftSource {
	s := pia.DraftSource{Dataset: dataset, Title: dataset, Compartment: "general", RetentionDays: 365}
	i := slices.IndexFunc(f.Datasets, func(d parse.Dataset) bool { return d.Name == dataset })
	if i < 0 {
		return s
	}
	s.Title = f.Datasets[i].Title
	for _, fl := range f.Datasets[i].Fields {
		s.Fields = append(s.Fields, pia.DraftField{Path: fl.Path, Category: fl.Category, Action: fl.Action, Reason: fl.Reason})
	}
	return s
}

func newPIATemplates(env *environment) *cobra.Command {
	return &cobra.Command{
		Use:   "template [DATASET]",
		Short: "Print the template of a dataset, or list them",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			shown := map[string]bool{} // several formats have one dataset
			for _, f := range parse.Formats() {
				for _, d := range f.Datasets {
					if len(args) == 0 {
						if shown[d.Name] {
							continue
						}
						shown[d.Name] = true
						fmt.Fprintf(env.stdout, "%-18s %s\n", d.Name, d.Title)
						continue
					}
					if d.Name != args[0] {
						continue
					}
					s := datasetDraft(&f, d.Name)
					s.Source = "NAME"
					_, err := env.stdout.Write(pia.Draft{Sources: []pia.DraftSource{s}}.YAML())
					return err
				}
			}
			if len(args) == 1 {
				return &exitError{code: exitUsage, err: fmt.Errorf("no dataset is called %q", args[0]), hint: "counterseal pia template"}
			}
			return nil
		},
	}
}
