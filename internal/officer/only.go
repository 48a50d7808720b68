package officer

import "github.com/counterseal/counterseal/internal/keyring"

// OpenOnly opens a seal of one layer, which is for this officer alone, such as a complaint to
// the overseers. The layers of a seal for two are bound to other roles: this opens none.
func (k *Key) OpenOnly(info keyring.SealInfo, box []byte) ([]byte, error) {
	return keyring.OpenWith(k.seal, info, keyring.RoleOnly, box)
}

// SealKey names the key that opens what is sealed to this officer.
func (k *Key) SealKey() keyring.KeyID { return k.card.Seal.ID() }

// Overseer is the officer of oversight of the organisation, or the spare, with a key id; nil
// where it is that of nobody, or of another office.
func (r *Roster) Overseer(id string) *Appointed {
	if a := r.Find(id); a != nil && a.overseer() {
		return a
	}
	return nil
}

func (a *Appointed) overseer() bool { return a.Office == Oversight && !a.Inspector && !a.Duty }

// Overseers are the officers of oversight of the organisation, each of whom opens what is
// sealed to the overseers; not those of an inspector's office, nor of a duty host.
func (r *Roster) Overseers() []Appointed {
	var out []Appointed
	for _, a := range r.Officers {
		if a.overseer() {
			out = append(out, a)
		}
	}
	return out
}
