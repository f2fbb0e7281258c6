package web

import (
	"crypto/tls"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"testing"
)

func TestClientAddress(t *testing.T) {
	trusted := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}
	for _, c := range []struct {
		remote string
		header http.Header
		want   string
		told   Telling
	}{
		{"192.0.2.1:5", nil, "192.0.2.1", ToldRightly},
		{"[2001:db8::1]:5", nil, "2001:db8::1", ToldRightly},
		{"[::ffff:192.0.2.1]:5", nil, "192.0.2.1", ToldRightly},
		{"[fe80::1%eth0]:5", nil, "fe80::1", ToldRightly},
		{"@", nil, "@", ToldRightly},
		{"192.0.2.1:5", http.Header{"X-Forwarded-For": {"198.51.100.7"}}, "192.0.2.1", ToldByStranger},
		{"192.0.2.1:5", http.Header{"Forwarded": {"for=198.51.100.7"}}, "192.0.2.1", ToldByStranger},
		{"192.0.2.1:5", http.Header{"X-Real-Ip": {"198.51.100.7"}}, "192.0.2.1", ToldByStranger},
		{"10.0.0.1:5", nil, "10.0.0.1", Untold},
		{"10.0.0.1:5", http.Header{"X-Real-Ip": {"198.51.100.7"}}, "10.0.0.1", Untold},
		{"10.0.0.1:5", http.Header{"X-Forwarded-For": {"198.51.100.7"}}, "198.51.100.7", ToldRightly},
		{"[::ffff:10.0.0.1]:5", http.Header{"X-Forwarded-For": {"198.51.100.7"}}, "198.51.100.7", ToldRightly},
		{"10.0.0.1:5", http.Header{"X-Forwarded-For": {"203.0.113.9, 198.51.100.7"}}, "198.51.100.7", ToldRightly},
		{"10.0.0.1:5", http.Header{"X-Forwarded-For": {"203.0.113.9, 198.51.100.7 , 10.0.0.2,fd00::3"}}, "198.51.100.7", ToldRightly},
		{"10.0.0.1:5", http.Header{"X-Forwarded-For": {"203.0.113.9", "198.51.100.7", "10.0.0.2"}}, "198.51.100.7", ToldRightly},
		{"10.0.0.1:5", http.Header{"X-Forwarded-For": {"198.51.100.7:4711"}}, "198.51.100.7", ToldRightly},
		{"10.0.0.1:5", http.Header{"X-Forwarded-For": {"[2001:db8::7]:4711"}}, "2001:db8::7", ToldRightly},
		{"10.0.0.1:5", http.Header{"X-Forwarded-For": {"[2001:db8::7]"}}, "2001:db8::7", ToldRightly},
		{"10.0.0.1:5", http.Header{"X-Forwarded-For": {"10.0.0.3, 10.0.0.2"}}, "10.0.0.3", ToldRightly},
		{"10.0.0.1:5", http.Header{"X-Forwarded-For": {"203.0.113.9, unknown, 10.0.0.2"}}, "10.0.0.2", ToldRightly},
		{"10.0.0.1:5", http.Header{"X-Forwarded-For": {""}}, "10.0.0.1", ToldRightly},
		{"10.0.0.1:5", http.Header{"X-Forwarded-For": {",,"}}, "10.0.0.1", ToldRightly},
	} {
		got, told := ClientAddress(c.remote, c.header, trusted)
		if got != c.want || told != c.told {
			t.Errorf("%s %v: %s %d, want %s %d", c.remote, c.header, got, told, c.want, c.told)
		}
	}
}

// FuzzClientAddress: nobody but a trusted proxy can choose an address, and what
// it says before the last untrusted one is not listened to.
func FuzzClientAddress(f *testing.F) {
	f.Add("192.0.2.1:5", "198.51.100.7")
	f.Add("10.0.0.1:5", "203.0.113.9, 198.51.100.7 , 10.0.0.2")
	f.Add("[::ffff:10.0.0.1]:5", "[2001:db8::7]:4711,,")
	f.Add("@", "unknown")
	trusted := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	f.Fuzz(func(t *testing.T, remote, forwarded string) {
		h := http.Header{"X-Forwarded-For": {forwarded}}
		got, told := ClientAddress(remote, h, trusted)
		alone, _ := ClientAddress(remote, http.Header{}, trusted)
		peer, err := netip.ParseAddr(alone)
		if err != nil || !contains(trusted, peer) {
			if got != alone || err == nil && told != ToldByStranger {
				t.Errorf("%q, %q: %q, want %q", remote, forwarded, got, alone)
			}
			return
		}
		if _, err := netip.ParseAddr(got); err != nil || strings.Contains(got, "%") {
			t.Errorf("%q, %q: %q", remote, forwarded, got)
		}
		more, _ := ClientAddress(remote, http.Header{"X-Forwarded-For": {"203.0.113.200, " + forwarded}}, trusted)
		if a, _ := netip.ParseAddr(got); !contains(trusted, a) && more != got {
			t.Errorf("%q, %q: what stands before it made %q of %q", remote, forwarded, more, got)
		}
	})
}

func TestSecure(t *testing.T) {
	a := NewAddresses(slog.New(slog.DiscardHandler), []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")})
	for _, c := range []struct {
		remote, proto string
		tls, want     bool
	}{
		{"192.0.2.1:5", "", false, false},
		{"192.0.2.1:5", "https", false, false}, // whoever asks says so
		{"192.0.2.1:5", "", true, true},
		{"10.0.0.1:5", "https", false, true},
		{"10.0.0.1:5", "HTTPS", false, true},
		{"10.0.0.1:5", "http", false, false},
		{"10.0.0.1:5", "", false, false},
		{"@", "https", false, false},
	} {
		r := &http.Request{RemoteAddr: c.remote, Header: http.Header{"X-Forwarded-Proto": {c.proto}}}
		if c.tls {
			r.TLS = new(tls.ConnectionState)
		}
		if got := a.Secure(r); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}
