package api

import (
	"time"

	"github.com/scrip-codes/scrip/internal/fleet"
)

// machineObject is a machine as the API shows it to admins.
type machineObject struct {
	ID                 int64   `json:"id"`
	MerchantID         int64   `json:"merchant_id"`
	MachineNo          string  `json:"machine_no"`
	Name               string  `json:"name"`
	Timezone           string  `json:"timezone"`
	PurchaseLimit      int     `json:"purchase_limit"`
	PickupCodesEnabled bool    `json:"pickup_codes_enabled"`
	Online             bool    `json:"online"`
	LastSeen           *string `json:"last_seen"`
	CreatedAt          string  `json:"created_at"`
}

func newMachineObject(m *fleet.Machine, now time.Time) machineObject {
	return machineObject{
		ID: m.ID, MerchantID: m.MerchantID, MachineNo: m.No, Name: m.Name, Timezone: m.Zone,
		PurchaseLimit: m.PurchaseLimit, PickupCodesEnabled: m.PickupCodes,
		Online: m.Online(now), LastSeen: momentOrNull(m.LastSeen), CreatedAt: moment(m.Created),
	}
}

func (s *server) listMachines(c *call) (any, error) {
	part, err := stretchOf(c.r)
	if err != nil {
		return nil, err
	}
	list, err := s.Fleet.Machines(c.r.Context(), c.actor(), part.before, part.more())
	if err != nil {
		return nil, err
	}
	now := s.Now()
	return newListing(part, list, func(m *fleet.Machine) int64 { return m.ID },
		func(m *fleet.Machine) machineObject { return newMachineObject(m, now) }), nil
}

func (s *server) createMachine(c *call) (any, error) {
	var in struct {
		MerchantID         *int64 `json:"merchant_id"`
		MachineNo          string `json:"machine_no"`
		Name               string `json:"name"`
		Timezone           string `json:"timezone"`
		PurchaseLimit      *int64 `json:"purchase_limit"`
		PickupCodesEnabled *bool  `json:"pickup_codes_enabled"`
	}
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	if in.MerchantID == nil {
		return nil, &fault{hint: hintMissing, name: "merchant_id"}
	}
	password := fleet.NewPassword()
	made := func(m fleet.Machine) any {
		return created{"/api/v1/machines/" + m.No, struct {
			machineObject
			MQTTPassword string `json:"mqtt_password"`
		}{newMachineObject(&m, s.Now()), password}}
	}
	m, err := s.Fleet.CreateMachine(c.r.Context(), c.actor(), fleet.Machine{
		MerchantID: *in.MerchantID, No: in.MachineNo, Name: in.Name, Zone: in.Timezone,
		PurchaseLimit: limitOf(in.PurchaseLimit), PickupCodes: in.PickupCodesEnabled == nil || *in.PickupCodesEnabled,
	}, password, onceFor(c, made))
	if err != nil {
		return nil, err
	}
	return made(m), nil
}

// limitOf is a purchase limit; one left out is 1. What fits no int is made
// something else that the rules refuse too.
func limitOf(member *int64) int {
	if member == nil {
		return 1
	}
	return int(min(max(*member, 0), fleet.PurchaseLimitMax+1))
}

func (s *server) getMachine(c *call) (any, error) {
	no, err := c.pathMachine()
	if err != nil {
		return nil, err
	}
	m, err := s.Fleet.Machine(c.r.Context(), c.actor(), no)
	if err != nil {
		return nil, err
	}
	return newMachineObject(&m, s.Now()), nil
}

func (s *server) changeMachine(c *call) (any, error) {
	no, err := c.pathMachine()
	if err != nil {
		return nil, err
	}
	var in struct {
		Name               *string `json:"name"`
		Timezone           *string `json:"timezone"`
		PurchaseLimit      *int64  `json:"purchase_limit"`
		PickupCodesEnabled *bool   `json:"pickup_codes_enabled"`
	}
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	m, err := s.Fleet.ChangeMachine(c.r.Context(), c.actor(), no, fleet.MachineChange{
		Name: in.Name, Zone: in.Timezone, PurchaseLimit: in.PurchaseLimit, PickupCodes: in.PickupCodesEnabled,
	})
	if err != nil {
		return nil, err
	}
	return newMachineObject(&m, s.Now()), nil
}

func (s *server) deleteMachine(c *call) (any, error) {
	no, err := c.pathMachine()
	if err != nil {
		return nil, err
	}
	return nil, s.Fleet.DeleteMachine(c.r.Context(), c.actor(), no)
}

func (s *server) renewPassword(c *call) (any, error) {
	no, err := c.pathMachine()
	if err != nil {
		return nil, err
	}
	renewed := struct {
		MachineNo    string `json:"machine_no"`
		MQTTPassword string `json:"mqtt_password"`
	}{no, fleet.NewPassword()}
	err = s.Fleet.RenewPassword(c.r.Context(), c.actor(), no, renewed.MQTTPassword,
		c.once(func(any) any { return renewed }))
	if err != nil {
		return nil, err
	}
	return renewed, nil
}
