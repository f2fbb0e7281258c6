// Package web is what HTTP for programs and HTTP for people share: who asks, in
// which language, and the words and status of every refusal. Imports: refusal,
// x/text and the standard library.
package web
