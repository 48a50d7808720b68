//go:build linux && !naive

package main

import "github.com/counterseal/counterseal/sigma"

func naive(*sigma.Set, bool) matcher { return nil }

func ungate(*sigma.Set) {
	panic("this needs the plain evaluator: run with -overlay overlay.json -tags naive")
}
