package broker

import "time"

// ReconnectAfter is how long External waits after so many failures.
func ReconnectAfter(failures int) time.Duration { return reconnectAfter(failures) }

// Uplink gives b a message as if the machine that is connected had sent it.
func (b *Embedded) Uplink(machine int64, payload []byte) error {
	b.mu.Lock()
	c := b.machines[machine]
	b.mu.Unlock()
	return b.uplink(c, payload)
}

// WebMax bounds the connections of a Web, and WebEach those from one address.
const (
	WebMax  = webMax
	WebEach = webEach
)
