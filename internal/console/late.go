package console

import (
	"net/http"
	"strconv"

	"github.com/scrip-codes/scrip/internal/fleet"
	"github.com/scrip-codes/scrip/internal/pickup"
	"github.com/scrip-codes/scrip/internal/refusal"
)

// lateOnPage bounds the machines that are looked up for a page, too.
const lateOnPage = 25

// lateView is the list of late uses.
type lateView struct {
	Rows         []pickupRow
	Count        int
	Most         bool // there may be more than Count
	First, Older string
}

// late lists the late uses of all machines.
func (s *server) late(v *visit) error {
	before := v.cursor()
	list, count, err := s.Pickups.LateUses(v.ctx(), v.actor(), before, lateOnPage+1)
	if err != nil {
		return err
	}
	l := lateView{Count: count, Most: count >= pickup.LateMax}
	if len(list) > lateOnPage {
		list = list[:lateOnPage]
		l.Older = "/late?before=" + strconv.FormatInt(list[lateOnPage-1].ID, 10)
	}
	if before > 0 {
		l.First = "/late"
	}
	ids := make([]int64, len(list))
	for i := range list {
		ids[i] = list[i].MachineID
	}
	machines, err := s.Fleet.Names(v.ctx(), v.actor(), ids)
	if err != nil {
		return err
	}
	products := map[int64]map[int64]fleet.Product{}
	for _, c := range list {
		m := machines[c.MachineID]
		if products[c.MachineID] == nil {
			if products[c.MachineID], err = s.productsOf(v, m); err != nil {
				return err
			}
		}
		r := newPickupRow(c, products[c.MachineID][c.ProductID], "", s.Now())
		r.MachineName, r.Gone = m.Name, m.Deleted
		l.Rows = append(l.Rows, r)
	}
	return v.page(http.StatusOK, "late", "machines", l)
}

// productsOf is what a machine sells, by the products' ids.
func (s *server) productsOf(v *visit, m fleet.Named) (map[int64]fleet.Product, error) {
	all := map[int64]fleet.Product{}
	if m.Deleted || m.No == "" {
		return all, nil
	}
	list, err := s.Fleet.Products(v.ctx(), v.actor(), m.No, 0, productsShown)
	if err != nil && refusal.CodeOf(err) != refusal.MachineNotFound {
		return nil, err
	}
	for _, p := range list {
		all[p.ID] = p
	}
	return all, nil
}

// acknowledge acknowledges the late uses that are named.
func (s *server) acknowledge(v *visit) error {
	ids := v.r.PostForm["id"]
	if len(ids) > lateShown {
		return refusal.New(refusal.InvalidRequest)
	}
	for _, text := range ids {
		id := wholeNumber(text)
		if id == 0 {
			return refusal.New(refusal.PickupNotFound)
		}
		if err := s.Pickups.AcknowledgeLate(v.ctx(), v.actor(), id); err != nil {
			return err
		}
	}
	if no := v.r.PathValue("no"); no != "" {
		return s.afterwards(v, "late.acknowledged")
	}
	v.say(v.t("late.acknowledged"))
	return v.redirect("/late")
}
