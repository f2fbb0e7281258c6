package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/fleet"
	"github.com/scrip-codes/scrip/internal/postgres"
	"github.com/scrip-codes/scrip/internal/rig"
)

const (
	chaosReplicas = 3
	chaosMachines = 6
	chaosUsers    = 12
	// chaosAnswer bounds a request: later its outcome is unknown.
	chaosAnswer = 10 * time.Second
)

// cluster is everything that is run and broken.
type cluster struct {
	x         *chaos
	secret    string
	root      identity
	users     []identity
	appKey    string
	postgres  *rig.Postgres
	mosquitto *rig.Mosquitto
	url       string // of the database
	replicas  []*replica
	machines  []*vendor
	spy       *spy
}

// newCluster starts everything.
func (x *chaos) newCluster(ctx context.Context) (_ *cluster, err error) {
	c := &cluster{x: x, secret: account.NewToken(), root: identity{1, account.NewToken()}}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.stop())
		}
	}()
	if c.postgres, err = rig.StartPostgres(ctx, rig.PostgresOptions{Durable: true}); err != nil {
		return nil, err
	}
	if c.mosquitto, err = rig.StartMosquitto(ctx, rig.MosquittoOptions{}); err != nil {
		return nil, err
	}
	if c.url, err = c.postgres.Create(ctx, "chaos", ""); err != nil {
		return nil, err
	}
	if err := c.fill(ctx); err != nil {
		return nil, err
	}
	for i := range chaosReplicas {
		r, err := c.newReplica(ctx, i+1)
		if err != nil {
			return nil, err
		}
		c.replicas = append(c.replicas, r)
	}
	var starting sync.WaitGroup
	failed := make([]error, chaosReplicas)
	for i, r := range c.replicas {
		starting.Go(func() { failed[i] = r.start(ctx) })
	}
	starting.Wait()
	if err := errors.Join(failed...); err != nil {
		return nil, err
	}
	if c.spy, err = x.newSpy(ctx, c.mosquitto.URL()); err != nil {
		return nil, err
	}
	for _, m := range c.machines {
		m.on(ctx)
	}
	return c, nil
}

// open opens the database in this process.
func (c *cluster) open(ctx context.Context) (*postgres.DB, error) {
	return postgres.Open(ctx, postgres.Options{URL: c.url, Secrets: []string{c.secret}, Now: c.x.env.Now})
}

// fill makes the accounts and the machines.
func (c *cluster) fill(ctx context.Context) (err error) {
	db, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	accounts := account.NewService(db, nil, c.x.env.Now)
	if _, err := accounts.Bootstrap(ctx, c.root.token); err != nil {
		return err
	}
	for i := range chaosUsers {
		token := account.NewToken()
		u, err := accounts.Create(ctx, account.Operator(), account.CreateRequest{Username: fmt.Sprintf("user-%d", i+1), Token: token})
		if err != nil {
			return err
		}
		c.users = append(c.users, identity{u.ID, token})
	}
	by := account.Actor{ID: c.root.id, Role: account.RoleRoot, Address: "127.0.0.1"}
	use := fleet.NewService(db, db.Keys(), nil, c.x.env.Now, nil)
	merchant, err := use.CreateMerchant(ctx, by, fleet.Merchant{Name: "chaos"}, nil)
	if err != nil {
		return err
	}
	c.appKey = merchant.AppKey
	for i := range chaosMachines {
		v := credentials{fmt.Sprintf("%08d", 10_000_001+i), fleet.NewPassword()}
		if _, err := use.CreateMachine(ctx, by, fleet.Machine{
			MerchantID: merchant.ID, No: v.no, Name: "chaos", Zone: "Asia/Shanghai", PurchaseLimit: 1, PickupCodes: true,
		}, v.password, nil); err != nil {
			return err
		}
		if _, err := use.CreateProduct(ctx, by, v.no, fleet.Product{ID: product, Name: "chaos", Slot: "1"}, nil); err != nil {
			return err
		}
		m, err := c.newVendor(v)
		if err != nil {
			return err
		}
		c.machines = append(c.machines, m)
	}
	return nil
}

// dump keeps what the database held when promises were broken.
func (c *cluster) dump(ctx context.Context) error {
	file := filepath.Join(c.x.dir, "database.sql")
	out, err := exec.CommandContext(ctx, c.postgres.Bin("pg_dump"), "--file="+file, c.url).CombinedOutput() //nolint:gosec // G204: PostgreSQL's own program
	if err != nil {
		return fmt.Errorf("pg_dump: %w: %s", err, out)
	}
	return nil
}

// stopServers ends the servers and the machines as an operator would, and
// looks into what the servers said.
func (c *cluster) stopServers() {
	for _, m := range c.machines {
		m.off()
	}
	for _, r := range c.replicas {
		r.stop()
	}
	for _, r := range c.replicas {
		if said := r.faultSaid(); said != "" {
			c.x.violated("server %d said: %s", r.number, said)
		}
	}
}

// stop ends everything that has been started. It can be called again.
func (c *cluster) stop() error {
	for _, m := range c.machines {
		m.off()
	}
	if c.spy != nil {
		c.spy.stop()
	}
	for _, r := range c.replicas {
		r.kill()
	}
	var err error
	if c.mosquitto != nil {
		err = c.mosquitto.Stop()
	}
	if c.postgres != nil {
		err = errors.Join(err, c.postgres.Stop())
	}
	return err
}

// replica is one of several servers, in a process of its own that may be killed
// and started again.
type replica struct {
	x       *chaos
	number  int
	url     string
	log     string
	environ []string
	client  *http.Client

	mu      sync.Mutex
	process *exec.Cmd     // nil: it is down
	ended   chan struct{} // closed at the end of process
	serving bool          // process has become ready, and is not to end
}

func (c *cluster) newReplica(ctx context.Context, number int) (*replica, error) {
	address, err := steadyAddress(ctx)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(c.x.dir, "server-"+strconv.Itoa(number))
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	return &replica{
		x: c.x, number: number, url: "http://" + address, log: filepath.Join(dir, "log"),
		environ: append(
			withoutSettings(os.Environ()), "SCRIP_DATA_DIR="+dir, "SCRIP_DATABASE_URL="+c.url, "SCRIP_SECRET="+c.secret,
			"SCRIP_MQTT_URL="+c.mosquitto.URL(), "SCRIP_HTTP_ADDR="+address, "SCRIP_GUESS_LIMIT=0",
		),
		client: &http.Client{Timeout: chaosAnswer, Transport: &http.Transport{MaxIdleConnsPerHost: 64, IdleConnTimeout: idleFor}},
	}, nil
}

// steadyAddress is a port of this machine that is free, and that the system
// gives nobody while the server is down.
func steadyAddress(ctx context.Context) (string, error) {
	var last error
	for range 100 {
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(20_000+rand.IntN(12_000))) //nolint:gosec // G404: no secret
		var l net.Listener
		if l, last = new(net.ListenConfig).Listen(ctx, "tcp", address); last == nil {
			return address, l.Close()
		}
	}
	return "", fmt.Errorf("no free port: %w", last)
}

// start starts the server and waits until it is ready. One that ends instead is
// started again for a while, as whoever supervises servers does: its database may
// be down.
func (r *replica) start(ctx context.Context) error {
	late := r.x.env.Now().Add(readyWithin)
	for {
		ended, err := r.spawn(ctx)
		if err != nil {
			return err
		}
		err = await(ctx, readyWithin, func() (bool, error) {
			select {
			case <-ended:
				return false, errEnded
			default:
				return r.ready(ctx), nil
			}
		})
		if err == nil {
			r.mu.Lock()
			r.serving = true
			r.mu.Unlock()
			return nil
		}
		if !errors.Is(err, errEnded) || r.x.env.Now().After(late) {
			return fmt.Errorf("starting server %d: %w; its log is %s", r.number, err, r.log)
		}
		pause(ctx, time.Second/5)
	}
}

// errEnded says that a server ended instead of becoming ready.
var errEnded = errors.New("it ended")

func (r *replica) spawn(ctx context.Context) (chan struct{}, error) {
	program := r.x.env.Executable
	if program == "" {
		var err error
		if program, err = os.Executable(); err != nil {
			return nil, err
		}
	}
	log, err := os.OpenFile(r.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }()
	cmd := exec.CommandContext(context.WithoutCancel(ctx), program, "serve") //nolint:gosec // G204: it is this very program
	cmd.Env, cmd.Stdout, cmd.Stderr = r.environ, log, log
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting server %d: %w", r.number, err)
	}
	ended := make(chan struct{})
	r.mu.Lock()
	r.process, r.ended = cmd, ended
	r.mu.Unlock()
	go func() {
		defer close(ended)
		err := cmd.Wait()
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.serving {
			r.x.violated("server %d ended by itself: %v; its log is %s", r.number, err, r.log)
		}
		r.process, r.serving = nil, false
	}()
	return ended, nil
}

func (r *replica) ready(ctx context.Context) bool {
	answer, err := r.call(ctx, identity{}, http.MethodGet, "/readyz", nil, "")
	return err == nil && answer.status == http.StatusOK
}

// kill ends the server as a failing machine would, if it runs.
func (r *replica) kill() {
	r.end(func(p *os.Process) error { return p.Kill() })
	r.client.CloseIdleConnections()
}

// stop ends the server as an operator does.
func (r *replica) stop() {
	ended := r.end(func(p *os.Process) error { return p.Signal(os.Interrupt) })
	if ended != nil && ended.ProcessState.ExitCode() != 0 {
		r.x.violated("server %d was stopped and ended with %s; its log is %s", r.number, ended.ProcessState, r.log)
	}
}

// end tells the server to end and waits until it has.
func (r *replica) end(tell func(*os.Process) error) *exec.Cmd {
	r.mu.Lock()
	process, ended := r.process, r.ended
	r.serving = false
	r.mu.Unlock()
	if process == nil {
		return nil
	}
	err := tell(process.Process)
	late := time.NewTimer(stopWithin)
	defer late.Stop()
	select {
	case <-ended:
		return process
	case <-late.C:
	}
	r.x.violated("server %d was told to end and did not within %s (%v)", r.number, stopWithin, err)
	_ = process.Process.Kill()
	<-ended
	return process
}

// faultSaid is a line of the log that says of a fault inside the server.
func (r *replica) faultSaid() string {
	text, err := os.ReadFile(r.log)
	if err != nil {
		return err.Error()
	}
	for line := range bytes.Lines(text) {
		for _, word := range []string{"DATA RACE", "panic", "fatal error"} {
			if bytes.Contains(line, []byte(word)) {
				return string(bytes.TrimSpace(line))
			}
		}
	}
	return ""
}

// reply is a server's answer.
type reply struct {
	status  int
	body    []byte
	code    string // of a refusal
	data    json.RawMessage
	success bool
}

// errNotSent says that a request has not reached a server.
var errNotSent = errors.New("it was not sent")

// replyMax bounds an answer, in bytes.
const replyMax = 8 << 20

// call sends a request, with an Idempotency-Key unless key is empty. After an
// error, but for errNotSent, nobody knows whether it was done.
func (r *replica) call(ctx context.Context, who identity, method, path string, body []byte, key string) (reply, error) {
	q, err := http.NewRequestWithContext(ctx, method, r.url+path, bytes.NewReader(body))
	if err != nil {
		return reply{}, fmt.Errorf("%w: %w", errNotSent, err)
	}
	q.GetBody = nil // it is sent once: what becomes of a second time is for us to see
	q.Header.Set("Authorization", "Bearer "+who.token)
	q.Header.Set("New-Api-User", strconv.FormatInt(who.id, 10))
	q.Header.Set("Content-Type", "application/json")
	if key != "" {
		q.Header.Set("Idempotency-Key", key)
	}
	a, err := r.client.Do(q)
	if err != nil {
		if e, ok := errors.AsType[*net.OpError](err); ok && e.Op == "dial" {
			err = fmt.Errorf("%w: %w", errNotSent, err)
		}
		return reply{}, err
	}
	defer func() { _ = a.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(a.Body, replyMax))
	if err != nil {
		return reply{}, err
	}
	out := reply{status: a.StatusCode, body: text}
	var e envelope
	if json.Unmarshal(text, &e) == nil {
		out.code, out.data, out.success = e.Code, e.Data, e.Success
	}
	return out, nil
}
