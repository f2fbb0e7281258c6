package console

import (
	"os"
	"testing"

	"github.com/scrip-codes/scrip/internal/enginetest"
)

func TestMain(m *testing.M) { os.Exit(enginetest.Main{M: m}.Run()) }
