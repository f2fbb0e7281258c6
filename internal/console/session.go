package console

import (
	"net/http"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/refusal"
)

// signInForm is what the page for signing in shows.
type signInForm struct {
	Next, Username string
	ByToken        bool
	Problem        string
}

func (s *server) signInPage(v *visit) error {
	next := local(v.r.FormValue("next"), "/")
	if v.user.ID != 0 {
		return v.redirect(next)
	}
	return v.page(http.StatusOK, "signin", "", signInForm{Next: next, ByToken: v.r.FormValue("by") == "token"})
}

// signIn begins a session, by username and password or by an access token.
func (s *server) signIn(v *visit) error {
	f := signInForm{Next: local(v.r.PostFormValue("next"), "/"), Username: v.r.PostFormValue("username")}
	var session string
	var err error
	if token := v.r.PostFormValue("token"); token != "" || v.r.PostFormValue("by") == "token" {
		f.ByToken = true
		_, session, err = s.Accounts.LoginToken(v.ctx(), token, v.address)
	} else {
		_, session, err = s.Accounts.Login(v.ctx(), f.Username, v.r.PostFormValue("password"), v.address)
	}
	if err != nil {
		status := http.StatusUnprocessableEntity
		if v.s.refusals.status[refusal.CodeOf(err)].HTTP == http.StatusTooManyRequests {
			status = http.StatusTooManyRequests
		}
		if f.Problem, err = v.refused(err); err != nil {
			return err
		}
		return v.page(status, "signin", "", f)
	}
	v.setCookie(sessionCookie, session, account.SessionFor)
	return v.redirect(f.Next)
}

// signOut ends this session, or with everywhere all of the user.
func (s *server) signOut(v *visit) error {
	var err error
	if v.r.PostFormValue("everywhere") != "" {
		err = s.Accounts.EndSessions(v.ctx(), v.actor(), v.user.ID)
	} else {
		err = s.Accounts.EndSession(v.ctx(), v.session)
	}
	if err != nil {
		return err
	}
	v.setCookie(sessionCookie, "", 0)
	return v.redirect("/signin")
}

// welcomeForm is what the page of a one-time link shows.
type welcomeForm struct {
	Link, Username string
	Problem        string
}

func (s *server) welcomePage(v *visit) error {
	link := v.r.PathValue("link")
	u, err := s.Accounts.Link(v.ctx(), link)
	if err != nil {
		return err
	}
	return v.page(http.StatusOK, "welcome", "", welcomeForm{Link: link, Username: u.Username})
}

// welcome sets the password of whose link it is, and signs in.
func (s *server) welcome(v *visit) error {
	f := welcomeForm{Link: v.r.PathValue("link"), Username: v.r.PostFormValue("username")}
	password := v.r.PostFormValue("password")
	if password != v.r.PostFormValue("again") {
		f.Problem = v.t("welcome.differ")
		return v.page(http.StatusUnprocessableEntity, "welcome", "", f)
	}
	_, session, err := s.Accounts.SetPasswordByLink(v.ctx(), f.Link, password, v.address)
	if err != nil {
		if refusal.CodeOf(err) != refusal.AccountPassword {
			return err
		}
		if f.Problem, err = v.refused(err); err != nil {
			return err
		}
		return v.page(http.StatusUnprocessableEntity, "welcome", "", f)
	}
	v.setCookie(sessionCookie, session, account.SessionFor)
	return v.redirect("/")
}
