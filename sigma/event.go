package sigma

// Kind is the type of a field's value.
type Kind uint8

// The kinds of a value. Value holds its text in every case; for KindNull it is empty.
const (
	KindString Kind = iota
	KindNumber
	KindBool
	KindNull
)

// A Field is one named value of an event. A name that occurs more than once is
// one field with several values.
type Field struct {
	Name  string
	Kind  Kind
	Value []byte
	// Addr is what is known of an address whose Value is an opaque token.
	Addr AddrClass
}

// A LogSource names a producer of events, or the events that a rule is for. An
// empty attribute is unset.
type LogSource struct {
	Product, Category, Service string
}

// An Event is a view of one log record. The matcher reads it during Set.Match
// and keeps nothing of it.
type Event struct {
	// Source is what the producer is known to be: nearly always the product, and
	// the service where it is known. The category and service of a Windows event
	// come from its fields Channel and EventID by the mapping.
	Source LogSource
	// Fields are in source order under their native names.
	Fields []Field
	// Blind reports whether a field of that name may have been in the record and
	// was withheld. A test on an absent blind field answers CannotTell. Nil means
	// that nothing was withheld.
	Blind func(name string) bool
	// AnyBlind says that something was withheld: a keyword search that finds
	// nothing then answers CannotTell.
	AnyBlind bool
}

// A Verdict is the answer of a test or of a rule.
type Verdict uint8

// The three answers. CannotTell means that the event was cut before the test
// could decide.
const (
	No Verdict = iota
	CannotTell
	Yes
)

func (v Verdict) String() string {
	switch v {
	case Yes:
		return "yes"
	case No:
		return "no"
	}
	return "cannot-tell"
}

// not is Kleene's negation.
func (v Verdict) not() Verdict { return Yes - v }

func verdict(ok bool) Verdict {
	if ok {
		return Yes
	}
	return No
}
