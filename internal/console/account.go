package console

import (
	"net/http"

	"github.com/scrip-codes/scrip/internal/account"
)

// accountPage is what one's own page shows.
type accountPage struct {
	HasPassword bool
	DisplayName string
	// Token is the new access token, shown once.
	Token                string
	Problem, NameProblem string
}

func (s *server) accountPage(v *visit) error {
	return s.showAccount(v, http.StatusOK, accountPage{DisplayName: v.user.DisplayName})
}

func (s *server) showAccount(v *visit, status int, p accountPage) error {
	var err error
	if p.HasPassword, err = s.Accounts.HasPassword(v.ctx(), v.actor()); err != nil {
		return err
	}
	return v.page(status, "account", "account", p)
}

func (s *server) setOwnName(v *visit) error {
	p := accountPage{DisplayName: v.r.PostFormValue("display_name")}
	err := s.Accounts.SetDisplayName(v.ctx(), v.actor(), v.user.ID, p.DisplayName)
	if err != nil {
		if p.NameProblem, err = v.refused(err); err != nil {
			return err
		}
		return s.showAccount(v, http.StatusUnprocessableEntity, p)
	}
	v.say(v.t("account.name_set"))
	return v.redirect("/account")
}

// setOwnPassword ends all sessions of the visitor but for the one that begins.
func (s *server) setOwnPassword(v *visit) error {
	p := accountPage{DisplayName: v.user.DisplayName}
	password := v.r.PostFormValue("password")
	if password != v.r.PostFormValue("again") {
		p.Problem = v.t("welcome.differ")
		return s.showAccount(v, http.StatusUnprocessableEntity, p)
	}
	session, err := s.Accounts.SetPassword(v.ctx(), v.actor(), v.r.PostFormValue("old"), password)
	if err != nil {
		if p.Problem, err = v.refused(err); err != nil {
			return err
		}
		return s.showAccount(v, http.StatusUnprocessableEntity, p)
	}
	v.setCookie(sessionCookie, session, account.SessionFor)
	v.say(v.t("account.password_set"))
	return v.redirect("/account")
}

func (s *server) renewOwnToken(v *visit) error {
	token, err := s.Accounts.RenewToken(v.ctx(), v.actor(), v.user.ID)
	if err != nil {
		return err
	}
	return s.showAccount(v, http.StatusOK, accountPage{DisplayName: v.user.DisplayName, Token: token})
}
