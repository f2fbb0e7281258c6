package app

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/scrip-codes/scrip/internal/account"
)

type userCommands struct {
	Create  userCreate  `cmd:"" help:"Create an account and print its access token."`
	List    userList    `cmd:"" help:"List the accounts."`
	Token   userToken   `cmd:"" help:"Give an account a new access token. The old one is dead at once."`
	Link    userLink    `cmd:"" help:"Print a link that sets an account's password, once, within 24 hours. The one before is dead at once."`
	Disable userDisable `cmd:"" help:"Disable an account."`
	Enable  userEnable  `cmd:"" help:"Enable an account again."`
}

// newTokenJSON is what a command prints that made a token.
type newTokenJSON struct {
	ID          int64  `json:"id"`
	Username    string `json:"username"`
	AccessToken string `json:"access_token"`
}

type userCreate struct {
	Name          string `arg:"" help:"Username."`
	Role          string `enum:"user,admin" default:"user" help:"What it may do: ${enum}."`
	Quota         int64  `default:"0" placeholder:"N" help:"Opening balance."`
	PasswordStdin bool   `help:"Read a password for logins from the first line of standard input."`
	JSON          bool   `help:"Print JSON."`
}

// Run creates an account.
func (c *userCreate) Run(ctx context.Context, p *program) error {
	r := account.CreateRequest{Username: c.Name, Role: account.RoleUser, Quota: c.Quota, Token: account.NewToken()}
	if c.Role == roleName(account.RoleAdmin) {
		r.Role = account.RoleAdmin
	}
	if c.PasswordStdin {
		var err error
		if r.Password, err = readPassword(p.Stdin); err != nil {
			return err
		}
	}
	return p.with(ctx, opening{create: true, write: true}, func(s *store) error {
		u, err := s.accounts.Create(ctx, account.Operator(), r)
		if err != nil {
			return err
		}
		if c.JSON {
			return printJSON(p.Stdout, newTokenJSON{u.ID, u.Username, r.Token})
		}
		_, err = fmt.Fprintf(p.Stdout, "Created user %d, %s (%s). Its access token, shown only this once: %s\n",
			u.ID, u.Username, roleName(u.Role), r.Token)
		return err
	})
}

func readPassword(r io.Reader) (string, error) {
	line, err := bufio.NewReader(io.LimitReader(r, 4*account.PasswordMax)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("reading the password: %w", err)
	}
	if line = strings.TrimRight(line, "\r\n"); line == "" {
		return "", errors.New("there is no password on standard input: write it there, on one line")
	}
	return line, nil
}

type userList struct {
	JSON bool `help:"Print a line of JSON for each."`
}

type userJSON struct {
	ID          int64  `json:"id"`
	Username    string `json:"username"`
	DisplayName string `json:"display_name"`
	Role        int    `json:"role"`
	Status      int    `json:"status"`
	Quota       int64  `json:"quota"`
	CreatedTime int64  `json:"created_time"`
}

// Run lists the accounts, newest first.
func (c *userList) Run(ctx context.Context, p *program) error {
	return p.with(ctx, opening{}, func(s *store) error {
		t := newTable(p.Stdout)
		if !c.JSON {
			t.line("ID", "USERNAME", "ROLE", "STATUS", "QUOTA", "CREATED")
		}
		const page = 500
		for offset := int64(0); ; offset += page {
			users, _, err := s.accounts.List(ctx, account.Operator(), offset, page)
			if err != nil {
				return err
			}
			for _, u := range users {
				if !c.JSON {
					t.line(u.ID, u.Username, roleName(u.Role), statusName(u.Status), u.Quota, stamp(u.Created))
				} else if err := printJSON(p.Stdout, userJSON{
					u.ID, u.Username, u.DisplayName, int(u.Role), int(u.Status), u.Quota, u.Created.Unix(),
				}); err != nil {
					return err
				}
			}
			if len(users) < page {
				return t.flush()
			}
		}
	})
}

type userToken struct {
	Name string `arg:"" help:"Username."`
	JSON bool   `help:"Print JSON."`
}

// Run replaces an access token.
func (c *userToken) Run(ctx context.Context, p *program) error {
	return p.with(ctx, opening{write: true}, func(s *store) error {
		u, err := s.accounts.ByName(ctx, account.Operator(), c.Name)
		if err != nil {
			return err
		}
		token, err := s.accounts.RenewToken(ctx, account.Operator(), u.ID)
		if err != nil {
			return err
		}
		if c.JSON {
			return printJSON(p.Stdout, newTokenJSON{u.ID, u.Username, token})
		}
		_, err = fmt.Fprintf(p.Stdout, "New access token of user %d, %s, shown only this once: %s\n", u.ID, u.Username, token)
		return err
	})
}

type userLink struct {
	Name string `arg:"" help:"Username."`
	JSON bool   `help:"Print JSON."`
}

// newLinkJSON is what a command prints that made a link.
type newLinkJSON struct {
	ID       int64  `json:"id"`
	Username string `json:"username"`
	Link     string `json:"link"`
	EndTime  int64  `json:"end_time"`
}

// Run makes a link that sets a password.
func (c *userLink) Run(ctx context.Context, p *program) error {
	cfg, err := p.configure()
	if err != nil {
		return err
	}
	return p.with(ctx, opening{write: true}, func(s *store) error {
		u, err := s.accounts.ByName(ctx, account.Operator(), c.Name)
		if err != nil {
			return err
		}
		link, ends, err := s.accounts.NewLink(ctx, account.Operator(), u.ID)
		if err != nil {
			return err
		}
		at := welcomeURL(cfg.HTTPAddr, cfg.Certificate != nil, link)
		if c.JSON {
			return printJSON(p.Stdout, newLinkJSON{u.ID, u.Username, at, ends.Unix()})
		}
		_, err = fmt.Fprintf(p.Stdout, "Link that sets the password of user %d, %s, once, until %s UTC: %s\n", u.ID, u.Username, stamp(ends), at)
		return err
	})
}

type userDisable struct {
	Name string `arg:"" help:"Username."`
}

// Run disables an account.
func (c *userDisable) Run(ctx context.Context, p *program) error {
	return p.setStatus(ctx, c.Name, account.StatusDisabled)
}

type userEnable struct {
	Name string `arg:"" help:"Username."`
}

// Run enables an account.
func (c *userEnable) Run(ctx context.Context, p *program) error {
	return p.setStatus(ctx, c.Name, account.StatusEnabled)
}

func (p *program) setStatus(ctx context.Context, name string, status account.Status) error {
	return p.with(ctx, opening{write: true}, func(s *store) error {
		u, err := s.accounts.ByName(ctx, account.Operator(), name)
		if err != nil {
			return err
		}
		if err := s.accounts.SetStatus(ctx, account.Operator(), u.ID, status); err != nil {
			return err
		}
		_, err = fmt.Fprintf(p.Stdout, "User %d, %s, is %s.\n", u.ID, u.Username, statusName(status))
		return err
	})
}
