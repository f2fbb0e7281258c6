package api

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/scrip-codes/scrip/internal/fleet"
	"github.com/scrip-codes/scrip/internal/refusal"
)

// productObject is a product of a machine as the API shows it to admins.
type productObject struct {
	ID        int64  `json:"id"`
	MachineNo string `json:"machine_no"`
	Name      string `json:"name"`
	Slot      string `json:"slot"`
	CreatedAt string `json:"created_at"`
}

func newProductObject(no string, p *fleet.Product) productObject {
	return productObject{ID: p.ID, MachineNo: no, Name: p.Name, Slot: p.Slot, CreatedAt: moment(p.Created)}
}

// productBody is what may be said of a product.
type productBody struct {
	ID   *int64          `json:"id"`
	Name *string         `json:"name"`
	Slot json.RawMessage `json:"slot"`
}

// slot reads the slot: a text, or a whole number, which stands for its digits.
func (b *productBody) slot() (*string, error) {
	raw := string(b.Slot)
	if raw == "" || raw == "null" {
		return nil, nil // left out
	}
	if strings.Trim(strings.TrimPrefix(raw, "-"), "0123456789") == "" {
		return &raw, nil
	}
	var text string
	if json.Unmarshal(b.Slot, &text) != nil {
		return nil, &fault{hint: hintTextOrInteger, name: "slot"}
	}
	return &text, nil
}

func (s *server) listProducts(c *call) (any, error) {
	no, err := c.pathMachine()
	if err != nil {
		return nil, err
	}
	part, err := stretchOf(c.r)
	if err != nil {
		return nil, err
	}
	list, err := s.Fleet.Products(c.r.Context(), c.actor(), no, part.before, part.more())
	if err != nil {
		return nil, err
	}
	return newListing(part, list, func(p *fleet.Product) int64 { return p.ID },
		func(p *fleet.Product) productObject { return newProductObject(no, p) }), nil
}

func (s *server) createProduct(c *call) (any, error) {
	no, err := c.pathMachine()
	if err != nil {
		return nil, err
	}
	var in productBody
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	slot, err := in.slot()
	if err != nil {
		return nil, err
	}
	if in.ID != nil && *in.ID == 0 { // to the use case it would be one left out
		return nil, refusal.New(refusal.ProductID)
	}
	made := func(p fleet.Product) any {
		return created{fmt.Sprintf("/api/v1/machines/%s/products/%d", no, p.ID), newProductObject(no, &p)}
	}
	p, err := s.Fleet.CreateProduct(c.r.Context(), c.actor(), no, fleet.Product{
		ID: orZero(in.ID), Name: orZero(in.Name), Slot: orZero(slot),
	}, onceFor(c, made))
	if err != nil {
		return nil, err
	}
	return made(p), nil
}

func (s *server) changeProduct(c *call) (any, error) {
	no, id, err := c.pathProduct()
	if err != nil {
		return nil, err
	}
	var in productBody
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	slot, err := in.slot()
	if err != nil {
		return nil, err
	}
	p, err := s.Fleet.ChangeProduct(c.r.Context(), c.actor(), no, id, fleet.ProductChange{Name: in.Name, Slot: slot})
	if err != nil {
		return nil, err
	}
	return newProductObject(no, &p), nil
}

func (s *server) deleteProduct(c *call) (any, error) {
	no, id, err := c.pathProduct()
	if err != nil {
		return nil, err
	}
	return nil, s.Fleet.DeleteProduct(c.r.Context(), c.actor(), no, id)
}
