// Package sheet draws codes for paper and for pages: a sheet of cards to
// print and cut, as a PDF, and one QR code as an SVG.
//
// The PDF is written by this package itself, page by page: ten thousand codes
// never stand in memory as drawings, and the first page leaves before the
// last is drawn. The fonts come with it, so that a sheet looks the same
// everywhere; a document takes along the glyphs that it uses and no more.
//
// Pure: no HTTP, no clock, no store. May import the standard library and
// rsc.io/qr.
package sheet

import (
	"bytes"
	_ "embed" // for the fonts
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"

	"rsc.io/qr"
)

// What a sheet holds at most.
const (
	// MaxCards is the most cards in one sheet.
	MaxCards = 10_000
	// MaxKey is the longest key, in bytes: two lines of a card.
	MaxKey = 32
	// MaxLink is the longest text of a card's QR code, in bytes: what fits
	// with squares of 0.4 mm.
	MaxLink = 213
	// maxText is where any other text is cut, in characters.
	maxText = 100
)

// Paper is a size of paper.
type Paper int

// The papers of the world's printers.
const (
	A4 Paper = iota
	Letter
)

// Options is what to print. Every text is printed as it comes, in the
// reader's language; what is too long gets smaller letters, then is cut short.
type Options struct {
	Paper Paper
	// Title stands at the top of each page, beside the page's number.
	Title string
	// Worth and Until are the words before a card's Worth and Until.
	Worth, Until string
	// Created is when the sheet was made. The same options make the same
	// bytes.
	Created time.Time
	// Cards are the cards, 1 to MaxCards, in their order.
	Cards []Card
}

// Card is one code on paper. Name, Worth and Until may be empty.
type Card struct {
	// Key is the key: 1 to MaxKey visible ASCII characters.
	Key string
	// Link is what the QR code holds, MaxLink bytes at most; "" for the key
	// alone.
	Link string
	// Name is the batch's name.
	Name string
	// Worth is the quota, with its digits grouped.
	Worth string
	// Until is the last moment at which the code is good.
	Until string
}

// The fonts: Latin and its neighbours, keys, and Chinese and Japanese. Their
// licences stand beside them.
var (
	//go:embed fonts/DejaVuSansCondensed.ttf.gz
	latinFont []byte
	//go:embed fonts/DejaVuSansMono.ttf.gz
	keyFont []byte
	//go:embed fonts/DroidSansFallbackFull.ttf.gz
	hanFont []byte
)

// The fonts by the numbers they have in a drawing.
const (
	latin = iota
	mono
	han
)

// Measures in millimetres from the top left, letters in points.
const (
	point = 72 / 25.4 // points in a millimetre

	columns, rows = 3, 8
	cardWidth     = 63.5
	qrSide        = 26.0 // with its quiet zone
	qrLeft        = 1.5
	textLeft      = qrLeft + qrSide + 1
	textWidth     = cardWidth - textLeft - 2

	smallest = 5.0 // no letter is smaller
	grey     = 0.3
	black    = 0.0
)

// frame is the place of the cards on a paper.
type frame struct {
	width, height float64 // of the paper
	top, left     float64 // of the first card
	cardHeight    float64
}

func (p Paper) frame() frame {
	f := frame{width: 210, height: 297, top: 16, cardHeight: 33.5}
	if p == Letter {
		f = frame{width: 215.9, height: 279.4, top: 15.5, cardHeight: 31.5}
	}
	f.left = (f.width - columns*cardWidth) / 2
	return f
}

// PDF writes a sheet of the cards to print at its real size, cut and hand
// out. It refuses what can't be printed before it writes anything; after that
// an error is w's. About 20 MB of memory per call, however many cards.
func PDF(w io.Writer, o Options) error {
	if err := o.check(); err != nil {
		return err
	}
	d := drawing{frame: o.Paper.frame()}
	for _, source := range []struct {
		name   string
		packed []byte
	}{latin: {"DejaVuSansCondensed", latinFont}, mono: {"DejaVuSansMono", keyFont}, han: {"DroidSansFallback", hanFont}} {
		f, err := loadFont(source.name, source.packed)
		if err != nil {
			return err
		}
		d.fonts = append(d.fonts, f)
	}

	p := newPDF(w)
	const perPage = columns * rows
	pages := (len(o.Cards) + perPage - 1) / perPage
	for page := range pages {
		cards := o.Cards[page*perPage : min((page+1)*perPage, len(o.Cards))]
		d.content.Reset()
		d.header(o.Title, fmt.Sprintf("%d / %d", page+1, pages))
		d.cutMarks((len(cards) + columns - 1) / columns)
		for i, card := range cards {
			x := d.left + float64(i%columns)*cardWidth
			y := d.top + float64(i/columns)*d.cardHeight
			if err := d.card(x, y, o, card); err != nil {
				return err
			}
		}
		p.page(d.width*point, d.height*point, d.content.Bytes())
		if p.err != nil {
			return p.err
		}
	}
	return p.end(o.Title, o.Created, d.fonts...)
}

func (o Options) check() error {
	switch {
	case o.Paper != A4 && o.Paper != Letter:
		return errors.New("a sheet is A4 or Letter")
	case o.Created.IsZero():
		return errors.New("a sheet needs the time it is made at")
	case len(o.Cards) == 0:
		return errors.New("there is no code to print")
	case len(o.Cards) > MaxCards:
		return fmt.Errorf("a sheet holds %d codes, and these are %d: print them in parts", MaxCards, len(o.Cards))
	}
	for i, c := range o.Cards {
		if c.Key == "" || len(c.Key) > MaxKey || strings.ContainsFunc(c.Key, func(r rune) bool { return r <= ' ' || r > '~' }) {
			return fmt.Errorf("the key of card %d can't be printed: it takes 1 to %d visible ASCII characters", i+1, MaxKey)
		}
		if len(c.Link) > MaxLink {
			return fmt.Errorf("the link of card %d has %d bytes: a QR code to print holds %d; a shorter address of this server helps", i+1, len(c.Link), MaxLink)
		}
	}
	return nil
}

// drawing is the page that is being drawn.
type drawing struct {
	frame
	fonts   []*font
	content bytes.Buffer
}

func (d *drawing) header(title, number string) {
	const size, baseline = 9, 9.5
	right := d.left + columns*cardWidth
	width := d.measure(mono, number, size)
	d.text(mono, right-width, baseline, size, grey, number)
	lines, fitted := d.fit(title, size, right-d.left-width-5, 1)
	d.text(latin, d.left, baseline, fitted, grey, lines[0])
}

// cutMarks draws where to cut: strokes round the rows of cards, and a small
// cross where four cards meet.
func (d *drawing) cutMarks(rows int) {
	const gap, length, arm = 1, 4, 1
	right, bottom := d.left+columns*cardWidth, d.top+float64(rows)*d.cardHeight
	d.content.WriteString("0.25 w 0.3 G\n")
	for i := range columns + 1 {
		x := d.left + float64(i)*cardWidth
		d.line(x, d.top-gap-length, x, d.top-gap)
		d.line(x, bottom+gap, x, bottom+gap+length)
	}
	for j := range rows + 1 {
		y := d.top + float64(j)*d.cardHeight
		d.line(d.left-gap-length, y, d.left-gap, y)
		d.line(right+gap, y, right+gap+length, y)
		for i := 1; i < columns && 0 < j && j < rows; i++ {
			x := d.left + float64(i)*cardWidth
			d.line(x-arm, y, x+arm, y)
			d.line(x, y-arm, x, y+arm)
		}
	}
	d.content.WriteString("S\n")
}

func (d *drawing) line(x1, y1, x2, y2 float64) {
	fmt.Fprintf(&d.content, "%.2f %.2f m %.2f %.2f l\n", x1*point, (d.height-y1)*point, x2*point, (d.height-y2)*point)
}

// card draws a card whose top left is (x, y).
func (d *drawing) card(x, y float64, o Options, c Card) error {
	y += (d.cardHeight - qrSide) / 2
	link := c.Link
	if link == "" {
		link = c.Key
	}
	if err := d.qr(x+qrLeft, y, link); err != nil {
		return err
	}
	x += textLeft

	lines, size := d.fit(c.Name, 9, textWidth, 2)
	for i, line := range lines {
		d.text(latin, x, y+4.4+3.6*centred(i, len(lines)), size, black, line)
	}

	if c.Worth != "" {
		label, labelSize := d.fit(o.Worth, 7, textWidth/2, 1)
		d.text(latin, x, y+11.6, labelSize, grey, label[0])
		indent := d.measure(latin, label[0], labelSize)
		if indent > 0 {
			indent += 1.2
		}
		worth, size := d.fit(c.Worth, 12, textWidth-indent, 1)
		d.text(latin, x+indent, y+11.6, size, black, worth[0])
	}

	// Eight groups of four, in two lines.
	const keySize, lineLength = 8, MaxKey / 2
	for i := 0; i < len(c.Key); i += lineLength {
		line := c.Key[i:min(i+lineLength, len(c.Key))]
		d.text(mono, x, y+16.2+3.4*float64(i/lineLength), keySize, black, grouped(line))
	}

	if c.Until != "" {
		lines, size := d.fit(strings.TrimSpace(o.Until+" "+c.Until), 7, textWidth, 2)
		for i, line := range lines {
			d.text(latin, x, y+24.6+2.6*centred(i, len(lines)), size, grey, line)
		}
	}
	return nil
}

// centred is how many lines below the middle of n lines the line i stands.
func centred(i, n int) float64 { return float64(i) - float64(n-1)/2 }

// grouped sets a space after every fourth character.
func grouped(key string) string {
	var b strings.Builder
	for i := range len(key) {
		if i > 0 && i%4 == 0 {
			b.WriteByte(' ')
		}
		b.WriteByte(key[i])
	}
	return b.String()
}

// qr draws a QR code into the square of qrSide whose top left is (x, y): the
// coordinates are its own squares, from the top left.
func (d *drawing) qr(x, y float64, text string) error {
	code, err := qr.Encode(text, qr.M)
	if err != nil {
		return fmt.Errorf("make the QR code: %w", err)
	}
	square := qrSide / float64(code.Size+2*quietZone)
	fmt.Fprintf(&d.content, "q 0 g %.4f 0 0 %.4f %.2f %.2f cm\n", square*point, -square*point,
		(x+quietZone*square)*point, (d.height-y-quietZone*square)*point)
	for bar := range bars(code) {
		fmt.Fprintf(&d.content, "%d %d %d 1 re\n", bar.x, bar.y, bar.n)
	}
	d.content.WriteString("f Q\n")
	return nil
}

// text draws a line of text from x on, at the baseline y.
func (d *drawing) text(face int, x, y, size, shade float64, s string) {
	if s == "" {
		return
	}
	fmt.Fprintf(&d.content, "BT %.1f g %.2f %.2f Td", shade, x*point, (d.height-y)*point)
	current := -1
	for _, r := range s {
		i, g := d.find(face, r)
		if g == 0 {
			r = unicode.ReplacementChar
		}
		d.fonts[i].used[g] = r
		if i != current {
			if current >= 0 {
				d.content.WriteString(">Tj")
			}
			fmt.Fprintf(&d.content, " /F%d %.2f Tf <", i, size)
			current = i
		}
		fmt.Fprintf(&d.content, "%04x", g)
	}
	d.content.WriteString(">Tj ET\n")
}

// find finds a character's font and glyph: in the font asked for, or in that
// of Chinese and Japanese, or else the first font's box.
func (d *drawing) find(face int, r rune) (int, uint16) {
	for _, i := range []int{face, han} {
		if g, ok := d.fonts[i].glyph(r); ok {
			return i, g
		}
	}
	return face, 0
}

// measure is the width of a line of text in millimetres.
func (d *drawing) measure(face int, s string, size float64) float64 {
	sum := 0
	for _, r := range s {
		i, g := d.find(face, r)
		sum += d.fonts[i].advance(g)
	}
	return float64(sum) / 1000 * size / point
}

// fit sets a text in one line or two of the width, with letters of the size or
// as much smaller as it takes; what doesn't fit with the smallest is cut off.
// An empty text is one empty line.
func (d *drawing) fit(s string, size, width float64, most int) (lines []string, fitted float64) {
	text := []rune(clean(s))
	for {
		lines, widest := d.split(text, size, width, most)
		if widest <= width {
			return lines, size
		}
		if smaller := size * width / widest; smaller >= smallest {
			return lines, smaller
		}
		// The … of the time before goes too.
		text = append(text[:len(text)-2:len(text)-2], '…')
	}
}

// split breaks a text that is wider than width where the longer of two lines
// is shortest: between words, or between characters of Chinese and Japanese;
// anywhere if that doesn't fit.
func (d *drawing) split(text []rune, size, width float64, most int) (lines []string, widest float64) {
	upTo := make([]float64, len(text)+1)
	for i, r := range text {
		upTo[i+1] = upTo[i] + d.measure(latin, string(r), size)
	}
	whole := upTo[len(text)]
	lines, widest = []string{string(text)}, whole
	for _, anywhere := range []bool{false, true} {
		if most == 1 || widest <= width {
			break
		}
		for i := 1; i < len(text); i++ {
			if !anywhere && !breakable(text[i-1], text[i]) {
				continue
			}
			if w := max(upTo[i], whole-upTo[i]); w < widest {
				lines, widest = []string{strings.TrimSpace(string(text[:i])), string(text[i:])}, w
			}
		}
	}
	return lines, widest
}

// breakable tells whether a line may end between two characters.
func breakable(before, after rune) bool {
	const notFirst = "、。，．・：；？！）」』】》〉〕…ー々ぁぃぅぇぉっゃゅょァィゥェォッャュョ"
	const notLast = "（「『【《〈〔"
	if before == ' ' {
		return true
	}
	wide := func(r rune) bool { return r >= 0x2E80 }
	return (wide(before) || wide(after)) && !strings.ContainsRune(notFirst, after) && !strings.ContainsRune(notLast, before)
}

// clean makes a text of at most maxText characters in one line of it: without
// what has no look of its own, such as the joints of emoji.
func clean(s string) string {
	var b strings.Builder
	n := 0
	for _, r := range strings.Join(strings.Fields(s), " ") {
		if unicode.In(r, unicode.Cc, unicode.Cf, unicode.Variation_Selector) {
			continue
		}
		if n++; n > maxText {
			break
		}
		b.WriteRune(r)
	}
	return b.String()
}
