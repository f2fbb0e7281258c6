package sheet

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"sort"
)

// font is a TrueType font, read as far as printing with it takes, and the
// glyphs that were printed.
type font struct {
	name   string
	tables map[string][]byte
	cmap   []byte // the groups of a format 12 subtable: first, last, glyph; 4 bytes each
	loca   []byte // where each glyph's outline starts in glyf, 4 bytes each
	wide   int    // glyphs that have a width of their own; the rest share the last
	units  int    // units in one em
	used   map[uint16]rune
}

// loadFont unpacks and reads one of the fonts that come with this package.
func loadFont(name string, packed []byte) (*font, error) {
	unzip, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, fmt.Errorf("unpack the font %s: %w", name, err)
	}
	data, err := io.ReadAll(unzip)
	if err != nil {
		return nil, fmt.Errorf("unpack the font %s: %w", name, err)
	}
	f, err := parseFont(name, data)
	if err != nil {
		return nil, fmt.Errorf("read the font %s: %w", name, err)
	}
	return f, nil
}

// parseFont reads a font whose insides can be trusted: of damage it finds
// only what is missing altogether.
func parseFont(name string, data []byte) (*font, error) {
	f := &font{name: name, tables: make(map[string][]byte), used: make(map[uint16]rune)}
	for i := range int(u16(data, 4)) {
		entry := data[12+16*i:]
		f.tables[string(entry[:4])] = data[u32(entry, 8):][:u32(entry, 12)]
	}
	for _, table := range kept() {
		if f.tables[table] == nil {
			return nil, fmt.Errorf("it has no table %q", table)
		}
	}
	cmap := f.tables["cmap"]
	if cmap == nil {
		return nil, errors.New(`it has no table "cmap"`)
	}
	for i := range int(u16(cmap, 2)) {
		entry := cmap[4+8*i:]
		sub := cmap[u32(entry, 4):]
		// Windows, full Unicode.
		if u16(entry, 0) == 3 && u16(entry, 2) == 10 && u16(sub, 0) == 12 {
			f.cmap = sub[16:][:12*u32(sub, 12)]
		}
	}
	if f.cmap == nil {
		return nil, errors.New("it has no map of all of Unicode")
	}
	if u16(f.tables["head"], 50) != 1 {
		return nil, errors.New("its table of outlines is in the short form")
	}
	f.loca = f.tables["loca"]
	f.wide = int(u16(f.tables["hhea"], 34))
	f.units = int(u16(f.tables["head"], 18))
	return f, nil
}

// kept lists the tables that a font inside a PDF needs, in their order.
func kept() []string {
	return []string{"cvt ", "fpgm", "glyf", "head", "hhea", "hmtx", "loca", "maxp", "prep"}
}

// glyph finds the glyph of a character.
func (f *font) glyph(r rune) (uint16, bool) {
	want := uint32(r) //nolint:gosec // a rune out of a string is never negative
	n := len(f.cmap) / 12
	i := sort.Search(n, func(i int) bool { return u32(f.cmap, 12*i+4) >= want })
	if i == n {
		return 0, false
	}
	first := u32(f.cmap, 12*i)
	if want < first {
		return 0, false
	}
	g := uint16(u32(f.cmap, 12*i+8) + want - first) //nolint:gosec // glyphs are numbered in 16 bits
	return g, g != 0
}

// advance is the width of a glyph in thousandths of the letter size.
func (f *font) advance(g uint16) int {
	i := min(int(g), f.wide-1)
	return int(u16(f.tables["hmtx"], 4*i)) * 1000 / f.units
}

// scaled reads a signed metric in thousandths of the letter size.
func (f *font) scaled(table string, offset int) int {
	return int(int16(u16(f.tables[table], offset))) * 1000 / f.units //nolint:gosec // the file keeps it in two's complement
}

// glyphs lists what was used, in order, and with it what those are made of:
// an é is an e and an accent.
func (f *font) glyphs() []uint16 {
	all := []uint16{0}
	seen := map[uint16]bool{0: true}
	for g := range f.used {
		if !seen[g] {
			seen[g] = true
			all = append(all, g)
		}
	}
	for i := 0; i < len(all); i++ {
		for _, part := range parts(f.outline(all[i])) {
			if !seen[part] {
				seen[part] = true
				all = append(all, part)
			}
		}
	}
	slices.Sort(all)
	return all
}

func (f *font) outline(g uint16) []byte {
	return f.tables["glyf"][u32(f.loca, 4*int(g)):u32(f.loca, 4*int(g)+4)]
}

// parts lists the glyphs that a composite glyph is made of.
func parts(outline []byte) []uint16 {
	if len(outline) == 0 || u16(outline, 0) < 1<<15 { // the count of contours, negative for a composite
		return nil
	}
	const words, scale, more, scaleXY, matrix = 1 << 0, 1 << 3, 1 << 5, 1 << 6, 1 << 7
	var all []uint16
	for at := 10; ; {
		flags := u16(outline, at)
		all = append(all, u16(outline, at+2))
		at += 6
		if flags&words != 0 {
			at += 2
		}
		switch {
		case flags&scale != 0:
			at += 2
		case flags&scaleXY != 0:
			at += 4
		case flags&matrix != 0:
			at += 8
		}
		if flags&more == 0 {
			return all
		}
	}
}

// subset makes a font of the glyphs that were used. They keep their numbers,
// so nothing else has to be rewritten; what is left of the others are zeros,
// which compress to next to nothing.
func (f *font) subset() []byte {
	tables := make(map[string][]byte)
	for _, name := range kept() {
		tables[name] = f.tables[name]
	}
	var outlines []byte
	loca := make([]byte, len(f.loca))
	widths := make([]byte, len(tables["hmtx"]))
	next := 0
	for _, g := range f.glyphs() {
		for ; next <= int(g); next++ {
			put32(loca, 4*next, len(outlines))
		}
		outlines = append(outlines, f.outline(g)...)
		outlines = append(outlines, make([]byte, -len(outlines)&3)...)
		i := 4 * min(int(g), f.wide-1)
		copy(widths[i:i+4], tables["hmtx"][i:])
		if int(g) >= f.wide {
			i = 4*f.wide + 2*(int(g)-f.wide)
			copy(widths[i:i+2], tables["hmtx"][i:])
		}
	}
	for ; 4*next < len(loca); next++ {
		put32(loca, 4*next, len(outlines))
	}
	head := slices.Clone(tables["head"])
	put32(head, 8, 0)
	tables["glyf"], tables["loca"], tables["hmtx"], tables["head"] = outlines, loca, widths, head
	return assemble(tables)
}

// assemble writes a font file of the tables.
func assemble(tables map[string][]byte) []byte {
	names := kept()
	header := 12 + 16*len(names)
	out := make([]byte, header)
	put32(out, 0, 0x00010000)
	// Nine tables, and what a binary search over them needs.
	copy(out[4:], []byte{0, 9, 0, 128, 0, 3, 0, 16})
	headAt := 0
	for i, name := range names {
		table := tables[name]
		if name == "head" {
			headAt = len(out)
		}
		entry := 12 + 16*i
		copy(out[entry:], name)
		put32(out, entry+8, len(out))
		put32(out, entry+12, len(table))
		start := len(out)
		out = append(out, table...)
		out = append(out, make([]byte, -len(out)&3)...)
		put32(out, entry+4, int(checksum(out[start:])))
	}
	put32(out, headAt+8, int(0xB1B0AFBA-checksum(out)))
	return out
}

func checksum(b []byte) uint32 {
	var sum uint32
	for i := 0; i < len(b); i += 4 {
		sum += u32(b, i)
	}
	return sum
}

func u16(b []byte, at int) uint16 { return binary.BigEndian.Uint16(b[at:]) }
func u32(b []byte, at int) uint32 { return binary.BigEndian.Uint32(b[at:]) }

func put32(b []byte, at, v int) {
	binary.BigEndian.PutUint32(b[at:], uint32(v)) //nolint:gosec // offsets in a font and sums of 32 bits
}
