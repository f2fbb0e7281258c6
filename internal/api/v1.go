package api

import (
	"context"
	"encoding/base64"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/fleet"
	"github.com/scrip-codes/scrip/internal/refusal"
)

// routesV1 is the whole of /api/v1.
func (s *server) routesV1() []route {
	return []route{
		{"GET /api/v1/merchants", admins, s.listMerchants, refusal.Unavailable},
		{"POST /api/v1/merchants", admins, s.createMerchant, refusal.Unavailable},
		{"GET /api/v1/merchants/{id}", admins, s.getMerchant, refusal.Unavailable},
		{"PATCH /api/v1/merchants/{id}", admins, s.changeMerchant, refusal.Unavailable},

		{"GET /api/v1/machines", admins, s.listMachines, refusal.Unavailable},
		{"POST /api/v1/machines", admins, s.createMachine, refusal.Unavailable},
		{"GET /api/v1/machines/{machine_no}", admins, s.getMachine, refusal.Unavailable},
		{"PATCH /api/v1/machines/{machine_no}", admins, s.changeMachine, refusal.Unavailable},
		{"DELETE /api/v1/machines/{machine_no}", admins, s.deleteMachine, refusal.Unavailable},
		{"POST /api/v1/machines/{machine_no}/mqtt-password", admins, s.renewPassword, refusal.Unavailable},

		{"GET /api/v1/machines/{machine_no}/products", admins, s.listProducts, refusal.Unavailable},
		{"POST /api/v1/machines/{machine_no}/products", admins, s.createProduct, refusal.Unavailable},
		{"PATCH /api/v1/machines/{machine_no}/products/{id}", admins, s.changeProduct, refusal.Unavailable},
		{"DELETE /api/v1/machines/{machine_no}/products/{id}", admins, s.deleteProduct, refusal.Unavailable},

		{"GET /api/v1/machines/{machine_no}/pickup-codes", admins, s.listPickups, refusal.Unavailable},
		{"POST /api/v1/machines/{machine_no}/pickup-codes", admins, s.createPickup, refusal.Unavailable},
		{"GET /api/v1/pickup-codes/{id}", admins, s.getPickup, refusal.Unavailable},
		{"DELETE /api/v1/pickup-codes/{id}", admins, s.withdrawPickup, refusal.Unavailable},
	}
}

// bearer finds the owner of the request's access token. Neither a cookie, which a
// browser sends unasked, nor New-Api-User is looked at.
func (c *call) bearer(ctx context.Context) (account.User, error) {
	scheme, token, _ := strings.Cut(strings.TrimSpace(c.r.Header.Get("Authorization")), " ")
	token = strings.TrimSpace(token)
	if token == "" || !strings.EqualFold(scheme, "Bearer") {
		return account.User{}, &fault{hint: hintBearer}
	}
	u, err := c.s.Accounts.AuthenticateToken(ctx, token)
	if refusal.CodeOf(err) == refusal.Unauthenticated {
		return account.User{}, &fault{hint: hintBearer}
	}
	return u, err
}

// pathMachine is the machine_no in the path.
func (c *call) pathMachine() (string, error) {
	no := c.r.PathValue("machine_no")
	if !fleet.ValidNo(no) {
		return "", refusal.New(refusal.MachineNo)
	}
	return no, nil
}

// pathProduct is the machine_no and the product's id in the path.
func (c *call) pathProduct() (no string, id int64, err error) {
	if no, err = c.pathMachine(); err != nil {
		return "", 0, err
	}
	id, err = c.pathID()
	return no, id, err
}

const (
	limitDefault = 20
	limitMax     = 100
)

// stretch is the part of a list that is asked for.
type stretch struct {
	list   string // its path
	before int64  // behind the object with this id; 0: from the newest
	limit  int
}

// stretchOf reads limit and cursor. Nonsense is refused: who pages through a
// list to its end would never know that it had begun again.
func stretchOf(r *http.Request) (stretch, error) {
	q := r.URL.Query()
	s := stretch{list: r.URL.Path, limit: limitDefault}
	if text := q.Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > limitMax {
			return stretch{}, &fault{hint: hintLimit}
		}
		s.limit = n
	}
	if text := q.Get("cursor"); text != "" {
		before, err := s.readCursor(text)
		if err != nil {
			return stretch{}, err
		}
		s.before = before
	}
	return s, nil
}

// more is how many rows to look for: one beyond the limit tells whether the list
// goes on.
func (s *stretch) more() int { return s.limit + 1 }

// cursorSum is how many bytes of a cursor hold it to its list.
const cursorSum = 4

// cursor is where the stretch behind the object with that id begins.
func (s *stretch) cursor(id int64) string {
	text := strconv.FormatInt(id, 10)
	sum := scopeOf("cursor", s.list, text)
	return base64.RawURLEncoding.EncodeToString(append(sum[:cursorSum], text...))
}

// readCursor refuses what cursor has not made for this list.
func (s *stretch) readCursor(text string) (int64, error) {
	b, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil || len(b) <= cursorSum {
		return 0, refusal.New(refusal.InvalidCursor)
	}
	id, err := strconv.ParseInt(string(b[cursorSum:]), 10, 64)
	if err != nil || id < 1 || s.cursor(id) != text {
		return 0, refusal.New(refusal.InvalidCursor)
	}
	return id, nil
}

// listing is a stretch of a list as it is sent.
type listing[T any] struct {
	Items []T     `json:"items"`
	Next  *string `json:"next_cursor"`
}

// newListing makes a stretch of rows, each as the API shows it.
func newListing[R, T any](s stretch, rows []R, id func(*R) int64, object func(*R) T) listing[T] {
	var l listing[T]
	if len(rows) > s.limit {
		rows = rows[:s.limit]
		l.Next = new(s.cursor(id(&rows[s.limit-1])))
	}
	l.Items = make([]T, len(rows))
	for i := range rows {
		l.Items[i] = object(&rows[i])
	}
	return l
}

// moment is a time as /api/v1 writes it: RFC 3339 in UTC, to the millisecond.
func moment(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

// momentOrNull is moment for a time that may not have come.
func momentOrNull(t time.Time) *string {
	if t.IsZero() {
		return nil
	}
	return new(moment(t))
}

// isEmpty reports whether a member is there and empty, which is not to be left
// out.
func isEmpty[T ~string](member *T) bool { return member != nil && *member == "" }

// orZero is what a member says; one left out says zero.
func orZero[T any](member *T) (v T) {
	if member != nil {
		v = *member
	}
	return v
}
