//go:build race

package sigma_test

// raced: the race detector makes sync.Pool forget at random, so memory cannot be
// counted.
const raced = true
