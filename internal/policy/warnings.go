package policy

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Warning is something in a record of offices that is allowed and weakens it.
type Warning struct {
	Office string // empty: about the record as a whole
	What   string // names no holder
}

func (w Warning) String() string {
	if w.Office == "" {
		return w.What
	}
	return w.Office + ": " + w.What
}

// trainingNear is how long before its end a training is warned about.
const trainingNear = 30 * 24 * time.Hour

// Warnings tells what is allowed in a record and weakens it, in the order of the record.
// Where it tells nothing, every office that reads events can ask and be answered.
func (o *Offices) Warnings(now time.Time) []Warning {
	var out []Warning
	warn := func(office, format string, args ...any) {
		out = append(out, Warning{office, fmt.Sprintf(format, args...)})
	}
	for _, role := range deciding {
		held := func(f Office) bool { return f.Holder != "" && slices.Contains(f.Roles, role) }
		if !slices.ContainsFunc(o.Offices, held) {
			warn("", "nobody is %s: no question about a person is authorised by that office, and what two offices decide waits", strings.ReplaceAll(role, "_", " "))
		} else if !slices.ContainsFunc(o.Offices, func(f Office) bool { return held(f) && f.Standing == "confirmed" }) {
			warn("", "who is %s is only acting: policies, offices and the ledger cannot be decided on", strings.ReplaceAll(role, "_", " "))
		}
	}
	if !slices.ContainsFunc(o.Offices, func(f Office) bool { return f.Outside && !f.Inspector && f.Holder != "" }) {
		warn("", "no office outside the organisation is held: questions about more than 100 people at once cannot be answered")
	}
	for _, f := range o.Offices {
		if f.Holder == "" {
			continue
		}
		p, _ := o.Person(f.ID)
		if strings.HasPrefix(canonical(f.Holder), SystemUser) {
			warn(f.ID, "is held by a user of the machine: whoever owns the machine is whoever it says")
		}
		if held := o.Held(f.Holder); held[0] == f.ID && len(held) > 1 {
			warn(f.ID, "its holder has %d offices and the roles of all of them: %s", len(held), strings.Join(held, ", "))
		}
		if reads(f.Roles) {
			switch {
			case f.Trained.IsZero():
				warn(f.ID, "reads events and has no training: it is refused")
			case !now.Before(f.Trained):
				warn(f.ID, "its training is over: it is refused")
			case f.Trained.Sub(now) <= trainingNear:
				warn(f.ID, "its training ends on %s", f.Trained.Format(time.DateOnly))
			}
			for _, other := range []string{"operator", "overseer", "privacy_officer", "collector"} {
				if slices.Contains(p.Roles, other) {
					warn(f.ID, "its holder is %s as well, and reads no events for that", strings.ReplaceAll(other, "_", " "))
				}
			}
		}
		if (reads(f.Roles) || decides(f)) && !o.answered(f) {
			warn(f.ID, "nobody can decide on what it asks: each who decides is of its chain of command or has its appointing authority")
		}
	}
	return out
}

func reads(roles []string) bool {
	return slices.ContainsFunc(roles, func(r string) bool { return r == "analyst" || r == "responder" || r == "investigator" })
}

// answered reports whether somebody may decide on a request of an office.
func (o *Offices) answered(asking Office) bool {
	chain, _ := o.Chain(asking.Holder)
	return slices.ContainsFunc(o.Offices, func(f Office) bool {
		if asking.Inspector { // in that office alone
			_, under := slices.BinarySearch(chain, f.Holder)
			return f.Inspector && f.Authority == asking.Authority && f.Holder != "" && canonical(f.Holder) != canonical(asking.Holder) && !under
		}
		if f.Holder == "" || !decides(f) || canonical(f.Holder) == canonical(asking.Holder) || f.Authority == asking.Authority || slices.ContainsFunc(chain, func(id string) bool { return canonical(id) == canonical(f.Holder) }) {
			return false
		}
		p, _ := o.Person(f.ID)
		return !slices.Contains(p.Roles, "operator") && !slices.Contains(p.Roles, "collector")
	})
}
