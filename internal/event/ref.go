package event

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/google/uuid"
)

// Ref names one sealed record: compartment, segment, position in the segment. It
// is `metadata.uid`, the key of the index, and what a finding cites. Two runs give
// equal records different Refs: equality is by Content.
type Ref struct {
	Compartment string
	Segment     uuid.UUID
	Ordinal     uint64
}

// IsZero reports whether the Ref names nothing.
func (r Ref) IsZero() bool { return r.Compartment == "" }

func (r Ref) String() string {
	if r.IsZero() {
		return ""
	}
	return r.Compartment + "/" + r.Segment.String() + "/" + strconv.FormatUint(r.Ordinal, 10)
}

// Next returns the Ref n records further in the same segment.
func (r Ref) Next(n uint64) Ref { r.Ordinal += n; return r }

// ParseRef reads the form that String prints.
func ParseRef(s string) (Ref, error) {
	comp, rest, ok := strings.Cut(s, "/")
	seg, ord, ok2 := strings.Cut(rest, "/")
	if !ok || !ok2 {
		return Ref{}, fmt.Errorf("a reference is compartment/segment/number")
	}
	if err := CheckCompartment(comp); err != nil {
		return Ref{}, err
	}
	id, err := uuid.Parse(seg)
	if err != nil || id.String() != seg {
		return Ref{}, fmt.Errorf("the segment of a reference is a lower-case UUID")
	}
	n, err := strconv.ParseUint(ord, 10, 64)
	if err != nil || strconv.FormatUint(n, 10) != ord {
		return Ref{}, fmt.Errorf("the number of a reference is a plain decimal")
	}
	return Ref{Compartment: comp, Segment: id, Ordinal: n}, nil
}

// CheckCompartment accepts the names that a compartment may have: 1 to 40 lower-case
// letters, digits and hyphens, beginning with a letter. They become folder names.
func CheckCompartment(name string) error {
	if name == "" || len(name) > 40 || name[0] < 'a' || name[0] > 'z' {
		return fmt.Errorf("a compartment is named by 1 to 40 of a-z, 0-9 and hyphen, a letter first")
	}
	for _, c := range name {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return fmt.Errorf("a compartment is named by 1 to 40 of a-z, 0-9 and hyphen, a letter first")
		}
	}
	return nil
}
