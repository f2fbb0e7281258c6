package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/scrip-codes/scrip/internal/refusal"
)

// surface is a part of the API with answers of its own form.
type surface int

const (
	dropIn surface = iota // for existing clients: envelopes, and HTTP 200 for nearly all
	v1                    // our own: objects, problems and real statuses
)

func surfaceOf(path string) surface {
	if path == "/api/v1" || strings.HasPrefix(path, "/api/v1/") {
		return v1
	}
	return dropIn
}

// tongue is the language of those who do not say which they like: Chinese is
// what existing clients show as it comes.
func (s surface) tongue() tongue {
	if s == v1 {
		return english
	}
	return chinese
}

func (s surface) contentType(a *answer) string {
	if s == v1 && a.code != "" {
		return "application/problem+json"
	}
	return "application/json; charset=utf-8"
}

// envelope is the form of every answer of the drop-in surface.
type envelope struct {
	Success bool         `json:"success"`
	Message string       `json:"message"`
	Code    refusal.Code `json:"code,omitempty"`
	Data    any          `json:"data,omitempty"`
}

// created is a new object of /api/v1, and the path that it has from now on.
type created struct {
	location string
	object   any
}

// answer is what is sent.
type answer struct {
	status   int
	code     refusal.Code // empty for a success
	lang     tongue
	location string // of what was created
	body     []byte
	wait     time.Duration
	replayed bool
}

// success is the answer to a request that was done. Data may be a created, and
// is nil for none.
func (c *call) success(data any) (answer, error) {
	a := answer{status: http.StatusOK, lang: c.lang}
	if c.surface == dropIn {
		data = envelope{Success: true, Data: data}
	}
	switch d := data.(type) {
	case nil:
		a.status = http.StatusNoContent
		return a, nil
	case created:
		a.status, a.location, data = http.StatusCreated, d.location, d.object
	}
	body, err := json.Marshal(data)
	if err != nil {
		return answer{}, fmt.Errorf("encoding the answer: %w", err)
	}
	a.body = body
	return a, nil
}

// refusalAnswer is what a refusal is answered with: its statuses, its words, and
// the drop-in surface's body in each language, made once.
type refusalAnswer struct {
	status statusPair
	words  words
	bodies [tongues][]byte
}

func refusalAnswers() map[refusal.Code]refusalAnswer {
	texts := messages()
	out := make(map[refusal.Code]refusalAnswer, len(texts))
	for code, status := range statuses() {
		a := refusalAnswer{status: status, words: texts[code]}
		for l := range tongues {
			a.bodies[l] = refusalBody(code, a.words.in(l))
		}
		out[code] = a
	}
	return out
}

func refusalBody(code refusal.Code, message string) []byte {
	body, err := json.Marshal(envelope{Message: message, Code: code})
	if err != nil {
		panic(err) // two strings always marshal
	}
	return body
}

// refuse is the answer to a refusal.
func (c *call) refuse(e *refusal.Error) answer {
	r := c.s.refusals[e.Code]
	a := answer{status: r.status.on(c.surface), code: e.Code, lang: c.lang, wait: e.RetryAfter}
	if a.status == http.StatusTooManyRequests || a.status == http.StatusServiceUnavailable {
		a.wait = max(a.wait, time.Second)
	}
	if c.surface == v1 {
		a.body = c.problem(&a, r.words.in(c.lang))
	} else {
		a.body = r.bodies[c.lang]
	}
	return a
}

// explain is refuse, with the words of a fault if err is one.
func (c *call) explain(e *refusal.Error, err error) answer {
	a := c.refuse(e)
	f, ok := errors.AsType[*fault](err)
	if !ok {
		return a
	}
	text := f.in(c.s.hints, c.lang)
	if c.surface == v1 {
		a.body = c.problem(&a, text)
	} else {
		a.body = refusalBody(e.Code, text)
	}
	return a
}

func asRefusal(err error) (*refusal.Error, bool) { return errors.AsType[*refusal.Error](err) }

// statusPair is the HTTP status of a refusal on each surface.
type statusPair struct{ dropIn, v1 int }

func (p statusPair) on(s surface) int {
	if s == v1 {
		return p.v1
	}
	return p.dropIn
}

// statuses is the HTTP status of each refusal, on the drop-in surface and on
// /api/v1. Clients of the first read success from the body, so nearly all are
// 200 there. What a surface has no reason to say has a status there too.
func statuses() map[refusal.Code]statusPair {
	return map[refusal.Code]statusPair{
		refusal.Unauthenticated:       {http.StatusUnauthorized, http.StatusUnauthorized},
		refusal.Forbidden:             {http.StatusForbidden, http.StatusForbidden},
		refusal.NoRoute:               {http.StatusNotFound, http.StatusNotFound},
		refusal.MethodNotAllowed:      {http.StatusMethodNotAllowed, http.StatusMethodNotAllowed},
		refusal.BodyTooLarge:          {http.StatusRequestEntityTooLarge, http.StatusRequestEntityTooLarge},
		refusal.AccountTooManyGuesses: {http.StatusTooManyRequests, http.StatusTooManyRequests},
		refusal.TooBusy:               {http.StatusTooManyRequests, http.StatusTooManyRequests},

		refusal.InvalidJSON:            {http.StatusOK, http.StatusBadRequest},
		refusal.NotUTF8:                {http.StatusOK, http.StatusBadRequest},
		refusal.InvalidRequest:         {http.StatusOK, http.StatusUnprocessableEntity},
		refusal.InvalidCursor:          {http.StatusOK, http.StatusUnprocessableEntity},
		refusal.IdempotencyKeyTooLong:  {http.StatusOK, http.StatusUnprocessableEntity},
		refusal.IdempotencyKeyReused:   {http.StatusOK, http.StatusUnprocessableEntity},
		refusal.IdempotencyKeyBusy:     {http.StatusOK, http.StatusConflict},
		refusal.Unavailable:            {http.StatusOK, http.StatusServiceUnavailable},
		refusal.RedemptionListFailed:   {http.StatusOK, http.StatusServiceUnavailable},
		refusal.RedemptionSearchFailed: {http.StatusOK, http.StatusServiceUnavailable},
		refusal.RedemptionDeleteFailed: {http.StatusOK, http.StatusServiceUnavailable},

		refusal.RedemptionNotFound:       {http.StatusOK, http.StatusNotFound},
		refusal.RedemptionKeyMissing:     {http.StatusOK, http.StatusUnprocessableEntity},
		refusal.RedemptionUnknown:        {http.StatusOK, http.StatusNotFound},
		refusal.RedemptionUsed:           {http.StatusOK, http.StatusConflict},
		refusal.RedemptionUsedByYou:      {http.StatusOK, http.StatusConflict},
		refusal.RedemptionDisabled:       {http.StatusOK, http.StatusConflict},
		refusal.RedemptionExpired:        {http.StatusOK, http.StatusConflict},
		refusal.RedemptionNameLength:     {http.StatusOK, http.StatusUnprocessableEntity},
		refusal.RedemptionNameCharacters: {http.StatusOK, http.StatusUnprocessableEntity},
		refusal.RedemptionCountTooSmall:  {http.StatusOK, http.StatusUnprocessableEntity},
		refusal.RedemptionCountTooLarge:  {http.StatusOK, http.StatusUnprocessableEntity},
		refusal.RedemptionQuota:          {http.StatusOK, http.StatusUnprocessableEntity},
		refusal.RedemptionExpiry:         {http.StatusOK, http.StatusUnprocessableEntity},
		refusal.RedemptionExpiryRange:    {http.StatusOK, http.StatusUnprocessableEntity},
		refusal.RedemptionStatus:         {http.StatusOK, http.StatusUnprocessableEntity},
		refusal.RedemptionUsedUnchanging: {http.StatusOK, http.StatusConflict},

		refusal.MerchantNotFound:     {http.StatusOK, http.StatusNotFound},
		refusal.MerchantName:         {http.StatusOK, http.StatusUnprocessableEntity},
		refusal.MerchantAppKey:       {http.StatusOK, http.StatusUnprocessableEntity},
		refusal.MerchantPayload:      {http.StatusOK, http.StatusUnprocessableEntity},
		refusal.MerchantSignature:    {http.StatusOK, http.StatusUnprocessableEntity},
		refusal.MerchantExpiryUnit:   {http.StatusOK, http.StatusUnprocessableEntity},
		refusal.MachineNotFound:      {http.StatusOK, http.StatusNotFound},
		refusal.MachineNo:            {http.StatusOK, http.StatusUnprocessableEntity},
		refusal.MachineNoTaken:       {http.StatusOK, http.StatusConflict},
		refusal.MachineName:          {http.StatusOK, http.StatusUnprocessableEntity},
		refusal.MachineZone:          {http.StatusOK, http.StatusUnprocessableEntity},
		refusal.MachinePurchaseLimit: {http.StatusOK, http.StatusUnprocessableEntity},
		refusal.MachineWrongPassword: {http.StatusOK, http.StatusForbidden},
		refusal.ProductNotFound:      {http.StatusOK, http.StatusNotFound},
		refusal.ProductID:            {http.StatusOK, http.StatusUnprocessableEntity},
		refusal.ProductIDTaken:       {http.StatusOK, http.StatusConflict},
		refusal.ProductName:          {http.StatusOK, http.StatusUnprocessableEntity},
		refusal.ProductSlot:          {http.StatusOK, http.StatusUnprocessableEntity},
		refusal.PickupNotFound:       {http.StatusOK, http.StatusNotFound},
		refusal.PickupQuantity:       {http.StatusOK, http.StatusUnprocessableEntity},
		refusal.PickupTTL:            {http.StatusOK, http.StatusUnprocessableEntity},
		refusal.PickupMachineOff:     {http.StatusOK, http.StatusConflict},
		refusal.PickupOverLimit:      {http.StatusOK, http.StatusUnprocessableEntity},
		refusal.PickupProductHasLive: {http.StatusOK, http.StatusConflict},
		refusal.PickupTooManyLive:    {http.StatusOK, http.StatusConflict},
		refusal.PickupUsed:           {http.StatusOK, http.StatusConflict},
		refusal.PickupExpired:        {http.StatusOK, http.StatusConflict},

		refusal.AccountNotFound:      {http.StatusOK, http.StatusNotFound},
		refusal.AccountNameTaken:     {http.StatusOK, http.StatusConflict},
		refusal.AccountNameInvalid:   {http.StatusOK, http.StatusUnprocessableEntity},
		refusal.AccountDisplayName:   {http.StatusOK, http.StatusUnprocessableEntity},
		refusal.AccountPassword:      {http.StatusOK, http.StatusUnprocessableEntity},
		refusal.AccountRole:          {http.StatusOK, http.StatusUnprocessableEntity},
		refusal.AccountRoleTooHigh:   {http.StatusOK, http.StatusForbidden},
		refusal.AccountQuota:         {http.StatusOK, http.StatusUnprocessableEntity},
		refusal.AccountLastRoot:      {http.StatusOK, http.StatusConflict},
		refusal.AccountBalanceFull:   {http.StatusOK, http.StatusConflict},
		refusal.AccountWrongPassword: {http.StatusOK, http.StatusUnprocessableEntity},
		refusal.AccountDisabled:      {http.StatusOK, http.StatusForbidden},
	}
}
