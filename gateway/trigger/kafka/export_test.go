package kafka

// Options is options, for tests of what a client is made with.
var Options = options
