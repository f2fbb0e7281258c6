package account

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"strconv"
	"strings"
	"time"
)

// Kind is what a ledger entry records.
type Kind string

// The kinds of ledger entry.
const (
	KindIssue       Kind = "issue"        // codes FirstID to LastID were made, each worth Amount
	KindChange      Kind = "change"       // code FirstID: name, quota or expiry; Detail says from and to
	KindDisable     Kind = "disable"      // code FirstID
	KindEnable      Kind = "enable"       // code FirstID
	KindDelete      Kind = "delete"       // code FirstID
	KindPurge       Kind = "purge"        // Count invalid codes between FirstID and LastID; Detail names them
	KindRedeem      Kind = "redeem"       // code FirstID, Amount credited to AccountID
	KindQuota       Kind = "quota"        // Amount, which may be negative, added to AccountID's balance; Detail may say why
	KindUserCreate  Kind = "user_create"  // account AccountID
	KindUserToken   Kind = "user_token"   // account AccountID got a new access token
	KindUserEnable  Kind = "user_enable"  // account AccountID
	KindUserDisable Kind = "user_disable" // account AccountID

	KindUserChange   Kind = "user_change"   // account AccountID: display name; Detail says from and to
	KindUserRole     Kind = "user_role"     // account AccountID; Detail says from and to
	KindUserPassword Kind = "user_password" // account AccountID has a new password; Detail says if by a link
	KindUserSignOut  Kind = "user_signout"  // account AccountID: all its sessions ended
	KindUserLink     Kind = "user_link"     // account AccountID got a link that sets its password
	KindGuessForgive Kind = "guess_forgive" // failed guesses of AccountID, or of whom Detail names, were forgiven
	KindReveal       Kind = "reveal"        // the keys of Count codes between FirstID and LastID were shown; Detail names them if not all
	KindRotate       Kind = "rotate"        // the data keys were changed; Detail says which step
	KindCheckpoint   Kind = "checkpoint"    // Detail is where every lane ended right before it

	KindMerchantCreate  Kind = "merchant_create"  // Detail says which
	KindMerchantChange  Kind = "merchant_change"  // Detail says which, from and to
	KindMachineCreate   Kind = "machine_create"   // machine MachineID
	KindMachineChange   Kind = "machine_change"   // machine MachineID; Detail says from and to
	KindMachinePassword Kind = "machine_password" // machine MachineID got a new MQTT password
	KindMachineDelete   Kind = "machine_delete"   // machine MachineID
	KindProductCreate   Kind = "product_create"   // Detail says which, of machine MachineID
	KindProductChange   Kind = "product_change"   // Detail says which, from and to
	KindProductDelete   Kind = "product_delete"   // Detail says which
	KindPickupCreate    Kind = "pickup_create"    // pickup code FirstID of machine MachineID; Detail says what it is worth
	KindPickupWithdraw  Kind = "pickup_withdraw"  // pickup code FirstID
	KindPickupUse       Kind = "pickup_use"       // pickup code FirstID, reported by machine MachineID
	KindPickupLateUse   Kind = "pickup_late_use"  // the same, after it was withdrawn or had expired
	// KindPickupAcknowledge says that somebody has looked at the late use of pickup
	// code FirstID.
	KindPickupAcknowledge Kind = "pickup_acknowledge"
)

// Credits reports whether an entry of this kind adds its Amount to the balance
// of its AccountID.
func (k Kind) Credits() bool { return k == KindRedeem || k == KindQuota }

// Entry is one line of the ledger: who did what, when, from where, how much.
type Entry struct {
	ID int64 // its place among the entries of all lanes: a cursor

	Lane    int64 // chains run in lanes; SQLite writes to 1 alone
	Seq     int64 // 1, 2, 3, … within the lane
	At      time.Time
	Kind    Kind
	ActorID int64  // who; 0 is the command line, -1 the machine MachineID
	Address string // from where
	// AccountID is the account that it is about, 0 if none.
	AccountID int64
	// MachineID is the machine that it is about, 0 if none.
	MachineID int64
	// FirstID and LastID are the codes that it is about, 0 if none: pickup codes
	// if there is a MachineID, else redemption codes.
	FirstID, LastID int64
	Count           int64 // how many codes
	Amount          int64 // quota
	// Detail is JSON with what the other fields cannot say, or empty.
	Detail string
	// MAC is over the entry and the MAC before it.
	MAC []byte
}

// Head is the end of a lane, kept in a row of its own so that a cut tail
// shows.
type Head struct {
	Lane  int64
	Count int64
	MAC   []byte // of the entry with Seq == Count; empty if there is none
	// Seal is a MAC over the others, so that the row cannot be made up.
	Seal []byte
}

// Chain computes the ledger's MACs. It is not safe for concurrent use.
type Chain struct {
	mac hash.Hash
	buf []byte
}

// NewChain returns a Chain under the ledger's key.
func NewChain(key []byte) *Chain { return &Chain{mac: hmac.New(sha256.New, key)} }

// Append gives e the next place after h, with its MAC, and moves h to it. The
// head's Seal is left to SealHead, once the last entry of a transaction is in.
func (c *Chain) Append(h *Head, e *Entry) {
	e.Lane, e.Seq = h.Lane, h.Count+1
	e.MAC = c.entryMAC(h.MAC, e)
	h.Count, h.MAC = e.Seq, e.MAC
}

// SealHead puts the Seal on h.
func (c *Chain) SealHead(h *Head) { h.Seal = c.headMAC(h) }

// Genuine reports whether h has the Seal that SealHead puts on it.
func (c *Chain) Genuine(h Head) bool { return hmac.Equal(c.headMAC(&h), h.Seal) }

// entryMAC is the MAC of an entry after prev. Its input is a tag, the previous
// MAC, the numbers as 8 bytes each, big-endian, and the texts each after its
// length, so that no two entries have the same. An entry about a machine has a
// tag of its own and the machine's number first: those before it stay as they
// were when no entry was about one.
func (c *Chain) entryMAC(prev []byte, e *Entry) []byte {
	b := c.buf[:0]
	if e.MachineID == 0 {
		b = append(b, "scrip ledger entry 1\x00"...)
	} else {
		b = number(append(b, "scrip ledger entry 2\x00"...), e.MachineID)
	}
	b = text(b, string(prev))
	for _, n := range [...]int64{
		e.Lane, e.Seq, e.At.UnixMilli(), e.ActorID, e.AccountID, e.FirstID, e.LastID, e.Count, e.Amount,
	} {
		b = number(b, n)
	}
	b = text(b, string(e.Kind))
	b = text(b, e.Address)
	b = text(b, e.Detail)
	c.buf = b
	return c.sum(b)
}

func (c *Chain) headMAC(h *Head) []byte {
	b := append(c.buf[:0], "scrip ledger head 1\x00"...)
	b = number(b, h.Lane)
	b = number(b, h.Count)
	b = text(b, string(h.MAC))
	c.buf = b
	return c.sum(b)
}

func (c *Chain) verificationMAC(value []byte) []byte {
	c.buf = text(append(c.buf[:0], "scrip ledger verification 1\x00"...), string(value))
	return c.sum(c.buf)
}

func (c *Chain) sum(b []byte) []byte {
	c.mac.Reset()
	c.mac.Write(b)
	return c.mac.Sum(nil)
}

func number(b []byte, n int64) []byte {
	return binary.BigEndian.AppendUint64(b, uint64(n)) //nolint:gosec // G115: the same 64 bits
}

func text(b []byte, s string) []byte {
	return append(number(b, int64(len(s))), s...)
}

// LedgerFilter chooses entries; its zero fields choose all.
type LedgerFilter struct {
	CodeID    int64     // about this redemption code
	PickupID  int64     // about this pickup code
	MachineID int64     // about this machine, its products and its pickup codes
	UserID    int64     // by or about this account; -1 is the command line
	From      time.Time // not before
	To        time.Time // before
	Before    int64     // what is listed behind the entry with this ID: for the next page
	Limit     int       // at most so many
}

// Checkpoint is a lane's end at some time, to keep where the database's
// keepers cannot change it.
type Checkpoint struct {
	Lane, Count int64
	MAC         []byte
}

// String writes checkpoints as "lane:count:mac", separated by commas.
func (p Checkpoint) String() string {
	return fmt.Sprintf("%d:%d:%s", p.Lane, p.Count, hex.EncodeToString(p.MAC))
}

// Checkpoints writes the heads as one line of text that ParseCheckpoints reads.
func Checkpoints(heads []Head) string {
	out := make([]string, len(heads))
	for i, h := range heads {
		out[i] = Checkpoint{h.Lane, h.Count, h.MAC}.String()
	}
	return strings.Join(out, ",")
}

// CheckpointDetail is the Detail of an entry of KindCheckpoint.
func CheckpointDetail(heads []Head) string { return `{"heads":"` + Checkpoints(heads) + `"}` }

// checkpointed reads what CheckpointDetail wrote.
func checkpointed(detail string) ([]Checkpoint, error) {
	heads, ok := strings.CutPrefix(detail, `{"heads":"`)
	heads, ok2 := strings.CutSuffix(heads, `"}`)
	if !ok || !ok2 {
		return nil, errCheckpoint
	}
	return ParseCheckpoints(heads)
}

// ParseCheckpoints reads what Checkpoints wrote.
func ParseCheckpoints(s string) ([]Checkpoint, error) {
	var out []Checkpoint
	for part := range strings.SplitSeq(strings.TrimSpace(s), ",") {
		f := strings.Split(part, ":")
		if len(f) != 3 {
			return nil, errCheckpoint
		}
		lane, err1 := strconv.ParseInt(f[0], 10, 64)
		count, err2 := strconv.ParseInt(f[1], 10, 64)
		mac, err3 := hex.DecodeString(f[2])
		wantMAC := sha256.Size
		if count == 0 {
			wantMAC = 0
		}
		if errors.Join(err1, err2, err3) != nil || lane < 1 || count < 0 || len(mac) != wantMAC {
			return nil, errCheckpoint
		}
		out = append(out, Checkpoint{lane, count, mac})
	}
	return out, nil
}

var errCheckpoint = errors.New(`not a checkpoint: give one line as "scrip ledger head" printed it, like 1:42:9f86…`)
