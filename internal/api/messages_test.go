package api

import (
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"

	"github.com/scrip-codes/scrip/internal/refusal"
	"github.com/scrip-codes/scrip/internal/web"
)

// codes is every refusal.Code, as its package declares them.
func codes(t *testing.T) []refusal.Code {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "../refusal/refusal.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var out []refusal.Code
	for _, d := range file.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok || g.Tok != token.CONST {
			continue
		}
		for _, s := range g.Specs {
			v := s.(*ast.ValueSpec)
			if id, ok := v.Type.(*ast.Ident); !ok || id.Name != "Code" {
				continue
			}
			text, err := strconv.Unquote(v.Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, refusal.Code(text))
		}
	}
	if len(out) < 40 {
		t.Fatalf("found only %d codes", len(out))
	}
	return out
}

func TestEveryCodeHasWordsAndStatus(t *testing.T) {
	texts, status, answers := web.Messages(), web.Statuses(), refusalAnswers()
	all := codes(t)
	for _, code := range all {
		checkWords(t, string(code), texts[code])
		on := status[code]
		if on.DropIn == 0 || on.DropIn >= 500 {
			t.Errorf("%s is answered with %d", code, on.DropIn)
		}
		if on.HTTP < 400 || on.HTTP >= 500 && on.HTTP != 503 {
			t.Errorf("%s is answered with %d under /api/v1", code, on.HTTP)
		}
		for l := range web.Tongues {
			if len(answers[code].bodies[l]) == 0 {
				t.Errorf("%s has no answer", code)
			}
		}
	}
	if len(texts) != len(all) || len(status) != len(all) {
		t.Errorf("%d codes, %d messages, %d statuses", len(all), len(texts), len(status))
	}
	for h, w := range hints() {
		checkWords(t, "hint "+strconv.Itoa(int(h)), w)
		if n := strings.Count(w.ZH, "%s"); strings.Count(w.JA, "%s") != n || strings.Count(w.EN, "%s") != n {
			t.Errorf("hint %d names the member in some languages only", h)
		}
	}
}

func checkWords(t *testing.T, name string, w web.Words) {
	t.Helper()
	has := func(s string, tables ...*unicode.RangeTable) bool {
		return strings.ContainsFunc(s, func(r rune) bool { return unicode.In(r, tables...) })
	}
	if !has(w.ZH, unicode.Han) || has(w.ZH, unicode.Hiragana, unicode.Katakana) {
		t.Errorf("%s: %q is not Chinese", name, w.ZH)
	}
	if !has(w.JA, unicode.Hiragana, unicode.Katakana) {
		t.Errorf("%s: %q is not Japanese", name, w.JA)
	}
	if w.EN == "" || has(w.EN, unicode.Han, unicode.Hiragana, unicode.Katakana) {
		t.Errorf("%s: %q is not English", name, w.EN)
	}
}

// TestQuotedMessages: clients compare these.
func TestQuotedMessages(t *testing.T) {
	texts := web.Messages()
	for code, zh := range map[refusal.Code]string{ //nolint:exhaustive // only those that the API documents
		refusal.RedemptionListFailed:    "获取兑换码列表失败",
		refusal.RedemptionSearchFailed:  "搜索兑换码失败",
		refusal.RedemptionDeleteFailed:  "删除失败",
		refusal.RedemptionNotFound:      "兑换码不存在",
		refusal.RedemptionNameLength:    "兑换码名称长度必须在1-20之间",
		refusal.RedemptionCountTooSmall: "兑换码个数必须大于0",
		refusal.RedemptionCountTooLarge: "一次兑换码批量生成的个数不能大于 100",
		refusal.RedemptionExpiry:        "过期时间不能早于当前时间",
		refusal.RedemptionKeyMissing:    "未提供兑换码",
		refusal.RedemptionUnknown:       "无效的兑换码",
		refusal.RedemptionUsed:          "该兑换码已被使用",
		refusal.RedemptionUsedByYou:     "该兑换码已被使用",
		refusal.RedemptionDisabled:      "该兑换码已被禁用",
		refusal.RedemptionExpired:       "该兑换码已过期",
	} {
		if texts[code].ZH != zh {
			t.Errorf("%s: %q, want %q", code, texts[code].ZH, zh)
		}
	}
}

// TestDocument: it is valid, and its codes and their texts are those of the
// program.
func TestDocument(t *testing.T) {
	d := openDocument(t)
	if err := d.doc.Validate(t.Context()); err != nil {
		t.Error(err)
	}
	all := codes(t)
	schema := d.doc.Components.Schemas["Code"].Value
	listed := make([]refusal.Code, len(schema.Enum))
	for i, c := range schema.Enum {
		listed[i] = refusal.Code(c.(string))
	}
	if !slices.Equal(listed, all) {
		t.Errorf("the document lists\n%v, there are\n%v", listed, all)
	}
	described, _ := schema.Extensions["x-enum-descriptions"].(map[string]any)
	for code, w := range web.Messages() {
		if described[string(code)] != w.EN {
			t.Errorf("%s: the document says %v, the program %q", code, described[string(code)], w.EN)
		}
	}
	var documented, routed []string
	for _, rt := range (&server{}).routesV1() {
		routed = append(routed, rt.pattern)
	}
	for path, item := range d.doc.Paths.Map() {
		for method, op := range item.Operations() {
			if surfaceOf(path) == v1 {
				documented = append(documented, method+" "+path)
			}
			refusals, _ := op.Extensions["x-refusals"].([]any)
			for _, c := range refusals {
				if !slices.Contains(all, refusal.Code(c.(string))) {
					t.Errorf("%s %s: no such code as %v", method, path, c)
				}
			}
			if op.Summary == "" || len(op.Tags) != 1 {
				t.Errorf("%s %s has no summary or not one tag", method, path)
			}
		}
	}
	slices.Sort(documented)
	slices.Sort(routed)
	if !slices.Equal(documented, routed) {
		t.Errorf("the document has\n%v, there are\n%v", documented, routed)
	}
}
