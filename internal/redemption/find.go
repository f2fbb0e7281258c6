package redemption

import (
	"context"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/keyring"
)

// Search chooses codes. Its zero fields choose all.
type Search struct {
	Keyword  string    // an id, a part of the name, or a whole key
	Filter   Filter    //
	Batch    *string   // exactly that name
	From, To time.Time // made at From or later, and before To; see Query
	// UsedBy chooses those that this account has redeemed: they are listed by the
	// time of that, the last one first, and paged by Before, which is the Next of the
	// page before.
	UsedBy, Before int64
}

// Found is a page of codes.
type Found struct {
	Codes []View
	Total int64 // on all pages; -1 if that is not known, as it may be with UsedBy
	Next  int64 // with UsedBy, Before for the next page; 0 if there is none
}

// Find finds a page of the codes that the search chooses, the newest first, for an
// admin. With UsedBy, offset is not looked at, and a page may have less than limit
// codes for all that there is a next one.
func (s *Service) Find(ctx context.Context, by account.Actor, search Search, offset, limit int64) (f Found, err error) {
	if err := by.MustBe(account.RoleAdmin); err != nil {
		return Found{}, err
	}
	q := Query{
		Filter: search.Filter, Now: s.now(), Offset: offset, Limit: limit, Name: search.Batch, From: search.From, To: search.To,
	}
	key := q.look(search.Keyword)
	err = s.keys.Use(ctx, func(ring *keyring.Ring) error {
		if key != "" {
			q.Epoch, q.Indexes = ring.Epoch(), ring.Indexes(key)
		}
		var rows []Stored
		if search.UsedBy != 0 {
			u, err := s.store.ListUsed(ctx, q, search.UsedBy, search.Before)
			if err != nil {
				return err
			}
			rows, f.Total, f.Next = u.Rows, u.Total, u.Next
		} else if rows, f.Total, err = s.store.List(ctx, q); err != nil {
			return err
		}
		f.Codes, err = viewAll(ring, rows)
		return err
	})
	if err != nil {
		return Found{}, err
	}
	return f, nil
}

// look has the query look for a keyword, and returns the key that it may be, if it
// may be one.
func (q *Query) look(keyword string) (key string) {
	word := strings.TrimSpace(keyword) // as an id or a key; in a name a space is a character
	if word == "" {
		return ""
	}
	q.Search = true
	if id, err := strconv.ParseInt(word, 10, 64); err == nil && id > 0 {
		q.ID = id
	}
	q.Fragment = nameFragment(keyword)
	if key = Normalize(word); len(key) > math.MaxUint8 {
		return ""
	}
	return key
}

// nameFragment is what a name may contain; empty if none may contain the text.
func nameFragment(text string) string {
	if utf8.RuneCountInString(text) <= NameMax && account.CleanText(text) {
		return text
	}
	return ""
}

// Batches lists the names of codes, the newest first, with how many codes bear
// each, for an admin: those that contain the query, and that stand behind the one
// with the id before, if that is not 0. Next is before for the next page, 0 if
// there is none.
func (s *Service) Batches(
	ctx context.Context, by account.Actor, query string, before, limit int64,
) (batches []BatchCount, next int64, err error) {
	if err := by.MustBe(account.RoleAdmin); err != nil {
		return nil, 0, err
	}
	fragment := nameFragment(query)
	if fragment != query {
		return nil, 0, nil
	}
	return s.store.Batches(ctx, fragment, before, limit, s.now())
}

// viewAll opens the keys of codes.
func viewAll(ring *keyring.Ring, rows []Stored) ([]View, error) {
	views := make([]View, len(rows))
	for i := range rows {
		var err error
		if views[i], err = view(ring, rows[i]); err != nil {
			return nil, err
		}
	}
	return views, nil
}
