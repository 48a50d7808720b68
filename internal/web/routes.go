package web

import "net/http"

// entrance says how a request can come to a route, before the decision point asks who it is.
type entrance int

const (
	open       entrance = iota // whoever reaches the address
	secret                     // somebody who logged in, or the owner of the machine
	ingests                    // a source: guarded by the assessments; beyond loopback by a token too
	people                     // somebody who logged in, or who asks by the socket
	socketOnly                 // who asks by the socket: it names files on this machine
)

// route is one line of the API and of the pages.
type route struct {
	pattern string
	door    entrance
	// act is what the policies call it; docs/policy-matrix.md says who may. Empty: it
	// tells nobody anything that needs a policy.
	act string
	// events says that the handler asks about events: it judges its question itself.
	events bool
	look   bool // a request of a person: it becomes a statement before it is answered
	handle func(http.ResponseWriter, *http.Request) error
}

// byName is the act of a route whose path names it.
const byName = "{act}"

// routes is every route with who may call it. openapi.json describes those below
// /api; a test holds the two together.
func (s *Server) routes() []route {
	return []route{
		{"GET /{$}", secret, "start", false, true, s.start},
		{"GET /enter", open, "", false, false, s.enter},
		{"GET /public", open, "", false, false, s.public},
		{"GET /me", open, "", false, false, s.me},
		{"POST /me/complaint", open, "", false, false, s.complain},
		{"POST /me/answer", open, "", false, false, s.answerShown},
		{"GET /static/", open, "", false, false, s.static},
		{"GET /healthz", open, "", false, false, s.health},
		{"GET /metrics", secret, "metrics", false, false, s.metrics},

		{"GET /api/v1/openapi.json", open, "", false, false, s.openapi},
		{"GET /api/v1/me", open, "", false, false, s.me},
		{"POST /api/v1/complaints", open, "", false, false, s.receive},
		{"GET /api/v1/complaints/{id}", open, "", false, false, s.sealedComplaint},
		{"GET /api/v1/status", secret, "status", false, true, s.status},
		{"GET /api/v1/search", secret, "search", true, true, s.search},
		{"GET /api/v1/findings", secret, "findings", true, true, s.findings},
		{"GET /api/v1/sources", secret, "sources", false, true, s.sources},
		{"GET /api/v1/gaps", secret, "gaps", false, true, s.gaps},
		{"GET /api/v1/rules", secret, "rules.list", false, true, s.rules},
		{"POST /api/v1/rules/run", secret, "rules.run", true, true, s.retro},
		{"GET /api/v1/doctor", secret, "doctor", false, true, s.doctor},
		{"POST /api/v1/settle", secret, "settle", false, false, s.settle},
		{"POST /api/v1/import", socketOnly, "import", false, true, s.importFiles},
		{"POST /api/v1/acts/{act}", people, byName, false, true, s.act},
		{"POST /api/v1/ingest/{source}", ingests, "ingest", false, false, s.ingest},
		{"/es/{source}/", ingests, "ingest", false, false, s.bulk},
	}
}

// actions names for each act what the policies call it, where that differs: who brings the
// decisions of officers does not decide.
var actions = map[string]string{
	"unlock.approve": "approval.bring",
	"unmask.approve": "approval.bring",
	"duty.approve":   "approval.bring",
	"duty.sign":      "duty.ask",
	"duty.collect":   "duty.ask",
	"name.approve":   "approval.bring",
	"unmask.collect": "unmask.request",
	"hold.release":   "approval.bring",
	"erase.approve":  "approval.bring",
	"erase.list":     "hold.list",
	"rules.waiting":  "rules.list",
	"channels.show":  "channels.list",
	"complaint.save": "complaint.list",
	"notice.shown":   "notice.list",

	"account.setup": "account.change", "account.invite": "account.change", "account.disable": "account.change", "account.enable": "account.change",
	"tokenkey.request": "erase.request", "tokenkey.approve": "approval.bring",
	"token.create": "token.change", "token.revoke": "token.change", "token.list": "account.list",
}

// judging are the acts that decide by themselves, with what they are about: prove calls
// JudgeRecord before it shows a record, and the others are decided in internal/cases and
// closed with Judged.
var judging = map[string]bool{"prove": true, "authorise": true, "authorise.end": true, "grant.review": true, "unmask.request": true, "duty.ask": true, "look.review": true, "oversight.heartbeat": true, "rules.approve": true, "channels.approve": true}

// onMachine are the acts that name files on this machine: by the socket alone.
var onMachine = map[string]bool{"package.create": true}

// action is what the policies call an act.
func action(act string) string {
	if a, ok := actions[act]; ok {
		return a
	}
	return act
}
