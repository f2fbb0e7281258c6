// Package browsertest holds the tests of the console in a real browser: the real
// program, Chromium, and what people do with both. Nothing imports it. Imports:
// none; its tests chromedp and the standard library.
package browsertest
