package bus

// SubjectTrafficWanted asks the gateway of every other server of a cluster what it did. Payload: TrafficWanted; each answers with TrafficParts.
const SubjectTrafficWanted = "tatami.wanted.traffic"

// TrafficWanted is a question to the gateways.
type TrafficWanted struct {
	Schema int `json:"schema"`
	// Server is who asks: it knows itself.
	Server string `json:"server"`
}

// TrafficPart is a part of what a gateway tells of itself.
type TrafficPart struct {
	Schema int `json:"schema"`
	// Server is its server's name, Boot its run.
	Server string `json:"server"`
	Boot   string `json:"boot"`
	// Part numbers the parts, from 0, Parts is how many there are.
	Part  int `json:"part"`
	Parts int `json:"parts"`
	// Functions are those that it was asked for since it runs.
	Functions []FunctionTraffic `json:"functions,omitempty"`
}

// FunctionTraffic is what one gateway saw of a function: counters since its start, levels of now, rate and durations of the last minute.
type FunctionTraffic struct {
	Namespace  string  `json:"namespace"`
	Function   string  `json:"function"`
	Requests   uint64  `json:"requests"`
	Errors     uint64  `json:"errors,omitempty"`
	ColdStarts uint64  `json:"coldStarts,omitempty"`
	InFlight   int     `json:"inFlight,omitempty"`
	Waiting    int     `json:"waiting,omitempty"`
	RPS        float64 `json:"rps,omitempty"`
	// Durations are pairs: a bucket of the gateways', and how many are in it.
	Durations [][2]uint64 `json:"durations,omitempty"`
}
