package console

import "strings"

// Route is a route, for tests that go through all of them.
type Route struct {
	Method, Path string
	// Anyone may ask for it, or Admins only; else users.
	Anyone, Admins bool
}

// Routes are all there are.
func Routes() []Route {
	var all []Route
	for _, rt := range new(server).routes() {
		method, path, _ := strings.Cut(rt.pattern, " ")
		all = append(all, Route{method, path, rt.who == anyone, rt.who == admins})
	}
	return all
}

// StreamsMax is how many may look live at the same time.
const StreamsMax = streamsMax

// SheetsMax and SheetsWaiting are how many sheets are drawn at the same time, and
// how many wait.
const (
	SheetsMax     = sheetsMax
	SheetsWaiting = sheetsWaiting
)
