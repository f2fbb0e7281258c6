package app_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/scrip-codes/scrip/internal/enginetest"
)

// TestScripts runs testdata/script/*.txtar with the engine under test. Beside
// testscript's own commands they have:
//
//	home DIR                set the settings to an empty data directory and an
//	                        empty database
//	serve [NAME=VALUE...] [FLAG...]
//	                        start scrip serve, wait until it is ready, and set
//	                        $URL; it prints to serve.out and serve.err
//	shutdown                end it with SIGTERM; it must exit with 0
//	crash                   end it with SIGKILL
//	http METHOD PATH [BODY] send a request as user $USER_ID with $TOKEN, in
//	                        $ACCEPT_LANGUAGE, and print the status and the body
//	capture NAME PATTERN [FILE]
//	                        set a variable to what the pattern's group matches
//	                        in the file, or in what the last command printed
//	certificate CERT KEY    write a certificate for 127.0.0.1 and its key
//	taken NAME              set a variable to an address that is in use
//	mode FILE PERM          check a file's permissions
//
// None may have the name of one of testscript's own, which would run instead:
// its stop ends the script there, as passed.
func TestScripts(t *testing.T) {
	t.Parallel()
	runScripts(t, "testdata/script", enginetest.Create)
}

// TestSQLiteScripts runs those about what only a database in a file has: the
// file with its permissions, a secret beside it, its backups, and that it may
// not be there.
func TestSQLiteScripts(t *testing.T) {
	t.Parallel()
	runScripts(t, "testdata/sqlite", func(_ context.Context, dir string) (*enginetest.Database, error) {
		return enginetest.SQLite(dir), nil
	})
}

// TestPostgresScripts runs those about what only a database on a server has: its
// address, and a secret that each server must be given.
func TestPostgresScripts(t *testing.T) {
	t.Parallel()
	runScripts(t, "testdata/postgres", func(ctx context.Context, _ string) (*enginetest.Database, error) {
		return enginetest.Postgres(ctx)
	})
}

func runScripts(t *testing.T, dir string, create func(ctx context.Context, dir string) (*enginetest.Database, error)) {
	t.Helper()
	testscript.Run(t, testscript.Params{
		Dir:                 dir,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("SCRIP_HTTP_ADDR", "127.0.0.1:0")
			e.Setenv("SCRIP_MQTT_ADDR", "127.0.0.1:0")
			e.Values[processKey{}] = &process{}
			d, err := create(t.Context(), filepath.Join(e.WorkDir, "data"))
			if err != nil {
				return err
			}
			e.Vars = append(e.Vars, d.Settings()...)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"home": func(ts *testscript.TestScript, neg bool, args []string) {
				usage(ts, !neg && len(args) == 1, "home DIR")
				d, err := create(t.Context(), ts.MkAbs(args[0]))
				ts.Check(err)
				ts.Setenv("SCRIP_DATA_DIR", args[0])
				for _, s := range d.Settings() {
					name, value, _ := strings.Cut(s, "=")
					ts.Setenv(name, value)
				}
			},
			"serve": scriptServe, "shutdown": scriptShutdown, "crash": scriptCrash, "http": scriptHTTP, "capture": scriptCapture,
			"certificate": scriptCertificate, "taken": scriptTaken, "mode": scriptMode,
		},
	})
}

// process is the server of a script.
type process struct {
	cmd    *exec.Cmd
	exited chan error
}

type processKey struct{}

func usage(ts *testscript.TestScript, ok bool, text string) {
	if !ok {
		ts.Fatalf("usage: %s", text)
	}
}

func scriptServe(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg, "serve [NAME=VALUE...] [FLAG...]")
	p := ts.Value(processKey{}).(*process)
	p.cmd = exec.CommandContext(context.Background(), "scrip", "serve")
	p.cmd.Dir = ts.MkAbs(".")
	for _, name := range []string{
		"PATH", "HOME", "SCRIP_CONFIG", "SCRIP_DATA_DIR", "SCRIP_DATABASE_URL", "SCRIP_HTTP_ADDR", "SCRIP_MQTT_ADDR", "SCRIP_SECRET",
		"SCRIP_ROOT_TOKEN", "SCRIP_TLS_CERT", "SCRIP_TLS_KEY", "SCRIP_LOG_LEVEL",
	} {
		if v := ts.Getenv(name); v != "" {
			p.cmd.Env = append(p.cmd.Env, name+"="+v)
		}
	}
	for len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		p.cmd.Env, args = append(p.cmd.Env, args[0]), args[1:]
	}
	p.cmd.Args = append(p.cmd.Args, args...)
	stdout, err := os.Create(ts.MkAbs("serve.out"))
	ts.Check(err)
	stderr, err := os.Create(ts.MkAbs("serve.err"))
	ts.Check(err)
	p.cmd.Stdout, p.cmd.Stderr = stdout, stderr
	ts.Check(p.cmd.Start())
	ts.Check(errors.Join(stdout.Close(), stderr.Close()))
	cmd, exited := p.cmd, make(chan error, 1)
	p.exited = exited
	go func() { exited <- cmd.Wait() }()
	ts.Defer(func() { _ = cmd.Process.Kill() })
	ts.Check(poll(context.Background(), func() error {
		log := ts.ReadFile("serve.err")
		select {
		case err := <-exited:
			ts.Fatalf("the server ended: %v\n%s", err, log)
		default:
		}
		url, ok := address(log)
		if !ok {
			return errors.New(log)
		}
		ts.Setenv("URL", url)
		return nil
	}))
}

func scriptShutdown(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) == 0, "shutdown")
	p := ts.Value(processKey{}).(*process)
	ts.Check(p.cmd.Process.Signal(syscall.SIGTERM))
	select {
	case err := <-p.exited:
		if err != nil {
			ts.Fatalf("%v\n%s", err, ts.ReadFile("serve.err"))
		}
	case <-time.After(patience):
		ts.Fatalf("the server did not stop\n%s", ts.ReadFile("serve.err"))
	}
}

func scriptCrash(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) == 0, "crash")
	p := ts.Value(processKey{}).(*process)
	ts.Check(p.cmd.Process.Kill())
	if err := <-p.exited; err == nil {
		ts.Fatalf("the server ended by itself")
	}
}

func scriptHTTP(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && (len(args) == 2 || len(args) == 3), "http METHOD PATH [BODY]")
	body := ""
	if len(args) == 3 {
		body = args[2]
	}
	req, err := http.NewRequestWithContext(context.Background(), args[0], ts.Getenv("URL")+args[1], strings.NewReader(body))
	ts.Check(err)
	for header, variable := range map[string]string{
		"Authorization": "TOKEN", "New-Api-User": "USER_ID", "Accept-Language": "ACCEPT_LANGUAGE",
	} {
		if v := ts.Getenv(variable); v != "" {
			req.Header.Set(header, v)
		}
	}
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // G402: a certificate made a moment ago
	}
	defer transport.CloseIdleConnections()
	resp, err := transport.RoundTrip(req)
	ts.Check(err)
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	ts.Check(err)
	_, _ = fmt.Fprintf(ts.Stdout(), "%d\n%s\n", resp.StatusCode, text)
}

func scriptCapture(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && (len(args) == 2 || len(args) == 3), "capture NAME PATTERN [FILE]")
	file := "stdout"
	if len(args) == 3 {
		file = args[2]
	}
	pattern, err := regexp.Compile("(?m)" + args[1])
	ts.Check(err)
	m := pattern.FindStringSubmatch(ts.ReadFile(file))
	if len(m) != 2 {
		ts.Fatalf("%s does not match %s", file, args[1])
	}
	ts.Setenv(args[0], m[1])
}

func scriptCertificate(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) == 2, "certificate CERT KEY")
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ts.Check(err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	ts.Check(err)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), 0o600))
}

func scriptTaken(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) == 1, "taken NAME")
	var lc net.ListenConfig
	l, err := lc.Listen(context.Background(), "tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Defer(func() { _ = l.Close() })
	ts.Setenv(args[0], l.Addr().String())
}

func scriptMode(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) == 2, "mode FILE PERM")
	info, err := os.Stat(ts.MkAbs(args[0]))
	ts.Check(err)
	if got := fmt.Sprintf("%o", info.Mode().Perm()); got != args[1] {
		ts.Fatalf("%s has mode %s, want %s", args[0], got, args[1])
	}
}
