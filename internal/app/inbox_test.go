package app_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/scrip-codes/scrip/internal/enginetest"
	"github.com/scrip-codes/scrip/internal/rig"
)

// keepsInbox reports whether a server keeps the inbox at the broker.
func (s *server) keepsInbox() (bool, error) {
	resp, err := http.Get(s.url + "/metrics") //nolint:noctx // a server of this test, on this machine
	if err != nil {
		return false, err
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return false, err
	}
	m := regexp.MustCompile(`(?m)^scrip_mqtt_inbox_connected (\d)$`).FindSubmatch(text)
	if m == nil {
		return false, errors.New("there is no metric scrip_mqtt_inbox_connected")
	}
	return string(m[1]) == "1", nil
}

// waitForInbox waits until one of the servers keeps the inbox, checks that no
// other does, and returns which.
func waitForInbox(t *testing.T, servers ...*server) (keeper int) {
	t.Helper()
	eventually(t, "the inbox", func() error {
		var keepers []int
		for i, s := range servers {
			keeps, err := s.keepsInbox()
			if err != nil {
				return err
			}
			if keeps {
				keepers = append(keepers, i)
			}
		}
		if len(keepers) != 1 {
			return fmt.Errorf("%d servers keep it", len(keepers))
		}
		keeper = keepers[0]
		return nil
	})
	return keeper
}

// TestPostgresInbox: one of two servers keeps the inbox, the other one does within
// seconds once that is killed, and the broker keeps what comes when there is none.
func TestPostgresInbox(t *testing.T) {
	t.Parallel()
	m, err := rig.StartMosquitto(t.Context(), rig.MosquittoOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Stop(); err != nil {
			t.Error(err)
		}
	})
	db, err := enginetest.Postgres(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	env := settingsFor(db, t.TempDir(), "SCRIP_ROOT_TOKEN="+rootToken, "SCRIP_MQTT_ADDR=",
		"SCRIP_MQTT_URL="+strings.Replace(m.URL(), "//", "//scrip:hunter2@", 1))
	servers := []*server{start(t, env), start(t, env)}
	v := &vending{TB: t, dir: t.TempDir(), no: "16327138"}
	v.appKey = member(t, scrip(t, env, "merchant", "create", "Acme", "--json"), "app_key")
	v.password = member(t, scrip(t, env, "machine", "create", v.no,
		"--merchant", "1", "--name", "Lobby", "--timezone", "Asia/Shanghai", "--json"), "mqtt_password")
	scrip(t, env, "product", "add", v.no, "Tea", "--slot", "A1", "--id", "20001")
	v.on(m.URL())

	// Neither keeps it when the duty is another one's, whoever that is.
	waitForInbox(t, servers...)
	db.Alter(t, `UPDATE duties SET holder = 'another', until = until + 600000 WHERE name = 'mqtt inbox'`)
	eventually(t, "the end of the inbox", func() error {
		for _, s := range servers {
			if keeps, err := s.keepsInbox(); keeps || err != nil {
				return errors.Join(errors.New("one keeps it, or does not answer"), err)
			}
		}
		return nil
	})
	db.Alter(t, `DELETE FROM duties WHERE name = 'mqtt inbox'`)

	keeper := waitForInbox(t, servers...)
	servers[keeper].kill(t)
	killed := time.Now()
	other := servers[1-keeper]
	waitForInbox(t, other)
	if took := time.Since(killed); took > 20*time.Second {
		t.Errorf("it took %v", took)
	}

	var c pickupCode
	if err := other.v1(t.Context(), http.StatusCreated, http.MethodPost, "/machines/"+v.no+"/pickup-codes",
		`{"product_id":20001,"quantity":1,"allow_more":true}`, &c); err != nil {
		t.Fatal(err)
	}
	v.holds(c)
	other.stop(t)
	v.use(c)
	eventually(t, "the broker to have the report", func() error {
		if n := v.device.Unreported(); n != 0 {
			return fmt.Errorf("%d are not reported", n)
		}
		return nil
	})
	v.off()

	s := start(t, env)
	eventually(t, "the use", func() error {
		var got pickupCode
		if err := s.v1(t.Context(), http.StatusOK, http.MethodGet, fmt.Sprint("/pickup-codes/", c.ID), "", &got); err != nil {
			return err
		}
		if got.State != "used" {
			return fmt.Errorf("the code is %s", got.State)
		}
		return nil
	})
	if n := strings.Count(scrip(t, env, "ledger", "list", "--json"), `"pickup_use"`); n != 1 {
		t.Errorf("the ledger has %d uses, want 1", n)
	}
}
