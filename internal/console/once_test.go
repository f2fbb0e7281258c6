package console

import "testing"

func TestAmount(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "1500": 1500, "1,500": 1500, " 1 500 ": 1500, "１，５００": 1500, "12,345,678": 12345678, "-1,500": -1500, "−5": -5,
		"9223372036854775807": 1<<63 - 1,
	} {
		if got, ok := amount(text); !ok || got != want {
			t.Errorf("%q is %d, %v", text, got, ok)
		}
	}
	for _, text := range []string{"", "x", "1,5", "1,00", "1.5", "1500,000", ",500", "1,,500", "1,500,", "9223372036854775808", "1 5", "--5", "1,-50"} {
		if got, ok := amount(text); ok {
			t.Errorf("%q is taken for %d", text, got)
		}
	}
}
