package pseudonym

import (
	"errors"
	"strings"
	"testing"

	"github.com/counterseal/counterseal/internal/event"
)

const askedDirectory = `apiVersion: directory/v1
domains: [CORP, corp.example]
people:
  - id: E-1
    names: [alice, Alice Example]
    mails: [alice.example@corp.example]
    sids: [S-1-5-21-1-2-3-1104]
    phones: ['+1 202 555 0123']
    devices: [ALICE-LAPTOP]
`

// TestIdentity: a name that is asked for is what the door makes of it, and nothing else.
func TestIdentity(t *testing.T) {
	d, err := ParseDirectory([]byte(askedDirectory))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		category, text string
		kind           event.TokenKind
		canonical      string
	}{
		{"person", "alice", event.Person, "alice"},
		{"person", " ALICE ", event.Person, "alice"},
		{"person", `CORP\Alice`, event.Person, "alice"},
		{"person", "alice@corp.example", event.Person, "alice"},
		{"person", "Alice Example", event.Person, "alice"},
		{"mail", "Alice.Example@CORP.example", event.Person, "alice"},
		{"person", "S-1-5-21-1-2-3-1104", event.Person, "alice"},
		{"phone", "(202) 555-0123", event.Person, "alice"},
		{"person", "bob", event.Person, "bob"},
		{"mail", "bob@home.example", event.Mail, "bob@home.example"},
		{"person", "bob@home.example", event.Mail, "bob@home.example"},
		{"device", "alice-laptop.corp.example", event.Device, "alice-laptop"},
		{"person", "ALICE-LAPTOP$", event.Device, "alice-laptop"},
		{"address", "192.0.2.7", event.Address, "192.0.2.7"},
		{"address", "2001:DB8::7", event.Address, "2001:db8::7"},
	} {
		k, got, err := d.Identity(c.category, c.text)
		if err != nil || k != c.kind || string(got) != c.canonical {
			t.Errorf("%s %q: %c %q, %v", c.category, c.text, k, got, err)
		}
	}
	for _, c := range []struct {
		category, text string
		want           error
	}{
		{"person", "root", ErrNobody}, {"person", `NT AUTHORITY\SYSTEM`, ErrNobody}, {"person", "WEB01$", ErrNobody}, {"address", "127.0.0.1", ErrNobody},
		{"person", "alice, bob", ErrSeveral}, {"mail", "Bob Other <bob@home.example>", ErrSeveral},
		{"text", "alice", nil}, {"", "alice", nil}, {"person", "", nil}, {"person", " ", nil}, {"person", strings.Repeat("a", 256), nil},
		{"person", "al\u200bice", nil}, {"person", "al\nice", nil}, {"person", "al\xffice", nil},
	} {
		_, _, err := d.Identity(c.category, c.text)
		if err == nil || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s %q: %v", c.category, c.text, err)
		}
		if err != nil && len(c.text) > 2 && strings.Contains(err.Error(), c.text) {
			t.Errorf("an error says the name: %v", err)
		}
	}
}

// FuzzIdentity: what is asked gives one identity or an error, the same each time.
func FuzzIdentity(f *testing.F) {
	d, err := ParseDirectory([]byte(askedDirectory))
	if err != nil {
		f.Fatal(err)
	}
	for _, s := range []string{"alice", `CORP\alice`, "S-1-5-21-1-2-3-500", "arn:aws:iam::1:user/bob", "CORP/bob", "[2001:db8::1]:80", `\\host\c$`, "<a@b>", "a <b@c>", "m1_aaaaaaaaaaaaaaaaaaaaaaaaaa"} {
		for _, c := range Categories {
			f.Add(c, s)
		}
	}
	f.Fuzz(func(t *testing.T, category, text string) {
		k, a, err := d.Identity(category, text)
		if err != nil {
			return
		}
		if k != event.Person && k != event.Mail && k != event.Device && k != event.Address || len(a) == 0 {
			t.Fatalf("%c %q", k, a)
		}
		if again, b, err := d.Identity(category, " "+text+" "); err != nil || again != k || string(a) != string(b) {
			t.Errorf("another time it is another one: %v", err)
		}
	})
}
