package console

import (
	"slices"
	"strconv"
	"strings"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/fleet"
	"github.com/scrip-codes/scrip/internal/redemption"
	"github.com/scrip-codes/scrip/internal/refusal"
)

// findMax is how many of each kind are found.
const findMax = 5

// found is something that was found.
type found struct{ Href, Name, Kind string }

// findAnything looks for what a few letters may mean, for the palette.
func (s *server) findAnything(v *visit) error {
	q := searchText(v.r.FormValue("q"))
	list := s.findPages(v, q)
	if q != "" {
		for _, look := range []func(*visit, string) ([]found, error){
			s.findCodes, s.findMachines, s.findUsers, s.findBatches,
		} {
			more, err := look(v, q)
			if err != nil {
				return err
			}
			list = append(list, more...)
		}
	}
	return v.part("find", "found", list)
}

// findPages are the pages whose name contains q; all of them for none.
func (s *server) findPages(v *visit, q string) (list []found) {
	for _, p := range [][2]string{
		{"/", "nav.overview"},
		{"/codes", "nav.codes"},
		{"/codes/new", "find.new_codes"},
		{"/batches", "find.batches"},
		{"/machines", "nav.machines"},
		{"/users", "nav.users"},
		{"/users/new", "users.add"},
		{"/ledger", "nav.ledger"},
		{"/settings", "nav.settings"},
		{"/account", "frame.account"},
		{"/redeem", "frame.redeem"},
	} {
		name := v.t(p[1])
		if strings.Contains(strings.ToLower(name), strings.ToLower(q)) {
			list = append(list, found{p[0], name, v.t("find.page")})
		}
	}
	if q != "" && len(list) > findMax {
		list = list[:findMax]
	}
	return list
}

// findCodes finds the code of an id, or of a whole key.
func (s *server) findCodes(v *visit, q string) (list []found, err error) {
	add := func(c *redemption.View) {
		list = append(list, found{"/codes/" + plain(c.ID), "#" + plain(c.ID) + " · " + c.Name, v.t("find.code")})
	}
	if id, err := strconv.ParseInt(strings.TrimPrefix(q, "#"), 10, 64); err == nil && id > 0 {
		c, err := s.Redemptions.Get(v.ctx(), v.actor(), id)
		switch {
		case err == nil:
			add(&c)
		case refusal.CodeOf(err) != refusal.RedemptionNotFound:
			return nil, err
		}
	}
	key := unspaced(q)
	if len(key) < keyLeast {
		return list, nil
	}
	f, err := s.Redemptions.Find(v.ctx(), v.actor(), redemption.Search{Keyword: key}, 0, findMax)
	if err != nil {
		return nil, err
	}
	for i := range f.Codes {
		if f.Codes[i].Key == key {
			add(&f.Codes[i])
		}
	}
	return list, nil
}

// keyLeast is the length from which a text may be a key.
const keyLeast = 16

func (s *server) findMachines(v *visit, q string) (list []found, err error) {
	machines, err := s.Fleet.Find(v.ctx(), v.actor(), fleet.MachineQuery{Search: q, Limit: findMax})
	for i := range machines {
		m := &machines[i]
		list = append(list, found{"/machines/" + m.No, m.No + " · " + m.Name, v.t("find.machine")})
	}
	return list, err
}

func (s *server) findUsers(v *visit, q string) (list []found, err error) {
	users, err := s.Accounts.Search(v.ctx(), v.actor(), account.UserQuery{Prefix: q, Limit: findMax})
	for i := range users {
		u := &users[i]
		name := u.Username
		if u.DisplayName != u.Username {
			name += " · " + u.DisplayName
		}
		list = append(list, found{"/users/" + plain(u.ID), name, v.t("find.user")})
	}
	return list, err
}

func (s *server) findBatches(v *visit, q string) (list []found, err error) {
	batches, _, err := s.Redemptions.Batches(v.ctx(), v.actor(), q, 0, findMax)
	for i := range batches {
		name := batches[i].Name
		if slices.ContainsFunc(list, func(f found) bool { return f.Name == name }) {
			continue
		}
		list = append(list, found{codeFilter{Batch: name}.Link(), name, v.t("find.batch")})
	}
	return list, err
}
