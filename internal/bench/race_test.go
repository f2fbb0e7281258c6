//go:build race

package bench

// slower is how many times as long everything takes with the race detector, about.
const slower = 10
