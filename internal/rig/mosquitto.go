package rig

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
)

// MosquittoOptions say what kind of Mosquitto is wanted. The zero value lets
// everybody do everything.
type MosquittoOptions struct {
	// Users are the passwords by user. If there are any, nobody else comes in.
	// Neither may contain a colon or a line break.
	Users map[string]string
	// ACL is the content of an access control file.
	ACL string
	// Config is more lines of the configuration.
	Config string
}

// Mosquitto is a throwaway MQTT broker. It keeps nothing over a restart.
type Mosquitto struct{ *Server }

// StartMosquitto starts a broker, in 30 s at most. It lives until Stop, or the
// end of the program, and not only until ctx ends. As root, it runs as the user
// nobody.
func StartMosquitto(ctx context.Context, options MosquittoOptions) (*Mosquitto, error) {
	bin, err := mosquittoBin()
	if err != nil {
		return nil, err
	}
	// As root Mosquitto would change to another user by itself, to whom
	// nothing here belongs.
	s, err := newServer(ctx, "Mosquitto", "", "nobody", syscall.SIGKILL)
	if err != nil {
		return nil, err
	}
	m := &Mosquitto{s}
	if err := m.begin(ctx, bin, options); err != nil {
		return nil, errors.Join(err, m.Stop())
	}
	return m, nil
}

func (m *Mosquitto) begin(ctx context.Context, bin string, options MosquittoOptions) error {
	access, err := m.access(ctx, options)
	if err != nil {
		return err
	}
	m.ready = m.answers
	m.command = func(port int) ([]string, error) {
		file, err := m.write("mosquitto.conf", fmt.Sprintf(config, port)+access+options.Config+"\n")
		// Each connection is an open file; the limit that a user begins with
		// is low, so that old programs don't stumble, and may be raised.
		return []string{"/bin/sh", "-c", `ulimit -n "$(ulimit -Hn)"; exec "$@"`, "sh", bin, "-c", file}, err
	}
	return m.Start(ctx)
}

// config holds a million messages for a machine that is away or slow: the 1,000
// that Mosquitto begins with would drop what a test waits for. A line for each
// connection would be most of the work under load.
const config = `listener %d 127.0.0.1
persistence false
log_dest stderr
connection_messages false
max_queued_messages 1000000
max_inflight_messages 100
`

// access writes the files that say who may do what, and returns the lines that
// name them.
func (m *Mosquitto) access(ctx context.Context, options MosquittoOptions) (string, error) {
	lines := "allow_anonymous true\n"
	if len(options.Users) > 0 {
		var users strings.Builder
		for name, password := range options.Users {
			// mosquitto_passwd would cut it off, in silence.
			if strings.ContainsAny(name+password, ":\r\n") {
				return "", fmt.Errorf("user %q: its name or password has a colon or a line break", name)
			}
			fmt.Fprintf(&users, "%s:%s\n", name, password)
		}
		file, err := m.write("users", users.String())
		if err != nil {
			return "", err
		}
		if _, err := m.run(ctx, "mosquitto_passwd", "-U", file); err != nil {
			return "", err
		}
		lines = "allow_anonymous false\npassword_file " + file + "\n"
	}
	if options.ACL != "" {
		file, err := m.write("acl", options.ACL)
		if err != nil {
			return "", err
		}
		lines += "acl_file " + file + "\n"
	}
	return lines, nil
}

// answers connects. Another server may listen there, and nothing that it says
// would tell: the log does.
func (m *Mosquitto) answers(ctx context.Context, log []byte) error {
	if !bytes.Contains(log, []byte(" running\n")) {
		return errors.New("its log doesn't say yet that it is running")
	}
	c, err := new(net.Dialer).DialContext(ctx, "tcp", m.address())
	if err != nil {
		return err
	}
	return c.Close()
}

// URL is the broker's address.
func (m *Mosquitto) URL() string { return "mqtt://" + m.address() }

// mosquittoBin finds the program: in PATH, or where Debian puts it, which is in
// root's PATH only.
func mosquittoBin() (string, error) {
	if path, err := exec.LookPath("mosquitto"); err == nil {
		return path, nil
	}
	const debian = "/usr/sbin/mosquitto"
	if _, err := os.Stat(debian); err != nil {
		return "", fmt.Errorf("the program mosquitto is not installed: neither in PATH nor %s; on Debian, install the package mosquitto", debian)
	}
	return debian, nil
}
