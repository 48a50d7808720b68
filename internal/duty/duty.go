// Package duty is what lets one responder see a few names at night without waking two
// officers: the warrant that the two offices sign in advance, the night, the working days
// of a review, and the journal by which a duty host counts. docs/formats/duty.md has the
// forms and the protocol.
//
// It promises: no warrant lets more than MaxNames names of a night be opened, lasts longer
// than MaxLast or calls more than MaxNight of a day a night; a name is counted, durably,
// before it is opened, so a host that is killed has counted rather too many; a request is
// taken once; a journal that was damaged opens nothing.
//
// It leaves to others who signed a warrant and what the ledger says (cmd/counterseal), and
// to open a seal (internal/officer).
package duty

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/counterseal/counterseal/internal/approval"
)

// Bounds of a warrant. They are fixed: a warrant may say less.
const (
	MaxNames  = 3                   // of a night
	MaxLast   = 14 * 24 * time.Hour // from its beginning to its end
	MaxAhead  = 14 * 24 * time.Hour // from the statement to its beginning
	MaxNight  = 14 * time.Hour
	ReviewIn  = 3                // working days
	Fresh     = 15 * time.Minute // from the statement about a request to its opening
	Skew      = 5 * time.Minute  // between two clocks
	ToWarrant = "duty.warrant"   // action of a warrant
	ToOpen    = "duty.open"      // action of a request

	timeForm = "2006-01-02T15:04:05Z"
)

// Refusal says why a duty host opens nothing, in words that name nobody.
type Refusal struct{ Reason, Hint string }

func (r *Refusal) Error() string { return r.Reason }

// Night is the hours of a day, UTC, that are night.
type Night struct {
	Begin, End int // minutes since midnight; End is not part of it
}

const dayMinutes = 24 * 60

// ParseNight reads 20:00-06:00.
func ParseNight(text string) (Night, error) {
	var n Night
	begin, end, ok := strings.Cut(text, "-")
	for i, part := range []string{begin, end} {
		t, err := time.Parse("15:04", part)
		if err != nil || !ok || t.Format("15:04") != part {
			return n, errors.New("a night is written like 20:00-06:00, in UTC")
		}
		*[]*int{&n.Begin, &n.End}[i] = t.Hour()*60 + t.Minute()
	}
	if long := time.Duration((n.End-n.Begin+dayMinutes)%dayMinutes) * time.Minute; long == 0 || long > MaxNight {
		return n, fmt.Errorf("a night is up to %d hours", int(MaxNight/time.Hour))
	}
	return n, nil
}

func (n Night) String() string {
	return fmt.Sprintf("%02d:%02d-%02d:%02d", n.Begin/60, n.Begin%60, n.End/60, n.End%60)
}

// Of gives the night that a moment is in, by the day on which it began, such as
// 2026-11-30; false by day.
func (n Night) Of(t time.Time) (string, bool) {
	t = t.UTC()
	m := t.Hour()*60 + t.Minute()
	switch {
	case n.Begin < n.End && (m < n.Begin || m >= n.End), n.Begin > n.End && m < n.Begin && m >= n.End:
		return "", false
	case n.Begin > n.End && m < n.End:
		t = t.AddDate(0, 0, -1)
	}
	return t.Format(time.DateOnly), true
}

// Due is when the review of a release must be stated: at the end of the third working day
// after the day of the release. Working days are Monday to Friday, UTC; there are no
// holidays.
func Due(at time.Time) time.Time {
	at = at.UTC()
	day := time.Date(at.Year(), at.Month(), at.Day(), 0, 0, 0, 0, time.UTC)
	for n := 0; n < ReviewIn; {
		day = day.AddDate(0, 0, 1)
		if d := day.Weekday(); d != time.Saturday && d != time.Sunday {
			n++
		}
	}
	return day.AddDate(0, 0, 1)
}

// Warrant is what two offices let a duty host do.
type Warrant struct {
	ID           string // of its statement
	Inner, Outer string // ids of the two cards of the host: investigation, oversight
	From, Until  time.Time
	Night        Night
	Names        int // of a night
}

// Objects are what the statement of a warrant is about.
func (w *Warrant) Objects() []string {
	return []string{
		"host " + w.Inner + " " + w.Outer, "from " + w.From.UTC().Format(timeForm), "until " + w.Until.UTC().Format(timeForm),
		"night " + w.Night.String() + " UTC", "names " + strconv.Itoa(w.Names) + " a night",
	}
}

// ParseWarrant reads the warrant out of a statement and refuses every other form, and one
// that allows more than a warrant may.
func ParseWarrant(s *approval.Statement) (*Warrant, error) {
	bad := errors.New("the statement is no warrant of a duty host")
	if s.Action != ToWarrant || len(s.Objects) != 5 {
		return nil, bad
	}
	words := make([][]string, len(s.Objects))
	for i, o := range s.Objects {
		if words[i] = strings.Split(o, " "); len(words[i]) < 2 {
			return nil, bad
		}
	}
	if len(words[0]) != 3 {
		return nil, bad
	}
	w := &Warrant{ID: s.ID, Inner: words[0][1], Outer: words[0][2]}
	var errs [4]error
	w.From, errs[0] = time.Parse(timeForm, words[1][1])
	w.Until, errs[1] = time.Parse(timeForm, words[2][1])
	w.Night, errs[2] = ParseNight(words[3][1])
	w.Names, errs[3] = strconv.Atoi(words[4][1])
	if errs[0] != nil || errs[1] != nil || errs[3] != nil {
		return nil, bad
	}
	if errs[2] != nil {
		return nil, errs[2]
	}
	if !isCard(w.Inner) || !isCard(w.Outer) || !slices.Equal(w.Objects(), s.Objects) {
		return nil, bad
	}
	return w, w.check(s.MadeAt())
}

func (w *Warrant) check(made time.Time) error {
	switch {
	case w.Inner == w.Outer:
		return errors.New("the two keys of a duty host are one")
	case w.Names < 1 || w.Names > MaxNames:
		return fmt.Errorf("a warrant is for 1 to %d names a night", MaxNames)
	case !w.From.Before(w.Until) || w.Until.Sub(w.From) > MaxLast:
		return fmt.Errorf("a warrant lasts up to %d days", int(MaxLast/(24*time.Hour)))
	case w.From.Sub(made) > MaxAhead || !made.Before(w.Until):
		return errors.New("a warrant begins within 14 days of its statement, and ends after it")
	}
	return nil
}

func isCard(s string) bool {
	return len(s) == 64 && !strings.ContainsFunc(s, func(r rune) bool { return (r < '0' || r > '9') && (r < 'a' || r > 'f') })
}

// At gives the night that a moment is in, where the warrant is in force.
func (w *Warrant) At(now time.Time) (night string, err error) {
	switch {
	case now.Before(w.From):
		return "", &Refusal{"the warrant has not begun", "counterseal duty status says when it does"}
	case !now.Before(w.Until):
		return "", &Refusal{"the warrant is over", "the two offices sign another one: counterseal duty warrant"}
	}
	night, ok := w.Night.Of(now)
	if !ok {
		return "", &Refusal{"it is day by the warrant, whose night is " + w.Night.String() + " UTC", "by day two officers open a name: counterseal unmask request"}
	}
	return night, nil
}

// isID reports a UUID in its one form.
func isID(s string) bool {
	id, err := uuid.Parse(s)
	return err == nil && id.String() == s
}
