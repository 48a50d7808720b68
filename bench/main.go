//go:build linux

package main

import (
	"flag"
	"fmt"
	"log"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/counterseal/counterseal/evtx"
	"github.com/counterseal/counterseal/sigma"
)

var rounds = flag.Int("rounds", 5, "rounds of each table; the median is reported")

func main() {
	log.SetFlags(0)
	flag.Parse()
	want := func(table string) bool { return flag.NArg() == 0 || slices.Contains(flag.Args(), table) }
	runtime.LockOSThread()
	if want("evtx") {
		tableEVTX()
	}
	texts := windowsRules()
	if want("scan") {
		tableScan(texts)
	}
	if want("json") {
		tableJSON(texts)
	}
	evs := events()
	fmt.Printf("%d rules, %d events, %s, %d processors, %d rounds\n", len(texts), len(evs), runtime.Version(), runtime.NumCPU(), *rounds)
	if want("compile") {
		tableCompile(texts, evs)
	}
	if want("gated") {
		tableEngines(texts, evs, false)
	}
	if want("ungated") {
		tableEngines(texts, evs, true)
	}
	if want("rules") {
		tableRules(texts, evs)
	}
	if want("cores") {
		tableCores(texts, evs)
	}
}

// cpu is the processor time of this thread.
func cpu() time.Duration {
	var u syscall.Rusage
	const thread = 1
	if err := syscall.Getrusage(thread, &u); err != nil {
		log.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// subject is one thing to measure on a share of the events.
type subject struct {
	name    string
	match   matcher
	stride  int       // every stride-th event
	cost    []float64 // nanoseconds an event, one for each round
	mallocs float64
	matches float64
}

// compare runs the subjects in turn, round after round, each over events that a
// stride picks: another part of them in each round.
func compare(subjects []*subject, evs []*sigma.Event) {
	for _, s := range subjects {
		for i := 0; i < len(evs); i += s.stride { // once for nothing: caches
			s.match(evs[i], func(sigma.Match) {})
		}
	}
	for range *rounds {
		for _, s := range subjects {
			var before, after runtime.MemStats
			n, matches := 0, 0
			first := rand.IntN(s.stride)
			runtime.GC()
			runtime.ReadMemStats(&before)
			start := cpu()
			for i := first; i < len(evs); i += s.stride {
				s.match(evs[i], func(sigma.Match) { matches++ })
				n++
			}
			spent := cpu() - start
			runtime.ReadMemStats(&after)
			s.cost = append(s.cost, float64(spent.Nanoseconds())/float64(n))
			s.mallocs = float64(after.Mallocs-before.Mallocs) / float64(n)
			s.matches = float64(matches) / float64(n)
		}
	}
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}

func ratios(a, b []float64) (mid, low, high float64) {
	var r []float64
	for i := range a {
		r = append(r, a[i]/b[i])
	}
	return median(r), slices.Min(r), slices.Max(r)
}

func tableEngines(texts [][]byte, evs []*sigma.Event, ungated bool) {
	rules := parseAll(texts)
	set, _ := sigma.Compile(rules, sigma.Options{})
	plain := naive(set, ungated)
	reach := func(ev *sigma.Event) (out []*sigma.Rule) {
		for _, r := range rules {
			if ungated || set.Reaches(r, ev) {
				out = append(out, r)
			}
		}
		return out
	}
	strides := [3]int{1, 4, 16}
	if ungated {
		strides = [3]int{1, 64, 256}
	}
	form := make(map[*sigma.Event]peerEvent, len(evs))
	for _, ev := range evs {
		form[ev] = forPeers(ev)
	}
	subjects := []*subject{{name: "package sigma", match: set.Match, stride: strides[0]}}
	if plain != nil {
		subjects = append(subjects, &subject{name: "plain evaluator", match: plain, stride: strides[1]})
	}
	for _, p := range peers(rules, texts) {
		subjects = append(subjects, &subject{name: fmt.Sprintf("%s (%d rules)", p.name, p.rules), match: p.matcherOf(reach, form), stride: strides[2]})
	}
	if ungated {
		ungate(set)
	}
	compare(subjects, evs)
	title := "by log source"
	if ungated {
		title = "every rule for every event"
	}
	fmt.Printf("\n### Matching, one core, %s\n\n| engine | time against ours (lowest, highest round) | events/s | allocations an event | matches an event |\n|---|---|---|---|---|\n", title)
	for _, s := range subjects {
		mid, low, high := ratios(s.cost, subjects[0].cost)
		fmt.Printf("| %s | %.1f (%.1f, %.1f) | %.0f | %.1f | %.3f |\n", s.name, mid, low, high, 1e9/median(s.cost), s.mallocs, s.matches)
	}
}

func tableRules(texts [][]byte, evs []*sigma.Event) {
	sizes := []struct {
		name  string
		texts [][]byte
	}{{"10 %", nil}, {"50 %", nil}, {"100 %", texts}, {"1000 %", slices.Clone(texts)}}
	for i := range texts {
		if i%10 == 0 {
			sizes[0].texts = append(sizes[0].texts, texts[i])
		}
		if i%2 == 0 {
			sizes[1].texts = append(sizes[1].texts, texts[i])
		}
		for k := 1; k < 10; k++ {
			if text, ok := clone(texts[i], k); ok {
				sizes[3].texts = append(sizes[3].texts, text)
			}
		}
	}
	for _, open := range []bool{false, true} {
		var subjects []*subject
		for _, size := range sizes {
			set := compile(size.texts)
			if open {
				ungate(set)
			}
			subjects = append(subjects, &subject{name: fmt.Sprintf("%s | %d", size.name, len(set.Rules())), match: set.Match, stride: 1})
		}
		compare(subjects, evs)
		title := "by log source"
		if open {
			title = "every rule for every event"
		}
		fmt.Printf("\n### Cost against the number of rules, %s\n\n| share | rules | time against 100 %% (lowest, highest round) | events/s | matches an event |\n|---|---|---|---|---|\n", title)
		for _, s := range subjects {
			mid, low, high := ratios(s.cost, subjects[2].cost)
			fmt.Printf("| %s | %.2f (%.2f, %.2f) | %.0f | %.3f |\n", s.name, mid, low, high, 1e9/median(s.cost), s.matches)
		}
	}
}

func tableCores(texts [][]byte, evs []*sigma.Event) {
	set := compile(texts)
	for _, ev := range evs {
		set.Match(ev, func(sigma.Match) {})
	}
	fmt.Printf("\n### Cost against the number of cores, by log source, by the clock\n\n| goroutines | events/s | against one (lowest, highest round) |\n|---|---|---|\n")
	counts := []int{1}
	for n := 2; n <= runtime.NumCPU(); n *= 2 {
		counts = append(counts, n)
	}
	cost := make([][]float64, len(counts))
	for range *rounds {
		for i, workers := range counts {
			start := time.Now()
			var wg sync.WaitGroup
			for w := range workers {
				wg.Go(func() {
					for range 3 {
						for i := w; i < len(evs); i += workers {
							set.Match(evs[i], func(sigma.Match) {})
						}
					}
				})
			}
			wg.Wait()
			cost[i] = append(cost[i], float64(time.Since(start).Nanoseconds())/float64(3*len(evs)))
		}
	}
	for i, n := range counts {
		mid, low, high := ratios(cost[0], cost[i])
		fmt.Printf("| %d | %.0f | %.2f (%.2f, %.2f) |\n", n, 1e9/median(cost[i]), mid, low, high)
	}
}

func heap() float64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return float64(m.HeapInuse) / 1e6
}

func tableCompile(texts [][]byte, evs []*sigma.Event) {
	var parse, comp []float64
	var rules []*sigma.Rule
	for range *rounds {
		start := cpu()
		rules = parseAll(texts)
		mid := cpu()
		sigma.Compile(rules, sigma.Options{})
		parse = append(parse, (mid - start).Seconds())
		comp = append(comp, (cpu() - mid).Seconds())
	}
	before := heap()
	set, _ := sigma.Compile(rules, sigma.Options{})
	compiled := heap()
	start := cpu()
	for _, ev := range evs {
		set.Match(ev, func(sigma.Match) {})
	}
	cold := cpu() - start
	start = cpu()
	for _, ev := range evs {
		set.Match(ev, func(sigma.Match) {})
	}
	warm := cpu() - start
	after := heap()
	fmt.Printf("\n### Compiling, all Windows rules\n\n| | |\n|---|---|\n| parsing | %.2f s |\n| compiling | %.2f s, %.0f µs a rule |\n| tables of all origins in the packs, made when first met | %.2f s |\n| heap in use, the set | %.1f MB |\n| the set and the tables of all origins | %.1f MB |\n",
		median(parse), median(comp), median(comp)*1e6/float64(len(rules)), (cold - warm).Seconds(), compiled-before, after-before)
	runtime.KeepAlive(set)
	runtime.KeepAlive(rules)
}

func tableEVTX() {
	data := logs()
	chunk := new(evtx.Chunk)
	size := 0
	ours := func() (n int) {
		for _, d := range data {
			decode(d, chunk, func(rec *evtx.Record) {
				for _, f := range rec.Fields() {
					size += len(f.Value)
				}
				n++
			})
		}
		return n
	}
	theirs := func() (n int) {
		for _, d := range data {
			n += peerDecode(d)
		}
		return n
	}
	ours()
	cost, mallocs, counts := [2][]float64{}, [2]float64{}, [2]int{}
	for range *rounds {
		for i, f := range []func() int{ours, theirs} {
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			start := cpu()
			counts[i] = f()
			spent := cpu() - start
			runtime.ReadMemStats(&after)
			cost[i] = append(cost[i], float64(spent.Nanoseconds())/float64(counts[i]))
			mallocs[i] = float64(after.Mallocs-before.Mallocs) / float64(counts[i])
		}
	}
	fmt.Printf("\n### Reading event logs, one core\n\n| reader | time against ours (lowest, highest round) | events/s | allocations an event | events |\n|---|---|---|---|---|\n")
	for i, name := range []string{"package evtx", "www.velocidex.com/golang/evtx v0.2.1-0.20260612024815-7947209eb310"} {
		mid, low, high := ratios(cost[i], cost[0])
		fmt.Printf("| %s | %.1f (%.1f, %.1f) | %.0f | %.1f | %d |\n", name, mid, low, high, 1e9/median(cost[i]), mallocs[i], counts[i])
	}
}
