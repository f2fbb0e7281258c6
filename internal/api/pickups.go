package api

import (
	"fmt"
	"net/url"
	"time"

	"github.com/scrip-codes/scrip/internal/pickup"
	"github.com/scrip-codes/scrip/internal/refusal"
)

// pickupObject is a pickup code as the API shows it to admins.
type pickupObject struct {
	ID          int64           `json:"id"`
	Code        string          `json:"code"`
	MachineID   int64           `json:"machine_id"`
	MachineNo   string          `json:"machine_no"`
	ProductID   int64           `json:"product_id"`
	Quantity    int             `json:"quantity"`
	State       pickup.State    `json:"state"`
	Delivery    pickup.Delivery `json:"delivery"`
	LateUse     bool            `json:"late_use"`
	CreatedBy   int64           `json:"created_by"`
	CreatedAt   string          `json:"created_at"`
	ExpiresAt   string          `json:"expires_at"`
	UsedAt      *string         `json:"used_at"`
	WithdrawnAt *string         `json:"withdrawn_at"`
}

func newPickupObject(p *pickup.Code, now time.Time) pickupObject {
	return pickupObject{
		ID: p.ID, Code: p.Digits, MachineID: p.MachineID, MachineNo: p.MachineNo, ProductID: p.ProductID,
		Quantity: p.Quantity, State: p.State(now), Delivery: p.Delivery, LateUse: p.LateUse, CreatedBy: p.CreatorID,
		CreatedAt: moment(p.Created), ExpiresAt: moment(p.Expires),
		UsedAt: momentOrNull(p.Used), WithdrawnAt: momentOrNull(p.Withdrawn),
	}
}

func (s *server) listPickups(c *call) (any, error) {
	no, err := c.pathMachine()
	if err != nil {
		return nil, err
	}
	part, err := stretchOf(c.r)
	if err != nil {
		return nil, err
	}
	late, err := lateUseOf(c.r.URL.Query())
	if err != nil {
		return nil, err
	}
	list, err := s.Pickups.List(c.r.Context(), c.actor(), pickup.Query{
		MachineNo: no, Before: part.before, Limit: part.more(), LateUse: late,
	})
	if err != nil {
		return nil, err
	}
	now := s.Now()
	return newListing(part, list, func(p *pickup.Code) int64 { return p.ID },
		func(p *pickup.Code) pickupObject { return newPickupObject(p, now) }), nil
}

// lateUseOf reads whether only codes that were used late are asked for.
func lateUseOf(q url.Values) (bool, error) {
	switch q.Get("late_use") {
	case "true":
		return true, nil
	case "false", "":
		return false, nil
	}
	return false, &fault{hint: hintTruth, name: "late_use"}
}

func (s *server) createPickup(c *call) (any, error) {
	no, err := c.pathMachine()
	if err != nil {
		return nil, err
	}
	var in struct {
		ProductID  *int64 `json:"product_id"`
		Quantity   int64  `json:"quantity"`
		TTLSeconds *int64 `json:"ttl_seconds"`
		AllowMore  bool   `json:"allow_more"`
	}
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	if in.ProductID == nil {
		return nil, &fault{hint: hintMissing, name: "product_id"}
	}
	ttl, err := ttlOf(in.TTLSeconds)
	if err != nil {
		return nil, err
	}
	made := func(p pickup.Code) any {
		return created{fmt.Sprintf("/api/v1/pickup-codes/%d", p.ID), newPickupObject(&p, s.Now())}
	}
	p, err := s.Pickups.Create(c.r.Context(), c.actor(), pickup.Request{
		MachineNo: no, ProductID: *in.ProductID, Quantity: in.Quantity, TTL: ttl, AllowMore: in.AllowMore,
		Once: onceFor(c, made),
	})
	if err != nil {
		return nil, err
	}
	return made(p), nil
}

// ttlOf is how long a code is to live; 0 if that is left out.
func ttlOf(seconds *int64) (time.Duration, error) {
	if seconds == nil {
		return 0, nil
	}
	if *seconds < 1 || *seconds > int64(pickup.TTLMax/time.Second) {
		return 0, refusal.New(refusal.PickupTTL)
	}
	return time.Duration(*seconds) * time.Second, nil
}

func (s *server) getPickup(c *call) (any, error) {
	id, err := c.pathID()
	if err != nil {
		return nil, err
	}
	p, err := s.Pickups.Get(c.r.Context(), c.actor(), id)
	if err != nil {
		return nil, err
	}
	return newPickupObject(&p, s.Now()), nil
}

func (s *server) withdrawPickup(c *call) (any, error) {
	id, err := c.pathID()
	if err != nil {
		return nil, err
	}
	return nil, s.Pickups.Withdraw(c.r.Context(), c.actor(), id)
}
