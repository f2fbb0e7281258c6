package wire

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestDecodeRefuses(t *testing.T) {
	many := make(map[string]string)
	for i := range maxMembers + 1 {
		many[fmt.Sprint(i)] = "x"
	}
	tooMany, err := json.Marshal(many)
	if err != nil {
		t.Fatal(err)
	}
	for what, text := range map[string]string{
		"nothing":                "",
		"only space":             " ",
		"a number for a string":  `{"quantity":1}`,
		"null for a string":      `{"quantity":null}`,
		"a list for a string":    `{"quantity":["1"]}`,
		"an object for a string": `{"quantity":{"a":"b"}}`,
		"a list":                 `["a"]`,
		"a string":               `"a"`,
		"a number":               `1`,
		"two objects":            `{"a":"1"}{"a":"1"}`,
		"something behind":       `{"a":"1"} x`,
		"an open object":         `{"a":"1"`,
		"an open string":         `{"a":"1`,
		"a comma too many":       `{"a":"1",}`,
		"a comma too few":        `{"a":"1" "b":"2"}`,
		"a name without quotes":  `{a:"1"}`,
		"a name twice":           `{"a":"1","b":"2","a":"1"}`,
		"a name twice, escaped":  `{"a":"1","\u0061":"2"}`,
		"bytes that are no text": "{\"a\":\"\xff\"}",
		"a byte order mark":      "\ufeff{}",
		"a control character":    "{\"a\":\"\x01\"}",
		"too many members":       string(tooMany),
		"too many bytes":         `{"a":"` + strings.Repeat("x", MaxMessage) + `"}`,
		"no Base64":              "eyJh!",
		"Base64 of no JSON":      base64.StdEncoding.EncodeToString([]byte("hello")),
		"Base64 of Base64":       base64.StdEncoding.EncodeToString([]byte("e30=")),
		"Base64 for URLs":        base64.URLEncoding.EncodeToString([]byte(`{"a":"???>>>"}`)),
	} {
		if m, err := Decode([]byte(text)); err == nil {
			t.Errorf("%s: %q was read as %v", what, text, m)
		}
	}
}

func TestDecodeAccepts(t *testing.T) {
	longest := `{"a":"` + strings.Repeat("x", MaxMessage-len(`{"a":""}`)) + `"}`
	for _, text := range []string{
		`{}`, " {\"a\" :\n\"\"}\r\n", `{"sign":"a","SIGN":"b"}`, `{"a":"\ud83c\udf5c"}`, longest,
		base64.StdEncoding.EncodeToString([]byte(` {"取":"🍜"}`)), "eyJhIjoi\r\nMSJ9\n",
	} {
		if _, err := Decode([]byte(text)); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestTyped(t *testing.T) {
	create := map[string]string{
		"method": MethodCreate, "client_id": "16327138", "machine_id": "9", "timestamp": "1748330699",
		"id": "1", "product_id": "2", "code": "00000003", "quantity": "1", "expired_at": "1761223897334", "used": "0",
	}
	put := map[string]string{"method": MethodPut, "client_id": "16327138", "id": "1", "used": "1"}
	other := map[string]string{"method": "client.temperature"}
	for _, c := range []struct {
		members     map[string]string
		name, value string // what is changed
		read        func(m Message) error
		ok          bool
	}{
		{create, "", "", asCreate, true},
		{create, "machine_id", "000", asCreate, true}, // nobody checks these two
		{create, "timestamp", "soon", asCreate, true},
		{create, "quantity", "3", asCreate, true},
		{create, "expired_at", "1761223897", asCreate, true},
		{create, "quantity", "0", asCreate, false},
		{create, "quantity", "4", asCreate, false},
		{create, "quantity", "1.0", asCreate, false},
		{create, "id", "0", asCreate, false},
		{create, "id", "-1", asCreate, false},
		{create, "id", "+1", asCreate, false},
		{create, "id", "9223372036854775808", asCreate, false},
		{create, "product_id", "", asCreate, false},
		{create, "code", "1234567", asCreate, false},
		{create, "code", "123456789", asCreate, false},
		{create, "code", "1234567x", asCreate, false},
		{create, "code", "1234567８", asCreate, false},
		{create, "expired_at", "never", asCreate, false},
		{create, "expired_at", "253402300799999", asCreate, true},
		{create, "expired_at", "253402300800000", asCreate, false},
		{create, "used", "1", asCreate, false},
		{create, "method", MethodDelete, asCreate, false},
		{create, "method", MethodDelete, asDelete, true},
		{create, "", "", asDelete, false},
		{put, "", "", asPut, true},
		{put, "used", "0", asPut, false},
		{put, "used", "", asPut, false},
		{put, "id", "x", asPut, false},
		{put, "id", "", asPut, false},
		{put, "", "", asHeartbeat, false},
		{put, "", "", asOffline, false},
		{other, "", "", asPut, false},
		{other, "method", MethodHeartbeat, asHeartbeat, true},
		{other, "method", MethodOffline, asOffline, true},
	} {
		members := maps.Clone(c.members)
		if c.name != "" {
			members[c.name] = c.value
		}
		if err := c.read(message(t, members)); (err == nil) != c.ok {
			t.Errorf("%v: %v", members, err)
		}
	}
}

func asCreate(m Message) error    { _, err := m.Create(); return err }
func asDelete(m Message) error    { _, err := m.Delete(); return err }
func asPut(m Message) error       { _, err := m.Put(); return err }
func asHeartbeat(m Message) error { _, err := m.Heartbeat(); return err }
func asOffline(m Message) error   { _, err := m.Offline(); return err }

func message(tb testing.TB, members map[string]string) Message {
	tb.Helper()
	text, err := json.Marshal(members)
	if err != nil {
		tb.Fatal(err)
	}
	m, err := Decode(text)
	if err != nil {
		tb.Fatal(err)
	}
	return m
}

// asMap is what a message holds.
func asMap(m Message) map[string]string {
	members := make(map[string]string)
	for _, member := range m.members {
		members[member.name] = member.value
	}
	return members
}

// write is a message of members as Encode writes it, with a signature of its own.
func write(members map[string]string, s Style) []byte {
	var list []member
	for _, name := range slices.Sorted(maps.Keys(members)) {
		if name != nameSign {
			list = append(list, member{name, members[name]})
		}
	}
	return s.encode(list, append(slices.Clone(list), member{name: nameSign}))
}

// TestRoundTrip: whatever members there are come back as they were, verified.
func TestRoundTrip(t *testing.T) {
	seed := rand.Uint64() //nolint:gosec // a test is repeated by its seed
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // as above
	alphabet := []rune("az09 \"\\/&=+%~*-._<>\u0000\u001f\u007f\u2028取货码é🍜\uFFFD\n\t")
	random := func(most int) string {
		text := make([]rune, r.IntN(most))
		for i := range text {
			text[i] = alphabet[r.IntN(len(alphabet))]
		}
		return string(text)
	}
	for range 2000 {
		members := make(map[string]string)
		for range r.IntN(20) {
			members[random(6)] = random(20)
		}
		style := Style{"k" + random(10), Payload(r.IntN(2)), Signature(r.IntN(2)), Milliseconds}
		text := write(members, style)
		m, err := Decode(text)
		if err != nil {
			t.Fatalf("seed %d: %q: %v", seed, text, err)
		}
		if !m.Verify(style.AppKey) || m.Verify(style.AppKey+"x") {
			t.Fatalf("seed %d: %q: not verified, or by another key", seed, text)
		}
		members[nameSign] = m.Get(nameSign)
		if got := asMap(m); !reflect.DeepEqual(got, members) {
			t.Fatalf("seed %d: %v, want %v", seed, got, members)
		}
	}
}

// FuzzDecode: nothing makes it panic; what is read is within the bounds, is
// what it was when it is written and read again, and is not verified by a key
// that it was not signed with.
func FuzzDecode(f *testing.F) {
	for _, v := range vectors(f) {
		f.Add(write(v.Params, Style{AppKey: v.AppKey}))
		f.Add(write(v.Params, Style{AppKey: v.AppKey, Payload: Base64, Signature: PercentEncoded}))
	}
	for _, s := range []string{"", "{}", " {}", "e30=", `{"a":"\ud800"}`, `{"a":1}`, `{"a":"1","a":"1"}`, "\xff", `{"a":"1"}x`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Decode(b)
		if err != nil {
			return
		}
		if len(b) > MaxMessage || len(m.members) > maxMembers {
			t.Fatalf("%d bytes, %d members", len(b), len(m.members))
		}
		const key = "a key that no input knows"
		if m.Verify(key) {
			t.Fatalf("%q is verified by any key", b)
		}
		for _, read := range []func(Message) error{asCreate, asDelete, asPut, asHeartbeat, asOffline} {
			_ = read(m)
		}
		again := write(asMap(m), Style{AppKey: key})
		if len(again) > MaxMessage { // Base64 or escapes made it longer
			return
		}
		got, err := Decode(again)
		if err != nil {
			if len(m.members) == maxMembers { // and its signature is one too many
				return
			}
			t.Fatalf("%q, written again as %q: %v", b, again, err)
		}
		want := asMap(m)
		want[nameSign] = got.Get(nameSign)
		if have := asMap(got); !reflect.DeepEqual(have, want) {
			t.Fatalf("%q is %v, and written again %v", b, want, have)
		}
		if !got.Verify(key) {
			t.Fatalf("%q is not verified by its own key", again)
		}
	})
}
