// Package config reads the settings of the scrip command, from flags, the
// environment and an optional file, in that order of precedence, into one
// struct that has been checked. It also keeps the file that holds the secret
// when no setting does. Imports: the standard library only.
package config

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The names of the settings, in the environment and in the file.
const (
	settingConfig         = "SCRIP_CONFIG"
	settingDataDir        = "SCRIP_DATA_DIR"
	settingDatabaseURL    = "SCRIP_DATABASE_URL"
	settingHTTPAddr       = "SCRIP_HTTP_ADDR"
	settingSecret         = "SCRIP_SECRET"
	settingRootToken      = "SCRIP_ROOT_TOKEN" //nolint:gosec // G101: the name of a setting
	settingTLSCert        = "SCRIP_TLS_CERT"
	settingTLSKey         = "SCRIP_TLS_KEY"
	settingGuessLimit     = "SCRIP_GUESS_LIMIT"
	settingGuessWindow    = "SCRIP_GUESS_WINDOW"
	settingTrustedProxies = "SCRIP_TRUSTED_PROXIES"
	settingLogLevel       = "SCRIP_LOG_LEVEL"
	settingMQTTAddr       = "SCRIP_MQTT_ADDR"
	settingMQTTURL        = "SCRIP_MQTT_URL"
	settingMQTTAuthToken  = "SCRIP_MQTT_AUTH_TOKEN" //nolint:gosec // G101: the name of a setting
	settingMQTTTLSCert    = "SCRIP_MQTT_TLS_CERT"
	settingMQTTTLSKey     = "SCRIP_MQTT_TLS_KEY"
	// These are for scrip machine run alone.
	settingMachinePassword = "SCRIP_MACHINE_PASSWORD" //nolint:gosec // G101: the name of a setting
	settingMachineAppKey   = "SCRIP_MACHINE_APP_KEY"
)

const (
	prefix       = "SCRIP_"
	databaseFile = "scrip.db"
	// shortSecret is the length below which a secret or token draws a warning:
	// 16 characters of hexadecimal are 64 bits.
	shortSecret = 16
	// guessLimitMax and guessWindowMax keep the counters of guesses from
	// meaning nothing, and from being kept for ever.
	guessLimitMax  = 1_000_000
	guessWindowMax = 7 * 24 * time.Hour
)

// Flags are the settings as flags of a command line. A nil field was not
// given. The setting tag is the name that the environment and the file know it
// by; default is shown in help and applied by Load, after all three were asked.
type Flags struct {
	Config         *string `group:"Configuration" placeholder:"FILE" setting:"SCRIP_CONFIG" help:"Read settings from this file too: lines of KEY=VALUE, with the names that stand in brackets here. Flags come before the environment, and that before the file."`
	DataDir        *string `group:"Configuration" placeholder:"./data" setting:"SCRIP_DATA_DIR" help:"Directory of the database and of the secret file. It is made when missing."`
	DatabaseURL    *string `group:"Configuration" name:"database-url" placeholder:"URL" setting:"SCRIP_DATABASE_URL" help:"Where the data is kept. Empty: SQLite, in scrip.db in the data directory. sqlite:PATH: SQLite, in that file. postgres://USER:PASSWORD@HOST/DATABASE: PostgreSQL, which several servers may share. Better set in the environment if it holds a password."`
	HTTPAddr       *string `group:"Configuration" name:"http-addr" placeholder:"127.0.0.1:8080" setting:"SCRIP_HTTP_ADDR" help:"Address and port to serve HTTP on. Without an address, like :8080, on all of the machine's."`
	MQTTAddr       *string `group:"Configuration" name:"mqtt-addr" placeholder:"127.0.0.1:1883" setting:"SCRIP_MQTT_ADDR" help:"Address and port to serve MQTT on, for vending machines. Without an address, like :1883, on all of the machine's. off: serve none."`
	MQTTURL        *Secret `group:"Configuration" name:"mqtt-url" placeholder:"URL" setting:"SCRIP_MQTT_URL" help:"Use this MQTT broker instead of serving MQTT: mqtt://USER:PASSWORD@HOST, mqtts://, ws:// or wss://. Better set in the environment: other users of the machine can see flags."`
	MQTTAuthToken  *Secret `group:"Configuration" name:"mqtt-auth-token" placeholder:"TOKEN" setting:"SCRIP_MQTT_AUTH_TOKEN" help:"What that broker must say when it asks, at /mqtt/auth and /mqtt/acl, who may log in and what they may do. Empty: it may not ask. Better set in the environment."`
	Secret         *Secret `group:"Configuration" placeholder:"SECRET" setting:"SCRIP_SECRET" help:"What the data keys are locked with; without it the database is worth nothing. Several, separated by commas, newest first, while one replaces another. Empty: the file 'secret' in the data directory, made on first start. Better set in the environment: other users of the machine can see flags."`
	RootToken      *Secret `group:"Configuration" placeholder:"TOKEN" setting:"SCRIP_ROOT_TOKEN" help:"Access token of the account root, which the first start makes. Empty: a random one, which is printed once. Of no effect later. Better set in the environment."`
	TLSCert        *string `group:"Configuration" name:"tls-cert" placeholder:"FILE" setting:"SCRIP_TLS_CERT" help:"Certificate, with its chain, in PEM: serve HTTPS. Needs --tls-key."`
	TLSKey         *string `group:"Configuration" name:"tls-key" placeholder:"FILE" setting:"SCRIP_TLS_KEY" help:"Private key of the certificate, in PEM."`
	MQTTTLSCert    *string `group:"Configuration" name:"mqtt-tls-cert" placeholder:"FILE" setting:"SCRIP_MQTT_TLS_CERT" help:"Certificate, with its chain, in PEM: serve MQTT over TLS with it. Empty: with that of HTTPS, if there is one. Needs --mqtt-tls-key."`
	MQTTTLSKey     *string `group:"Configuration" name:"mqtt-tls-key" placeholder:"FILE" setting:"SCRIP_MQTT_TLS_KEY" help:"Private key of that certificate, in PEM."`
	GuessLimit     *string `group:"Configuration" placeholder:"20" setting:"SCRIP_GUESS_LIMIT" help:"How many unknown keys, or wrong passwords, an account or an address may try in a window. 0: no limit."`
	GuessWindow    *string `group:"Configuration" placeholder:"10m" setting:"SCRIP_GUESS_WINDOW" help:"How long that window is, like 90s, 10m or 1h."`
	TrustedProxies *string `group:"Configuration" placeholder:"NETWORKS" setting:"SCRIP_TRUSTED_PROXIES" help:"Addresses and networks of reverse proxies, separated by commas, like 10.0.0.0/8,::1. Only they are believed when they say which address a request came from."`
	LogLevel       *string `group:"Configuration" placeholder:"info" setting:"SCRIP_LOG_LEVEL" help:"What to log: debug, info, warn or error."`
}

// Config is the settings, checked.
type Config struct {
	DataDir string
	// Database is the path of the SQLite file or, for people to read, the address of
	// the PostgreSQL database without its password.
	Database string
	// Postgres is the address of the PostgreSQL database; none: it is SQLite.
	Postgres Secret
	HTTPAddr string
	MQTTAddr string // empty: MQTT is not served
	// MQTTURL is the broker to use instead, with its credentials; nil: none.
	MQTTURL *Redacted[url.URL]
	// MQTTAuthToken is what that broker asks with; empty: it may not ask.
	MQTTAuthToken Secret
	// Secrets are those set, newest first; none: they are in the secret file.
	Secrets   []Secret
	RootToken Secret // empty: a random one
	// Certificate is what HTTPS is served with; nil: HTTP is served.
	Certificate *Redacted[tls.Certificate]
	// MQTTCertificate is what MQTT over TLS is served with; nil: MQTT is served
	// without.
	MQTTCertificate *Redacted[tls.Certificate]
	GuessLimit      int // 0: no limit
	GuessWindow     time.Duration
	TrustedProxies  []netip.Prefix
	LogLevel        slog.Level

	// Warnings are sentences about what is probably not meant.
	Warnings []string
}

// Error says what is wrong with a setting and what to do about it.
type Error struct {
	Setting string
	Problem string
	Do      string
}

// Error returns one line of text.
func (e *Error) Error() string { return e.Setting + ": " + e.Problem + ": " + e.Do }

// Load reads the settings. Environ is as os.Environ returns it. If any is
// wrong it fails with an *Error for each, joined.
func Load(f Flags, environ []string) (Config, error) {
	s := settings{environment: map[string]string{}}
	for _, kv := range environ {
		if name, value, ok := strings.Cut(kv, "="); ok && strings.HasPrefix(name, prefix) {
			s.environment[name] = value
		}
	}
	var c Config
	if file := s.get(settingConfig, f.Config, ""); file != "" {
		if err := s.readFile(file, &c); err != nil {
			return Config{}, err
		}
	}
	c.Warnings = append(c.Warnings, s.unknown()...)

	c.DataDir = s.get(settingDataDir, f.DataDir, "./data")
	c.LogLevel = s.logLevel(f)
	c.Database, c.Postgres = s.database(f, c.DataDir)
	c.HTTPAddr = s.listenAddr(settingHTTPAddr, f.HTTPAddr, "8080")
	c.MQTTAddr, c.MQTTURL = s.mqtt(f)
	c.MQTTAuthToken = s.token(settingMQTTAuthToken, f.MQTTAuthToken, &c)
	c.Secrets = s.secrets(f, &c)
	c.RootToken = s.token(settingRootToken, f.RootToken, &c)
	c.Certificate = s.certificate("HTTPS", settingTLSCert, f.TLSCert, settingTLSKey, f.TLSKey)
	c.MQTTCertificate = s.certificate("MQTT over TLS", settingMQTTTLSCert, f.MQTTTLSCert, settingMQTTTLSKey, f.MQTTTLSKey)
	if c.MQTTCertificate == nil {
		c.MQTTCertificate = c.Certificate
	}
	c.GuessLimit, c.GuessWindow = s.guesses(f)
	c.TrustedProxies = s.trustedProxies(f)
	if s.wrong != nil {
		return Config{}, errors.Join(s.wrong...)
	}
	return c, nil
}

// settings is where Load looks things up, and what it found wrong.
type settings struct {
	environment, file map[string]string
	wrong             []error
}

// get looks in the three places. A variable that is set to nothing counts as
// set: it brings back the default that a file has changed.
func (s *settings) get(name string, flag *string, otherwise string) string {
	value := ""
	if flag != nil {
		value = *flag
	} else if v, ok := s.environment[name]; ok {
		value = v
	} else {
		value = s.file[name]
	}
	if value = strings.TrimSpace(value); value == "" {
		return otherwise
	}
	return value
}

func (s *settings) secret(name string, flag *Secret) string {
	if flag == nil {
		return s.get(name, nil, "")
	}
	text := flag.Reveal()
	return s.get(name, &text, "")
}

func (s *settings) fail(setting, problem, do string) {
	s.wrong = append(s.wrong, &Error{setting, problem, do})
}

func (s *settings) readFile(file string, c *Config) error {
	text, err := os.ReadFile(file) //nolint:gosec // G304: the operator names the file
	if err != nil {
		return &Error{settingConfig, "cannot read " + reason(err), "name a file that can be read, or none"}
	}
	if s.file, err = parseFile(string(text)); err != nil {
		return &Error{settingConfig, file + ", " + err.Error(), "write one KEY=VALUE a line, and # before comments"}
	}
	holds := func(setting string) bool { return s.file[setting] != "" }
	if slices.ContainsFunc([]string{settingSecret, settingRootToken, settingMQTTURL, settingMQTTAuthToken}, holds) ||
		strings.HasPrefix(s.file[settingDatabaseURL], "postgres") {
		if info, err := os.Stat(file); err == nil && othersMayRead(info) {
			c.Warnings = append(c.Warnings, fmt.Sprintf(
				"%s holds a secret and other users of this machine can read it: chmod 600 it", file))
		}
	}
	return nil
}

// unknown returns a sentence for each variable that looks like ours and is not.
func (s *settings) unknown() []string {
	known := []string{
		settingConfig, settingDataDir, settingDatabaseURL, settingHTTPAddr, settingSecret, settingRootToken,
		settingTLSCert, settingTLSKey, settingGuessLimit, settingGuessWindow, settingTrustedProxies, settingLogLevel,
		settingMQTTAddr, settingMQTTURL, settingMQTTAuthToken, settingMQTTTLSCert, settingMQTTTLSKey, settingMachinePassword, settingMachineAppKey,
	}
	var out []string
	for _, name := range slices.Sorted(maps.Keys(s.environment)) {
		if !slices.Contains(known, name) {
			out = append(out, name+" is not a setting of this version: it is ignored")
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.file)) {
		_, said := s.environment[name]
		switch {
		case name == settingConfig:
			out = append(out, name+" has no effect in a file")
		case strings.HasPrefix(name, prefix) && !said && !slices.Contains(known, name):
			out = append(out, name+" is not a setting of this version: it is ignored")
		}
	}
	return out
}

func (s *settings) database(f Flags, dataDir string) (shown string, postgres Secret) {
	url := s.get(settingDatabaseURL, f.DatabaseURL, "")
	if url == "" {
		return filepath.Join(dataDir, databaseFile), Secret{}
	}
	scheme, path, ok := strings.Cut(url, ":")
	const do = "leave it empty for SQLite in the data directory, or write sqlite:PATH or postgres://USER:PASSWORD@HOST/DATABASE"
	if scheme == "postgres" || scheme == "postgresql" {
		if !strings.HasPrefix(path, "//") {
			url = scheme + "://" + path
		}
		return s.postgres(url, do), NewSecret(url)
	}
	if !ok || scheme != "sqlite" {
		// The URL may hold a password: only what is safe to show is shown.
		if !ok || strings.ContainsAny(scheme, "/@ ") {
			scheme = "this"
		}
		s.fail(settingDatabaseURL, scheme+" is not a database that this build serves; it serves SQLite and PostgreSQL", do)
		return "", Secret{}
	}
	path = strings.TrimPrefix(path, "//")
	if path == "" || strings.ContainsAny(path, "?#") || path == ":memory:" {
		s.fail(settingDatabaseURL, "sqlite: needs the path of a file, without parameters", do)
	}
	return path, Secret{}
}

// postgres checks an address and returns it without what must not be seen.
func (s *settings) postgres(address, do string) string {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || strings.Trim(u.Path, "/") == "" {
		s.fail(settingDatabaseURL, "this is no address of a PostgreSQL database: it needs a host and the name of a database", do)
		return ""
	}
	shown := url.URL{Scheme: "postgres", Host: u.Host, Path: u.Path}
	if u.User != nil {
		shown.User = url.User(u.User.Username())
	}
	return shown.String()
}

// Embedded reports whether the database is a file of SQLite's.
func (c *Config) Embedded() bool { return c.Postgres.Reveal() == "" }

// listenAddr reads an address to listen on; without one it is that port of this
// machine alone.
func (s *settings) listenAddr(setting string, flag *string, port string) string {
	addr := s.get(setting, flag, "127.0.0.1:"+port)
	do := fmt.Sprintf("write an address and a port, like 127.0.0.1:%[1]s, [::1]:%[1]s or :%[1]s", port)
	if _, port, err := net.SplitHostPort(addr); err != nil {
		s.fail(setting, fmt.Sprintf("%q is not an address with a port", addr), do)
	} else if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		s.fail(setting, fmt.Sprintf("%q is not a port between 0 and 65535", port), do)
	}
	return addr
}

func (s *settings) secrets(f Flags, c *Config) []Secret {
	text := s.secret(settingSecret, f.Secret)
	if text == "" {
		return nil
	}
	var out []Secret
	for part := range strings.SplitSeq(text, ",") {
		if part = strings.TrimSpace(part); part != "" {
			out = append(out, NewSecret(part))
		}
	}
	if out == nil {
		s.fail(settingSecret, "there is no secret between the commas",
			"write one or more, or leave it empty for the secret file")
	}
	if tooShort(out) {
		c.Warnings = append(c.Warnings, settingSecret+" is shorter than "+strconv.Itoa(shortSecret)+
			" characters: whoever copies the database may guess it; 'openssl rand -hex 32' makes a good one")
	}
	return out
}

func tooShort(secrets []Secret) bool {
	return slices.ContainsFunc(secrets, func(s Secret) bool { return len(s.Reveal()) < shortSecret })
}

// token reads what somebody is to show in a header.
func (s *settings) token(setting string, flag *Secret, c *Config) Secret {
	token := s.secret(setting, flag)
	if strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		s.fail(setting, "it holds characters that a request header cannot carry",
			"use letters, digits and punctuation only")
	}
	if token != "" && len(token) < shortSecret {
		advice := "leave it empty to have a good one made"
		if setting != settingRootToken {
			advice = "'openssl rand -hex 32' makes a good one"
		}
		c.Warnings = append(c.Warnings, setting+" is shorter than "+strconv.Itoa(shortSecret)+
			" characters: it can be guessed; "+advice)
	}
	return NewSecret(token)
}

// mqtt reads where MQTT is served, or which broker is used instead.
func (s *settings) mqtt(f Flags) (addr string, broker *Redacted[url.URL]) {
	given := s.get(settingMQTTAddr, f.MQTTAddr, "")
	text := s.secret(settingMQTTURL, f.MQTTURL)
	if text != "" {
		if given != "" {
			s.fail(settingMQTTURL, settingMQTTAddr+" is set too", "set one of them: the address to serve MQTT there, or the URL to use another broker")
		}
		return "", s.brokerURL(text)
	}
	if given == "off" {
		return "", nil
	}
	return s.listenAddr(settingMQTTAddr, f.MQTTAddr, "1883"), nil
}

// brokerURL reads the URL of a broker. It may hold a password: nothing of it is
// shown.
func (s *settings) brokerURL(text string) *Redacted[url.URL] {
	const do = "write it like mqtt://HOST, mqtts://USER:PASSWORD@HOST:8883 or wss://HOST/mqtt, with other characters than letters and digits in the password as %XX"
	u, err := url.Parse(text)
	if err != nil {
		s.fail(settingMQTTURL, "it is not a URL", do)
		return nil
	}
	_, err = strconv.ParseUint(u.Port(), 10, 16)
	web := u.Scheme == "ws" || u.Scheme == "wss"
	switch {
	case !web && u.Scheme != "mqtt" && u.Scheme != "mqtts":
		s.fail(settingMQTTURL, "it begins with none of mqtt://, mqtts://, ws:// and wss://", do)
	case u.Hostname() == "":
		s.fail(settingMQTTURL, "it names no host", do)
	case u.Port() != "" && err != nil:
		s.fail(settingMQTTURL, "its port is not between 0 and 65535", do)
	case u.RawQuery != "" || u.Fragment != "" || u.ForceQuery:
		s.fail(settingMQTTURL, "it has parameters, and takes none", do)
	case !web && strings.Trim(u.Path, "/") != "":
		s.fail(settingMQTTURL, "it has a path, which only ws:// and wss:// have", do)
	}
	r := Redact(*u)
	return &r
}

// certificate reads a pair of files to serve a protocol over TLS with; nil for
// without.
func (s *settings) certificate(
	protocol, settingCert string, flagCert *string, settingKey string, flagKey *string,
) *Redacted[tls.Certificate] {
	cert, key := s.get(settingCert, flagCert, ""), s.get(settingKey, flagKey, "")
	do := "set both for " + protocol + ", or neither"
	switch {
	case cert == "" && key == "":
		return nil
	case cert == "":
		s.fail(settingCert, "it is not set, but "+settingKey+" is", do)
		return nil
	case key == "":
		s.fail(settingKey, "it is not set, but "+settingCert+" is", do)
		return nil
	}
	for _, f := range [][2]string{{settingCert, cert}, {settingKey, key}} {
		if _, err := os.ReadFile(f[1]); err != nil {
			s.fail(f[0], "cannot read "+reason(err), "name a PEM file that this user may read")
			return nil
		}
	}
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		s.fail(settingCert, "it does not go together with "+settingKey+" ("+err.Error()+")",
			"name a certificate in PEM and the private key that it was made for")
		return nil
	}
	r := Redact(pair)
	return &r
}

func (s *settings) guesses(f Flags) (int, time.Duration) {
	text := s.get(settingGuessLimit, f.GuessLimit, "20")
	limit, err := strconv.Atoi(text)
	if err != nil || limit < 0 || limit > guessLimitMax {
		s.fail(settingGuessLimit, fmt.Sprintf("%q is not a number between 0 and %d", text, guessLimitMax),
			"write how many wrong guesses are allowed in a window, or 0 for no limit")
	}
	text = s.get(settingGuessWindow, f.GuessWindow, "10m")
	window, err := time.ParseDuration(text)
	if err != nil || window < time.Second || window > guessWindowMax {
		s.fail(settingGuessWindow, fmt.Sprintf("%q is not a time between 1s and %dh", text, int(guessWindowMax.Hours())),
			"write a number with its unit, like 90s, 10m or 1h")
	}
	return limit, window
}

func (s *settings) trustedProxies(f Flags) []netip.Prefix {
	var out []netip.Prefix
	for part := range strings.SplitSeq(s.get(settingTrustedProxies, f.TrustedProxies, ""), ",") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		p, err := parsePrefix(part)
		if err != nil {
			s.fail(settingTrustedProxies, fmt.Sprintf("%q is neither an address nor a network", part),
				"write addresses and networks separated by commas, like 10.0.0.0/8,::1")
		}
		out = append(out, p)
	}
	return out
}

func parsePrefix(text string) (netip.Prefix, error) {
	if strings.Contains(text, "/") {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return netip.Prefix{}, err
		}
		if p.Addr().Is4In6() && p.Bits() >= 96 {
			p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
		}
		return p.Masked(), nil
	}
	a, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Prefix{}, err
	}
	a = a.Unmap().WithZone("")
	return a.Prefix(a.BitLen())
}

func (s *settings) logLevel(f Flags) slog.Level {
	text := s.get(settingLogLevel, f.LogLevel, "info")
	switch strings.ToLower(text) {
	case "debug":
		return slog.LevelDebug
	case "info":
		return slog.LevelInfo
	case "warn":
		return slog.LevelWarn
	case "error":
		return slog.LevelError
	}
	s.fail(settingLogLevel, fmt.Sprintf("%q is not a level", text), "write debug, info, warn or error")
	return slog.LevelInfo
}

// reason is the path and the cause of a file error, without the system call.
func reason(err error) string {
	if path, ok := errors.AsType[*os.PathError](err); ok {
		return path.Path + ": " + path.Err.Error()
	}
	return err.Error()
}

// othersMayRead reports whether a file is open to more than its owner. Windows
// has no such bits.
func othersMayRead(info os.FileInfo) bool {
	return runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0
}
