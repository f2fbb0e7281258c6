// Package account holds who may do what and how much they own: users, roles,
// tokens, sessions, balances, and the ledger that proves them. Imports:
// refusal, keyring, guess, x/crypto and the standard library.
package account

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"time"

	"github.com/scrip-codes/scrip/internal/refusal"
)

// Role is what a user may do. The numbers are part of the redemption API.
type Role int

// The roles, each including those before it.
const (
	RoleUser  Role = 1
	RoleAdmin Role = 10
	RoleRoot  Role = 100
)

// Status says whether a user may do anything at all. The numbers are part of
// the redemption API.
type Status int

// The statuses of a user.
const (
	StatusEnabled  Status = 1
	StatusDisabled Status = 2
)

// User is one account.
type User struct {
	ID          int64
	Username    string
	DisplayName string
	Role        Role
	Status      Status
	// Quota is the balance: the sum of the account's ledger entries.
	Quota   int64
	Created time.Time
}

// Actor is who asks, and from where.
type Actor struct {
	// ID is 0 for whoever runs the command line beside the database, and -1 for a
	// machine.
	ID   int64
	Role Role
	// Address is the client's IP address, or "local" for the command line.
	Address string
}

// Operator is the actor of the command line: whoever can read the secret and
// the database file may do everything.
func Operator() Actor { return Actor{Role: RoleRoot, Address: "local"} }

// machineActor is the ID of machines that report something.
const machineActor = -1

// OfMachine is the actor of what a machine reports from that address: which one
// it is, the entry's MachineID says.
func OfMachine(address string) Actor { return Actor{ID: machineActor, Address: address} }

// MustBe refuses, with refusal.Forbidden, an actor below that role.
func (a Actor) MustBe(role Role) error {
	if a.Role < role {
		return refusal.New(refusal.Forbidden)
	}
	return nil
}

// MustBeOver refuses, with refusal.Forbidden, an actor who may not decide about
// u: root and the command line may about everybody, an admin about those of a
// lower role. Of the store it is asked inside the transaction.
func (a Actor) MustBeOver(u User) error {
	if a.Role >= RoleRoot || a.Role >= RoleAdmin && u.Role < a.Role {
		return nil
	}
	return refusal.New(refusal.Forbidden)
}

// MayChange is MustBeOver for what users may do for themselves.
func (a Actor) MayChange(u User) error {
	if a.ID == u.ID {
		return nil
	}
	return a.MustBeOver(u)
}

// Hash is what the database holds in place of a token: its SHA-256. A token
// has 128 random bits or more, so that nothing slower is needed.
type Hash [sha256.Size]byte

// HashToken is the Hash of a token.
func HashToken(token string) Hash { return sha256.Sum256([]byte(token)) }

// NewToken makes an access or session token: 128 random bits, in 32
// characters of 0-9a-f, the length that existing clients expect.
func NewToken() string {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

// Once makes a request take effect once, however often it is sent: its row is
// written in the effect's own transaction. A store that finds the row there
// already does nothing and fails with a *Replay.
type Once struct {
	// Caller is the account that sent the request.
	Caller int64
	// Scope is a hash of the caller, method, path and idempotency key.
	Scope Hash
	// Request is a fingerprint of the body, which may hold a password.
	Request Hash
	At      time.Time
	// Epoch is of the ring that seals the answer.
	Epoch int64
	// Answer makes the sealed answer from the use case's result. It is called
	// inside the transaction, before its commit.
	Answer func(result any) []byte
}

// OnceFor is how long a Once is remembered.
const OnceFor = 24 * time.Hour

// OnceMax is how many refusals are remembered for one caller: one costs its
// sender nothing, so there would be no end to them.
const OnceMax = 1000

// AnswerContext binds the sealed answer of a Once to its scope.
func AnswerContext(scope Hash) []byte { return append([]byte("idempotent answer "), scope[:]...) }

// Replay is the error of a request that has taken effect before.
type Replay struct {
	// Request is the fingerprint of the body that took effect.
	Request Hash
	// Answer is the sealed first answer.
	Answer []byte
}

// Error says that the request has been answered before.
func (*Replay) Error() string { return "this idempotency key has been answered before" }

// NewUser is what makes a user.
type NewUser struct {
	Username     string
	DisplayName  string
	Role         Role
	Quota        int64
	PasswordHash string // empty: no password
	Token        Hash   // zero: no token
}

// Store is what the use cases need of a database. Each method is one
// transaction. All are safe for concurrent use, and every success is durable.
//
// Unless a method says otherwise, its refusals are of refusal.AccountNotFound.
type Store interface {
	// UserByToken finds an enabled or disabled user by access token.
	UserByToken(ctx context.Context, token Hash) (User, error)
	// UserBySession finds the user of a session that has not ended at now.
	UserBySession(ctx context.Context, session Hash, now time.Time) (User, error)
	// UserByID finds a user.
	UserByID(ctx context.Context, id int64) (User, error)
	// UserByName finds a user and the hash of its password, empty if none.
	UserByName(ctx context.Context, username string) (User, string, error)
	// UserAndPassword is UserByName by id.
	UserAndPassword(ctx context.Context, id int64) (User, string, error)
	// UserByLink finds the user of a link that has not ended at now, enabled or
	// disabled.
	UserByLink(ctx context.Context, link Hash, now time.Time) (User, error)
	// Users lists users, newest first, and how many there are in all.
	Users(ctx context.Context, offset, limit int64) ([]User, int64, error)
	// SearchUsers finds a page of users, as UserQuery says. An unknown q.Before
	// finds none.
	SearchUsers(ctx context.Context, q UserQuery) ([]User, error)
	// Usernames finds the usernames of accounts.
	Usernames(ctx context.Context, ids []int64) (map[int64]string, error)
	// CreateUser makes a user and its opening ledger entries. It refuses with
	// refusal.AccountNameTaken.
	CreateUser(ctx context.Context, u NewUser, by Actor, at time.Time, once *Once) (User, error)
	// CreateRoot makes the first user of an empty database, with id 1, and
	// reports whether it did: on any other it does nothing.
	CreateRoot(ctx context.Context, u NewUser, at time.Time) (bool, error)
	// SetToken replaces a user's access token; the old one is dead at once. It
	// refuses as Actor.MayChange does.
	SetToken(ctx context.Context, id int64, token Hash, by Actor, at time.Time) error
	// ChangeUser applies e to the user as it stands in the transaction that writes
	// the result, and ends the sessions and the link of one that it disables. Of one
	// that it gives a higher role it ends the access token and the password too. It refuses as
	// UserEdit.Apply does, and with refusal.AccountLastRoot if no enabled root would
	// be left.
	ChangeUser(ctx context.Context, e UserEdit) (User, error)
	// AddQuota adds to a user's balance. It refuses as Grant.Balance does.
	AddQuota(ctx context.Context, g Grant) (User, error)
	// StartSession begins a session of a user. Of more than SessionsMax the oldest
	// end. It refuses with refusal.AccountWrongPassword, or AccountWrongToken, what
	// is no longer the user's, and with AccountDisabled.
	StartSession(ctx context.Context, n NewSession) error
	// EndSession ends a session, if there is one.
	EndSession(ctx context.Context, session Hash) error
	// EndSessions ends all sessions of a user. It refuses as Actor.MayChange does.
	EndSessions(ctx context.Context, id int64, by Actor, at time.Time) error
	// PutLink gives a user a link, in place of the one that it has. It refuses as
	// Actor.MustBeOver does, and a disabled user with refusal.AccountDisabled.
	PutLink(ctx context.Context, id int64, link Hash, ends time.Time, by Actor, at time.Time) error
	// Forgive writes into the ledger that f.By forgives failed guesses, and finds the
	// user if they are an account's. It refuses as Actor.MustBeOver does.
	Forgive(ctx context.Context, f Forgiving) (User, error)
	// SetUserPassword sets a user's password, ends its sessions and its link, and begins
	// a session. It refuses with refusal.AccountDisabled; with AccountLink if p.Link
	// has ended or is no link, or with AccountWrongPassword if there is none and the
	// hash of the old password is not p.Old: of two at the same time one is refused.
	SetUserPassword(ctx context.Context, p NewPassword) (User, error)

	// Recall finds the answer to an earlier request with the same scope that
	// is not older than OnceFor at now, as a *Replay; nil if there is none.
	Recall(ctx context.Context, scope Hash, now time.Time) (*Replay, error)
	// Remember stores a refusal, for once.Answer(nil), unless its caller has
	// OnceMax already; it fails with a *Replay if another was
	// stored first.
	Remember(ctx context.Context, once *Once) error
	// Forget drops a bounded number of answers older than OnceFor, and of
	// sessions and links that have ended, and reports whether there may be more.
	Forget(ctx context.Context, now time.Time) (bool, error)

	// Ledger lists entries, newest first: of all, or about a code, by ID; else by At
	// and ID.
	Ledger(ctx context.Context, f LedgerFilter) ([]Entry, error)
	// History finds what was credited to an account, and taken from it, newest
	// first: at most limit of its entries before the one with the ID before (0: the
	// newest). It looks at a bounded number of entries, and reports where the next
	// page begins, 0 at the end: a page may be short and have one behind it.
	History(ctx context.Context, id, before int64, limit int) (entries []Entry, next int64, err error)
	// Heads are the ledger's lanes.
	Heads(ctx context.Context) ([]Head, error)
	// Audit shows the whole ledger to a, as Auditor says.
	Audit(ctx context.Context, a Auditor) error
	// Verification reads what PutVerification wrote last; turn is 0 if it never did.
	Verification(ctx context.Context) (turn int64, value []byte, err error)
	// PutVerification writes what is known of a verification in place of what that turn
	// says, and moves it to the next. It reports whether that turn was still there, or
	// just this has been written in its place already.
	PutVerification(ctx context.Context, turn int64, value []byte) (ours bool, err error)
}

// Auditor is shown every entry, those of a lane in order, then each lane's head
// and every balance. The last entries of each lane, the heads and the balances
// are of one consistent view of the database.
type Auditor interface {
	// Entry is shown the next entry of its lane.
	Entry(Entry) error
	// Head is shown the end of a lane.
	Head(Head) error
	// Balance is shown what an account owns.
	Balance(account, quota int64) error
}
