package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/oasdiff/yaml3"
)

// document is an OpenAPI document, in the order in which it is written. What is
// not there reads as empty; the tests hold the document to the standard.
type document struct{ root *yaml.Node }

func parse(source []byte) (document, error) {
	var n yaml.Node
	if err := yaml.Unmarshal(source, &n); err != nil {
		return document{}, err
	}
	if n.Kind != yaml.DocumentNode || len(n.Content) != 1 || n.Content[0].Kind != yaml.MappingNode {
		return document{}, fmt.Errorf("not a mapping")
	}
	return document{n.Content[0]}, nil
}

// member is a name in a mapping and what stands there.
type member struct {
	name  string
	value *yaml.Node
}

func members(n *yaml.Node) []member {
	if n == nil || n.Kind != yaml.MappingNode {
		return nil
	}
	out := make([]member, 0, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		out = append(out, member{n.Content[i].Value, n.Content[i+1]})
	}
	return out
}

func items(n *yaml.Node) []*yaml.Node {
	if n == nil || n.Kind != yaml.SequenceNode {
		return nil
	}
	return n.Content
}

func child(n *yaml.Node, names ...string) *yaml.Node {
	for _, name := range names {
		i := slices.IndexFunc(members(n), func(m member) bool { return m.name == name })
		if i < 0 {
			return nil
		}
		n = members(n)[i].value
	}
	return n
}

func text(n *yaml.Node, names ...string) string {
	if n = child(n, names...); n == nil {
		return ""
	}
	return n.Value
}

// deref follows a reference within the document.
func (d document) deref(n *yaml.Node) *yaml.Node {
	ref := text(n, "$ref")
	if ref == "" {
		return n
	}
	return d.deref(child(d.root, strings.Split(strings.TrimPrefix(ref, "#/"), "/")...))
}

// page is what the template shows.
type page struct {
	Title, Version, Summary string
	About                   []paragraph
	Groups                  []group
	Security                []row
	Schemas                 []schema
	Codes                   []row
}

type group struct {
	Name       string
	About      []paragraph
	Operations []operation
}

type operation struct {
	ID, Method, Path, Summary string
	About                     []paragraph
	Public                    bool
	Parameters, Body          []row
	BodyExamples              []example
	Responses                 []response
	Refusals                  []string
}

type response struct {
	Status   string
	About    []paragraph
	Headers  []row
	Types    []kind
	Data     []row
	Examples []example
}

type example struct{ Name, Text string }

// row is a line of a table: a parameter, a member, a header or a code.
type row struct {
	Name, In string
	Required bool
	Type     kind
	About    []paragraph
}

// kind is a type; Schema is the schema to look it up in, if it has a name.
type kind struct{ Before, Schema, After string }

type schema struct {
	Name    string
	Type    kind
	About   []paragraph
	Members []row
}

// paragraph is a run of plain, strong and code text.
type paragraph []span

type span struct{ Style, Text string }

func (d document) page() page {
	p := page{
		Title: text(d.root, "info", "title"), Version: text(d.root, "info", "version"),
		Summary: text(d.root, "info", "summary"), About: prose(text(d.root, "info", "description")),
	}
	for _, t := range items(child(d.root, "tags")) {
		g := group{Name: text(t, "name"), About: prose(text(t, "description"))}
		for _, path := range members(child(d.root, "paths")) {
			for _, op := range members(path.value) {
				if tags := items(child(op.value, "tags")); len(tags) > 0 && tags[0].Value == g.Name {
					g.Operations = append(g.Operations, d.operation(path, op))
				}
			}
		}
		p.Groups = append(p.Groups, g)
	}
	for _, s := range members(child(d.root, "components", "securitySchemes")) {
		name, in := text(s.value, "name"), text(s.value, "in")
		if text(s.value, "type") == "http" {
			name, in = "Authorization", "header"
		}
		p.Security = append(p.Security, row{Name: name, In: in, About: prose(text(s.value, "description"))})
	}
	for _, s := range members(child(d.root, "components", "schemas")) {
		if child(s.value, "oneOf") != nil { // an answer: shown where it is given
			continue
		}
		p.Schemas = append(p.Schemas, schema{
			Name: s.name, Type: d.typeOf(s.value), About: prose(text(s.value, "description")), Members: d.rows(s.value),
		})
	}
	for _, c := range members(child(d.root, "components", "schemas", "Code", "x-enum-descriptions")) {
		p.Codes = append(p.Codes, row{Name: c.name, About: prose(c.value.Value)})
	}
	return p
}

func (d document) operation(path, op member) operation {
	out := operation{
		ID: text(op.value, "operationId"), Method: strings.ToUpper(op.name), Path: path.name,
		Summary: text(op.value, "summary"), About: prose(text(op.value, "description")),
	}
	security := child(op.value, "security")
	out.Public = security != nil && len(items(security)) == 0
	for _, p := range append(items(child(path.value, "parameters")), items(child(op.value, "parameters"))...) {
		p = d.deref(p)
		out.Parameters = append(out.Parameters, row{
			Name: text(p, "name"), In: text(p, "in"), Required: text(p, "required") == "true",
			Type: d.typeOf(child(p, "schema")), About: prose(text(p, "description")),
		})
	}
	body := child(op.value, "requestBody", "content", "application/json")
	out.Body = d.rows(child(body, "schema"))
	out.BodyExamples = examples(body)
	for _, r := range members(child(op.value, "responses")) {
		out.Responses = append(out.Responses, d.response(r))
	}
	for _, c := range items(child(op.value, "x-refusals")) {
		out.Refusals = append(out.Refusals, c.Value)
	}
	return out
}

func (d document) response(r member) response {
	n := d.deref(r.value)
	out := response{Status: r.name, About: prose(text(n, "description"))}
	for _, h := range members(child(n, "headers")) {
		header := d.deref(h.value)
		out.Headers = append(out.Headers, row{
			Name: h.name, Required: text(header, "required") == "true",
			Type: d.typeOf(child(header, "schema")), About: prose(text(header, "description")),
		})
	}
	for _, c := range members(child(n, "content")) {
		out.Examples = append(out.Examples, examples(c.value)...)
		s := child(c.value, "schema")
		if c.name != "application/json" && c.name != "application/problem+json" {
			out.Types = append(out.Types, kind{Before: c.name})
			continue
		}
		answers := items(child(d.deref(s), "oneOf"))
		if answers == nil { // no envelope
			out.Types = append(out.Types, d.typeOf(s))
			if text(s, "$ref") == "" {
				out.Data = d.rows(s)
			}
		}
		for _, one := range answers {
			if data := child(one, "properties", "data"); data != nil {
				k := d.typeOf(data)
				k.Before = "data: " + k.Before
				out.Types = append(out.Types, k)
				out.Data = d.rows(data)
			}
		}
	}
	return out
}

// rows is the members of an object.
func (d document) rows(s *yaml.Node) []row {
	var required []string
	for _, r := range items(child(s, "required")) {
		required = append(required, r.Value)
	}
	var out []row
	for _, m := range members(child(s, "properties")) {
		about := text(m.value, "description")
		if about == "" {
			about = text(d.deref(m.value), "description")
		}
		out = append(out, row{
			Name: m.name, Required: slices.Contains(required, m.name), Type: d.typeOf(m.value), About: prose(about),
		})
	}
	return out
}

// typeOf says in a few words what a value is.
func (d document) typeOf(s *yaml.Node) kind {
	if ref := text(s, "$ref"); ref != "" {
		return kind{Schema: ref[strings.LastIndexByte(ref, '/')+1:]}
	}
	if c := child(s, "const"); c != nil {
		return kind{Before: compact(c)}
	}
	if one := items(child(s, "oneOf")); one != nil {
		first := d.typeOf(one[0])
		for _, other := range one[1:] {
			if k := d.typeOf(other); k.Schema == "" && k.Before == "null" {
				first.After += " or null"
			}
		}
		return first
	}
	if text(s, "type") == "array" {
		k := d.typeOf(child(s, "items"))
		k.Before = "array of " + k.Before
		return k
	}
	t := text(s, "type")
	if types := items(child(s, "type")); types != nil {
		names := make([]string, len(types))
		for i, n := range types {
			names[i] = n.Value
		}
		t = strings.Join(names, " or ")
	}
	return kind{Before: t + d.bounds(s)}
}

func (d document) bounds(s *yaml.Node) string {
	var parts []string
	if e := items(child(s, "enum")); e != nil && len(e) <= 4 {
		values := make([]string, len(e))
		for i, n := range e {
			values[i] = compact(n)
		}
		parts = append(parts, strings.Join(values, ", "))
	}
	low, high := text(s, "minimum"), text(s, "maximum")
	switch {
	case low != "" && high != "":
		parts = append(parts, low+" to "+high)
	case low != "":
		parts = append(parts, low+" or more")
	}
	if p := text(s, "pattern"); p != "" {
		parts = append(parts, p)
	}
	if def := child(s, "default"); def != nil {
		parts = append(parts, "default "+compact(def))
	}
	if parts == nil {
		return ""
	}
	return ": " + strings.Join(parts, "; ")
}

func examples(n *yaml.Node) []example {
	var out []example
	if e := child(n, "example"); e != nil {
		out = append(out, example{Text: indented(e)})
	}
	for _, e := range members(child(n, "examples")) {
		out = append(out, example{Name: e.name, Text: indented(child(e.value, "value"))})
	}
	return out
}

// compact and indented write a value as JSON, its members in their order.
func compact(n *yaml.Node) string { return string(appendJSON(nil, n)) }

func indented(n *yaml.Node) string {
	if n.Kind == yaml.ScalarNode {
		return n.Value
	}
	var b bytes.Buffer
	if err := json.Indent(&b, appendJSON(nil, n), "", "  "); err != nil {
		return n.Value
	}
	return b.String()
}

func appendJSON(b []byte, n *yaml.Node) []byte {
	switch {
	case n.Kind == yaml.MappingNode:
		b = append(b, '{')
		for i, m := range members(n) {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(appendString(b, m.name), ':')
			b = appendJSON(b, m.value)
		}
		return append(b, '}')
	case n.Kind == yaml.SequenceNode:
		b = append(b, '[')
		for i, v := range items(n) {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendJSON(b, v)
		}
		return append(b, ']')
	case n.Tag == "!!int" || n.Tag == "!!bool" || n.Tag == "!!null":
		return append(b, n.Value...)
	}
	return appendString(b, n.Value)
}

func appendString(b []byte, s string) []byte {
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	if err := e.Encode(s); err != nil {
		panic(err) // a string always encodes
	}
	return append(b, bytes.TrimSuffix(out.Bytes(), []byte("\n"))...)
}

// prose reads the little of Markdown that the document uses: paragraphs, **strong**
// and `code`.
func prose(s string) []paragraph {
	var out []paragraph
	for part := range strings.SplitSeq(strings.TrimSpace(s), "\n\n") {
		part = strings.Join(strings.Fields(part), " ")
		if part == "" {
			continue
		}
		var p paragraph
		for i, bit := range strings.Split(part, "`") {
			if i%2 == 1 {
				p = append(p, span{"code", bit})
				continue
			}
			for j, plain := range strings.Split(bit, "**") {
				style := ""
				if j%2 == 1 {
					style = "strong"
				}
				if plain != "" {
					p = append(p, span{style, plain})
				}
			}
		}
		out = append(out, p)
	}
	return out
}
