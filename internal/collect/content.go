package collect

import "io"

// Content opens the member's bytes, decompressed and bounded, for a caller that
// reads the form itself, as scan does with event logs.
func (m *Member) Content() (io.ReadCloser, error) {
	if m.Err != nil {
		return nil, m.Err
	}
	return m.open()
}
