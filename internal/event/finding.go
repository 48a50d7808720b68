package event

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"sort"
	"time"
)

// Finding says that a rule matched. Rows are append-only: of rows with one id the
// highest Rev holds.
type Finding struct {
	ID      string    // see FindingID
	Rev     int       // 1 at first
	State   State     // open or withdrawn
	Rule    RuleInfo  // which rule
	RuleSet string    // digest of the rule set that was asked, hex
	Refs    []Ref     // the records that it cites
	Group   string    // group key of a correlation, empty for a single event
	From    time.Time // window: first and last event
	To      time.Time
	Parts   []Part // what adds up to it
	Source  string
	Dataset string
}

// RuleInfo is what a reader must see of a rule, its licence included.
type RuleInfo struct {
	ID      string   `json:"id"`
	Digest  string   `json:"digest"`
	Title   string   `json:"title"`
	Level   string   `json:"level"`
	Author  string   `json:"author,omitempty"`
	License string   `json:"license,omitempty"`
	Tags    []string `json:"tags,omitempty"`
}

// Part is one field that made a rule match, tokenised as stored.
type Part struct {
	Field string `json:"field"`
	Value string `json:"value"`
}

// State of a finding.
type State string

// The states of a finding.
const (
	Open      State = "open"
	Withdrawn State = "withdrawn"
)

// FindingID is a digest of rule, contents, group and window, so that a shuffled
// replay finds the same id. Contents are sorted first. 32 hexadecimal characters.
func FindingID(ruleDigest string, contents [][32]byte, group string, from, to time.Time) string {
	sorted := make([][32]byte, len(contents))
	copy(sorted, contents)
	sort.Slice(sorted, func(i, j int) bool { return string(sorted[i][:]) < string(sorted[j][:]) })
	h := sha256.New()
	put := func(b []byte) {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(b)))
		h.Write(n[:])
		h.Write(b)
	}
	put([]byte("counterseal/finding/v1"))
	put([]byte(ruleDigest))
	for i := range sorted {
		put(sorted[i][:])
	}
	put([]byte(group))
	var t [16]byte
	binary.BigEndian.PutUint64(t[:8], uint64(from.UnixNano()))
	binary.BigEndian.PutUint64(t[8:], uint64(to.UnixNano()))
	put(t[:])
	return hex.EncodeToString(h.Sum(nil)[:16])
}
