package console

import (
	"context"
	"html/template"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/refusal"
	"github.com/scrip-codes/scrip/internal/sheet"
)

// storyLength is how many entries the story on a page about one thing has.
const storyLength = 30

// usersPage is the list of users.
type usersPage struct {
	Query        string
	Role, Status int
	Filtered     bool
	Users        []account.User
	First, Older string // addresses; empty: there is none
}

func (s *server) usersPage(v *visit) error {
	q := account.UserQuery{Prefix: v.r.FormValue("q"), Before: v.cursor(), Limit: pageSize + 1}
	p := usersPage{Query: q.Prefix}
	set := url.Values{}
	if strings.TrimSpace(q.Prefix) != "" {
		set.Set("q", q.Prefix)
	}
	// A role or status that does not exist chooses nothing.
	switch role := v.r.FormValue("role"); role {
	case "1", "10", "100":
		p.Role, _ = strconv.Atoi(role) // it is one
		q.Role = account.Role(p.Role)
		set.Set("role", role)
	}
	switch status := v.r.FormValue("status"); status {
	case "1", "2":
		p.Status, _ = strconv.Atoi(status) // it is one
		q.Status = account.Status(p.Status)
		set.Set("status", status)
	}
	p.Filtered = len(set) > 0
	var err error
	if p.Users, err = s.Accounts.Search(v.ctx(), v.actor(), q); err != nil {
		return err
	}
	if q.Before != 0 {
		p.First = at("/users", set)
	}
	if len(p.Users) > pageSize {
		p.Users = p.Users[:pageSize]
		set.Set("before", plain(p.Users[pageSize-1].ID))
		p.Older = at("/users", set)
		set.Del("before")
	}
	if v.isHTMX() {
		return v.partAt(at("/users", set), "users", "list", p)
	}
	return v.page(http.StatusOK, "users", "users", p)
}

// at is an address with a query.
func at(path string, query url.Values) string {
	if len(query) == 0 {
		return path
	}
	return path + "?" + query.Encode()
}

// newUserPage is the form for a new user.
type newUserPage struct {
	Username, DisplayName, Quota string
	Role                         account.Role
	Problem                      string
}

func (s *server) newUserPage(v *visit) error {
	return v.page(http.StatusOK, "newuser", "users", newUserPage{Role: account.RoleUser})
}

// newUser makes a user and a link for them to set their password by.
func (s *server) newUser(v *visit) error {
	f := newUserPage{
		Username:    v.r.PostFormValue("username"),
		DisplayName: v.r.PostFormValue("display_name"), Quota: v.r.PostFormValue("quota"), Role: account.RoleUser,
	}
	if v.r.PostFormValue("role") == "10" {
		f.Role = account.RoleAdmin
	}
	quota, ok := int64(0), true
	if strings.TrimSpace(f.Quota) != "" {
		quota, ok = amount(f.Quota)
	}
	err := error(refusal.New(refusal.AccountQuota))
	var u account.User
	if ok {
		u, err = s.Accounts.Create(v.ctx(), v.actor(), account.CreateRequest{
			Username: f.Username, DisplayName: f.DisplayName, Role: f.Role, Quota: quota,
		})
	}
	if err != nil {
		if f.Problem, err = v.refused(err); err != nil {
			return err
		}
		return v.page(http.StatusUnprocessableEntity, "newuser", "users", f)
	}
	return s.showLink(v, u.ID)
}

// userPage is one user's page.
type userPage struct {
	account.User
	// May says that the visitor may decide about the user; Other, that the user is
	// somebody else.
	May, Other bool
	Roles      []account.Role // that the visitor may give
	Once       string
	Less       bool
	Amount     string
	Reason     string
	Problem    string
	// Token is a new access token, and Link a new link with its end and picture:
	// shown once.
	Token, Link string
	Ends        time.Time
	Picture     template.HTML
	Story       []entryView
	More        bool // the story goes on in the ledger
}

func (s *server) userPage(v *visit) error {
	return s.showUser(v, http.StatusOK, v.pathID(), userPage{})
}

func (s *server) showUser(v *visit, status int, id int64, p userPage) error {
	var err error
	by := v.actor()
	if p.User, err = s.Accounts.Get(v.ctx(), by, id); err != nil {
		return err
	}
	p.May, p.Other, p.Once = by.MustBeOver(p.User) == nil, id != v.user.ID, newOnce()
	if p.May && p.Other && by.Role >= account.RoleRoot && p.Role < account.RoleRoot {
		p.Roles = []account.Role{account.RoleUser, account.RoleAdmin}
	}
	list, err := s.Accounts.Ledger(v.ctx(), by, account.LedgerFilter{UserID: id, Limit: storyLength + 1})
	if err != nil {
		return err
	}
	if p.More = len(list) > storyLength; p.More {
		list = list[:storyLength]
	}
	if p.Story, err = s.entries(v.ctx(), v, list); err != nil {
		return err
	}
	return v.page(status, "user", "users", p)
}

// changeUser does something to a user and comes back to the user's page.
func (s *server) changeUser(v *visit, said string, do func(ctx context.Context, by account.Actor, id int64) error) error {
	id := v.pathID()
	if err := do(v.ctx(), v.actor(), id); err != nil {
		var p userPage
		if refusal.CodeOf(err) == refusal.AccountNotFound {
			return err
		}
		if p.Problem, err = v.refused(err); err != nil {
			return err
		}
		return s.showUser(v, http.StatusUnprocessableEntity, id, p)
	}
	v.say(said)
	return v.redirect("/users/" + plain(id))
}

func (s *server) setUserQuota(v *visit) error {
	id := v.pathID()
	p := userPage{
		Less: v.r.PostFormValue("way") == "less", Amount: v.r.PostFormValue("amount"), Reason: v.r.PostFormValue("reason"),
	}
	n, ok := amount(p.Amount)
	err := error(refusal.New(refusal.AccountQuotaChange))
	if ok && n > 0 {
		if p.Less {
			n = -n
		}
		err = v.once(func(ctx context.Context, once *account.Once) error {
			_, err := s.Accounts.AddQuota(ctx, v.actor(), id, n, p.Reason, once)
			return err
		})
	}
	if err != nil {
		if refusal.CodeOf(err) == refusal.AccountNotFound {
			return err
		}
		if p.Problem, err = v.refused(err); err != nil {
			return err
		}
		return s.showUser(v, http.StatusUnprocessableEntity, id, p)
	}
	text := mustNumber(max(n, -n))
	if p.Less {
		v.say(v.t("users.taken", text))
	} else {
		v.say(v.t("users.credited", text))
	}
	return v.redirect("/users/" + plain(id))
}

func (s *server) setUserRole(v *visit) error {
	role, err := strconv.Atoi(v.r.PostFormValue("role"))
	if err != nil {
		role = 0 // there is none such
	}
	return s.changeUser(v, v.t("users.role_set"), func(ctx context.Context, by account.Actor, id int64) error {
		return s.Accounts.SetRole(ctx, by, id, account.Role(role))
	})
}

func (s *server) setUserStatus(v *visit) error {
	status, said := account.StatusEnabled, "users.enabled"
	if v.r.PostFormValue("status") == "2" {
		status, said = account.StatusDisabled, "users.disabled"
	}
	return s.changeUser(v, v.t(said), func(ctx context.Context, by account.Actor, id int64) error {
		return s.Accounts.SetStatus(ctx, by, id, status)
	})
}

func (s *server) setUserName(v *visit) error {
	return s.changeUser(v, v.t("users.name_set"), func(ctx context.Context, by account.Actor, id int64) error {
		return s.Accounts.SetDisplayName(ctx, by, id, v.r.PostFormValue("display_name"))
	})
}

func (s *server) signOutUser(v *visit) error {
	return s.changeUser(v, v.t("users.signed_out"), s.Accounts.EndSessions)
}

func (s *server) renewUserToken(v *visit) error {
	id := v.pathID()
	token, err := s.Accounts.RenewToken(v.ctx(), v.actor(), id)
	if err != nil {
		return err
	}
	return s.showUser(v, http.StatusOK, id, userPage{Token: token})
}

func (s *server) newUserLink(v *visit) error { return s.showLink(v, v.pathID()) }

// showLink makes a link that sets a user's password, and shows it.
func (s *server) showLink(v *visit, id int64) error {
	link, ends, err := s.Accounts.NewLink(v.ctx(), v.actor(), id)
	if err != nil {
		return err
	}
	p := userPage{Link: v.origin() + "/welcome/" + link, Ends: ends}
	if p.Picture, err = sheet.QR(p.Link, v.t("users.link_picture")); err != nil {
		return err
	}
	return s.showUser(v, http.StatusOK, id, p)
}
