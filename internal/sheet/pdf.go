package sheet

import (
	"bytes"
	"compress/zlib"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf16"
)

// pdf writes a document object by object, so that one page at a time is in
// memory. After the first failure to write it does nothing more.
type pdf struct {
	w       io.Writer
	err     error
	at      int64
	offsets []int64 // of object i+1; 0 is not written yet
	pages   []int   // the pages' objects
	zip     *zlib.Writer
	zipped  bytes.Buffer
}

// The objects that others point to before they are written.
const (
	catalogObject = 1 + iota
	pagesObject
	infoObject
	resourcesObject
	reservedObjects = resourcesObject
)

func newPDF(w io.Writer) *pdf {
	p := &pdf{w: w, offsets: make([]int64, reservedObjects)}
	p.zip = zlib.NewWriter(&p.zipped)
	// The comment of four high bytes says that the file isn't text.
	p.printf("%%PDF-1.6\n%%\xe2\xe3\xcf\xd3\n")
	return p
}

func (p *pdf) printf(format string, args ...any) {
	if p.err != nil {
		return
	}
	var n int
	n, p.err = fmt.Fprintf(p.w, format, args...)
	p.at += int64(n)
}

// object writes a new object and returns its number.
func (p *pdf) object(format string, args ...any) int {
	p.offsets = append(p.offsets, 0)
	p.reserved(len(p.offsets), format, args...)
	return len(p.offsets)
}

// reserved writes an object that has its number already.
func (p *pdf) reserved(number int, format string, args ...any) {
	p.offsets[number-1] = p.at
	p.printf("%d 0 obj\n"+format+"\nendobj\n", append([]any{number}, args...)...)
}

// stream writes data, compressed, as an object.
func (p *pdf) stream(data []byte) int {
	p.zipped.Reset()
	p.zip.Reset(&p.zipped)
	if _, err := p.zip.Write(data); err != nil && p.err == nil {
		p.err = err
	}
	if err := p.zip.Close(); err != nil && p.err == nil {
		p.err = err
	}
	return p.object("<</Length %d/Filter/FlateDecode/Length1 %d>>stream\n%s\nendstream",
		p.zipped.Len(), len(data), p.zipped.Bytes())
}

// page writes a page of the size, in points, with the content drawn on it.
func (p *pdf) page(width, height float64, content []byte) {
	number := p.stream(content)
	p.pages = append(p.pages, p.object("<</Type/Page/Parent %d 0 R/Resources %d 0 R/MediaBox[0 0 %.2f %.2f]/Contents %d 0 R>>",
		pagesObject, resourcesObject, width, height, number))
}

// font writes what the document needs of a font and returns its number.
func (p *pdf) font(f *font) int {
	// Six letters and a plus sign mark a font that isn't all there.
	name := "SCRIPS+" + f.name
	glyphs := slices.Collect(func(yield func(uint16) bool) {
		for _, g := range f.glyphs() {
			if _, ok := f.used[g]; ok && !yield(g) {
				return
			}
		}
	})
	var widths, text strings.Builder
	for _, g := range glyphs {
		fmt.Fprintf(&widths, "%d[%d]", g, f.advance(g))
	}
	// What the glyphs say, for those who search or copy. A block holds a
	// hundred at most.
	for block := range slices.Chunk(glyphs, 100) {
		fmt.Fprintf(&text, "%d beginbfchar\n", len(block))
		for _, g := range block {
			fmt.Fprintf(&text, "<%04x><", g)
			for _, unit := range utf16.Encode([]rune{f.used[g]}) {
				fmt.Fprintf(&text, "%04x", unit)
			}
			text.WriteString(">\n")
		}
		text.WriteString("endbfchar\n")
	}
	const cmap = "/CIDInit/ProcSet findresource begin 12 dict begin begincmap\n" +
		"/CIDSystemInfo<</Registry(Adobe)/Ordering(UCS)/Supplement 0>>def\n" +
		"/CMapName/Adobe-Identity-UCS def/CMapType 2 def\n" +
		"1 begincodespacerange\n<0000><ffff>\nendcodespacerange\n%s" +
		"endcmap CMapName currentdict/CMap defineresource pop end end\n"

	file := p.stream(f.subset())
	unicode := p.stream(fmt.Appendf(nil, cmap, text.String()))
	descriptor := p.object("<</Type/FontDescriptor/FontName/%s/Flags 4/ItalicAngle 0/StemV 80/Ascent %d/Descent %d/CapHeight %d"+
		"/FontBBox[%d %d %d %d]/FontFile2 %d 0 R>>",
		name, f.scaled("hhea", 4), f.scaled("hhea", 6), f.scaled("hhea", 4),
		f.scaled("head", 36), f.scaled("head", 38), f.scaled("head", 40), f.scaled("head", 42), file)
	descendant := p.object("<</Type/Font/Subtype/CIDFontType2/BaseFont/%s/CIDSystemInfo<</Registry(Adobe)/Ordering(Identity)/Supplement 0>>"+
		"/CIDToGIDMap/Identity/FontDescriptor %d 0 R/W[%s]>>", name, descriptor, widths.String())
	return p.object("<</Type/Font/Subtype/Type0/BaseFont/%s/Encoding/Identity-H/DescendantFonts[%d 0 R]/ToUnicode %d 0 R>>",
		name, descendant, unicode)
}

// end writes what stands at the end of a document and reports the first
// failure. The fonts are called F0, F1 and so on in the pages; those that
// printed nothing are left out.
func (p *pdf) end(title string, created time.Time, fonts ...*font) error {
	var resources, kids strings.Builder
	for i, f := range fonts {
		if len(f.used) > 0 {
			fmt.Fprintf(&resources, "/F%d %d 0 R", i, p.font(f))
		}
	}
	for _, page := range p.pages {
		fmt.Fprintf(&kids, "%d 0 R ", page)
	}
	stamp := created.UTC().Format("20060102150405Z")
	p.reserved(resourcesObject, "<</Font<<%s>>>>", resources.String())
	p.reserved(pagesObject, "<</Type/Pages/Count %d/Kids[%s]>>", len(p.pages), kids.String())
	p.reserved(infoObject, "<</Title<%s>/Producer(Scrip)/CreationDate(D:%s)/ModDate(D:%s)>>", utf16Hex(title), stamp, stamp)
	// Printed at its real size, or the squares of the QR codes get smaller.
	p.reserved(catalogObject, "<</Type/Catalog/Pages %d 0 R/ViewerPreferences<</PrintScaling/None/DisplayDocTitle true>>>>", pagesObject)

	start := p.at
	p.printf("xref\n0 %d\n0000000000 65535 f \n", len(p.offsets)+1)
	for _, offset := range p.offsets {
		p.printf("%010d 00000 n \n", offset)
	}
	p.printf("trailer\n<</Size %d/Root %d 0 R/Info %d 0 R>>\nstartxref\n%d\n%%%%EOF\n",
		len(p.offsets)+1, catalogObject, infoObject, start)
	return p.err
}

// utf16Hex writes a text as PDF's strings outside pages have it.
func utf16Hex(s string) string {
	var b strings.Builder
	b.WriteString("feff")
	for _, unit := range utf16.Encode([]rune(s)) {
		fmt.Fprintf(&b, "%04x", unit)
	}
	return b.String()
}
