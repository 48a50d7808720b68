package main

import (
	"github.com/counterseal/counterseal/internal/web"
)

// acts are what a person may do beside asking. Each makes its own
// statements before it does anything.
func (s *server) acts() map[string]web.Act {
	return map[string]web.Act{
		"key.state":      s.keyState,
		"replay":         s.replay,
		"unlock.request": s.unlockRequest,
		"unlock.approve": s.unlockApprove,
		"unmask.request": s.unmaskRequest,
		"unmask.collect": s.unmaskCollect,
		"unmask.approve": s.unmaskApprove,
		"unmask.check":   s.unmaskCheck,
		"name.request":   s.nameRequest,
		"name.approve":   s.nameApprove,
		"name.ask":       s.nameAnswered,

		"duty.warrant": s.dutyWarrant,
		"duty.approve": s.dutyApprove,
		"duty.ask":     s.dutyAsk,
		"duty.sign":    s.dutySign,
		"duty.collect": s.dutyCollect,
		"duty.opened":  s.dutyOpened,
		"duty.status":  s.dutyStatus,
		"duty.end":     s.dutyEnd,

		"inspector.request": s.insideRequest,
		"inspector.approve": s.insideApprove,

		"account.list":    s.signin.accountList,
		"account.setup":   s.signin.accountSetUp,
		"account.invite":  s.signin.accountInvite,
		"account.disable": s.signin.accountDisable,
		"account.enable":  s.signin.accountEnable,
		"token.create":    s.signin.tokenCreate,
		"token.list":      s.signin.tokenList,
		"token.revoke":    s.signin.tokenRevoke,

		"authorise.request": s.authoriseRequest,
		"authorise.list":    s.authoriseList,
		"authorise":         s.authoriseDecide,
		"authorise.end":     s.authoriseEnd,
		"break.glass":       s.glassBreak,
		"review.list":       s.reviewList,
		"grant.review":      s.reviewDone,
		"inquiry.receive":   s.inquiryReceive,
		"inquiry.answer":    s.inquiryAnswer,
		"inquiry.list":      s.inquiryList,
		"rules.activate":    s.rulesActivate,
		"rules.waiting":     s.rulesWaiting,
		"rules.approve":     s.rulesApprove,

		"channels.show":    s.channelsShow,
		"channels.propose": s.channelsPropose,
		"channels.approve": s.channelsApprove,
		"channels.remove":  s.channelsRemove,
		"canary.check":     s.canaryCheck,

		"contain.order": s.containOrder,
		"contain.agree": s.containAgree,
		"contain.undo":  s.containUndo,
		"contain.list":  s.containList,

		"notice.list":     s.noticeList,
		"notice.send":     s.noticeSend,
		"notice.postpone": s.noticePostpone,
		"notice.shown":    s.noticeShown,

		"complaint.list":  s.complaintList,
		"complaint.save":  s.complaintSave,
		"complaint.close": s.complaintClose,

		"oversight.queue":     s.oversightQueue,
		"look.review":         s.lookReview,
		"oversight.heartbeat": s.oversightHeartbeat,
		"oversight.status":    s.oversightStatus,
		"oversight.report":    s.oversightReport,

		"erase.request": s.eraseRequest,
		"erase.approve": s.eraseApprove,
		"erase.list":    s.eraseList,

		"tokenkey.request": s.tokenkeyRequest,
		"tokenkey.approve": s.tokenkeyApprove,

		"hold.place":     s.holdPlace,
		"hold.list":      s.holdList,
		"hold.request":   s.holdAsk,
		"hold.release":   s.holdRelease,
		"retention.plan": s.retentionPlan,
		"retention.run":  s.retentionRun,

		"prove":           s.prove,
		"package.create":  s.packageCreate,
		"package.receive": s.packageReceive,
		"package.return":  s.packageReturn,
		"package.list":    s.packageList,
	}
}
