package console

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/fleet"
	"github.com/scrip-codes/scrip/internal/refusal"
)

// machineSettings is the page of what a machine is and sells.
type machineSettings struct {
	machineHead
	Form     machineForm // as it was typed, or as it is
	Pickups  bool
	Products []productForm // in the order of their slots
	Shared   []string      // slots with several of them
	Older    string
	New      productForm
	Once     string
	Added    bool // a product, just now
	// Problem is why the products were refused, Form.Problem why the settings.
	Problem string
}

// productForm is a product that is to be changed or made.
type productForm struct {
	No         string // of its machine
	ID         int64
	Name, Slot string
}

// machineSettingsPage shows a machine's settings; change puts into it what was typed.
func (s *server) machineSettingsPage(v *visit, status int, change func(*machineSettings)) error {
	m, err := s.asked(v)
	if err != nil {
		return err
	}
	head, err := s.machineHead(v, m, "settings")
	if err != nil {
		return err
	}
	p := &machineSettings{
		machineHead: head, Pickups: m.PickupCodes, New: productForm{No: m.No},
		Once: newOnce(), Added: v.r.FormValue("added") != "",
		Form: machineForm{No: m.No, Name: m.Name, Zone: m.Zone, Limit: int64(m.PurchaseLimit)},
	}
	list, err := s.Fleet.Products(v.ctx(), v.actor(), m.No, v.cursor(), productsShown+1)
	if err != nil {
		return err
	}
	if len(list) > productsShown {
		list = list[:productsShown]
		p.Older = "/machines/" + m.No + "/settings?before=" + strconv.FormatInt(list[productsShown-1].ID, 10)
	}
	for _, row := range shelves(list, nil) {
		for _, at := range row {
			if n := len(p.Products); n > 0 && p.Products[n-1].Slot == at.Slot && !slices.Contains(p.Shared, at.Slot) {
				p.Shared = append(p.Shared, at.Slot)
			}
			p.Products = append(p.Products, productForm{m.No, at.ID, at.Name, at.Slot})
		}
	}
	if change != nil {
		change(p)
	}
	return v.page(status, "machine-settings", "machines", p)
}

func (s *server) machineSettings(v *visit) error { return s.machineSettingsPage(v, http.StatusOK, nil) }

// changeMachine changes a machine's settings.
func (s *server) changeMachine(v *visit) error {
	m, err := s.asked(v)
	if err != nil {
		return err
	}
	post := v.r.PostFormValue
	name, zone, limit, pickups := post("name"), strings.TrimSpace(post("zone")), wholeNumber(post("limit")), post("pickups") != ""
	_, err = s.Fleet.ChangeMachine(v.ctx(), v.actor(), m.No, fleet.MachineChange{
		Name: &name, Zone: &zone, PurchaseLimit: &limit, PickupCodes: &pickups,
	})
	if err != nil {
		problem, err := v.refused(err)
		if err != nil {
			return err
		}
		return s.machineSettingsPage(v, http.StatusUnprocessableEntity, func(p *machineSettings) {
			p.Form = machineForm{No: m.No, Name: name, Zone: zone, Limit: limit, Problem: problem}
			p.Pickups = pickups
		})
	}
	v.say(v.t("machine.saved"))
	return v.redirect("/machines/" + m.No + "/settings")
}

// deleteMachine removes a machine.
func (s *server) deleteMachine(v *visit) error {
	m, err := s.asked(v)
	if err != nil {
		return err
	}
	if err := s.Fleet.DeleteMachine(v.ctx(), v.actor(), m.No); err != nil {
		return err
	}
	v.say(v.t("machine.deleted", m.Name, m.No))
	return v.redirect("/machines")
}

// addProduct makes a product.
func (s *server) addProduct(v *visit) error {
	m, err := s.asked(v)
	if err != nil {
		return err
	}
	f := productForm{m.No, wholeNumber(v.r.PostFormValue("id")), v.r.PostFormValue("name"), v.r.PostFormValue("slot")}
	if v.r.PostFormValue("id") != "" && f.ID == 0 {
		err = refusal.New(refusal.ProductID)
	} else {
		err = v.once(func(ctx context.Context, once *account.Once) error {
			_, err := s.Fleet.CreateProduct(ctx, v.actor(), m.No, fleet.Product{ID: f.ID, Name: f.Name, Slot: f.Slot}, once)
			return err
		})
	}
	if err != nil {
		problem, err := v.refused(err)
		if err != nil {
			return err
		}
		return s.machineSettingsPage(v, http.StatusUnprocessableEntity, func(p *machineSettings) { p.New, p.Problem = f, problem })
	}
	return v.redirect("/machines/" + m.No + "/settings?added=1#add")
}

// productAsked is the product that the address names.
func productAsked(v *visit) (int64, error) {
	if id := v.pathID(); id > 0 {
		return id, nil
	}
	return 0, refusal.New(refusal.ProductNotFound)
}

// changeProduct changes a product.
func (s *server) changeProduct(v *visit) error {
	m, err := s.asked(v)
	if err != nil {
		return err
	}
	id, err := productAsked(v)
	if err != nil {
		return err
	}
	f := productForm{m.No, id, v.r.PostFormValue("name"), v.r.PostFormValue("slot")}
	name, slot := f.Name, f.Slot
	if _, err := s.Fleet.ChangeProduct(v.ctx(), v.actor(), m.No, id, fleet.ProductChange{Name: &name, Slot: &slot}); err != nil {
		if refusal.CodeOf(err) == refusal.ProductNotFound {
			return err
		}
		problem, err := v.refused(err)
		if err != nil {
			return err
		}
		return s.machineSettingsPage(v, http.StatusUnprocessableEntity, func(p *machineSettings) {
			p.Problem = problem
			for i := range p.Products {
				if p.Products[i].ID == id {
					p.Products[i] = f
				}
			}
		})
	}
	v.say(v.t("machine.product_saved", name))
	return v.redirect("/machines/" + m.No + "/settings")
}

// deleteProduct removes a product.
func (s *server) deleteProduct(v *visit) error {
	m, err := s.asked(v)
	if err != nil {
		return err
	}
	id, err := productAsked(v)
	if err != nil {
		return err
	}
	if err := s.Fleet.DeleteProduct(v.ctx(), v.actor(), m.No, id); err != nil {
		return err
	}
	v.say(v.t("machine.product_deleted"))
	return v.redirect("/machines/" + m.No + "/settings")
}
