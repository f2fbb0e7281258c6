package api

import (
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// clientAddress is who asks, as an IP address.
func (s *server) clientAddress(r *http.Request) string {
	address, told := clientAddress(r.RemoteAddr, r.Header, s.TrustedProxies)
	switch {
	case told == toldByStranger && s.warnedForwarded.CompareAndSwap(false, true):
		s.Log.LogAttrs(r.Context(), slog.LevelWarn,
			"a forwarding header came from an address that is not a trusted proxy, and is ignored, as all such will be; "+
				"if it is your proxy, add it to the trusted proxies, or every client behind it counts as one",
			slog.String("address", address))
	// A proxy's machine may look at health and metrics for itself.
	case told == untold && strings.HasPrefix(r.URL.Path, "/api/") && s.warnedUnforwarded.CompareAndSwap(false, true):
		s.Log.LogAttrs(r.Context(), slog.LevelWarn,
			"a trusted proxy sent a request without X-Forwarded-For, the only header that is read; "+
				"have it add the client's address to that one, or every client behind it counts as one",
			slog.String("address", address))
	}
	return address
}

// telling is how a request's headers name the client.
type telling int

const (
	toldRightly    telling = iota // by a trusted proxy, or not at all and by none
	toldByStranger                // by who is not to be believed
	untold                        // not at all, although by a trusted proxy
)

// clientAddress finds the client's address: that of the connection, unless it
// is a trusted proxy's, and then the last in X-Forwarded-For that is not. Each
// proxy adds the one that it was called from at the end, so that all before
// that is only what the client says of itself.
func clientAddress(remote string, h http.Header, trusted []netip.Prefix) (string, telling) {
	peer, ok := parseAddress(remote)
	if !ok {
		return remote, toldRightly
	}
	if !contains(trusted, peer) {
		if h["X-Forwarded-For"] != nil || h["Forwarded"] != nil || h["X-Real-Ip"] != nil {
			return peer.String(), toldByStranger
		}
		return peer.String(), toldRightly
	}
	client := peer
	lines := h["X-Forwarded-For"]
	if lines == nil {
		return client.String(), untold
	}
	for _, line := range slices.Backward(lines) {
		for rest := line; rest != ""; {
			var hop string
			if comma := strings.LastIndexByte(rest, ','); comma >= 0 {
				rest, hop = rest[:comma], rest[comma+1:]
			} else {
				rest, hop = "", rest
			}
			a, ok := parseAddress(strings.TrimSpace(hop))
			if !ok {
				return client.String(), toldRightly // who wrote this is the last one known
			}
			client = a
			if !contains(trusted, client) {
				return client.String(), toldRightly
			}
		}
	}
	return client.String(), toldRightly
}

// parseAddress reads an address, with or without a port. An IPv4 address in
// IPv6's clothes is one of IPv4; a zone means something on this machine only.
func parseAddress(text string) (netip.Addr, bool) {
	if p, err := netip.ParseAddrPort(text); err == nil {
		return p.Addr().Unmap().WithZone(""), true
	}
	a, err := netip.ParseAddr(strings.Trim(text, "[]"))
	return a.Unmap().WithZone(""), err == nil
}

func contains(prefixes []netip.Prefix, a netip.Addr) bool {
	for _, p := range prefixes {
		if p.Contains(a) {
			return true
		}
	}
	return false
}
