// Package logs captures what instances write to stdout and stderr, keeps it in bounded space and gives it to readers.
//
// The raw files are written by a side that outlives this process, so they are tailed, not piped: a restart goes on where the position file
// says. What was consumed is given back to the filesystem by punching holes, which, unlike a truncation, cannot lose a line that is
// written at the same moment. Lines are kept per function in two files of bounded size, so that those of instances that are gone
// can still be read. An instance that writes faster than its rate loses lines, never other instances' ones, and a marker says how much.
package logs
