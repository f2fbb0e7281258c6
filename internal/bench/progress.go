package bench

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	// quietFor is how long something may take before it is spoken of.
	quietFor = 2 * time.Second
	barWidth = 24
)

// progress says how far a long piece of work is: a line that is written over on
// a terminal, else a new line now and then.
type progress struct {
	w        io.Writer
	now      func() time.Time
	terminal bool

	mu         sync.Mutex
	what, unit string
	total      int64
	begun      time.Time
	said       time.Time
	open       bool // a line is unfinished
}

func newProgress(w io.Writer, now func() time.Time) *progress {
	p := &progress{w: w, now: now}
	if f, ok := w.(*os.File); ok {
		info, err := f.Stat()
		p.terminal = err == nil && info.Mode()&os.ModeCharDevice != 0
	}
	return p
}

// begin names the next piece of work, of that many units; 0: nobody knows.
func (p *progress) begin(what, unit string, total int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.endLine()
	p.what, p.unit, p.total = what, unit, total
	p.begun, p.said = p.now(), p.now()
	if total == 0 {
		_, _ = fmt.Fprintf(p.w, "%s…\n", what)
	}
}

// done says how many units are done.
func (p *progress) done(n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	every := 10 * time.Second
	if p.terminal {
		every = time.Second / 4
	}
	took := now.Sub(p.begun)
	if took < quietFor || now.Sub(p.said) < every && n < p.total || n > p.total {
		return
	}
	p.said = now
	line := fmt.Sprintf("%s %s %s of %s %s, %s/s", p.what, bar(n, p.total), grouped(n), grouped(p.total), p.unit,
		grouped(int64(float64(n)/took.Seconds())))
	if n > 0 && n < p.total {
		left := time.Duration(float64(took) / float64(n) * float64(p.total-n))
		line += fmt.Sprintf(", %s left", left.Round(time.Second))
	}
	if p.terminal {
		_, _ = fmt.Fprintf(p.w, "\r\x1b[K%s", line)
		p.open = true
		return
	}
	_, _ = fmt.Fprintln(p.w, line)
}

// end finishes the last line.
func (p *progress) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.endLine()
}

// say writes a line of its own.
func (p *progress) say(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.endLine()
	_, _ = fmt.Fprintf(p.w, format+"\n", args...)
}

func (p *progress) endLine() {
	if p.open {
		_, _ = fmt.Fprintln(p.w)
		p.open = false
	}
}

func bar(n, total int64) string {
	full := int(n * barWidth / max(total, 1))
	return fmt.Sprintf("[%s%s] %3d%%", strings.Repeat("#", full), strings.Repeat("-", barWidth-full), n*100/max(total, 1))
}

// grouped writes a number with a comma before each three digits.
func grouped(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
