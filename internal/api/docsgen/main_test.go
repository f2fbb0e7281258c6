package main

import (
	"bytes"
	"os"
	"regexp"
	"strings"
	"testing"
)

func read(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name) //nolint:gosec // G304: the names stand in this file
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestPageIsCurrent fails when the document has changed and the page has not.
func TestPageIsCurrent(t *testing.T) {
	want, err := generate(read(t, "../openapi.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(read(t, "../docs.html"), want) {
		t.Error(`docs.html is not what docsgen makes of openapi.yaml: run "make generate"`)
	}
}

// TestPageLinks: a link within the page must lead somewhere, and no attribute
// may name another host.
func TestPageLinks(t *testing.T) {
	html := string(read(t, "../docs.html"))
	links := regexp.MustCompile(`href="#([^"]+)"`).FindAllStringSubmatch(html, -1)
	if len(links) < 50 {
		t.Errorf("only %d links", len(links))
	}
	for _, l := range links {
		if !strings.Contains(html, `id="`+l[1]+`"`) {
			t.Errorf("#%s leads nowhere", l[1])
		}
	}
	for _, bad := range []string{"<script", "style=", `="http`, `="//`, "<img", "<iframe"} {
		if strings.Contains(html, bad) {
			t.Errorf("the page contains %s", bad)
		}
	}
}

func TestGenerateRefusesNonsense(t *testing.T) {
	for _, source := range []string{"", "[1]", "a: [", "text"} {
		if _, err := generate([]byte(source)); err == nil {
			t.Errorf("%q made a page", source)
		}
	}
}
