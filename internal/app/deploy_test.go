package app_test

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/oasdiff/yaml3"

	"github.com/scrip-codes/scrip/internal/config"
)

// deployed reads the files that operators are given: those below deploy, and
// the others that name settings. Names are paths below the repository.
func deployed(t *testing.T) map[string]string {
	t.Helper()
	files := map[string]string{}
	root := os.DirFS("../..")
	read := func(name string) {
		b, err := fs.ReadFile(root, name)
		if err != nil {
			t.Fatal(err)
		}
		files[name] = string(b)
	}
	if err := fs.WalkDir(root, "deploy", func(name string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && d.Name() != ".env" {
			read(name)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"Dockerfile", "docs/operations.md"} {
		read(name)
	}
	for _, name := range []string{
		"deploy/compose/compose.yaml", "deploy/grafana/scrip.json", "deploy/kubernetes/scrip.yaml",
		"deploy/prometheus/alerts.yaml", "deploy/systemd/scrip.env", "deploy/systemd/scrip.service",
	} {
		if files[name] == "" {
			t.Errorf("%s is missing", name)
		}
	}
	return files
}

// documents parses a file of YAML or JSON documents, none of them empty.
func documents(t *testing.T, name, text string) (all []any) {
	t.Helper()
	if strings.HasSuffix(name, ".json") {
		var v any
		if err := json.Unmarshal([]byte(text), &v); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		return []any{v}
	}
	for d := yaml.NewDecoder(strings.NewReader(text)); ; {
		var v any
		err := d.Decode(&v)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil || v == nil {
			t.Fatalf("%s, document %d: %v, %v", name, len(all)+1, v, err)
		}
		all = append(all, v)
	}
}

// values finds the text under a key, wherever in a document it stands.
func values(v any, key string) (found []string) {
	switch v := v.(type) {
	case map[string]any:
		for k, below := range v {
			if text, ok := below.(string); ok && k == key {
				found = append(found, text)
			}
			found = append(found, values(below, key)...)
		}
	case []any:
		for _, below := range v {
			found = append(found, values(below, key)...)
		}
	}
	return found
}

func TestDeployedSettingsAreKnown(t *testing.T) {
	var known []string
	for field := range reflect.TypeFor[config.Flags]().Fields() {
		known = append(known, field.Tag.Get("setting"))
	}
	setting := regexp.MustCompile(`\bSCRIP_[A-Z_]+\b`)
	for name, text := range deployed(t) {
		for _, s := range setting.FindAllString(text, -1) {
			if !slices.Contains(known, s) {
				t.Errorf("%s names the setting %s, which there is not", name, s)
			}
		}
	}
}

// TestDeployedFilesFitTheServer: what dashboard, alerts and probes ask for is
// there, by name and by the values of its labels.
func TestDeployedFilesFitTheServer(t *testing.T) {
	s := start(t, settings(t))
	// One that uses another broker, which need not be there, has metrics of its own.
	outside := start(t, settings(t, "SCRIP_MQTT_ADDR=", "SCRIP_MQTT_URL=mqtt://127.0.0.1:1"))
	get := func(s *server, path string) string {
		resp, err := http.Get(s.url + path) //nolint:noctx // a server of this test, on this machine
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		text, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Errorf("GET %s: %s, %v", path, resp.Status, err)
		}
		return string(text)
	}
	served := get(s, "/metrics") + get(outside, "/metrics")

	var (
		metric   = regexp.MustCompile(`\b(?:scrip|process|go)_[a-z_]+\b`)
		selector = regexp.MustCompile(`\b(scrip_[a-z_]+)\{([^}]*(?:\{[^}]*\}[^}]*)*)\}`)
		matcher  = regexp.MustCompile(`\b(code|reason|route|method)=~?"([^"]+)"`)
		quoted   = regexp.MustCompile(`"[^"]*"`)
	)
	seen := map[string]int{}
	for name, text := range deployed(t) {
		if ext := filepath.Ext(name); ext != ".yaml" && ext != ".json" {
			continue
		}
		for _, document := range documents(t, name, text) {
			seen[name]++
			for _, path := range values(document, "path") {
				get(s, path)
			}
			for _, expression := range values(document, "expr") {
				seen["expressions in "+name]++
				for _, m := range metric.FindAllString(quoted.ReplaceAllString(expression, `""`), -1) {
					if !regexp.MustCompile(`(?m)^` + m + `[ {]`).MatchString(served) {
						t.Errorf("%s asks for %s, which is not served, in %s", name, m, expression)
					}
				}
				for _, sel := range selector.FindAllStringSubmatch(expression, -1) {
					for _, m := range matcher.FindAllStringSubmatch(sel[2], -1) {
						for value := range strings.SplitSeq(m[2], "|") {
							series := regexp.QuoteMeta(m[1] + `="` + value + `"`)
							if !regexp.MustCompile(`(?m)^` + sel[1] + `\{(.*,)?` + series).MatchString(served) {
								t.Errorf("%s asks for %s with %s %q, which is not served", name, sel[1], m[1], value)
							}
						}
					}
				}
			}
		}
	}
	for what, least := range map[string]int{
		"deploy/compose/compose.yaml": 1, "deploy/kubernetes/scrip.yaml": 4,
		"expressions in deploy/grafana/scrip.json": 20, "expressions in deploy/prometheus/alerts.yaml": 10,
	} {
		if seen[what] < least {
			t.Errorf("looked at %d of %s, want at least %d", seen[what], what, least)
		}
	}
}
