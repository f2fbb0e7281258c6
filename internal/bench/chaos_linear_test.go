package bench

import (
	"os"
	"strings"
	"testing"
	"time"
)

func TestLinearizable(t *testing.T) {
	redeem := func(user int64, o outcome, call, back time.Duration) attempt {
		return attempt{deed: deedRedeem, user: user, outcome: o, call: call, back: back}
	}
	set := func(d deed, o outcome, call, back time.Duration) attempt {
		return attempt{deed: d, outcome: o, call: call, back: back}
	}
	look := func(user int64) attempt {
		return attempt{deed: deedLook, outcome: outcomeDone, user: user, call: 100, back: 100}
	}
	for name, c := range map[string]struct {
		attempts []attempt
		legal    bool
	}{
		"one wins":            {[]attempt{redeem(1, outcomeDone, 1, 5), redeem(2, outcomeUsed, 2, 4), look(1)}, true},
		"refused too early":   {[]attempt{redeem(2, outcomeUsed, 1, 2), redeem(1, outcomeDone, 3, 4), look(1)}, false},
		"both win":            {[]attempt{redeem(1, outcomeDone, 1, 5), redeem(2, outcomeDone, 2, 4), look(1)}, false},
		"wins twice":          {[]attempt{redeem(1, outcomeDone, 1, 2), redeem(1, outcomeDone, 3, 4), look(1)}, false},
		"unknown and done":    {[]attempt{redeem(1, outcomeUnknown, 1, forever), redeem(1, outcomeUsedByYou, 3, 4), look(1)}, true},
		"unknown and not":     {[]attempt{redeem(1, outcomeUnknown, 1, forever), redeem(2, outcomeDone, 3, 4), look(2)}, true},
		"unknown for none":    {[]attempt{redeem(1, outcomeUnknown, 1, forever), look(0)}, true},
		"used by whom":        {[]attempt{redeem(1, outcomeUnknown, 1, forever), redeem(2, outcomeUsedByYou, 3, 4), look(1)}, false},
		"lost at the end":     {[]attempt{redeem(1, outcomeDone, 1, 2), look(0)}, false},
		"to somebody else":    {[]attempt{redeem(1, outcomeDone, 1, 2), look(2)}, false},
		"disabled":            {[]attempt{set(deedDisable, outcomeDone, 1, 2), redeem(1, outcomeDisabled, 3, 4), look(0)}, true},
		"though disabled":     {[]attempt{set(deedDisable, outcomeDone, 1, 2), redeem(1, outcomeDone, 3, 4), look(1)}, false},
		"enabled again":       {[]attempt{set(deedDisable, outcomeDone, 1, 2), set(deedEnable, outcomeDone, 3, 4), redeem(1, outcomeDone, 5, 6), look(1)}, true},
		"enabled after use":   {[]attempt{redeem(1, outcomeDone, 1, 2), set(deedEnable, outcomeDone, 3, 4), look(1)}, false},
		"unchanging":          {[]attempt{redeem(1, outcomeDone, 1, 2), set(deedEnable, outcomeUsed, 3, 4), look(1)}, true},
		"deleted":             {[]attempt{set(deedDelete, outcomeDone, 1, 2), redeem(1, outcomeNoSuchCode, 3, 4), look(0)}, true},
		"deleted after use":   {[]attempt{redeem(1, outcomeDone, 1, 2), set(deedDelete, outcomeDone, 3, 4), look(1)}, true},
		"though deleted":      {[]attempt{set(deedDelete, outcomeDone, 1, 2), redeem(1, outcomeDone, 3, 4), look(1)}, false},
		"deleted for no time": {[]attempt{redeem(1, outcomeNoSuchCode, 1, 2), redeem(2, outcomeDone, 3, 4), look(2)}, false},
		"maybe deleted": {
			[]attempt{set(deedDelete, outcomeUnknown, 1, forever), redeem(1, outcomeNoSuchCode, 3, 4), set(deedDelete, outcomeNoSuchCode, 5, 6), look(0)}, true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			wrong := linearizable([]*codeHistory{{id: 7, attempts: c.attempts}}, dir, time.Minute, clock)
			if (len(wrong) == 0) != c.legal {
				t.Fatalf("legal: %t, found %q", c.legal, wrong)
			}
			if c.legal {
				return
			}
			_, path, _ := strings.Cut(wrong[0], "see ")
			if picture, err := os.Stat(path); err != nil || picture.Size() == 0 {
				t.Errorf("no picture at %q: %v", path, err)
			}
		})
	}
	if wrong := linearizable([]*codeHistory{{id: 7}}, t.TempDir(), 0, clock); len(wrong) != 1 {
		t.Errorf("out of time it says %q", wrong)
	}
}
