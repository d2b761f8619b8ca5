package main

// operators are the mutations of what an operator of a cluster is shown.
var operators = []mutation{
	{
		"figures of one gateway of several",
		"gateway/traffic/traffic.go", "\tfor _, g := range gateways {\n", "\tfor _, g := range gateways[:1] {\n", "./gateway/traffic:TestAllGatewaysTell",
	},
	{
		"a gateway that does not answer and counts as one that does nothing",
		"gateway/traffic/traffic.go", "} else if a.whole() {", "} else if a == nil {\n\t\t\tg.Told = true\n\t\t} else {", "./gateway/traffic:TestAGatewayThatDoesNotTell",
	},
	{
		"an answer that ends with its first part",
		"gateway/traffic/traffic.go", "len(a.came) == a.parts", "len(a.came) > 0", "./gateway/traffic:TestPartsOfAnAnswer",
	},
	{
		"percentiles of one gateway of several",
		"gateway/invoke/durations.go", "slices.Concat(s.Durations, o.Durations)", "slices.Concat(s.Durations)", "./gateway/invoke:TestStatsOfSeveralGateways",
	},
	{
		"a gateway that started anew and is followed as before",
		"gateway/live/gateways.go", "\t\t\tk.last = nil\n", "", "./gateway/live:TestFiguresAreOfAllGateways",
	},
	{
		"what gateways did before anybody looked as news",
		"gateway/live/gateways.go", "\t\t\tif fresh {\n", "\t\t\tif k == nil {\n", "./gateway/live:TestFiguresAreOfAllGateways",
	},
	{
		"metrics of a server that count the other gateways, too",
		"gateway/live/collect.go", "\t\t\tif g.Own {\n", "\t\t\tif g.Told {\n", "./gateway/live:TestMetricsAreOfTheOwnGateway",
	},
	{
		"a server whose figures are missing without a word",
		"gateway/api/traffic.go", "if s.Traffic == nil {", "if s.Traffic == nil && s.Name == \"\" {", "./gateway/api:TestWhatIsToldOfServers",
	},
	{
		"a token for a node of any name",
		"internal/bus/token.go", "functions.ValidateNodeName(\"node\", node)", "functions.CheckNodeLabel(\"node\", node)", "./internal/bus:TestTokensThatAreGoodForNothing",
	},
	{
		"a node's name of several lines",
		"cmd/tatami/nodeconfig_linux.go", "\tif err := functions.ValidateNodeName(\"node-name\", c.NodeName); err != nil {\n\t\treturn err\n\t}\n", "", "./cmd/tatami:TestBadSettings",
	},
	{
		"a copy of a server that starts beside the original",
		"internal/bus/bus.go", "\t\tif err := b.checkTwin(ctx); err != nil {\n\t\t\treturn err\n\t\t}\n", "", "./internal/bus:TestACopyOfAServerDoesNotStart",
	},
	{
		"a server that does not know which one it was",
		"internal/bus/twin.go", "\tid.Peer = b.cfg.Cluster.Listen\n", "", "./internal/bus:TestACopyOfAServerDoesNotStart",
	},
	{
		"an original that gives way to its copy",
		"internal/bus/twin.go", "if b.identity.Peer == b.cfg.Cluster.Listen {\n\t\treturn nil\n\t}\n\treturn b.twinFault", "if b.identity.Peer == \"-\" {\n\t\treturn nil\n\t}\n\treturn b.twinFault", "./internal/bus:TestACopyOfAServerGivesWay",
	},
	{
		"a gateway that tells the others nothing",
		"cmd/tatami/member_linux.go", "\t\t{name: \"traffic\", run: m.traffic.Run},\n", "", "./tests/e2e TestTrafficOfAllServers",
	},
}
