package rig

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
)

// PostgresOptions say what kind of PostgreSQL is wanted.
type PostgresOptions struct {
	// Durable leaves the server as it comes, so that what it has committed
	// survives a crash. Without it nothing waits for the disk.
	Durable bool
	// Dir is the directory below which that of the server is made; empty, it
	// is the system's for temporary files. As root, the user postgres must be
	// able to go through it: the directory of testing's TempDir won't do.
	Dir string
}

// Postgres is a throwaway PostgreSQL. The superuser app needs no password.
type Postgres struct {
	*Server
	bin string
}

// StartPostgres makes a cluster and starts it, in about a second and in 30 s at
// most. It takes 300 connections. It lives until Stop, or the end of the
// program, and not only until ctx ends. As root, it runs as the user postgres.
func StartPostgres(ctx context.Context, options PostgresOptions) (*Postgres, error) {
	bin, err := postgresBin("/usr/lib/postgresql")
	if err != nil {
		return nil, err
	}
	s, err := newServer(ctx, "PostgreSQL", options.Dir, "postgres", syscall.SIGQUIT)
	if err != nil {
		return nil, err
	}
	p := &Postgres{s, bin}
	if err := p.begin(ctx, options.Durable); err != nil {
		return nil, errors.Join(err, p.Stop())
	}
	return p, nil
}

func (p *Postgres) begin(ctx context.Context, durable bool) error {
	data := filepath.Join(p.dir, "data")
	making, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	if _, err := p.run(making, p.Bin("initdb"), "--pgdata="+data, "--username=app", "--auth=trust",
		"--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions"); err != nil {
		return err
	}
	p.command = func(port int) ([]string, error) {
		// A socket's path has a limit that a temporary directory may pass.
		args := []string{
			p.Bin("postgres"), "-D", data, "-p", strconv.Itoa(port),
			"-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "max_connections=300",
		}
		if !durable {
			args = append(args, "-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off")
		}
		return args, nil
	}
	p.ready = func(ctx context.Context, _ []byte) error {
		// Another server may listen there.
		found, err := p.run(ctx, p.Bin("psql"), "-XAt", "-c", "show data_directory", p.URL("postgres"))
		if err == nil && found != data {
			err = fmt.Errorf("it is the PostgreSQL of %s", found)
		}
		return err
	}
	return p.Start(ctx)
}

// URL is the address of a database, with the user app.
func (p *Postgres) URL(database string) string {
	return "postgres://app@" + p.address() + "/" + database + "?sslmode=disable"
}

// Create makes a database and returns its URL. It is a copy of template, to
// which nobody may be connected then, or empty if template is "".
func (p *Postgres) Create(ctx context.Context, name, template string) (string, error) {
	args := []string{p.Bin("createdb"), "--maintenance-db=" + p.URL("postgres")}
	if template != "" {
		args = append(args, "--template="+template)
	}
	if _, err := p.run(ctx, append(args, "--", name)...); err != nil {
		return "", err
	}
	return p.URL(name), nil
}

// Bin is the path of one of PostgreSQL's programs, such as psql, pg_dump or
// pgbench, of the server's version.
func (p *Postgres) Bin(name string) string { return filepath.Join(p.bin, name) }

// postgresBin finds the directory of the server's programs: that of the newest
// version below Debian's directory, where PATH doesn't lead, or else PATH's.
func postgresBin(debian string) (string, error) {
	installed, err := filepath.Glob(filepath.Join(debian, "*", "bin"))
	if err != nil {
		return "", err
	}
	newest, best := 0.0, ""
	for _, dir := range installed {
		// Some versions have the clients alone.
		if _, err := os.Stat(filepath.Join(dir, "initdb")); err != nil {
			continue
		}
		version, err := strconv.ParseFloat(filepath.Base(filepath.Dir(dir)), 64)
		if err == nil && version > newest {
			newest, best = version, dir
		}
	}
	if best != "" {
		return best, nil
	}
	path, err := exec.LookPath("initdb")
	if err != nil {
		return "", fmt.Errorf("PostgreSQL's server is not installed: no initdb in %s/*/bin nor in PATH; on Debian, install the package postgresql", debian)
	}
	return filepath.Dir(path), nil
}
