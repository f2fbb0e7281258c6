package web

import (
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
)

// Addresses finds who asks. It is safe for concurrent use.
type Addresses struct {
	log     *slog.Logger
	trusted []netip.Prefix

	warnedForwarded, warnedUnforwarded atomic.Bool
}

// NewAddresses returns an Addresses that believes those proxies.
func NewAddresses(log *slog.Logger, trusted []netip.Prefix) *Addresses {
	return &Addresses{log: log, trusted: trusted}
}

// Of is who sent the request, as an IP address. What seems wrong with its headers
// is logged, once.
func (a *Addresses) Of(r *http.Request) string {
	address, told := ClientAddress(r.RemoteAddr, r.Header, a.trusted)
	switch {
	case told == ToldByStranger && a.warnedForwarded.CompareAndSwap(false, true):
		a.log.LogAttrs(r.Context(), slog.LevelWarn,
			"a forwarding header came from an address that is not a trusted proxy, and is ignored, as all such will be; "+
				"if it is your proxy, add it to the trusted proxies, or every client behind it counts as one",
			slog.String("address", address))
	// A proxy's machine may look at health and metrics for itself.
	case told == Untold && strings.HasPrefix(r.URL.Path, "/api/") && a.warnedUnforwarded.CompareAndSwap(false, true):
		a.log.LogAttrs(r.Context(), slog.LevelWarn,
			"a trusted proxy sent a request without X-Forwarded-For, the only header that is read; "+
				"have it add the client's address to that one, or every client behind it counts as one",
			slog.String("address", address))
	}
	return address
}

// Secure reports whether the client's connection is encrypted: to us, or to a
// trusted proxy that says so in X-Forwarded-Proto.
func (a *Addresses) Secure(r *http.Request) bool {
	if r.TLS != nil {
		return true
	}
	peer, ok := parseAddress(r.RemoteAddr)
	return ok && contains(a.trusted, peer) && strings.EqualFold(r.Header.Get("X-Forwarded-Proto"), "https")
}

// Telling is how a request's headers name the client.
type Telling int

// The ways.
const (
	ToldRightly    Telling = iota // by a trusted proxy, or not at all and by none
	ToldByStranger                // by who is not to be believed
	Untold                        // not at all, although by a trusted proxy
)

// ClientAddress finds the client's address: that of the connection, unless it
// is a trusted proxy's, and then the last in X-Forwarded-For that is not. Each
// proxy adds the one that it was called from at the end, so that all before
// that is only what the client says of itself.
func ClientAddress(remote string, h http.Header, trusted []netip.Prefix) (string, Telling) {
	peer, ok := parseAddress(remote)
	if !ok {
		return remote, ToldRightly
	}
	if !contains(trusted, peer) {
		if h["X-Forwarded-For"] != nil || h["Forwarded"] != nil || h["X-Real-Ip"] != nil {
			return peer.String(), ToldByStranger
		}
		return peer.String(), ToldRightly
	}
	client := peer
	lines := h["X-Forwarded-For"]
	if lines == nil {
		return client.String(), Untold
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
				return client.String(), ToldRightly // who wrote this is the last one known
			}
			client = a
			if !contains(trusted, client) {
				return client.String(), ToldRightly
			}
		}
	}
	return client.String(), ToldRightly
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
