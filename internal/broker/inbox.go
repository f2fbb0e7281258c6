package broker

import (
	"context"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/scrip-codes/scrip/internal/wire"
)

const (
	// keptFor is how long a broker is asked to keep what comes for the inbox while
	// it is not connected, in seconds: a week.
	keptFor = 7 * 24 * 60 * 60
	// inboxLasting is how long a connection lasts that has not failed. No pause is
	// as long, so that two who take one session from each other, over and over, do
	// not do that any faster than twice a minute.
	inboxLasting = 2 * reconnectLast
)

// inbox is the one session at the broker that lasts. The sessions in which
// machines are heard are clean, and what nobody is there to hear is lost in them:
// a report of a use must not be. It hears everything once more, and the broker
// keeps what comes while it is not connected.
type inbox struct {
	hearing   hearing
	connected atomic.Bool

	// keepInbox's alone.
	failed int  // connections in a row
	said   bool // that there is none
}

// inboxOf is its client id, as short as 3.1.1 allows. Nobody else can guess it.
func inboxOf(login *url.Userinfo) string {
	return "scrip" + hex.EncodeToString(secretOf(login, "inbox")[:9])
}

// keepInbox keeps the inbox connected until ctx ends, whenever no other server
// does.
func (e *External) keepInbox(ctx context.Context) {
	d := dialer{url: e.config.URL}
	i := &e.inbox
	i.failed = 0
	for ctx.Err() == nil {
		var begun time.Time
		err := e.config.Alone(ctx, func(ctx context.Context) error {
			begun = e.config.Now()
			return e.openInbox(ctx, &d)
		})
		if err == nil || e.config.Now().Sub(begun) >= inboxLasting {
			i.failed, i.said = 0, false
		}
		i.failed++
		select {
		case <-time.After(reconnectAfter(i.failed)):
		case <-ctx.Done():
			return
		}
		if err != nil && !i.said {
			i.said = true
			e.config.Log.LogAttrs(ctx, slog.LevelWarn, "no lasting session at the MQTT broker, and trying again: "+
				"what machines report while no server is connected gets lost; this is said once",
				slog.String("broker", e.address), slog.Any("error", err))
		}
	}
}

// openInbox is the life of one connection. It returns why that ended, and nothing
// if it is because ctx has.
func (e *External) openInbox(ctx context.Context, d *dialer) error {
	s, err := d.open(ctx, client{id: inboxOf(e.config.URL.User), lasting: true}, e.kept)
	if err != nil {
		return err
	}
	defer s.close()
	if err := e.ask(ctx, s, serverTopic); err != nil {
		return fmt.Errorf("subscribing to %s: %w", serverTopic, err)
	}
	e.config.Log.LogAttrs(ctx, slog.LevelInfo, "this server keeps the inbox at the MQTT broker", slog.String("broker", e.address))
	e.inbox.connected.Store(true)
	defer e.inbox.connected.Store(false)
	select {
	case <-s.done():
		return errEnded
	case <-ctx.Done():
		return nil
	}
}

// kept has a message in the inbox acted upon, if it is the report of a use. All
// others say something of the moment in which they were sent, which may be long
// ago, and are no use then; for the same reason a report is no sign of life here.
// What is not acknowledged when the connection ends comes again over the next.
func (e *External) kept(s session, in incoming) {
	if m, reason := decode(in.payload); reason != "" || m.Method() != wire.MethodPut {
		in.acknowledge()
		return
	}
	e.hear(&e.inbox.hearing, s, in, s.done(), func(int64, bool) {})
}
