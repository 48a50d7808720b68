package main

import (
	"github.com/counterseal/counterseal/internal/web"
)

// acts are what a person may do over the socket beside asking. Each makes its own
// statements before it does anything.
func (s *server) acts() map[string]web.Act {
	return map[string]web.Act{
		"key.state":      s.keyState,
		"unlock.request": s.unlockRequest,
		"unlock.approve": s.unlockApprove,

		"prove":           s.prove,
		"package.create":  s.packageCreate,
		"package.receive": s.packageReceive,
		"package.return":  s.packageReturn,
		"package.list":    s.packageList,
	}
}
