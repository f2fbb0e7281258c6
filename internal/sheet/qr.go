package sheet

import (
	"errors"
	"fmt"
	"html"
	"html/template"
	"iter"
	"strings"

	"rsc.io/qr"
)

const (
	// maxQRText is the longest text of a QR code on a page, in bytes. A longer
	// one has squares too small for a phone's camera.
	maxQRText = 1024
	// quietZone is the white border that a reader needs, in squares.
	quietZone = 4
)

// QR draws text, 1 to 1024 bytes, as a QR code for a page: an SVG without
// styles or scripts, as wide as its place, always black on white. The title
// is what a screen reader says.
func QR(text, title string) (template.HTML, error) {
	switch {
	case text == "":
		return "", errors.New("a QR code needs a text")
	case len(text) > maxQRText:
		return "", fmt.Errorf("the text of a QR code is %d bytes long: at most %d can be scanned", len(text), maxQRText)
	}
	code, err := qr.Encode(text, qr.M)
	if err != nil {
		return "", fmt.Errorf("make the QR code: %w", err)
	}
	side := code.Size + 2*quietZone
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" role="img" viewBox="0 0 %d %d" shape-rendering="crispEdges">`, side, side)
	fmt.Fprintf(&b, `<title>%s</title><path fill="#fff" d="M0 0h%dv%dH0z"/><path fill="#000" d="`, html.EscapeString(title), side, side)
	for bar := range bars(code) {
		fmt.Fprintf(&b, "M%d %dh%dv1h-%dz", bar.x+quietZone, bar.y+quietZone, bar.n, bar.n)
	}
	b.WriteString(`"/></svg>`)
	return template.HTML(b.String()), nil //nolint:gosec // all of it is numbers, but for the title, which is escaped
}

// bar is n black squares from (x, y) to the right.
type bar struct{ x, y, n int }

// bars goes through the black of a code, row by row, without the quiet zone.
func bars(code *qr.Code) iter.Seq[bar] {
	return func(yield func(bar) bool) {
		for y := range code.Size {
			for x := 0; x < code.Size; x++ {
				n := 0
				for code.Black(x+n, y) {
					n++
				}
				if n > 0 && !yield(bar{x, y, n}) {
					return
				}
				x += n
			}
		}
	}
}
