package config

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// parseFile reads lines of KEY=VALUE. It takes only what other readers of such
// files (systemd, Docker, a shell) take to mean the same, since a secret that
// one of them reads differently locks its owner out: a value is taken as it
// stands, or between one pair of quotes; $, \ and quotes within it are refused
// unless single quotes keep them as they are. What it says of a line never
// repeats the line, which may hold a secret.
func parseFile(text string) (map[string]string, error) {
	out := map[string]string{}
	number := 0
	for line := range strings.Lines(strings.TrimPrefix(text, "\ufeff")) {
		number++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' || line[0] == ';' {
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		if key = strings.TrimSpace(key); !ok || !validKey(key) {
			return nil, fmt.Errorf("line %d: it is not KEY=VALUE", number)
		}
		if _, again := out[key]; again {
			return nil, fmt.Errorf("line %d: %s is set a second time", number, key)
		}
		value, err := parseValue(strings.TrimSpace(value))
		if err != nil {
			return nil, fmt.Errorf("line %d: %s: %w", number, key, err)
		}
		out[key] = value
	}
	return out, nil
}

func validKey(key string) bool {
	for i, r := range key {
		if r != '_' && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') && (i == 0 || r < '0' || r > '9') {
			return false
		}
	}
	return key != ""
}

func parseValue(value string) (string, error) {
	if !utf8.ValidString(value) || strings.ContainsFunc(value, unicode.IsControl) {
		return "", fmt.Errorf("the value is not text")
	}
	quote := byte(0)
	if value != "" && (value[0] == '\'' || value[0] == '"') {
		if quote = value[0]; len(value) < 2 || value[len(value)-1] != quote {
			return "", fmt.Errorf("the quotes do not close")
		}
		value = value[1 : len(value)-1]
	}
	switch {
	case quote == '\'' && strings.Contains(value, "'"), quote != '\'' && strings.ContainsAny(value, "$`\\\"'"):
		return "", fmt.Errorf("quotes, $ and \\ are read differently by different programs; put the value in single quotes")
	case quote == 0 && (strings.Contains(value, " #") || strings.Contains(value, "\t#")):
		return "", fmt.Errorf("put comments on lines of their own, or the value in single quotes")
	}
	return value, nil
}
