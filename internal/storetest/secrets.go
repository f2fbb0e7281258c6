package storetest

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/fleet"
	"github.com/scrip-codes/scrip/internal/guess"
	"github.com/scrip-codes/scrip/internal/keyring"
	"github.com/scrip-codes/scrip/internal/pickup"
	"github.com/scrip-codes/scrip/internal/redemption"
	"github.com/scrip-codes/scrip/internal/refusal"
)

// Secrets looks for keys, digits, tokens and passwords in an empty database,
// after they have been through everything. Look returns what whoever steals the
// database gets; before and after the handle on it is closed.
func Secrets(t *testing.T, open Opener, look func() []byte) {
	t.Helper()
	w := newWorld(t, func(*testing.T) Opener { return open })
	const password = "correct horse battery staple"
	secrets := map[string]string{"the password": password, "the secret": testSecret, "the root token": rootToken}
	ann, err := w.accounts.Create(w.ctx, w.root, account.CreateRequest{
		Username: "ann", Password: password, Token: account.NewToken(),
	})
	w.check(err)
	by := account.Actor{ID: ann.ID, Role: account.RoleUser, Address: "198.51.100.7"}
	_, session, err := w.accounts.Login(w.ctx, "ann", password, by.Address)
	w.check(err)
	secrets["the session"] = session
	for i := range 3 {
		token, err := w.accounts.RenewToken(w.ctx, by, ann.ID)
		w.check(err)
		secrets[fmt.Sprint("token ", i)] = token
	}
	w.enter(by, secrets)
	w.spend(by, secrets)
	w.vend(secrets)
	w.lookFor(secrets, look())
	w.check(w.engine.Rotate(w.ctx, nil))
	if e, ok := w.engine.(interface {
		Checkpoint(ctx context.Context) error
	}); ok {
		w.check(e.Checkpoint(w.ctx))
	}
	w.clock.Add(time.Hour)
	_, err = w.codes.DeleteInvalid(w.ctx, w.ctx, w.root)
	w.check(err)
	w.clock.Add(24 * time.Hour)
	w.check(w.pickups.Sweep(w.ctx))
	w.lookFor(secrets, look())
	w.check(w.engine.Close())
	w.lookFor(secrets, look())
}

// enter adds links that set a password, used and not, and what people type in the
// wrong field.
func (w *world) enter(by account.Actor, secrets map[string]string) {
	w.Helper()
	const next, typed = "another horse, another battery", "a password typed as a username"
	secrets["the next password"], secrets["the password in the wrong field"] = next, typed
	for i := range 2 {
		link, _, err := w.accounts.NewLink(w.ctx, w.root, by.ID)
		w.check(err)
		secrets[fmt.Sprint("link ", i)] = link
		if i == 0 {
			_, secrets["the session of a link"], err = w.accounts.SetPasswordByLink(w.ctx, link, next, by.Address)
			w.check(err)
		}
	}
	limiter := guess.New(20, guessWindow, w.clock.Now)
	if _, shares := w.engine.(guess.Store); shares {
		limiter = w.shared("logins", 20)
	}
	_, _, err := account.NewService(w.engine, limiter, w.clock.Now).Login(w.ctx, typed, "x", by.Address)
	w.refused(err, refusal.AccountWrongPassword)
}

// spend adds the keys of a batch that are used in every way.
func (w *world) spend(by account.Actor, secrets map[string]string) {
	w.Helper()
	var keys []string
	w.check(w.engine.Keys().Use(w.ctx, func(ring *keyring.Ring) (err error) {
		keys, err = w.codes.Issue(w.ctx, w.root, redemption.IssueRequest{
			Name: "visible name", Count: 40, Quota: 5, Once: w.once(ring, "issue", ""),
		})
		return err
	}))
	for i, key := range keys {
		secrets[fmt.Sprint("key ", i)] = key
		var err error
		switch i % 4 {
		case 0:
			_, err = w.codes.Redeem(w.ctx, by, " "+strings.ToUpper(key), nil)
		case 1:
			w.disable(int64(i + 1))
		case 2:
			err = w.codes.Delete(w.ctx, w.root, int64(i+1))
		case 3:
			if _, _, err = w.codes.Search(w.ctx, w.root, key, redemption.FilterAll, 0, 5); err == nil {
				_, err = w.codes.Reveal(w.ctx, w.root, []int64{int64(i + 1)})
			}
		}
		w.check(err)
	}
}

// vend adds the secrets of a merchant, its machine and its pickup codes, which it
// uses in every way.
func (w *world) vend(secrets map[string]string) {
	w.Helper()
	const appKey, machineKey = "the app key of the merchant", "the machine's own password"
	secrets["the app key"], secrets["the machine's password"] = appKey, machineKey
	owner, err := w.fleet.CreateMerchant(w.ctx, w.root, fleet.Merchant{Name: "owner", AppKey: appKey}, nil)
	w.check(err)
	m, err := w.fleet.CreateMachine(w.ctx, w.root, fleet.Machine{
		MerchantID: owner.ID, No: visibleNo, Name: "n", Zone: "UTC", PurchaseLimit: 3, PickupCodes: true,
	}, machineKey, nil)
	w.check(err)
	w.product(m, 1)
	_, err = w.fleet.Login(w.ctx, m.No, machineKey, "203.0.113.9")
	w.check(err)
	w.check(w.fleet.RenewPassword(w.ctx, w.root, m.No, "the machine's next password", nil))
	secrets["the machine's next password"] = "the machine's next password"
	_, err = w.fleet.ChangeMerchant(w.ctx, w.root, m.MerchantID, fleet.MerchantChange{AppKey: new("the merchant's next app key")})
	w.check(err)
	secrets["the next app key"] = "the merchant's next app key"
	w.check(w.engine.Keys().Use(w.ctx, func(ring *keyring.Ring) error {
		c, err := w.pickups.Create(w.ctx, w.root, pickup.Request{
			MachineNo: m.No, ProductID: 1, Quantity: 1, Once: w.once(ring, "pickup", ""),
		})
		secrets["the digits of an answer"] = c.Digits
		return err
	}))
	for i := range 20 {
		c := w.pickup(m, 1)
		secrets[fmt.Sprint("the digits of code ", c.ID)] = c.Digits
		secrets[fmt.Sprint("what is sealed of code ", c.ID)] = m.No + c.Digits
		switch i % 3 {
		case 0:
			w.withdraw(c.ID)
		case 1:
			_, err := w.pickups.Used(w.ctx, m.ID, c.ID, "203.0.113.9", w.clock.Now())
			w.check(err)
		}
	}
}

// visibleNo is the number of the machine, which is no secret.
const visibleNo = "16327138"

func (w *world) lookFor(secrets map[string]string, all []byte) {
	w.Helper()
	if !bytes.Contains(all, []byte("visible name")) || !bytes.Contains(all, []byte(visibleNo)) {
		w.Fatal("what is not secret is not found either: this looks in the wrong place")
	}
	for name, text := range secrets {
		forms := map[string][]byte{
			"as it is": []byte(text), "in capitals": []byte(strings.ToUpper(text)),
			"in hex": []byte(hex.EncodeToString([]byte(text))), "in base64": []byte(base64.RawStdEncoding.EncodeToString([]byte(text))),
		}
		if raw, err := hex.DecodeString(text); err == nil && len(raw) >= 8 { // fewer bytes stand anywhere by chance
			forms["as raw bytes"] = raw
			forms["as raw bytes in base64"] = []byte(base64.RawStdEncoding.EncodeToString(raw))
		}
		for form, b := range forms {
			if bytes.Contains(all, b) {
				w.Errorf("%s stands in the database, %s", name, form)
			}
		}
	}
}
