package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/scrip-codes/scrip/device"
	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/config"
	"github.com/scrip-codes/scrip/internal/fleet"
	"github.com/scrip-codes/scrip/internal/pickup"
	"github.com/scrip-codes/scrip/internal/redemption"
	"github.com/scrip-codes/scrip/internal/refusal"
)

type demoCommand struct {
	Every time.Duration `default:"5s" help:"How often somebody makes a pickup code."`
}

// Help is shown with the command's flags.
func (*demoCommand) Help() string {
	return "A server with a merchant, three machines that use their codes by themselves, and redemption codes. " +
		"Everything is in a temporary directory, which is removed at the end. Ports are free ones, unless --http-addr and --mqtt-addr name others."
}

// Run serves a demonstration until the first interrupt.
func (c *demoCommand) Run(ctx context.Context, p *program) (err error) {
	if c.Every < 100*time.Millisecond {
		return fmt.Errorf("--every is %v: use 100ms or more", c.Every)
	}
	dir, err := os.MkdirTemp("", "scrip-demo-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	settings, token, err := c.settings(p, dir)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	d := &demo{out: p.Stdout, dir: dir, every: c.Every, root: account.Actor{ID: 1, Role: account.RoleRoot, Address: "local"}}
	var played error
	var actors sync.WaitGroup
	err = p.serve(ctx, settings, func(r *running) {
		d.running = r
		actors.Go(func() {
			if played = d.play(ctx, token); played != nil {
				cancel()
			}
		})
	})
	actors.Wait()
	if played != nil && !errors.Is(played, context.Canceled) {
		return errors.Join(played, err)
	}
	return err
}

// settings are those of a server in dir, and the access token of its root.
func (*demoCommand) settings(p *program, dir string) (*config.Config, string, error) {
	flags := *p.flags
	flags.DataDir, flags.DatabaseURL, flags.MQTTURL = &dir, new(""), new(config.NewSecret(""))
	for _, addr := range []**string{&flags.HTTPAddr, &flags.MQTTAddr} {
		if *addr == nil {
			*addr = new("127.0.0.1:0")
		}
	}
	if flags.LogLevel == nil {
		flags.LogLevel = new("warn")
	}
	token := account.NewToken()
	flags.RootToken = new(config.NewSecret(token))
	c, err := config.Load(flags, p.Environ)
	return &c, token, err
}

// demo is a demonstration under way.
type demo struct {
	*running

	out   io.Writer
	mu    sync.Mutex // of out
	dir   string
	every time.Duration
	root  account.Actor
}

// demoMachine is one of the machines of a demonstration.
type demoMachine struct {
	no, name, zone, product, password string
}

func (d *demo) say(format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	_, _ = fmt.Fprintf(d.out, format+"\n", args...) // a demonstration without a screen goes on
}

// play makes what the demonstration needs, and keeps it busy until ctx ends.
func (d *demo) play(ctx context.Context, token string) error {
	keys, err := d.redemptions.Issue(ctx, d.root, redemption.IssueRequest{Name: "Welcome 欢迎 ようこそ", Count: 10, Quota: 500})
	if err != nil {
		return err
	}
	alice, err := d.accounts.Create(ctx, d.root, account.CreateRequest{Username: "alice"})
	if err != nil {
		return err
	}
	owner, err := d.machines.fleet.CreateMerchant(ctx, d.root, fleet.Merchant{Name: "Corner shops"}, nil)
	if err != nil {
		return err
	}
	list := []demoMachine{
		{"10000001", "大堂 Lobby", "Asia/Shanghai", "绿茶 Green tea", fleet.NewPassword()},
		{"10000002", "ホーム Platform", "Asia/Tokyo", "おにぎり Rice ball", fleet.NewPassword()},
		{"10000003", "Terminal 4", "America/New_York", "Cookies", fleet.NewPassword()},
	}
	// One more is for whoever watches.
	yours := demoMachine{"10000004", "待机 Yours", "Asia/Shanghai", "可乐 Cola", fleet.NewPassword()}
	for _, m := range append(list, yours) {
		if err := d.install(ctx, owner.ID, m); err != nil {
			return err
		}
	}
	link, _, err := d.accounts.NewLink(ctx, d.root, d.root.ID)
	if err != nil {
		return err
	}
	d.introduce(token, keys, link, yours)
	var virtual sync.WaitGroup
	defer virtual.Wait()
	for _, m := range list {
		virtual.Go(func() { d.switchOn(ctx, owner.AppKey, m) })
	}
	return d.live(ctx, alice, keys, list)
}

func (d *demo) install(ctx context.Context, owner int64, m demoMachine) error {
	if _, err := d.machines.fleet.CreateMachine(ctx, d.root, fleet.Machine{
		MerchantID: owner, No: m.no, Name: m.name, Zone: m.zone, PurchaseLimit: pickup.QuantityMax, PickupCodes: true,
	}, m.password, nil); err != nil {
		return err
	}
	_, err := d.machines.fleet.CreateProduct(ctx, d.root, m.no, fleet.Product{ID: 1, Name: m.product, Slot: "A1"}, nil)
	return err
}

func (d *demo) introduce(token string, keys []string, link string, yours demoMachine) {
	d.say(`Scrip, for a look. It ends with Ctrl-C, and leaves nothing behind.

  CONSOLE %[1]s/welcome/%[5]s      sets a password for root, and signs in
  HTTP    %[1]s      the API, to read: %[1]s/docs
  MQTT    %[2]s
  TOKEN   %[3]s      of root, user id 1

A redemption code worth 500:

  curl -X POST %[1]s/api/user/topup -H 'Authorization: Bearer %[3]s' -H 'New-Api-User: 1' -d '{"key":"%[4]s"}'

A pickup code for machine 10000001, which has it at once and uses it after two seconds:

  curl -X POST %[1]s/api/v1/machines/10000001/pickup-codes -H 'Authorization: Bearer %[3]s' -d '{"product_id":1,"quantity":1,"allow_more":true}'

To be a vending machine yourself, sign in, open %[1]s/machines/%[6]s/virtual and paste its MQTT password:

  %[7]s
`, d.HTTP, d.MQTT, token, keys[len(keys)-1], link, yours.no, yours.password)
}

// switchOn runs a virtual machine until ctx ends.
func (d *demo) switchOn(ctx context.Context, appKey string, m demoMachine) {
	err := runVirtual(ctx, device.Config{
		Broker: d.MQTT, MachineNo: m.no, Password: m.password, AppKey: appKey,
		State: filepath.Join(d.dir, "machine-"+m.no+".json"), Log: slog.New(slog.DiscardHandler),
	}, 2*time.Second, func(e machineEvent) { d.say("machine %s  %s", m.no, e.Text) })
	if err != nil && ctx.Err() == nil {
		d.say("machine %s  %v", m.no, err)
	}
}

// live makes pickup codes, and has alice redeem, until ctx ends. The last key is
// left for whoever watches.
func (d *demo) live(ctx context.Context, alice account.User, keys []string, list []demoMachine) error {
	tick := time.NewTicker(d.every)
	defer tick.Stop()
	by := account.Actor{ID: alice.ID, Role: alice.Role, Address: "local"}
	for i := 0; ; i++ {
		if i%3 == 0 && i/3 < len(keys)-1 {
			credited, err := d.redemptions.Redeem(ctx, by, keys[i/3], nil)
			if err != nil {
				return err
			}
			d.say("alice             redeems a code worth %d", credited)
		}
		m := list[i%len(list)]
		c, err := d.machines.pickups.Create(ctx, d.root, pickup.Request{
			MachineNo: m.no, ProductID: 1, Quantity: 1 + rand.N(int64(pickup.QuantityMax)), //nolint:gosec // G404: for show
		})
		switch {
		case refusal.CodeOf(err) == refusal.PickupProductHasLive: // the machine has not got to it yet
		case err != nil:
			return err
		default:
			d.say("root              makes pickup code %d for machine %s: %d × %s", c.ID, m.no, c.Quantity, m.product)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}
