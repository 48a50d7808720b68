package web

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/google/uuid"

	"github.com/counterseal/counterseal/internal/approval"
	"github.com/counterseal/counterseal/internal/duty"
	"github.com/counterseal/counterseal/internal/login"
)

// nextSign is the page of one statement, with its id behind it: nothing else stands in the
// address.
const nextSign = "/login/sign/"

// nextPage is where a login goes on, by its word in an address: one of a closed list, since
// an address in a link would lead anywhere.
func nextPage(name string) string {
	switch id, sign := strings.CutPrefix(name, strings.TrimPrefix(nextSign, "/login/")); {
	case sign && isUUID(id):
		return nextSign + id
	case name == "account":
		return nextAccount
	case name == "cli":
		return nextTerminal
	}
	return nextStart
}

func isUUID(text string) bool {
	id, err := uuid.Parse(text)
	return err == nil && id.String() == text
}

// signStatement is what a page shows of a statement that waits for a passkey.
type signStatement struct {
	ID    string
	State string // waits, used, over
	Until string // UTC
	Exact string // the bytes that are signed
	Said  []said
	signAsk
}

// signAsk says in words what an action is.
type signAsk struct {
	What  string // what is asked for
	After string // who else looks at it
	Again string // the command that asks anew
}

// said is one part of a statement.
type said struct {
	Name  string
	Texts []string
}

// inWords has the actions; who signs sees the word of the statement too.
var inWords = map[string]signAsk{
	"unmask":    {"the name of one person", "Two officers read the same, on machines of their own.", "counterseal unmask request"},
	duty.ToOpen: {"the name of one person, at night", "Nobody else decides: the name is counted, and an overseer reviews what you signed.", "counterseal duty ask"},
}

// Signs tells whether the login goes on to a statement.
func (p *signInPage) Signs() bool { return strings.HasPrefix(p.Next, nextSign) }

// statement shows who is signed in a statement of theirs, and what their passkey would sign.
func (p *SignIn) statement(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	if !isUUID(id) {
		v := p.view(r, "Nothing to sign", nextStart)
		p.show(w, http.StatusNotFound, "signin_statement.html", v)
		return
	}
	v := p.view(r, "Sign a request", nextSign+id)
	who, ok := login.From(r.Context())
	if !ok || who.Session == "" {
		v.Title = "Sign in"
		p.show(w, http.StatusUnauthorized, "signin.html", v)
		return
	}
	waits, err := p.o.Login.Awaited(r.Context(), who.Account.ID, id)
	if errors.Is(err, login.ErrUnknown) {
		v.Title = "Nothing to sign"
		p.show(w, http.StatusNotFound, "signin_statement.html", v)
		return
	}
	if err != nil {
		p.broken(w, err)
		return
	}
	st, err := approval.Parse(waits.Statement)
	if err != nil {
		p.broken(w, err)
		return
	}
	s := &signStatement{ID: id, State: "waits", Until: toMinute(waits.Expires), Exact: string(waits.Statement), signAsk: inWords[st.Action]}
	switch {
	case waits.Used:
		s.State = "used"
	case waits.Over(p.o.Now()):
		s.State = "over"
	}
	one := func(name, text string) { s.Said = append(s.Said, said{name, []string{text}}) }
	one("Action", st.Action)
	s.Said = append(s.Said, said{"About", st.Objects})
	one("Case", st.Case)
	one("Purpose", st.Purpose)
	one("Who asks", st.Requester)
	one("Asked", st.Made)
	one("Expires", st.Expires)
	one("Lasts", fmt.Sprintf("%d minutes from its use", st.Minutes))
	one("Data of", st.Org)
	one("Statement", st.ID)
	v.Statement = s
	p.show(w, http.StatusOK, "signin_statement.html", v)
}
