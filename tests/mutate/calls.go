package main

// calls are the mutations of what holds a call on its way through the gateway: how long it may wait and take, and what is kept for it.
var calls = []mutation{
	{
		"an alarm of a function's that waits for those that were set before",
		"gateway/invoke/alarms.go", "!a.due[0].at.Before(a.next)", "a.due[0].at.Before(a.next)", "./gateway/invoke:TestFunctionsShareAlarms",
	},
	{
		"alarms that ring once",
		"gateway/invoke/alarms.go", "\ta.next = time.Time{}\n", "", "./gateway/invoke:TestFunctionsShareAlarms",
	},
	{
		"an alarm for each call",
		"gateway/invoke/deadlines.go", "if d.next.IsZero() || e.at.Before(d.next) {\n\t\td.set(", "if true {\n\t\td.set(", "./gateway/invoke:TestABusyFunctionSetsItsAlarmOnce",
	},
	{
		"a wait that outlives its deadline, refused just then",
		"gateway/invoke/waiters.go", "\tw.late = true\n", "", "./gateway/invoke:TestAWaitEndsAtItsDeadline",
	},
	{
		"a gateway that holds what only starts take of a revision",
		"gateway/invoke/routes.go", "t.revisions[rev.ID] = forCalls(rev)", "t.revisions[rev.ID] = &rev", "./gateway/invoke:TestAGatewayHoldsWhatCallsTake",
	},
	{
		"a status that is counted as the first one",
		"gateway/invoke/stats.go", "case s.usually == 0 || status == s.usual:", "case s.usually == 0 || status > 0:", "./gateway/invoke:TestStatsCountStatuses",
	},
}
