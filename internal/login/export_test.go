package login

import "testing"

// NewIDP starts the provider of the tests for those outside of the package.
func NewIDP(t *testing.T) (url string) { return newIDP(t).srv.URL }
