package api

import (
	"encoding/json"
	"net/http"

	"github.com/scrip-codes/scrip/internal/refusal"
)

// problem is the form of a refusal on /api/v1: RFC 9457, with a code for
// programs and the request's name in the log.
type problem struct {
	Type      string       `json:"type"`
	Title     string       `json:"title"`
	Status    int          `json:"status"`
	Detail    string       `json:"detail"`
	Code      refusal.Code `json:"code"`
	RequestID string       `json:"request_id"`
}

func (c *call) problem(a *answer, detail string) []byte {
	body, err := json.Marshal(problem{
		Type: "about:blank", Title: http.StatusText(a.status), Status: a.status,
		Detail: detail, Code: a.code, RequestID: c.id,
	})
	if err != nil {
		panic(err) // texts and a number always marshal
	}
	return body
}
