package oversight

import (
	"cmp"
	"errors"
	"slices"
	"strconv"
	"time"

	"github.com/counterseal/counterseal/internal/admit"
	"github.com/counterseal/counterseal/internal/ledger"
)

// Removed is what was taken off the list of protected channels on a day. From then on
// contact with it is kept like any other, so everybody is told the kind of it.
type Removed struct {
	Day  time.Time // its beginning, UTC
	Kind string    // one of admit.ChannelKinds
	N    int64     // entries
}

const (
	addedLine   = "channels-added"
	removedLine = "channels-removed"
)

func (r Removed) order(o Removed) int {
	return cmp.Or(r.Day.Compare(o.Day), cmp.Compare(r.Kind, o.Kind))
}

// channels counts a change of the list of protected channels.
func (t *Tally) channels(s *ledger.Statement) {
	added, removed := admit.ChannelsChanged(s.Detail)
	t.added += added
	for kind, n := range removed {
		t.removed[Removed{Day: s.Time.UTC().Truncate(24 * time.Hour), Kind: kind}] += n
	}
}

// channels reads a line about the list.
func (r *Report) channels(w []string) error {
	bad := errors.New("it has another form")
	n, err := strconv.ParseInt(w[len(w)-1], 10, 64)
	switch {
	case err != nil || n < 0:
		return errors.New("a count is no number")
	case len(w) == 2 && w[0] == addedLine:
		r.ChannelsAdded = n
		return nil
	case len(w) == 2: // the sum of those that follow: Format writes it
		return nil
	case len(w) != 4 || w[0] != removedLine || n == 0:
		return bad
	}
	day, err := time.Parse(time.DateOnly, w[1])
	if err != nil || !slices.Contains(admit.ChannelKinds(), w[2]) {
		return bad
	}
	r.Removed = append(r.Removed, Removed{day, w[2], n})
	return nil
}

func (r *Report) checkChannels() error {
	for i, one := range r.Removed {
		if one.Day.Before(r.From.Truncate(24*time.Hour)) || !one.Day.Before(r.To) || i > 0 && r.Removed[i-1].order(one) >= 0 {
			return errors.New("a removal stands in another place, or is of another time")
		}
	}
	return nil
}
