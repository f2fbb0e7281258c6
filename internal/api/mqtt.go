package api

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"

	"github.com/scrip-codes/scrip/internal/fleet"
	"github.com/scrip-codes/scrip/internal/refusal"
)

// MQTT is what a broker that is not ours may ask: who may log in to it, and what
// they may do there.
type MQTT struct {
	// Token is what the broker shows; empty: it may not ask.
	Token string
	// Username and Password are those of Scrip itself, who may do everything;
	// empty: there is no such login.
	Username, Password string
	// Subscribes is told of a machine that subscribes to its topic.
	Subscribes func(machine int64)
}

// questionMax bounds a broker's question in bytes.
const questionMax = 16 << 10

// The topics. A machine hears on its own and speaks on the server's.
const (
	mqttServerTopic  = "/server/app"
	mqttClientTopics = "/clients/"
)

// question is what a broker asks, and verdict what it is answered, as EMQX has
// both.
type question struct {
	ClientID string `json:"clientid"`
	Username string `json:"username"`
	Password string `json:"password"`
	Peerhost string `json:"peerhost"`
	Topic    string `json:"topic"`
	Action   string `json:"action"`
}

type verdict struct {
	Result    string `json:"result"`
	Superuser bool   `json:"is_superuser"`
}

// asked lets brokers ask who have the token. What is no question at all is
// answered no: any status but 200 would have a broker go on to whom it asks next.
// An error is a failure of ours.
func (s *server) asked(answer func(context.Context, *question) (verdict, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		c := w.(*call) // New passes nothing else
		if s.MQTT.Token == "" {
			plainText(w, http.StatusNotFound, "SCRIP_MQTT_AUTH_TOKEN is not set\n")
			return
		}
		if !same(credentials(r).Token, s.MQTT.Token) {
			w.Header().Set("WWW-Authenticate", "Bearer")
			plainText(w, http.StatusUnauthorized, "the token is not that in SCRIP_MQTT_AUTH_TOKEN\n")
			return
		}
		var v verdict
		body, err := io.ReadAll(io.LimitReader(r.Body, questionMax+1))
		var q question
		if err == nil && len(body) <= questionMax && json.Unmarshal(body, &q) == nil {
			if v, err = answer(r.Context(), &q); err != nil {
				s.Log.LogAttrs(r.Context(), slog.LevelError, "answering an MQTT broker", slog.String("request_id", c.id), slog.Any("error", err))
				plainText(w, http.StatusServiceUnavailable, "the database does not answer\n")
				return
			}
		}
		if v.Result == "" {
			v.Result = "deny"
		}
		text, err := json.Marshal(v)
		if err != nil {
			panic(err) // a text and a truth always marshal
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		_, _ = w.Write(text) // a client that is gone needs no answer
	}
}

// same compares secrets, and takes as long whatever they are.
func same(a, b string) bool {
	x, y := sha256.Sum256([]byte(a)), sha256.Sum256([]byte(b))
	return subtle.ConstantTimeCompare(x[:], y[:]) == 1
}

// mayLogIn answers who may: Scrip itself, and machines with their password. A
// machine's client id is its number too: one with another's would end, or get,
// the session of that.
func (s *server) mayLogIn(ctx context.Context, q *question) (verdict, error) {
	if s.MQTT.Username != "" && s.MQTT.Password != "" && same(q.Username, s.MQTT.Username) {
		if same(q.Password, s.MQTT.Password) {
			return verdict{Result: "allow", Superuser: true}, nil
		}
		return verdict{}, nil
	}
	if q.ClientID != q.Username {
		return verdict{}, nil
	}
	_, err := s.Fleet.Login(ctx, q.Username, q.Password, q.Peerhost)
	if err == nil {
		return verdict{Result: "allow"}, nil
	}
	if _, refused := asRefusal(err); refused {
		return verdict{}, nil
	}
	return verdict{}, err
}

// mayUse answers who may use which topic.
func (s *server) mayUse(ctx context.Context, q *question) (verdict, error) {
	if !fleet.ValidNo(q.Username) || q.ClientID != q.Username {
		return verdict{}, nil
	}
	switch {
	case q.Action == "publish" && q.Topic == mqttServerTopic:
		return verdict{Result: "allow"}, nil
	case q.Action != "subscribe" || q.Topic != mqttClientTopics+q.Username:
		return verdict{}, nil
	}
	machine, _, err := s.Fleet.Speaker(ctx, q.Username)
	if refusal.CodeOf(err) == refusal.MachineNotFound {
		return verdict{}, nil
	}
	if err != nil {
		return verdict{}, err
	}
	s.MQTT.Subscribes(machine)
	return verdict{Result: "allow"}, nil
}
