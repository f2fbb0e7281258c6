package postgres

import (
	"context"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/refusal"
	"github.com/scrip-codes/scrip/internal/sqlstore"
)

const (
	// tokenReaders is how many look-ups of tokens may be under way, tokensMax how
	// many tokens one of them is about.
	tokenReaders = 2
	tokensMax    = 256
)

// tokenLook is somebody who looks for the user of a token.
type tokenLook struct {
	token account.Hash
	user  account.User
	found bool
}

// UserByToken implements account.Store. Every request begins with it: those that
// arrive together are looked up together.
func (d *DB) UserByToken(ctx context.Context, token account.Hash) (account.User, error) {
	l := &tokenLook{token: token}
	if err := d.tokens.Do(ctx, l); err != nil {
		return account.User{}, err
	}
	if !l.found {
		return account.User{}, refusal.New(refusal.AccountNotFound)
	}
	return l.user, nil
}

// findTokens looks up a group of tokens.
func (d *DB) findTokens(ctx context.Context, jobs []*sqlstore.Job[*tokenLook]) {
	tokens := make([][]byte, len(jobs))
	looks := map[string][]*tokenLook{}
	for i, j := range jobs {
		tokens[i] = j.Value.token[:]
		looks[string(tokens[i])] = append(looks[string(tokens[i])], j.Value)
	}
	err := d.Read(ctx, func(s sqlstore.Conn) error {
		return s.Each(ctx, func(row sqlstore.Scanner) error {
			var token []byte
			u, err := sqlstore.ScanUser(row, &token)
			if err != nil {
				return err
			}
			for _, l := range looks[string(token)] {
				l.user, l.found = u, true
			}
			return nil
		}, `SELECT u.id, u.username, u.display_name, u.role, u.status, u.quota, u.created, u.token_hash FROM users u
			WHERE u.token_hash = ANY (CAST(? AS BYTEA[]))`, tokens)
	})
	for _, j := range jobs {
		j.Err = err
	}
}
