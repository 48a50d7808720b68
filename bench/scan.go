//go:build linux

package main

import (
	"bytes"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"time"

	"github.com/counterseal/counterseal/internal/packs"
)

// tableScan builds the command and runs it as a stranger would, from a cold
// process: over both packs, and over the smallest log, which is what starting up
// and reading and compiling the rules cost.
func tableScan(texts [][]byte) {
	dir, err := os.MkdirTemp("", "bench-scan-*")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	program, rules := filepath.Join(dir, "counterseal"), filepath.Join(dir, "rules")
	build := exec.Command("go", "build", "-o", program, "./cmd/counterseal")
	build.Dir, build.Env = "..", append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		log.Fatalf("building the command: %v\n%s", err, out)
	}
	if err := os.Mkdir(rules, 0o755); err != nil {
		log.Fatal(err)
	}
	for i, text := range texts {
		if err := os.WriteFile(filepath.Join(rules, fmt.Sprint(i, ".yml")), text, 0o644); err != nil {
			log.Fatal(err)
		}
	}
	all := []string{packs.Dir(noTest{}, "evtx-core"), packs.Dir(noTest{}, "sigma-regression-open")}
	smallest, size := "", int64(1<<62)
	for _, root := range all {
		for _, path := range files(root, ".evtx") {
			if info, err := os.Stat(path); err == nil && info.Size() < size {
				smallest, size = path, info.Size()
			}
		}
	}

	fmt.Printf("\n### Scan, a cold process: %d rules, both packs, findings as JSON lines\n\n| cores | whole, s (lowest, highest) | processor time, s | start-up, s (lowest, highest) | processor time, s | peak memory, MB (lowest, highest) |\n|---|---|---|---|---|---|\n", len(texts))
	counts := []int{1}
	for n := 2; n <= runtime.NumCPU(); n *= 2 {
		counts = append(counts, n)
	}
	for _, cores := range counts {
		var whole, spent, start, startSpent, peak []float64
		for range *rounds {
			wall, cpu, memory := scanOnce(program, rules, cores, all...)
			whole, spent, peak = append(whole, wall), append(spent, cpu), append(peak, memory)
			wall, cpu, _ = scanOnce(program, rules, cores, smallest)
			start, startSpent = append(start, wall), append(startSpent, cpu)
		}
		fmt.Printf("| %d | %s | %.2f | %s | %.2f | %s |\n", cores, spread(whole, "%.2f"), median(spent), spread(start, "%.2f"), median(startSpent), spread(peak, "%.0f"))
	}
}

func spread(v []float64, format string) string {
	_, low, high := ratios(v, ones(len(v)))
	return fmt.Sprintf(format+" ("+format+", "+format+")", median(v), low, high)
}

func ones(n int) []float64 {
	out := make([]float64, n)
	for i := range out {
		out[i] = 1
	}
	return out
}

// scanOnce returns seconds by the clock and of processor time, and the peak of
// resident memory in MB, VmHWM of the process, looked up until it is gone.
func scanOnce(program, rules string, cores int, paths ...string) (wall, cpu, memory float64) {
	cmd := exec.Command(program, append([]string{"scan", "--rules", rules, "--format", "jsonl", "--output", os.DevNull}, paths...)...)
	cmd.Env = append(os.Environ(), "GOMAXPROCS="+strconv.Itoa(cores))
	var errs bytes.Buffer
	cmd.Stderr = &errs
	start := time.Now()
	if err := cmd.Start(); err != nil {
		log.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }() // so that the peak can be read meanwhile
	status := fmt.Sprintf("/proc/%d/status", cmd.Process.Pid)
	for {
		select {
		case err := <-done:
			if err != nil {
				log.Fatalf("scan: %v\n%s", err, errs.Bytes())
			}
			usage := cmd.ProcessState
			return time.Since(start).Seconds(), (usage.UserTime() + usage.SystemTime()).Seconds(), memory
		case <-time.After(2 * time.Millisecond):
		}
		text, err := os.ReadFile(status)
		if err != nil {
			continue // it has just ended
		}
		if _, rest, ok := bytes.Cut(text, []byte("VmHWM:")); ok {
			var kb float64
			if _, err := fmt.Sscan(string(rest), &kb); err == nil {
				memory = max(memory, kb/1e3*1.024)
			}
		}
	}
}
