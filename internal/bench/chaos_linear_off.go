//go:build !porcupine

package bench

import "time"

// linearizable says that it does not know: this build has no checker.
func linearizable(_ []*codeHistory, _ string, _ time.Duration, _ func() time.Time) []string {
	return []string{"histories were not checked: this build has no linearizability checker (build it with -tags porcupine)"}
}
