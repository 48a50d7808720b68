// Command bench measures the matcher and the event log reader against the plain
// evaluator and against other libraries, all in one run and on the same events,
// and prints tables. The libraries are dependencies of this module alone.
//
// The plain evaluator lives in the tests of package sigma. It is laid over the
// package for this program:
//
//	cd bench && go run -overlay overlay.json -tags naive . [-rounds 5] [table ...]
//
// Tables are gated, ungated, rules, cores, compile, evtx, json and scan; all when
// none is named. The packs of ../shared/data must be there. Times are processor
// time of the measuring thread, so that other work on the machine disturbs them
// less; the tables of cores and of scan alone are by the clock. Linux only.
package main
