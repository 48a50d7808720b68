package sigmajson

// Kept says how many names and how many bytes a reader keeps between calls.
func (r *Reader) Kept() (names, values int) { return len(r.names), cap(r.values) }
