package console

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strings"
)

//go:embed assets
var assetFiles embed.FS

// assets are the files that browsers load, by their path under /assets/. The path
// holds a hash of the content, so that browsers may keep them for good.
type assets struct {
	byPath map[string]asset
	// paths is the path of each file, by its name.
	paths map[string]string
}

type asset struct {
	kind          string
	plain, zipped []byte
}

func loadAssets() (assets, error) {
	a := assets{map[string]asset{}, map[string]string{}}
	err := fs.WalkDir(assetFiles, "assets", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasSuffix(name, "LICENSE") {
			return err
		}
		content, err := assetFiles.ReadFile(name)
		if err != nil {
			return err
		}
		zipped, err := zip(content)
		if err != nil {
			return err
		}
		name = strings.TrimPrefix(name, "assets/")
		hash := sha256.Sum256(content)
		ext := path.Ext(name)
		at := "/assets/" + strings.TrimSuffix(name, ext) + "." + hex.EncodeToString(hash[:6]) + ext
		a.paths[name] = at
		a.byPath[at] = asset{mime.TypeByExtension(ext), content, zipped}
		return nil
	})
	if err != nil {
		return a, fmt.Errorf("reading the assets: %w", err)
	}
	return a, nil
}

func zip(content []byte) ([]byte, error) {
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(content); err != nil {
		return nil, err
	}
	err = w.Close()
	return b.Bytes(), err
}

// path is where a browser finds the file of that name.
func (a assets) path(name string) (string, error) {
	p, ok := a.paths[name]
	if !ok {
		return "", fmt.Errorf("no asset is named %q", name)
	}
	return p, nil
}

// ServeHTTP serves the files.
func (a assets) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f, ok := a.byPath[r.URL.Path]
	if !ok {
		http.NotFound(w, r)
		return
	}
	h := w.Header()
	h.Set("Content-Type", f.kind)
	h.Set("Cache-Control", "public, max-age=31536000, immutable")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Vary", "Accept-Encoding")
	body := f.plain
	if acceptsGzip(r) {
		h.Set("Content-Encoding", "gzip")
		body = f.zipped
	}
	_, _ = w.Write(body) // a client that is gone needs no answer
}

func acceptsGzip(r *http.Request) bool {
	return strings.Contains(r.Header.Get("Accept-Encoding"), "gzip")
}
