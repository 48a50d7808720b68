package main

import (
	"encoding/json"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// TestSchemaIsTheStruct holds docs/config.schema.json to the configuration struct.
func TestSchemaIsTheStruct(t *testing.T) {
	type object struct {
		AdditionalProperties *bool
		Default              any
		Items                *object
		Properties           map[string]object
	}
	data, err := os.ReadFile("../../docs/config.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	var schema object
	if err := json.Unmarshal(data, &schema); err != nil {
		t.Fatal(err)
	}
	var compare func(where string, typ reflect.Type, o object)
	compare = func(where string, typ reflect.Type, o object) {
		t.Helper()
		if o.AdditionalProperties == nil || *o.AdditionalProperties {
			t.Errorf("%s: the schema allows unknown keys", where)
		}
		var keys []string
		for _, f := range reflect.VisibleFields(typ) {
			tag := f.Tag.Get("yaml")
			if tag == "" || f.Anonymous {
				continue
			}
			keys = append(keys, tag)
			p, ok := o.Properties[tag]
			if !ok {
				t.Errorf("%s: the schema lacks %s", where, tag)
				continue
			}
			part, of := p, f.Type
			if of.Kind() == reflect.Slice {
				of = of.Elem()
				if of.Kind() == reflect.Struct && p.Items == nil {
					t.Errorf("%s: the schema does not say what is in %s", where, tag)
					continue
				}
				if p.Items != nil {
					part = *p.Items
				}
			}
			if of.Kind() == reflect.Struct {
				compare(where+"."+tag, of, part)
			}
		}
		for k := range o.Properties {
			if !slices.Contains(keys, k) {
				t.Errorf("%s: the schema has %s, the struct has not", where, k)
			}
		}
	}
	compare("config", reflect.TypeFor[config](), schema)
	d := reflect.ValueOf(defaultConfig())
	for i := range d.NumField() {
		tag := d.Type().Field(i).Tag.Get("yaml")
		if p := schema.Properties[tag]; p.Default != nil && p.Default != d.Field(i).Interface() {
			t.Errorf("default of %s: schema %v, program %v", tag, p.Default, d.Field(i).Interface())
		}
	}
}

func TestConfigErrorsNameTheKey(t *testing.T) {
	for text, want := range map[string]string{
		"colour: blue\n":         "colour",
		"data: [a]\n":            "data",
		"reserve: much\n":        "reserve",
		"http: 0.0.0.0:80\n":     "http",
		"http: example.org:80\n": "http",
		"listeners:\n  - {way: carrier-pigeon, address: \"127.0.0.1:1\", source: a}\n":                       "listeners[0].way",
		"listeners:\n  - {way: relp, address: \"192.0.2.1:1\", source: a}\n":                                 "listeners[0].address",
		"listeners:\n  - {way: relp, address: \"127.0.0.1:1\"}\n":                                            "listeners[0].source",
		"listeners:\n  - {way: syslog-tls, address: \"0.0.0.0:6514\", source: a}\n":                          "cert and key",
		"listeners:\n  - {way: syslog-tls, address: \"0.0.0.0:6514\", source: a, cert: c.pem, key: k.pem}\n": "client_ca",
		"keyholder: {dir: d, address: \"holder.example:1\", cert: c, key: k, ca: a}\n":                       "keyholder.dir",
		"keyholder: {address: \"holder.example:1\", cert: c, key: k}\n":                                      "keyholder.address",
		"keyholder: {dir: d, address: \"holder.example:1\", colour: blue}\n":                                 "colour",
		"broker: {socket: b.sock, address: \"broker.example:1\", cert: c, key: k, ca: a}\n":                  "broker.socket",
		"broker: {socket: b.sock, ca: a}\n":                                                                  "broker.address",
		"broker: {cert: c, key: k, ca: a}\n":                                                                 "broker.address",
		"broker: {address: \"broker.example:1\"}\n":                                                          "broker.address",
		"broker: {address: \"broker.example:1\", key: k, ca: a}\n":                                           "broker.address",
		"broker: {address: \"broker.example:1\", cert: c, ca: a}\n":                                          "broker.address",
		"broker: {address: \"broker.example:1\", cert: c, key: k}\n":                                         "broker.address",
		"broker: {address: \"broker.example\", cert: c, key: k, ca: a}\n":                                    "broker.address",
		"broker: {socket: b.sock, listen: x}\n":                                                              "listen",
		"login: {origin: \"https://logs.example\"}\n":                                                        "login.address",
		"login: {address: \"127.0.0.1\", origin: \"https://logs.example\"}\n":                                "login.address",
		"login: {address: \"0.0.0.0:8443\", origin: \"https://logs.example\"}\n":                             "login.cert",
		"login: {address: \"127.0.0.1:8443\", cert: c.pem, origin: \"https://logs.example\"}\n":              "login.cert",
		"login: {address: \"127.0.0.1:8443\"}\n":                                                             "login.origin",
		"login: {address: \"127.0.0.1:8443\", origin: \"http://logs.example\"}\n":                            "login.origin",
		"login: {address: \"127.0.0.1:8443\", origin: \"https://logs.example/\"}\n":                          "login.origin",
		"login: {address: \"127.0.0.1:8443\", origin: \"https://192.0.2.1\"}\n":                              "login.origin",
		"login: {address: \"127.0.0.1:8443\", origin: \"https://logs.example\", rp_id: other.example}\n":     "login.rp_id",
		"login: {address: \"127.0.0.1:8443\", origin: \"https://logs.example\", rp_id: ogs.example}\n":       "login.rp_id",
		"login: {address: \"127.0.0.1:8443\", origin: \"https://logs.example\", proxy: [192.0.2.1]}\n":       "login.proxy[0]",
		"login: {address: \"127.0.0.1:8443\", origin: \"https://logs.example\", password: x}\n":              "password",
	} {
		_, err := parseConfig("counterseal.yaml", []byte(text))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q named", text, err, want)
		}
	}
	if c, err := parseConfig("/etc/counterseal/counterseal.yaml", []byte("data: d\npias: [p, /q]\n")); err != nil || c.Data != "/etc/counterseal/d" || c.PIAs[1] != "/q" {
		t.Errorf("relative paths: %+v, %v", c, err)
	}
	if c, err := parseConfig("/etc/counterseal/counterseal.yaml", []byte("broker: {address: \"broker.example:1\", cert: c, key: k, ca: a}\n")); err != nil || c.Broker.OtherHost != (OtherHost{"broker.example:1", "/etc/counterseal/c", "/etc/counterseal/k", "/etc/counterseal/a"}) {
		t.Errorf("a broker on another host: %+v, %v", c.Broker, err)
	}
	if c, err := parseConfig("x", nil); err != nil || c.HTTP != "127.0.0.1:8420" {
		t.Errorf("an empty file: %+v, %v", c, err)
	}
}

func FuzzConfig(f *testing.F) {
	f.Add([]byte("data: x\nlisteners: [{way: relp, address: '127.0.0.1:1', source: a}]\n"))
	f.Add([]byte("a: &a [*a]\n"))
	f.Add([]byte("pias: !00\n00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, err := parseConfig("x", b); err == nil && c.check() != nil {
			t.Fatal("accepted a configuration that check refuses")
		}
	})
}
