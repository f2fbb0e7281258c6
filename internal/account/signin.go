package account

import (
	"context"
	"strings"
	"time"

	"github.com/scrip-codes/scrip/internal/guess"
	"github.com/scrip-codes/scrip/internal/refusal"
)

// LinkFor is how long a link that sets a password lasts.
const LinkFor = 24 * time.Hour

// Session finds the enabled user of a session, whoever the sender claims to be.
// All else is refused with refusal.Unauthenticated.
func (s *Service) Session(ctx context.Context, session string) (User, error) {
	u, err := s.store.UserBySession(ctx, HashToken(session), s.now())
	if refusal.CodeOf(err) == refusal.AccountNotFound || err == nil && u.Status != StatusEnabled {
		return User{}, refusal.New(refusal.Unauthenticated)
	}
	return u, err
}

// EndSession ends a session. That there is none is no error.
func (s *Service) EndSession(ctx context.Context, session string) error {
	return s.store.EndSession(ctx, HashToken(session))
}

// EndSessions ends all sessions of a user: one's own, or those of a user whom one
// may change. It refuses with refusal.Forbidden, AccountNotFound and, who does it
// without end, with TooBusy.
func (s *Service) EndSessions(ctx context.Context, by Actor, id int64) error {
	if err := s.admitChange(by, id); err != nil {
		return err
	}
	return s.store.EndSessions(ctx, id, by, s.now())
}

// LoginToken begins a session for who has an access token. It refuses with
// refusal.AccountWrongToken, AccountDisabled and AccountTooManyGuesses. Wrong
// tokens count as guesses of the address.
func (s *Service) LoginToken(ctx context.Context, token, address string) (User, string, error) {
	subject := guess.Address(address)
	if err := s.logins.Known(subject); err != nil {
		return User{}, "", err
	}
	hash := HashToken(strings.TrimSpace(token))
	u, err := s.attempt(ctx, s.tokens, []string{subject}, refusal.AccountWrongToken, func() (User, bool, error) {
		return found(s.store.UserByToken(ctx, hash))
	})
	if err != nil {
		return User{}, "", err
	}
	return s.begin(ctx, u, NewSession{Token: hash})
}

// found says of a user who was looked up whether there is one.
func found(u User, err error) (User, bool, error) {
	if refusal.CodeOf(err) == refusal.AccountNotFound {
		return User{}, false, nil
	}
	return u, err == nil, err
}

// NewLink makes a link that sets a user's password once, until ends, in place of
// the one before: an admin for users of a lower role, root and the command line
// for all. It refuses with refusal.Forbidden, AccountNotFound and AccountDisabled.
func (s *Service) NewLink(ctx context.Context, by Actor, id int64) (link string, ends time.Time, err error) {
	if err := by.MustBe(RoleAdmin); err != nil {
		return "", time.Time{}, err
	}
	link, at := NewToken(), s.now()
	ends = at.Add(LinkFor)
	if err := s.store.PutLink(ctx, id, HashToken(link), ends, by, at); err != nil {
		return "", time.Time{}, err
	}
	return link, ends, nil
}

// Link finds the user whose password a link sets. It refuses with
// refusal.AccountLink and AccountDisabled. A link that nobody has is no guess: it
// would have to hit 128 bits, and any web page can have its readers ask for one.
func (s *Service) Link(ctx context.Context, link string) (User, error) {
	u, err := s.store.UserByLink(ctx, HashToken(link), s.now())
	switch {
	case refusal.CodeOf(err) == refusal.AccountNotFound:
		return User{}, refusal.New(refusal.AccountLink)
	case err == nil && u.Status != StatusEnabled:
		return User{}, refusal.New(refusal.AccountDisabled)
	}
	return u, err
}

// SetPasswordByLink sets the password of the user whose link that is, uses the
// link up, ends all sessions of the user and begins one. It refuses as Link does,
// and with refusal.AccountPassword: then the link stays.
func (s *Service) SetPasswordByLink(ctx context.Context, link, password, address string) (User, string, error) {
	if err := checkPassword(password); err != nil {
		return User{}, "", err
	}
	if _, err := s.Link(ctx, link); err != nil {
		return User{}, "", err
	}
	return s.setPassword(ctx, password, NewPassword{Link: HashToken(link), By: Actor{Address: address}})
}

// SetPassword sets the actor's own password, ends all their sessions and returns
// a new one. Who has no password yet leaves old empty. It refuses with
// refusal.AccountPassword and AccountWrongPassword; that counts as a failed login,
// and too many are refused with AccountTooManyGuesses.
func (s *Service) SetPassword(ctx context.Context, by Actor, old, password string) (session string, err error) {
	if err := checkPassword(password); err != nil {
		return "", err
	}
	u, hash, err := s.store.UserAndPassword(ctx, by.ID)
	if err != nil {
		return "", err
	}
	subjects := []string{guess.Name(u.Username), guess.Address(by.Address)}
	if err := s.logins.Known(subjects...); err != nil {
		return "", err
	}
	if hash != "" || old != "" {
		if _, err := s.attempt(ctx, s.hasher.places, subjects, refusal.AccountWrongPassword, func() (User, bool, error) {
			return u, matches(hash, old), nil
		}); err != nil {
			return "", err
		}
	}
	if err := s.admitChange(by, by.ID); err != nil {
		return "", err
	}
	_, session, err = s.setPassword(ctx, password, NewPassword{Old: hash, By: by})
	return session, err
}

func (s *Service) setPassword(ctx context.Context, password string, p NewPassword) (User, string, error) {
	var err error
	if p.Hash, err = s.hasher.hash(ctx, password); err != nil {
		return User{}, "", err
	}
	session := NewToken()
	p.At = s.now()
	p.Session, p.Ends = HashToken(session), p.At.Add(SessionFor)
	u, err := s.store.SetUserPassword(ctx, p)
	if err != nil {
		return User{}, "", err
	}
	return u, session, nil
}

// HasPassword reports whether the actor has a password.
func (s *Service) HasPassword(ctx context.Context, by Actor) (bool, error) {
	_, hash, err := s.store.UserAndPassword(ctx, by.ID)
	return hash != "", err
}

// NewPassword is what sets a user's password.
type NewPassword struct {
	// Link is whose user it is; zero: it is By, whose password has the hash Old.
	Link Hash
	Old  string
	Hash string
	// Session is the one that begins, until Ends.
	Session Hash
	Ends    time.Time
	By      Actor // with Link, of use for its Address only
	At      time.Time
}
