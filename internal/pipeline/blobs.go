package pipeline

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"

	"github.com/counterseal/counterseal/internal/durable"
)

// blobs keeps documents under their digest: what decided about records must be
// readable as long as the records are.
type blobs struct{ dir string }

func (b blobs) put(digest string, data []byte) error {
	path := filepath.Join(b.dir, digest)
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	if err := os.MkdirAll(b.dir, 0o700); err != nil {
		return fmt.Errorf("storing document %s: %w", digest, err)
	}
	var disk durable.FS
	if err := disk.WriteFile(path, data, 0o400); err != nil {
		return fmt.Errorf("storing document %s: %w", digest, err)
	}
	return nil
}

func (b blobs) get(digest string) ([]byte, error) {
	if len(digest) != 2*sha256.Size {
		return nil, fmt.Errorf("%q is no digest", digest)
	}
	data, err := os.ReadFile(filepath.Join(b.dir, filepath.Base(digest)))
	if err != nil {
		return nil, fmt.Errorf("reading document %s: %w", digest, err)
	}
	sum := sha256.Sum256(data)
	if hex.EncodeToString(sum[:]) != digest {
		return nil, fmt.Errorf("document %s does not have the digest of its name: it was altered", digest)
	}
	return data, nil
}
