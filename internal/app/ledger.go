package app

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/refusal"
)

type ledgerCommands struct {
	Verify ledgerVerify `cmd:"" help:"Walk the whole ledger: find what was altered, removed, moved or cut off, and add up every balance."`
	Head   ledgerHead   `cmd:"" help:"Print a checkpoint, to keep where nobody who can change the database can change it."`
	List   ledgerList   `cmd:"" help:"List entries, newest first."`
}

type ledgerVerify struct {
	Since string `placeholder:"CHECKPOINT" help:"Also prove that the ledger still holds what it held when 'scrip ledger head' printed this; only that shows an older copy put back."`
	JSON  bool   `help:"Print JSON."`
}

type verifyJSON struct {
	Whole      bool     `json:"whole"`
	Lanes      int      `json:"lanes"`
	Entries    int64    `json:"entries"`
	Accounts   int64    `json:"accounts"`
	Checkpoint string   `json:"checkpoint"`
	Faults     []string `json:"faults"`
	MoreFaults int64    `json:"more_faults"`
}

// Run verifies the ledger.
func (c *ledgerVerify) Run(ctx context.Context, p *program) error {
	var since []account.Checkpoint
	if c.Since != "" {
		var err error
		if since, err = account.ParseCheckpoints(c.Since); err != nil {
			return err
		}
	}
	return p.with(ctx, opening{}, func(s *store) error {
		key, err := s.Keys().LedgerKey(ctx)
		if err != nil {
			return err
		}
		bar := newProgress(p.Stderr)
		report, err := account.Verify(ctx, s.engine, key, since, func(n int64) { bar.say("%d entries verified", n) })
		if err != nil {
			return fmt.Errorf("reading the ledger: %w", err)
		}
		return c.print(p.Stdout, report)
	})
}

// verify walks the whole ledger. Progress is called now and then with how many
// entries it has walked, and how many there were when it began.
func (s *store) verify(ctx context.Context, progress func(done, total int64)) (account.Report, error) {
	key, err := s.Keys().LedgerKey(ctx)
	if err != nil {
		return account.Report{}, err
	}
	heads, err := s.Heads(ctx)
	if err != nil {
		return account.Report{}, err
	}
	var total int64
	for _, h := range heads {
		total += h.Count
	}
	return account.Verify(ctx, s.engine, key, nil, func(done int64) { progress(done, total) })
}

func (c *ledgerVerify) print(w io.Writer, r account.Report) error {
	var err error
	switch {
	case c.JSON:
		err = printJSON(w, verifyJSON{
			len(r.Faults) == 0, r.Lanes, r.Entries, r.Accounts,
			account.Checkpoints(r.Heads), append([]string{}, r.Faults...), r.MoreFaults,
		})
	case len(r.Faults) == 0:
		_, err = fmt.Fprintf(w, "The ledger is whole: %d entries, and the balances of %d accounts are their sums.\n"+
			"Checkpoint: %s\n", r.Entries, r.Accounts, account.Checkpoints(r.Heads))
	default:
		for _, f := range r.Faults {
			_, err = fmt.Fprintln(w, f)
		}
		if r.MoreFaults > 0 {
			_, err = fmt.Fprintf(w, "and %d more\n", r.MoreFaults)
		}
	}
	if err == nil && len(r.Faults) > 0 {
		err = errors.New("the ledger is not whole: keep this database as it is, and compare it with a backup")
	}
	return err
}

type ledgerHead struct{}

// Run prints a checkpoint.
func (*ledgerHead) Run(ctx context.Context, p *program) error {
	return p.with(ctx, opening{}, func(s *store) error {
		key, err := s.Keys().LedgerKey(ctx)
		if err != nil {
			return err
		}
		heads, err := s.Heads(ctx)
		if err != nil {
			return err
		}
		chain := account.NewChain(key)
		for _, h := range heads {
			if !chain.Genuine(h) {
				return errors.New("the end of the ledger has been altered: run scrip ledger verify")
			}
		}
		_, err = fmt.Fprintln(p.Stdout, account.Checkpoints(heads))
		return err
	})
}

type ledgerList struct {
	Code    int64  `placeholder:"ID" help:"Only entries about this redemption code."`
	Pickup  int64  `placeholder:"ID" help:"Only entries about this pickup code."`
	Machine string `placeholder:"MACHINE_NO" help:"Only entries about the machine with this number, its products and its pickup codes. For one that was deleted give its id."`
	User    string `placeholder:"NAME|ID" help:"Only entries by or about this account, by its username or, if no account has that, its id. 0 is the command line."`
	From    string `placeholder:"TIME" help:"Not before this time: 2006-01-02, 2006-01-02T15:04:05Z (both UTC unless an offset is given), or Unix seconds."`
	To      string `placeholder:"TIME" help:"Before this time."`
	Limit   int    `default:"100" placeholder:"N" help:"At most so many."`
	Before  int64  `placeholder:"ID" help:"Only entries before the one with this id: the next page."`
	JSON    bool   `help:"Print a line of JSON for each."`
}

type entryJSON struct {
	ID        int64           `json:"id"`
	Lane      int64           `json:"lane"`
	Seq       int64           `json:"seq"`
	Time      string          `json:"time"`
	Kind      string          `json:"kind"`
	ActorID   int64           `json:"actor_id"`
	Address   string          `json:"address"`
	UserID    int64           `json:"user_id"`
	MachineID int64           `json:"machine_id"`
	FirstID   int64           `json:"first_id"`
	LastID    int64           `json:"last_id"`
	Count     int64           `json:"count"`
	Amount    int64           `json:"amount"`
	Detail    json.RawMessage `json:"detail,omitempty"`
	MAC       string          `json:"mac"`
}

// ledgerPage is how many entries are asked for at once.
const ledgerPage = 1000

// Run lists entries.
func (c *ledgerList) Run(ctx context.Context, p *program) error {
	if c.Limit < 1 || c.Code < 0 || c.Pickup < 0 || c.Before < 0 {
		return errors.New("--limit must be 1 or more, --code, --pickup and --before not negative")
	}
	f := account.LedgerFilter{CodeID: c.Code, PickupID: c.Pickup, Before: c.Before}
	var err error
	if f.From, err = parseTime("--from", c.From); err != nil {
		return err
	}
	if f.To, err = parseTime("--to", c.To); err != nil {
		return err
	}
	return p.with(ctx, opening{}, func(s *store) error {
		if f.UserID, err = c.userID(ctx, s); err != nil {
			return err
		}
		if f.MachineID, err = c.machineID(ctx, s); err != nil {
			return err
		}
		return c.list(ctx, s, f, p.Stdout)
	})
}

func (c *ledgerList) list(ctx context.Context, s *store, f account.LedgerFilter, w io.Writer) error {
	t := newTable(w)
	if !c.JSON {
		t.line("ID", "TIME (UTC)", "KIND", "BY", "FROM", "USER", "MACHINE", "CODES", "COUNT", "AMOUNT", "DETAIL")
	}
	for left := c.Limit; left > 0; left -= f.Limit {
		f.Limit = min(left, ledgerPage)
		entries, err := s.accounts.Ledger(ctx, account.Operator(), f)
		if err != nil {
			return err
		}
		for i := range entries {
			e := &entries[i]
			if !c.JSON {
				t.line(e.ID, stamp(e.At), e.Kind, actor(e.ActorID), e.Address, dash(e.AccountID), dash(e.MachineID),
					codes(e), dash(e.Count), dash(e.Amount), e.Detail)
			} else if err := printJSON(w, newEntryJSON(e)); err != nil {
				return err
			}
		}
		if len(entries) < f.Limit {
			break
		}
		f.Before = entries[len(entries)-1].ID
	}
	return t.flush()
}

func newEntryJSON(e *account.Entry) entryJSON {
	return entryJSON{
		e.ID, e.Lane, e.Seq, e.At.UTC().Format("2006-01-02T15:04:05.000Z"), string(e.Kind), e.ActorID, e.Address, e.AccountID,
		e.MachineID, e.FirstID, e.LastID, e.Count, e.Amount, json.RawMessage(e.Detail), hex.EncodeToString(e.MAC),
	}
}

// userID is the id that --user means: that of the command line is -1 in a
// filter, where 0 is nobody.
func (c *ledgerList) userID(ctx context.Context, s *store) (int64, error) {
	if c.User == "" {
		return 0, nil
	}
	u, err := s.accounts.ByName(ctx, account.Operator(), c.User)
	if refusal.CodeOf(err) != refusal.AccountNotFound {
		return u.ID, err
	}
	switch id, notID := strconv.ParseInt(c.User, 10, 64); {
	case notID != nil || id < 0:
		return 0, err
	case id == 0:
		return -1, nil
	default:
		return id, nil
	}
}

// machineID is the id of the machine that --machine means: of the one with that
// number or, if no machine has it, the id itself.
func (c *ledgerList) machineID(ctx context.Context, s *store) (int64, error) {
	if c.Machine == "" {
		return 0, nil
	}
	m, err := s.Machine(ctx, c.Machine)
	if refusal.CodeOf(err) != refusal.MachineNotFound {
		return m.ID, err
	}
	if id, notID := strconv.ParseInt(c.Machine, 10, 64); notID == nil && id > 0 {
		return id, nil
	}
	return 0, err
}

func parseTime(flag, text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		return time.Unix(n, 0), nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02T15:04", time.DateOnly} {
		if t, err := time.Parse(layout, text); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%s: %q is not a time: write 2006-01-02, 2006-01-02T15:04:05Z or Unix seconds", flag, text)
}

func actor(id int64) string {
	switch id {
	case 0:
		return "cli"
	case -1:
		return "machine"
	}
	return strconv.FormatInt(id, 10)
}

func dash(n int64) string {
	if n == 0 {
		return "-"
	}
	return strconv.FormatInt(n, 10)
}

func codes(e *account.Entry) string {
	if e.FirstID == e.LastID {
		return dash(e.FirstID)
	}
	return strconv.FormatInt(e.FirstID, 10) + "-" + strconv.FormatInt(e.LastID, 10)
}
