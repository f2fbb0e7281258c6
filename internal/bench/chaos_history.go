package bench

import (
	"bytes"
	"fmt"
	"math"
	"sync"
	"time"
)

// deed is what is done to a redemption code.
type deed uint8

const (
	deedRedeem deed = iota
	deedEnable
	deedDisable
	deedDelete
	deedLook // at the end: who has redeemed it
)

// outcome is what was answered.
type outcome uint8

const (
	outcomeUnknown outcome = iota // nothing: it may have been done, or may yet be
	outcomeDone
	outcomeUsed      // by somebody else; of a change: by anybody
	outcomeUsedByYou // it was redeemed by who asks
	outcomeDisabled
	outcomeNoSuchCode
)

// forever is the end of what was not answered.
const forever = time.Duration(math.MaxInt64)

// attempt is one try to do something to a code.
type attempt struct {
	deed       deed
	outcome    outcome
	client     int
	user       int64 // who redeems; of deedLook: who has, 0 for nobody
	call, back time.Duration
	quota      int64 // that was credited
}

// codeHistory is all that was tried with one code.
type codeHistory struct {
	id, quota int64
	key       string
	attempts  []attempt
}

// answered is the answers to requests with the same Idempotency-Key.
type answered struct {
	first  []byte
	status int
	times  int
}

// history is what was done, and what came of it.
type history struct {
	clock func() time.Time
	start time.Time

	mu         sync.Mutex
	codes      []*codeHistory
	operations map[string]int64
	repeated   int64
	last       time.Duration  // when a redeem was acknowledged
	worst      time.Duration  // between two of them
	made       map[int64]bool // pickup codes whose making was acknowledged
	withdrawn  map[int64]bool // pickup codes whose withdrawal was acknowledged
}

func newHistory(clock func() time.Time) *history {
	return &history{
		clock: clock, start: clock(), operations: map[string]int64{}, made: map[int64]bool{}, withdrawn: map[int64]bool{},
	}
}

func (h *history) now() time.Duration { return h.clock().Sub(h.start) }

// The names under which operations are counted.
const (
	countRedeemed = "redeems acknowledged"
	countRefused  = "redeems refused"
	countGuessed  = "unknown keys tried"
	countBatches  = "batches issued"
	countChanged  = "codes disabled or enabled"
	countDeleted  = "codes deleted"
	countLooked   = "lists and searches"
	countMade     = "pickup codes made"
	countTaken    = "pickup codes withdrawn"
	countUsed     = "pickup codes used"
	countOffline  = "pickup codes used while disconnected"
	countWrong    = "wrong pickup codes tried"
	countRepeated = "requests repeated with their Idempotency-Key"
	countUnknown  = "requests with an unknown outcome"
	countNotSent  = "requests that reached no server"
)

func operationNames() []string {
	return []string{
		countRedeemed, countRefused, countGuessed, countBatches, countChanged, countDeleted, countLooked, countMade, countTaken,
		countUsed, countOffline, countWrong, countRepeated, countUnknown, countNotSent,
	}
}

func (h *history) count(name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.operations[name]++
}

func (h *history) counts() map[string]int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := make(map[string]int64, len(h.operations))
	for _, name := range operationNames() {
		out[name] = h.operations[name]
	}
	return out
}

// outage is the longest time between two acknowledged redeems.
func (h *history) outage() time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.worst
}

func (h *history) addCodes(codes []*codeHistory) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.codes = append(h.codes, codes...)
}

// add adds what was tried with a code.
func (h *history) add(c *codeHistory, a attempt) {
	h.mu.Lock()
	defer h.mu.Unlock()
	c.attempts = append(c.attempts, a)
	if a.deed != deedRedeem || a.outcome != outcomeDone {
		return
	}
	if h.last > 0 {
		h.worst = max(h.worst, a.back-h.last)
	}
	h.last = max(h.last, a.back)
}

// same notes an answer to a request with an Idempotency-Key, and reports whether
// it is that which was given before.
func (h *history) same(a *answered, r *reply) bool {
	if a.times++; a.times == 1 {
		a.first, a.status = bytes.Clone(r.body), r.status
		return true
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.repeated++
	return a.status == r.status && bytes.Equal(a.first, r.body)
}

// String describes the attempt.
func (a *attempt) String() string {
	deed := [...]string{"redeem", "enable", "disable", "delete", "look"}[a.deed]
	outcome := [...]string{"?", "done", "used", "used by you", "disabled", "no such code"}[a.outcome]
	if a.user == 0 && a.deed != deedLook {
		return deed + ": " + outcome
	}
	return fmt.Sprintf("%s by %d: %s", deed, a.user, outcome)
}
