// Package rig starts throwaway servers for tests and measurements: a real
// PostgreSQL and a real Mosquitto, each on a free port of 127.0.0.1, with all
// that it writes in a temporary directory. They can be crashed and started
// again on the same port. Nothing outlives the program that started them, not
// even if it is killed. A server that isn't installed is an error, never a
// reason to leave something out.
//
// May import the standard library only, and never testing: internal/bench
// uses it in the program that ships.
package rig

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

const (
	startWithin = 30 * time.Second
	endWithin   = 10 * time.Second
	attempts    = 5
	pollEvery   = 10 * time.Millisecond

	// logTail is how much of a server's log an error quotes, in bytes.
	logTail = 2000

	// Ports below those that systems hand out for outgoing connections: while
	// a server is down, a client that tries to reach it again and again could
	// be given the very port, and the server could not come back.
	portMin, portMax = 20_000, 32_000
)

// errEnded is the cause when a server ended instead of becoming ready.
var errEnded = errors.New("it ended")

// Server is a throwaway server. Its methods that start or end it must not be
// called at the same time as each other; all others may be at any time.
type Server struct {
	name  string
	dir   string
	as    account
	crash syscall.Signal
	// command is what runs the server on a port.
	command func(port int) ([]string, error)
	// ready asks the server, once, whether it is this one and serves. The log
	// is what it has said since it was started.
	ready func(ctx context.Context, log []byte) error

	port    int
	known   bool // somebody may know the port: it stays
	process *os.Process
	ended   chan struct{} // closed at the end of process
	guard   *exec.Cmd
	orders  io.WriteCloser // to guard
}

// newServer makes the directory of a server, below parent or below the system's
// directory for temporary files, and has it guarded.
func newServer(ctx context.Context, name, parent, user string, crash syscall.Signal) (*Server, error) {
	as, err := accountFor(user)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	s := &Server{name: name, as: as, crash: crash}
	if parent == "" {
		parent = os.TempDir()
	}
	// What runs there does so in another directory.
	if parent, err = filepath.Abs(parent); err != nil {
		return nil, err
	}
	if s.dir, err = os.MkdirTemp(parent, "scrip-rig-"); err != nil {
		return nil, err
	}
	if err := s.watch(ctx); err != nil {
		return nil, errors.Join(err, os.RemoveAll(s.dir))
	}
	if err := as.own(s.dir); err != nil {
		return nil, errors.Join(err, s.Stop())
	}
	return s, nil
}

// guardScript reads the number of the process to end, anew for each start and
// empty when there is none. Its input ends when this program has ended, however
// that came: then it ends the process and removes the directory.
const guardScript = `
trap '' HUP INT TERM
pid=
while read -r next; do pid=$next; done
if [ -n "$pid" ]; then
	kill -"$2" "$pid"
	n=0
	while [ $n -lt 50 ] && kill -0 "$pid"; do sleep 0.1; n=$((n + 1)); done
	kill -KILL "$pid"
fi 2>/dev/null
rm -rf -- "$1"
`

func (s *Server) watch(ctx context.Context) error {
	s.guard = exec.CommandContext(context.WithoutCancel(ctx), //nolint:gosec // G204: a constant script
		"/bin/sh", "-c", guardScript, "sh", s.dir, strconv.Itoa(int(s.crash)))
	s.guard.Dir = "/"
	s.guard.SysProcAttr = ownGroup()
	var err error
	if s.orders, err = s.guard.StdinPipe(); err != nil {
		return err
	}
	return s.guard.Start()
}

// Start starts the server after Kill, on the port that it had, and returns when
// it serves, at the latest after 30 s. The server lives on when ctx ends.
func (s *Server) Start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	for attempt := 1; ; attempt++ {
		if !s.known {
			var err error
			if s.port, err = freePort(ctx); err != nil {
				return err
			}
		}
		// Somebody else may have taken the port since.
		err := s.try(ctx)
		if !errors.Is(err, errEnded) || attempt == attempts {
			s.known = s.known || err == nil
			return err
		}
	}
}

func (s *Server) try(ctx context.Context) error {
	if s.process != nil {
		return fmt.Errorf("%s runs already", s.name)
	}
	log, err := os.OpenFile(s.Log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	said, err := log.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}

	args, err := s.command(s.port)
	if err != nil {
		return err
	}
	cmd := s.execute(context.WithoutCancel(ctx), args...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting %s: %w", s.name, err)
	}
	_, unguarded := fmt.Fprintln(s.orders, cmd.Process.Pid)
	ended := make(chan struct{})
	s.process, s.ended = cmd.Process, ended
	go func() {
		defer close(ended)
		_ = cmd.Wait()                // a server that is crashed on purpose has no good end
		_, _ = fmt.Fprintln(s.orders) // the number may be another process's from now on
	}()
	err = unguarded
	if err == nil {
		err = s.await(ctx, said)
	}
	if err != nil {
		end := s.since(said)
		return errors.Join(fmt.Errorf("starting %s on port %d: %w; the end of its log:\n%s",
			s.name, s.port, err, end[max(0, len(end)-logTail):]), s.Kill())
	}
	return nil
}

// await asks until the server is ready.
func (s *Server) await(ctx context.Context, said int64) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		err := s.ready(ctx, s.since(said))
		if err == nil {
			return nil
		}
		select {
		case <-s.ended:
			return errEnded
		case <-ctx.Done():
			return fmt.Errorf("%w; it answered: %w", context.Cause(ctx), err)
		case <-tick.C:
		}
	}
}

// Kill crashes the server, as a failing machine would end it, and returns when
// it is gone. It does nothing if the server is down.
func (s *Server) Kill() error {
	if s.process == nil {
		return nil
	}
	if err := s.process.Signal(s.crash); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("ending %s: %w", s.name, err)
	}
	late := time.NewTimer(endWithin)
	defer late.Stop()
	select {
	case <-s.ended:
	case <-late.C:
		if err := s.process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return fmt.Errorf("ending %s: %w", s.name, err)
		}
		<-s.ended
	}
	s.process = nil
	return nil
}

// Restart crashes the server and starts it again on the same port.
func (s *Server) Restart(ctx context.Context) error {
	if err := s.Kill(); err != nil {
		return err
	}
	return s.Start(ctx)
}

// Stop ends the server for good and removes all that it wrote. It can be called
// again.
func (s *Server) Stop() error {
	if s.guard.ProcessState != nil {
		return nil
	}
	err := errors.Join(s.Kill(), s.orders.Close())
	if end := s.guard.Wait(); end != nil {
		err = errors.Join(err, fmt.Errorf("removing %s: %w", s.dir, end))
	}
	return err
}

// Log is the path of the file in which the server's log is, from its first
// start on. Stop removes it.
func (s *Server) Log() string { return filepath.Join(s.dir, "log") }

func (s *Server) address() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)) }

// since is what the log says from a place on.
func (s *Server) since(from int64) []byte {
	log, err := os.ReadFile(s.Log())
	if err != nil || int64(len(log)) < from {
		return nil
	}
	return log[from:]
}

// execute prepares a command that runs as the server's user, with nothing of
// the environment that could lead it elsewhere.
func (s *Server) execute(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...) //nolint:gosec // G204: the servers' own programs
	cmd.Dir = "/"                                         // where every user may be
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C"}
	cmd.SysProcAttr = s.as.attributes()
	return cmd
}

// run runs a command to its end and returns what it printed.
func (s *Server) run(ctx context.Context, args ...string) (string, error) {
	cmd := s.execute(ctx, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", filepath.Base(args[0]), err, bytes.TrimSpace(stderr.Bytes()))
	}
	return string(bytes.TrimSpace(out)), nil
}

// write writes a file that the server may read.
func (s *Server) write(name, content string) (string, error) {
	name = filepath.Join(s.dir, name)
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		return "", err
	}
	return name, s.as.own(name)
}

// freePort finds a port of 127.0.0.1 on which nobody listens.
func freePort(ctx context.Context) (int, error) {
	var last error
	for range 100 {
		port := portMin + rand.IntN(portMax-portMin) //nolint:gosec // G404: no secret
		var l net.Listener
		if l, last = new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port))); last == nil {
			return port, l.Close()
		}
	}
	return 0, fmt.Errorf("no free port between %d and %d: %w", portMin, portMax, last)
}
