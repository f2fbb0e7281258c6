//go:build !race

package bench

// slower is how many times as long everything takes without the race detector.
const slower = 1
