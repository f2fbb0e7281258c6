package web

import (
	"net/http"

	"golang.org/x/text/language"
)

// Tongue is one of the languages that Scrip speaks.
type Tongue int

// The tongues.
const (
	Chinese Tongue = iota
	Japanese
	English
	Tongues // how many there are
)

// Tag is the language's name in HTTP and HTML.
func (t Tongue) Tag() string { return [...]string{"zh-CN", "ja", "en"}[t] }

// Matcher finds the tongue that a client likes best.
type Matcher struct{ tags language.Matcher }

// NewMatcher returns a Matcher.
func NewMatcher() Matcher {
	return Matcher{language.NewMatcher([]language.Tag{language.MustParse("zh-CN"), language.Japanese, language.English})}
}

// acceptLanguageMax is longer than any browser's, and short enough to read at
// no cost worth speaking of.
const acceptLanguageMax = 512

// Match is the tongue that the client's Accept-Language likes best, or otherwise
// if it likes none.
func (m Matcher) Match(h http.Header, otherwise Tongue) Tongue {
	accept := h.Get("Accept-Language")
	if accept == "" || len(accept) > acceptLanguageMax {
		return otherwise
	}
	tags, _, err := language.ParseAcceptLanguage(accept)
	if err != nil {
		return otherwise
	}
	_, i, confidence := m.tags.Match(tags...)
	if confidence == language.No {
		return otherwise
	}
	return Tongue(i)
}

// Words is one text in each tongue.
type Words struct{ ZH, JA, EN string }

// In is the text in a tongue.
func (w Words) In(t Tongue) string { return [...]string{w.ZH, w.JA, w.EN}[t] }
