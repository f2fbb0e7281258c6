package config_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"

	"github.com/scrip-codes/scrip/internal/config"
)

// parse reads flags as the command does.
func parse(t *testing.T, args ...string) config.Flags {
	t.Helper()
	var cli struct{ config.Flags }
	k, err := kong.New(&cli)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.Parse(args); err != nil {
		t.Fatal(err)
	}
	return cli.Flags
}

func write(t *testing.T, name, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// secrets are what a configuration holds, in the clear.
func secrets(c config.Config) []string {
	var out []string
	for _, s := range c.Secrets {
		out = append(out, s.Reveal())
	}
	return out
}

func TestDefaults(t *testing.T) {
	t.Parallel()
	got, err := config.Load(config.Flags{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := config.Config{
		DataDir: "./data", Database: filepath.Join("data", "scrip.db"), HTTPAddr: "127.0.0.1:8080",
		MQTTAddr: "127.0.0.1:1883", RootToken: got.RootToken, MQTTAuthToken: got.MQTTAuthToken, GuessLimit: 20, GuessWindow: 10 * time.Minute, LogLevel: slog.LevelInfo,
	}
	if !reflect.DeepEqual(got, want) || got.RootToken.Reveal() != "" || got.MQTTAuthToken.Reveal() != "" {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// TestPrecedence sets each setting in each combination of the three places.
func TestPrecedence(t *testing.T) {
	t.Parallel()
	settings := []struct {
		name, flag          string
		first, second, last string // in the flag, the environment, the file
		otherwise           string
		get                 func(config.Config) string
	}{
		{"SCRIP_DATA_DIR", "--data-dir", "a", "b", "c", "./data", func(c config.Config) string { return c.DataDir }},
		{
			"SCRIP_DATABASE_URL", "--database-url", "sqlite:a", "sqlite:b", "sqlite:c", "data/scrip.db",
			func(c config.Config) string { return "sqlite:" + c.Database },
		},
		{"SCRIP_HTTP_ADDR", "--http-addr", ":1", ":2", ":3", "127.0.0.1:8080", func(c config.Config) string { return c.HTTPAddr }},
		{"SCRIP_MQTT_ADDR", "--mqtt-addr", ":1", ":2", ":3", "127.0.0.1:1883", func(c config.Config) string { return c.MQTTAddr }},
		{
			"SCRIP_MQTT_URL", "--mqtt-url", "mqtt://a", "mqtts://b:1", "wss://c/mqtt", "",
			func(c config.Config) string {
				if c.MQTTURL == nil {
					return ""
				}
				u := c.MQTTURL.Reveal()
				return u.String()
			},
		},
		{
			"SCRIP_MQTT_AUTH_TOKEN", "--mqtt-auth-token", strings.Repeat("a", 32), strings.Repeat("b", 32), strings.Repeat("c", 32), "",
			func(c config.Config) string { return c.MQTTAuthToken.Reveal() },
		},
		{
			"SCRIP_SECRET", "--secret", strings.Repeat("a", 32), strings.Repeat("b", 32), strings.Repeat("c", 32), "",
			func(c config.Config) string { return strings.Join(secrets(c), ",") },
		},
		{
			"SCRIP_ROOT_TOKEN", "--root-token", strings.Repeat("a", 32), strings.Repeat("b", 32), strings.Repeat("c", 32), "",
			func(c config.Config) string { return c.RootToken.Reveal() },
		},
		{"SCRIP_GUESS_LIMIT", "--guess-limit", "1", "2", "3", "20", func(c config.Config) string { return fmt.Sprint(c.GuessLimit) }},
		{"SCRIP_GUESS_WINDOW", "--guess-window", "1s", "2s", "3s", "10m0s", func(c config.Config) string { return c.GuessWindow.String() }},
		{
			"SCRIP_TRUSTED_PROXIES", "--trusted-proxies", "10.0.0.1/32", "10.0.0.2/32", "10.0.0.3/32", "",
			func(c config.Config) string { return strings.Trim(fmt.Sprint(c.TrustedProxies), "[]") },
		},
		{"SCRIP_LOG_LEVEL", "--log-level", "DEBUG", "WARN", "ERROR", "INFO", func(c config.Config) string { return c.LogLevel.String() }},
	}
	for _, s := range settings {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			for mask := range 8 {
				var args, env []string
				file := ""
				want := s.otherwise
				if mask&4 != 0 {
					file, want = s.name+"="+s.last, s.last
				}
				if mask&2 != 0 {
					env, want = []string{s.name + "=" + s.second}, s.second
				}
				if mask&1 != 0 {
					args, want = []string{s.flag, s.first}, s.first
				}
				env = append(env, "SCRIP_CONFIG="+write(t, "scrip.env", file))
				c, err := config.Load(parse(t, args...), env)
				if err != nil {
					t.Fatal(err)
				}
				if got := s.get(c); strings.TrimPrefix(got, "sqlite:") != strings.TrimPrefix(want, "sqlite:") {
					t.Errorf("flag %t, environment %t, file %t: got %q, want %q", mask&1 != 0, mask&2 != 0, mask&4 != 0, got, want)
				}
			}
		})
	}
}

func TestConfigFlagComesBeforeEnvironment(t *testing.T) {
	t.Parallel()
	c, err := config.Load(parse(t, "--config", write(t, "a", "SCRIP_DATA_DIR=flag")),
		[]string{"SCRIP_CONFIG=" + write(t, "b", "SCRIP_DATA_DIR=environment")})
	if err != nil || c.DataDir != "flag" {
		t.Errorf("got %q, %v", c.DataDir, err)
	}
}

func TestSetToNothingBringsBackTheDefault(t *testing.T) {
	t.Parallel()
	c, err := config.Load(config.Flags{}, []string{
		"SCRIP_HTTP_ADDR=", "SCRIP_CONFIG=" + write(t, "scrip.env", "SCRIP_HTTP_ADDR=:9"),
	})
	if err != nil || c.HTTPAddr != "127.0.0.1:8080" {
		t.Errorf("got %q, %v", c.HTTPAddr, err)
	}
}

func TestValues(t *testing.T) {
	t.Parallel()
	c, err := config.Load(config.Flags{}, []string{
		"SCRIP_DATABASE_URL=sqlite:///var/lib/x.db",
		"SCRIP_SECRET= newest-newest-newest , ,older-older-older-older",
		"SCRIP_TRUSTED_PROXIES=10.1.2.3/8, ::1,fd00::/8,192.0.2.1,::ffff:192.0.2.2",
		"SCRIP_GUESS_LIMIT=0", "SCRIP_LOG_LEVEL=Warn",
	})
	if err != nil {
		t.Fatal(err)
	}
	if c.Database != "/var/lib/x.db" || c.GuessLimit != 0 || c.LogLevel != slog.LevelWarn {
		t.Errorf("got %+v", c)
	}
	if want := []string{"newest-newest-newest", "older-older-older-older"}; !slices.Equal(secrets(c), want) {
		t.Errorf("secrets: got %q, want %q", secrets(c), want)
	}
	var want []netip.Prefix
	for _, s := range []string{"10.0.0.0/8", "::1/128", "fd00::/8", "192.0.2.1/32", "192.0.2.2/32"} {
		want = append(want, netip.MustParsePrefix(s))
	}
	if !slices.Equal(c.TrustedProxies, want) {
		t.Errorf("proxies: got %v, want %v", c.TrustedProxies, want)
	}
	if c.Warnings != nil {
		t.Errorf("warnings: %q", c.Warnings)
	}
}

func TestRefused(t *testing.T) {
	t.Parallel()
	missing := filepath.Join(t.TempDir(), "missing")
	cert, key := certificate(t)
	_, otherKey := certificate(t)
	for _, tt := range []struct {
		env  string
		want []string // each in the message
		not  string
	}{
		{"SCRIP_HTTP_ADDR=8080", []string{"SCRIP_HTTP_ADDR: ", `"8080"`, ": write "}, ""},
		{"SCRIP_HTTP_ADDR=:99999", []string{"SCRIP_HTTP_ADDR: ", `"99999"`}, ""},
		{"SCRIP_HTTP_ADDR=:http", []string{"SCRIP_HTTP_ADDR: ", `"http"`}, ""},
		{"SCRIP_DATABASE_URL=mysql://app:hunter2@db/scrip", []string{"SCRIP_DATABASE_URL: ", "mysql", "SQLite and PostgreSQL"}, "hunter2"},
		{"SCRIP_DATABASE_URL=app hunter2@db:5432", []string{"SCRIP_DATABASE_URL: ", "SQLite and PostgreSQL"}, "hunter2"},
		{"SCRIP_DATABASE_URL=postgres://app:hunter2@/scrip", []string{"SCRIP_DATABASE_URL: ", "a host"}, "hunter2"},
		{"SCRIP_DATABASE_URL=postgres://app:hunter2@db", []string{"SCRIP_DATABASE_URL: ", "the name of a database"}, "hunter2"},
		{"SCRIP_DATABASE_URL=postgres://app:hunter2 %@db/scrip", []string{"SCRIP_DATABASE_URL: ", "no address"}, "hunter2"},
		{"SCRIP_DATABASE_URL=scrip.db", []string{"SCRIP_DATABASE_URL: ", "sqlite:PATH"}, ""},
		{"SCRIP_DATABASE_URL=sqlite:", []string{"SCRIP_DATABASE_URL: ", "path"}, ""},
		{"SCRIP_DATABASE_URL=sqlite::memory:", []string{"SCRIP_DATABASE_URL: ", "path"}, ""},
		{"SCRIP_DATABASE_URL=sqlite:a.db?mode=ro", []string{"SCRIP_DATABASE_URL: ", "without parameters"}, ""},
		{"SCRIP_SECRET=,,", []string{"SCRIP_SECRET: "}, ""},
		{"SCRIP_ROOT_TOKEN=two words and more", []string{"SCRIP_ROOT_TOKEN: "}, "two words"},
		{"SCRIP_TLS_CERT=" + cert, []string{"SCRIP_TLS_KEY: ", "both"}, ""},
		{"SCRIP_TLS_KEY=" + key, []string{"SCRIP_TLS_CERT: ", "both"}, ""},
		{"SCRIP_TLS_CERT=" + missing + "\nSCRIP_TLS_KEY=" + key, []string{"SCRIP_TLS_CERT: ", missing, "no such file"}, ""},
		{"SCRIP_TLS_CERT=" + cert + "\nSCRIP_TLS_KEY=" + missing, []string{"SCRIP_TLS_KEY: ", missing, "no such file"}, ""},
		{"SCRIP_TLS_CERT=" + cert + "\nSCRIP_TLS_KEY=" + otherKey, []string{"SCRIP_TLS_CERT: ", "SCRIP_TLS_KEY"}, ""},
		{"SCRIP_MQTT_ADDR=none", []string{"SCRIP_MQTT_ADDR: ", `"none"`}, ""},
		{"SCRIP_MQTT_URL=mqtt://u:hunter2@broker\nSCRIP_MQTT_ADDR=:1883", []string{"SCRIP_MQTT_URL: ", "SCRIP_MQTT_ADDR", "one of them"}, "hunter2"},
		{"SCRIP_MQTT_URL=mqtt://u:hunter2@broker\nSCRIP_MQTT_ADDR=off", []string{"SCRIP_MQTT_URL: ", "SCRIP_MQTT_ADDR"}, "hunter2"},
		{"SCRIP_MQTT_URL=http://u:hunter2@broker", []string{"SCRIP_MQTT_URL: ", "mqtts://"}, "hunter2"},
		{"SCRIP_MQTT_URL=broker:1883", []string{"SCRIP_MQTT_URL: ", "mqtts://"}, ""},
		{"SCRIP_MQTT_URL=mqtt://u:hunter2@/x", []string{"SCRIP_MQTT_URL: ", "host"}, "hunter2"},
		{"SCRIP_MQTT_URL=mqtt://u:hunter2 %@broker", []string{"SCRIP_MQTT_URL: ", "%XX"}, "hunter2"},
		{"SCRIP_MQTT_URL=mqtt://u:hunter2@broker:99999", []string{"SCRIP_MQTT_URL: ", "port"}, "hunter2"},
		{"SCRIP_MQTT_URL=mqtt://u:hunter2@broker/mqtt", []string{"SCRIP_MQTT_URL: ", "path"}, "hunter2"},
		{"SCRIP_MQTT_URL=wss://u:hunter2@broker/mqtt?a=b", []string{"SCRIP_MQTT_URL: ", "parameters"}, "hunter2"},
		{"SCRIP_MQTT_AUTH_TOKEN=two words and more", []string{"SCRIP_MQTT_AUTH_TOKEN: "}, "two words"},
		{"SCRIP_GUESS_LIMIT=-1", []string{"SCRIP_GUESS_LIMIT: "}, ""},
		{"SCRIP_GUESS_LIMIT=many", []string{"SCRIP_GUESS_LIMIT: ", `"many"`}, ""},
		{"SCRIP_GUESS_WINDOW=10", []string{"SCRIP_GUESS_WINDOW: ", "unit"}, ""},
		{"SCRIP_GUESS_WINDOW=1ms", []string{"SCRIP_GUESS_WINDOW: "}, ""},
		{"SCRIP_GUESS_WINDOW=9999h", []string{"SCRIP_GUESS_WINDOW: "}, ""},
		{"SCRIP_TRUSTED_PROXIES=10.0.0.0/33", []string{"SCRIP_TRUSTED_PROXIES: ", "10.0.0.0/33"}, ""},
		{"SCRIP_TRUSTED_PROXIES=proxy", []string{"SCRIP_TRUSTED_PROXIES: ", `"proxy"`}, ""},
		{"SCRIP_LOG_LEVEL=loud", []string{"SCRIP_LOG_LEVEL: ", `"loud"`}, ""},
		{"SCRIP_CONFIG=" + missing, []string{"SCRIP_CONFIG: ", missing, "no such file"}, ""},
	} {
		_, err := config.Load(config.Flags{}, strings.Split(tt.env, "\n"))
		if _, ok := errors.AsType[*config.Error](err); !ok {
			t.Errorf("%s: got %v", tt.env, err)
			continue
		}
		for _, want := range tt.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %q does not say %q", tt.env, err, want)
			}
		}
		if tt.not != "" && strings.Contains(err.Error(), tt.not) {
			t.Errorf("%s: %q says %q", tt.env, err, tt.not)
		}
	}
}

// TestMQTT: MQTT is served, or another broker is used, or neither.
func TestMQTT(t *testing.T) {
	t.Parallel()
	c, err := config.Load(config.Flags{}, []string{"SCRIP_MQTT_ADDR=off"})
	if err != nil || c.MQTTAddr != "" || c.MQTTURL != nil {
		t.Errorf("off: got %+v, %v", c, err)
	}
	c, err = config.Load(config.Flags{}, []string{"SCRIP_MQTT_URL=mqtts://scrip:p%40ss@broker.example", "SCRIP_MQTT_ADDR="})
	if err != nil || c.MQTTAddr != "" || c.MQTTURL == nil {
		t.Fatalf("got %+v, %v", c, err)
	}
	u := c.MQTTURL.Reveal()
	if password, _ := u.User.Password(); u.User.Username() != "scrip" || password != "p@ss" || u.Host != "broker.example" {
		t.Errorf("got %s", u.Redacted())
	}
	c, err = config.Load(config.Flags{}, []string{"SCRIP_MQTT_AUTH_TOKEN=short"})
	if err != nil || len(c.Warnings) != 1 || !strings.HasPrefix(c.Warnings[0], "SCRIP_MQTT_AUTH_TOKEN ") {
		t.Errorf("got %q, %v", c.Warnings, err)
	}
}

func TestAllThatIsWrongIsSaid(t *testing.T) {
	t.Parallel()
	_, err := config.Load(config.Flags{GuessLimit: new("x"), LogLevel: new("x")}, []string{"SCRIP_HTTP_ADDR=x"})
	if n := strings.Count(fmt.Sprint(err), "\n"); n != 2 {
		t.Errorf("got %v", err)
	}
}

func TestWarnings(t *testing.T) {
	t.Parallel()
	file := write(t, "scrip.env", "SCRIP_MQTT_ADR=:1883\nSCRIP_OTHER=1\nOTHER=1\nSCRIP_CONFIG=x\nSCRIP_SECRET=0123456789abcdef\n")
	if err := os.Chmod(file, 0o644); err != nil { //nolint:gosec // G302: too open on purpose
		t.Fatal(err)
	}
	c, err := config.Load(config.Flags{}, []string{
		"PATH=/bin", "SCRIP_MQTT_ADDR=:1883", "SCRIP_MQTT_PORT=1883", "SCRIP_OTHER=2", "SCRIP_ROOT_TOKEN=short", "SCRIP_CONFIG=" + file,
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"SCRIP_MQTT_PORT", "SCRIP_MQTT_ADR", "SCRIP_OTHER", "SCRIP_CONFIG", "SCRIP_ROOT_TOKEN", "chmod 600"} {
		n := 0
		for _, w := range c.Warnings {
			if strings.Contains(w, want+" ") || strings.HasPrefix(w, want) {
				n++
			}
		}
		if n != 1 {
			t.Errorf("%s: %d warnings in %q", want, n, c.Warnings)
		}
	}
	if len(c.Warnings) != 6 {
		t.Errorf("got %q", c.Warnings)
	}
}

func TestShortSecretIsAWarning(t *testing.T) {
	t.Parallel()
	c, err := config.Load(config.Flags{Secret: new(config.NewSecret("hunter2"))}, nil)
	if err != nil || len(c.Warnings) != 1 || strings.Contains(c.Warnings[0], "hunter2") {
		t.Errorf("got %q, %v", c.Warnings, err)
	}
}

func TestSecretsAreNotPrinted(t *testing.T) {
	t.Parallel()
	cert, key := certificate(t)
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(config.Flags{}, []string{
		"SCRIP_SECRET=hunter2-hunter2,hunter2-again", "SCRIP_ROOT_TOKEN=hunter2", "SCRIP_TLS_CERT=" + cert,
		"SCRIP_MQTT_URL=mqtt://u:hunter2@broker", "SCRIP_MQTT_AUTH_TOKEN=hunter2-hunter2", "SCRIP_TLS_KEY=" + key,
	})
	if err != nil {
		t.Fatal(err)
	}
	number := fmt.Sprint(pair.PrivateKey.(*ecdsa.PrivateKey).D) //nolint:staticcheck // SA1019: only to look for it
	// What fmt may not ask: an unexported field.
	hidden := struct{ c config.Config }{c}
	flags := parse(t, "--secret=hunter2", "--root-token=hunter2", "--mqtt-url=mqtt://u:hunter2@broker", "--mqtt-auth-token=hunter2")
	b, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).InfoContext(t.Context(), "x", "c", c, "s", c.RootToken, "all", c.Secrets)
	slog.New(slog.NewJSONHandler(&log, nil)).InfoContext(t.Context(), "x", "c", c, "s", c.RootToken, "f", flags)
	out := []string{string(b), log.String(), c.RootToken.String()}
	for _, v := range []any{c, &c, hidden, c.MQTTURL, *c.MQTTURL, c.Secrets, c.Secrets[0], &c.Secrets[0], c.Certificate, flags, &flags, *flags.Secret} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			out = append(out, fmt.Sprintf(verb, v))
		}
	}
	for _, s := range out {
		if strings.Contains(s, "hunter2") || strings.Contains(s, fmt.Sprintf("%x", "hunter2")) || strings.Contains(s, number) {
			t.Errorf("a secret shows: %s", s)
		}
	}
	if s := fmt.Sprintf("%v %+v %#v %s", c.RootToken, c.RootToken, c.RootToken, c.RootToken); s != "redacted redacted redacted redacted" {
		t.Errorf("got %s", s)
	}
	if !strings.Contains(string(b), `"RootToken":"redacted"`) || !strings.Contains(log.String(), "s=redacted") {
		t.Errorf("got %s, %s", b, log.String())
	}
}

// certificate writes a new certificate and its key.
func certificate(t *testing.T) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return write(t, "cert.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))),
		write(t, "key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})))
}
