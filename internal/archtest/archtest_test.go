package archtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/scrip-codes/scrip"

// rule says what one package, and the packages below it, may import.
type rule struct {
	// ours lists the packages of this module, or anyOfOurs.
	ours []string
	// tests lists what tests may import of this module beside that.
	tests []string
	// pure marks the domain: outside the standard library only what
	// theirs lists, and no transport or driver by whatever way.
	pure   bool
	theirs []string
}

const anyOfOurs = "*"

// rules is the import rule, by path below the module. A package that isn't in
// it fails: whoever adds a package decides here what it may know.
func rules() map[string]rule {
	domain := []string{
		"internal/account", "internal/delivery", "internal/figures", "internal/fleet", "internal/guess",
		"internal/keyring", "internal/pickup", "internal/redemption", "internal/refusal",
	}
	and := func(packages ...string) []string { return slices.Concat(domain, packages) }
	crypto := []string{"golang.org/x/crypto"}
	basics := []string{"internal/guess", "internal/keyring", "internal/refusal"}

	return map[string]rule{
		"cmd/scrip":    {ours: []string{"internal/app"}},
		"internal/app": {ours: []string{anyOfOurs}},

		"internal/config": {},

		"internal/web":     {ours: []string{"internal/refusal"}},
		"internal/api":     {ours: and("internal/web"), tests: []string{"internal/enginetest", "internal/storetest"}},
		"internal/console": {ours: and("internal/web", "internal/sheet"), tests: []string{"internal/enginetest", "internal/storetest"}},
		"internal/broker":  {ours: and("internal/wire"), tests: []string{"internal/enginetest", "internal/rig", "internal/storetest"}},

		"internal/refusal": {pure: true},
		"internal/guess":   {pure: true, ours: []string{"internal/refusal"}},
		"internal/wire":    {pure: true},
		"internal/sheet":   {pure: true, theirs: []string{"rsc.io/qr"}},
		"internal/keyring": {pure: true, ours: []string{"internal/refusal"}, theirs: crypto},
		"internal/account": {pure: true, ours: basics, theirs: crypto},
		"internal/fleet":   {pure: true, ours: slices.Concat(basics, []string{"internal/account"})},
		"internal/figures": {pure: true, ours: []string{"internal/account", "internal/refusal"}},
		"internal/delivery": {
			pure: true,
			ours: slices.Concat(basics, []string{"internal/account"}),
		},
		"internal/redemption": {
			pure: true,
			ours: slices.Concat(basics, []string{"internal/account", "internal/delivery"}),
		},
		"internal/pickup": {
			pure: true,
			ours: slices.Concat(basics, []string{"internal/account", "internal/delivery", "internal/fleet"}),
		},

		"internal/sqlstore":  {ours: domain},
		"internal/sqlite":    {ours: and("internal/sqlstore"), tests: []string{"internal/storetest"}},
		"internal/postgres":  {ours: and("internal/sqlstore"), tests: []string{"internal/rig", "internal/storetest"}},
		"internal/storetest": {ours: domain},
		"internal/enginetest": {
			ours: []string{"internal/postgres", "internal/rig", "internal/sqlite", "internal/storetest"},
		},

		"internal/bench":       {ours: and("device", "internal/api", "internal/broker", "internal/console", "internal/postgres", "internal/rig", "internal/sqlite", "internal/wire")},
		"internal/rig":         {pure: true},
		"internal/browsertest": {},
		"internal/archtest":    {},

		"client": {},
		"device": {ours: []string{"internal/wire"}},
	}
}

// impure lists what the domain never depends on, not even through another
// package. An entry stands for the packages below it too.
func impure() []string {
	return []string{
		"database/sql",
		"net/http",
		"net/rpc",
		"net/smtp",
		"github.com/eclipse/paho.golang",
		"github.com/jackc/pgx",
		"github.com/mochi-mqtt/server",
		"github.com/pressly/goose",
		"modernc.org/sqlite",
	}
}

// forTests lists what is not in the program, whoever may import any of ours.
func forTests() []string { return []string{"internal/enginetest", "internal/storetest"} }

func TestImports(t *testing.T) {
	rules := rules()
	checked := make(map[string]bool)
	for _, pkg := range packages(t) {
		name, ok := governing(rules, pkg.path())
		if !ok {
			t.Errorf("%s is not in the import rule: add it", pkg.path())
			continue
		}
		checked[name] = true
		for _, problem := range rules[name].problems(name, pkg) {
			t.Errorf("%s %s", pkg.path(), problem)
		}
	}

	// A table entry that is spelt differently from its directory, or a list
	// of packages that came back short, would check nothing, in silence.
	root := repository(t)
	for name := range rules {
		if hasGoFiles(t, root, name) && !checked[name] {
			t.Errorf("%s exists and was not checked", name)
		}
	}
	if len(checked) < 5 {
		t.Errorf("only %d packages were checked: %v", len(checked), checked)
	}
}

// TestImportsFindsViolations shows the rule made-up packages that break it.
func TestImportsFindsViolations(t *testing.T) {
	const (
		httpImport = "net/http"
		sqlImport  = "database/sql"
	)
	cases := []struct {
		what string
		pkg  goPackage
		ok   bool
	}{
		{"a domain package and its own", goPackage{ImportPath: ours("internal/redemption"), Imports: []string{"context", ours("internal/account"), ours("internal/redemption/x")}}, true},
		{"a domain package and HTTP", goPackage{ImportPath: ours("internal/redemption"), Imports: []string{httpImport}, Deps: []string{httpImport}}, false},
		{"a domain package and SQL by a detour", goPackage{ImportPath: ours("internal/account"), Imports: []string{"context"}, Deps: []string{"context", sqlImport}}, false},
		{"a domain package and a driver below its module", goPackage{ImportPath: ours("internal/account"), Deps: []string{"modernc.org/sqlite/lib"}}, false},
		{"a domain package and its engine", goPackage{ImportPath: ours("internal/redemption"), Imports: []string{ours("internal/sqlite")}}, false},
		{"a domain package that looks upwards", goPackage{ImportPath: ours("internal/account"), Imports: []string{ours("internal/redemption")}}, false},
		{"a domain package and a library", goPackage{ImportPath: ours("internal/redemption"), Imports: []string{"golang.org/x/crypto/argon2"}}, false},
		{"passwords and a library", goPackage{ImportPath: ours("internal/account"), Imports: []string{"golang.org/x/crypto/argon2"}}, true},
		{"a surface and an engine", goPackage{ImportPath: ours("internal/api"), Imports: []string{ours("internal/sqlite")}}, false},
		{"a surface's test and the engine under test", goPackage{ImportPath: ours("internal/api"), TestImports: []string{ours("internal/enginetest")}}, true},
		{"a surface's test and one engine", goPackage{ImportPath: ours("internal/api"), TestImports: []string{ours("internal/sqlite")}}, false},
		{"a surface and the engine under test", goPackage{ImportPath: ours("internal/api"), Imports: []string{ours("internal/enginetest")}}, false},
		{"the wiring and the engine under test", goPackage{ImportPath: ours("internal/app"), Imports: []string{ours("internal/enginetest")}}, false},
		{"a surface and the wiring", goPackage{ImportPath: ours("internal/api"), Imports: []string{ours("internal/app")}}, false},
		{"a test and the wiring", goPackage{ImportPath: ours("internal/api"), XTestImports: []string{ours("internal/app")}}, false},
		{"an engine, its driver and the domain", goPackage{ImportPath: ours("internal/sqlite"), Imports: []string{sqlImport, ours("internal/account")}, Deps: []string{sqlImport}}, true},
		{"an engine and a surface", goPackage{ImportPath: ours("internal/sqlite"), Imports: []string{ours("internal/api")}}, false},
		{"the settings and anything", goPackage{ImportPath: ours("internal/config"), Imports: []string{ours("internal/account")}}, false},
		{"main and an engine", goPackage{ImportPath: ours("cmd/scrip"), Imports: []string{ours("internal/sqlite")}}, false},
		{"main and the wiring", goPackage{ImportPath: ours("cmd/scrip"), Imports: []string{ours("internal/app")}}, true},
	}
	rules := rules()
	for _, c := range cases {
		t.Run(c.what, func(t *testing.T) {
			name, found := governing(rules, c.pkg.path())
			if !found {
				t.Fatalf("%s is not in the import rule", c.pkg.path())
			}
			problems := rules[name].problems(name, c.pkg)
			if c.ok != (len(problems) == 0) {
				t.Errorf("problems = %q, want none: %t", problems, c.ok)
			}
		})
	}

	for _, pkg := range []string{"internal/apiary", "internal/new", "cmd/other"} {
		if name, found := governing(rules, pkg); found {
			t.Errorf("%s is governed by the rule of %s", pkg, name)
		}
	}
}

// TestForbiddenPathsExist: a path that was renamed or left would forbid
// nothing. Each must be known to Go, or to go.mod, or belong to what the
// house plan names for later.
func TestForbiddenPathsExist(t *testing.T) {
	later := []string{
		"github.com/jackc/pgx",
	}
	var std []string
	for line := range strings.Lines(string(output(t, exec.CommandContext(t.Context(), "go", "list", "std")))) {
		std = append(std, strings.TrimSpace(line))
	}
	mod, err := fs.ReadFile(repository(t), "go.mod")
	if err != nil {
		t.Fatal(err)
	}
	for _, forbidden := range impure() {
		if slices.Contains(std, forbidden) || bytes.Contains(mod, []byte("\t"+forbidden)) {
			continue
		}
		if !slices.Contains(later, forbidden) {
			t.Errorf("%s is forbidden, but neither Go nor go.mod knows it", forbidden)
		}
	}
}

func TestPackageDocs(t *testing.T) {
	root := repository(t)
	for _, pkg := range packages(t) {
		var docs []string
		for _, f := range pkg.parse(t, root) {
			if f.syntax.Doc != nil {
				docs = append(docs, f.syntax.Doc.Text())
			}
		}
		doc := strings.Join(strings.Fields(strings.Join(docs, "\n")), " ")
		if len(doc) < 40 {
			t.Errorf("%s: the package comment must say what the package is for; it is %q", pkg.path(), doc)
			continue
		}
		if pkg.Name != "main" && !strings.HasPrefix(doc, "Package "+pkg.Name+" ") {
			t.Errorf("%s: the package comment must begin with \"Package %s\"", pkg.path(), pkg.Name)
		}
		if strings.HasPrefix(pkg.path(), "internal/") && !regexp.MustCompile(`\b(May import|Imports)\b`).MatchString(doc) {
			t.Errorf("%s: the package comment must say what the package may import (\"May import …\")", pkg.path())
		}
	}
}

func TestExportedDocs(t *testing.T) {
	root := repository(t)
	for _, pkg := range packages(t) {
		for _, f := range pkg.parse(t, root) {
			for _, name := range undocumented(f.syntax) {
				t.Errorf("%s: %s is exported and has no comment", f.name, name)
			}
		}
	}
}

func TestExportedDocsFindsUndocumented(t *testing.T) {
	const source = `package p

type A struct{}

func (A) B() {}

func (*A) c() {}

type d struct{}

func (d) E() {}

func F() {}

const G = 1

// Documented as a group.
const (
	H = 1
	I = 2
)

// J is documented.
type J interface {
	K()
	// L is documented.
	L()
	m()
	error
}

type (
	// N is documented.
	N int
	O int
)

var (
	P = 1 // P is documented.
	q = 2
)

type R[T any] struct{}

func (R[T]) S() {}
`
	syntax, err := parser.ParseFile(token.NewFileSet(), "p.go", source, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"A", "A.B", "F", "G", "J.K", "O", "R", "R.S"}
	if got := undocumented(syntax); !slices.Equal(got, want) {
		t.Errorf("undocumented = %v, want %v", got, want)
	}
}

func TestNothingLeftToDo(t *testing.T) {
	// Put together, so that this file passes its own test.
	mark := regexp.MustCompile(`\b(` + "TO" + "DO|FIX" + "ME|XX" + `X)\b`)
	for name, source := range goFiles(t, repository(t)) {
		for i, line := range bytes.Split(source, []byte("\n")) {
			if m := mark.Find(line); m != nil {
				t.Errorf("%s:%d: %s", name, i+1, m)
			}
		}
	}
}

// TestGeneratedFiles: linters, reviewers and tools know a generated file by the
// standard line alone.
func TestGeneratedFiles(t *testing.T) {
	named := regexp.MustCompile(`(^|/)(zz_generated[^/]*|[^/]*(_gen|\.gen|_generated|_string|\.pb))\.go$`)
	claims := regexp.MustCompile(`(?im)^//.*\bcode generated\b`)
	for name, source := range goFiles(t, repository(t)) {
		syntax, err := parser.ParseFile(token.NewFileSet(), name, source, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if (named.MatchString(name) || claims.Match(source)) && !ast.IsGenerated(syntax) {
			t.Errorf("%s: a generated file must carry the line \"// Code generated by …; DO NOT EDIT.\" above its package clause", name)
		}
	}
}

// problems lists the imports of pkg that r, the rule called name, forbids.
func (r rule) problems(name string, pkg goPackage) []string {
	var problems []string
	check := func(imports []string, test bool) {
		for _, imported := range imports {
			switch local, isOurs := cut(imported); {
			case isOurs && !test && !within(local, name) && anyWithin(local, forTests()) && !slices.Contains(r.ours, local):
				problems = append(problems, "must not import "+imported+": it is for tests")
			case isOurs && !within(local, name) && !r.allows(local, test):
				problems = append(problems, "must not import "+imported)
			case !isOurs && !test && r.pure && strings.Contains(imported, ".") && !anyWithin(imported, r.theirs):
				problems = append(problems, "must not import "+imported+": it is for the standard library only")
			}
		}
	}
	check(pkg.Imports, false)
	check(pkg.TestImports, true)
	check(pkg.XTestImports, true)
	if r.pure {
		for _, dep := range pkg.Deps {
			if anyWithin(dep, impure()) {
				problems = append(problems, "must not depend on "+dep)
			}
		}
	}
	return problems
}

func (r rule) allows(local string, test bool) bool {
	return slices.Contains(r.ours, anyOfOurs) || anyWithin(local, r.ours) || test && anyWithin(local, r.tests)
}

// governing returns the name of the rule for a package: its own, or that of the
// nearest package above it.
func governing(rules map[string]rule, local string) (name string, ok bool) {
	for name = local; name != "."; name = path.Dir(name) {
		if _, ok = rules[name]; ok {
			return name, true
		}
	}
	return "", false
}

// undocumented lists what a file exports without a comment: functions, types
// and their methods, methods of interfaces, constants and variables. A comment
// on a group of constants or variables stands for all of them.
func undocumented(file *ast.File) []string {
	if ast.IsGenerated(file) {
		return nil
	}
	var names []string
	for _, decl := range file.Decls {
		switch decl := decl.(type) {
		case *ast.FuncDecl:
			if name, exported := exportedFunc(decl); exported && decl.Doc == nil {
				names = append(names, name)
			}
		case *ast.GenDecl:
			for _, spec := range decl.Specs {
				names = append(names, undocumentedSpec(decl, spec)...)
			}
		}
	}
	return names
}

func undocumentedSpec(decl *ast.GenDecl, spec ast.Spec) []string {
	var names []string
	switch spec := spec.(type) {
	case *ast.TypeSpec:
		if !spec.Name.IsExported() {
			return nil
		}
		if spec.Doc == nil && (decl.Doc == nil || decl.Lparen.IsValid()) {
			names = append(names, spec.Name.Name)
		}
		if contract, ok := spec.Type.(*ast.InterfaceType); ok {
			for _, method := range contract.Methods.List {
				for _, name := range method.Names {
					if name.IsExported() && method.Doc == nil && method.Comment == nil {
						names = append(names, spec.Name.Name+"."+name.Name)
					}
				}
			}
		}
	case *ast.ValueSpec:
		for _, name := range spec.Names {
			if name.IsExported() && spec.Doc == nil && spec.Comment == nil && decl.Doc == nil {
				names = append(names, name.Name)
			}
		}
	}
	return names
}

// exportedFunc returns a function's name, with that of its receiver, and
// whether other packages can call it.
func exportedFunc(decl *ast.FuncDecl) (name string, exported bool) {
	name, exported = decl.Name.Name, decl.Name.IsExported()
	if decl.Recv == nil {
		return name, exported
	}
	for receiver := decl.Recv.List[0].Type; ; {
		switch r := receiver.(type) {
		case *ast.StarExpr:
			receiver = r.X
		case *ast.IndexExpr:
			receiver = r.X
		case *ast.IndexListExpr:
			receiver = r.X
		case *ast.Ident:
			return r.Name + "." + name, exported && r.IsExported()
		default:
			return name, exported
		}
	}
}

// goPackage is what `go list` says about a package.
type goPackage struct {
	ImportPath   string
	Name         string
	Dir          string
	GoFiles      []string
	Imports      []string
	TestImports  []string
	XTestImports []string
	Deps         []string
}

// path is the import path below the module.
func (p goPackage) path() string {
	local, _ := cut(p.ImportPath)
	return local
}

type sourceFile struct {
	name   string
	syntax *ast.File
}

// parse reads the package's files, except its tests.
func (p goPackage) parse(t *testing.T, root fs.FS) []sourceFile {
	t.Helper()
	var files []sourceFile
	for _, base := range p.GoFiles {
		name := path.Join(p.path(), base)
		source, err := fs.ReadFile(root, name)
		if err != nil {
			t.Fatal(err)
		}
		syntax, err := parser.ParseFile(token.NewFileSet(), name, source, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, sourceFile{name, syntax})
	}
	return files
}

// packages lists the packages of the module.
func packages(t *testing.T) []goPackage {
	t.Helper()
	decoder := json.NewDecoder(bytes.NewReader(output(t, exec.CommandContext(t.Context(),
		"go", "list", "-json=ImportPath,Name,Dir,GoFiles,Imports,TestImports,XTestImports,Deps", module+"/..."))))
	var packages []goPackage
	for {
		var pkg goPackage
		switch err := decoder.Decode(&pkg); {
		case err == nil:
			packages = append(packages, pkg)
		case errors.Is(err, io.EOF):
			if len(packages) == 0 {
				t.Fatal("go list found no package")
			}
			return packages
		default:
			t.Fatal(err)
		}
	}
}

// output runs a command and returns what it printed.
func output(t *testing.T, command *exec.Cmd) []byte {
	t.Helper()
	var stderr bytes.Buffer
	command.Stderr = &stderr
	out, err := command.Output()
	if err != nil {
		t.Fatalf("%v: %v\n%s", command.Args, err, stderr.Bytes())
	}
	return out
}

// repository opens the root of the module.
func repository(t *testing.T) fs.FS {
	t.Helper()
	mod := strings.TrimSpace(string(output(t, exec.CommandContext(t.Context(), "go", "env", "GOMOD"))))
	root, err := os.OpenRoot(filepath.Dir(mod))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := root.Close(); err != nil {
			t.Error(err)
		}
	})
	return root.FS()
}

// goFiles reads every Go file of the repository, tests too.
func goFiles(t *testing.T, root fs.FS) map[string][]byte {
	t.Helper()
	files := make(map[string][]byte)
	err := fs.WalkDir(root, ".", func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir():
			base := entry.Name()
			if name != "." && (strings.HasPrefix(base, ".") || base == "testdata" || base == "bin" || base == "data") {
				return fs.SkipDir
			}
			return nil
		case path.Ext(name) != ".go":
			return nil
		}
		source, err := fs.ReadFile(root, name)
		files[name] = source
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Fatal("found no Go file")
	}
	return files
}

// hasGoFiles reports whether a directory is a package.
func hasGoFiles(t *testing.T, root fs.FS, dir string) bool {
	t.Helper()
	matches, err := fs.Glob(root, dir+"/*.go")
	if err != nil {
		t.Fatal(err)
	}
	return len(matches) > 0
}

// ours is the import path of a package of this module.
func ours(local string) string { return module + "/" + local }

// cut takes the module away from an import path.
func cut(importPath string) (local string, isOurs bool) {
	if importPath == module {
		return ".", true
	}
	return strings.CutPrefix(importPath, module+"/")
}

// within reports whether a package is dir or lies below it.
func within(pkg, dir string) bool {
	return pkg == dir || strings.HasPrefix(pkg, dir+"/")
}

func anyWithin(pkg string, dirs []string) bool {
	return slices.ContainsFunc(dirs, func(dir string) bool { return within(pkg, dir) })
}
