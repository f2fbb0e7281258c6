package app

import (
	"context"
	"fmt"
)

type secretCommands struct {
	Rotate secretRotate `cmd:"" help:"Make new data keys, seal and index everything under them, and lock them with the newest secret."`
}

type secretRotate struct{}

// Help is shown with the command's flags.
func (*secretRotate) Help() string {
	return `It works while the server runs, in small steps. If it is interrupted, run it again: it goes on where it stopped.

To replace the secret itself: put the new one before the old in SCRIP_SECRET, separated by a comma, or into the secret file, on a line above it; restart the server, so that it knows both; run this; then take the old one away.`
}

// Run rotates the data keys.
func (*secretRotate) Run(ctx context.Context, p *program) error {
	return p.with(ctx, opening{write: true}, func(s *store) error {
		if s.secrets > 1 {
			_, _ = fmt.Fprintf(p.Stderr, "scrip: there are %d secrets, and the first is to lock the keys: "+
				"every server must already run with this same list\n", s.secrets)
		}
		bar := newProgress(p.Stderr)
		err := s.Rotate(ctx, func(done, total int64) {
			bar.say("%.0f%% sealed again", 100*float64(done)/float64(max(total, 1)))
		})
		if err != nil {
			if ctx.Err() != nil {
				return fmt.Errorf("interrupted: run scrip secret rotate again to go on where it stopped")
			}
			return fmt.Errorf("rotating the data keys: %w: run scrip secret rotate again to go on where it stopped", err)
		}
		_, err = fmt.Fprintln(p.Stdout, "The data keys are new, everything is sealed under them, and they are locked with the newest secret.")
		return err
	})
}
