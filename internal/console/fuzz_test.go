package console_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/console"
)

// FuzzConsole: whatever is sent to whichever page, it is done or refused: never is
// it a failure of ours.
func FuzzConsole(f *testing.F) {
	p := newPeople(f)
	p.config.Verify = nil // it is not what is looked at
	h, err := console.New(p.config)
	if err != nil {
		f.Fatal(err)
	}
	if _, err := p.fleet.CreateMerchant(f.Context(), account.Operator(), fleet.Merchant{Name: "Acme"}, nil); err != nil {
		f.Fatal(err)
	}
	if _, err := p.fleet.CreateMachine(f.Context(), account.Operator(), fleet.Machine{
		MerchantID: 1, No: machineNo, Name: "Lobby", Zone: "Asia/Tokyo", PurchaseLimit: 2, PickupCodes: true,
	}, fleet.NewPassword(), nil); err != nil {
		f.Fatal(err)
	}
	p.batch(f, "spring", 3, time.Time{})
	var routes []console.Route
	for _, rt := range console.Routes() {
		switch rt.Path {
		case "/ledger/verify", "/ledger/verify/stop": // go on by themselves
		case "/signout", "/users/{id}/signout", "/users/{id}/status", "/users/{id}/role", "/users/{id}/token", "/account/password": // would end what follows
		default:
			routes = append(routes, rt)
		}
	}
}
