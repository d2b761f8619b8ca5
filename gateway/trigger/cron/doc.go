// Package cron fires a trigger at the times of a schedule, in its own time zone.
//
// Where clocks are put forward, what a schedule with fixed hours would have done in the hour that is left out is done once, at the moment of the
// change; where they are put back, it is done in the first of the two hours only. A schedule that is about every hour (its hours begin with '*')
// goes by the clock as it is shown: nothing in the hour left out, and twice what is in the hour that comes twice.
package cron
