package wire

import (
	"bufio"
	"encoding/json"
	"net/url"
	"os"
	"strings"
	"testing"
)

// vector is a known answer.
type vector struct {
	Source string            `json:"source"`
	AppKey string            `json:"app_key"`
	Form   string            `json:"form"`
	Params map[string]string `json:"params"`
	Sign   string            `json:"sign"`
}

func vectors(tb testing.TB) []vector {
	tb.Helper()
	f, err := os.Open("testdata/sign.jsonl")
	if err != nil {
		tb.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	var all []vector
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var v vector
		if err := json.Unmarshal(lines.Bytes(), &v); err != nil {
			tb.Fatal(err)
		}
		all = append(all, v)
	}
	return all
}

func TestVectors(t *testing.T) {
	forms := map[string]Signature{"raw": Raw, "percent-encoded": PercentEncoded}
	seen := map[string]int{}
	for _, v := range vectors(t) {
		form, ok := forms[v.Form]
		if !ok {
			t.Fatalf("%q is no form of a signature", v.Form)
		}
		seen[v.Form]++
		if got := Sign(v.Params, v.AppKey, form); got != v.Sign {
			t.Errorf("%s: Sign(%v) = %s, want %s", v.Source, v.Params, got, v.Sign)
		}

		v.Params[nameSign] = v.Sign
		text, err := json.Marshal(v.Params)
		if err != nil {
			t.Fatal(err)
		}
		m, err := Decode(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if !m.Verify(v.AppKey) {
			t.Errorf("%s is not verified", text)
		}
		for _, wrong := range []string{"", v.AppKey + " ", strings.ToUpper(v.AppKey)} {
			if m.Verify(wrong) {
				t.Errorf("%s is verified by the key %q", text, wrong)
			}
		}
	}
	if seen["raw"] == 0 || seen["percent-encoded"] == 0 {
		t.Errorf("the vectors are not of both forms: %v", seen)
	}
}

func TestSignLeavesOut(t *testing.T) {
	want := Sign(map[string]string{"a": "1", "b": "0"}, "k", Raw)
	if got := Sign(map[string]string{"b": "0", "a": "1", "sign": "x", "c": ""}, "k", Raw); got != want {
		t.Errorf("with a sign and an empty member: %s, want %s", got, want)
	}
	if got := Sign(map[string]string{"a": "1", "b": "1"}, "k", Raw); got == want {
		t.Error("another value has the same signature")
	}
}

// TestVerifyIsExact: a signature is compared as it is, to its last digit.
func TestVerifyIsExact(t *testing.T) {
	right := Sign(map[string]string{"a": "1"}, "k", Raw)
	for _, s := range []string{"", strings.ToLower(right), right[1:], right + "0", strings.Repeat("0", 32)} {
		m, err := Decode([]byte(`{"a":"1","sign":"` + s + `"}`))
		if err != nil {
			t.Fatal(err)
		}
		if m.Verify("k") {
			t.Errorf("the signature %q is taken for %q", s, right)
		}
	}
	unsigned, err := Decode([]byte(`{"a":"1"}`))
	if err != nil {
		t.Fatal(err)
	}
	if unsigned.Verify("k") {
		t.Error("a message without a signature is verified")
	}
}

// TestPercentEncoding: all bytes, against the rule in its own words.
func TestPercentEncoding(t *testing.T) {
	for b := range 256 {
		in := string([]byte{byte(b)})
		want := url.QueryEscape(in)
		switch in {
		case "*":
			want = "*"
		case "~":
			want = "%7E"
		}
		if got := string(appendPercentEncoded(nil, in)); got != want {
			t.Errorf("%q becomes %q, want %q", in, got, want)
		}
	}
	if got, want := string(appendPercentEncoded(nil, "a b~*取")), "a+b%7E*%E5%8F%96"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
