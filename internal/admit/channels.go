package admit

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/counterseal/counterseal/internal/pia"
)

// Channel is one entry of a list of protected channels: what people agree on. Two files
// with the same entries protect the same.
type Channel struct {
	List  string `json:"list"` // domains, addresses, mails, numbers or names
	Value string `json:"value"`
	Name  string `json:"name"` // of the channel, for people; it is not looked for
	// Kind is one of ChannelKinds, empty for OtherChannel. It is public when the entry is
	// removed, which the name is not.
	Kind string `json:"kind,omitempty"`
}

// OtherChannel is the kind of a channel that names none.
const OtherChannel = "other"

// ChannelKinds are the kinds of protected channels, in order.
func ChannelKinds() []string {
	return []string{"appeals-board", "auditor", "counsel", "employee-assistance", "equal-opportunity", "health", "hotline", "inspector", "legislature", "ombuds", OtherChannel, "press", "special-counsel", "union", "works-council"}
}

// MaxChannels bounds a list. maxChannelText bounds one value or name of it.
const (
	MaxChannels    = 10_000
	maxChannelText = 512
)

// ID names an entry: 12 digits of the SHA-256 of what is looked for.
func (c *Channel) ID() string {
	sum := sha256.Sum256([]byte(c.List + "\x00" + c.Value))
	return hex.EncodeToString(sum[:6])
}

// Channels reads the entries of a protected/v1 file, sorted and each once.
func Channels(data []byte) ([]Channel, error) {
	if len(data) == 0 {
		return []Channel{}, nil
	}
	f, err := readProtected(data)
	if err != nil {
		return nil, err
	}
	if _, err := protect(f); err != nil {
		return nil, err
	}
	out := []Channel{}
	for i := range f.Channels {
		c := &f.Channels[i]
		kind := strings.TrimSpace(c.Kind)
		if kind == OtherChannel {
			kind = ""
		}
		for list, values := range map[string][]string{"domains": c.Domains, "addresses": c.Addresses, "mails": c.Mails, "numbers": c.Numbers, "names": c.Names} {
			for j, v := range values {
				one := Channel{List: list, Value: spelt(list, v), Name: strings.TrimSpace(c.Name), Kind: kind}
				if len(one.Value) > maxChannelText || len(one.Name) > maxChannelText {
					return nil, fmt.Errorf("protected file: channel %d, %s, entry %d: it or its name is longer than %d bytes", i+1, list, j+1, maxChannelText)
				}
				out = append(out, one)
			}
		}
	}
	slices.SortFunc(out, func(a, b Channel) int {
		return cmp.Or(a.order(&b), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Kind, b.Kind))
	})
	out = slices.CompactFunc(out, func(a, b Channel) bool { return a.order(&b) == 0 })
	if len(out) > MaxChannels {
		return nil, fmt.Errorf("protected file: more than %d entries", MaxChannels)
	}
	return out, nil
}

func (c *Channel) order(o *Channel) int {
	return cmp.Or(cmp.Compare(c.List, o.List), cmp.Compare(c.Value, o.Value))
}

// spelt gives the spelling under which an entry is compared with others. It protects what
// the entry protects.
func spelt(list, v string) string {
	v = strings.TrimSpace(v)
	switch list {
	case "domains":
		return strings.ToLower(strings.TrimPrefix(strings.TrimPrefix(strings.TrimSuffix(v, "."), "*"), "."))
	case "mails":
		return strings.ToLower(v)
	case "addresses":
		if a, err := netip.ParseAddr(v); err == nil {
			return a.WithZone("").Unmap().String()
		}
		if pre, err := netip.ParsePrefix(v); err == nil {
			switch pre = pre.Masked(); {
			case pre.IsSingleIP():
				return pre.Addr().Unmap().String()
			case pre.Addr().Is4In6() && pre.Bits() >= 96:
				return netip.PrefixFrom(pre.Addr().Unmap(), pre.Bits()-96).String()
			}
			return pre.String()
		}
	}
	return v
}

// Protect compiles entries that were agreed on. No entries are no list.
func Protect(channels []Channel) (*Protected, error) {
	if len(channels) == 0 {
		return &Protected{}, nil
	}
	if err := CheckChannels(channels); err != nil {
		return nil, err
	}
	f := &protectedFile{Channels: make([]protectedChannel, len(channels))}
	for i := range channels {
		c, into := &channels[i], (*[]string)(nil)
		switch one := &f.Channels[i]; c.List {
		case "domains":
			into = &one.Domains
		case "addresses":
			into = &one.Addresses
		case "mails":
			into = &one.Mails
		case "numbers":
			into = &one.Numbers
		case "names":
			into = &one.Names
		}
		*into = []string{c.Value}
	}
	p, err := protect(f)
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(channels)
	if err != nil {
		return nil, fmt.Errorf("writing the list: %w", err)
	}
	p.digest = sha256.Sum256(text)
	return p, nil
}

// CheckChannels refuses what Channels would not have given.
func CheckChannels(channels []Channel) error {
	if len(channels) > MaxChannels {
		return fmt.Errorf("more than %d entries", MaxChannels)
	}
	for i := range channels {
		c := &channels[i]
		switch {
		case !slices.Contains([]string{"addresses", "domains", "mails", "names", "numbers"}, c.List):
			return fmt.Errorf("entry %d is of no list", i+1)
		case c.Kind == OtherChannel || c.Kind != "" && !slices.Contains(ChannelKinds(), c.Kind):
			return fmt.Errorf("entry %d has a kind that is none", i+1)
		case c.Value == "" || c.Value != spelt(c.List, c.Value) || len(c.Value) > maxChannelText || len(c.Name) > maxChannelText:
			return fmt.Errorf("entry %d is not in the spelling of the list", i+1)
		case i > 0 && channels[i-1].order(c) >= 0:
			return errors.New("the entries are not in order, each once")
		}
	}
	return nil
}

// Without gives the entries of a list that another has not.
func Without(list, other []Channel) []Channel {
	out := []Channel{}
	for i := range list {
		if _, there := slices.BinarySearchFunc(other, list[i], func(a, b Channel) int { return a.order(&b) }); !there {
			out = append(out, list[i])
		}
	}
	return out
}

// Joined gives the entries of two lists. Where both have one, the first names it.
func Joined(list, other []Channel) []Channel {
	out := append(slices.Clone(list), Without(other, list)...)
	slices.SortFunc(out, func(a, b Channel) int { return a.order(&b) })
	return out
}

func readProtected(data []byte) (*protectedFile, error) {
	var f protectedFile
	if err := pia.DecodeStrict(data, &f); err != nil {
		return nil, fmt.Errorf("protected file: %w", err)
	}
	if f.APIVersion != "protected/v1" {
		return nil, fmt.Errorf("protected file: apiVersion is not protected/v1")
	}
	return &f, nil
}

// ChannelsChanged reads from the detail of a statement channels.approved how many entries were added, and
// how many of which kind removed. What it does not say the kind of is of the kind other.
func ChannelsChanged(detail json.RawMessage) (added int64, removed map[string]int64) {
	var d struct {
		Added   int64            `json:"added"`
		Removed int64            `json:"removed"`
		Kinds   map[string]int64 `json:"removed_kinds"`
	}
	if json.Unmarshal(detail, &d) != nil {
		return 0, nil
	}
	left := min(max(d.Removed, 0), MaxChannels)
	removed = map[string]int64{}
	for _, kind := range ChannelKinds() {
		if n := min(d.Kinds[kind], left); n > 0 {
			removed[kind] = n
			left -= n
		}
	}
	if left > 0 {
		removed[OtherChannel] += left
	}
	return min(max(d.Added, 0), MaxChannels), removed
}
