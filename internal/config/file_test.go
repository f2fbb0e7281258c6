package config

import (
	"maps"
	"strings"
	"testing"
)

func TestParseFile(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		text    string
		want    map[string]string
		refused string
	}{
		{"", map[string]string{}, ""},
		{"# comment\n; comment\n\n  A=1\nB = 2 \r\nC=", map[string]string{"A": "1", "B": "2", "C": ""}, ""},
		{"\ufeffA=1", map[string]string{"A": "1"}, ""},
		{`A="x y"` + "\nB='$x \\ \"'\nC=a#b=c", map[string]string{"A": "x y", "B": `$x \ "`, "C": "a#b=c"}, ""},
		{"A=''\nB=\"\"", map[string]string{"A": "", "B": ""}, ""},
		{"A=1\nhunter2", nil, "line 2"},
		{"export A=hunter2", nil, "line 1"},
		{"1A=hunter2", nil, "line 1"},
		{"=hunter2", nil, "line 1"},
		{"A=1\nA=hunter2", nil, "second time"},
		{"A=hunter2$x", nil, "single quotes"},
		{`A=hunter2\x`, nil, "single quotes"},
		{`A="hunter2$x"`, nil, "single quotes"},
		{`A=hunter2"x"`, nil, "single quotes"},
		{`A='hunter2'x'`, nil, "single quotes"},
		{"A=hunter2 # comment", nil, "comments"},
		{`A="hunter2`, nil, "close"},
		{"A='", nil, "close"},
		{"A=hunter2\xff", nil, "not text"},
		{"A=hunter2\x00", nil, "not text"},
	} {
		got, err := parseFile(tt.text)
		if !maps.Equal(got, tt.want) || (err == nil) != (tt.refused == "") {
			t.Errorf("%q: got %q, %v", tt.text, got, err)
		}
		if err != nil && (!strings.Contains(err.Error(), tt.refused) || strings.Contains(err.Error(), "hunter2")) {
			t.Errorf("%q: got %v", tt.text, err)
		}
	}
}

// FuzzParseFile checks that whatever is taken can be written down again so
// that it reads the same.
func FuzzParseFile(f *testing.F) {
	for _, seed := range []string{"", "A=1", "A='x y'\n#c\nB=\"2\"", "A", "A=$x", "\ufeffA=1\r\n"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := parseFile(text)
		if err != nil {
			if got != nil {
				t.Errorf("got %q with %v", got, err)
			}
			return
		}
		var again strings.Builder
		for k, v := range got {
			if strings.ContainsAny(v, "'\n\r") {
				t.Fatalf("%q: value %q", text, v)
			}
			again.WriteString(k + "='" + v + "'\n")
		}
		if back, err := parseFile(again.String()); err != nil || !maps.Equal(got, back) {
			t.Errorf("%q: got %q, again %q, %v", text, got, back, err)
		}
	})
}
