package api

import (
	"net/http"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/refusal"
)

// userObject is an account as the API shows it to its owner and to admins.
type userObject struct {
	ID          int64          `json:"id"`
	Username    string         `json:"username"`
	DisplayName string         `json:"display_name"`
	Role        account.Role   `json:"role"`
	Status      account.Status `json:"status"`
	Quota       int64          `json:"quota"`
	CreatedTime int64          `json:"created_time"`
}

func newUserObject(u *account.User) userObject {
	return userObject{
		ID: u.ID, Username: u.Username, DisplayName: u.DisplayName, Role: u.Role, Status: u.Status,
		Quota: u.Quota, CreatedTime: unix(u.Created),
	}
}

func (s *server) topUp(c *call) (any, error) {
	var in struct {
		Key string `json:"key"`
	}
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	credited, err := s.Redemptions.Redeem(c.r.Context(), c.actor(), in.Key, c.once(nil))
	if err != nil {
		return nil, err
	}
	return credited, nil
}

func (s *server) getSelf(c *call) (any, error) { return newUserObject(&c.user), nil }

func (s *server) renewToken(c *call) (any, error) {
	token, err := s.Accounts.RenewToken(c.r.Context(), c.actor(), c.user.ID)
	if err != nil {
		return nil, err
	}
	return token, nil
}

func (s *server) login(c *call) (any, error) {
	var in struct {
		Username string `json:"username"`
		Password string `json:"password"`
	}
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	u, session, err := s.Accounts.Login(c.r.Context(), in.Username, in.Password, c.address)
	if err != nil {
		return nil, err
	}
	c.user = u
	http.SetCookie(c.ResponseWriter, &http.Cookie{ //nolint:gosec // G124: Secure is set where there is TLS
		Name: sessionCookie, Value: session, Path: "/", MaxAge: int(account.SessionFor.Seconds()),
		HttpOnly: true, SameSite: http.SameSiteStrictMode, Secure: s.SecureCookies || c.r.TLS != nil,
	})
	return newUserObject(&u), nil
}

func (s *server) listUsers(c *call) (any, error) {
	p := pageOf(c.r.URL.Query())
	found, total, err := s.Accounts.List(c.r.Context(), c.actor(), p.offset(), p.size)
	if err != nil {
		return nil, err
	}
	return newPage(found, total, p, newUserObject), nil
}

func (s *server) getUser(c *call) (any, error) {
	id, err := c.pathID()
	if err != nil {
		return nil, err
	}
	u, err := s.Accounts.Get(c.r.Context(), c.actor(), id)
	if err != nil {
		return nil, err
	}
	return newUserObject(&u), nil
}

func (s *server) createUser(c *call) (any, error) {
	var in struct {
		Username    string `json:"username"`
		Password    string `json:"password"`
		DisplayName string `json:"display_name"`
		Role        int64  `json:"role"`
		Quota       int64  `json:"quota"`
	}
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	if in.Password == "" { // the new user could never get in
		return nil, refusal.New(refusal.AccountPassword)
	}
	if in.Role < 0 || in.Role > int64(account.RoleRoot) {
		return nil, refusal.New(refusal.AccountRole)
	}
	_, err := s.Accounts.Create(c.r.Context(), c.actor(), account.CreateRequest{
		Username: in.Username, DisplayName: in.DisplayName, Password: in.Password,
		Role: account.Role(in.Role), Quota: in.Quota, Once: c.once(func(any) any { return nil }),
	})
	return nil, err
}
