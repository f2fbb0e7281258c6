package console

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/scrip-codes/scrip/internal/web"
)

// TestTextsAreComplete: every text is there in every language, with the same
// places for values.
func TestTextsAreComplete(t *testing.T) {
	all := map[string]map[string]any{}
	for lang := range fileTongues() {
		all[lang] = map[string]any{}
		names, err := fs.Glob(textFiles, "text/*."+lang+".json")
		if err != nil || len(names) < 3 {
			t.Fatalf("%s: %d files, %v", lang, len(names), err)
		}
		for _, name := range names {
			b, err := textFiles.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal(b, new(all[lang])); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
	}
	keys := map[string]bool{}
	for _, texts := range all {
		for key := range texts {
			keys[key] = true
		}
	}
	places := regexp.MustCompile(`%(\[\d+\])?[a-z]`)
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		var want []string
		for _, lang := range []string{"en", "zh", "ja"} {
			text := all[lang][key]
			if text == nil {
				t.Errorf("%s is missing in %s", key, lang)
				continue
			}
			other := fmt.Sprint(text)
			if forms, ok := text.(map[string]any); ok {
				if lang == "en" && forms["one"] == nil || forms["other"] == nil || len(forms) > 2 {
					t.Errorf("%s in %s has the forms %v", key, lang, slices.Sorted(maps.Keys(forms)))
				}
				other = fmt.Sprint(forms["other"])
			}
			got := places.FindAllString(other, -1)
			slices.Sort(got)
			got = slices.Compact(got)
			if lang == "en" {
				want = got
			} else if !slices.Equal(got, want) {
				t.Errorf("%s has the values %v in %s, and %v in English", key, got, lang, want)
			}
			checkScript(t, key, lang, other)
		}
	}
}

// checkScript finds texts that were left in another language.
func checkScript(t *testing.T, key, lang, text string) {
	t.Helper()
	has := func(tables ...*unicode.RangeTable) bool {
		return strings.ContainsFunc(text, func(r rune) bool { return unicode.In(r, tables...) })
	}
	switch lang {
	case "en":
		if has(unicode.Han, unicode.Hiragana, unicode.Katakana) {
			t.Errorf("%s in English is %q", key, text)
		}
	case "zh":
		if has(unicode.Hiragana, unicode.Katakana) {
			t.Errorf("%s in Chinese is %q", key, text)
		}
	}
}

// TestTextsAreUsed: every text that a page or the code names is there, and every
// one that is there is named. Keys that are put together are named by their
// beginning, up to a dot or underscore.
func TestTextsAreUsed(t *testing.T) {
	texts, err := loadTexts()
	if err != nil {
		t.Fatal(err)
	}
	var source strings.Builder
	for _, pattern := range []string{"*.go", "pages/*.html"} {
		names, err := fs.Glob(os.DirFS("."), pattern)
		if err != nil || len(names) == 0 {
			t.Fatalf("%s: %v", pattern, err)
		}
		for _, name := range names {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			b, err := fs.ReadFile(os.DirFS("."), name)
			if err != nil {
				t.Fatal(err)
			}
			source.Write(b)
		}
	}
	all := source.String()
	for _, m := range regexp.MustCompile(`(?:\{\{|\(| )t "([^"]+)"|\bt\("([^"]+)"[,)]`).FindAllStringSubmatch(all, -1) {
		key := m[1] + m[2]
		if !texts.keys[web.English][key] && !strings.HasSuffix(key, ".") && !strings.HasSuffix(key, "_") {
			t.Errorf("no text is named %q", key)
		}
	}
	for key := range texts.keys[web.English] {
		if strings.Contains(all, `"`+key+`"`) {
			continue
		}
		beginning := key
		for at := len(key); at >= 0; at = strings.LastIndexAny(beginning, "._") {
			if beginning = key[:at]; strings.Contains(all, `"`+key[:min(at+1, len(key))]+`"`) {
				beginning = ""
				break
			}
		}
		if beginning != "" {
			t.Errorf("nothing shows the text %q", key)
		}
	}
}
