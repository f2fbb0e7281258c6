package sheet

import (
	"bytes"
	"compress/zlib"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf16"
)

// document is what a reader of a PDF sees.
type document struct {
	pages []pageRead
	fonts []fontRead
}

type pageRead struct {
	mediaBox string
	texts    []string // lines of text
	boxes    []box    // where they are, and the QR codes with their quiet zone
	codes    []codeRead
	marks    []box // to cut along
}

type box struct {
	text                     string
	left, bottom, right, top float64 // in points from the bottom left
}

type codeRead struct {
	squares string   // as matrix writes them
	square  float64  // in points
	texts   []string // of the same card
}

type fontRead struct {
	name   string
	file   *font
	text   map[uint16]string
	widths map[uint16]float64
}

// readPDF reads a document by its table of offsets, strictly: an object that
// isn't where the table says, a length that is wrong, a glyph without outline,
// width or meaning is an error.
func readPDF(t *testing.T, data []byte) document {
	t.Helper()
	if !bytes.HasPrefix(data, []byte("%PDF-1.6\n")) || !bytes.HasSuffix(data, []byte("%%EOF\n")) {
		t.Fatalf("not a PDF: %.20q … %q", data, data[len(data)-10:])
	}
	start := number(t, group(t, data, `startxref\n(\d+)\n%%EOF\n$`))
	xref := data[start:]
	count := number(t, group(t, xref, `^xref\n0 (\d+)\n0000000000 65535 f \n`))
	if size := number(t, group(t, xref, `/Size (\d+)`)); size != count {
		t.Fatalf("/Size %d, and %d objects", size, count)
	}
	table := xref[bytes.Index(xref, []byte("f \n"))+3:]
	r := reader{t: t, objects: make([][]byte, count)}
	for i := 1; i < count; i++ {
		at := number(t, string(table[20*(i-1):][:10]))
		object, ok := bytes.CutPrefix(data[at:], fmt.Appendf(nil, "%d 0 obj\n", i))
		if !ok {
			t.Fatalf("object %d is not where the table says: %.20q", i, data[at:])
		}
		r.objects[i] = object
	}

	root := r.object(group(t, xref, `/Root (\d+) 0 R`))
	tree := r.object(group(t, root, `/Pages (\d+) 0 R`))
	kids := regexp.MustCompile(`(\d+) 0 R`).FindAllSubmatch([]byte(group(t, tree, `/Kids\[(.*?)\]`)), -1)
	if count := number(t, group(t, tree, `/Count (\d+)`)); count != len(kids) {
		t.Fatalf("/Count %d, and %d pages", count, len(kids))
	}
	var doc document
	fonts := make(map[string]fontRead)
	for i, kid := range kids {
		page := r.object(string(kid[1]))
		if i == 0 {
			resources := r.object(group(t, page, `/Resources (\d+) 0 R`))
			for _, m := range regexp.MustCompile(`/(F\d) (\d+) 0 R`).FindAllSubmatch(resources, -1) {
				fonts[string(m[1])] = r.font(string(m[2]))
				doc.fonts = append(doc.fonts, fonts[string(m[1])])
			}
		}
		content := r.stream(group(t, page, `/Contents (\d+) 0 R`))
		read := r.page(content, fonts)
		read.mediaBox = group(t, page, `/MediaBox(\[.*?\])`)
		doc.pages = append(doc.pages, read)
	}
	return doc
}

type reader struct {
	t       *testing.T
	objects [][]byte
}

func (r reader) object(n string) []byte {
	body, _, ok := bytes.Cut(r.objects[number(r.t, n)], []byte("\nendobj\n"))
	if !ok {
		r.t.Fatalf("object %s has no end", n)
	}
	return body
}

func (r reader) stream(n string) []byte {
	r.t.Helper()
	dict, rest, ok := bytes.Cut(r.objects[number(r.t, n)], []byte(">>stream\n"))
	if !ok {
		r.t.Fatalf("object %s is not a stream", n)
	}
	length := number(r.t, group(r.t, dict, `/Length (\d+)`))
	if !bytes.HasPrefix(rest[length:], []byte("\nendstream\nendobj\n")) {
		r.t.Fatalf("the stream %s is not %d bytes long", n, length)
	}
	unzip, err := zlib.NewReader(bytes.NewReader(rest[:length]))
	if err != nil {
		r.t.Fatal(err)
	}
	data, err := io.ReadAll(unzip)
	if err != nil {
		r.t.Fatal(err)
	}
	if want := number(r.t, group(r.t, dict, `/Length1 (\d+)`)); want != len(data) {
		r.t.Fatalf("the stream %s has %d bytes, and says %d", n, len(data), want)
	}
	return data
}

func (r reader) font(n string) fontRead {
	t := r.t
	top := r.object(n)
	descendant := r.object(group(t, top, `/DescendantFonts\[(\d+) 0 R\]`))
	descriptor := r.object(group(t, descendant, `/FontDescriptor (\d+) 0 R`))
	f := fontRead{
		name:   group(t, top, `/BaseFont/([^/]+)`),
		text:   make(map[uint16]string),
		widths: make(map[uint16]float64),
	}
	for _, m := range regexp.MustCompile(`(\d+)\[(\d+)\]`).FindAllStringSubmatch(group(t, descendant, `/W\[((?:\d+\[\d+\])+)\]`), -1) {
		f.widths[glyphNumber(t, m[1], 10)] = float64(number(t, m[2]))
	}
	for _, m := range regexp.MustCompile(`(?m)^<(\w{4})><(\w+)>$`).FindAllSubmatch(r.stream(group(t, top, `/ToUnicode (\d+) 0 R`)), -1) {
		var units []uint16
		for unit := range slices.Chunk(m[2], 4) {
			units = append(units, glyphNumber(t, string(unit), 16))
		}
		f.text[glyphNumber(t, string(m[1]), 16)] = string(utf16.Decode(units))
	}
	f.file = r.trueType(f.name, r.stream(group(t, descriptor, `/FontFile2 (\d+) 0 R`)))
	return f
}

// trueType reads a font file without cmap, which none in a PDF needs, and
// adds up its sums.
func (r reader) trueType(name string, data []byte) *font {
	t := r.t
	if sum := checksum(data); sum != 0xB1B0AFBA {
		t.Errorf("the sum over the font %s is %x", name, sum)
	}
	f := &font{tables: make(map[string][]byte)}
	for i := range int(u16(data, 4)) {
		entry := data[12+16*i:]
		table := data[u32(entry, 8):][:u32(entry, 12)]
		f.tables[string(entry[:4])] = table
		if string(entry[:4]) != "head" {
			padded := append(slices.Clone(table), make([]byte, -len(table)&3)...)
			if sum := checksum(padded); sum != u32(entry, 4) {
				t.Errorf("the sum over table %q of the font %s is %x, and it says %x", entry[:4], name, sum, u32(entry, 4))
			}
		}
	}
	f.loca, f.wide, f.units = f.tables["loca"], int(u16(f.tables["hhea"], 34)), int(u16(f.tables["head"], 18))
	if glyphs := int(u16(f.tables["maxp"], 4)); len(f.loca) != 4*(glyphs+1) {
		t.Errorf("the font %s has %d glyphs and %d bytes of places", name, glyphs, len(f.loca))
	}
	return f
}

var (
	textLine = regexp.MustCompile(`^BT [\d.]+ g ([\d.]+) ([\d.]+) Td((?: /F\d [\d.]+ Tf <\w+>Tj)+) ET$`)
	textRun  = regexp.MustCompile(`/(F\d) ([\d.]+) Tf <(\w+)>Tj`)
	qrStart  = regexp.MustCompile(`^q 0 g ([\d.]+) 0 0 -([\d.]+) ([\d.]+) ([\d.]+) cm$`)
	qrBar    = regexp.MustCompile(`^(\d+) (\d+) (\d+) 1 re$`)
	cutMark  = regexp.MustCompile(`^([\d.]+) ([\d.]+) m ([\d.]+) ([\d.]+) l$`)
	pen      = regexp.MustCompile(`^S$|^[\d.]+ w [\d.]+ G$`)
)

// page reads the drawing of a page. It knows what this package draws, and
// anything else is an error.
func (r reader) page(content []byte, fonts map[string]fontRead) pageRead {
	t := r.t
	var page pageRead
	var bars []bar
	var code []string
	for line := range strings.Lines(string(content)) {
		line = strings.TrimSuffix(line, "\n")
		if m := textLine.FindStringSubmatch(line); m != nil {
			b := box{left: decimal(t, m[1]), bottom: decimal(t, m[2])}
			b.right, b.top = b.left, b.bottom
			for _, m := range textRun.FindAllStringSubmatch(m[3], -1) {
				f, ok := fonts[m[1]]
				if !ok {
					t.Fatalf("no font %s", m[1])
				}
				size := decimal(t, m[2])
				for i := 0; i < len(m[3]); i += 4 {
					g := glyphNumber(t, m[3][i:i+4], 16)
					width, known := f.widths[g]
					if !known || f.text[g] == "" || width != float64(f.file.advance(g)) {
						t.Fatalf("glyph %d of %s: width %v, in the file %d, text %q", g, f.name, width, f.file.advance(g), f.text[g])
					}
					outline := f.file.outline(g)
					if len(outline) == 0 && f.text[g] != " " {
						t.Fatalf("glyph %d of %s, %q, has no outline", g, f.name, f.text[g])
					}
					for _, part := range parts(outline) {
						if len(f.file.outline(part)) == 0 {
							t.Fatalf("glyph %d of %s lacks its part %d", g, f.name, part)
						}
					}
					b.text += f.text[g]
					b.right += width * size / 1000
				}
				b.top = max(b.top, b.bottom+0.9*size)
			}
			page.texts = append(page.texts, b.text)
			if n := len(page.codes); n > 0 {
				page.codes[n-1].texts = append(page.codes[n-1].texts, b.text)
			}
			page.boxes = append(page.boxes, b)
			continue
		}
		if m := qrStart.FindStringSubmatch(line); m != nil {
			if m[1] != m[2] {
				t.Fatalf("a QR code that isn't square: %s", line)
			}
			code, bars = m, nil
			continue
		}
		if m := qrBar.FindStringSubmatch(line); m != nil {
			bars = append(bars, bar{number(t, m[1]), number(t, m[2]), number(t, m[3])})
			continue
		}
		if line == "f Q" {
			size := 0
			for _, b := range bars {
				size = max(size, b.y+1)
			}
			square, x, y := decimal(t, code[1]), decimal(t, code[3]), decimal(t, code[4])
			page.codes = append(page.codes, codeRead{squares: draw(size, bars), square: square})
			page.boxes = append(page.boxes, box{
				text: "a QR code",
				left: x - quietZone*square, top: y + quietZone*square,
				right: x + float64(size+quietZone)*square, bottom: y - float64(size+quietZone)*square,
			})
			continue
		}
		if m := cutMark.FindStringSubmatch(line); m != nil {
			x1, y1, x2, y2 := decimal(t, m[1]), decimal(t, m[2]), decimal(t, m[3]), decimal(t, m[4])
			page.marks = append(page.marks, box{left: min(x1, x2), bottom: min(y1, y2), right: max(x1, x2), top: max(y1, y2)})
			continue
		}
		if !pen.MatchString(line) {
			t.Fatalf("a page with %q", line)
		}
	}
	return page
}

// draw sets the bars in a square of size, as matrix does.
func draw(size int, bars []bar) string {
	rows := make([][]byte, size)
	for y := range rows {
		rows[y] = append(bytes.Repeat([]byte(" "), size), '\n')
	}
	for _, b := range bars {
		copy(rows[b.y][b.x:size], bytes.Repeat([]byte("#"), b.n))
	}
	return string(bytes.Join(rows, nil))
}

func group(t *testing.T, data []byte, pattern string) string {
	t.Helper()
	m := regexp.MustCompile(pattern).FindSubmatch(data)
	if m == nil {
		t.Fatalf("no %s in %.300q", pattern, data)
	}
	return string(m[1])
}

func number(t *testing.T, s string) int {
	t.Helper()
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func decimal(t *testing.T, s string) float64 {
	t.Helper()
	v, err := strconv.ParseFloat(s, 64)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func glyphNumber(t *testing.T, s string, base int) uint16 {
	t.Helper()
	v, err := strconv.ParseUint(s, base, 16)
	if err != nil {
		t.Fatal(err)
	}
	return uint16(v)
}
