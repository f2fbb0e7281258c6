package sheet

import (
	"encoding/xml"
	"fmt"
	"regexp"
	"strings"
	"testing"
)

func TestQR(t *testing.T) {
	for _, text := range []string{"1", "0123456789abcdef", "https://h/redeem?key=0123456789abcdef", "扫一扫", strings.Repeat("x", maxQRText)} {
		got, err := QR(text, `the code "a" & <b>`)
		if err != nil {
			t.Fatal(err)
		}
		var svg struct {
			XMLName xml.Name
			Role    string `xml:"role,attr"`
			ViewBox string `xml:"viewBox,attr"`
			Title   string `xml:"title"`
			Paths   []struct {
				Fill string `xml:"fill,attr"`
				D    string `xml:"d,attr"`
			} `xml:"path"`
		}
		if err := xml.Unmarshal([]byte(got), &svg); err != nil {
			t.Fatal(err)
		}
		if svg.XMLName.Local != "svg" || svg.Role != "img" || svg.Title != `the code "a" & <b>` {
			t.Errorf("<%s role=%q><title>%s", svg.XMLName.Local, svg.Role, svg.Title)
		}
		if regexp.MustCompile(`(?i)style|script|\son\w+=|href`).MatchString(string(got)) {
			t.Errorf("a page's Content-Security-Policy forbids something in %.200s", got)
		}
		want := matrix(t, text)
		size := strings.Count(want, "\n")
		side := size + 8
		if box := fmt.Sprintf("0 0 %d %d", side, side); svg.ViewBox != box {
			t.Errorf("viewBox %q, want %q: four squares of white on each side", svg.ViewBox, box)
		}
		if len(svg.Paths) != 2 || svg.Paths[0].Fill != "#fff" || svg.Paths[0].D != fmt.Sprintf("M0 0h%dv%dH0z", side, side) || svg.Paths[1].Fill != "#000" {
			t.Fatalf("not black on white: %.300s", got)
		}
		var bars []bar
		for _, m := range regexp.MustCompile(`M(\d+) (\d+)h(\d+)v1h-(\d+)z`).FindAllStringSubmatch(svg.Paths[1].D, -1) {
			if m[3] != m[4] {
				t.Fatalf("not a rectangle: %s", m[0])
			}
			bars = append(bars, bar{number(t, m[1]) - 4, number(t, m[2]) - 4, number(t, m[3])})
		}
		if drawn := draw(size, bars); drawn != want {
			t.Errorf("the squares of %.20q are\n%s, want\n%s", text, drawn, want)
		}
	}
}

func TestQRRefuses(t *testing.T) {
	for _, text := range []string{"", strings.Repeat("x", maxQRText+1)} {
		if got, err := QR(text, "t"); err == nil || got != "" {
			t.Errorf("QR of %d bytes = %q, %v", len(text), got, err)
		}
	}
}
