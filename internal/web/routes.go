package web

import "net/http"

// access says who may call a route, until there is a login.
type access int

const (
	open       access = iota // whoever reaches the loopback address
	secret                   // a session that the one-time secret began, or the socket
	ingests                  // a source: guarded by the gate, not by a login
	socketOnly               // who may open the socket may read the files as well
)

// route is one line of the API and of the pages.
type route struct {
	pattern string
	access  access
	look    bool // a request of a person: it becomes a statement before it is answered
	handle  func(http.ResponseWriter, *http.Request) error
}

// routes is every route with who may call it. openapi.json describes those below
// /api; a test holds the two together.
func (s *Server) routes() []route {
	return []route{
		{"GET /{$}", secret, true, s.start},
		{"GET /enter", open, false, s.enter},
		{"GET /static/", open, false, s.static},
		{"GET /healthz", open, false, s.health},
		{"GET /metrics", secret, false, s.metrics},

		{"GET /api/v1/openapi.json", open, false, s.openapi},
		{"GET /api/v1/status", secret, true, s.status},
		{"GET /api/v1/search", secret, true, s.search},
		{"GET /api/v1/findings", secret, true, s.findings},
		{"GET /api/v1/sources", secret, true, s.sources},
		{"GET /api/v1/gaps", secret, true, s.gaps},
		{"GET /api/v1/rules", secret, true, s.rules},
		{"POST /api/v1/rules/run", secret, true, s.retro},
		{"GET /api/v1/doctor", secret, true, s.doctor},
		{"POST /api/v1/settle", secret, false, s.settle},
		{"POST /api/v1/import", socketOnly, true, s.importFiles},
		{"POST /api/v1/acts/{act}", socketOnly, true, s.act},
		{"POST /api/v1/ingest/{source}", ingests, false, s.ingest},
		{"/es/{source}/", ingests, false, s.bulk},
	}
}
