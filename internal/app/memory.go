package app

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// Hashing two passwords at once takes 38 MiB, and garbage of that size would
// pile up to twice as much before the collector comes by itself: measured, 60
// logins, 8 at once, took the server from 37 to 155 MiB, and to 76 MiB with
// this limit, at a tenth more processor time. Everything else stays below it.
const (
	memoryLimit      = 48 << 20
	memoryLimitEvery = time.Second
	memoryRoomMin    = 8 << 20
	memoryLimitStep  = 4 << 20
)

// limitMemory makes the collector work harder above memoryLimit, and lets the
// limit rise, with room to spare, when more than that is really in use (ten
// thousand connections, say): otherwise the collector would do nothing but run.
// Whoever sets GOMEMLIMIT knows better.
func limitMemory(ctx context.Context) {
	if os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	samples := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/memory/classes/heap/stacks:bytes"}}
	tick := time.NewTicker(memoryLimitEvery)
	defer tick.Stop()
	current := int64(0)
	for {
		metrics.Read(samples)
		used := uint64(0)
		for _, s := range samples {
			if s.Value.Kind() == metrics.KindUint64 {
				used += s.Value.Uint64()
			}
		}
		if limit := memoryLimitFor(int64(used)); limit != current {
			debug.SetMemoryLimit(limit) // stops the world for a moment: only when it changes
			current = limit
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// memoryLimitFor is the limit when that much is in use.
func memoryLimitFor(used int64) int64 {
	limit := used + max(used/4, memoryRoomMin)
	return max(memoryLimit, (limit+memoryLimitStep-1)/memoryLimitStep*memoryLimitStep)
}
