// Package state is what the scheduler knows, and the reducers that change it: the records of functions, revisions and quotas; nodes and
// instances as workers report them; the demand that gateways state.
//
// It is pure: reducers take the time as an argument, do no I/O and start nothing. Applying the same record, report or message twice changes
// nothing the second time. An instance is reserved here before its start is commanded, and what is reserved counts against the node and the
// namespace's quota until a report says that it is gone or its node is lost: no two decisions share resources. Instances are never stored;
// after a restart they are learnt again from the full reports, and a node takes nothing before its own.
package state
