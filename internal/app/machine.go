package app

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/scrip-codes/scrip/internal/account"
	"github.com/scrip-codes/scrip/internal/fleet"
)

type machineCommands struct {
	Create   machineCreate   `cmd:"" help:"Create a machine and print its MQTT password."`
	List     machineList     `cmd:"" help:"List the machines."`
	Show     machineShow     `cmd:"" help:"Show a machine."`
	Change   machineChange   `cmd:"" help:"Change a machine. What is not given stays."`
	Password machinePassword `cmd:"" help:"Give a machine a new MQTT password. The old one is dead at once, and the machine's connection ends."`
	Delete   machineDelete   `cmd:"" help:"Delete a machine: its live pickup codes are withdrawn and its connection ends."`
	Run      machineRun      `cmd:"" help:"Be a vending machine, in this terminal."`
}

// machineJSON is a machine as /api/v1 has it.
type machineJSON struct {
	ID                 int64   `json:"id"`
	MerchantID         int64   `json:"merchant_id"`
	MachineNo          string  `json:"machine_no"`
	Name               string  `json:"name"`
	Timezone           string  `json:"timezone"`
	PurchaseLimit      int     `json:"purchase_limit"`
	PickupCodesEnabled bool    `json:"pickup_codes_enabled"`
	Online             bool    `json:"online"`
	LastSeen           *string `json:"last_seen"` // nil: never
	CreatedAt          string  `json:"created_at"`
	MQTTPassword       string  `json:"mqtt_password,omitempty"` // when it has just been made
}

func newMachineJSON(m *fleet.Machine, at time.Time, password string) machineJSON {
	j := machineJSON{
		m.ID, m.MerchantID, m.No, m.Name, m.Zone, m.PurchaseLimit, m.PickupCodes, m.Online(at), nil,
		instant(m.Created), password,
	}
	if !m.LastSeen.IsZero() {
		j.LastSeen = new(instant(m.LastSeen))
	}
	return j
}

type machineCreate struct {
	MachineNo     string `arg:"" help:"Its machine_no: 8 digits."`
	Merchant      int64  `required:"" placeholder:"ID" help:"Id of the merchant who owns it."`
	Name          string `required:"" placeholder:"NAME" help:"Name."`
	Timezone      string `required:"" placeholder:"ZONE" help:"Name of the time zone that it stands in, like Asia/Shanghai."`
	PurchaseLimit int    `default:"1" placeholder:"N" help:"How many pieces it can give out at once: 1, without a cart, to 3."`
	PickupCodes   bool   `default:"true" negatable:"" help:"Whether it takes pickup codes."`
	JSON          bool   `help:"Print JSON."`
}

// Run creates a machine.
func (c *machineCreate) Run(ctx context.Context, p *program) error {
	return p.withFleet(ctx, opening{write: true}, func(s *fleet.Service) error {
		password := fleet.NewPassword()
		m, err := s.CreateMachine(ctx, account.Operator(), fleet.Machine{
			MerchantID: c.Merchant, No: c.MachineNo, Name: c.Name, Zone: c.Timezone,
			PurchaseLimit: c.PurchaseLimit, PickupCodes: c.PickupCodes,
		}, password, nil)
		if err != nil {
			return err
		}
		if c.JSON {
			return printJSON(p.Stdout, newMachineJSON(&m, now(), password))
		}
		_, err = fmt.Fprintf(p.Stdout, "Created machine %s (id %d), %s. Its MQTT password, shown only this once: %s\n"+
			"Say what it sells with scrip product add %s.\n", m.No, m.ID, m.Name, password, m.No)
		return err
	})
}

type machineList struct {
	JSON bool `help:"Print a line of JSON for each."`
}

// Run lists the machines, newest first.
func (c *machineList) Run(ctx context.Context, p *program) error {
	return p.withFleet(ctx, opening{}, func(s *fleet.Service) error {
		t := newTable(p.Stdout)
		if !c.JSON {
			t.line("MACHINE NO", "ID", "NAME", "MERCHANT", "TIME ZONE", "LIMIT", "PICKUP CODES", "ONLINE", "LAST SEEN (UTC)")
		}
		if err := eachOf(func(before int64) ([]fleet.Machine, error) {
			return s.Machines(ctx, account.Operator(), before, fleetPage)
		}, func(m *fleet.Machine) (int64, error) {
			if c.JSON {
				return m.ID, printJSON(p.Stdout, newMachineJSON(m, now(), ""))
			}
			t.line(m.No, m.ID, m.Name, m.MerchantID, m.Zone, m.PurchaseLimit, yes(m.PickupCodes), yes(m.Online(now())), seen(m))
			return m.ID, nil
		}); err != nil {
			return err
		}
		return t.flush()
	})
}

// yes is a truth as people read it.
func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func seen(m *fleet.Machine) string {
	if m.LastSeen.IsZero() {
		return "never"
	}
	return stamp(m.LastSeen)
}

type machineShow struct {
	MachineNo string `arg:"" help:"Its machine_no."`
	JSON      bool   `help:"Print JSON."`
}

// Run shows a machine.
func (c *machineShow) Run(ctx context.Context, p *program) error {
	return p.withFleet(ctx, opening{}, func(s *fleet.Service) error {
		m, err := s.Machine(ctx, account.Operator(), c.MachineNo)
		if err != nil {
			return err
		}
		return printMachine(p.Stdout, &m, c.JSON)
	})
}

func printMachine(w io.Writer, m *fleet.Machine, asJSON bool) error {
	if asJSON {
		return printJSON(w, newMachineJSON(m, now(), ""))
	}
	t := newTable(w)
	t.line("MACHINE NO", m.No)
	t.line("ID", m.ID)
	t.line("NAME", m.Name)
	t.line("MERCHANT", m.MerchantID)
	t.line("TIME ZONE", m.Zone)
	t.line("PURCHASE LIMIT", m.PurchaseLimit)
	t.line("PICKUP CODES", yes(m.PickupCodes))
	t.line("ONLINE", yes(m.Online(now())))
	t.line("LAST SEEN (UTC)", seen(m))
	t.line("CREATED (UTC)", stamp(m.Created))
	return t.flush()
}

type machineChange struct {
	MachineNo     string  `arg:"" help:"Its machine_no."`
	Name          *string `placeholder:"NAME" help:"New name."`
	Timezone      *string `placeholder:"ZONE" help:"Name of the time zone that it stands in, like Asia/Shanghai."`
	PurchaseLimit *int64  `placeholder:"N" help:"How many pieces it can give out at once: 1, without a cart, to 3."`
	PickupCodes   *bool   `negatable:"" help:"Whether it takes pickup codes."`
	JSON          bool    `help:"Print JSON."`
}

// Run changes a machine and shows it.
func (c *machineChange) Run(ctx context.Context, p *program) error {
	change := fleet.MachineChange{Name: c.Name, Zone: c.Timezone, PurchaseLimit: c.PurchaseLimit, PickupCodes: c.PickupCodes}
	if change == (fleet.MachineChange{}) {
		return nothingToChange("machine change")
	}
	return p.withFleet(ctx, opening{write: true}, func(s *fleet.Service) error {
		m, err := s.ChangeMachine(ctx, account.Operator(), c.MachineNo, change)
		if err != nil {
			return err
		}
		return printMachine(p.Stdout, &m, c.JSON)
	})
}

type machinePassword struct {
	MachineNo string `arg:"" help:"Its machine_no."`
	JSON      bool   `help:"Print JSON."`
}

// newPasswordJSON is what a command prints that replaced a machine's password.
type newPasswordJSON struct {
	MachineNo    string `json:"machine_no"`
	MQTTPassword string `json:"mqtt_password"`
}

// Run replaces a machine's MQTT password.
func (c *machinePassword) Run(ctx context.Context, p *program) error {
	return p.withFleet(ctx, opening{write: true}, func(s *fleet.Service) error {
		password := fleet.NewPassword()
		if err := s.RenewPassword(ctx, account.Operator(), c.MachineNo, password, nil); err != nil {
			return err
		}
		if c.JSON {
			return printJSON(p.Stdout, newPasswordJSON{c.MachineNo, password})
		}
		_, err := fmt.Fprintf(p.Stdout, "New MQTT password of machine %s, shown only this once: %s\n", c.MachineNo, password)
		return err
	})
}

type machineDelete struct {
	MachineNo string `arg:"" help:"Its machine_no."`
	JSON      bool   `help:"Print JSON."`
}

type deletedMachineJSON struct {
	MachineNo string `json:"machine_no"`
	Deleted   bool   `json:"deleted"`
}

// Run deletes a machine.
func (c *machineDelete) Run(ctx context.Context, p *program) error {
	return p.withFleet(ctx, opening{write: true}, func(s *fleet.Service) error {
		if err := s.DeleteMachine(ctx, account.Operator(), c.MachineNo); err != nil {
			return err
		}
		if c.JSON {
			return printJSON(p.Stdout, deletedMachineJSON{c.MachineNo, true})
		}
		_, err := fmt.Fprintf(p.Stdout, "Machine %s is deleted, and its live pickup codes are withdrawn.\n", c.MachineNo)
		return err
	})
}
