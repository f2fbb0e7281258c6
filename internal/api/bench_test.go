package api

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/enginetest"
	"github.com/scrip-codes/scrip/internal/guess"
	"github.com/scrip-codes/scrip/internal/redemption"
	"github.com/scrip-codes/scrip/internal/storetest"
)

// instant is a store that answers a redeem at once: what is left is the cost of
// the handler.
type instant struct{ storetest.Engine }

func (instant) UserByToken(context.Context, account.Hash) (account.User, error) {
	return account.User{ID: 7, Role: account.RoleUser, Status: account.StatusEnabled}, nil
}

func (instant) Redeem(context.Context, redemption.Attempt) (int64, error) { return 500, nil }

func BenchmarkTopUp(b *testing.B) {
	now := func() time.Time { return time.Unix(start, 0) }
	db, err := enginetest.New(b, b.TempDir()).Open(b.Context(), storetest.Options{Secrets: []string{"secret"}, Now: now})
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close() //nolint:errcheck // nothing was written
	store := instant{db}
	h := New(Config{
		Accounts:    account.NewService(store, nil, now),
		Redemptions: redemption.NewService(store, db.Keys(), guess.New(20, time.Minute, now), now),
		Keys:        db.Keys(), Log: slog.New(slog.DiscardHandler), Now: now, Registry: prometheus.NewRegistry(), Work: b.Context(),
	})
	b.ReportAllocs()
	for b.Loop() {
		r := httptest.NewRequestWithContext(b.Context(), "POST", "/api/user/topup", strings.NewReader(`{"key":"5f0c1d7a9be24c3f8a61d2e4b7c90f13"}`))
		r.Header["Authorization"] = []string{"Bearer 9d3c5e0f1a7b42d68c9e0b1f2a3d4c5e"}
		r.Header["New-Api-User"] = []string{"7"}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), `"data":500`) {
			b.Fatal(w.Body)
		}
	}
}
