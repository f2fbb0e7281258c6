// Package archtest holds the rules of the repository that the compiler does
// not check, as tests: which package may import which, that every package says
// what it is for, that everything exported is documented, and that nothing is
// left half done.
//
// May import: nothing of ours. Its tests ask the go command and read sources.
package archtest
