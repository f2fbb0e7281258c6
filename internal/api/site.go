package api

import (
	"context"
	_ "embed"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"time"
)

//go:generate go run ./docsgen -in openapi.yaml -out docs.html

// The document, and the page that docsgen makes of it.
var (
	//go:embed openapi.yaml
	openAPI []byte
	//go:embed docs.html
	docsPage []byte
	//go:embed docs.css
	docsStyle []byte
)

// readyFor bounds a look at whether the program is ready.
const readyFor = 5 * time.Second

func (s *server) healthz(w http.ResponseWriter, _ *http.Request) { plainText(w, http.StatusOK, "ok\n") }

func (s *server) readyz(w http.ResponseWriter, r *http.Request) {
	if s.Ready != nil {
		if err := s.ready(r); err != nil {
			s.Log.LogAttrs(r.Context(), slog.LevelWarn, "not ready", slog.Any("error", err))
			reason := "the database does not answer"
			if n, ok := errors.AsType[NotReady](err); ok {
				reason = string(n)
			}
			plainText(w, http.StatusServiceUnavailable, "not ready: "+reason+"\n")
			return
		}
	}
	plainText(w, http.StatusOK, "ok\n")
}

func (s *server) ready(r *http.Request) error {
	ctx, cancel := context.WithTimeout(r.Context(), readyFor)
	defer cancel()
	return s.Ready(ctx)
}

func plainText(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text) // a client that is gone needs no answer
}

// asset serves an embedded file. The policy lets a page load its style from
// here, and nothing else from anywhere.
func asset(contentType string, content []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		h := w.Header()
		h.Set("Content-Type", contentType)
		h.Set("Cache-Control", "no-cache")
		h.Set("Content-Security-Policy",
			"default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
		h.Set("Referrer-Policy", "no-referrer")
		_, _ = w.Write(content) // a client that is gone needs no answer
	}
}
