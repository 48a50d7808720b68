package demo

import "time"

const (
	hotlineName  = "hotline.oig.example"
	hotlineIP    = "203.0.113.200"
	hotlinePhone = "+18005550142"
)

// hotline is one person's contact with the inspector general: the name looked up,
// the site visited, a call made. Nothing else may tell whether it took place, so
// it draws from a source of its own and stands only in records without a running
// number.
func (p *play) hotline() {
	d := p.draws("hotline")
	w := p.people[contactAt]
	at := p.to.Add(-7*time.Hour - 31*time.Minute).Add(d.part(0, 4*time.Minute)).Truncate(time.Microsecond)
	p.visit(d, at, w.laptop, hotlineName, hotlineIP, 74*time.Second+d.part(0, 9*time.Second), 18_211, 96_404)
	p.webfilter(at.Add(400*time.Millisecond), w.laptop, hotlineIP, hotlineName, "Government")
	p.visit(d, at.Add(3*time.Minute), w.laptop, "www."+hotlineName, hotlineIP, 21*time.Second, 2_940, 31_877)
	p.call(at.Add(26*time.Minute), w.laptop, w.phone, hotlinePhone, 611)
}
