package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/url"
	"time"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/config"
	"github.com/scrip-codes/scrip/internal/guess"
	"github.com/scrip-codes/scrip/internal/keyring"
	"github.com/scrip-codes/scrip/internal/refusal"
)

// store is an open database with the use cases of accounts over it, which all
// commands need.
type store struct {
	engine
	accounts *account.Service
	secrets  int // how many are listed
	// newRoot is set if root was made, with a token that was printed.
	newRoot bool
}

// opening says how a command opens the database.
type opening struct {
	// create makes the database if there is none; without it that is an error.
	create bool
	// write makes the root account if there is none.
	write bool
	// token is where a root token that was made up is printed.
	token io.Writer
	// limited limits the guesses at passwords.
	limited  bool
	onCommit func(redeems int, took time.Duration)
}

// open opens the database for serving.
func open(ctx context.Context, c *config.Config, o opening) (*store, error) {
	exists, err := c.DatabaseExists()
	if err != nil {
		return nil, err
	}
	if !exists {
		if !o.create {
			return nil, fmt.Errorf("there is no database %s: start scrip serve to make one, or set SCRIP_DATA_DIR", c.Database)
		}
		if err := c.MakeDirs(); err != nil {
			return nil, err
		}
	}
	secrets, err := c.OpenSecrets()
	if err != nil {
		return nil, err
	}
	db, err := openEngine(ctx, c, secrets, o.onCommit)
	if errors.Is(err, keyring.ErrWrongSecret) {
		return nil, wrongSecret(c)
	}
	if err != nil {
		return nil, fmt.Errorf("opening the database %s: %w", c.Database, err)
	}
	var logins *guess.Limiter
	if o.limited {
		logins = limiter(c, "logins", db)
	}
	s := &store{engine: db, accounts: account.NewService(db, logins, now), secrets: len(secrets)}
	if o.write {
		if err := s.bootstrap(ctx, c, o.token); err != nil {
			return nil, errors.Join(err, db.Close())
		}
	}
	return s, nil
}

func wrongSecret(c *config.Config) error {
	where := "the one in " + c.SecretFile()
	if c.Secrets != nil {
		where = "the one that is set"
	}
	return &config.Error{
		Setting: "SCRIP_SECRET", Problem: where + " does not open the database " + c.Database,
		Do: "use the secret that the database was made with, or last rotated to",
	}
}

// bootstrap makes the root account of an empty database. A token that nobody
// gave is printed; if that is lost, "scrip user token root" makes another.
func (s *store) bootstrap(ctx context.Context, c *config.Config, w io.Writer) error {
	given := c.RootToken.Reveal()
	token := given
	if token == "" {
		token = account.NewToken()
	}
	made, err := s.accounts.Bootstrap(ctx, token)
	if err != nil {
		return err
	}
	if made && given == "" {
		s.newRoot = true
		_, err = fmt.Fprintf(w, "Access token of root (user id 1), shown only this once: %s\n", token)
		return err
	}
	if given != "" {
		if _, err = s.UserByToken(ctx, account.HashToken(given)); refusal.CodeOf(err) == refusal.AccountNotFound {
			c.Warnings = append(c.Warnings, "SCRIP_ROOT_TOKEN is nobody's token: it is for the first start only; "+
				"scrip user token root makes a new one")
			err = nil
		}
	}
	return err
}

// welcome prints a link that sets the password of root, whom the first start has
// just made. If it is lost, "scrip user link root" makes another.
func (s *store) welcome(ctx context.Context, w io.Writer, address string, secure bool) error {
	root, err := s.accounts.ByName(ctx, account.Operator(), "root")
	if err != nil {
		return err
	}
	link, _, err := s.accounts.NewLink(ctx, account.Operator(), root.ID)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "Link that sets root's password, once, within 24 hours: %s\n", welcomeURL(address, secure, link))
	return err
}

// welcomeURL is where the console sets a password by a link. An address that means
// all of this machine's is written as the one that works on it.
func welcomeURL(address string, secure bool, link string) string {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		host, port = address, ""
	}
	if ip, err := netip.ParseAddr(host); host == "" || err == nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	u := url.URL{Scheme: "http", Host: net.JoinHostPort(host, port), Path: "/welcome/" + link}
	if secure {
		u.Scheme = "https"
	}
	return u.String()
}

// openFor opens the database for a command other than serve: warnings and a
// root token go to stderr, since stdout is for what was asked for.
func (p *program) openFor(ctx context.Context, o opening) (*store, error) {
	c, err := p.configure()
	if err != nil {
		return nil, err
	}
	o.token = p.Stderr
	s, err := open(ctx, &c, o)
	for _, w := range c.Warnings {
		_, _ = fmt.Fprintln(p.Stderr, "scrip: warning:", w)
	}
	return s, err
}

// with opens the database, runs do and closes it.
func (p *program) with(ctx context.Context, o opening, do func(*store) error) (err error) {
	s, err := p.openFor(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	return do(s)
}

// checkpoint ties the ledger's lanes together, if it has several.
func (s *store) checkpoint(ctx context.Context) error {
	if several, ok := s.engine.(shared); ok {
		return several.Checkpoint(ctx)
	}
	return nil
}
