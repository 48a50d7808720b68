package strict

import (
	"errors"
	"io"
	"strings"
	"testing"
)

type part struct {
	Name string `yaml:"name"`
	Port int    `yaml:"port"`
}

type file struct {
	Words []string        `yaml:"words"`
	Parts []part          `yaml:"parts"`
	Named map[string]part `yaml:"named"`
	One   part            `yaml:"one"`
}

// TestDecode: unknown keys and what the library panics at are errors.
func TestDecode(t *testing.T) {
	d := NewDecoder([]byte("words: [a]\nparts: [{name: b, port: 1}]\n---\none: {name: c}\n"))
	var f file
	if err := d.Decode(&f); err != nil || len(f.Words) != 1 || f.Parts[0].Port != 1 {
		t.Errorf("got %+v, %v", f, err)
	}
	if err := d.Decode(&f); err != nil || f.One.Name != "c" {
		t.Errorf("the second document: %+v, %v", f, err)
	}
	if err := d.Decode(&f); !errors.Is(err, io.EOF) {
		t.Errorf("after the last one: %v", err)
	}
	for text, want := range map[string]string{
		"colour: blue\n":           "colour",
		"one: {colour: blue}\n":    "colour",
		"one: {port: x}\n":         "[1:13]",
		"words: !00\n00\n":         ErrMalformed.Error(),
		"parts: !00000000\n0000\n": ErrMalformed.Error(),
	} {
		if err := NewDecoder([]byte(text)).Decode(&file{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", text, err, want)
		}
	}
}

// FuzzDecode: no document ends the process, and one that is accepted is accepted again.
func FuzzDecode(f *testing.F) {
	for _, s := range []string{"words: [a]\nnamed: {x: {name: y, port: 1}}\n", "words: !00\n00\n", "a: &a [*a]\n", "one: !!map\n0\n", "<<: *x\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 1<<10 {
			return
		}
		if NewDecoder(data).Decode(&file{}) == nil {
			if err := NewDecoder(data).Decode(&file{}); err != nil {
				t.Fatalf("accepted once, and then: %v", err)
			}
		}
	})
}
