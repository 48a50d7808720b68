package demo

import (
	"strconv"
	"time"
)

// signin is one line of the identity provider.
type signin struct {
	at       time.Time
	w        *person
	ip, land string
	ok       bool
	code     int // error code, 0 for success
	reason   string
	mfa      bool
	client   string
	app      string
	device   string
	agent    string
	session  string
}

func (p *play) signIn(s *signin) {
	if !p.inside(s.at) {
		return
	}
	c := *s
	p.idp.items = append(p.idp.items, item{at: s.at.UnixNano(), write: func(b []byte, _ uint64) []byte {
		b = append(b, `{"time":"`...)
		b = c.at.AppendFormat(b, isoMilli)
		b = append(b, `","event":"signin","user":"`...)
		b = append(b, c.w.mail...)
		b = append(b, `","user_id":"`...)
		b = append(b, c.w.id...)
		b = append(b, `","src_ip":"`...)
		b = append(b, c.ip...)
		b = append(b, `","country":"`...)
		b = append(b, c.land...)
		if c.ok {
			b = append(b, `","result":"success","reason":"`...)
		} else {
			b = append(b, `","result":"failure","reason":"`...)
		}
		b = append(b, c.reason...)
		b = append(b, `","error_code":`...)
		b = strconv.AppendInt(b, int64(c.code), 10)
		b = append(b, `,"mfa":`...)
		b = strconv.AppendBool(b, c.mfa)
		b = append(b, `,"client_app":"`...)
		b = append(b, c.client...)
		b = append(b, `","app":"`...)
		b = append(b, c.app...)
		b = append(b, `","device_id":`...)
		if c.device == "" {
			b = append(b, "null"...)
		} else {
			b = appendJSON(b, c.device)
		}
		b = append(b, `,"user_agent":`...)
		b = appendJSON(b, c.agent)
		b = append(b, `,"session_id":"`...)
		b = append(b, c.session...)
		return append(b, `"}`...)
	}})
}

// report is one line of the device manager.
type report struct {
	at        time.Time
	w         *person
	osVersion string
	land      string
	compliant bool
	action    string
	checkIn   time.Time
}

func (p *play) deviceReport(r *report) {
	if !p.inside(r.at) || !p.inside(r.checkIn) {
		return
	}
	c := *r
	p.mdm.items = append(p.mdm.items, item{at: r.at.UnixNano(), write: func(b []byte, _ uint64) []byte {
		b = append(b, `{"time":"`...)
		b = c.at.AppendFormat(b, isoMilli)
		for _, kv := range [...][2]string{
			{"device_id", c.w.phoneID}, {"serial", c.w.phoneSerial}, {"user", c.w.account}, {"owner_mail", c.w.mail}, {"phone_number", c.w.phone},
			{"os", c.w.phoneOS}, {"os_version", c.osVersion}, {"model", c.w.phoneModel},
		} {
			b = append(b, `","`...)
			b = append(b, kv[0]...)
			b = append(b, `":"`...)
			b = append(b, kv[1]...)
		}
		b = append(b, `","supervised":true,"encrypted":true,"passcode":true,"jailbroken":false,"compliant":`...)
		b = strconv.AppendBool(b, c.compliant)
		b = append(b, `,"country":"`...)
		b = append(b, c.land...)
		b = append(b, `","last_check_in":"`...)
		b = c.checkIn.AppendFormat(b, isoMilli)
		b = append(b, `","action":"`...)
		b = append(b, c.action...)
		return append(b, `"}`...)
	}})
}
