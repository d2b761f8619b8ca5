package main

import "time"

// shorten makes a trial of a run: each bench does all that it does, but a few times and for moments. What is given by flags behind it counts.
func shorten() {
	rounds = 1
	coldPerRound, coldFleet, sustainTime = 2, 10, 3*time.Second
	acceptPerRound, alwaysPerRound, containerTime = 4_000, 500, time.Second
	warmPhase, workPhase, flatFunctions = 500*time.Millisecond, 500*time.Millisecond, 4
	noisyPhase, overloadFor = 2*time.Second, 3*time.Second
}
