package app

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
)

// printJSON writes v as one line of JSON.
func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// table writes lines whose cells stand under each other.
type table struct{ w *tabwriter.Writer }

func newTable(w io.Writer) table { return table{tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)} }

func (t table) line(cells ...any) {
	texts := make([]string, len(cells))
	for i, c := range cells {
		texts[i] = printable(fmt.Sprint(c))
	}
	_, _ = fmt.Fprintln(t.w, strings.TrimRight(strings.Join(texts, "\t"), "\t"))
}

func (t table) flush() error { return t.w.Flush() }

// printable keeps a text from moving the terminal's cursor.
func printable(s string) string {
	out := []rune(s)
	for i, r := range out {
		if unicode.IsControl(r) {
			out[i] = unicode.ReplacementChar
		}
	}
	return string(out)
}

// stamp is a time as people read it.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05") }

// progress prints how far a long piece of work is: on stderr, once it has
// taken two seconds, at most every two.
type progress struct {
	w    io.Writer
	last time.Time
}

func newProgress(w io.Writer) *progress { return &progress{w, now()} }

func (p *progress) say(format string, args ...any) {
	if t := now(); t.Sub(p.last) >= 2*time.Second {
		p.last = t
		_, _ = fmt.Fprintf(p.w, format+"\n", args...)
	}
}
