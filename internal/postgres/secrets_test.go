package postgres_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/fleet"
	"github.com/scrip-codes/scrip/internal/keyring"
	"github.com/scrip-codes/scrip/internal/pickup"
	"github.com/scrip-codes/scrip/internal/redemption"
)

// TestSecretsAtRest looks for keys, digits, tokens and passwords in a dump of the
// database and in what the server logs, after they have been through everything.
func TestSecretsAtRest(t *testing.T) {
	f := newFixture(t)
	const password = "correct horse battery staple"
	secrets := map[string]string{"the password": password, "the secret": secret, "the root token": "the root token"}
	ann, err := f.accounts.Create(f.ctx, f.root, account.CreateRequest{Username: "ann", Password: password, Token: account.NewToken()})
	f.check(err)
	by := account.Actor{ID: ann.ID, Role: account.RoleUser, Address: "198.51.100.7"}
	_, session, err := f.accounts.Login(f.ctx, "ann", password, by.Address)
	f.check(err)
	secrets["the session"] = session
	for i := range 3 {
		token, err := f.accounts.RenewToken(f.ctx, by, ann.ID)
		f.check(err)
		secrets[fmt.Sprint("token ", i)] = token
	}
	var keys []string
	f.check(f.db.Keys().Use(f.ctx, func(ring *keyring.Ring) (err error) {
		keys, err = f.codes.Issue(f.ctx, f.root, redemption.IssueRequest{
			Name: "visible name", Count: 40, Quota: 5, Once: f.once(ring, "issue"),
		})
		return err
	}))
	for i, key := range keys {
		secrets[fmt.Sprint("key ", i)] = key
		switch i % 4 {
		case 0:
			_, err = f.codes.Redeem(f.ctx, by, " "+strings.ToUpper(key), nil)
		case 1:
			_, err = f.codes.Change(f.ctx, f.root, int64(i+1), disabling())
		case 2:
			err = f.codes.Delete(f.ctx, f.root, int64(i+1))
		case 3:
			_, _, err = f.codes.Search(f.ctx, f.root, key, redemption.FilterAll, 0, 5)
		}
		f.check(err)
	}
	f.vend(secrets)
	f.lookFor(secrets)
	f.check(f.db.Rotate(f.ctx, nil))
	f.check(f.db.Checkpoint(f.ctx))
	f.clock.Add(time.Hour)
	_, err = f.codes.DeleteInvalid(f.ctx, f.ctx, f.root)
	f.check(err)
	f.clock.Add(24 * time.Hour)
	f.check(f.pickups.Sweep(f.ctx))
	f.lookFor(secrets)
}

// vend adds the secrets of a merchant, its machine and its pickup codes, which it
// uses in every way.
func (f *fixture) vend(secrets map[string]string) {
	f.Helper()
	m := f.machine()
	secrets["the app key"], secrets["the machine's password"] = appKey, machineKey
	_, err := f.fleet.Login(f.ctx, m.No, machineKey, "203.0.113.9")
	f.check(err)
	f.check(f.fleet.RenewPassword(f.ctx, f.root, m.No, "the machine's next password", nil))
	secrets["the machine's next password"] = "the machine's next password"
	_, err = f.fleet.ChangeMerchant(f.ctx, f.root, m.MerchantID, fleet.MerchantChange{AppKey: new("the merchant's next app key")})
	f.check(err)
	secrets["the next app key"] = "the merchant's next app key"
	f.check(f.db.Keys().Use(f.ctx, func(ring *keyring.Ring) error {
		c, err := f.pickups.Create(f.ctx, f.root, pickup.Request{
			MachineNo: m.No, ProductID: 1, Quantity: 1, Once: f.once(ring, "pickup"),
		})
		secrets["the digits of an answer"] = c.Digits
		return err
	}))
	for i := range 20 {
		c := f.pickup()
		secrets[fmt.Sprint("the digits of code ", c.ID)] = c.Digits
		secrets[fmt.Sprint("what is sealed of code ", c.ID)] = m.No + c.Digits
		switch i % 3 {
		case 0:
			f.check(f.pickups.Withdraw(f.ctx, f.root, c.ID))
		case 1:
			_, err := f.pickups.Used(f.ctx, m.ID, c.ID, "203.0.113.9", f.clock.Now())
			f.check(err)
		}
	}
}

func (f *fixture) lookFor(secrets map[string]string) {
	f.Helper()
	all, err := exec.CommandContext(f.ctx, server.Bin("pg_dump"), "--inserts", f.url).Output() //nolint:gosec // G204: of the server of these tests
	f.check(err)
	log, err := os.ReadFile(server.Log())
	f.check(err)
	if !bytes.Contains(all, []byte("visible name")) || !bytes.Contains(all, []byte(machineNo)) {
		f.Fatal("what is not secret is not found either: this looks in the wrong place")
	}
	all = append(all, log...)
	for name, text := range secrets {
		forms := map[string][]byte{
			"as it is": []byte(text), "in capitals": []byte(strings.ToUpper(text)),
			"in hex": []byte(hex.EncodeToString([]byte(text))), "in base64": []byte(base64.RawStdEncoding.EncodeToString([]byte(text))),
		}
		if raw, err := hex.DecodeString(text); err == nil && len(raw) >= 8 { // fewer bytes stand anywhere by chance
			forms["as raw bytes in base64"] = []byte(base64.RawStdEncoding.EncodeToString(raw))
		}
		for form, b := range forms {
			if bytes.Contains(all, b) {
				f.Errorf("%s stands in the database, %s", name, form)
			}
		}
	}
}
