package app

import (
	"context"
	"fmt"
	"io"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/fleet"
)

type productCommands struct {
	Add    productAdd    `cmd:"" help:"Add a product to a machine."`
	List   productList   `cmd:"" help:"List what a machine sells."`
	Change productChange `cmd:"" help:"Change a product. What is not given stays."`
	Remove productRemove `cmd:"" help:"Remove a product: its live pickup codes are withdrawn."`
}

// productJSON is a product as /api/v1 has it.
type productJSON struct {
	ID        int64  `json:"id"`
	MachineNo string `json:"machine_no"`
	Name      string `json:"name"`
	Slot      string `json:"slot"`
	CreatedAt string `json:"created_at"`
}

func newProductJSON(machineNo string, p *fleet.Product) productJSON {
	return productJSON{p.ID, machineNo, p.Name, p.Slot, instant(p.Created)}
}

type productAdd struct {
	MachineNo string `arg:"" help:"The machine's machine_no."`
	Name      string `arg:"" help:"Name."`
	Slot      string `required:"" placeholder:"SLOT" help:"Where in the machine it is, like A1."`
	ID        int64  `name:"id" placeholder:"N" help:"The id that the machine knows it by. Without: the next free one."`
	JSON      bool   `help:"Print JSON."`
}

// Run adds a product.
func (c *productAdd) Run(ctx context.Context, p *program) error {
	return p.withFleet(ctx, opening{write: true}, func(s *fleet.Service) error {
		made, err := s.CreateProduct(ctx, account.Operator(), c.MachineNo, fleet.Product{
			ID: c.ID, Name: c.Name, Slot: c.Slot,
		}, nil)
		if err != nil {
			return err
		}
		return printProduct(p.Stdout, c.MachineNo, &made, c.JSON)
	})
}

func printProduct(w io.Writer, machineNo string, p *fleet.Product, asJSON bool) error {
	if asJSON {
		return printJSON(w, newProductJSON(machineNo, p))
	}
	_, err := fmt.Fprintf(w, "Machine %s sells product %d, %s, from slot %s.\n", machineNo, p.ID, p.Name, p.Slot)
	return err
}

type productList struct {
	MachineNo string `arg:"" help:"The machine's machine_no."`
	JSON      bool   `help:"Print a line of JSON for each."`
}

// Run lists a machine's products, newest first.
func (c *productList) Run(ctx context.Context, p *program) error {
	return p.withFleet(ctx, opening{}, func(s *fleet.Service) error {
		t := newTable(p.Stdout)
		if !c.JSON {
			t.line("ID", "NAME", "SLOT", "CREATED (UTC)")
		}
		if err := eachOf(func(before int64) ([]fleet.Product, error) {
			return s.Products(ctx, account.Operator(), c.MachineNo, before, fleetPage)
		}, func(made *fleet.Product) (int64, error) {
			if c.JSON {
				return made.ID, printJSON(p.Stdout, newProductJSON(c.MachineNo, made))
			}
			t.line(made.ID, made.Name, made.Slot, stamp(made.Created))
			return made.ID, nil
		}); err != nil {
			return err
		}
		return t.flush()
	})
}

type productChange struct {
	MachineNo string  `arg:"" help:"The machine's machine_no."`
	ID        int64   `arg:"" help:"The product's id."`
	Name      *string `placeholder:"NAME" help:"New name."`
	Slot      *string `placeholder:"SLOT" help:"Where in the machine it is now, like A1."`
	JSON      bool    `help:"Print JSON."`
}

// Run changes a product.
func (c *productChange) Run(ctx context.Context, p *program) error {
	change := fleet.ProductChange{Name: c.Name, Slot: c.Slot}
	if change == (fleet.ProductChange{}) {
		return nothingToChange("product change")
	}
	return p.withFleet(ctx, opening{write: true}, func(s *fleet.Service) error {
		changed, err := s.ChangeProduct(ctx, account.Operator(), c.MachineNo, c.ID, change)
		if err != nil {
			return err
		}
		return printProduct(p.Stdout, c.MachineNo, &changed, c.JSON)
	})
}

type productRemove struct {
	MachineNo string `arg:"" help:"The machine's machine_no."`
	ID        int64  `arg:"" help:"The product's id."`
	JSON      bool   `help:"Print JSON."`
}

type removedProductJSON struct {
	ID        int64  `json:"id"`
	MachineNo string `json:"machine_no"`
	Deleted   bool   `json:"deleted"`
}

// Run removes a product.
func (c *productRemove) Run(ctx context.Context, p *program) error {
	return p.withFleet(ctx, opening{write: true}, func(s *fleet.Service) error {
		if err := s.DeleteProduct(ctx, account.Operator(), c.MachineNo, c.ID); err != nil {
			return err
		}
		if c.JSON {
			return printJSON(p.Stdout, removedProductJSON{c.ID, c.MachineNo, true})
		}
		_, err := fmt.Fprintf(p.Stdout, "Machine %s no longer sells product %d, and its live pickup codes are withdrawn.\n",
			c.MachineNo, c.ID)
		return err
	})
}
