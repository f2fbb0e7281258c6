package console

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/fleet"
	"github.com/scrip-codes/scrip/internal/pickup"
	"github.com/scrip-codes/scrip/internal/refusal"
)

// lifetimes are those to choose from for a pickup code, by their value in the
// form.
func lifetimes() map[string]time.Duration {
	return map[string]time.Duration{"30m": 30 * time.Minute, "2h": 2 * time.Hour, "24h": 24 * time.Hour, "168h": 7 * 24 * time.Hour}
}

// pickupUnits are those of another lifetime.
func pickupUnits() map[string]time.Duration {
	return map[string]time.Duration{"m": time.Minute, "h": time.Hour, "d": 24 * time.Hour}
}

// pickupForm is a pickup code that is to be made, or was.
type pickupForm struct {
	fleet.Machine
	// Product is what it is for; nil: that is to be chosen, among Products.
	Product  *fleet.Product
	Products []fleet.Product
	Chosen   int64
	Busy     int // live codes of the product

	Quantity   int64
	Lifetime   string
	Count      string // of Unit, if the lifetime is custom
	Unit       string
	AllowMore  bool
	Problem    string
	Made       *pickupRow
	Once       string
	Quantities []int64
}

// ttl is how long the code shall live.
func (f *pickupForm) ttl() (time.Duration, error) {
	if d, ok := lifetimes()[f.Lifetime]; ok {
		return d, nil
	}
	n, ok := amount(strings.TrimSpace(f.Count))
	unit := pickupUnits()[f.Unit]
	if !ok || n < 1 || unit == 0 || n > int64(pickup.TTLMax/unit) {
		return 0, refusal.New(refusal.PickupTTL)
	}
	return time.Duration(n) * unit, nil
}

// newPickup shows the form that makes a pickup code.
func (s *server) newPickup(v *visit) error {
	f := &pickupForm{Chosen: wholeNumber(v.r.FormValue("product")), Quantity: 1, Lifetime: "2h", Count: "4", Unit: "h"}
	return s.pickupForm(v, http.StatusOK, f)
}

func (s *server) pickupForm(v *visit, status int, f *pickupForm) (err error) {
	if err := s.fillPickupForm(v, f); err != nil {
		return err
	}
	if v.isHTMX() {
		return v.execute(status, "pickup", "pickup-form", f)
	}
	return v.page(status, "pickup", "machines", f)
}

func (s *server) fillPickupForm(v *visit, f *pickupForm) (err error) {
	f.Once = newOnce()
	if f.Machine, err = s.asked(v); err != nil {
		return err
	}
	if f.Products, err = s.Fleet.Products(v.ctx(), v.actor(), f.No, 0, productsShown); err != nil {
		return err
	}
	for i := range f.Products {
		if f.Products[i].ID == f.Chosen {
			f.Product = &f.Products[i]
		}
	}
	var inOrder []fleet.Product
	for _, row := range shelves(f.Products, nil) {
		for _, at := range row {
			inOrder = append(inOrder, at.Product)
		}
	}
	f.Products = inOrder
	for n := range min(f.PurchaseLimit, pickup.QuantityMax) {
		f.Quantities = append(f.Quantities, int64(n)+1)
	}
	if f.Product == nil {
		return nil
	}
	live, err := s.Pickups.List(v.ctx(), v.actor(), pickup.Query{MachineNo: f.No, Live: true, Limit: pickup.LiveMax})
	for _, c := range live {
		if c.ProductID == f.Product.ID {
			f.Busy++
		}
	}
	return err
}

// makePickup makes a pickup code. Over htmx it answers with the code.
func (s *server) makePickup(v *visit) error {
	post := v.r.PostFormValue
	f := &pickupForm{
		Chosen: wholeNumber(post("product")), Quantity: wholeNumber(post("quantity")),
		Lifetime: post("lifetime"), Count: post("count"), Unit: post("unit"), AllowMore: post("more") != "",
	}
	no := v.r.PathValue("no")
	if !fleet.ValidNo(no) {
		return refusal.New(refusal.MachineNotFound)
	}
	ttl, err := f.ttl()
	var c pickup.Code
	if err == nil {
		err = v.once(func(ctx context.Context, once *account.Once) (err error) {
			c, err = s.Pickups.Create(ctx, v.actor(), pickup.Request{
				MachineNo: no, ProductID: f.Chosen, Quantity: f.Quantity, TTL: ttl, AllowMore: f.AllowMore, Once: once,
			})
			return err
		})
	}
	if err != nil {
		if refusal.CodeOf(err) == refusal.MachineNotFound {
			return err
		}
		if f.Problem, err = v.refused(err); err != nil {
			return err
		}
		return s.pickupForm(v, http.StatusUnprocessableEntity, f)
	}
	if !v.isHTMX() || c.ID == 0 { // it was made when this was sent before
		v.say(v.t("pickup.made"))
		return v.redirect("/machines/" + no)
	}
	if err := s.fillPickupForm(v, f); err != nil {
		return err
	}
	r := newPickupRow(c, fleet.Product{}, f.Zone, s.Now())
	r.MachineNo = no
	if f.Product != nil {
		r.Name, r.Slot = f.Product.Name, f.Product.Slot
	}
	f.Made = &r
	return v.part("pickup", "pickup-made", f)
}

// pickupDelivery is how far the news of a code has come.
func (s *server) pickupDelivery(v *visit) error {
	id, err := pickupID(v)
	if err != nil {
		return err
	}
	if !v.isHTMX() {
		return v.redirect("/machines/" + v.r.PathValue("no"))
	}
	c, err := s.Pickups.Get(v.ctx(), v.actor(), id)
	if err != nil {
		return err
	}
	return v.part("pickup", "pickup-delivery", newPickupRow(c, fleet.Product{ID: c.ProductID}, "", s.Now()))
}
