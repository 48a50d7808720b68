package web

import (
	"context"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// collector turns what the domain already counts into metrics at the moment of
// asking, so that nothing is counted twice.
type collector struct{ s *Server }

var (
	descEvents  = prometheus.NewDesc("counterseal_events_kept_total", "Events sealed, by source and dataset.", []string{"source", "dataset"}, nil)
	descRefused = prometheus.NewDesc("counterseal_records_refused_total", "Records refused for want of an assessment since start.", []string{"source", "dataset"}, nil)
	descGaps    = prometheus.NewDesc("counterseal_gaps", "Gaps found at the door.", nil, nil)
	descCannot  = prometheus.NewDesc("counterseal_rule_cannot_tell_total", "Events on which a rule could not be answered since start.", []string{"rule"}, nil)
	descIndex   = prometheus.NewDesc("counterseal_index_rows_total", "Rows given to the index since start.", nil, nil)
	descTrunc   = prometheus.NewDesc("counterseal_index_rows_truncated_total", "Rows over a limit of the index since start.", nil, nil)
	descLost    = prometheus.NewDesc("counterseal_index_rows_dropped_total", "Rows that the index library dropped since start; not zero is a defect.", nil, nil)
	descReady   = prometheus.NewDesc("counterseal_ready", "1 while records are accepted.", nil, nil)
)

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descEvents, descRefused, descGaps, descCannot, descIndex, descTrunc, descLost, descReady} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	p := c.s.o.Pipeline
	counts, err := p.State().Counts(ctx)
	if err != nil {
		ch <- prometheus.NewInvalidMetric(descEvents, err)
	}
	for _, n := range counts {
		ch <- prometheus.MustNewConstMetric(descEvents, prometheus.CounterValue, float64(n.Kept), n.Source, n.Dataset)
	}
	for _, r := range p.Refused() {
		ch <- prometheus.MustNewConstMetric(descRefused, prometheus.CounterValue, float64(r.N), r.Source, r.Dataset)
	}
	gaps, err := p.Gaps(ctx, maxLimit)
	if err != nil {
		ch <- prometheus.NewInvalidMetric(descGaps, err)
	}
	ch <- prometheus.MustNewConstMetric(descGaps, prometheus.GaugeValue, float64(len(gaps)))
	for rule, n := range p.CannotTell() {
		ch <- prometheus.MustNewConstMetric(descCannot, prometheus.CounterValue, float64(n), rule)
	}
	if t, err := p.Index().Totals(); err != nil {
		ch <- prometheus.NewInvalidMetric(descIndex, err)
	} else {
		ch <- prometheus.MustNewConstMetric(descIndex, prometheus.CounterValue, float64(t.Rows))
		ch <- prometheus.MustNewConstMetric(descTrunc, prometheus.CounterValue, float64(t.Truncated))
		ch <- prometheus.MustNewConstMetric(descLost, prometheus.CounterValue, float64(t.Dropped))
	}
	ready := 1.0
	if p.Ready() != nil {
		ready = 0
	}
	ch <- prometheus.MustNewConstMetric(descReady, prometheus.GaugeValue, ready)
}

func (s *Server) metrics(w http.ResponseWriter, r *http.Request) error {
	promhttp.HandlerFor(s.registry, promhttp.HandlerOpts{}).ServeHTTP(w, r)
	return nil
}
