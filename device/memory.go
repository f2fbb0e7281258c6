package device

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// remembered is how long a code is remembered after its expiry. For so long
// the server does not issue its digits again, and a customer who comes late is
// told so, instead of being counted as one who guesses.
const remembered = 24 * time.Hour

// memory is what the machine must not forget, as its file has it.
type memory struct {
	MachineNo   string    `json:"machine_no"`
	MachineID   int64     `json:"machine_id,omitempty"` // 0 until a message has told it
	Codes       []held    `json:"codes"`
	Wrong       int       `json:"wrong_guesses,omitempty"` // in a row
	PausedFrom  time.Time `json:"paused_from,omitzero"`
	PausedUntil time.Time `json:"paused_until,omitzero"`
}

// held is a code and what has become of it.
type held struct {
	Pickup
	State state `json:"state"`
}

// state is what has become of a code. It goes from live to used to reported,
// or to withdrawn, or to expired.
type state string

const (
	stateLive      state = "live"
	stateUsed      state = "used"      // and to be reported
	stateReported  state = "reported"  // used, and the broker knows
	stateWithdrawn state = "withdrawn" // for the create that comes again after the delete
	stateExpired   state = "expired"   // it stays so if the clock is set back
)

func (m *memory) clone() memory {
	c := *m
	c.Codes = slices.Clone(m.Codes)
	return c
}

// past reports whether the code's time is over.
func (p *Pickup) past(now time.Time) bool { return !now.Before(p.Expires) }

// same reports whether p and q are the same code. The id alone isn't enough:
// a server that was set up anew counts from 1 again.
func (p *Pickup) same(q *Pickup) bool { return p.ID == q.ID && p.Code == q.Code }

// equal reports whether p and q say the same of that code.
func (p Pickup) equal(q Pickup) bool {
	sameTime := p.Expires.Equal(q.Expires)
	p.Expires = q.Expires
	return sameTime && p == q
}

// over reports whether nobody needs to know of the code any more. A use must be
// known until it is reported, however long that takes.
func (h *held) over(now time.Time) bool {
	return h.State != stateUsed && !now.Before(h.Expires.Add(remembered))
}

// forget marks the codes whose time is over, and forgets those that nobody
// needs any more. The server never says that a code has expired.
func (m *memory) forget(now time.Time) (changed bool) {
	for i := range m.Codes {
		if h := &m.Codes[i]; h.State == stateLive && h.past(now) {
			h.State = stateExpired
			changed = true
		}
	}
	before := len(m.Codes)
	m.Codes = slices.DeleteFunc(m.Codes, func(h held) bool { return h.over(now) })
	return changed || len(m.Codes) < before
}

// learn takes the machine's id from a message.
func (m *memory) learn(id int64) bool {
	if id == 0 || id == m.MachineID {
		return false
	}
	m.MachineID = id
	return true
}

// errFull says that a machine keeps as many codes as it can.
var errFull = fmt.Errorf("there are %d codes already", CodesMax)

// add keeps a code, and reports whether anything was changed by it. What has
// been used or withdrawn stays so, however often the code is sent.
func (m *memory) add(p Pickup, now time.Time) (bool, error) {
	for i := range m.Codes {
		h := &m.Codes[i]
		if !h.same(&p) {
			continue
		}
		if h.State != stateExpired && (h.State != stateLive || h.equal(p)) {
			return false, nil
		}
		*h = held{p, stateLive} // expired it was by a clock that was wrong
		return true, nil
	}
	// The digits of an id never change: this one is of a new server.
	m.Codes = slices.DeleteFunc(m.Codes, func(h held) bool { return h.ID == p.ID && h.State != stateUsed })
	if len(m.Codes) >= CodesMax {
		m.Codes = slices.DeleteFunc(m.Codes, func(h held) bool { return h.State != stateUsed && h.past(now) })
	}
	if len(m.Codes) >= CodesMax {
		return false, errFull
	}
	m.Codes = append(m.Codes, held{p, stateLive})
	return true, nil
}

// withdraw withdraws a code unless it was used, and returns it.
func (m *memory) withdraw(id int64) (Pickup, bool) {
	for i := range m.Codes {
		if h := &m.Codes[i]; h.ID == id && (h.State == stateLive || h.State == stateExpired) {
			h.State = stateWithdrawn
			return h.Pickup, true
		}
	}
	return Pickup{}, false
}

// unheard has the use of a code reported again, and reports whether there was
// one that had been: a server that still speaks of the code does not know of it.
// Its broker, or the server itself, has failed between the acknowledgement and
// the record. A withdrawal names no digits.
func (m *memory) unheard(id int64, digits string) bool {
	for i := range m.Codes {
		h := &m.Codes[i]
		if h.ID == id && (digits == "" || h.Code == digits) && h.State == stateReported {
			h.State = stateUsed
			return true
		}
	}
	return false
}

// find looks for the digits: a code that can be used before one that was, and
// that before one that has expired.
func (m *memory) find(code string, now time.Time) (held, bool) {
	order := []state{stateLive, stateUsed, stateReported, stateExpired}
	var found []held
	for _, h := range m.Codes {
		if h.Code == code && h.State != stateWithdrawn && !h.over(now) {
			found = append(found, h)
		}
	}
	if found == nil {
		return held{}, false
	}
	return slices.MinFunc(found, func(a, b held) int {
		return cmp.Compare(slices.Index(order, a.State), slices.Index(order, b.State))
	}), true
}

// set changes what has become of a code.
func (m *memory) set(code held, s state) {
	for i := range m.Codes {
		if m.Codes[i].same(&code.Pickup) {
			m.Codes[i].State = s
		}
	}
}

// pause stops all guessing for a while.
func (m *memory) pause(now time.Time) {
	m.Wrong, m.PausedFrom, m.PausedUntil = 0, now.UTC(), now.UTC().Add(Pause)
}

func (m *memory) usable(now time.Time) []Pickup {
	var out []Pickup
	for _, h := range m.Codes {
		if h.State == stateLive && !h.past(now) {
			out = append(out, h.Pickup)
		}
	}
	slices.SortFunc(out, func(a, b Pickup) int { return cmp.Compare(a.ID, b.ID) })
	return out
}

// unreported returns the first use that the broker does not know of, but not
// one whose goods are still on their way out.
func (m *memory) unreported(vending *Pickup) (held, bool) {
	for _, h := range m.Codes {
		if h.State == stateUsed && (vending == nil || !h.same(vending)) {
			return h, true
		}
	}
	return held{}, false
}
