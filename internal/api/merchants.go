package api

import (
	"fmt"

	"github.com/scrip-codes/scrip/internal/fleet"
	"github.com/scrip-codes/scrip/internal/refusal"
)

// merchantObject is a merchant as the API shows it to admins.
type merchantObject struct {
	ID         int64            `json:"id"`
	Name       string           `json:"name"`
	AppKey     string           `json:"app_key"`
	Payload    fleet.Payload    `json:"payload"`
	Signature  fleet.Signature  `json:"signature"`
	ExpiryUnit fleet.ExpiryUnit `json:"expiry_unit"`
	CreatedAt  string           `json:"created_at"`
}

func newMerchantObject(m *fleet.Merchant) merchantObject {
	return merchantObject{
		ID: m.ID, Name: m.Name, AppKey: m.AppKey, Payload: m.Payload, Signature: m.Signature, ExpiryUnit: m.Expiry,
		CreatedAt: moment(m.Created),
	}
}

// merchantBody is what may be said of a merchant.
type merchantBody struct {
	Name       *string           `json:"name"`
	AppKey     *string           `json:"app_key"`
	Payload    *fleet.Payload    `json:"payload"`
	Signature  *fleet.Signature  `json:"signature"`
	ExpiryUnit *fleet.ExpiryUnit `json:"expiry_unit"`
}

// check refuses an empty text where one left out asks for something.
func (b *merchantBody) check() error {
	switch {
	case isEmpty(b.AppKey):
		return refusal.New(refusal.MerchantAppKey)
	case isEmpty(b.Payload):
		return refusal.New(refusal.MerchantPayload)
	case isEmpty(b.Signature):
		return refusal.New(refusal.MerchantSignature)
	case isEmpty(b.ExpiryUnit):
		return refusal.New(refusal.MerchantExpiryUnit)
	}
	return nil
}

func (s *server) listMerchants(c *call) (any, error) {
	part, err := stretchOf(c.r)
	if err != nil {
		return nil, err
	}
	list, err := s.Fleet.Merchants(c.r.Context(), c.actor(), part.before, part.more())
	if err != nil {
		return nil, err
	}
	return newListing(part, list, func(m *fleet.Merchant) int64 { return m.ID }, newMerchantObject), nil
}

func (s *server) createMerchant(c *call) (any, error) {
	var in merchantBody
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	if err := in.check(); err != nil {
		return nil, err
	}
	made := func(m fleet.Merchant) any {
		return created{fmt.Sprintf("/api/v1/merchants/%d", m.ID), newMerchantObject(&m)}
	}
	m, err := s.Fleet.CreateMerchant(c.r.Context(), c.actor(), fleet.Merchant{
		Name: orZero(in.Name), AppKey: orZero(in.AppKey), Style: fleet.Style{
			Payload: orZero(in.Payload), Signature: orZero(in.Signature), Expiry: orZero(in.ExpiryUnit),
		},
	}, onceFor(c, made))
	if err != nil {
		return nil, err
	}
	return made(m), nil
}

func (s *server) getMerchant(c *call) (any, error) {
	id, err := c.pathID()
	if err != nil {
		return nil, err
	}
	m, err := s.Fleet.Merchant(c.r.Context(), c.actor(), id)
	if err != nil {
		return nil, err
	}
	return newMerchantObject(&m), nil
}

func (s *server) changeMerchant(c *call) (any, error) {
	id, err := c.pathID()
	if err != nil {
		return nil, err
	}
	var in merchantBody
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	m, err := s.Fleet.ChangeMerchant(c.r.Context(), c.actor(), id, fleet.MerchantChange(in))
	if err != nil {
		return nil, err
	}
	return newMerchantObject(&m), nil
}
