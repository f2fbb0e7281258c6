package api

import (
	"encoding/json"
	"math"
	"net/http"
	"net/url"
	"time"

	"github.com/scrip-codes/scrip/internal/redemption"
)

// redemptionObject is a redemption code as the API shows it to admins.
type redemptionObject struct {
	ID           int64             `json:"id"`
	UserID       int64             `json:"user_id"`
	Name         string            `json:"name"`
	Key          string            `json:"key"`
	Status       redemption.Status `json:"status"`
	Quota        int64             `json:"quota"`
	CreatedTime  int64             `json:"created_time"`
	RedeemedTime int64             `json:"redeemed_time"`
	ExpiredTime  int64             `json:"expired_time"`
	UsedUserID   int64             `json:"used_user_id"`
}

func newRedemptionObject(v *redemption.View) redemptionObject {
	return redemptionObject{
		ID: v.ID, UserID: v.CreatorID, Name: v.Name, Key: v.Key, Status: v.Status, Quota: v.Quota,
		CreatedTime: unix(v.Created), RedeemedTime: unix(v.Redeemed), ExpiredTime: unix(v.Expires),
		UsedUserID: v.UsedBy,
	}
}

// filterOf reads the status filter of a list. What is none of its values
// filters nothing, as p and page_size fall back to their defaults.
func filterOf(q url.Values) redemption.Filter {
	switch q.Get("status") {
	case "1":
		return redemption.FilterLive
	case "2":
		return redemption.FilterDisabled
	case "3":
		return redemption.FilterUsed
	case "expired":
		return redemption.FilterExpired
	}
	return redemption.FilterAll
}

func (s *server) listCodes(c *call) (any, error) {
	q := c.r.URL.Query()
	p := pageOf(q)
	views, total, err := s.Redemptions.List(c.r.Context(), c.actor(), filterOf(q), p.offset(), p.size)
	if err != nil {
		return nil, err
	}
	return newPage(views, total, p, newRedemptionObject), nil
}

func (s *server) searchCodes(c *call) (any, error) {
	q := c.r.URL.Query()
	p := pageOf(q)
	views, total, err := s.Redemptions.Search(c.r.Context(), c.actor(), q.Get("keyword"), filterOf(q), p.offset(), p.size)
	if err != nil {
		return nil, err
	}
	return newPage(views, total, p, newRedemptionObject), nil
}

func (s *server) getCode(c *call) (any, error) {
	id, err := c.pathID()
	if err != nil {
		return nil, err
	}
	v, err := s.Redemptions.Get(c.r.Context(), c.actor(), id)
	if err != nil {
		return nil, err
	}
	return newRedemptionObject(&v), nil
}

func (s *server) issueCodes(c *call) (any, error) {
	var in struct {
		Name        string `json:"name"`
		Count       int64  `json:"count"`
		Quota       int64  `json:"quota"`
		ExpiredTime int64  `json:"expired_time"`
	}
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	keys, err := s.Redemptions.Issue(c.r.Context(), c.actor(), redemption.IssueRequest{
		Name: in.Name, Count: in.Count, Quota: in.Quota, Expires: fromUnix(in.ExpiredTime), Once: c.once(nil),
	})
	if err != nil {
		return nil, err
	}
	return keys, nil
}

func (s *server) changeCode(c *call) (any, error) {
	var in struct {
		ID          *int64          `json:"id"`
		Name        *string         `json:"name"`
		Quota       *int64          `json:"quota"`
		ExpiredTime *int64          `json:"expired_time"`
		Status      json.RawMessage `json:"status"` // a full update does not look at it
	}
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	if in.ID == nil {
		return nil, &fault{hint: hintMissing, name: "id"}
	}
	ch := redemption.Change{Name: in.Name, Quota: in.Quota}
	if in.ExpiredTime != nil {
		ch.Expires = new(fromUnix(*in.ExpiredTime))
	}
	if statusOnly(c.r.URL.Query()) {
		status, err := statusOf(in.Status)
		if err != nil {
			return nil, err
		}
		ch = redemption.Change{Status: &status}
	}
	v, err := s.Redemptions.Change(c.r.Context(), c.actor(), *in.ID, ch)
	if err != nil {
		return nil, err
	}
	return newRedemptionObject(&v), nil
}

func statusOnly(q url.Values) bool {
	v := q.Get("status_only")
	return v != "" && v != "false" && v != "0"
}

// statusOf reads the status that a code is to have. Which may be set is for the
// rules to say.
func statusOf(raw json.RawMessage) (redemption.Status, error) {
	var n int64
	if raw != nil && json.Unmarshal(raw, &n) != nil {
		return 0, &fault{hint: hintInteger, name: "status"}
	}
	if n < 0 || n > math.MaxInt32 { // too much for an int on some machines
		n = 0
	}
	return redemption.Status(n), nil
}

func (s *server) deleteCode(c *call) (any, error) {
	id, err := c.pathID()
	if err != nil {
		return nil, err
	}
	return nil, s.Redemptions.Delete(c.r.Context(), c.actor(), id)
}

func (s *server) deleteInvalidCodes(c *call) (any, error) {
	// It takes as long as it takes: the server's timeouts are for requests whose
	// work is bounded. Where the connection has no deadlines there is none to lift.
	rc := http.NewResponseController(c.ResponseWriter)
	_ = rc.SetReadDeadline(time.Time{})
	_ = rc.SetWriteDeadline(time.Time{})
	removed, err := s.Redemptions.DeleteInvalid(c.r.Context(), s.Work, c.actor())
	if err != nil {
		return nil, err
	}
	return removed, nil
}
