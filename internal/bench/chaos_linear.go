package bench

import (
	"fmt"
	"path/filepath"
	"time"

	"github.com/anishathalye/porcupine"
)

// codeState is what a code is, and who has redeemed it.
type codeState struct {
	status codeStatus
	user   int64 // 0: nobody
}

type codeStatus uint8

const (
	codeEnabled codeStatus = iota
	codeDisabled
	codeUsed
	codeDeleted
)

// step is a code's rules: whether it may answer so, and what it is then. What
// was not answered is done if it can be; that it was not done is the same as if
// it had been done after all else, which is why its end is forever.
func (s codeState) step(a *attempt) (bool, codeState) {
	next := s
	open := s.status == codeEnabled || s.status == codeDisabled
	can := open
	switch a.deed {
	case deedRedeem:
		next, can = codeState{codeUsed, a.user}, s.status == codeEnabled
	case deedEnable:
		next.status = codeEnabled
	case deedDisable:
		next.status = codeDisabled
	case deedDelete:
		next.status, can = codeDeleted, s.status != codeDeleted
	case deedLook:
		return s.user == a.user, s
	}
	switch a.outcome {
	case outcomeUnknown:
		if !can {
			next = s
		}
		return true, next
	case outcomeDone:
		return can, next
	case outcomeUsed:
		return s.status == codeUsed && (a.deed != deedRedeem || s.user != a.user), s
	case outcomeUsedByYou:
		return s.status == codeUsed && s.user == a.user, s
	case outcomeDisabled:
		return s.status == codeDisabled, s
	case outcomeNoSuchCode:
		return s.status == codeDeleted, s
	}
	return false, s
}

func codeModel() porcupine.Model {
	return porcupine.Model{
		Init: func() any { return codeState{} },
		Step: func(state, input, _ any) (bool, any) {
			ok, next := state.(codeState).step(input.(*attempt))
			return ok, next
		},
		DescribeOperation: func(input, _ any) string { return input.(*attempt).String() },
		DescribeState:     func(state any) string { return state.(codeState).String() },
	}
}

// String describes the state.
func (s codeState) String() string {
	return fmt.Sprintf("%s, redeemed by %d", [...]string{"enabled", "disabled", "used", "deleted"}[s.status], s.user)
}

// linearizable looks for an order of what was done to each code, in which each
// took effect at one moment between its request and its answer, and that the
// rules allow. It returns what is wrong, with a picture of each in dir.
func linearizable(codes []*codeHistory, dir string, within time.Duration, now func() time.Time) (wrong []string) {
	late := now().Add(within)
	model := codeModel()
	for _, c := range codes {
		operations := make([]porcupine.Operation, len(c.attempts))
		for i := range c.attempts {
			a := &c.attempts[i]
			operations[i] = porcupine.Operation{ClientId: a.client, Input: a, Call: int64(a.call), Output: a, Return: int64(a.back)}
		}
		left := late.Sub(now())
		if left <= 0 {
			return append(wrong, fmt.Sprintf("the histories of all codes could not be checked within %s", within))
		}
		switch result, info := porcupine.CheckOperationsVerbose(model, operations, left); result {
		case porcupine.Ok:
		case porcupine.Unknown:
			wrong = append(wrong, fmt.Sprintf("the history of code %d could not be checked within %s", c.id, within))
		case porcupine.Illegal:
			path := filepath.Join(dir, fmt.Sprintf("code-%d.html", c.id))
			if err := porcupine.VisualizePath(model, info, path); err != nil {
				path = err.Error()
			}
			wrong = append(wrong, fmt.Sprintf("no order explains what was answered about code %d: see %s", c.id, path))
		}
	}
	return wrong
}
