package event

import (
	"encoding/json"
	"fmt"
	"time"
)

// Card is the control record of one request in one compartment. It shares the
// durable unit of the records it counts, so it is there exactly when they are.
type Card struct {
	Source   string    `json:"source"`
	Key      string    `json:"key"`  // SHA-256 of source and idempotency key, hex; empty: none
	Body     string    `json:"body"` // SHA-256 of the frames kept, hex
	N        int       `json:"n"`    // records of this compartment, directly before the card
	First    string    `json:"first,omitempty"`
	Last     string    `json:"last,omitempty"`
	Received time.Time `json:"received"`
	// Parts are the compartments of the request where there is more than one. A
	// repeat completes those, whatever the assessments say by then.
	Parts []string `json:"parts,omitempty"`
	// Errors are the lines refused, so that a repeat gets the same answer. Line counts
	// the lines of the request less those withheld, so it shows none.
	Errors []LineError `json:"errors,omitempty"`
	// Gaps are holes in a producer's running numbers, found at the door.
	Gaps []Gap `json:"gaps,omitempty"`
	// Counts per dataset of what minimisation did.
	Counts []Count `json:"counts,omitempty"`
	// PIA is the assessment that admitted it: id, version, digest.
	PIA []string `json:"pia,omitempty"`
	// Repeats counts lines equal to ones that were sealed but not acknowledged in
	// a broken session of the same sender.
	Repeats int `json:"repeats,omitempty"`
}

// Gap is a hole in the running numbers of a producer, or a break of a connection.
type Gap struct {
	Source string    `json:"source"`
	Stream string    `json:"stream"` // tokenised where it holds a name
	Kind   string    `json:"kind"`   // record-number, serial, connection, udp-drops
	From   uint64    `json:"from,omitempty"`
	To     uint64    `json:"to,omitempty"`
	At     time.Time `json:"at"`
}

// Count says what minimisation did to one dataset in one batch. Fields that no
// line of the PIA names are counted per path.
type Count struct {
	Dataset string         `json:"dataset"`
	Kept    int            `json:"kept"`
	Dropped map[string]int `json:"dropped,omitempty"`
}

// Context names, by digest, what decided about records from here on. Its
// documents lie in blobs/. A change of any digest is a record at a batch boundary.
type Context struct {
	PIAs      []string          `json:"pias"`
	RuleSet   string            `json:"rule_set"`
	Protected string            `json:"protected"`
	Directory string            `json:"directory"`
	Epoch     int               `json:"epoch"`
	Sources   string            `json:"sources"`
	Parsers   map[string]int    `json:"parsers"`
	Index     int               `json:"index"`
	Extra     map[string]string `json:"extra,omitempty"`
}

// Watermark says that, by event time, nothing older is expected from a source.
type Watermark struct {
	Source string    `json:"source"`
	Until  time.Time `json:"until"`
	Reason string    `json:"reason"` // lateness, import-end
}

// Type tells the records of the event stream apart.
type Type uint8

// The types of a stream record. The numbers are written to disk.
const (
	TypeEvent     Type = 1
	TypeCard      Type = 2
	TypeContext   Type = 3
	TypeWatermark Type = 4
	TypeOriginal  Type = 5 // original stream only: bytes as received
)

// Entry is one decoded record of the event stream; exactly one pointer is set.
type Entry struct {
	Type      Type
	Event     *Event
	Card      *Card
	Context   *Context
	Watermark *Watermark
}

func encodeControl(t Type, v any) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encoding a control record: %w", err)
	}
	return append([]byte{formatVersion, byte(t)}, b...), nil
}

// EncodeCard gives the stored form of a card.
func EncodeCard(c *Card) ([]byte, error) { return encodeControl(TypeCard, c) }

// EncodeContext gives the stored form of a context.
func EncodeContext(c *Context) ([]byte, error) { return encodeControl(TypeContext, c) }

// EncodeWatermark gives the stored form of a watermark.
func EncodeWatermark(w *Watermark) ([]byte, error) { return encodeControl(TypeWatermark, w) }
