package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// report is what a run found.
type report struct {
	Version string   `json:"version"`
	Machine machine  `json:"machine"`
	Results []result `json:"results"`
	Checks  []check  `json:"checks"`
	Notes   []string `json:"notes"`
	// Interrupted says that the run was cut off: what is here is what it had
	// measured by then.
	Interrupted bool `json:"interrupted"`
}

type machine struct {
	OS   string `json:"os"`
	Arch string `json:"arch"`
	CPUs int    `json:"cpus"`
}

// result is one kind of operation, as measured.
type result struct {
	Bench   string `json:"bench"`
	Kind    string `json:"kind"`
	Codes   int64  `json:"codes,omitempty"` // in the database at the start
	Clients int    `json:"clients"`

	Operations int64   `json:"operations"`
	Errors     int64   `json:"errors"`
	FirstError string  `json:"first_error,omitempty"`
	Seconds    float64 `json:"seconds"`
	// Rate is operations a second: of several turns, the median.
	Rate     float64 `json:"rate"`
	CodeRate float64 `json:"code_rate,omitempty"` // codes a second, if an operation is about several
	P50      float64 `json:"p50_ms"`
	P90      float64 `json:"p90_ms"`
	P99      float64 `json:"p99_ms"`
	Max      float64 `json:"max_ms"`
	// Ratio is the p50 against that of the same with fewer codes, if there is.
	Ratio float64 `json:"p50_ratio,omitempty"`
}

// bound is the side of a target that a figure must be on.
type bound string

const (
	atLeast bound = "at least"
	atMost  bound = "at most"
)

// check is a figure that has a target.
type check struct {
	Bench  string  `json:"bench"`
	Kind   string  `json:"kind"`
	Value  float64 `json:"value"`
	Unit   string  `json:"unit"` // empty: it is a ratio
	Bound  bound   `json:"bound"`
	Target float64 `json:"target"`
	Met    bool    `json:"met"`
	// Or names another check of which it is enough that one is met.
	Or string `json:"or,omitempty"`
}

func newReport(version string) *report {
	return &report{
		Version: version, Machine: machine{runtime.GOOS, runtime.GOARCH, runtime.NumCPU()},
		Results: []result{}, Checks: []check{}, Notes: []string{},
	}
}

// add adds what the turns of one kind of operation did, each of so many codes.
func (r *report) add(base result, samples []*sample, codes int64) {
	if len(samples) == 0 {
		return
	}
	var all sample
	for _, s := range samples {
		all.merge(s)
		base.Operations += s.operations()
	}
	base.Errors = all.errors
	if all.first != nil {
		base.FirstError = all.first.Error()
	}
	base.Seconds = all.elapsed.Seconds()
	base.Rate = medianOf(samples, (*sample).rate)
	if codes > 1 {
		base.CodeRate = base.Rate * float64(codes)
	}
	base.P50, base.P90, base.P99 = milliseconds(0.5)(&all), milliseconds(0.9)(&all), milliseconds(0.99)(&all)
	base.Max = all.hist.most.Seconds() * 1000
	r.Results = append(r.Results, base)
	if all.ranOut {
		r.note("%s, %s: the codes made for it ran out before the time was over", base.Bench, base.Kind)
	}
}

func (r *report) check(c check) {
	c.Met = c.Value >= c.Target
	if c.Bound == atMost {
		c.Met = c.Value <= c.Target
	}
	r.Checks = append(r.Checks, c)
}

func (r *report) note(format string, args ...any) {
	r.Notes = append(r.Notes, fmt.Sprintf(format, args...))
}

// write prints the report, as tables or as JSON.
func (r *report) write(w io.Writer, asJSON bool) error {
	if asJSON {
		e := json.NewEncoder(w)
		e.SetEscapeHTML(false)
		e.SetIndent("", "  ")
		return e.Encode(r)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "scrip %s on %s/%s, %d processors\n", r.Version, r.Machine.OS, r.Machine.Arch, r.Machine.CPUs)
	r.writeResults(&b)
	r.writeChecks(&b)
	for _, n := range r.Notes {
		fmt.Fprintf(&b, "\n%s", n)
	}
	if len(r.Notes) > 0 {
		b.WriteByte('\n')
	}
	if r.Interrupted {
		b.WriteString("\nInterrupted: these are the measurements until then.\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (r *report) writeResults(b *strings.Builder) {
	for i := 0; i < len(r.Results); {
		first := &r.Results[i]
		rows := [][]string{{first.Bench, "codes", "clients", "operations", "errors", "rate/s", "codes/s", "p50", "p90", "p99", "max", "p50 ratio"}}
		for ; i < len(r.Results) && r.Results[i].Bench == first.Bench; i++ {
			x := &r.Results[i]
			codes, codeRate, ratio := "", "", ""
			if x.Codes > 0 {
				codes = grouped(x.Codes)
			}
			if x.CodeRate > 0 {
				codeRate = grouped(int64(x.CodeRate))
			}
			if x.Ratio > 0 {
				ratio = figure(x.Ratio, "")
			}
			rows = append(rows, []string{
				x.Kind, codes, strconv.Itoa(x.Clients), grouped(x.Operations), grouped(x.Errors), rate(x.Rate), codeRate,
				duration(x.P50), duration(x.P90), duration(x.P99), duration(x.Max), ratio,
			})
		}
		b.WriteByte('\n')
		writeTable(b, rows)
	}
	for _, x := range r.Results {
		if x.FirstError != "" {
			fmt.Fprintf(b, "\n%s, %s: the first error was: %s\n", x.Bench, x.Kind, x.FirstError)
		}
	}
}

func (r *report) writeChecks(b *strings.Builder) {
	if len(r.Checks) == 0 {
		return
	}
	rows := [][]string{{"against the targets", "measured", "target", ""}}
	for _, c := range r.Checks {
		verdict := "met"
		if !c.Met {
			verdict = "MISSED"
			for _, other := range r.Checks {
				if c.Or != "" && other.Kind == c.Or && other.Met {
					verdict = "not needed"
				}
			}
		}
		rows = append(rows, []string{
			c.Bench + ": " + c.Kind, figure(c.Value, c.Unit), string(c.Bound) + " " + figure(c.Target, c.Unit), verdict,
		})
	}
	b.WriteByte('\n')
	writeTable(b, rows)
}

// writeTable writes the first column to the left and the others to the right,
// and leaves out those that are empty.
func writeTable(b *strings.Builder, rows [][]string) {
	widths := make([]int, len(rows[0]))
	for i, row := range rows {
		for col, text := range row {
			if text != "" && (i > 0 || col == 0) {
				widths[col] = max(widths[col], utf8.RuneCountInString(text), utf8.RuneCountInString(rows[0][col]))
			}
		}
	}
	for _, row := range rows {
		var line strings.Builder
		for col, text := range row {
			if widths[col] == 0 {
				continue
			}
			pad := strings.Repeat(" ", widths[col]-utf8.RuneCountInString(text))
			if col == 0 {
				line.WriteString(text + pad)
			} else {
				line.WriteString("  " + pad + text)
			}
		}
		b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
}

func rate(n float64) string {
	if n < 100 {
		return strconv.FormatFloat(n, 'f', 1, 64)
	}
	return grouped(int64(n + 0.5))
}

// duration writes milliseconds in three digits.
func duration(ms float64) string {
	switch {
	case ms < 1:
		return strconv.FormatFloat(ms*1000, 'f', 0, 64) + " µs"
	case ms < 100:
		return strconv.FormatFloat(ms, 'g', 3, 64) + " ms"
	case ms < 10_000:
		return strconv.FormatFloat(ms, 'f', 0, 64) + " ms"
	}
	return time.Duration(ms * float64(time.Millisecond)).Round(time.Second / 10).String()
}

func figure(n float64, unit string) string {
	if unit == "" {
		return strconv.FormatFloat(n, 'f', 2, 64)
	}
	return strconv.FormatFloat(n, 'f', 2, 64) + " " + unit
}
