// Command docsgen writes the API's readable page from its OpenAPI document: plain
// HTML, so that the page needs no script and loads nothing from elsewhere. It
// runs when the document changes, and is no part of the program. Imports: a YAML
// parser and the standard library.
package main

import (
	"bytes"
	_ "embed"
	"flag"
	"fmt"
	"html/template"
	"os"
)

//go:embed page.html.tmpl
var pageTemplate string

func main() {
	in := flag.String("in", "openapi.yaml", "the OpenAPI document")
	out := flag.String("out", "docs.html", "the page to write")
	flag.Parse()
	if err := run(*in, *out); err != nil {
		fmt.Fprintln(os.Stderr, "docsgen:", err)
		os.Exit(1)
	}
}

func run(in, out string) error {
	source, err := os.ReadFile(in) //nolint:gosec // G304: it is what the tool is told to read
	if err != nil {
		return err
	}
	html, err := generate(source)
	if err != nil {
		return fmt.Errorf("%s: %w", in, err)
	}
	return os.WriteFile(out, html, 0o644) //nolint:gosec // G306: a source file like the others
}

// generate makes the page of a document.
func generate(source []byte) ([]byte, error) {
	doc, err := parse(source)
	if err != nil {
		return nil, err
	}
	t, err := template.New("page").Parse(pageTemplate)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	if err := t.Execute(&b, doc.page()); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
