package sheet

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"rsc.io/qr"
)

func options(paper Paper, cards ...Card) Options {
	return Options{
		Paper: paper, Title: "新年活动 · codes", Worth: "面值", Until: "有效期至",
		Created: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		Cards:   cards,
	}
}

// several makes cards that differ in their keys.
func several(n int) []Card {
	cards := make([]Card, n)
	for i := range cards {
		key := fmt.Sprintf("%08xc0ffee00c0ffee00c0ffee00", i)
		cards[i] = Card{
			Key: key, Link: "https://codes.example.com/redeem?key=" + key,
			Name: "新年活动", Worth: "100,000", Until: "2026-12-31",
		}
	}
	return cards
}

func render(t *testing.T, o Options) (document, []byte) {
	t.Helper()
	var b bytes.Buffer
	if err := PDF(&b, o); err != nil {
		t.Fatal(err)
	}
	return readPDF(t, b.Bytes()), b.Bytes()
}

func TestPages(t *testing.T) {
	cases := []struct {
		paper    Paper
		cards    int
		pages    int
		mediaBox string
	}{
		{A4, 1, 1, "[0 0 595.28 841.89]"},
		{A4, 24, 1, "[0 0 595.28 841.89]"},
		{A4, 25, 2, "[0 0 595.28 841.89]"},
		{Letter, 1, 1, "[0 0 612.00 792.00]"},
		{Letter, 50, 3, "[0 0 612.00 792.00]"},
	}
	for _, c := range cases {
		t.Run(fmt.Sprintf("%d cards on paper %d", c.cards, c.paper), func(t *testing.T) {
			cards := several(c.cards)
			doc, _ := render(t, options(c.paper, cards...))
			if len(doc.pages) != c.pages {
				t.Fatalf("%d pages, want %d", len(doc.pages), c.pages)
			}
			printed := 0
			for i, page := range doc.pages {
				if page.mediaBox != c.mediaBox {
					t.Errorf("page %d is %s, want %s", i+1, page.mediaBox, c.mediaBox)
				}
				for _, want := range []string{"新年活动 · codes", fmt.Sprintf("%d / %d", i+1, c.pages)} {
					if !slices.Contains(page.texts, want) {
						t.Errorf("page %d lacks %q: %q", i+1, want, page.texts)
					}
				}
				for _, code := range page.codes {
					if want := matrix(t, cards[printed].Link); code.squares != want {
						t.Fatalf("QR code %d is not that of %s:\n%s", printed+1, cards[printed].Link, code.squares)
					}
					if key := grouped(cards[printed].Key[:16]); !slices.Contains(page.texts, key) {
						t.Errorf("page %d lacks the key %q: %q", i+1, key, page.texts)
					}
					printed++
				}
			}
			if printed != c.cards {
				t.Errorf("%d QR codes, want %d", printed, c.cards)
			}
		})
	}
}

// matrix draws the QR code of a text as readPDF does.
func matrix(t *testing.T, text string) string {
	t.Helper()
	code, err := qr.Encode(text, qr.M)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for y := range code.Size {
		for x := range code.Size {
			b.WriteByte(" #"[map[bool]int{true: 1}[code.Black(x, y)]])
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func TestCardSaysAll(t *testing.T) {
	key := "0123456789abcdef0123456789abcdef"
	cases := []struct {
		what string
		card Card
		want []string
		not  []string
		code string
	}{
		{
			"a card",
			Card{Key: key, Link: "https://h/redeem?key=" + key, Name: "Summer", Worth: "1,000", Until: "2026-12-31"},
			[]string{"Summer", "面值", "1,000", "0123 4567 89ab cdef", "有效期至 2026-12-31"},
			nil, "https://h/redeem?key=" + key,
		},
		{"no link", Card{Key: key}, []string{"0123 4567 89ab cdef"}, []string{"面值", "有效期至"}, key},
		{"a short key", Card{Key: "SUMMER"}, []string{"SUMM ER"}, nil, "SUMMER"},
		{
			"twenty wide characters",
			Card{Key: key, Name: "春节限定特别优惠大礼包二〇二六年正月初一"},
			[]string{"春节限定特别优惠大礼", "包二〇二六年正月初一"},
			nil, key,
		},
		{
			"no small kana at the start of a line",
			Card{Key: key, Name: "お得な冬のクーポン券です"},
			[]string{"お得な冬の", "クーポン券です"},
			nil, key,
		},
		{
			"a word stays whole",
			Card{Key: key, Name: "Extraordinary presents!!"},
			[]string{"Extraordinary", "presents!!"},
			nil, key,
		},
		{
			"one word wider than a line",
			Card{Key: key, Name: strings.Repeat("W", 20)},
			[]string{"WWWWWWWWWW"},
			[]string{strings.Repeat("W", 11)},
			key,
		},
		{"emoji and their joints", Card{Key: key, Name: "👨‍👩‍👧 家族\ufe0f"}, []string{"\ufffd\ufffd\ufffd 家族"}, nil, key},
		{"no text at all", Card{Key: key, Name: "a\xff\x00\nb"}, []string{"a\ufffd b"}, nil, key},
		{"the largest quota", Card{Key: key, Worth: "9,223,372,036,854,775,807"}, []string{"9,223,372,036,854,775,807"}, nil, key},
		{"a name without end", Card{Key: key, Name: strings.Repeat("春", 10_000)}, nil, []string{strings.Repeat("春", 30)}, key},
	}
	o := options(A4)
	for _, c := range cases {
		o.Cards = append(o.Cards, c.card)
	}
	doc, _ := render(t, o)
	for i, c := range cases {
		t.Run(c.what, func(t *testing.T) {
			card := doc.pages[0].codes[i]
			for _, want := range c.want {
				if !slices.Contains(card.texts, want) {
					t.Errorf("%q is not printed: %q", want, card.texts)
				}
			}
			for _, not := range c.not {
				if slices.ContainsFunc(card.texts, func(s string) bool { return strings.Contains(s, not) }) {
					t.Errorf("%q is printed: %q", not, card.texts)
				}
			}
			if card.squares != matrix(t, c.code) {
				t.Errorf("the QR code is not that of %q", c.code)
			}
		})
	}
}

// TestNothingLeavesItsCard: each card is cut out, so nothing of it may lie
// across an edge; and a reader needs squares that are large enough.
func TestNothingLeavesItsCard(t *testing.T) {
	long := strings.Repeat("寿", 200)
	cards := several(48)
	for i := range cards {
		switch i % 4 {
		case 0:
			cards[i].Name, cards[i].Worth, cards[i].Until = long, long, long
		case 1:
			cards[i].Name, cards[i].Worth, cards[i].Until = strings.Repeat("W", 20), "9,223,372,036,854,775,807", strings.Repeat("Wide and ", 9)
		case 2:
			cards[i].Link = strings.Repeat("x", MaxLink)
		}
	}
	for _, paper := range []Paper{A4, Letter} {
		o := options(paper, cards...)
		o.Title, o.Worth, o.Until = long, long, long
		doc, _ := render(t, o)
		f := paper.frame()
		smallest, boxes := 1000.0, 0
		for _, page := range doc.pages {
			// Four strokes above and below, nine on each side, and a cross of
			// two at each of the fourteen corners where cards meet.
			if len(page.marks) != 2*(4+9+14) {
				t.Errorf("%d cut marks", len(page.marks))
			}
			for _, m := range page.marks {
				// Printers leave a margin of 4.2 mm.
				if edge := min(m.left, m.bottom, f.width*point-m.right, f.height*point-m.top) / point; edge < 4.2 {
					t.Errorf("a cut mark ends %.1f mm from the edge of the paper", edge)
				}
			}
			for _, code := range page.codes {
				smallest = min(smallest, code.square/point)
			}
			for _, b := range page.boxes {
				top, bottom := f.height-b.top/point, f.height-b.bottom/point
				left, right := b.left/point, b.right/point
				if bottom < f.top-5 { // the head of the page
					if left < f.left-0.01 || right > f.width-f.left+0.01 {
						t.Errorf("%q lies outside the page", b.text)
					}
					continue
				}
				boxes++
				column, row := int((left-f.left)/cardWidth), int((top-f.top)/f.cardHeight)
				x, y := f.left+float64(column)*cardWidth, f.top+float64(row)*f.cardHeight
				if left < x+1 || right > x+cardWidth-1 || top < y+1 || bottom > y+f.cardHeight-1 {
					t.Errorf("paper %d: %.20q is in (%.1f, %.1f) to (%.1f, %.1f), its card in (%.1f, %.1f) to (%.1f, %.1f)",
						paper, b.text, left, top, right, bottom, x, y, x+cardWidth, y+f.cardHeight)
				}
			}
		}
		if boxes < 5*len(cards) {
			t.Errorf("only %d texts and QR codes were looked at", boxes)
		}
		if smallest < 0.4 || smallest > 0.45 {
			t.Errorf("the smallest square of a QR code is %.3f mm, want 0.4 and little more", smallest)
		}
	}
}

func TestFontsAreInside(t *testing.T) {
	doc, data := render(t, options(A4, several(30)...))
	if len(data) > 100_000 {
		t.Errorf("30 cards make %d bytes", len(data))
	}
	var names []string
	for _, f := range doc.fonts {
		names = append(names, f.name)
	}
	slices.Sort(names)
	if want := []string{"SCRIPS+DejaVuSansCondensed", "SCRIPS+DejaVuSansMono", "SCRIPS+DroidSansFallback"}; !slices.Equal(names, want) {
		t.Errorf("fonts inside: %q, want %q", names, want)
	}

	// A sheet without Chinese has no need of the font for it.
	o := options(A4, Card{Key: "0123456789abcdef"})
	o.Title = "Codes"
	if doc, data = render(t, o); len(doc.fonts) != 2 || len(data) > 30_000 {
		t.Errorf("a sheet in English has %d fonts and %d bytes", len(doc.fonts), len(data))
	}
}

func TestSameInputSameBytes(t *testing.T) {
	o := options(Letter, several(30)...)
	o.Cards[3].Name = "🎉 Fête d’été サマー Привет"
	_, first := render(t, o)
	_, second := render(t, o)
	if !bytes.Equal(first, second) {
		t.Error("the same options made other bytes")
	}
	o.Created = o.Created.Add(time.Second)
	if _, third := render(t, o); bytes.Equal(first, third) {
		t.Error("the time of making is not in the document")
	}
}

func TestPDFRefuses(t *testing.T) {
	good := several(1)[0]
	cases := []struct {
		what   string
		change func(*Options)
		want   string
	}{
		{"no cards", func(o *Options) { o.Cards = nil }, "no code"},
		{"too many cards", func(o *Options) { o.Cards = several(MaxCards + 1) }, "print them in parts"},
		{"another paper", func(o *Options) { o.Paper = 7 }, "A4 or Letter"},
		{"no time", func(o *Options) { o.Created = time.Time{} }, "time"},
		{"no key", func(o *Options) { o.Cards[0].Key = "" }, "card 1"},
		{"a long key", func(o *Options) { o.Cards = append(o.Cards, Card{Key: strings.Repeat("k", MaxKey+1)}) }, "card 2"},
		{"a key with a space", func(o *Options) { o.Cards[0].Key = "a b" }, "card 1"},
		{"a key in Chinese", func(o *Options) { o.Cards[0].Key = "春" }, "card 1"},
		{"a long link", func(o *Options) { o.Cards[0].Link = strings.Repeat("x", MaxLink+1) }, "shorter address"},
	}
	for _, c := range cases {
		t.Run(c.what, func(t *testing.T) {
			o := options(A4, good)
			c.change(&o)
			var b bytes.Buffer
			err := PDF(&b, o)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
			if b.Len() > 0 {
				t.Errorf("%d bytes were written before the refusal", b.Len())
			}
		})
	}
}

// failing is a reader that goes away after some bytes.
type failing struct {
	left, writesAfter int
	gone              func()
}

var errGone = errors.New("gone")

func (f *failing) Write(p []byte) (int, error) {
	if f.left -= len(p); f.left < 0 {
		f.writesAfter++
		f.gone()
		return 0, errGone
	}
	return len(p), nil
}

// TestStopsAtTheFirstFailure: who has closed the page doesn't keep a server
// drawing ten thousand cards.
func TestStopsAtTheFirstFailure(t *testing.T) {
	for _, bytesBefore := range []int{0, 10, 12_000} {
		cards := several(50)
		w := &failing{left: bytesBefore}
		// From now on the last card can't be drawn: to try is another error.
		w.gone = func() { cards[49].Link = strings.Repeat("x", 10_000) }
		if err := PDF(w, options(A4, cards...)); !errors.Is(err, errGone) {
			t.Errorf("error %v, want the writer's", err)
		}
		if w.writesAfter != 1 {
			t.Errorf("%d writes after the failure", w.writesAfter-1)
		}
	}
}

// largest keeps the size of the largest write, and of all.
type largest struct{ one, all int }

func (l *largest) Write(p []byte) (int, error) {
	l.one, l.all = max(l.one, len(p)), l.all+len(p)
	return len(p), nil
}

// TestWritesPageByPage: what is in memory doesn't grow with the cards.
func TestWritesPageByPage(t *testing.T) {
	var few, many largest
	if err := PDF(&few, options(A4, several(24)...)); err != nil {
		t.Fatal(err)
	}
	if err := PDF(&many, options(A4, several(120)...)); err != nil {
		t.Fatal(err)
	}
	if many.one > few.one+few.one/4 || many.all < 2*few.all {
		t.Errorf("the largest write grew from %d bytes for one page to %d for five (%d in all)", few.one, many.one, many.all)
	}
}
