package account

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/scrip-codes/scrip/internal/guess"
	"github.com/scrip-codes/scrip/internal/refusal"
)

// SessionFor is how long a login lasts.
const SessionFor = 30 * 24 * time.Hour

// Users may change what is their own so often in a time: access tokens, passwords,
// display names, all sessions.
const (
	changesMax    = 60
	changesWindow = 10 * time.Minute
)

// SessionsMax bounds the sessions of one user.
const SessionsMax = 50

// Bounds of names, in characters.
const (
	UsernameMax    = 64
	DisplayNameMax = 64
)

// Service is the use cases of accounts.
type Service struct {
	store  Store
	now    func() time.Time
	logins *guess.Limiter
	// changes counts what users change of their own as if it were guesses, on this
	// server.
	changes *guess.Limiter
	hasher  *hasher
	tokens  *places
	// lastGuesses is held while a guess is checked that may be the last.
	lastGuesses sync.RWMutex
}

// NewService returns the use cases over store. Logins that fail count against
// logins.
func NewService(store Store, logins *guess.Limiter, now func() time.Time) *Service {
	return &Service{
		store: store, now: now, logins: logins, hasher: newHasher(), tokens: newPlaces(),
		changes: guess.New(changesMax, changesWindow, now),
	}
}

// Credentials are what a request brings to say who sent it.
type Credentials struct {
	// Token is the access token; if empty, Session is looked at.
	Token   string
	Session string
	// UserID is whom the sender claims to be.
	UserID int64
}

// Authenticate finds the enabled user whom the credentials belong to. All else
// is refused with refusal.Unauthenticated, without saying what was wrong.
func (s *Service) Authenticate(ctx context.Context, c Credentials) (User, error) {
	var u User
	var err error
	switch {
	case c.Token != "":
		u, err = s.store.UserByToken(ctx, HashToken(c.Token))
	case c.Session != "":
		u, err = s.store.UserBySession(ctx, HashToken(c.Session), s.now())
	default:
		return User{}, refusal.New(refusal.Unauthenticated)
	}
	if refusal.CodeOf(err) == refusal.AccountNotFound ||
		err == nil && (u.Status != StatusEnabled || u.ID != c.UserID) {
		return User{}, refusal.New(refusal.Unauthenticated)
	}
	return u, err
}

// AuthenticateToken finds the enabled user whose access token that is, whoever
// the sender claims to be. All else is refused with refusal.Unauthenticated.
func (s *Service) AuthenticateToken(ctx context.Context, token string) (User, error) {
	u, err := s.store.UserByToken(ctx, HashToken(token))
	if refusal.CodeOf(err) == refusal.AccountNotFound || err == nil && u.Status != StatusEnabled {
		return User{}, refusal.New(refusal.Unauthenticated)
	}
	return u, err
}

// Login checks a username and password and begins a session. It refuses with
// refusal.AccountWrongPassword, AccountDisabled (only to who knows the
// password) and AccountTooManyGuesses. Failed logins count as guesses of the
// username and the address.
func (s *Service) Login(ctx context.Context, username, password, address string) (User, string, error) {
	username = strings.TrimSpace(username)
	subjects := []string{guess.Name(username), guess.Address(address)}
	if err := s.logins.Known(subjects...); err != nil {
		return User{}, "", err
	}
	if len(username) > 4*UsernameMax || !utf8.ValidString(username) {
		return User{}, "", refusal.New(refusal.AccountWrongPassword)
	}
	var n NewSession
	u, err := s.attempt(ctx, s.hasher.places, subjects, refusal.AccountWrongPassword, func() (u User, right bool, err error) {
		u, n.Password, err = s.store.UserByName(ctx, username)
		if err != nil && refusal.CodeOf(err) != refusal.AccountNotFound {
			return User{}, false, err
		}
		return u, matches(n.Password, password), nil
	})
	if err != nil {
		return User{}, "", err
	}
	return s.begin(ctx, u, n)
}

// NewSession is a session that begins.
type NewSession struct {
	UserID int64
	// Password is the hash of the password, or Token the access token, that was
	// found to be right: it must still be the user's.
	Password string
	Token    Hash
	Session  Hash
	Ends     time.Time
}

// begin begins a session of a user who has what n says.
func (s *Service) begin(ctx context.Context, u User, n NewSession) (User, string, error) {
	if u.Status != StatusEnabled {
		return User{}, "", refusal.New(refusal.AccountDisabled)
	}
	session := NewToken()
	n.UserID, n.Session, n.Ends = u.ID, HashToken(session), s.now().Add(SessionFor)
	if err := s.store.StartSession(ctx, n); err != nil {
		return User{}, "", err
	}
	return u, session, nil
}

// attempt calls try in one of the places, if the subjects have guesses left, to
// find a user by what they know. If it was not right that is refused as wrong, and
// counted as a failed guess of theirs.
func (s *Service) attempt(
	ctx context.Context, in *places, subjects []string, wrong refusal.Code, try func() (u User, right bool, err error),
) (User, error) {
	leave, err := in.enter(ctx)
	if err != nil {
		return User{}, err
	}
	defer leave()
	if err := s.logins.Admit(ctx, subjects...); err != nil {
		return User{}, err
	}
	// The last guesses, as many as the places of passwords and of tokens, are checked
	// one after the other, once those are done that were not the last: so none is made over the limit, and a right password, which
	// uses nothing up, only waits.
	s.lastGuesses.RLock()
	if s.logins.Left(subjects...) > 2*placesAtOnce {
		defer s.lastGuesses.RUnlock()
	} else {
		s.lastGuesses.RUnlock()
		s.lastGuesses.Lock()
		defer s.lastGuesses.Unlock()
		// Asked again now that it is this one's turn: all who waited with it were
		// admitted before any had failed.
		if err := s.logins.Admit(ctx, subjects...); err != nil {
			return User{}, err
		}
	}
	u, right, err := try()
	if err != nil {
		return User{}, err
	}
	if !right {
		// Nobody is refused for what is counted against an account here: that is the
		// name's part. It is for people to see whose password is guessed at, since a
		// name is not kept: it may be a password in the wrong field.
		if u.ID != 0 {
			subjects = append(slices.Clone(subjects), guess.Account(u.ID))
		}
		if err := s.logins.Failed(ctx, subjects...); err != nil {
			return User{}, err
		}
		return User{}, refusal.New(wrong)
	}
	return u, nil
}

// Get finds a user, for an admin.
func (s *Service) Get(ctx context.Context, by Actor, id int64) (User, error) {
	if err := by.MustBe(RoleAdmin); err != nil {
		return User{}, err
	}
	return s.store.UserByID(ctx, id)
}

// List lists users, newest first, and how many there are, for an admin.
func (s *Service) List(ctx context.Context, by Actor, offset, limit int64) ([]User, int64, error) {
	if err := by.MustBe(RoleAdmin); err != nil {
		return nil, 0, err
	}
	return s.store.Users(ctx, offset, limit)
}

// CreateRequest asks for a new user.
type CreateRequest struct {
	Username    string
	DisplayName string // empty: the username
	Password    string // empty: none
	Role        Role   // 0: RoleUser
	Quota       int64  // opening balance, 0 or more
	Token       string // empty: none
	Once        *Once
}

// Create makes a user, for an admin. Only root and the command line may make
// admins, and only the command line roots.
func (s *Service) Create(ctx context.Context, by Actor, r CreateRequest) (User, error) {
	if err := by.MustBe(RoleAdmin); err != nil {
		return User{}, err
	}
	u := NewUser{
		Username:    strings.TrimSpace(r.Username),
		DisplayName: strings.TrimSpace(r.DisplayName),
		Role:        r.Role,
		Quota:       r.Quota,
	}
	if u.DisplayName == "" {
		u.DisplayName = u.Username
	}
	if u.Role == 0 {
		u.Role = RoleUser
	}
	if err := checkNewUser(u, by); err != nil {
		return User{}, err
	}
	if r.Password != "" {
		hash, err := s.hasher.hash(ctx, r.Password)
		if err != nil {
			return User{}, err
		}
		u.PasswordHash = hash
	}
	if r.Token != "" {
		u.Token = HashToken(r.Token)
	}
	return s.store.CreateUser(ctx, u, by, s.now(), r.Once)
}

func checkNewUser(u NewUser, by Actor) error {
	switch {
	case !validName(u.Username, UsernameMax) || strings.ContainsFunc(u.Username, unicode.IsSpace):
		return refusal.New(refusal.AccountNameInvalid)
	case !validName(u.DisplayName, DisplayNameMax):
		return refusal.New(refusal.AccountDisplayName)
	case !u.Role.valid():
		return refusal.New(refusal.AccountRole)
	case u.Role >= by.Role && by.ID != 0:
		return refusal.New(refusal.AccountRoleTooHigh)
	case u.Quota < 0:
		return refusal.New(refusal.AccountQuota)
	}
	return nil
}

func validName(s string, most int) bool {
	n := utf8.RuneCountInString(s)
	return n >= 1 && n <= most && CleanText(s)
}

// CleanText reports whether s may be stored as a name: UTF-8 without control
// characters, and without the replacement character that decoders put where
// there was none.
func CleanText(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool {
		return unicode.IsControl(r) || r == utf8.RuneError
	})
}

// Bootstrap makes the root admin of an empty database with that token, and
// reports whether it did.
func (s *Service) Bootstrap(ctx context.Context, token string) (bool, error) {
	return s.store.CreateRoot(ctx, NewUser{
		Username: "root", DisplayName: "root", Role: RoleRoot, Token: HashToken(token),
	}, s.now())
}

// ByName finds a user by username, for the command line.
func (s *Service) ByName(ctx context.Context, by Actor, username string) (User, error) {
	if err := by.MustBe(RoleAdmin); err != nil {
		return User{}, err
	}
	u, _, err := s.store.UserByName(ctx, username)
	return u, err
}

// Ledger lists entries, newest first, for an admin.
func (s *Service) Ledger(ctx context.Context, by Actor, f LedgerFilter) ([]Entry, error) {
	if err := by.MustBe(RoleAdmin); err != nil {
		return nil, err
	}
	return s.store.Ledger(ctx, f)
}

// Recall finds the answer to an earlier request of the same scope, as a
// *Replay; nil if there is none.
func (s *Service) Recall(ctx context.Context, scope Hash) (*Replay, error) {
	return s.store.Recall(ctx, scope, s.now())
}

// Remember stores the answer to a request that had no effect. If another was
// stored first it fails with that *Replay.
func (s *Service) Remember(ctx context.Context, once *Once) error {
	return s.store.Remember(ctx, once)
}

// Forget drops answers, sessions and links that are past their time, in bounded
// steps, until none is left or ctx ends.
func (s *Service) Forget(ctx context.Context) error {
	for {
		more, err := s.store.Forget(ctx, s.now())
		if err != nil || !more {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}
