package main

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/counterseal/counterseal/internal/collect"
)

// wayMetrics shows what the ways in count. It leaves out frames, bytes and batches:
// those count records that are withheld later.
type wayMetrics struct{ s *server }

var (
	wayLabels    = []string{"way", "source"}
	descRefused  = prometheus.NewDesc("counterseal_way_refused_total", "Records refused on this way since start.", wayLabels, nil)
	descBreaks   = prometheus.NewDesc("counterseal_way_breaks_total", "Sessions that ended without a clean close since start.", wayLabels, nil)
	descDrops    = prometheus.NewDesc("counterseal_way_drops_total", "Datagrams that the kernel dropped since start.", wayLabels, nil)
	descSessions = prometheus.NewDesc("counterseal_way_sessions_total", "Connections accepted since start.", wayLabels, nil)
	descTurned   = prometheus.NewDesc("counterseal_way_turned_away_total", "Connections closed at once, since too many were open, since start.", wayLabels, nil)
)

// Describe implements prometheus.Collector.
func (m wayMetrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descRefused, descBreaks, descDrops, descSessions, descTurned} {
		ch <- d
	}
}

// Collect implements prometheus.Collector. Listeners of one way and source count
// together.
func (m wayMetrics) Collect(ch chan<- prometheus.Metric) {
	type key struct{ way, source string }
	sums := make(map[key]collect.Stats)
	var order []key
	for i, l := range m.s.listeners {
		k := key{m.s.cfg.Listeners[i].Way, m.s.cfg.Listeners[i].Source}
		sum, known := sums[k]
		if !known {
			order = append(order, k)
		}
		st := l.Stats()
		sum.Refused += st.Refused
		sum.Breaks += st.Breaks
		sum.Drops += st.Drops
		sum.Sessions += st.Sessions
		sum.TurnedAway += st.TurnedAway
		sums[k] = sum
	}
	for _, k := range order {
		st := sums[k]
		for d, n := range map[*prometheus.Desc]uint64{descRefused: st.Refused, descBreaks: st.Breaks, descDrops: st.Drops, descSessions: st.Sessions, descTurned: st.TurnedAway} {
			ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), k.way, k.source)
		}
	}
}
