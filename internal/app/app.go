// Package app is the scrip command: its subcommands, and the order in which
// the parts of the server start and stop. Nobody imports it but cmd/scrip; it
// alone reads the clock. Imports: config, the use cases, the engine, api, broker,
// bench, device, and kong, the Prometheus client and x/net.
package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kong"

	"github.com/scrip-codes/scrip/internal/bench"
	"github.com/scrip-codes/scrip/internal/config"
)

// Exit codes.
const (
	exitFailure = 1
	exitConfig  = 2 // wrong configuration or usage
)

// Process is what the command needs of the process that it runs in.
type Process struct {
	Args    []string // without the program's name
	Environ []string
	Stdin   io.Reader
	Stdout  io.Writer
	Stderr  io.Writer
	Version string
}

// OS returns the process that the program is. With no version given it says
// what the build recorded.
func OS(version string) Process {
	if info, ok := debug.ReadBuildInfo(); version == "" && ok {
		version = info.Main.Version
	}
	return Process{
		Args: os.Args[1:], Environ: os.Environ(),
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Version: version,
	}
}

// commands is the command line. A command's Run is given the context, which
// the first interrupt ends, and the *program.
type commands struct {
	config.Flags

	Serve    serveCommand     `cmd:"" help:"Serve the API, and MQTT to vending machines."`
	User     userCommands     `cmd:"" help:"Create and change accounts."`
	Merchant merchantCommands `cmd:"" help:"Create and change merchants, who own vending machines."`
	Machine  machineCommands  `cmd:"" help:"Create and change vending machines."`
	Product  productCommands  `cmd:"" help:"Say what a vending machine sells."`
	Ledger   ledgerCommands   `cmd:"" help:"Show and verify the record of everything."`
	Migrate  migrateCommand   `cmd:"" help:"Bring the database's schema up to date."`
	Secret   secretCommands   `cmd:"" help:"Change the data keys."`
	Demo     demoCommand      `cmd:"" help:"Show all of it: a server, three machines and some activity, on a temporary directory."`
	Backup   backupCommand    `cmd:"" help:"Copy the database to a file, also while serving."`
	Restore  restoreCommand   `cmd:"" help:"Put a backup into an empty data directory."`
	Copy     copyCommand      `cmd:"" help:"Copy everything to another database, of SQLite or PostgreSQL."`
	Bench    bench.Command    `cmd:"" help:"Measure this machine, or a running server."`
	Version  versionCommand   `cmd:"" help:"Print the version."`
}

// program is what the commands share.
type program struct {
	Process
	flags *config.Flags
}

// Run runs the command and returns the exit code.
func Run(p Process) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// From the first signal on the next one has its usual effect: it kills.
	defer context.AfterFunc(ctx, stop)()

	var c commands
	exited := -1
	parser, err := kong.New(
		&c,
		kong.Name("scrip"),
		kong.Description("Scrip issues, delivers and redeems codes that are worth something, exactly once."),
		kong.Writers(p.Stdout, p.Stderr),
		kong.Exit(func(code int) { exited = code }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 100}),
		kong.ValueFormatter(helpText),
		kong.BindTo(ctx, (*context.Context)(nil)),
		kong.Bind(&program{Process: p, flags: &c.Flags}),
		kong.Bind(&bench.Env{Stdout: p.Stdout, Stderr: p.Stderr, Now: now, Version: p.Version}),
	)
	if err != nil {
		return fail(p.Stderr, err)
	}
	parsed, err := parser.Parse(p.Args)
	if exited >= 0 { // help was asked for
		return exited
	}
	if err != nil {
		_, _ = fmt.Fprintf(p.Stderr, "scrip: %v: see scrip --help\n", err)
		return exitConfig
	}
	if err := parsed.Run(); err != nil {
		if ctx.Err() != nil && errors.Is(err, context.Canceled) {
			err = errors.New("interrupted")
		}
		return fail(p.Stderr, err)
	}
	return 0
}

// helpText is the help of a flag, with the name of its setting.
func helpText(value *kong.Value) string {
	if setting := value.Tag.Get("setting"); setting != "" {
		return value.Help + " [" + setting + "]"
	}
	return value.Help
}

// fail prints an error, a line for each of those joined in it, and returns the
// exit code.
func fail(w io.Writer, err error) int {
	code := exitFailure
	if _, ok := errors.AsType[*config.Error](err); ok {
		code = exitConfig
	}
	for line := range strings.SplitSeq(sentence(err), "\n") {
		_, _ = fmt.Fprintln(w, "scrip:", line)
	}
	return code
}

// configure loads the settings. Its warnings are the caller's to show.
func (p *program) configure() (config.Config, error) { return config.Load(*p.flags, p.Environ) }

// now is the clock of everything below.
func now() time.Time { return time.Now() }

type versionCommand struct{}

// Run prints the version.
func (versionCommand) Run(p *program) error {
	_, err := fmt.Fprintln(p.Stdout, "scrip", p.Version)
	return err
}
