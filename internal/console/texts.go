package console

import (
	"embed"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"golang.org/x/text/feature/plural"
	"golang.org/x/text/language"
	"golang.org/x/text/message"
	"golang.org/x/text/message/catalog"

	"github.com/scrip-codes/scrip/internal/web"
)

//go:embed text/*.json
var textFiles embed.FS

// texts are the words of the console in each tongue. They stand in files like
// text/codes.en.json: an object of texts by their key, with places for values as
// %[1]s or %[1]d. A text that depends on how many there are is an object itself,
// of one and other; its first value is the number.
type texts struct {
	keys [web.Tongues]map[string]bool
	tags [web.Tongues]language.Tag
	cat  *catalog.Builder
}

// fileTongues is how the files name the tongues.
func fileTongues() map[string]web.Tongue {
	return map[string]web.Tongue{"zh": web.Chinese, "ja": web.Japanese, "en": web.English}
}

func loadTexts() (texts, error) {
	t := texts{cat: catalog.NewBuilder(catalog.Fallback(language.English))}
	for tongue := range web.Tongues {
		t.keys[tongue], t.tags[tongue] = map[string]bool{}, language.MustParse(tongue.Tag())
	}
	names, err := fs.Glob(textFiles, "text/*.json")
	if err != nil {
		return t, err
	}
	for _, name := range names {
		if err := t.load(name); err != nil {
			return t, fmt.Errorf("%s: %w", name, err)
		}
	}
	return t, nil
}

func (t *texts) load(name string) error {
	content, err := textFiles.ReadFile(name)
	if err != nil {
		return err
	}
	parts := strings.Split(strings.TrimSuffix(name, ".json"), ".")
	tongue, ok := fileTongues()[parts[len(parts)-1]]
	if !ok {
		return fmt.Errorf("its name does not end in a language")
	}
	var all map[string]any
	if err := json.Unmarshal(content, &all); err != nil {
		return err
	}
	tag := t.tags[tongue]
	for _, key := range slices.Sorted(maps.Keys(all)) {
		if t.keys[tongue][key] {
			return fmt.Errorf("%q is there twice", key)
		}
		t.keys[tongue][key] = true
		switch text := all[key].(type) {
		case string:
			err = t.cat.SetString(tag, key, text)
		case map[string]any:
			err = t.cat.Set(tag, key, plural.Selectf(1, "%d", "=1", text["one"], plural.Other, text["other"]))
			if text["one"] == nil {
				err = t.cat.Set(tag, key, plural.Selectf(1, "%d", plural.Other, text["other"]))
			}
		default:
			err = fmt.Errorf("%q is neither a text nor an object", key)
		}
		if err != nil {
			return fmt.Errorf("%q: %w", key, err)
		}
	}
	return nil
}

// in is the text of a key, with the values in it.
func (t *texts) in(tongue web.Tongue, key string, values ...any) string {
	p := message.NewPrinter(t.tags[tongue], message.Catalog(t.cat))
	return p.Sprintf(message.Key(key, key), values...)
}
