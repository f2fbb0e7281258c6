package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/fleet"
)

type merchantCommands struct {
	Create merchantCreate `cmd:"" help:"Create a merchant, who owns machines, and print the app key that they share."`
	List   merchantList   `cmd:"" help:"List the merchants."`
	Show   merchantShow   `cmd:"" help:"Show a merchant, with its app key."`
	Change merchantChange `cmd:"" help:"Change a merchant. What is not given stays."`
}

// merchantJSON is a merchant as /api/v1 has it.
type merchantJSON struct {
	ID         int64            `json:"id"`
	Name       string           `json:"name"`
	AppKey     string           `json:"app_key"`
	Payload    fleet.Payload    `json:"payload"`
	Signature  fleet.Signature  `json:"signature"`
	ExpiryUnit fleet.ExpiryUnit `json:"expiry_unit"`
	CreatedAt  string           `json:"created_at"`
}

func newMerchantJSON(m *fleet.Merchant) merchantJSON {
	return merchantJSON{m.ID, m.Name, m.AppKey, m.Payload, m.Signature, m.Expiry, instant(m.Created)}
}

// instant is a time as programs read it.
func instant(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

// withFleet opens the database for a command about merchants, machines or
// products. A server that runs beside it finds in the outbox what concerns it.
func (p *program) withFleet(ctx context.Context, o opening, do func(*fleet.Service) error) error {
	return p.with(ctx, o, func(s *store) error { return do(fleet.NewService(s.engine, s.Keys(), nil, now, nil)) })
}

// fleetPage is how many rows are asked for at once.
const fleetPage = 500

// eachOf calls do with every row of a list, which it reads page by page: page is
// given the id to begin behind, and do returns the row's.
func eachOf[T any](page func(before int64) ([]T, error), do func(*T) (id int64, err error)) error {
	for before := int64(0); ; {
		rows, err := page(before)
		if err != nil {
			return err
		}
		for i := range rows {
			if before, err = do(&rows[i]); err != nil {
				return err
			}
		}
		if len(rows) < fleetPage {
			return nil
		}
	}
}

// nothingToChange is the error of a change command without a change.
func nothingToChange(command string) error {
	return errors.New("nothing is given to change: see scrip " + command + " --help")
}

type merchantCreate struct {
	Name       string           `arg:"" help:"Name."`
	AppKey     string           `placeholder:"KEY" help:"What its machines sign with. Empty: a random one, which is better, as other users of this machine can see flags."`
	Payload    fleet.Payload    `default:"json" help:"How messages to its machines travel: json, or that as base64."`
	Signature  fleet.Signature  `default:"raw" help:"How values enter the signature of messages to its machines: raw, as they are, or percent-encoded."`
	ExpiryUnit fleet.ExpiryUnit `default:"ms" help:"Unit of the expiry times sent to its machines: ms or s."`
	JSON       bool             `help:"Print JSON."`
}

// Run creates a merchant.
func (c *merchantCreate) Run(ctx context.Context, p *program) error {
	return p.withFleet(ctx, opening{create: true, write: true}, func(s *fleet.Service) error {
		m, err := s.CreateMerchant(ctx, account.Operator(), fleet.Merchant{
			Name: c.Name, AppKey: c.AppKey,
			Style: fleet.Style{Payload: c.Payload, Signature: c.Signature, Expiry: c.ExpiryUnit},
		}, nil)
		if err != nil {
			return err
		}
		if c.JSON {
			return printJSON(p.Stdout, newMerchantJSON(&m))
		}
		_, err = fmt.Fprintf(p.Stdout, "Created merchant %d, %s. Its app key, which its machines need: %s\n"+
			"Give it a machine with scrip machine create --merchant %d.\n", m.ID, m.Name, m.AppKey, m.ID)
		return err
	})
}

type merchantList struct {
	JSON bool `help:"Print a line of JSON for each, with the app key."`
}

// Run lists the merchants, newest first.
func (c *merchantList) Run(ctx context.Context, p *program) error {
	return p.withFleet(ctx, opening{}, func(s *fleet.Service) error {
		t := newTable(p.Stdout)
		if !c.JSON {
			t.line("ID", "NAME", "PAYLOAD", "SIGNATURE", "EXPIRY", "CREATED (UTC)")
		}
		if err := eachOf(func(before int64) ([]fleet.Merchant, error) {
			return s.Merchants(ctx, account.Operator(), before, fleetPage)
		}, func(m *fleet.Merchant) (int64, error) {
			if c.JSON {
				return m.ID, printJSON(p.Stdout, newMerchantJSON(m))
			}
			t.line(m.ID, m.Name, m.Payload, m.Signature, m.Expiry, stamp(m.Created))
			return m.ID, nil
		}); err != nil {
			return err
		}
		return t.flush()
	})
}

type merchantShow struct {
	ID   int64 `arg:"" help:"Its id."`
	JSON bool  `help:"Print JSON."`
}

// Run shows a merchant.
func (c *merchantShow) Run(ctx context.Context, p *program) error {
	return p.withFleet(ctx, opening{}, func(s *fleet.Service) error {
		m, err := s.Merchant(ctx, account.Operator(), c.ID)
		if err != nil {
			return err
		}
		return printMerchant(p.Stdout, &m, c.JSON)
	})
}

func printMerchant(w io.Writer, m *fleet.Merchant, asJSON bool) error {
	if asJSON {
		return printJSON(w, newMerchantJSON(m))
	}
	t := newTable(w)
	t.line("ID", m.ID)
	t.line("NAME", m.Name)
	t.line("APP KEY", m.AppKey)
	t.line("PAYLOAD", m.Payload)
	t.line("SIGNATURE", m.Signature)
	t.line("EXPIRY", m.Expiry)
	t.line("CREATED (UTC)", stamp(m.Created))
	return t.flush()
}

type merchantChange struct {
	ID         int64             `arg:"" help:"Its id."`
	Name       *string           `placeholder:"NAME" help:"New name."`
	AppKey     *string           `placeholder:"KEY" help:"New app key: its machines must get it too. Other users of this machine can see flags."`
	Payload    *fleet.Payload    `placeholder:"FORM" help:"How messages to its machines travel: json, or that as base64."`
	Signature  *fleet.Signature  `placeholder:"FORM" help:"How values enter the signature of messages to its machines: raw, as they are, or percent-encoded."`
	ExpiryUnit *fleet.ExpiryUnit `placeholder:"UNIT" help:"Unit of the expiry times sent to its machines: ms or s."`
	JSON       bool              `help:"Print JSON."`
}

// Run changes a merchant and shows it.
func (c *merchantChange) Run(ctx context.Context, p *program) error {
	change := fleet.MerchantChange{
		Name: c.Name, AppKey: c.AppKey, Payload: c.Payload, Signature: c.Signature, ExpiryUnit: c.ExpiryUnit,
	}
	if change == (fleet.MerchantChange{}) {
		return nothingToChange("merchant change")
	}
	return p.withFleet(ctx, opening{write: true}, func(s *fleet.Service) error {
		m, err := s.ChangeMerchant(ctx, account.Operator(), c.ID, change)
		if err != nil {
			return err
		}
		return printMerchant(p.Stdout, &m, c.JSON)
	})
}
