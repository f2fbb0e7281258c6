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
	texts, status, answers := messages(), statuses(), refusalAnswers()
	all := codes(t)
	for _, code := range all {
		checkWords(t, string(code), texts[code])
		on := status[code]
		if on.dropIn == 0 || on.dropIn >= 500 {
			t.Errorf("%s is answered with %d", code, on.dropIn)
		}
		if on.v1 < 400 || on.v1 >= 500 && on.v1 != 503 {
			t.Errorf("%s is answered with %d under /api/v1", code, on.v1)
		}
		for l := range tongues {
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
		if n := strings.Count(w.zh, "%s"); strings.Count(w.ja, "%s") != n || strings.Count(w.en, "%s") != n {
			t.Errorf("hint %d names the member in some languages only", h)
		}
	}
}

func checkWords(t *testing.T, name string, w words) {
	t.Helper()
	has := func(s string, tables ...*unicode.RangeTable) bool {
		return strings.ContainsFunc(s, func(r rune) bool { return unicode.In(r, tables...) })
	}
	if !has(w.zh, unicode.Han) || has(w.zh, unicode.Hiragana, unicode.Katakana) {
		t.Errorf("%s: %q is not Chinese", name, w.zh)
	}
	if !has(w.ja, unicode.Hiragana, unicode.Katakana) {
		t.Errorf("%s: %q is not Japanese", name, w.ja)
	}
	if w.en == "" || has(w.en, unicode.Han, unicode.Hiragana, unicode.Katakana) {
		t.Errorf("%s: %q is not English", name, w.en)
	}
}

// TestQuotedMessages: clients compare these.
func TestQuotedMessages(t *testing.T) {
	texts := messages()
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
		if texts[code].zh != zh {
			t.Errorf("%s: %q, want %q", code, texts[code].zh, zh)
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
	for code, w := range messages() {
		if described[string(code)] != w.en {
			t.Errorf("%s: the document says %v, the program %q", code, described[string(code)], w.en)
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
