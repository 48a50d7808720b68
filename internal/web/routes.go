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
	handle  func(http.ResponseWriter, *http.Request) error
}

// routes is every route with who may call it. openapi.json describes those below
// /api; a test holds the two together.
func (s *Server) routes() []route {
	return []route{
		{"GET /{$}", secret, s.start},
		{"GET /enter", open, s.enter},
		{"GET /static/", open, s.static},
		{"GET /healthz", open, s.health},
		{"GET /metrics", secret, s.metrics},

		{"GET /api/v1/openapi.json", open, s.openapi},
		{"GET /api/v1/status", secret, s.status},
		{"GET /api/v1/search", secret, s.search},
		{"GET /api/v1/findings", secret, s.findings},
		{"GET /api/v1/sources", secret, s.sources},
		{"GET /api/v1/gaps", secret, s.gaps},
		{"GET /api/v1/rules", secret, s.rules},
		{"POST /api/v1/rules/run", secret, s.retro},
		{"GET /api/v1/doctor", secret, s.doctor},
		{"POST /api/v1/settle", secret, s.settle},
		{"POST /api/v1/import", socketOnly, s.importFiles},
		{"POST /api/v1/ingest/{source}", ingests, s.ingest},
		{"/es/{source}/", ingests, s.bulk},
	}
}
