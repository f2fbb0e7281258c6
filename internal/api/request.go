package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"math"
	"net/http"
	"net/url"
	"reflect"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/refusal"
)

const (
	bodyMax = 1 << 20 // bytes
	// A body beyond bodySmall, which hardly any request needs, is read only in
	// one of largeBodies places: anyone can send one on each of ten thousand
	// connections.
	bodySmall     = 16 << 10
	largeBodies   = 16
	sessionCookie = "scrip_session"
)

// credentials reads who sent the request: a token, with or without "Bearer"
// before it, or the session cookie, and in both cases the id that the sender
// claims. A page of another site can make a browser send the cookie, but not
// New-Api-User.
func credentials(r *http.Request) account.Credentials {
	id, _ := strconv.ParseInt(strings.TrimSpace(r.Header.Get("New-Api-User")), 10, 64) // 0 is nobody
	c := account.Credentials{UserID: id, Token: strings.TrimSpace(r.Header.Get("Authorization"))}
	if scheme, token, _ := strings.Cut(c.Token, " "); strings.EqualFold(scheme, "Bearer") {
		c.Token = strings.TrimSpace(token)
	}
	if c.Token == "" {
		if cookie, err := r.Cookie(sessionCookie); err == nil {
			c.Session = cookie.Value
		}
	}
	return c
}

// readBody reads the whole body, once.
func (c *call) readBody() ([]byte, error) {
	if c.body != nil {
		return c.body, nil
	}
	body, err := io.ReadAll(io.LimitReader(c.r.Body, bodySmall+1)) // grows with what comes
	if err == nil && len(body) > bodySmall {
		if !c.takePlace() {
			return nil, c.hangUp(refusal.TooBusy)
		}
		body, err = io.ReadAll(io.MultiReader(bytes.NewReader(body), io.LimitReader(c.r.Body, bodyMax-bodySmall)))
	}
	if err != nil {
		return nil, &fault{hint: hintBody}
	}
	if len(body) > bodyMax {
		return nil, c.hangUp(refusal.BodyTooLarge)
	}
	c.body = body
	return body, nil
}

// takePlace takes a place for a large body, if one is free. It is kept until
// the answer is made, as what is read of the body is.
func (c *call) takePlace() bool {
	select {
	case c.s.places <- struct{}{}:
		c.placed = true
	default:
	}
	return c.placed
}

func (c *call) leavePlace() {
	if c.placed {
		c.placed = false
		<-c.s.places
	}
}

// hangUp refuses a body that is not read to its end. A client that is still
// sending may not look for an answer before it is done: take a little more,
// keep none of it, then hang up.
func (c *call) hangUp(code refusal.Code) error {
	_, _ = io.CopyN(io.Discard, c.r.Body, bodyMax)
	c.Header().Set("Connection", "close")
	return refusal.New(code)
}

// decode reads the body into a struct.
func (c *call) decode(into any) error {
	body, err := c.readBody()
	if err != nil {
		return err
	}
	return decodeObject(body, into)
}

// decodeObject reads one JSON object, and nothing after it, into a struct.
// Members that the struct does not have are ignored, and so is null, which
// stands for a member left out.
func decodeObject(body []byte, into any) error {
	if !utf8.Valid(body) {
		return refusal.New(refusal.NotUTF8)
	}
	if first := bytes.TrimLeft(body, " \t\r\n"); len(first) > 0 && first[0] != '{' && json.Valid(body) {
		return &fault{hint: hintObject}
	}
	err := json.Unmarshal(body, into)
	if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return &fault{hint: hintFor(e.Type.Kind()), name: e.Field}
	}
	if err != nil {
		return refusal.New(refusal.InvalidJSON)
	}
	return nil
}

// hintFor is what to say of a member that is not of that kind.
func hintFor(k reflect.Kind) hint {
	if k == reflect.String {
		return hintText
	}
	if k == reflect.Bool {
		return hintTruth
	}
	return hintInteger
}

// pathID is the id in the path: digits, and nothing else.
func (c *call) pathID() (int64, error) {
	text := c.r.PathValue("id")
	id, err := strconv.ParseInt(text, 10, 64)
	if err != nil || text[0] == '+' {
		return 0, &fault{hint: hintPathID}
	}
	return id, nil
}

const (
	pageSizeDefault = 20
	pageSizeMax     = 100
)

// pageNumber says which page of a list is asked for, from 1.
type pageNumber struct{ page, size int64 }

// pageOf reads p and page_size. Nonsense falls back to the default; numbers
// past 64 bits are the greatest of them, which is past the end anyway.
func pageOf(q url.Values) pageNumber {
	return pageNumber{
		page: positive(q.Get("p"), 1),
		size: min(positive(q.Get("page_size"), pageSizeDefault), pageSizeMax),
	}
}

func positive(text string, otherwise int64) int64 {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) || n <= 0 {
		return otherwise
	}
	return n
}

// offset is how many rows stand before the page. It leaves room to add a size
// to it.
func (p pageNumber) offset() int64 {
	const most = math.MaxInt64 - pageSizeMax
	if p.page-1 > most/p.size {
		return most
	}
	return (p.page - 1) * p.size
}

// page is one page of a list as it is sent.
type page[T any] struct {
	Items    []T   `json:"items"`
	Total    int64 `json:"total"`
	Page     int64 `json:"page"`
	PageSize int64 `json:"page_size"`
}

// newPage makes a page of rows, each as the API shows it.
func newPage[R, T any](rows []R, total int64, p pageNumber, object func(*R) T) page[T] {
	items := make([]T, len(rows))
	for i := range rows {
		items[i] = object(&rows[i])
	}
	return page[T]{Items: items, Total: total, Page: p.page, PageSize: p.size}
}

// unix is a time as the API writes it: 0 for none.
func unix(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}

// fromUnix reads a time as the API writes it. What no calendar holds becomes
// something in the same direction that time.Time does: the rules refuse both.
func fromUnix(seconds int64) time.Time {
	if seconds == 0 {
		return time.Time{}
	}
	const beyond = 1 << 40 // year 36812
	return time.Unix(min(max(seconds, -1), beyond), 0)
}
