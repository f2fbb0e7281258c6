// Command scrip issues and redeems codes that are worth something, exactly
// once. Imports: internal/app.
package main

import (
	"os"

	"github.com/scrip-codes/scrip/internal/app"
)

var version string // the linker sets it: -ldflags "-X main.version=…"

func main() { os.Exit(app.Run(app.OS(version))) }
