package app_test

import (
	"encoding/json"
	"fmt"
	"os"
	"testing"
)

// TestPostgresChaos breaks three servers, PostgreSQL and Mosquitto under load, all of
// them real processes, and nothing may be lost or doubled by it: once as always,
// and once as never before.
func TestPostgresChaos(t *testing.T) {
	for name, seed := range map[string]uint64{"Fixed": 7, "Random": seed(t).Uint64N(1e6) + 1000} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // beside each other, and nothing else
			env := []string{"PATH=" + os.Getenv("PATH")}
			stdout, stderr, err := tryScrip(t, env, "bench", "chaos", "--minutes", "0.5", "--seed", fmt.Sprint(seed), "--json")
			if err != nil {
				t.Fatalf("scrip bench chaos --seed %d: %v\n%s%s", seed, err, stderr, stdout)
			}
			var r struct {
				Operations map[string]int64 `json:"operations"`
				Faults     []struct {
					Kind     string  `json:"kind"`
					Recovery float64 `json:"recovery_seconds"`
				} `json:"faults"`
				Checked    map[string]int64 `json:"checked"`
				Violations []string         `json:"violations"`
			}
			if err := json.Unmarshal([]byte(stdout), &r); err != nil {
				t.Fatalf("%v in %s", err, stdout)
			}
			// A run in which nothing happens would find nothing.
			kinds := map[string]bool{}
			for _, f := range r.Faults {
				kinds[f.Kind] = true
			}
			if len(kinds) != 4 || len(r.Violations) != 0 {
				t.Errorf("faults %v, violations %q", r.Faults, r.Violations)
			}
			for _, what := range []string{
				"redeems acknowledged", "redeems refused", "batches issued", "codes disabled or enabled", "codes deleted", "lists and searches",
				"pickup codes made", "pickup codes withdrawn", "pickup codes used", "requests repeated with their Idempotency-Key",
			} {
				if r.Operations[what] < 5 {
					t.Errorf("%s: %d", what, r.Operations[what])
				}
			}
			for what, n := range r.Checked {
				if n == 0 {
					t.Errorf("no %s were checked", what)
				}
			}
		})
	}
}
