package account

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"strings"
	"time"

	"github.com/scrip-codes/scrip/internal/guess"
	"github.com/scrip-codes/scrip/internal/refusal"
)

// ReasonMax bounds the reason of a change of quota, in characters.
const ReasonMax = 200

// PageMax bounds the users or entries that one call of Search or History finds.
const PageMax = 100

// admitChange refuses who may change nobody else, with refusal.Forbidden, and who
// changes what is their own without end, with refusal.TooBusy: each is an entry
// of the ledger, with a commit of its own.
func (s *Service) admitChange(by Actor, id int64) error {
	if by.ID != id {
		return by.MustBe(RoleAdmin)
	}
	if e, ok := errors.AsType[*refusal.Error](s.changes.Known(guess.Account(by.ID))); ok {
		return refusal.Later(refusal.TooBusy, e.RetryAfter)
	}
	s.changes.Note(guess.Account(by.ID))
	return nil
}

// RenewToken replaces a user's access token and returns the new one: one's own,
// or that of a user whom one may change. It refuses with refusal.Forbidden,
// AccountNotFound and, who renews without end, with TooBusy.
func (s *Service) RenewToken(ctx context.Context, by Actor, id int64) (string, error) {
	if err := s.admitChange(by, id); err != nil {
		return "", err
	}
	token := NewToken()
	if err := s.store.SetToken(ctx, id, HashToken(token), by, s.now()); err != nil {
		return "", err
	}
	return token, nil
}

// SetStatus enables or disables a user: an admin those of a lower role, root all
// others, the command line all. It refuses with refusal.Forbidden,
// AccountNotFound, AccountOneself and AccountLastRoot.
func (s *Service) SetStatus(ctx context.Context, by Actor, id int64, status Status) error {
	if err := by.MustBe(RoleAdmin); err != nil {
		return err
	}
	_, err := s.store.ChangeUser(ctx, UserEdit{ID: id, Status: &status, By: by, At: s.now()})
	return err
}

// SetRole changes what a user may do, for root; to root only for the command
// line. With a higher role the sessions, the link, the access token and the
// password end: who was over the user until then may know them. It refuses with
// refusal.Forbidden, AccountNotFound, AccountRole, AccountRoleTooHigh and
// AccountLastRoot.
func (s *Service) SetRole(ctx context.Context, by Actor, id int64, role Role) error {
	if err := by.MustBe(RoleRoot); err != nil {
		return err
	}
	_, err := s.store.ChangeUser(ctx, UserEdit{ID: id, Role: &role, By: by, At: s.now()})
	return err
}

// SetDisplayName changes a display name: one's own, or that of a user whom one
// may change. It refuses with refusal.Forbidden, AccountNotFound,
// AccountDisplayName and, who changes it without end, with TooBusy.
func (s *Service) SetDisplayName(ctx context.Context, by Actor, id int64, name string) error {
	name = strings.TrimSpace(name)
	if !validName(name, DisplayNameMax) {
		return refusal.New(refusal.AccountDisplayName)
	}
	if err := s.admitChange(by, id); err != nil {
		return err
	}
	_, err := s.store.ChangeUser(ctx, UserEdit{ID: id, DisplayName: &name, By: by, At: s.now()})
	return err
}

// UserEdit is a change to a user: of those fields that are not nil.
type UserEdit struct {
	ID          int64
	DisplayName *string
	Role        *Role
	Status      *Status
	By          Actor
	At          time.Time
}

// Apply decides what the user is after the edit and which entries go into the
// ledger: none for what is so already. A store calls it inside the transaction
// that writes the result, with the user as it stands there. It refuses as
// Actor.MustBeOver does, Actor.MayChange for a display name; with AccountOneself
// who would change their own status, and with AccountRole and AccountRoleTooHigh.
func (e *UserEdit) Apply(old User) (User, []Entry, error) {
	may := e.By.MayChange(old)
	if e.Role != nil || e.Status != nil {
		may = e.By.MustBeOver(old)
	}
	if may != nil {
		return old, nil, may
	}
	u := old
	var entries []Entry
	if e.DisplayName != nil && *e.DisplayName != old.DisplayName {
		u.DisplayName = *e.DisplayName
		entries = append(entries, Entry{
			Kind: KindUserChange, AccountID: u.ID, Detail: detail("display_name", [2]string{old.DisplayName, u.DisplayName}),
		})
	}
	if e.Role != nil && *e.Role != old.Role {
		if !e.Role.valid() {
			return old, nil, refusal.New(refusal.AccountRole)
		}
		if *e.Role >= e.By.Role && e.By.ID != 0 {
			return old, nil, refusal.New(refusal.AccountRoleTooHigh)
		}
		u.Role = *e.Role
		entries = append(entries, Entry{Kind: KindUserRole, AccountID: u.ID, Detail: detail("role", [2]Role{old.Role, u.Role})})
	}
	if e.Status != nil && *e.Status != old.Status {
		if e.By.ID == old.ID {
			return old, nil, refusal.New(refusal.AccountOneself)
		}
		kind := KindUserEnable
		if u.Status = *e.Status; u.Status == StatusDisabled {
			kind = KindUserDisable
		}
		entries = append(entries, Entry{Kind: kind, AccountID: u.ID})
	}
	return u, entries, nil
}

func (r Role) valid() bool { return r == RoleUser || r == RoleAdmin || r == RoleRoot }

// detail is the Detail of an entry with one member.
func detail(name string, value any) string {
	b, _ := json.Marshal(map[string]any{name: value}) // never fails: of texts and numbers
	return string(b)
}

// Grant is a change of a user's balance.
type Grant struct {
	ID     int64
	Amount int64  // negative: taken away
	Detail string // of the ledger entry
	By     Actor
	At     time.Time
	Once   *Once // its Answer is given the User
}

// Balance is what the user has with the grant. A store calls it inside the
// transaction that writes it, with the user as it stands there. It refuses with
// refusal.AccountBalanceTooLow and AccountBalanceTooHigh, and what is taken away as
// Actor.MustBeOver does.
func (g *Grant) Balance(u User) (int64, error) {
	had := u.Quota
	if g.Amount < 0 {
		if err := g.By.MustBeOver(u); err != nil {
			return had, err
		}
	}
	switch {
	case g.Amount > math.MaxInt64-had:
		return had, refusal.New(refusal.AccountBalanceTooHigh)
	case had+g.Amount < 0:
		return had, refusal.New(refusal.AccountBalanceTooLow)
	}
	return had + g.Amount, nil
}

// AddQuota adds amount to a user's balance, for an admin; a negative one, only for
// who may decide about the user. The reason is kept in the ledger. It refuses with refusal.Forbidden,
// AccountNotFound, AccountQuotaChange for 0, AccountReason,
// AccountBalanceTooLow and AccountBalanceTooHigh.
func (s *Service) AddQuota(ctx context.Context, by Actor, id, amount int64, reason string, once *Once) (User, error) {
	if err := by.MustBe(RoleAdmin); err != nil {
		return User{}, err
	}
	if amount == 0 {
		return User{}, refusal.New(refusal.AccountQuotaChange)
	}
	reason = strings.TrimSpace(reason)
	if !validName(reason, ReasonMax) {
		return User{}, refusal.New(refusal.AccountReason)
	}
	return s.store.AddQuota(ctx, Grant{
		ID: id, Amount: amount, Detail: detail("reason", reason), By: by, At: s.now(), Once: once,
	})
}

// UserQuery chooses users; its zero fields choose all.
type UserQuery struct {
	// Prefix is how the username begins, or the id. With it users come in the order
	// of their usernames, byte by byte; without it newest first.
	Prefix string
	Role   Role
	Status Status
	Before int64 // what is listed behind the user with this id: for the next page
	Limit  int   // at most so many, and at most PageMax
}

// Search finds users, for an admin. It refuses with refusal.Forbidden, and with
// AccountRole or InvalidRequest what is no role or status.
func (s *Service) Search(ctx context.Context, by Actor, q UserQuery) ([]User, error) {
	if err := by.MustBe(RoleAdmin); err != nil {
		return nil, err
	}
	if q.Role != 0 && !q.Role.valid() {
		return nil, refusal.New(refusal.AccountRole)
	}
	if q.Status != 0 && q.Status != StatusEnabled && q.Status != StatusDisabled {
		return nil, refusal.New(refusal.InvalidRequest)
	}
	q.Limit = min(max(q.Limit, 1), PageMax)
	if q.Prefix = strings.TrimSpace(q.Prefix); q.Prefix != "" && !validName(q.Prefix, UsernameMax) {
		return nil, nil // nobody is called so
	}
	return s.store.SearchUsers(ctx, q)
}

// History lists what was credited to the actor, and taken from them, newest first: the
// page before the entry with the ID before, 0 for the first. Next is where the
// next begins, 0 at the end: a page may be short, or empty, and have one behind it.
func (s *Service) History(ctx context.Context, by Actor, before int64, limit int) (entries []Entry, next int64, err error) {
	return s.store.History(ctx, by.ID, before, min(max(limit, 1), PageMax))
}

// Guessing lists the accounts and addresses that have failed to sign in most often,
// for an admin.
func (s *Service) Guessing(ctx context.Context, by Actor) ([]guess.Suspect, error) {
	if err := by.MustBe(RoleAdmin); err != nil {
		return nil, err
	}
	return s.logins.Limited(ctx)
}

// Forgiving is what forgives the failed guesses of a guess.Suspect.
type Forgiving struct {
	Where   string // what was guessed at: signin, redeem or machine
	Suspect guess.Suspect
	By      Actor
	At      time.Time
}

// NewForgiving reads the Subject of a guess.Suspect. It refuses with
// refusal.Forbidden who is no admin, and with InvalidRequest any other text: a
// username's subject would let its user be guessed at.
func NewForgiving(by Actor, where, subject string, at time.Time) (Forgiving, error) {
	if err := by.MustBe(RoleAdmin); err != nil {
		return Forgiving{}, err
	}
	suspect, ok := guess.ParseSuspect(subject)
	if !ok {
		return Forgiving{}, refusal.New(refusal.InvalidRequest)
	}
	return Forgiving{Where: where, Suspect: suspect, By: by, At: at}, nil
}

// Entry is what the ledger says of it.
func (f *Forgiving) Entry() Entry {
	b, _ := json.Marshal(struct { // never fails: of texts
		Where     string `json:"where"`
		MachineNo string `json:"machine_no,omitempty"`
		Address   string `json:"address,omitempty"`
	}{f.Where, f.Suspect.MachineNo, f.Suspect.Address})
	return Entry{Kind: KindGuessForgive, AccountID: f.Suspect.AccountID, Detail: string(b)}
}

// Forgive forgets the failed guesses of a guess.Suspect's Subject, for an admin; an
// account's, for who may decide about it: else any admin could go on guessing at
// root's password. It refuses with refusal.Forbidden, AccountNotFound and
// InvalidRequest.
func (s *Service) Forgive(ctx context.Context, by Actor, subject string) error {
	f, err := NewForgiving(by, "signin", subject, s.now())
	if err != nil {
		return err
	}
	// On record first: what is done without being on record is worse than the other
	// way round.
	u, err := s.store.Forgive(ctx, f)
	if err != nil {
		return err
	}
	subjects := []string{subject}
	if u.ID != 0 {
		subjects = append(subjects, guess.Name(u.Username)) // that is what keeps them out
	}
	return s.logins.Forgive(ctx, subjects...)
}

// RefreshGuesses has this server learn whose guesses another has forgiven. It is to
// be called every few seconds.
func (s *Service) RefreshGuesses(ctx context.Context) error { return s.logins.Refresh(ctx) }
