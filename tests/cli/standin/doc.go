// Package standin runs the real control API, on a real store and behind the real listeners' guards, with stand-ins for what needs
// containers: a scheduler that does with a deploy what the test says, a public listener whose functions are written here, and a queue,
// logs and exec with fixed content.
package standin
