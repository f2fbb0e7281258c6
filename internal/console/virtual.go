package console

import (
	"net/http"

	"github.com/scrip-codes/scrip/internal/fleet"
)

// virtualView is the page of a virtual machine.
type virtualView struct {
	Machine      virtualMachine
	Password     string // empty: it was not made just now
	MachinePath  string
	PasswordPath string
}

// virtualMachine is what a machine knows of itself.
type virtualMachine struct {
	No            string           `json:"no"`
	Name          string           `json:"name"`
	Zone          string           `json:"zone"`
	PurchaseLimit int              `json:"purchase_limit"`
	PickupCodes   bool             `json:"pickup_codes"`
	Created       int64            `json:"created"` // Unix milliseconds: tells it from others of its number
	AppKey        string           `json:"app_key"`
	Base64        bool             `json:"base64"`
	Percent       bool             `json:"percent"`
	Products      []virtualProduct `json:"products"`
}

type virtualProduct struct {
	ID   int64  `json:"id,string"` // text: scripts count exactly to 2^53 only
	Name string `json:"name"`
	Slot string `json:"slot"`
}

// virtual is a machine in the browser. Posted to, it has a new password.
func (s *server) virtual(v *visit) error {
	m, err := s.asked(v)
	if err != nil {
		return err
	}
	// The page signs what the machine says, so that it has the app key in it.
	o, err := s.Fleet.RevealAppKey(v.ctx(), v.actor(), m.MerchantID)
	if err != nil {
		return err
	}
	products, err := s.Fleet.Products(v.ctx(), v.actor(), m.No, 0, productsShown)
	if err != nil {
		return err
	}
	at := "/machines/" + m.No
	view := virtualView{MachinePath: at, PasswordPath: at + "/virtual", Machine: virtualMachine{
		No: m.No, Name: m.Name, Zone: m.Zone, PurchaseLimit: m.PurchaseLimit, PickupCodes: m.PickupCodes,
		Created: m.Created.UnixMilli(), AppKey: o.AppKey, Products: []virtualProduct{},
		Base64: o.Payload == fleet.PayloadBase64, Percent: o.Signature == fleet.SignaturePercentEncoded,
	}}
	for _, p := range products {
		view.Machine.Products = append(view.Machine.Products, virtualProduct{p.ID, p.Name, p.Slot})
	}
	if v.r.Method == http.MethodPost {
		view.Password = fleet.NewPassword()
		if err := s.Fleet.RenewPassword(v.ctx(), v.actor(), m.No, view.Password, nil); err != nil {
			return err
		}
	}
	return v.page(http.StatusOK, "virtual", "machines", view)
}
