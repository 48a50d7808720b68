//go:build linux && naive

package main

import "github.com/counterseal/counterseal/sigma"

func naive(set *sigma.Set, ungated bool) matcher {
	return sigma.NewNaive(set, sigma.Options{}, ungated).Match
}

func ungate(set *sigma.Set) { sigma.Ungate(set) }
