package invoke

import (
	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
)

// grant is what a waiter gets: a slot taken on an instance, or why there will be none.
type grant struct {
	inst *instance
	ep   *bus.Endpoint
	rev  *functions.Revision
	err  error
}

// waiter waits for a slot. It is in one list at most.
type waiter struct {
	class      Class
	ready      chan grant
	list       *waitList
	prev, next *waiter
}

func newWaiter(c Class) *waiter { return &waiter{class: c, ready: make(chan grant, 1)} }

// waitList is a first-in first-out list from whose middle a waiter may leave.
type waitList struct {
	head, tail *waiter
	n          int
}

func (l *waitList) pushBack(w *waiter) {
	w.list, w.prev, w.next = l, l.tail, nil
	if l.tail != nil {
		l.tail.next = w
	} else {
		l.head = w
	}
	l.tail = w
	l.n++
}

// pushFront is for a waiter that was granted a slot it could not use.
func (l *waitList) pushFront(w *waiter) {
	w.list, w.prev, w.next = l, nil, l.head
	if l.head != nil {
		l.head.prev = w
	} else {
		l.tail = w
	}
	l.head = w
	l.n++
}

// remove reports whether w was in the list.
func (l *waitList) remove(w *waiter) bool {
	if w.list != l {
		return false
	}
	if w.prev != nil {
		w.prev.next = w.next
	} else {
		l.head = w.next
	}
	if w.next != nil {
		w.next.prev = w.prev
	} else {
		l.tail = w.prev
	}
	w.list, w.prev, w.next = nil, nil, nil
	l.n--
	return true
}

// popFront returns nil for an empty list.
func (l *waitList) popFront() *waiter {
	w := l.head
	if w != nil {
		l.remove(w)
	}
	return w
}
