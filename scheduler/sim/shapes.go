package sim

// The shapes of the production workload that "Serverless in the Wild" (Shahrad and others, USENIX ATC 2020) describes; its traces are the
// Azure Functions traces of 2019. Where the paper gives a curve, the points here lie on it.
const (
	// timerApps is the share of applications that have a timer; timerFunctions that of functions that are timers, here of the others in an
	// application with several.
	timerApps      = 0.29
	timerFunctions = 0.16
	// regular is the share of what is no timer whose calls come independently of each other (coefficient of variation near 1); the rest comes
	// in bursts (above 1), as for about two applications in five.
	regular = 30.0 / 71
	// swing is by how much the rate of regular calls rises and falls in a day.
	swing = 0.5
	// Bursts are gaps of two kinds: briefly of so many, of shortGap times the mean, and of longGap times the mean. Their coefficient of
	// variation is 2.7.
	briefly, shortGap, longGap = 0.8, 0.1, 4.6
	// The functions' mean durations are log-normal, in seconds.
	durationMu, durationSigma = -0.38, 2.36
	// The applications' memory follows a Burr distribution, in MB.
	memoryC, memoryK, memoryScale = 11.652, 0.221, 107.083
	// Bounds of the simulation, not of the paper: the longest run, and the largest memory.
	longestRun = 600_000
	mostMemory = 1536
)

// dailyCalls are points of the cumulative distribution of calls a day of an application: its share, and how many at most. The paper's curve ends
// at 1e8; the last point is cut so that a week can be simulated.
var dailyCalls = []struct{ share, daily float64 }{{0, 0.2}, {0.45, 24}, {0.81, 1440}, {1, 20_000}}

// functionsPerApp is how many functions an application has.
var functionsPerApp = []struct {
	share    float64
	from, to int
}{{0.54, 1, 1}, {0.16, 2, 2}, {0.10, 3, 3}, {0.08, 4, 5}, {0.07, 6, 10}, {0.05, 11, 20}}

// timerPeriods are the periods of timers in minutes; a rate is rounded to the nearest.
var timerPeriods = []float64{1, 5, 10, 15, 30, 60, 120, 360, 720, 1440}
